"""An event's fields made fit for its bytes: identities as found, values normalised, times and ids in their one form.

Two lanes to the same event. `normalised` walks every value and mends what needs it. `plain` is for the events in which
nothing does, which are most: short texts, small integers, nothing nested. It looks at types alone and leaves it to the
caller to see from the encoded bytes that all texts are ASCII. ``tests/collector/test_normal.py`` proves the lanes equal.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from collector.canonical import MAX_SAFE_INTEGER, Normaliser
from collector.errors import Malformed
from collector.event import MAX_TRACE_FLAGS, Access, Event, Origin, Span, format_time, parse_time
from collector.extract import Found

__all__ = ["MAX_MARKS", "STATED_TIME", "normalised", "plain", "times_in"]

MAX_MARKS = 16
"""Most marks that an event carries."""

STATED_TIME = "time.stated"
"""The attribute that keeps a time which is none, as it was stated: a name that an event has and its sender did not give.
Of each other field whose value does not fit it is the same with the field's path (``actor.stated``)."""

Protect = Callable[[Any], tuple[Any, tuple[str, ...]]]
"""A value masked, and the marks that say where: `collector.protect.Protector.protect`."""

_MAX_NAME = 256
_TIME_LENGTH = len("2023-01-30T11:50:59.971622667Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", re.ASCII)
_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_PLAIN = frozenset({str, int, bool, type(None)})


def plain(raw: Event, found: Found, now: str, *, vouched: bool = False) -> Event | None:
    """What `normalised` makes of an event in which nothing has to change; None when something may have to.

    Its names must be texts. It holds for an event whose JSON is ASCII; of any other, use `normalised`. `vouched`: its
    receiver has seen to what `collector.receive.Arrival.plain` says.
    """
    if (
        not (vouched or _holds_plain_values(raw))
        or len(raw.severity_text) > _MAX_NAME
        or len(found.event_name) > _MAX_NAME
        or found.marks
        or raw.marks
        or raw.access
        or raw.retirement
        or raw.incident
        or (raw.scope and raw.scope.attributes)
        or (raw.span and not _is_plain_span(raw.span))
    ):
        return None
    return msgspec.structs.replace(
        raw,
        observed=raw.observed or now,
        event_name=found.event_name,
        transaction=found.transaction,
        tenant=found.tenant,
        keys=found.keys,
        actor=found.actor,
        outcome=found.outcome,
    )


def _holds_plain_values(raw: Event) -> bool:
    values = (*raw.attributes.values(), *raw.resource.values(), raw.body)
    kinds = set(map(type, values))
    return (
        kinds <= _PLAIN
        and (int not in kinds or _are_small(values))
        and (not raw.time or _TIME.fullmatch(raw.time) is not None)
        and (not raw.observed or _TIME.fullmatch(raw.observed) is not None)
        and (not raw.trace_id or _TRACE_ID.fullmatch(raw.trace_id) is not None)
        and (not raw.span_id or _SPAN_ID.fullmatch(raw.span_id) is not None)
        and 0 <= raw.severity_number <= 24
        and 0 <= raw.trace_flags <= MAX_TRACE_FLAGS
    )


def _are_small(values: Iterable[Any]) -> bool:
    for value in values:  # noqa: SIM110 - a generator costs more than the comparison
        if type(value) is int and not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            return False
    return True


def _is_plain_span(span: Span) -> bool:
    return (
        not span.events
        and not span.links
        and len(span.name) <= _MAX_NAME
        and (not span.end or _TIME.fullmatch(span.end) is not None)
        and (not span.parent_span_id or _SPAN_ID.fullmatch(span.parent_span_id) is not None)
    )


def times_in(event: Event) -> int:
    """How many fields of a normalised event hold a time in its one form: each has two colons."""
    return (event.time != "") + (event.observed != "") + (event.span is not None and event.span.end != "")


def normalised(raw: Event, found: Found, walk: Normaliser, now: str, protect: Protect) -> Event:
    """The event with every value walked; `walk` tells afterwards how to encode it. `now` stands in for a missing `observed`.

    What does not fit its field is kept as an attribute. `protect` (`Protector.protect`) masks it while it still stands under
    its field's name, and a name before it is cut: of a card number across the cut a later look would know nothing.

    Raises:
        Malformed: a value that has no place in an event.
    """
    value = walk.value
    unusable: dict[str, Any] = {}  # what does not fit its field, kept as an attribute
    trace_id, span_id = raw.trace_id, raw.span_id
    if trace_id and not _TRACE_ID.fullmatch(trace_id):
        unusable["trace_id"], trace_id = value(trace_id), ""
        walk.marks.add("trace_id_unusable")
    if span_id and not _SPAN_ID.fullmatch(span_id):
        unusable["span_id"], span_id = value(span_id), ""
        walk.marks.add("span_id_unusable")
    time = _time(raw.time, "time", walk, unusable) if raw.time else ""
    observed = _time(raw.observed, "observed", walk, unusable) if raw.observed else now
    span = _span(raw.span, walk, unusable) if raw.span else None
    names = {"severity_text": value(raw.severity_text), "event_name": value(found.event_name)}
    if span is not None:
        names["span.name"] = span.name
    too_long = {place: name for place, name in names.items() if len(name) > _MAX_NAME}
    if too_long or found.refused:
        stated, marks = protect(walk.fields({**found.refused, **too_long}))
        walk.marks.update(marks)
        unusable.update((f"{place}.stated", text) for place, text in stated.items())
        names.update((place, stated.get(place, "")[:_MAX_NAME]) for place in too_long)  # absent: the field is dropped
    if too_long:
        walk.marks.add("name_too_long")
        if span is not None:
            span = msgspec.structs.replace(span, name=names["span.name"])
    attributes = walk.fields(raw.attributes)
    scope = raw.scope
    if scope is not None:
        scope = msgspec.structs.replace(
            scope, name=value(scope.name), version=value(scope.version), attributes=walk.fields(scope.attributes)
        )
    event = Event(
        time=time,
        observed=observed,
        severity_number=raw.severity_number if 0 <= raw.severity_number <= 24 else 0,
        severity_text=names["severity_text"],
        event_name=names["event_name"],
        body=value(raw.body),
        attributes=_beside(attributes, unusable) if unusable else attributes,
        resource=walk.fields(raw.resource),
        scope=scope,
        trace_id=trace_id,
        span_id=span_id,
        trace_flags=raw.trace_flags & MAX_TRACE_FLAGS,
        span=span,
        transaction=value(found.transaction),
        tenant=value(found.tenant),
        keys={name: value(text) for name, text in found.keys.items()} if found.keys else {},
        actor=value(found.actor),
        outcome=found.outcome,
        access=_access(raw.access, value) if raw.access else None,
        retirement=raw.retirement,  # ours alone, and made of what is canonical already
        incident=raw.incident,  # the same
        origin=_origin(raw.origin, value) if raw.origin else None,
    )
    if walk.marks or found.marks or raw.marks:
        event = msgspec.structs.replace(
            event, marks=sorted({*map(value, raw.marks), *walk.marks, *found.marks})[:MAX_MARKS]
        )
    return event


def _beside(attributes: dict[str, Any], unusable: dict[str, Any]) -> dict[str, Any]:
    """The attributes and what does not fit its field; of two with one name both are kept."""
    kept = dict(attributes)
    for name, text in unusable.items():
        free = name
        while kept.get(free, text) != text:
            free += ".stated"
        kept[free] = text
    return kept


def _span(span: Span, walk: Normaliser, unusable: dict[str, Any]) -> Span:
    """The span; its name may still be too long."""
    value = walk.value
    parent = span.parent_span_id
    if parent and not _SPAN_ID.fullmatch(parent):
        unusable["parent_span_id"], parent = value(parent), ""
        walk.marks.add("parent_span_id_unusable")
    return Span(
        name=value(span.name),
        parent_span_id=parent,
        kind=value(span.kind),
        end=_time(span.end, "end", walk, unusable) if span.end else "",
        status=value(span.status),
        status_message=value(span.status_message),
        trace_state=value(span.trace_state),
        events=value(span.events) if span.events else [],
        links=value(span.links) if span.links else [],
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
    return msgspec.structs.replace(origin, tag=value(origin.tag), file=value(origin.file))


def _time(text: str, field: str, walk: Normaliser, unusable: dict[str, Any]) -> str:
    if len(text) == _TIME_LENGTH and _TIME.fullmatch(text):
        return text
    try:
        return format_time(parse_time(text))
    except Malformed:
        walk.marks.add(f"{field}_unusable")
        unusable[f"{field}.stated"] = walk.value(text)
        return ""
