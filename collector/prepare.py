"""From an arrival to what the spool takes: extract, normalise, protect, encode. One walk, one encode, one hash an event.

The order matters. Identities are found in the raw values; then everything is normalised and encoded; the card scan runs
over the encoded bytes, and only an event in which it finds something is walked, redacted and encoded again. Facts are made
last, from what is left, so a card number can reach neither the body nor a key.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from collector.canonical import Normaliser
from collector.errors import Malformed
from collector.event import Access, Event, Origin, Span, encode_event, encode_facts, facts_of, format_time, parse_time
from collector.extract import Extractor, Found
from collector.protect import ProtectError, Protector
from collector.receive import Arrival

__all__ = ["Prepared", "Preparer", "Refused", "raw_of"]

_log = logging.getLogger(__name__)

MAX_FACTS_BYTES = 16_384
"""Longest facts line: an entry must hold it beside two trail ids (docs/format.md, "Facts")."""

_MAX_NAME = 256
_MAX_MARKS = 16
_TIME_LENGTH = len("2023-01-30T11:50:59.971622667Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", re.ASCII)
_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An arrival that cannot be taken, its place in the group, and why."""

    at: int
    arrival: Arrival
    error: Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a group became: side by side the source ids, event bytes and facts lines, and what was refused."""

    source_ids: list[bytes]
    events: list[bytes]
    facts: list[bytes]
    refused: list[Refused]


class Preparer:
    """Safe to share between threads.

    Args:
        extractor, protector: compiled settings.
        clock: Unix time in nanoseconds; None leaves `observed` as it came (imported files, whose bytes must not depend on when).
        max_event_bytes: a longer event is refused.
    """

    def __init__(
        self,
        *,
        extractor: Extractor,
        protector: Protector,
        clock: Callable[[], int] | None,
        max_event_bytes: int = 1024**2,
    ) -> None:
        self._extractor = extractor
        self._protector = protector
        self._clock = clock
        self._max_event_bytes = max_event_bytes

    def prepare(self, arrivals: Sequence[Arrival]) -> Prepared:
        """Prepare a group. Never raises for what is in an event: what cannot be taken is in `refused`."""
        prepared = Prepared(source_ids=[], events=[], facts=[], refused=[])
        now = format_time(self._clock()) if self._clock else ""
        for at, arrival in enumerate(arrivals):
            try:
                event, facts = self._one(arrival.event, now)
            except (Malformed, ProtectError) as error:
                refusal = error if isinstance(error, Malformed) else Malformed(str(error), label="unprotectable")
                prepared.refused.append(Refused(at=at, arrival=arrival, error=refusal))
                continue
            except Exception as error:  # noqa: BLE001 - a defect met by one event must not make its sender send for ever
                _log.exception("an event could not be prepared")
                refusal = Malformed(f"{type(error).__name__} while it was prepared", label="defect")
                prepared.refused.append(Refused(at=at, arrival=arrival, error=refusal))
                continue
            prepared.source_ids.append(arrival.source_id or b"")
            prepared.events.append(event)
            prepared.facts.append(facts)
        return prepared

    def _one(self, raw: Event, now: str) -> tuple[bytes, bytes]:
        found = self._extractor.find(raw)
        walk = Normaliser(self._protector.raw)
        event = _normalised(raw, found, walk, now)
        data, digest = encode_event(event, exact=walk.exact)
        if len(data) > self._max_event_bytes:
            raise Malformed(f"an event of {len(data)} bytes; at most {self._max_event_bytes}", label="too_large")
        if self._protector.needs_walk(data):
            event = self._protected(event)
            data, digest = encode_event(event, exact=walk.exact)
        facts = encode_facts(facts_of(event, digest, found.rules))
        if len(facts) > MAX_FACTS_BYTES:
            raise Malformed("its keys and names are too many or too long to be indexed", label="too_many_keys")
        return data, facts

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
        if len(merged) > _MAX_MARKS:
            # where exactly stands in the event itself; the marks only say what to expect
            merged = sorted({*event.marks, *(mark.partition(":")[0] for mark in marks)})[:_MAX_MARKS]
        return msgspec.structs.replace(event, marks=merged)


def _normalised(raw: Event, found: Found, walk: Normaliser, now: str) -> Event:
    value = walk.value
    attributes: dict[str, Any] = value(raw.attributes) if raw.attributes else {}
    trace_id, span_id = raw.trace_id, raw.span_id
    if trace_id and not _TRACE_ID.fullmatch(trace_id):
        attributes["trace_id"], trace_id = value(trace_id), ""
        walk.marks.add("trace_id_unusable")
    if span_id and not _SPAN_ID.fullmatch(span_id):
        attributes["span_id"], span_id = value(span_id), ""
        walk.marks.add("span_id_unusable")
    marks = [*walk.marks, *found.marks, *raw.marks] if walk.marks or found.marks or raw.marks else []
    scope = raw.scope
    if scope is not None:
        scope = msgspec.structs.replace(
            scope, name=value(scope.name), version=value(scope.version), attributes=value(scope.attributes)
        )
    event = Event(
        time=_time(value(raw.time), "time_unusable", marks, attributes) if raw.time else "",
        observed=_time(value(raw.observed), "observed_unusable", marks, attributes) if raw.observed else now,
        severity_number=raw.severity_number if 0 <= raw.severity_number <= 24 else 0,
        severity_text=value(raw.severity_text[:_MAX_NAME]),
        event_name=value(found.event_name[:_MAX_NAME]),
        body=value(raw.body),
        attributes=attributes,
        resource=value(raw.resource),
        scope=scope,
        trace_id=trace_id,
        span_id=span_id,
        trace_flags=raw.trace_flags & 0xFFFFFFFF,
        span=_span(raw.span, walk) if raw.span else None,
        transaction=value(found.transaction),
        tenant=value(found.tenant),
        keys={name: value(text) for name, text in found.keys.items()} if found.keys else {},
        actor=value(found.actor),
        outcome=found.outcome,
        access=_access(raw.access, value) if raw.access else None,
        origin=_origin(raw.origin, value) if raw.origin else None,
        marks=marks,
    )
    if walk.marks or marks:
        event = msgspec.structs.replace(event, marks=sorted({*marks, *walk.marks})[:_MAX_MARKS])
    return event


def _span(span: Span, walk: Normaliser) -> Span:
    value = walk.value
    return Span(
        name=value(span.name[:_MAX_NAME]),
        parent_span_id=span.parent_span_id if _SPAN_ID.fullmatch(span.parent_span_id) else "",
        kind=value(span.kind),
        end=span.end if _TIME.fullmatch(span.end) else "",
        status=value(span.status),
        status_message=value(span.status_message),
        trace_state=value(span.trace_state),
        events=value(span.events),
        links=value(span.links),
    )


def _access(access: Access, value: Callable[[str], str]) -> Access:
    return Access(
        principal=value(access.principal),
        action=value(access.action),
        trail=value(access.trail),
        head=access.head,
        refused=value(access.refused),
    )


def _origin(origin: Origin, value: Callable[[str], str]) -> Origin:
    if origin.tag.isascii() and origin.file.isascii():
        return origin
    return Origin(receiver=origin.receiver, tag=value(origin.tag), file=value(origin.file), row=origin.row)


def _time(text: str, mark: str, marks: list[str], attributes: dict[str, Any]) -> str:
    if len(text) == _TIME_LENGTH and _TIME.fullmatch(text):
        return text
    try:
        return format_time(parse_time(text))
    except Malformed:
        marks.append(mark)
        attributes["time.stated"] = text
        return ""


def raw_of(arrival: Arrival) -> bytes:
    """Bytes that show a refused arrival to a person: its JSON as far as it has one.

    Bytes inside are written as text, not as base64, so that the dead letters' scan sees what is in them.
    """
    try:
        plain = msgspec.to_builtins(arrival.event, builtin_types=(bytes, bytearray, memoryview), enc_hook=repr)
        return json.dumps(plain, default=lambda data: bytes(data).decode("latin-1")).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError):
        return repr(type(arrival.event)).encode()
