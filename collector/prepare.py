"""From an arrival to what the spool takes: extract, normalise, protect, encode. One walk, one encode, one hash an event.

The order matters. Identities are found in the raw values; then everything is normalised and encoded; the card scan runs
over the encoded bytes, and only an event in which it finds something is walked, redacted and encoded again. Facts are made
last, from what is left, so a card number can reach neither the body nor a key.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from collector.canonical import Normaliser
from collector.errors import Malformed
from collector.event import (
    Access,
    Event,
    Origin,
    Scope,
    Span,
    encode_event,
    encode_facts,
    facts_of,
    format_time,
)
from collector.extract import Extractor, Plan
from collector.memo import Memo
from collector.normal import MAX_MARKS, STATED_TIME, normalised, plain, times_in
from collector.paths import Shape, shape_of
from collector.protect import ProtectError, Protector
from collector.receive import Arrival
from collector.red import ACCESS_LOG, Request, request_of

__all__ = ["Prepared", "Preparer", "Refused", "raw_of"]

_log = logging.getLogger(__name__)

_MAX_RAW_VALUES = 131_072
"""Of two bytes or more each: more than a dead letter looks at (`collector.deadletters`)."""

MAX_FACTS_BYTES = 16_384
"""Longest facts line: an entry must hold it beside two trail ids (docs/format.md, "Facts")."""

_MASKED_TIMES, _MASKED_BYTES = 4, 31 * 1024**2
"""How much longer an event may be once it is masked: a card number takes three times its room, but digits that read as one at every
place some ten times. And a frame must hold it."""

_OWN_NAMES = (*(name for kind in (Event, Span, Origin, Scope, Access) for name in kind.__struct_fields__), STATED_TIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An arrival that cannot be taken, its place in the group, and why."""

    at: int
    arrival: Arrival
    error: Malformed


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What a group became: side by side the source ids, event bytes and facts lines, and what was refused.

    `requests`: those of the events that tell of a request, by their place among the events; `marks`: of each event that bears any.
    """

    source_ids: list[bytes] = []
    events: list[bytes] = []
    facts: list[bytes] = []
    refused: list[Refused] = []
    requests: dict[int, Request] = {}
    marks: list[list[str]] = []


class _Shape(msgspec.Struct, frozen=True):
    """What follows from an event's shape alone.

    `plan`: what can be found in it; `named`: its names are texts; `declared`: one of them may be that of a declared field.
    """

    plan: Plan
    named: bool
    declared: bool


class Preparer:
    """Safe to share between threads.

    Args:
        extractor, protector: compiled settings.
        clock: Unix time in nanoseconds; None leaves `observed` as it came (imported files, whose bytes must not depend on when).
        max_event_bytes: a longer event is refused, and one that is more than four times as long when it is masked.
        speakers: services to the peers (`Origin.peer`) that alone may speak for them; an event that names one of these services and comes
            from somebody else is refused.
        requests: whether to look for requests (`Prepared.requests`).
    """

    def __init__(
        self,
        *,
        extractor: Extractor,
        protector: Protector,
        clock: Callable[[], int] | None,
        max_event_bytes: int = 1024**2,
        speakers: Mapping[str, Collection[str]] | None = None,
        requests: bool = False,
    ) -> None:
        self._extractor = extractor
        self._protector = protector
        self._clock = clock
        self._max_event_bytes = max_event_bytes
        self._speakers = speakers
        self._requests = requests
        self._shapes = Memo(self._known)
        self._declared: Memo[str, bool] = Memo(lambda name: protector.declares((name,)))

    def prepare(self, arrivals: Sequence[Arrival]) -> Prepared:
        """Prepare a group. Never raises for what is in an event: what cannot be taken is in `refused`."""
        prepared = Prepared()
        for _ in self.preparing(arrivals, prepared):
            pass
        return prepared

    def preparing(self, arrivals: Sequence[Arrival], prepared: Prepared) -> Iterator[None]:
        """The same, into a `prepared` that has nothing yet: after each event others may have a turn."""
        now = ""
        looks = self._requests
        for at, arrival in enumerate(arrivals):
            if not (now or arrival.event.observed) and self._clock is not None:
                now = format_time(self._clock())
            try:
                kept, event, facts = self._one(arrival.event, now, vouched=arrival.plain)
                # of most events these two looks are all: they are logs
                request = (
                    request_of(kept) if looks and (kept.span is not None or kept.event_name == ACCESS_LOG) else None
                )
            except (Malformed, ProtectError) as error:
                refusal = error if isinstance(error, Malformed) else Malformed(str(error), label="unprotectable")
                prepared.refused.append(Refused(at=at, arrival=arrival, error=refusal))
                yield
                continue
            except Exception as error:  # noqa: BLE001 - a defect met by one event must not make its sender send for ever
                _log.exception("an event could not be prepared")
                refusal = Malformed(f"{type(error).__name__} while it was prepared", label="defect")
                prepared.refused.append(Refused(at=at, arrival=arrival, error=refusal))
                yield
                continue
            if request is not None:
                prepared.requests[len(prepared.events)] = request
            if kept.marks:
                prepared.marks.append(kept.marks)
            prepared.source_ids.append(arrival.source_id or b"")
            prepared.events.append(event)
            prepared.facts.append(facts)
            yield

    def _one(self, raw: Event, now: str, *, vouched: bool) -> tuple[Event, bytes, bytes]:
        shape = self._shapes[shape_of(raw)]
        found = self._extractor.find(raw, shape.plan)
        rules = found.rules
        event = plain(raw, found, now, vouched=vouched) if shape.named else None
        exact = nested = False
        data, digest = (b"", "") if event is None else _encoded_plain(event)
        if event is None or not data:
            walk = Normaliser(self._protector.raw, most=self._max_event_bytes // 2)
            event = normalised(raw, found, walk, now, self._protector.protect)
            exact, nested = walk.exact, walk.nested
            data, digest = encode_event(event, exact=exact)
        if len(data) > self._max_event_bytes:
            raise Malformed(f"an event of {len(data)} bytes; at most {self._max_event_bytes}", label="too_large")
        undeclared = not (nested or shape.declared or raw.keys)
        if undeclared and shape.plan.amounts:  # whose names are known only now that their currency is
            undeclared = not any(self._declared[name] for name in found.keys)
        if self._protector.needs_walk(data, times=times_in(event) if undeclared else None):
            event = self._protected(event)
            data, digest = encode_event(event, exact=exact)
            rules = _rules_left(event, rules)
            if len(data) > min(_MASKED_TIMES * self._max_event_bytes, _MASKED_BYTES):
                raise Malformed(f"an event that is {len(data)} bytes long when it is masked", label="too_large")
        if self._speakers:
            _check_speaker(event, self._speakers)
        facts = encode_facts(facts_of(event, digest, rules))
        if len(facts) > MAX_FACTS_BYTES:
            raise Malformed("its keys and names are too many or too long to be indexed", label="too_many_keys")
        return event, data, facts

    def _known(self, shape: Shape) -> "_Shape":
        attributes, resource, scope, _ = shape
        names = (*attributes, *resource, *(scope or ()))
        return _Shape(
            plan=self._extractor.plan(shape),
            named=all(type(name) is str for name in names),
            declared=self._protector.declares((*_OWN_NAMES, *self._extractor.key_names, *names)),
        )

    def _protected(self, event: Event) -> Event:
        protector = self._protector
        plain: dict[str, Any] = msgspec.to_builtins(event)
        # identities first: a card-like key becomes its token before anything else sees it
        changed: set[str] = set()

        def token(place: str, value: str) -> str:
            safe = protector.token(value)
            if safe != value:
                changed.add(f"card:{place}")
            return safe

        for name in ("transaction", "tenant", "actor"):
            if plain.get(name):
                plain[name] = token(name, plain[name])
        if event.keys:
            plain["keys"] = {name: token(f"keys.{name}", value) for name, value in event.keys.items()}
        if event.access and event.access.trail:
            plain["access"]["trail"] = token("access.trail", event.access.trail)
        safe, found = protector.protect(plain)
        marks = {*found, *changed}
        try:
            event = msgspec.convert(safe, Event)
        except msgspec.ValidationError as error:
            # a declared field that is no text (trace_flags, span.events …) was masked: it cannot be kept as it is
            raise ProtectError(f"a declared field cannot be masked where it stands: {error}") from None
        if not marks:
            return event
        merged = sorted({*event.marks, *marks})
        if len(merged) > MAX_MARKS:
            # where exactly stands in the event itself; the marks only say what to expect
            merged = sorted({*event.marks, *(mark.partition(":")[0] for mark in marks)})[:MAX_MARKS]
        return msgspec.structs.replace(event, marks=merged)


def _rules_left(event: Event, rules: dict[str, str]) -> dict[str, str]:
    """The rules behind what a protected event still has, by the names that it has now.

    A key's name may have held a card number, and whole keys may have been dropped. Only a stated key can have got another
    name: those of declared ones are ours.
    """
    left = {name: rules.get(name, "stated") for name in event.keys}
    if event.transaction and "transaction" in rules:
        left["transaction"] = rules["transaction"]
    return left


def _check_speaker(event: Event, speakers: Mapping[str, Collection[str]]) -> None:
    """Raises `Malformed` when somebody else may speak for the event's service, as it will stand in the log."""
    allowed = speakers.get(event.service)
    if allowed is not None and (event.origin is None or event.origin.peer not in allowed):
        raise Malformed("its sender may not speak for the service that it names", label="not_its_speaker")


def _encoded_plain(event: Event) -> tuple[bytes, str]:
    """Bytes and digest of what `plain` made; empty when its texts turn out not to be ASCII."""
    try:
        data, digest = encode_event(event, exact=False)
    except UnicodeEncodeError:  # a lone surrogate
        return b"", ""
    return (data, digest) if data.isascii() else (b"", "")


def raw_of(arrival: Arrival) -> bytes:
    """Bytes that show a refused arrival to a person: its JSON as far as it has one; of what is nested in it, the first 131,072 values.

    Bytes inside are written as text, not as base64, and characters as they are, so that the dead letters' scan sees what is in them.
    """
    try:
        event = _First(_MAX_RAW_VALUES).of_event(arrival.event)
        plain = msgspec.to_builtins(event, builtin_types=(bytes, bytearray, memoryview), enc_hook=repr)
        return json.dumps(_in_texts(plain), ensure_ascii=False).encode("utf-8", "backslashreplace")
    except (TypeError, ValueError, RecursionError):
        return repr(type(arrival.event)).encode()


class _First:
    """The first so many values of what is nested: of millions a dead letter keeps no more, and all of them as text are gigabytes."""

    def __init__(self, most: int) -> None:
        self._left = most

    def of_event(self, event: Event) -> Event:
        scope, span = event.scope, event.span
        return msgspec.structs.replace(
            event,
            attributes=self._of(event.attributes),
            body=self._of(event.body),
            resource=self._of(event.resource),
            scope=scope and msgspec.structs.replace(scope, attributes=self._of(scope.attributes)),
            span=span and msgspec.structs.replace(span, events=self._of(span.events), links=self._of(span.links)),
        )

    def _of(self, value: Any) -> Any:
        """The value, of its maps and lists the beginning. Raises RecursionError."""
        if isinstance(value, dict):
            return {name: self._of(item) for name, item in self._some(value.items())}
        if isinstance(value, list | tuple):
            return [self._of(item) for item in self._some(value)]
        return value

    def _some(self, values: Collection[Any]) -> Iterator[Any]:
        for one in values:
            if self._left == 0:
                return
            self._left -= 1
            yield one


def _in_texts(value: Any) -> Any:
    """The value with texts for its bytes and for keys that no JSON has. Raises RecursionError."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        texts: dict[str, Any] = {}
        for key, item in value.items():
            name = _in_texts(key)
            name = name if isinstance(name, str) else str(name)
            while name in texts:  # as bytes and as text
                name += "~"
            texts[name] = _in_texts(item)
        return texts
    if isinstance(value, list | tuple):
        return [_in_texts(item) for item in value]
    return value
