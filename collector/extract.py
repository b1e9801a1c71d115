"""Which transaction is it? Finding the transaction ID, business keys, operation, actor and outcome in an event.

Keys are declared per service and operation (`KeyRule`), because one name means different things in different places: what one
operation logs as an order ID may be an account ID. What is found is recorded with the rule that found it, so that every
placement in a trail carries its reason.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

import msgspec

from collector.amounts import AmountRule, amount_key, amount_text, is_amount
from collector.errors import Malformed
from collector.event import Event
from collector.memo import Memo
from collector.paths import Path, Shape, as_key, compile_paths, first, shape_of
from collector.protect.cardnumber import is_card
from collector.statedkeys import bounded, is_key_name, stated_keys

__all__ = ["Extractor", "Found", "KeyRule", "OperationRule", "Plan", "StitchSettings"]


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
        amounts: where amounts of money stand, so that trails can be found by them.
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
    amounts: tuple[AmountRule, ...] = ()
    operations: tuple[OperationRule, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What extraction found: new values for the event's fields, the rule behind each, and marks.

    `refused`: what the event states and cannot have, by its path in the event: ``actor``, ``keys.orderId``.
    """

    transaction: str
    tenant: str
    actor: str
    outcome: str
    event_name: str
    keys: dict[str, str]
    rules: dict[str, str]
    marks: tuple[str, ...]
    refused: dict[str, str] = {}


class Plan(msgspec.Struct, frozen=True):
    """What is left of the settings for events of one shape."""

    transaction: tuple[Path, ...]
    baggage: bool
    tenant: tuple[Path, ...]
    actor: tuple[Path, ...]
    outcome: tuple[Path, ...]
    keys: "Memo[tuple[str, str], tuple[_Key, ...]] | None"
    """By service and name of the event; None when no rule can find anything."""
    amounts: "tuple[_Amount, ...]" = ()


class _Key(msgspec.Struct, frozen=True):
    """A `KeyRule`, compiled: `label` is what is recorded as the reason, `paths` are those without which it finds nothing."""

    rule: KeyRule
    label: str
    paths: tuple[Path, ...]
    find: Callable[[Event], str]

    def is_for(self, service: str, name: str) -> bool:
        """Whether the rule is for this service's events of this name."""
        rule = self.rule
        return (
            _matches(rule.services, service)
            and _matches(rule.operations, name)
            and not (rule.except_operations and _matches(rule.except_operations, name))
        )


class _Amount(msgspec.Struct, frozen=True):
    """An `AmountRule`, compiled."""

    rule: AmountRule
    paths: tuple[Path, ...]
    currencies: tuple[Path, ...]

    def is_for(self, service: str, name: str) -> bool:
        """Whether the rule is for this service's events of this name."""
        return _matches(self.rule.services, service) and _matches(self.rule.operations, name)

    def key(self, event: Event, marks: list[str]) -> tuple[str, str, str]:
        """Name and value of the key of the amount that the event tells, and the field that told; empty when it tells none."""
        for path in self.paths:
            value = path.get(event)
            if value is None or value == "":
                continue
            text = amount_text(value, self.rule.minor_digits)
            name = amount_key(first(self.currencies, event) or self.rule.currency)
            # a card number where an amount should be: protection knows it as it came, and not with a dot in it
            if text and name and not is_card("".join(filter(str.isdigit, str(value)))):
                return name, text, path.text
            marks.append("amount_unusable")
            break
        return "", "", ""


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
        self._transaction = compile_paths(settings.transaction)
        self._baggage = settings.baggage
        self._tenant = compile_paths(settings.tenant)
        self._actor = compile_paths(settings.actor)
        self._outcome = compile_paths(settings.outcome)
        operations = [(rule, _regex(rule.pattern, f"operations[{at}]")) for at, rule in enumerate(settings.operations)]
        self._operations: Memo[str, list[re.Pattern[str]]] = Memo(
            lambda service: [regex for rule, regex in operations if _matches(rule.services, service)]
        )
        self._names_operations = bool(operations)
        self._keys = [_compile_key(rule, at) for at, rule in enumerate(settings.keys)]
        self._amounts = [_compile_amount(rule, at) for at, rule in enumerate(settings.amounts)]

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the declared keys."""
        return tuple(key.rule.name for key in self._keys)

    def plan(self, shape: Shape) -> Plan:
        """What can be found in events of this shape."""

        def of(paths: Sequence[Path]) -> tuple[Path, ...]:
            return tuple(path for path in paths if path.may_be_in(shape))

        keys = [key for key in self._keys if not key.paths or any(path.may_be_in(shape) for path in key.paths)]

        def named(place: tuple[str, str]) -> tuple[_Key, ...]:
            return tuple(key for key in keys if key.is_for(*place))

        return Plan(
            transaction=of(self._transaction),
            baggage="baggage" in shape[0],
            tenant=of(self._tenant),
            actor=of(self._actor),
            outcome=of(self._outcome),
            keys=Memo(named, entries=64) if keys else None,
            amounts=tuple(one for one in self._amounts if any(path.may_be_in(shape) for path in one.paths)),
        )

    def find(self, event: Event, plan: Plan | None = None) -> Found:
        """Find everything declared. What the event itself states (its own `transaction`, `keys` …) is kept.

        `plan` is that of the event's shape, where the caller remembers it.
        """
        if plan is None:
            plan = self.plan(shape_of(event))
        marks: list[str] = []
        rules: dict[str, str] = {}
        name = event.event_name or (self._operation(event) if self._names_operations else "")
        transaction = event.transaction and bounded(event.transaction, marks)
        if transaction:
            rules["transaction"] = "stated"
        else:
            transaction = self._transaction_in(event, plan, rules, marks)
        keys = unfit = _EMPTY
        if event.keys:
            keys, unfit = stated_keys(event.keys, marks)
            rules.update(dict.fromkeys(keys, "stated"))
        if plan.keys is not None:
            keys = self._keys_in(event, plan.keys[event.service, name or event.name], keys, rules, marks)
        if plan.amounts:
            declared = [one for one in plan.amounts if one.is_for(event.service, name or event.name)]
            keys = _amounts_in(event, declared, keys, rules, marks)
        outcome = event.outcome or (first(plan.outcome, event) if plan.outcome else "")
        tenant = event.tenant or (first(plan.tenant, event) if plan.tenant else "")
        actor = event.actor or (first(plan.actor, event) if plan.actor else "")
        tenant = tenant and bounded(tenant, marks)
        actor = actor and bounded(actor, marks)
        refused = _EMPTY
        if marks:
            identities = (
                ("transaction", event.transaction, transaction),
                ("tenant", event.tenant, tenant),
                ("actor", event.actor, actor),
            )
            refused = {place: stated for place, stated, taken in identities if stated != taken and stated}
            refused.update((f"keys.{key}", stated) for key, stated in unfit.items())
        return Found(
            transaction=transaction,
            tenant=tenant,
            actor=actor,
            outcome=_OUTCOMES.get(outcome.lower(), "") if outcome else "",
            event_name=name,
            keys=keys,
            rules=rules,
            marks=tuple(marks),
            refused=refused,
        )

    def _transaction_in(self, event: Event, plan: Plan, rules: dict[str, str], marks: list[str]) -> str:
        for path in plan.transaction:
            value = path.get(event)
            transaction = "" if value is None else bounded(as_key(value), marks)
            if transaction:
                rules["transaction"] = path.text
                return transaction
        if plan.baggage:
            transaction, member = self._from_baggage(event, marks)
            if transaction:
                rules["transaction"] = member
            return transaction
        return ""

    def _keys_in(
        self, event: Event, declared: Sequence[_Key], keys: dict[str, str], rules: dict[str, str], marks: list[str]
    ) -> dict[str, str]:
        for key in declared:
            name = key.rule.name
            if name in keys:
                continue
            value = bounded(key.find(event), marks)
            if value:
                keys = {**keys, name: value}
                rules[name] = key.label
        return keys

    def _operation(self, event: Event) -> str:
        if not isinstance(event.body, str):
            return ""
        for regex in self._operations[event.service]:
            match = regex.search(event.body)
            if match:
                return match.group(1) or ""
        return ""

    def _from_baggage(self, event: Event, marks: list[str]) -> tuple[str, str]:
        header = event.attributes.get("baggage")
        if not isinstance(header, str):
            return "", ""
        for member in header[:8192].split(","):  # W3C baggage, section 3.2: list-members with optional properties
            name, _, value = member.partition(";")[0].partition("=")
            if name.strip() in self._baggage:
                return bounded(unquote(value.strip()), marks), f"baggage {name.strip()}"
        return "", ""


def _amounts_in(
    event: Event, declared: Sequence[_Amount], keys: dict[str, str], rules: dict[str, str], marks: list[str]
) -> dict[str, str]:
    """`keys` with the amounts that are declared; one a currency: the first."""
    for one in declared:
        key, text, label = one.key(event, marks)
        if key and key not in keys:
            keys = {**keys, key: text}
            rules[key] = label
    return keys


def _compile_amount(rule: AmountRule, at: int) -> _Amount:
    where = f"amounts[{at}]"
    if not rule.fields:
        raise Malformed("give the fields that an amount may stand in", where=where)
    if rule.currency and not amount_key(rule.currency):
        raise Malformed("a currency has three letters (ISO 4217)", where=f"{where}.currency")
    if not 0 <= rule.minor_digits <= 8:
        raise Malformed("an amount has 0 to 8 minor digits", where=f"{where}.minor_digits")
    return _Amount(rule, compile_paths(rule.fields), compile_paths(rule.currency_fields))


def _compile_key(rule: KeyRule, at: int) -> _Key:
    where = f"keys[{at}]"
    if not is_key_name(rule.name):
        raise Malformed("a key's name is lower-case letters, digits, dots and underscores", where=f"{where}.name")
    if rule.name == "transaction":
        raise Malformed(
            "a key cannot be called transaction: that is the transaction ID's own name", where=f"{where}.name"
        )
    if is_amount(rule.name):
        raise Malformed("this is the name of an amount: declare it under amounts", where=f"{where}.name")
    if sum(map(bool, (rule.fields, rule.parts, rule.pattern))) != 1:
        raise Malformed("give exactly one of fields, parts and pattern", where=where)
    scope = "".join(f" in {one}" for one in rule.services[:1]) + "".join(f" {one}" for one in rule.operations[:1])
    if rule.pattern:
        regex = _regex(rule.pattern, f"{where}.pattern")

        def from_text(event: Event) -> str:
            match = regex.search(event.body) if isinstance(event.body, str) else None
            return (match.group(1) or "") if match else ""

        return _Key(rule, f"pattern of keys[{at}]{scope}", (), from_text)
    if rule.parts:
        parts = compile_paths(rule.parts)

        def from_parts(event: Event) -> str:
            values = [as_key(path.get(event)) for path in parts]
            return "|".join(value.replace("%", "%25").replace("|", "%7C") for value in values) if all(values) else ""

        return _Key(rule, f"{'+'.join(rule.parts)}{scope}", parts, from_parts)
    paths = compile_paths(rule.fields)
    return _Key(rule, f"{rule.fields[0]}{scope}", paths, lambda event: first(paths, event))


def _regex(pattern: str, where: str) -> re.Pattern[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise Malformed(f"not a regular expression: {error}", where=where) from error
    if regex.groups < 1:
        raise Malformed("the pattern needs a group around the value", where=where)
    return regex


def _matches(patterns: Sequence[str], value: str) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)
