"""The sidecar's own metrics as OTLP, so that they can go where the services' go; what `/metrics` shows, under the same names."""

import math
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample

__all__ = ["SERVICE", "own_metrics"]

SERVICE = "tallystick-collector"
"""``service.name``, hence Prometheus' ``job``; its ``instance`` is the collector's name."""

_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def own_metrics(registry: CollectorRegistry, *, collector: str, now_ns: int) -> Any:
    """An ExportMetricsServiceRequest with what a registry shows at `now_ns` (Unix time): counters, gauges and histograms."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    for key, value in (
        ("service.name", SERVICE),
        ("service.instance.id", collector),
        ("service.version", version("tallystick")),
    ):
        group.resource.attributes.add(key=key).value.string_value = value
    scoped = group.scope_metrics.add()
    for family in registry.collect():
        if family.type == "histogram":
            _histogram(scoped, family, now_ns)
        else:
            _numbers(scoped, family, now_ns)
    return request


def _numbers(scoped: Any, family: Metric, now_ns: int) -> None:
    counter = family.type == "counter"
    created = {_key(one): one.value for one in family.samples if one.name == f"{family.name}_created"}
    metric = None
    for sample in family.samples:
        if sample.name == f"{family.name}_created":
            continue
        if metric is None:
            metric = scoped.metrics.add(name=family.name, description=family.documentation)
            if counter:
                metric.sum.is_monotonic = True
                metric.sum.aggregation_temporality = _CUMULATIVE
        points = metric.sum.data_points if counter else metric.gauge.data_points
        point = points.add(time_unix_nano=now_ns, as_double=sample.value)
        _attributes(point, sample)
        if counter:
            point.start_time_unix_nano = round(created.get(_key(sample), 0.0) * 1e9)
            _exemplar(point, sample, now_ns)


def _histogram(scoped: Any, family: Metric, now_ns: int) -> None:
    metric = scoped.metrics.add(name=family.name, description=family.documentation)
    metric.histogram.aggregation_temporality = _CUMULATIVE
    points: dict[tuple[tuple[str, str], ...], Any] = {}
    below: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        key = _key(sample)
        point = points.get(key)
        if point is None:
            point = points[key] = metric.histogram.data_points.add(time_unix_nano=now_ns)
            _attributes(point, sample)
        if sample.name == f"{family.name}_bucket":
            bound = float(sample.labels["le"])
            if not math.isinf(bound):
                point.explicit_bounds.append(bound)
            point.bucket_counts.append(round(sample.value - below.get(key, 0.0)))
            below[key] = sample.value
            point.count = round(sample.value)  # the last one is +Inf's: what is observed meanwhile is in neither
            _exemplar(point, sample, now_ns)
        elif sample.name == f"{family.name}_sum":
            point.sum = sample.value
        elif sample.name == f"{family.name}_created":
            point.start_time_unix_nano = round(sample.value * 1e9)


def _key(sample: Sample) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(_labels(sample)))


def _labels(sample: Sample) -> Iterable[tuple[str, str]]:
    return ((name, value) for name, value in sample.labels.items() if name != "le")


def _attributes(point: Any, sample: Sample) -> None:
    for name, value in _labels(sample):
        point.attributes.add(key=name).value.string_value = value


def _exemplar(point: Any, sample: Sample, now_ns: int) -> None:
    if sample.exemplar is None or len(sample.exemplar.labels.get("trace_id", "")) != 32:
        return
    at = sample.exemplar.timestamp
    point.exemplars.add(
        time_unix_nano=now_ns if at is None else round(float(at) * 1e9),
        as_double=sample.exemplar.value,
        trace_id=bytes.fromhex(sample.exemplar.labels["trace_id"]),
    )
