"""One line of JSON becomes an arrival: an Event as we write it, or any other object as a free record.

Shared by the HTTP way in and the importer. Strict decoding first, for speed; what it refuses and other programs write all the same
(NaN, lone surrogates, text that is not UTF-8) is taken by Python's own decoder, and marked by the intake.
"""

import json
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Event, Origin, Scope, Span, format_time, parse_time
from collector.receive import Arrival
from collector.receive.record import arrival_of_record, record_uid, span_id_of, trace_id_of

__all__ = ["arrival_of_line", "object_of_line"]


class _EventLine(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of `Event` that a sender may set.

    Not `observed`, `origin` and `marks`, which are ours, nor `access`, which only our own processes record.
    """

    time: str = ""
    severity_number: int = 0
    severity_text: str = ""
    event_name: str = ""
    body: Any = None
    attributes: dict[str, Any] = {}
    resource: dict[str, Any] = {}
    scope: Scope | None = None
    trace_id: str = ""
    span_id: str = ""
    trace_flags: int = 0
    span: Span | None = None
    transaction: str = ""
    tenant: str = ""
    keys: dict[str, str] = {}
    actor: str = ""
    outcome: str = ""


_decode_event = msgspec.json.Decoder(_EventLine).decode
_decode_record = msgspec.json.Decoder(dict[str, Any]).decode


def object_of_line(line: bytes) -> dict[str, Any]:
    """The JSON object that stands in `line`; raises `Malformed` when none does."""
    try:
        return _decode_record(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        value = json.loads(line.decode("utf-8", "surrogateescape"))
    except RecursionError as error:
        raise Malformed("nested too deeply", label="too_deep") from error
    except ValueError as error:
        where = f"column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Malformed("not JSON", where=where, label="bad_json") from error
    if not isinstance(value, dict):
        raise Malformed("not a JSON object", label="bad_json")
    return value


def arrival_of_line(line: bytes, *, origin: Origin, service: str = "", observed: str = "") -> Arrival:
    """The event of one line.

    A line whose names are all fields of the Event, with fitting values, is that event; every other object is a free record
    (`collector.receive.record`).

    Raises:
        Malformed: not a JSON object.
    """
    try:
        return _arrival_of_event(_decode_event(line), origin=origin, service=service, observed=observed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Malformed):
        return arrival_of_record(object_of_line(line), origin=origin, service=service, observed=observed)


def _arrival_of_event(line: _EventLine, *, origin: Origin, service: str, observed: str) -> Arrival:
    trace_id, span_id = trace_id_of(line.trace_id), span_id_of(line.span_id)
    if (
        (line.trace_id and not trace_id)
        or (line.span_id and not span_id)
        or not 0 <= line.severity_number <= 24
        or not 0 <= line.trace_flags <= 255
        or line.outcome not in {"", "success", "failure"}
        or (line.span is not None and not (trace_id and span_id))
    ):
        raise Malformed("a field of the Event with a value that it cannot have", label="bad_event")
    if line.span is not None:
        source_id: bytes | None = b"span\0" + bytes.fromhex(trace_id) + bytes.fromhex(span_id)
    else:
        source_id = record_uid(line.attributes.get("log.record.uid"))
    if service and "service.name" not in line.resource:
        line.resource["service.name"] = service
    event = Event(
        time=format_time(parse_time(line.time)) if line.time else "",
        observed=observed,
        severity_number=line.severity_number,
        severity_text=line.severity_text,
        event_name=line.event_name,
        body=line.body,
        attributes=line.attributes,
        resource=line.resource,
        scope=line.scope,
        trace_id=trace_id,
        span_id=span_id,
        trace_flags=line.trace_flags,
        span=line.span,
        transaction=line.transaction,
        tenant=line.tenant,
        keys=line.keys,
        actor=line.actor,
        outcome=line.outcome,
        origin=origin,
    )
    return Arrival(event=event, source_id=source_id)
