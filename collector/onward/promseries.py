"""OTLP data points as Prometheus' series: `translate`. Pure.

By OpenTelemetry's compatibility specification
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#otlp-metric-points-to-prometheus): ``job`` and ``instance`` are of the
resource, its other attributes stand in ``target_info``, the scope's name, version and attributes in ``otel_scope_…``. What goes in has been through a `collector.onward.seriestable.SeriesTable`: cumulative, bounded, its buckets sound.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from collector.onward import exponential
from collector.onward.datapoint import NO_RECORDED_VALUE
from collector.onward.promnames import float_text, labels_of, metric_name, unit_name
from collector.receive.otlp_events import PROTOBUF

__all__ = ["STALE", "Exemplar", "NativeHistogram", "PromPoint", "PromSeries", "is_stale", "translate"]

STALE: float = struct.unpack("<d", (0x7FF0000000000002).to_bytes(8, "little"))[0]
"""Prometheus' stale marker, a NaN of its own (remote-write specification, "Stale markers")."""

_IDENTITY = frozenset({"service.name", "service.namespace", "service.instance.id"})
_ZERO_THRESHOLD = 1e-128
_INFINITY = float("inf")


class Exemplar(NamedTuple):
    """A measurement with its trace. `labels`: ``trace_id`` and, where there is one, ``span_id``, in hex; `ms`: Unix time in milliseconds."""

    labels: tuple[tuple[str, str], ...]
    value: float
    ms: int


class NativeHistogram(NamedTuple):
    """A native histogram with integer counts (https://prometheus.io/docs/specs/native_histograms/)."""

    schema: int
    observations: int
    sum: float
    zero_count: int
    zero_threshold: float
    positive: exponential.Layout
    negative: exponential.Layout


class PromSeries(NamedTuple):
    """A series with one sample. `labels`: sorted by name, ``__name__`` among them; `value`: a number, or a native histogram; `ms`, `start_ms`: Unix time."""

    labels: tuple[tuple[str, str], ...]
    value: float | NativeHistogram
    ms: int
    start_ms: int
    exemplars: tuple[Exemplar, ...]


class PromPoint(NamedTuple):
    """What a data point became: the series of one metric. `points`: 1, and 0 for what stands beside them (``target_info``).

    `kind`: ``counter``, ``gauge``, ``histogram``, ``summary`` or ``info``. `series`: first the one that stands for all, of a histogram or a summary
    ``_count``, which whatever has that name has; none: its name cannot be said.
    """

    points: int
    family: str
    kind: str
    unit: str
    help: str
    series: tuple[PromSeries, ...]


class _Common(NamedTuple):
    """What a metric's points share."""

    family: str
    kind: str
    unit: str
    help: str
    labels: dict[str, str]


def is_stale(value: float | NativeHistogram) -> bool:
    """Whether a sample says that its series has ended."""
    number = value.sum if isinstance(value, NativeHistogram) else value
    return number != number and struct.pack("<d", number) == struct.pack("<d", STALE)  # noqa: PLR0124 - a NaN


def translate(request: Any, *, native: bool) -> Iterator[PromPoint]:
    """What an ExportMetricsServiceRequest's data points become, in their order, each resource's ``target_info`` behind its points.

    Args:
        request: protobuf's class.
        native: exponential histograms become native ones; else, and where Prometheus has no schema for them, classic ones.
    """
    for group in request.resource_metrics:
        target = _target_of(_texts(pair for pair in group.resource.attributes if pair.key in _IDENTITY))
        newest_ns = 0
        ended = True
        for scoped in group.scope_metrics:
            scope = _scope_of(scoped.scope)
            for metric in scoped.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points if kind else ():
                    newest_ns = max(newest_ns, point.time_unix_nano)
                    ended = ended and bool(point.flags & NO_RECORDED_VALUE)
                    yield _point(metric, kind, point, {**scope, **target}, native=native)
        if newest_ns and not ended:
            yield _target_info(_texts(group.resource.attributes), target, newest_ns // 1_000_000)


def _texts(attributes: Iterable[Any]) -> dict[str, str]:
    return {pair.key: _text(PROTOBUF.value_of(pair.value)) for pair in attributes}


def _target_of(resource: dict[str, str]) -> dict[str, str]:
    name, namespace = resource.get("service.name", ""), resource.get("service.namespace", "")
    job = f"{namespace}/{name}" if name and namespace else name
    return {"job": job, "instance": resource.get("service.instance.id", "")}


def _scope_of(scope: Any) -> dict[str, str]:
    """Series of one name may differ in their scope alone; what is called as its name or version is passed over (the specification's "Instrumentation Scope")."""
    told = labels_of((f"otel_scope_{pair.key}", _text(PROTOBUF.value_of(pair.value))) for pair in scope.attributes)
    return {**told, "otel_scope_name": scope.name, "otel_scope_version": scope.version}


def _target_info(resource: dict[str, str], target: dict[str, str], ms: int) -> PromPoint:
    others = labels_of((key, value) for key, value in resource.items() if key not in _IDENTITY)
    series: tuple[PromSeries, ...] = ()
    if others and any(target.values()):
        series = (_series("target_info", {**others, **target}, 1.0, ms, 0),)
    return PromPoint(0, "target", "info", "", "Target metadata", series)


def _point(metric: Any, kind: str, point: Any, around: dict[str, str], *, native: bool) -> PromPoint:
    counter = kind == "sum" and metric.sum.is_monotonic
    gauge = kind == "gauge" or (kind == "sum" and not counter)
    name = metric_name(metric.name, metric.unit, counter=counter, gauge=gauge)
    attributes = labels_of((pair.key, _text(PROTOBUF.value_of(pair.value))) for pair in point.attributes)
    common = _Common(
        family=name.removesuffix("_total") if counter else name,
        kind="counter" if counter else "gauge" if gauge else "summary" if kind == "summary" else "histogram",
        unit=unit_name(metric.unit),
        help=metric.description,
        labels={**attributes, **{label: value for label, value in around.items() if value}},
    )
    series: tuple[PromSeries, ...] = ()
    if name and common.family:
        if counter or gauge:
            value = STALE if point.flags & NO_RECORDED_VALUE else _number(point)
            exemplars = _exemplars(point) if counter else ()
            series = (_series(name, common.labels, value, _ms(point), _start_ms(point), exemplars=exemplars),)
        elif kind == "histogram":
            series = tuple(_classic(common, point, _bounds_of(point)))
        elif kind == "summary":
            series = tuple(_summary(common, point))
        elif native and point.scale >= exponential.MIN_SCALE:
            series = (_native(common, point),)
        else:
            series = tuple(_classic(common, point, exponential.power_bounds(point)))
    return PromPoint(1, common.family, common.kind, common.unit, common.help, series)


def _bounds_of(point: Any) -> list[tuple[float, int]]:
    out: list[tuple[float, int]] = []
    total = 0
    counts = point.bucket_counts or [0] * len(point.explicit_bounds)  # none where the series has ended
    for bound, count in zip(point.explicit_bounds, counts, strict=False):
        total += count
        if bound != _INFINITY:
            out.append((bound, total))
    return out


def _classic(common: _Common, point: Any, bounds: list[tuple[float, int]]) -> Iterator[PromSeries]:
    stale = bool(point.flags & NO_RECORDED_VALUE)
    ms, start_ms = _ms(point), _start_ms(point)
    exemplars = _exemplars(point)
    yield _series(f"{common.family}_count", common.labels, STALE if stale else float(point.count), ms, start_ms)
    if point.HasField("sum") or stale:
        yield _series(f"{common.family}_sum", common.labels, STALE if stale else point.sum, ms, start_ms)
    below = -_INFINITY
    for bound, total in [*bounds, (_INFINITY, point.count)]:
        inside = tuple(one for one in exemplars if below < one.value <= bound)
        labels = {**common.labels, "le": float_text(bound)}
        yield _series(
            f"{common.family}_bucket", labels, STALE if stale else float(total), ms, start_ms, exemplars=inside[-1:]
        )
        below = bound


def _native(common: _Common, point: Any) -> PromSeries:
    if point.flags & NO_RECORDED_VALUE:
        nothing = exponential.layout({})
        histogram = NativeHistogram(0, 0, STALE, 0, _ZERO_THRESHOLD, nothing, nothing)
    else:
        steps = max(point.scale - exponential.MAX_SCALE, 0)
        positive, negative = (
            exponential.layout(exponential.coarser(exponential.counts_of(sign), steps))
            for sign in (point.positive, point.negative)
        )
        histogram = NativeHistogram(
            schema=point.scale - steps,
            observations=point.count,
            sum=point.sum,
            zero_count=point.zero_count,
            zero_threshold=point.zero_threshold or _ZERO_THRESHOLD,
            positive=positive,
            negative=negative,
        )
    return _series(common.family, common.labels, histogram, _ms(point), _start_ms(point), exemplars=_exemplars(point))


def _summary(common: _Common, point: Any) -> Iterator[PromSeries]:
    stale = bool(point.flags & NO_RECORDED_VALUE)
    ms, start_ms = _ms(point), _start_ms(point)
    yield _series(f"{common.family}_count", common.labels, STALE if stale else float(point.count), ms, start_ms)
    yield _series(f"{common.family}_sum", common.labels, STALE if stale else point.sum, ms, start_ms)
    values = {float_text(at.quantile): at.value for at in point.quantile_values}  # one that stands twice is one series
    for quantile, value in values.items():
        yield _series(common.family, {**common.labels, "quantile": quantile}, STALE if stale else value, ms, start_ms)


def _series(
    name: str,
    labels: dict[str, str],
    value: float | NativeHistogram,
    ms: int,
    start_ms: int,
    *,
    exemplars: tuple[Exemplar, ...] = (),
) -> PromSeries:
    named = {**labels, "__name__": name}
    return PromSeries(tuple(sorted((key, text) for key, text in named.items() if text)), value, ms, start_ms, exemplars)


def _exemplars(point: Any) -> tuple[Exemplar, ...]:
    out = []
    for one in point.exemplars:
        labels = [("span_id", one.span_id.hex())] if any(one.span_id) else []
        labels.append(("trace_id", one.trace_id.hex()))
        out.append(Exemplar(tuple(labels), _number(one), (one.time_unix_nano or point.time_unix_nano) // 1_000_000))
    return tuple(sorted(out, key=lambda one: one.ms))


def _number(point: Any) -> float:
    which = point.WhichOneof("value")
    return float(getattr(point, which)) if which else 0.0


def _ms(point: Any) -> int:
    return int(point.time_unix_nano // 1_000_000)


def _start_ms(point: Any) -> int:
    return int(point.start_time_unix_nano // 1_000_000)


def _text(value: Any) -> str:
    """An attribute's value as a label has it: text as it is, everything else as JSON (the specification's "string representation")."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return msgspec.json.encode(value).decode()
