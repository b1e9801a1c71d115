"""OTLP metrics made by hand: requests with the points that a test names. In names of attributes ``__`` stands for a full stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

NOW_NS = 1_700_000_000_000_000_000
MS_NS = 10**6
SECOND_NS = 10**9

DELTA, CUMULATIVE = 1, 2


def request_of(*, service: str = "shop", instance: str = "", scope: str = "", **resource: str) -> Any:
    """A request with one resource and one scope, without metrics."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    for key, value in {"service.name": service, "service.instance.id": instance, **resource}.items():
        if value:
            group.resource.attributes.add(key=key.replace("__", ".")).value.string_value = value
    group.scope_metrics.add().scope.name = scope
    return request


def _metric(request: Any, name: str, unit: str) -> Any:
    return request.resource_metrics[0].scope_metrics[0].metrics.add(name=name, unit=unit)


def _told(point: Any, attributes: Mapping[str, str], at_ns: int, start_ns: int) -> Any:
    point.time_unix_nano = at_ns
    point.start_time_unix_nano = start_ns
    for key, value in attributes.items():
        point.attributes.add(key=key.replace("__", ".")).value.string_value = value
    return point


def add_sum(
    request: Any, name: str, value: float, *, unit: str = "", temporality: int = CUMULATIVE, monotonic: bool = True,
    at_ns: int = NOW_NS, start_ns: int = 0, **attributes: str,
) -> Any:  # fmt: skip
    """A sum with one point, which it returns."""
    metric = _metric(request, name, unit)
    metric.sum.aggregation_temporality = temporality
    metric.sum.is_monotonic = monotonic
    point = _told(metric.sum.data_points.add(), attributes, at_ns, start_ns)
    if isinstance(value, int):
        point.as_int = value
    else:
        point.as_double = value
    return point


def add_gauge(request: Any, name: str, value: float, *, unit: str = "", at_ns: int = NOW_NS, **attributes: str) -> Any:
    """A gauge with one point, which it returns."""
    point = _told(_metric(request, name, unit).gauge.data_points.add(), attributes, at_ns, 0)
    point.as_double = value
    return point


def add_histogram(
    request: Any, name: str, counts: Sequence[int], *, bounds: Sequence[float] = (0.1, 1.0), total: float = 1.0, unit: str = "s",
    temporality: int = CUMULATIVE, at_ns: int = NOW_NS, start_ns: int = 0, **attributes: str,
) -> Any:  # fmt: skip
    """A histogram with one point, which it returns."""
    metric = _metric(request, name, unit)
    metric.histogram.aggregation_temporality = temporality
    point = _told(metric.histogram.data_points.add(), attributes, at_ns, start_ns)
    point.count, point.sum = sum(counts), total
    point.explicit_bounds.extend(bounds)
    point.bucket_counts.extend(counts)
    return point


def add_exponential(
    request: Any, name: str, positive: Mapping[int, int], *, negative: Mapping[int, int] | None = None, zeros: int = 0, scale: int = 0,
    total: float = 1.0, unit: str = "s", temporality: int = CUMULATIVE, at_ns: int = NOW_NS, start_ns: int = 0,
) -> Any:  # fmt: skip
    """An exponential histogram with one point, which it returns; buckets by their index."""
    metric = _metric(request, name, unit)
    metric.exponential_histogram.aggregation_temporality = temporality
    point = _told(metric.exponential_histogram.data_points.add(), {}, at_ns, start_ns)
    point.scale, point.zero_count, point.sum = scale, zeros, total
    for buckets, told in ((point.positive, positive), (point.negative, negative or {})):
        if told:
            buckets.offset = min(told)
            buckets.bucket_counts.extend(told.get(at, 0) for at in range(min(told), max(told) + 1))
    point.count = zeros + sum(positive.values()) + sum((negative or {}).values())
    return point


def the_points(request: Any) -> list[Any]:
    """All data points, in their order."""
    return [
        point
        for group in request.resource_metrics
        for scoped in group.scope_metrics
        for metric in scoped.metrics
        if (kind := metric.WhichOneof("data")) is not None
        for point in getattr(metric, kind).data_points
    ]
