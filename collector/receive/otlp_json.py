"""OTLP/JSON as structs: the shapes of opentelemetry-proto with their fields in lowerCamelCase.

The Protobuf JSON mapping, except that trace and span ids are hexadecimal and enums are numbers
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding). 64-bit integers come as text or as numbers; unknown fields are
ignored, as the specification demands. The attribute names are those of the generated protobuf classes, so that
`collector.receive.otlp_events` reads both alike.
"""

import base64
import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from collector.errors import Malformed
from collector.receive.json_mending import mended, restore_halves

__all__ = [
    "LogsRequest",
    "MetricsRequest",
    "TraceRequest",
    "identifier",
    "misnamed_in",
    "number_of",
    "raw_of",
    "read_logs",
    "read_metrics",
    "read_traces",
    "uncounted",
    "value_of",
]


_NOTHING = msgspec.Raw(b"")


class _Shape(msgspec.Struct, rename="camel"):
    """Base of all: lowerCamelCase on the wire."""


class AnyValue(_Shape):
    """One of its fields is set, or none."""

    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | None = None
    double_value: float | str | None = None
    array_value: "ArrayValue | None" = None
    kvlist_value: "KeyValueList | None" = None
    bytes_value: str | None = None


class ArrayValue(_Shape):
    """A list of values."""

    values: list[AnyValue] | None = None


class KeyValue(_Shape):
    """One attribute."""

    key: str = ""
    value: AnyValue | None = None


class KeyValueList(_Shape):
    """A map of values."""

    values: list[KeyValue] | None = None


class Resource(_Shape):
    """What sent it."""

    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int = 0


class InstrumentationScope(_Shape):
    """What in it wrote it."""

    name: str = ""
    version: str = ""
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int = 0


class LogRecord(_Shape):
    """One log record."""

    time_unix_nano: int = 0
    observed_time_unix_nano: int = 0
    severity_number: int = 0
    severity_text: str = ""
    body: AnyValue | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int = 0
    flags: int = 0
    trace_id: str = ""
    span_id: str = ""
    event_name: str = ""


class ScopeLogs(_Shape):
    """Log records of one scope."""

    scope: InstrumentationScope | None = None
    log_records: list[LogRecord] | None = None
    schema_url: str = ""


class ResourceLogs(_Shape):
    """Log records of one resource."""

    resource: Resource | None = None
    scope_logs: list[ScopeLogs] | None = None
    schema_url: str = ""


class LogsRequest(_Shape):
    """ExportLogsServiceRequest."""

    resource_logs: list[ResourceLogs] | None = None
    misnamed: msgspec.Raw = msgspec.field(default=_NOTHING, name="resource_logs")


class SpanEvent(_Shape):
    """Something that happened during a span."""

    time_unix_nano: int = 0
    name: str = ""
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int = 0


class SpanLink(_Shape):
    """Another span that this one has to do with."""

    trace_id: str = ""
    span_id: str = ""
    trace_state: str = ""
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int = 0
    flags: int = 0


class Status(_Shape):
    """How a span ended."""

    message: str = ""
    code: int = 0


class Span(_Shape):
    """One span."""

    trace_id: str = ""
    span_id: str = ""
    trace_state: str = ""
    parent_span_id: str = ""
    flags: int = 0
    name: str = ""
    kind: int = 0
    start_time_unix_nano: int = 0
    end_time_unix_nano: int = 0
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int = 0
    events: list[SpanEvent] | None = None
    dropped_events_count: int = 0
    links: list[SpanLink] | None = None
    dropped_links_count: int = 0
    status: Status | None = None


class ScopeSpans(_Shape):
    """Spans of one scope."""

    scope: InstrumentationScope | None = None
    spans: list[Span] | None = None
    schema_url: str = ""


class ResourceSpans(_Shape):
    """Spans of one resource."""

    resource: Resource | None = None
    scope_spans: list[ScopeSpans] | None = None
    schema_url: str = ""


class TraceRequest(_Shape):
    """ExportTraceServiceRequest."""

    resource_spans: list[ResourceSpans] | None = None
    misnamed: msgspec.Raw = msgspec.field(default=_NOTHING, name="resource_spans")


class Exemplar(_Shape):
    """A measurement that stands for others, with the trace in which it was made."""

    filtered_attributes: list[KeyValue] | None = None
    time_unix_nano: int = 0
    as_double: float | str | None = None
    as_int: int | None = None
    span_id: str = ""
    trace_id: str = ""


class DataPoint(_Shape):
    """What all kinds of data points have of what is read here; a summary's has no exemplars."""

    attributes: list[KeyValue] | None = None
    exemplars: list[Exemplar] | None = None


class DataPoints(_Shape):
    """Gauge, Sum, Histogram, ExponentialHistogram or Summary."""

    data_points: list[DataPoint] | None = None


class Metric(_Shape):
    """One metric; one of the five kinds is set."""

    name: str = ""
    unit: str = ""
    gauge: DataPoints | None = None
    sum: DataPoints | None = None
    histogram: DataPoints | None = None
    exponential_histogram: DataPoints | None = None
    summary: DataPoints | None = None


class ScopeMetrics(_Shape):
    """Metrics of one scope."""

    scope: InstrumentationScope | None = None
    metrics: list[Metric] | None = None
    schema_url: str = ""


class ResourceMetrics(_Shape):
    """Metrics of one resource."""

    resource: Resource | None = None
    scope_metrics: list[ScopeMetrics] | None = None
    schema_url: str = ""


class MetricsRequest(_Shape):
    """ExportMetricsServiceRequest."""

    resource_metrics: list[ResourceMetrics] | None = None
    misnamed: msgspec.Raw = msgspec.field(default=_NOTHING, name="resource_metrics")


_T = TypeVar("_T", bound=_Shape)
_logs = msgspec.json.Decoder(LogsRequest, strict=False)  # not strict: 64-bit integers come as text
_traces = msgspec.json.Decoder(TraceRequest, strict=False)
_metrics = msgspec.json.Decoder(MetricsRequest, strict=False)


def read_logs(body: bytes) -> LogsRequest:
    """Decode an ExportLogsServiceRequest; raises `Malformed` with the place of what is wrong."""
    return _read(_logs, body)


def read_traces(body: bytes) -> TraceRequest:
    """Decode an ExportTraceServiceRequest; raises `Malformed` with the place of what is wrong."""
    return _read(_traces, body)


def read_metrics(body: bytes) -> MetricsRequest:
    """Decode an ExportMetricsServiceRequest; raises `Malformed` with the place of what is wrong."""
    return _read(_metrics, body)


def misnamed_in(request: LogsRequest | TraceRequest | MetricsRequest) -> str:
    """The request's one field as protobuf names it, where something stands under that name; else empty.

    OTLP/JSON knows it in lowerCamelCase alone, and has a receiver ignore what it does not know: all of such a request.
    """
    if memoryview(request.misnamed).nbytes <= len(b"null"):
        return ""
    return request.__struct_encode_fields__[request.__struct_fields__.index("misnamed")]


def _read(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        return _decoded(decoder, body)
    except RecursionError as error:
        raise Malformed("nested too deeply", label="too_deep") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"not OTLP/JSON: {error}", label="bad_otlp") from error


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError:
        better = mended(body)
        if better is None:
            raise
    request = decoder.decode(better)
    restore_halves(request)
    return request


def identifier(value: str) -> str:
    """A trace or span id as lower-case text; empty for zeros. Whether it is an id is the caller's question."""
    return value.lower() if value.strip("0") else ""


def uncounted(values: int) -> None:
    """What `value_of` calls where nobody counts."""


def value_of(value: AnyValue | None, count: Callable[[int], object] = uncounted) -> Any:
    """The plain value; None when none is set. `count` is called with the number of values in each list or map, before they are read.

    Raises `Malformed` for bytes that are no base64 and numbers that are none, and what `count` raises.
    """
    if value is None:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.bool_value is not None:
        return value.bool_value
    if value.int_value is not None:
        return value.int_value
    if value.double_value is not None:
        return _double(value.double_value, "a doubleValue")
    if value.array_value is not None:
        items = value.array_value.values or ()
        count(len(items))
        return [value_of(item, count) for item in items]
    if value.kvlist_value is not None:
        pairs = value.kvlist_value.values or ()
        count(len(pairs))
        return {pair.key: value_of(pair.value, count) for pair in pairs}
    if value.bytes_value is not None:
        try:
            # as the JSON mapping of protobuf has it: either alphabet, with or without padding
            text = value.bytes_value.replace("-", "+").replace("_", "/")
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError as error:  # binascii.Error, or letters that are not ASCII
            raise Malformed("a bytesValue that is no base64", label="bad_otlp") from error
    return None


def number_of(exemplar: Exemplar) -> int | float | None:
    """An exemplar's value; None when it has none. Raises `Malformed` for a number that is none."""
    if exemplar.as_int is not None:
        return exemplar.as_int
    return None if exemplar.as_double is None else _double(exemplar.as_double, "an asDouble")


def _double(value: float | str, what: str) -> float:
    try:
        return float(value)  # text: NaN, Infinity, -Infinity
    except ValueError as error:
        raise Malformed(f"{what} that is no number", label="bad_otlp") from error


def raw_of(shape: LogRecord | Span | Exemplar) -> bytes:
    """A record's own JSON again, for the dead letters."""
    try:
        return msgspec.json.encode(shape)
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(msgspec.to_builtins(shape)).encode()
