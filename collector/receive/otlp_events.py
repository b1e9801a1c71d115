"""OpenTelemetry's log records and spans become events, read alike from protobuf and from OTLP/JSON.

Everything that the data model has keeps its place: resource, scope, severity, body, attributes, trace context; of a span also kind,
status, end, events and links. Counts of what a sender dropped itself stand as the attributes ``otel.dropped_attributes_count`` and
so on (the names that OpenTelemetry gives exporters to other formats), a schema URL as ``otel.schema_url`` of resource and scope.
An id of a span's own that is none makes the span `Malformed`; a log record with a bad id is kept, and marked later on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from collector.errors import Malformed
from collector.event import Event, Origin, Scope, Span, format_time
from collector.receive import Arrival, otlp_json
from collector.receive.census import Walked
from collector.receive.record import put_over, record_uid, span_id_of, span_uid, trace_id_of

__all__ = [
    "JSON",
    "PROTOBUF",
    "VOID",
    "Reading",
    "Refused",
    "Void",
    "attributes_of",
    "events_of_logs",
    "events_of_traces",
    "scopes_of",
    "time_of",
]

_KINDS = ("", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("", "OK", "ERROR")
_ORIGIN = Origin(receiver="otlp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the two encodings differ.

    `identifier`: an id as hex, empty for zeros; `value_of`: an AnyValue as a plain value, told whom to call with the number of values in each list
    or map; `number_of`: an exemplar's value, None when it has none; `raw_of`: a record's bytes again; `walked`: counts a record's values.
    """

    identifier: Callable[[Any], str]
    value_of: Callable[..., Any]
    number_of: Callable[[Any], int | float | None]
    raw_of: Callable[[Any], bytes]
    walked: Walked = field(default_factory=Walked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A record that cannot be an event: its bytes, and why."""

    raw: bytes
    error: Malformed


def _protobuf_identifier(value: bytes) -> str:
    return value.hex() if any(value) else ""


def _protobuf_value(value: Any, count: Callable[[int], object] = otlp_json.uncounted) -> Any:
    which = value.WhichOneof("value")
    if which == "string_value":
        return value.string_value
    if which == "array_value":
        items = value.array_value.values
        count(len(items))
        return [_protobuf_value(item, count) for item in items]
    if which == "kvlist_value":
        pairs = value.kvlist_value.values
        count(len(pairs))
        return {pair.key: _protobuf_value(pair.value, count) for pair in pairs}
    return getattr(value, which) if which else None


def _protobuf_number(exemplar: Any) -> int | float | None:
    which = exemplar.WhichOneof("value")
    return getattr(exemplar, which) if which else None


class Void:
    """A resource, a scope or a metric went by that holds nothing: of bytes that are few there may be very many."""

    __slots__ = ()


VOID = Void()

PROTOBUF = Reading(
    identifier=_protobuf_identifier,
    value_of=_protobuf_value,
    number_of=_protobuf_number,
    raw_of=lambda record: bytes(record.SerializeToString()),
)
JSON = Reading(
    identifier=otlp_json.identifier,
    value_of=otlp_json.value_of,
    number_of=otlp_json.number_of,
    raw_of=otlp_json.raw_of,
)


def scopes_of(
    groups: Sequence[Any] | None, scopes: str, items: str, reading: Reading
) -> Iterator[Void | tuple[dict[str, Any], Scope | None, list[str], Sequence[Any]]]:
    """Each scope of each resource that holds something: resource, scope, the marks of both, and what it holds.

    `scopes`, `items`: what the fields are called in which a resource has its scopes, and a scope what it holds.
    """
    for group in groups or ():
        scoped_here = getattr(group, scopes)
        if not scoped_here:
            yield VOID
            continue
        around: list[str] = []
        resource = resource_of(group, reading, around)
        for scoped in scoped_here:
            held = getattr(scoped, items)
            if not held:
                yield VOID
                continue
            marks = list(around)
            yield resource, scope_of(scoped, reading, marks), marks, held


def events_of_logs(request: Any, reading: Reading, *, observed: str) -> Iterator[Arrival | Refused | Void]:
    """The log records of an ExportLogsServiceRequest (protobuf's class or `otlp_json.LogsRequest`), in their order."""
    for part in scopes_of(request.resource_logs, "scope_logs", "log_records", reading):
        if isinstance(part, Void):
            yield part
            continue
        resource, scope, marks, items = part
        for record in items:
            try:
                yield _log(record, resource, scope, reading, around=marks, observed=observed)
            except Malformed as error:
                yield Refused(raw=reading.raw_of(record), error=error)


def events_of_traces(request: Any, reading: Reading, *, observed: str) -> Iterator[Arrival | Refused | Void]:
    """The spans of an ExportTraceServiceRequest (protobuf's class or `otlp_json.TraceRequest`), in their order."""
    for part in scopes_of(request.resource_spans, "scope_spans", "spans", reading):
        if isinstance(part, Void):
            yield part
            continue
        resource, scope, marks, items = part
        for span in items:
            try:
                yield _span(span, resource, scope, reading, around=marks, observed=observed)
            except Malformed as error:
                yield Refused(raw=reading.raw_of(span), error=error)


def attributes_of(
    pairs: Sequence[Any] | None, reading: Reading, marks: list[str], more: Sequence[Any] | None = None
) -> dict[str, Any]:
    """Attributes as a map, with `more` behind them; marks a key that stands twice. Raises Malformed: as `Reading.value_of`, `Walked.count`."""
    value_of, counted = reading.value_of, reading.walked.count
    count = len(pairs or ()) + len(more or ())
    counted(count)
    out = {pair.key: value_of(pair.value, counted) for pair in chain(pairs or (), more or ())}
    if len(out) != count and "duplicate_attribute" not in marks:
        marks.append("duplicate_attribute")  # keys must be unique (OTLP); the last one stands
    return out


def resource_of(group: Any, reading: Reading, marks: list[str]) -> dict[str, Any]:
    """The resource of a ResourceLogs, ResourceSpans or ResourceMetrics; `marks` are those of all that is in it."""
    reading.walked.begin()
    resource = group.resource
    attributes = attributes_of(resource.attributes, reading, marks) if resource else {}
    if group.schema_url:
        put_over(attributes, {"otel.schema_url": group.schema_url})
    if resource and resource.dropped_attributes_count:
        put_over(attributes, {"otel.dropped_attributes_count": resource.dropped_attributes_count})
    return attributes


def scope_of(scoped: Any, reading: Reading, marks: list[str]) -> Scope | None:
    """The scope of a ScopeLogs, ScopeSpans or ScopeMetrics; None when it says nothing. `marks` as in `resource_of`."""
    reading.walked.begin()
    scope = scoped.scope
    attributes = attributes_of(scope.attributes, reading, marks) if scope else {}
    if scoped.schema_url:
        put_over(attributes, {"otel.schema_url": scoped.schema_url})
    if scope and scope.dropped_attributes_count:
        put_over(attributes, {"otel.dropped_attributes_count": scope.dropped_attributes_count})
    name, version = (scope.name, scope.version) if scope else ("", "")
    return Scope(name=name, version=version, attributes=attributes) if name or version or attributes else None


def time_of(unix_ns: int, attributes: dict[str, Any], marks: list[str]) -> str:
    """A time as text, empty for 0; one that no text can say goes to the attributes, and is marked."""
    if not unix_ns:
        return ""
    try:
        return format_time(unix_ns)
    except Malformed:
        attributes["time.stated"] = str(unix_ns)
        marks.append("time_unusable")
        return ""


def _log(
    record: Any, resource: dict[str, Any], scope: Scope | None, reading: Reading, *, around: list[str], observed: str
) -> Arrival:
    reading.walked.begin()
    marks = list(around)
    attributes = attributes_of(record.attributes, reading, marks)
    if record.dropped_attributes_count:
        put_over(attributes, {"otel.dropped_attributes_count": record.dropped_attributes_count})
    number = record.severity_number
    event = Event(
        time=time_of(record.time_unix_nano, attributes, marks),
        observed=time_of(record.observed_time_unix_nano, attributes, marks) or observed,
        severity_number=number if 0 <= number <= 24 else 0,
        severity_text=record.severity_text,
        event_name=record.event_name,
        body=reading.value_of(record.body, reading.walked.count),
        attributes=attributes,
        resource=resource,
        scope=scope,
        trace_id=reading.identifier(record.trace_id),
        span_id=reading.identifier(record.span_id),
        trace_flags=record.flags,
        origin=_ORIGIN,
        marks=marks,
    )
    return Arrival(event=event, source_id=record_uid(attributes.get("log.record.uid")))


def _span(
    span: Any, resource: dict[str, Any], scope: Scope | None, reading: Reading, *, around: list[str], observed: str
) -> Arrival:
    trace_id, span_id = reading.identifier(span.trace_id), reading.identifier(span.span_id)
    if len(trace_id) != 32 or not trace_id_of(trace_id):
        raise Malformed("a span whose trace id is not 16 bytes, or zero", label="bad_id")
    if not span_id_of(span_id):
        raise Malformed("a span whose own id is not 8 bytes, or zero", label="bad_id")
    reading.walked.begin()
    marks = list(around)
    attributes = attributes_of(span.attributes, reading, marks)
    parent = reading.identifier(span.parent_span_id)
    if parent and not span_id_of(parent):
        put_over(attributes, {"parent_span_id": parent})
        marks.append("parent_span_id_unusable")
        parent = ""
    for name in ("dropped_attributes_count", "dropped_events_count", "dropped_links_count"):
        if dropped := getattr(span, name):
            put_over(attributes, {f"otel.{name}": dropped})
    reading.walked.count(len(span.events or ()) + len(span.links or ()))
    status = span.status
    code = status.code if status else 0
    event = Event(
        time=time_of(span.start_time_unix_nano, attributes, marks),
        observed=observed,
        attributes=attributes,
        resource=resource,
        scope=scope,
        trace_id=trace_id,
        span_id=span_id,
        trace_flags=span.flags,
        span=Span(
            name=span.name,
            parent_span_id=parent,
            kind=_KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else "",
            end=time_of(span.end_time_unix_nano, attributes, marks),
            status=_STATUSES[code] if 0 <= code < len(_STATUSES) else "",
            status_message=status.message if status else "",
            trace_state=span.trace_state,
            events=[_span_event(item, reading, marks) for item in span.events or ()],
            links=[_span_link(item, reading, marks) for item in span.links or ()],
        ),
        origin=_ORIGIN,
        marks=marks,
    )
    assert event.span is not None
    return Arrival(event=event, source_id=span_uid(trace_id, span_id, kind=event.span.kind, time=event.time))


def _span_event(item: Any, reading: Reading, marks: list[str]) -> dict[str, Any]:
    attributes = attributes_of(item.attributes, reading, marks)
    if item.dropped_attributes_count:
        put_over(attributes, {"otel.dropped_attributes_count": item.dropped_attributes_count})
    out = {"time": time_of(item.time_unix_nano, attributes, marks), "name": item.name, "attributes": attributes}
    return {name: value for name, value in out.items() if value}


def _span_link(item: Any, reading: Reading, marks: list[str]) -> dict[str, Any]:
    attributes = attributes_of(item.attributes, reading, marks)
    if item.dropped_attributes_count:
        put_over(attributes, {"otel.dropped_attributes_count": item.dropped_attributes_count})
    out = {
        "trace_id": reading.identifier(item.trace_id),
        "span_id": reading.identifier(item.span_id),
        "trace_state": item.trace_state,
        "attributes": attributes,
        "flags": item.flags,
    }
    return {name: value for name, value in out.items() if value}
