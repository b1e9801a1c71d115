"""An Event that comes in as an Event: from a JSON line with our own field names, or from another collector.

A sender may set what it knows; what only the collector that takes it in can know, it may not.
"""

from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import MAX_TRACE_FLAGS, Event, Origin, Scope, Span, format_time, parse_time
from collector.receive import Arrival
from collector.receive.record import record_uid, span_id_of, span_uid, trace_id_of

__all__ = ["EventLine", "arrival_of_event"]


class EventLine(msgspec.Struct, forbid_unknown_fields=True):
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


def arrival_of_event(line: EventLine, *, origin: Origin, service: str, observed: str) -> Arrival:
    """The event that a sender has written as an `Event`; `service` names it if it names no service itself.

    Raises:
        Malformed: a field has a value that it cannot have, or its time is none.
    """
    trace_id, span_id = trace_id_of(line.trace_id), span_id_of(line.span_id)
    if (
        (line.trace_id and not trace_id)
        or (line.span_id and not span_id)
        or not 0 <= line.severity_number <= 24
        or not 0 <= line.trace_flags <= MAX_TRACE_FLAGS
        or line.outcome not in {"", "success", "failure"}
        or (line.span is not None and not (trace_id and span_id))
    ):
        raise Malformed("a field of the Event with a value that it cannot have", label="bad_event")
    time = format_time(parse_time(line.time)) if line.time else ""
    if line.span is not None:
        source_id: bytes | None = span_uid(trace_id, span_id, kind=line.span.kind, time=time)
    else:
        source_id = record_uid(line.attributes.get("log.record.uid"))
    if service and "service.name" not in line.resource:
        line.resource["service.name"] = service
    event = Event(
        time=time,
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
