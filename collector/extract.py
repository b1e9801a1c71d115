"""Which transaction is it? Finding the transaction ID, business keys, operation, actor and outcome in an event.

Keys are declared per service and operation (`KeyRule`), because one name means different things in different places: what one
operation logs as an order ID may be an account ID. What is found is recorded with the rule that found it, so that every
placement in a trail carries its reason.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from collector.errors import Malformed
from collector.event import Event

__all__ = ["Extractor", "Found", "KeyRule", "OperationRule", "StitchSettings"]

MAX_KEY_BYTES = 256
"""Longest transaction ID, key value, tenant or actor taken; a longer one is left in the event and marked `key_too_long`."""

_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}", re.ASCII)


class OperationRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names what an event is when its source does not (`event_name`).

    Attributes:
        services: glob patterns of ``service.name``; empty means every service.
        pattern: a regular expression searched in the body's text; its first group is the operation.
    """

    services: tuple[str, ...] = ()
    pattern: str


class KeyRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Declares where a business key stands. Exactly one of `fields`, `parts` and `pattern` is given.

    Attributes:
        name: the key's name: lower-case letters, digits, dots, underscores; from a letter, at most 64.
        services, operations: glob patterns of ``service.name`` and of the event's name; empty means all.
        except_operations: glob patterns of event names in which the same words mean something else.
        fields: paths such as ``attributes.order_id`` or ``body.order.id``; the first that is there.
        parts: a composite key: paths that must all be there, joined by ``|`` (a ``|`` inside is written ``%7C``).
        pattern: a regular expression searched in the body's text; its first group is the value.
    """

    name: str
    services: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    except_operations: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    pattern: str = ""


class StitchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where identities stand in events. Paths start with attributes., resource., body. or scope.attributes.

    Attributes:
        transaction: paths of the explicit transaction ID, first wins.
        baggage: names of W3C baggage members that hold it, looked up in ``attributes.baggage``.
        tenant, actor, outcome: paths, first wins.
        keys: declared business keys.
        operations: how to name events that come without a name.
    """

    transaction: tuple[str, ...] = (
        "attributes.transaction.id",
        "attributes.transaction_id",
        "attributes.transactionId",
        "resource.transaction.id",
    )
    baggage: tuple[str, ...] = ("transaction.id",)
    tenant: tuple[str, ...] = ("attributes.tenant.id", "resource.tenant.id")
    actor: tuple[str, ...] = ("attributes.enduser.id", "attributes.user.id", "attributes.actor")
    outcome: tuple[str, ...] = ("attributes.outcome", "attributes.event.outcome")
    keys: tuple[KeyRule, ...] = ()
    operations: tuple[OperationRule, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What extraction found: new values for the event's fields, the rule behind each, and marks."""

    transaction: str
    tenant: str
    actor: str
    outcome: str
    event_name: str
    keys: dict[str, str]
    rules: dict[str, str]
    marks: tuple[str, ...]


Getter = Callable[[Event], Any]
_Rule = tuple[str, str, Callable[[Event], str]]

_OUTCOMES: Mapping[str, str] = {
    "success": "success", "succeeded": "success", "ok": "success", "true": "success",
    "failure": "failure", "failed": "failure", "error": "failure", "false": "failure",
}  # fmt: skip
_EMPTY: dict[str, str] = {}


class Extractor:
    """The settings, compiled. Safe to share between threads.

    Raises:
        Malformed: a rule that cannot be used: says which and why.
    """

    def __init__(self, settings: StitchSettings) -> None:
        self._transaction = [(path, _getter(path)) for path in settings.transaction]
        self._baggage = settings.baggage
        self._tenant = [_getter(path) for path in settings.tenant]
        self._actor = [_getter(path) for path in settings.actor]
        self._outcome = [_getter(path) for path in settings.outcome]
        self._operations = [
            (rule, _regex(rule.pattern, f"operations[{at}]")) for at, rule in enumerate(settings.operations)
        ]
        self._operation_plans: dict[str, list[re.Pattern[str]]] = {}
        self._keys = [_compile_key(rule, at) for at, rule in enumerate(settings.keys)]
        self._settings = settings
        self._key_plans: dict[tuple[str, str], list[_Rule]] = {}

    def find(self, event: Event) -> Found:
        """Find everything declared. What the event itself states (its own `transaction`, `keys` …) is kept."""
        marks: list[str] = []
        rules: dict[str, str] = {}
        service = event.service
        name = event.event_name or self._operation(event, service)
        transaction = _bounded(event.transaction, marks)
        if transaction:
            rules["transaction"] = "stated"
        else:
            for path, get in self._transaction:
                value = get(event)
                transaction = "" if value is None else _bounded(_as_key(value), marks)
                if transaction:
                    rules["transaction"] = path
                    break
            else:
                transaction, member = self._from_baggage(event, marks)
                if member:
                    rules["transaction"] = member
        keys = _EMPTY
        if event.keys:
            keys = {key: _bounded(value, marks) for key, value in event.keys.items() if _NAME.fullmatch(key)}
            rules.update(dict.fromkeys(keys, "stated"))
            if len(keys) < len(event.keys):
                marks.append("key_name_unusable")
        if self._keys:
            for key, rule, find in self._key_plan(service, name or (event.span.name if event.span else "")):
                if key in keys:
                    continue
                value = _bounded(find(event), marks)
                if value:
                    keys = {**keys, key: value}
                    rules[key] = rule
        outcome = event.outcome or _first(self._outcome, event)
        return Found(
            transaction=transaction,
            tenant=_bounded(event.tenant or _first(self._tenant, event), marks),
            actor=_bounded(event.actor or _first(self._actor, event), marks),
            outcome=_OUTCOMES.get(outcome.lower(), "") if outcome else "",
            event_name=name,
            keys=keys,
            rules=rules,
            marks=tuple(marks),
        )

    def _operation(self, event: Event, service: str) -> str:
        if not self._operations or not isinstance(event.body, str):
            return ""
        plan = self._operation_plans.get(service)
        if plan is None:
            plan = [regex for rule, regex in self._operations if _matches(rule.services, service)]
            _remember(self._operation_plans, service, plan)
        for regex in plan:
            match = regex.search(event.body)
            if match:
                return (match.group(1) or "")[:MAX_KEY_BYTES]
        return ""

    def _key_plan(self, service: str, name: str) -> list[_Rule]:
        plan = self._key_plans.get((service, name))
        if plan is None:
            plan = [
                (rule.name, label, find)
                for rule, label, find in self._keys
                if _matches(rule.services, service)
                and _matches(rule.operations, name)
                and not (rule.except_operations and _matches(rule.except_operations, name))
            ]
            _remember(self._key_plans, (service, name), plan)
        return plan

    def _from_baggage(self, event: Event, marks: list[str]) -> tuple[str, str]:
        header = event.attributes.get("baggage")
        if not isinstance(header, str):
            return "", ""
        for member in header[:8192].split(","):  # W3C baggage, section 3.2: list-members with optional properties
            name, _, value = member.partition(";")[0].partition("=")
            if name.strip() in self._baggage:
                return _bounded(unquote(value.strip()), marks), f"baggage {name.strip()}"
        return "", ""


def _compile_key(rule: KeyRule, at: int) -> tuple[KeyRule, str, Callable[[Event], str]]:
    where = f"keys[{at}]"
    if not _NAME.fullmatch(rule.name):
        raise Malformed("a key's name is lower-case letters, digits, dots and underscores", where=f"{where}.name")
    if rule.name == "transaction":
        raise Malformed(
            "a key cannot be called transaction: that is the transaction ID's own name", where=f"{where}.name"
        )
    if sum(map(bool, (rule.fields, rule.parts, rule.pattern))) != 1:
        raise Malformed("give exactly one of fields, parts and pattern", where=where)
    scope = "".join(f" in {one}" for one in rule.services[:1]) + "".join(f" {one}" for one in rule.operations[:1])
    if rule.pattern:
        regex = _regex(rule.pattern, f"{where}.pattern")

        def from_text(event: Event) -> str:
            match = regex.search(event.body) if isinstance(event.body, str) else None
            return (match.group(1) or "") if match else ""

        return rule, f"pattern of keys[{at}]{scope}", from_text
    if rule.parts:
        parts = [_getter(path) for path in rule.parts]

        def from_parts(event: Event) -> str:
            values = [_as_key(get(event)) for get in parts]
            return "|".join(value.replace("%", "%25").replace("|", "%7C") for value in values) if all(values) else ""

        return rule, f"{'+'.join(rule.parts)}{scope}", from_parts
    getters = [_getter(path) for path in rule.fields]
    return rule, f"{rule.fields[0]}{scope}", lambda event: _first(getters, event)


def _regex(pattern: str, where: str) -> re.Pattern[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise Malformed(f"not a regular expression: {error}", where=where) from error
    if regex.groups < 1:
        raise Malformed("the pattern needs a group around the value", where=where)
    return regex


def _getter(path: str) -> Getter:
    root, _, rest = path.partition(".")
    if root == "scope":
        _, _, rest = rest.partition(".")
    if root not in ("attributes", "resource", "body", "scope") or not rest:
        raise Malformed("a path starts with attributes., resource., body. or scope.attributes.", where=path)

    head = rest.partition(".")[0]

    def find(values: Any) -> Any:
        # most events lack most paths: two look-ups tell, and nothing is taken apart
        if type(values) is not dict:
            return None
        if rest in values:
            return values[rest]
        return _lookup(values, rest) if head in values else None

    if root == "attributes":
        return lambda event: find(event.attributes)
    if root == "resource":
        return lambda event: find(event.resource)
    if root == "body":
        return lambda event: find(event.body)
    return lambda event: find(event.scope.attributes) if event.scope else None


def _lookup(value: Any, path: str) -> Any:
    """The value under `path`: the whole path is tried as one key first, because attribute names hold dots."""
    if not isinstance(value, dict):
        return None
    if path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    return _lookup(value.get(head), rest) if dot else None


def _first(getters: Sequence[Getter], event: Event) -> str:
    for get in getters:
        value = get(event)
        if value is not None:
            text = _as_key(value)
            if text:
                return text
    return ""


def _as_key(value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    if type(value) is bool:
        return "true" if value else "false"
    return ""


def _bounded(value: str, marks: list[str]) -> str:
    if len(value) <= MAX_KEY_BYTES // 4 or len(value.encode("utf-8", "surrogatepass")) <= MAX_KEY_BYTES:
        return value
    marks.append("key_too_long")
    return ""


def _matches(patterns: Sequence[str], value: str) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= 4_096:  # names come from outside: the cache must not grow with them
        cache.clear()
    cache[key] = value
