"""The table of an export: one row an entry, the same columns in CSV and in Parquet. Pure.

Columns are only ever added, at the end. `VERSION` goes up when one changes its meaning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from audit_api.export.walk import Row
from collector.errors import Malformed
from collector.event import Event, Facts, parse_time
from correlator.index.amounts import currency_of

__all__ = ["COLUMNS", "VERSION", "Column", "amounts_of", "plain_keys", "span_ns", "table_row"]

VERSION = 1

_MOST_NS = (1 << 63) - 1

Kind = Literal["text", "word", "whole", "time", "amount", "json", "truth", "words"]
"""`text`: free; `word`: one of few values (a dictionary in Parquet); `whole`: an integer; `time`: RFC 3339 UTC with nine digits;
`amount`: a decimal number; `json`: canonical JSON as text; `truth`: a boolean; `words`: a list of words."""

_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, what kind of values it has, what they mean, and how each is had."""

    name: str
    kind: Kind
    about: str
    value: Callable[["_Told"], Any]


@dataclass(frozen=True, slots=True)
class _Told:
    """What the columns look at."""

    row: Row
    facts: Facts
    event: Event
    amounts: list[tuple[str, str]]


def amounts_of(keys: dict[str, str]) -> list[tuple[str, str]]:
    """The amounts among an event's keys as (currency in ISO 4217's capitals, decimal number), sorted by currency.

    An amount is a key ``amount.<currency>`` whose value is in the one form that amounts have (docs/format.md): only then is it a number that
    may stand where numbers do. Senders call their keys what they like.
    """
    return sorted((currency, value) for name, value in keys.items() if (currency := currency_of(name, value)))


def plain_keys(keys: dict[str, str]) -> dict[str, str]:
    """The keys that are no amounts: each key is here or in `amounts_of`."""
    return {name: value for name, value in keys.items() if not currency_of(name, value)}


def span_ns(event: Event) -> int | None:
    """How long a span took, in nanoseconds; None for what is no span, has no usable end, or takes longer than 63 bits can say (292 years)."""
    length_ns = _length_ns(event)
    return length_ns if length_ns is not None and length_ns <= _MOST_NS else None


def _length_ns(event: Event) -> int | None:
    if event.span is None:
        return None
    try:
        return max(0, parse_time(event.span.end) - parse_time(event.time))
    except Malformed:
        return None


def _json(value: Any) -> str | None:
    return _encode(value).decode("utf-8") if value else None


def _body(event: Event) -> str | None:
    if event.body is None or isinstance(event.body, str):
        return event.body
    return _encode(event.body).decode("utf-8")


def _plain_keys(told: _Told) -> str | None:
    return _json(plain_keys(told.facts.keys))


def _problem(told: _Told) -> str | None:
    length_ns = _length_ns(told.event)
    if length_ns is None or length_ns <= _MOST_NS:
        return told.row.problem or None
    too_long = f"its span took {length_ns} nanoseconds, more than fit into 63 bits"
    return f"{told.row.problem}; {too_long}" if told.row.problem else too_long


COLUMNS: tuple[Column, ...] = (
    Column("log", "word", "origin of the log that `leaf` is an index of", lambda t: t.row.log),
    Column("leaf", "whole", "leaf index of the entry in the log", lambda t: t.row.leaf),
    Column("trail", "text", "the trail that it is an entry of", lambda t: t.row.entry.trail),
    Column("position", "whole", "position in the trail, from 0", lambda t: t.row.entry.position),
    Column("kind", "word", "event, link, verdict, batch, gap, enrolment, fork", lambda t: t.row.entry.kind),
    Column("recorded", "time", "when the correlator made the entry", lambda t: t.row.entry.recorded),
    Column("why", "text", "why it is in this trail", lambda t: t.row.entry.why or None),
    Column("stream", "word", "with `sequence` the event's id", lambda t: t.row.entry.stream or None),
    Column(
        "sequence",
        "whole",
        "number of the event in its stream",
        lambda t: t.row.entry.sequence if t.row.entry.kind == "event" else None,
    ),
    Column("digest", "text", "SHA-256 of the event's canonical bytes, hex", lambda t: t.facts.digest or None),
    Column("time", "time", "when it happened, as the service stated it", lambda t: t.facts.time or None),
    Column("observed", "time", "when the collector saw it", lambda t: t.event.observed or None),
    Column("service", "word", "who tells it", lambda t: t.facts.service or None),
    Column("name", "word", "what happened: the event's name, else the span's", lambda t: t.facts.name or None),
    Column("transaction", "text", "the explicit transaction ID", lambda t: t.facts.transaction or None),
    Column("tenant", "word", "scope of transaction and keys", lambda t: t.facts.tenant or None),
    Column("actor", "text", "on whose behalf", lambda t: t.facts.actor or None),
    Column("outcome", "word", "success, failure, or nothing", lambda t: t.facts.outcome or None),
    Column(
        "error",
        "truth",
        "whether the event tells of an error",
        lambda t: t.facts.error if t.row.entry.kind == "event" else None,
    ),
    Column("severity", "whole", "1 to 24, as OpenTelemetry has it", lambda t: t.event.severity_number or None),
    Column("severity_text", "word", "as the service says it", lambda t: t.event.severity_text or None),
    Column("trace_id", "text", "W3C trace, 32 hex digits", lambda t: t.facts.trace_id or None),
    Column("span_id", "text", "W3C span, 16 hex digits", lambda t: t.facts.span_id or None),
    Column(
        "parent_span_id", "text", "the span's parent", lambda t: (t.event.span and t.event.span.parent_span_id) or None
    ),
    Column("span_kind", "word", "SERVER, CLIENT, …", lambda t: (t.event.span and t.event.span.kind) or None),
    Column("duration_ns", "whole", "how long the span took, in nanoseconds", lambda t: span_ns(t.event)),
    Column("amount", "amount", "the amount of money that it tells", lambda t: t.amounts[0][1] if t.amounts else None),
    Column(
        "currency",
        "word",
        "of `amount`, ISO 4217; XXX where none is said",
        lambda t: t.amounts[0][0] if t.amounts else None,
    ),
    Column(
        "further_amounts",
        "json",
        "amounts in further currencies: currency to decimal number",
        lambda t: _json(dict(t.amounts[1:])),
    ),
    Column("keys", "json", "business keys: name to value", _plain_keys),
    Column("body", "text", "what the service wrote; JSON where it is no text", lambda t: _body(t.event)),
    Column("attributes", "json", "the event's attributes", lambda t: _json(t.event.attributes)),
    Column("resource", "json", "attributes of the source", lambda t: _json(t.event.resource)),
    Column(
        "marks",
        "words",
        "what was done to it on its way in (`card:body`: masked there …)",
        lambda t: list(t.facts.marks) or None,
    ),
    Column("detail", "json", "of entries that are no event: what they say", lambda t: _json(t.row.entry.detail)),
    Column("problem", "text", "why the event is not here, or not as it is", _problem),
    Column(
        "retired", "word", "the month with which the event was let go of by policy", lambda t: t.row.retired or None
    ),
)

_NO_EVENT = Event()


def table_row(row: Row) -> list[Any]:
    """The row's values in the order of `COLUMNS`; None where there is nothing to tell."""
    facts = row.facts()
    told = _Told(row, facts, row.event() or _NO_EVENT, amounts_of(facts.keys))
    return [column.value(told) for column in COLUMNS]
