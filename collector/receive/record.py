"""A free record (a map, as log shippers and loggers send it) becomes an Event.

Fields that have a place in OpenTelemetry's log data model go there; every other one stays, under its own name, in the
attributes. The table below is the whole rule (docs/ways-in.md shows it to users). Where a record has two fields for one place, the
one that stands first in the table is taken and the others stay attributes; a value that does not fit its place (a trace id
that is no trace id) stays an attribute too. Nothing that the decoder gave is lost, and nothing is guessed; of a name that stood twice decoders give the last value.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from collector.errors import Malformed
from collector.event import Event, Origin, format_time, parse_time
from collector.memo import Memo
from collector.protect.classify import find_cards
from collector.receive import Arrival

__all__ = [
    "FIELDS",
    "ORIGINAL",
    "arrival_of_record",
    "put_over",
    "record_uid",
    "severity_of",
    "span_id_of",
    "span_uid",
    "time_of",
    "trace_id_of",
]

ORIGINAL = "log.record.original"
"""The attribute (OpenTelemetry semantic conventions) that keeps the bytes of a text that is not UTF-8."""

FIELDS: Mapping[str, tuple[str, ...]] = {
    "body": ("body", "message", "msg", "log"),
    "severity_text": ("severity_text", "severityText", "severity", "level", "log.level", "loglevel", "levelname"),
    "severity_number": ("severity_number", "severityNumber"),
    "trace_id": ("trace_id", "traceId", "traceID", "TraceID", "trace.id", "traceid"),
    "span_id": ("span_id", "spanId", "spanID", "SpanID", "span.id", "spanid"),
    "service": ("service.name", "service_name", "service"),
    "event_name": ("event_name", "event.name", "event.action"),
    "outcome": ("outcome", "event.outcome"),
    "actor": ("actor",),
    "time": ("time", "timestamp", "@timestamp", "ts"),
}
"""Place in the event → names under which records carry it, first wins. `time` is read only where the wire has no time of its own."""

_PLACES = {
    name: (rank, place) for rank, (place, name) in enumerate((p, n) for p, names in FIELDS.items() for n in names)
}
_TRACE_ID = re.compile(r"(?!0+$)(?:[0-9a-f]{16}){1,2}", re.ASCII)
_SPAN_ID = re.compile(r"(?!0+$)[0-9a-f]{16}", re.ASCII)
_SERVING = frozenset({"SERVER", "CONSUMER"})
_MADE_UP = re.compile(
    r"(?=.*[a-z])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{40}|[0-7][0-9a-hjkmnp-tv-z]{25})",
    re.ASCII | re.IGNORECASE,
)

_SEVERITIES: Mapping[str, int] = {
    "TRACE": 1, "FINEST": 1, "VERBOSE": 1, "FINER": 3,
    "DEBUG": 5, "FINE": 5, "CONFIG": 8,
    "INFO": 9, "INFORMATION": 9, "INFORMATIONAL": 9, "NOTICE": 10,
    "WARN": 13, "WARNING": 13,
    "ERROR": 17, "ERR": 17, "SEVERE": 17, "EXCEPTION": 17, "DPANIC": 18, "CRITICAL": 18, "CRIT": 18, "ALERT": 19,
    "FATAL": 21, "PANIC": 21, "EMERGENCY": 21, "EMERG": 21,
}  # fmt: skip
"""Level names to OpenTelemetry's severity numbers (logs data model, "Mapping of SeverityNumber" and appendix B)."""


def severity_of(text: str) -> int:
    """OpenTelemetry's severity number (1–24) of a level's name, in any case; 0 when the name is unknown."""
    number = _SEVERITIES.get(text)
    if number is None and len(text) <= 16:
        name = text.strip().upper()
        number = _SEVERITIES.get(name)
        if number is None and name[-1:] in {"2", "3", "4"}:  # INFO2, ERROR3 …: the data model's own short names
            base = _SEVERITIES.get(name[:-1], 0)
            number = base + int(name[-1]) - 1 if base in {1, 5, 9, 13, 17, 21} else 0
    return number or 0


def trace_id_of(value: Any) -> str:
    """The 32 lower-case hex digits of a trace id, or empty when the value is none.

    64-bit ids (16 digits) are padded with zeros on the left (W3C trace context, section 3.2.2.3 and OpenTelemetry's propagators).
    """
    if type(value) is str and 16 <= len(value) <= 32:
        text = value if _TRACE_ID.fullmatch(value) else value.lower()
        if text is value or _TRACE_ID.fullmatch(text):
            return text if len(text) == 32 else "0" * 16 + text
    return ""


def span_id_of(value: Any) -> str:
    """The 16 lower-case hex digits of a span id, or empty when the value is none."""
    if type(value) is str and len(value) == 16:
        text = value.lower()
        if _SPAN_ID.fullmatch(text):
            return text
    return ""


def record_uid(value: Any) -> bytes | None:
    """The source id that attribute ``log.record.uid`` (OpenTelemetry semantic conventions) gives; None when it is no text.

    Ids stand unmasked in the spool, the journal and the dead letters. So a UUID, a ULID or a digest in hex stays as it is, and
    whatever else somebody calls a record, or holds a card number, is replaced by its SHA-256.
    """
    if type(value) is not str or not value:
        return None
    uid = b"log\0" + value.encode("utf-8", "surrogatepass")
    plain = _MADE_UP.fullmatch(value) and not find_cards(value)
    return uid if plain else b"log\0" + hashlib.sha256(uid).digest()


def span_uid(trace_id: str, span_id: str, *, kind: str, time: str) -> bytes:
    """The source id of a span: its ids are 32 and 16 hex digits, its kind and start as the event has them.

    A server may report under the ids of the client that called it (Zipkin's "shared spans", which Brave and Envoy make and OpenTelemetry's
    collector keeps), and where the call was tried again, several do. So what serves is told apart by its kind and its start; what calls has ids of its own.
    """
    ids = bytes.fromhex(trace_id + span_id)
    if kind in _SERVING:
        ids = hashlib.sha256(b"%b%b\0%b" % (ids, kind.encode(), time.encode())).digest()
    return b"span\0" + ids


def time_of(value: Any) -> str:
    """RFC 3339 UTC of a record's time: RFC 3339 text, or a number since 1970 in the unit that its size shows.

    Numbers below 10^11 are seconds, below 10^14 milliseconds, below 10^17 microseconds, else nanoseconds: right for every time
    after 1973 and before 5138.

    Raises:
        Malformed: neither, or outside the years 0001–9999.
    """
    if type(value) is str:
        return format_time(parse_time(value))
    if type(value) is int and value >= 0:
        scale = 10**9 if value < 10**11 else 10**6 if value < 10**14 else 1000 if value < 10**17 else 1
        return format_time(value * scale)
    if type(value) is float and 0 <= value < 10**14:
        scale = 10**9 if value < 10**11 else 10**6
        return format_time(int(value) * scale + round((value % 1) * 10**6) * scale // 10**6)
    raise Malformed("neither an RFC 3339 time nor a number", label="bad_time")


def arrival_of_record(
    record: dict[str, Any],
    *,
    origin: Origin,
    service: str = "",
    time: str | None = None,
    observed: str = "",
    resource: Mapping[str, Any] | None = None,
    marks: tuple[str, ...] = (),
    plain: bool = False,
) -> Arrival:
    """The event that a record tells. The record becomes the event's attributes: the caller must not use it afterwards.

    Args:
        record: names to values, as decoded. Names that are no text are left to the intake.
        origin: how it came in.
        service: ``service.name`` when the record itself names no service; empty for none.
        time: the event's time when the wire has one of its own; None to read it from the record.
        observed: when the collector saw it, RFC 3339; empty to leave it unset.
        resource: further resource attributes.
        marks: what is already known to be unusual.
        plain: the record and `resource` hold plain values alone (`Arrival.plain`); `time` and `observed` are in their form.
    """
    found: dict[str, Any] = {} if time is None else {"time": time}
    for name, place, fitted in _plans[tuple(record)]:
        if place in found:
            continue
        value = record[name]
        if fitted is not None:
            value = fitted(value)
            if value is None:
                continue
        elif type(value) is not str or not value:
            continue
        found[place] = value
        del record[name]
    named = found.pop("service", service)
    text = found.get("severity_text")
    if text is not None and "severity_number" not in found:
        found["severity_number"] = severity_of(text)
    attributes = dict(resource) if resource else {}
    if named:
        attributes["service.name"] = named
    uid = record.get("log.record.uid")
    event = Event(observed=observed, attributes=record, resource=attributes, origin=origin, marks=list(marks), **found)
    return Arrival(event=event, source_id=None if uid is None else record_uid(uid), plain=plain)


def put_over(stated: dict[str, Any], known: Mapping[str, Any]) -> None:
    """Put what we know of an event's way into what its text states: of two that differ ours has the name, and the other is kept as ``<name>.stated``.

    Else whoever writes the text could say that it came from elsewhere.
    """
    for name, value in known.items():
        if name in stated and (stated[name] != value or type(stated[name]) is not type(value)):
            other = f"{name}.stated"
            while other in stated or other in known:
                other += ".stated"
            stated[other] = stated[name]
        stated[name] = value


def states_time(record: Mapping[str, Any]) -> bool:
    """Whether a record names a time of its own that can be read."""
    return any(name in record and _time(record[name]) is not None for name in FIELDS["time"])


def _time(value: Any) -> str | None:
    try:
        return time_of(value)
    except Malformed:
        return None


def _service(value: Any) -> str | None:
    if type(value) is dict and len(value) == 1:
        value = value.get("name")  # Elastic Common Schema: {"service": {"name": …}}
    return value if type(value) is str and value else None


_Fitted = Callable[[Any], Any] | None
_FITTED: Mapping[str, _Fitted] = {
    "body": lambda value: value,
    "severity_text": None,
    "severity_number": lambda value: value if type(value) is int and 1 <= value <= 24 else None,
    "trace_id": lambda value: trace_id_of(value) or None,
    "span_id": lambda value: span_id_of(value) or None,
    "service": _service,
    "event_name": None,
    "outcome": lambda value: value if value == "success" or value == "failure" else None,  # noqa: PLR1714 - may be unhashable
    "actor": None,
    "time": _time,
}
"""What a value becomes in its place, None when it does not fit there; instead of a function None: any text but the empty one."""


def _plan(names: tuple[Any, ...]) -> tuple[tuple[str, str, _Fitted], ...]:
    """For the well-known ones among a record's names: name, place and what fits a value there, in order of preference."""
    known = sorted((*_PLACES[name], name) for name in names if name in _PLACES)
    return tuple((name, place, _FITTED[place]) for _, place, name in known)


_plans = Memo(_plan)
