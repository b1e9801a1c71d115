"""Rows of a story from what `readTrail` answers: the same for who sees all of an entry and for who sees what happened where. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import parse_time

__all__ = [
    "MAX_EVENT_BYTES",
    "MAX_MESSAGE",
    "Row",
    "Stretch",
    "by_stated_time",
    "nested",
    "row_of",
    "stretches",
    "unix_ns",
]

MAX_MESSAGE = 2_000
"""Characters of a message that stand in the line; the event itself, below it, has all of them."""

MAX_EVENT_BYTES = 16_000
"""Of a longer event only so much is shown: a page holds many, and markup makes each of them longer still."""

_MASKED = re.compile(r"\[[^\[\]\n]{0,80}?~?(card|jwt):[a-p]{20}(?:,card:[a-p]{20})*\]|(?<!\*)\*\*\*(?!\*)")
_TOKEN = re.compile(r"((?:card|jwt):[a-p]{4})[a-p]{16}")
_MAX_DEPTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a message. `masked` is the class of what was masked there (``card``, ``jwt``, ``field``); empty: nothing was."""

    text: str
    masked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entry of a story, as it is shown.

    Attributes:
        leaf, trail, position, kind, recorded: of the entry.
        time: as the service stated it; empty when it stated none.
        start_ns, end_ns: Unix nanoseconds of it, and of a span's end; None when it cannot be read.
        corrected_ns: the stated time by the ledger's clock, where its collector had measured its own; `uncertainty_ns` more or less.
        service, name, outcome, error, actor: of the event's facts.
        message: what the service wrote, in stretches.
        whole: the message was not cut.
        span_id, parent_span_id: of W3C trace context.
        is_span: it has a beginning and an end.
        depth: how many spans it stands in.
        stream, sequence: the event's id.
        why: why it is in its trail.
        marks: what was done to it on its way in, each as class and place (``card``, ``body``).
        detail: of entries that are no events.
        event: the event as indented JSON; of one longer than `MAX_EVENT_BYTES` the beginning of its canonical JSON; empty when it is not shown.
        event_bytes: how long its canonical JSON is; 0 when all of it is shown.
        observed: when the collector saw it.
        problem: what is wrong with the event in the store.
        retired: the month that it was retired with.
        attributes: of the event as text, for comparing.
        late: it came into the log after the first verdict.
    """

    leaf: int
    trail: str
    position: int
    kind: str
    recorded: str
    time: str = ""
    start_ns: int | None = None
    end_ns: int | None = None
    corrected_ns: int | None = None
    uncertainty_ns: int = 0
    service: str = ""
    name: str = ""
    outcome: str = ""
    error: bool = False
    actor: str = ""
    message: Sequence[Stretch] = ()
    whole: bool = True
    span_id: str = ""
    parent_span_id: str = ""
    is_span: bool = False
    depth: int = 0
    stream: str = ""
    sequence: int = -1
    why: str = ""
    marks: Sequence[tuple[str, str]] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
    event: str = ""
    event_bytes: int = 0
    observed: str = ""
    problem: str = ""
    retired: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    late: bool = False


def unix_ns(text: str) -> int | None:
    """Unix nanoseconds of a time; None for what is none."""
    try:
        return parse_time(text) if text else None
    except Malformed:
        return None


def row_of(trail: str, told: Mapping[str, Any]) -> Row:
    """The row of one element of `entries`: a ``FullEntry``, whose event is its canonical JSON as bytes, or an ``EntrySkeleton``."""
    if "entry" not in told:
        return Row(
            leaf=told["leaf"],
            trail=trail,
            position=told["position"],
            kind=told["kind"],
            recorded=told["recorded"],
            time=told.get("time") or "",
            start_ns=unix_ns(told.get("time") or ""),
            service=told.get("service", ""),
            name=told.get("name", ""),
            outcome=told.get("outcome", ""),
            error=told.get("error", False),
            stream=told.get("stream", ""),
            sequence=told.get("sequence", -1),
            detail=told.get("detail", {}),
        )
    entry = told["entry"]
    row = Row(
        leaf=told["leaf"],
        trail=trail,
        position=entry["position"],
        kind=entry["kind"],
        recorded=entry["recorded"],
        stream=entry.get("stream", ""),
        sequence=entry.get("sequence", -1),
        why=entry.get("why", ""),
        detail=entry.get("detail", {}),
        problem=told.get("problem", ""),
        retired=(told.get("retired") or {}).get("month", ""),
    )
    facts = entry.get("facts")
    if facts is not None:
        row = replace(
            row,
            time=facts.get("time", ""),
            start_ns=unix_ns(facts.get("time", "")),
            service=facts.get("service", ""),
            name=facts.get("name", ""),
            outcome=facts.get("outcome", ""),
            error=facts.get("error", False),
            actor=facts.get("actor", ""),
            span_id=facts.get("span_id", ""),
            marks=tuple((mark.partition(":")[0], mark.partition(":")[2]) for mark in facts.get("marks", ())),
        )
    return row if told.get("event") is None else _with_event(row, told["event"])


def _with_event(row: Row, data: bytes) -> Row:
    event = msgspec.json.decode(data)
    span = event.get("span") or {}
    body = event.get("body")
    message = "" if body is None else body if isinstance(body, str) else msgspec.json.encode(body).decode()
    message = message or span.get("status_message", "")
    return replace(
        row,
        message=stretches(message[:MAX_MESSAGE]),
        whole=len(message) <= MAX_MESSAGE,
        end_ns=unix_ns(span.get("end", "")),
        is_span=bool(span),
        parent_span_id=span.get("parent_span_id", ""),
        observed=event.get("observed", ""),
        attributes={
            name: value if isinstance(value, str) else repr(value)
            for name, value in event.get("attributes", {}).items()
        },
        event=_readable(data),
        event_bytes=len(data) if len(data) > MAX_EVENT_BYTES else 0,
    )


def _readable(data: bytes) -> str:
    """As much of an event as is shown, indented where that does not make much of little."""
    if len(data) > MAX_EVENT_BYTES:
        return data[:MAX_EVENT_BYTES].decode("utf-8", "ignore")  # a character may be cut in two
    told = msgspec.json.format(data, indent=2).decode()
    return told if len(told) <= 4 * MAX_EVENT_BYTES else data.decode()


def stretches(message: str) -> tuple[Stretch, ...]:
    """A message in stretches: what protection put in the place of a secret stands apart, its token cut short."""
    parts: list[Stretch] = []
    done = 0
    for found in _MASKED.finditer(message):
        if found.start() > done:
            parts.append(Stretch(text=message[done : found.start()]))
        parts.append(Stretch(text=_TOKEN.sub(r"\1…", found[0]), masked=found[1] or "field"))
        done = found.end()
    if done < len(message):
        parts.append(Stretch(text=message[done:]))
    return tuple(parts)


def by_stated_time(row: Row) -> tuple[bool, int, int]:
    """By the time that the service stated; entries without one by when they were recorded, those that cannot be read last."""
    at = row.start_ns if row.kind == "event" else unix_ns(row.recorded)
    return at is None, at or 0, row.leaf


def nested(rows: Sequence[Row]) -> list[Row]:
    """The same rows, each with its depth: a log line stands in the span that it names, a span in its parent."""
    spans = {row.span_id: row for row in rows if row.is_span and row.span_id}

    def depth(row: Row) -> int:
        level, seen = 0, {row.span_id} if row.is_span else set()
        above = row.parent_span_id if row.is_span else row.span_id
        while above in spans and above not in seen and level < _MAX_DEPTH:
            seen.add(above)
            level += 1
            above = spans[above].parent_span_id
        return level

    return [replace(row, depth=depth(row)) for row in rows]
