"""Which series there are, at most so many: what goes on is bounded, masked, cumulative and in the order of time.

An OTLP series is a resource, a scope, a metric (name, unit, kind) and attributes; a histogram is one. Data points of deltas are added up to
cumulative ones (https://opentelemetry.io/docs/specs/otel/metrics/data-model/#sums-delta-to-cumulative), since Prometheus knows no others. What begins when
the table is full is dropped; what has not been seen for a while is forgotten, and a point that says so (NO_RECORDED_VALUE) goes on.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from collector.errors import TallyError
from collector.onward import exponential
from collector.receive.otlp_events import PROTOBUF
from collector.receive.otlp_metrics import KINDS

__all__ = ["MAX_BUCKETS", "NO_RECORDED_VALUE", "REJECTED", "SeriesTable", "points_of"]

NO_RECORDED_VALUE = 1
"""The bit of a data point's flags (metrics.proto, DataPointFlags) that says that its series has ended."""

MAX_BUCKETS = 1_000
"""Of a histogram of either sign, and quantiles of a summary; a point with more is dropped."""

REJECTED = {
    "series_limit": "there are too many series for this sidecar (max_series)",
    "service_limit": "there are too many series of this service (max_series_of_service)",
    "temporality": "neither delta nor cumulative",
    "buckets": f"not buckets with ascending bounds, counts that add up, and {MAX_BUCKETS} at most",
    "too_long": "names or attributes of more than a few thousand bytes",
    "unmaskable": "attributes that cannot be checked for what may not go on",
}
"""Why a data point does not go on, as its sender hears it. A point no newer than the one before is left out as ``not_newer``: nearly all are re-sends."""

_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_HAS_TEMPORALITY = frozenset({"sum", "histogram", "exponential_histogram"})
_MAX_EXEMPLARS = 10
_MAX_NAME_BYTES = 1_024
_MAX_ATTRIBUTES_BYTES = 8_192
_MAX_RESOURCE_BYTES = 32_768
_MAX_SCALE, _MAX_OFFSET = 40, 2**30  # SDKs begin at 20
_INT64 = 2**63


_OF_INTERVAL = frozenset({"min", "max"})
_OWN_OF_POINT = _OF_INTERVAL | {"attributes", "exemplars", "flags", "start_time_unix_nano", "time_unix_nano"}
"""Of a delta's point: what its sum does not take over from the points before."""


class _Group:
    """A resource and a scope as they go on, serialised, and the service that they are of."""

    __slots__ = ("key", "resource", "scope", "service")

    def __init__(self, resource: Any, scope: Any) -> None:
        self.resource: bytes = resource.SerializeToString(deterministic=True)
        self.scope: bytes = scope.SerializeToString(deterministic=True)
        self.key = _digest(self.resource, self.scope)
        self.service = next((pair.value.string_value for pair in resource.attributes if pair.key == "service.name"), "")


class _Series:
    """What is known of a series.

    `metric`: it without points, and `shell`: a point of it without values, both serialised; `running`: the sum of its deltas, None where there are none.
    """

    __slots__ = ("group", "last_ns", "masked", "metric", "running", "seen_ns", "shell")

    def __init__(self, group: _Group, metric: bytes, shell: bytes, *, masked: bool) -> None:
        self.group = group
        self.metric = metric
        self.shell = shell
        self.masked = masked
        self.last_ns = 0
        self.seen_ns = 0
        self.running: Any = None


class _Unfit(Exception):
    """A point does not go on; `args[0]` is the reason."""


class SeriesTable:
    """The series that go on. Not safe for several threads at once.

    Args:
        most: series at most.
        most_of_service: of one ``service.name``.
        stale_ns: a series without a point for so long is forgotten.
        mask: attributes, and where they stand (``attributes``, ``resource``, ``scope.attributes``), to attributes as they may go on, the same object when
            nothing changes; raises `TallyError` when they cannot be checked.
    """

    def __init__(
        self,
        *,
        most: int,
        most_of_service: int,
        stale_ns: int,
        mask: Callable[[dict[str, Any], str], dict[str, Any]] = lambda attributes, _where: attributes,
    ) -> None:
        self._most = most
        self._most_of_service = most_of_service
        self._stale_ns = stale_ns
        self._mask = mask
        self._series: dict[bytes, _Series] = {}
        self._of_service: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._series)

    def take(self, request: Any, *, now_ns: int) -> Counter[str]:
        """Leave in an ExportMetricsServiceRequest what goes on, in place; returns how many data points do not, by reason."""
        dropped: Counter[str] = Counter()
        for resource_metrics in request.resource_metrics:
            unfit = self._checked(resource_metrics.resource, "resource")
            for scoped in resource_metrics.scope_metrics:
                unfit = unfit or self._checked(scoped.scope, "scope.attributes")
                group = _Group(resource_metrics.resource, scoped.scope)
                for metric in scoped.metrics:
                    self._metric(metric, group, now_ns, dropped, unfit)
        return dropped

    def forget(self, *, now_ns: int) -> Any:
        """Forget the series that have not been seen for a while; returns a request that says so of them, None when there are none."""
        gone = [key for key, series in self._series.items() if now_ns - series.seen_ns > self._stale_ns]
        if not gone:
            return None
        request = ExportMetricsServiceRequest()
        groups: dict[bytes, Any] = {}
        for key in gone:
            series = self._series.pop(key)
            self._of_service[series.group.service] -= 1
            scoped = groups.get(series.group.key)
            if scoped is None:
                resource_metrics = request.resource_metrics.add()
                resource_metrics.resource.ParseFromString(series.group.resource)
                scoped = groups[series.group.key] = resource_metrics.scope_metrics.add()
                scoped.scope.ParseFromString(series.group.scope)
            metric = scoped.metrics.add()
            metric.ParseFromString(series.metric)
            data = metric.WhichOneof("data")
            assert data is not None  # a metric was kept with its kind
            point = getattr(metric, data).data_points.add()
            point.ParseFromString(series.shell)
            point.time_unix_nano = max(now_ns, series.last_ns + 1_000_000)
            point.flags = NO_RECORDED_VALUE
        self._of_service += Counter()  # without zeros
        return request

    def _checked(self, owner: Any, where: str) -> str:
        """Mask what has attributes, in place; returns why nothing of it goes on, empty when it does."""
        try:
            _mask_in_place(owner.attributes, self._mask, where)
        except TallyError:
            return "unmaskable"
        return "too_long" if owner.ByteSize() > _MAX_RESOURCE_BYTES else ""

    def _metric(self, metric: Any, group: _Group, now_ns: int, dropped: Counter[str], unfit: str) -> None:
        kind = metric.WhichOneof("data")
        if kind not in KINDS:
            return
        data = getattr(metric, kind)
        temporality = data.aggregation_temporality if kind in _HAS_TEMPORALITY else _CUMULATIVE
        if temporality not in {_DELTA, _CUMULATIVE}:
            unfit = unfit or "temporality"
        if kind in _HAS_TEMPORALITY:
            data.aggregation_temporality = _CUMULATIVE
        bare = Metric(name=metric.name, unit=metric.unit)
        getattr(bare, kind).SetInParent()
        if kind in _HAS_TEMPORALITY:
            getattr(bare, kind).aggregation_temporality = _CUMULATIVE
        if kind == "sum":
            bare.sum.is_monotonic = data.is_monotonic
        shell = bare.SerializeToString(deterministic=True)
        if len(shell) > _MAX_NAME_BYTES or len(metric.description.encode()) > _MAX_NAME_BYTES:
            unfit = unfit or "too_long"
        if unfit:
            dropped[unfit] += len(data.data_points)
            metric.ClearField(kind)
            return
        kept = []
        for point in data.data_points:
            try:
                self._point(point, kind, shell, group, now_ns, delta=temporality == _DELTA)
            except _Unfit as reason:
                dropped[reason.args[0]] += 1
            else:
                kept.append(point)
        if not kept:
            metric.ClearField(kind)
        elif len(kept) < len(data.data_points):
            del data.data_points[:]
            data.data_points.extend(kept)

    def _point(self, point: Any, kind: str, metric: bytes, group: _Group, now_ns: int, *, delta: bool) -> None:
        """Make a point fit to go on, in place; raises `_Unfit`."""
        if not point.time_unix_nano:
            point.time_unix_nano = now_ns
        ended = bool(point.flags & NO_RECORDED_VALUE)
        if not ended and not _sound(point, kind):
            raise _Unfit("buckets")
        parts = sorted(pair.SerializeToString(deterministic=True) for pair in point.attributes)
        key = _digest(group.key, metric, *parts)
        series = self._series.get(key)
        if series is None:
            if sum(map(len, parts)) > _MAX_ATTRIBUTES_BYTES:
                raise _Unfit("too_long")
            series = self._new(key, point, kind, metric, group)
        elif series.masked:
            _take_attributes(point, series.shell)
        if point.time_unix_nano <= series.last_ns:
            raise _Unfit("not_newer")
        if kind != "summary":
            _trim_exemplars(point)
        if delta and not ended:
            series.running = _added_up(series.running, point, kind)
        series.last_ns = point.time_unix_nano
        series.seen_ns = now_ns

    def _new(self, key: bytes, point: Any, kind: str, metric: bytes, group: _Group) -> _Series:
        if len(self._series) >= self._most:
            raise _Unfit("series_limit")
        if self._of_service[group.service] >= self._most_of_service:
            raise _Unfit("service_limit")
        try:
            masked = _mask_in_place(point.attributes, self._mask, "attributes")
        except TallyError:
            raise _Unfit("unmaskable") from None
        series = self._series[key] = _Series(group, metric, _shell(point, kind), masked=masked)
        self._of_service[group.service] += 1
        return series


def points_of(request: Any) -> int:
    """How many data points a request has."""
    return sum(
        len(getattr(metric, kind).data_points)
        for group in request.resource_metrics
        for scoped in group.scope_metrics
        for metric in scoped.metrics
        if (kind := metric.WhichOneof("data")) is not None
    )


def _digest(*parts: bytes) -> bytes:
    return blake2b(b"".join(len(part).to_bytes(4, "big") + part for part in parts), digest_size=16).digest()


def _mask_in_place(pairs: Any, mask: Callable[[dict[str, Any], str], dict[str, Any]], where: str) -> bool:
    """Mask attributes; says whether anything changed."""
    plain = {pair.key: PROTOBUF.value_of(pair.value) for pair in pairs}
    masked = mask(plain, where)
    if masked is plain:
        return False
    before = {pair.key: pair.value.SerializeToString() for pair in pairs}
    del pairs[:]
    for key, value in masked.items():
        pair = pairs.add(key=key)
        if key in before and value is plain[key]:
            pair.value.ParseFromString(before[key])
        else:
            pair.value.string_value = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return True


def _shell(point: Any, kind: str) -> bytes:
    shell = type(point)(attributes=point.attributes)
    if kind == "histogram":
        shell.explicit_bounds.extend(point.explicit_bounds)
    elif kind == "summary":
        for quantile in point.quantile_values:
            shell.quantile_values.add(quantile=quantile.quantile)
    return bytes(shell.SerializeToString())


def _take_attributes(point: Any, shell: bytes) -> None:
    known = type(point).FromString(shell)
    del point.attributes[:]
    point.attributes.extend(known.attributes)


def _sound(point: Any, kind: str) -> bool:
    """Whether a histogram's buckets are such, and add up to its count; a count may be larger where there were values that are no numbers."""
    if kind == "histogram":
        bounds, counts = list(point.explicit_bounds), point.bucket_counts
        if not bounds:
            return len(counts) <= 1 and _adds_up(counts[0] if counts else point.count, point)
        ascending = all(low < high for low, high in itertools.pairwise(bounds)) and not math.isnan(bounds[0])
        total = sum(counts)
        return len(counts) == len(bounds) + 1 <= MAX_BUCKETS and ascending and _adds_up(total, point)
    if kind == "exponential_histogram":
        signs = (point.positive, point.negative)
        if any(len(sign.bucket_counts) > MAX_BUCKETS or abs(sign.offset) > _MAX_OFFSET for sign in signs):
            return False
        total = point.zero_count + sum(sum(sign.bucket_counts) for sign in signs)
        return abs(point.scale) <= _MAX_SCALE and _adds_up(total, point)
    return kind != "summary" or len(point.quantile_values) <= MAX_BUCKETS


def _adds_up(total: int, point: Any) -> bool:
    return total == point.count < _INT64 or (math.isnan(point.sum) and total <= point.count < _INT64)


def _trim_exemplars(point: Any) -> None:
    """Those that lead to a trail, without the attributes that were left out of the series on purpose."""
    kept = [exemplar for exemplar in point.exemplars if len(exemplar.trace_id) == 16 and any(exemplar.trace_id)]
    if len(kept) < len(point.exemplars) or len(kept) > _MAX_EXEMPLARS:
        del point.exemplars[:]
        point.exemplars.extend(kept[-_MAX_EXEMPLARS:])
    for exemplar in point.exemplars:
        del exemplar.filtered_attributes[:]


def _added_up(running: Any, point: Any, kind: str) -> Any:
    """Make a delta's point the sum of all of its series since its first, in place; returns what to add the next one to."""
    try:
        running = _sum_of(running, point, kind)
    except ValueError:  # beyond 64 bits
        running = _sum_of(None, point, kind)
    values = type(running)()
    values.CopyFrom(running)
    for field in values.DESCRIPTOR.fields:
        if field.name in _OWN_OF_POINT:
            values.ClearField(field.name)
        if field.name not in _OWN_OF_POINT or field.name in _OF_INTERVAL:
            point.ClearField(field.name)
    point.MergeFrom(values)
    point.start_time_unix_nano = running.start_time_unix_nano
    return running


def _sum_of(running: Any, point: Any, kind: str) -> Any:
    if running is None or (kind == "histogram" and list(running.explicit_bounds) != list(point.explicit_bounds)):
        running = type(point)()  # a histogram with other bounds begins anew, too
        running.CopyFrom(point)
        running.ClearField("exemplars")
        running.ClearField("attributes")
        running.start_time_unix_nano = running.start_time_unix_nano or point.time_unix_nano
    elif kind == "sum":
        _set_number(running, _number(running) + _number(point))
    elif kind == "histogram":
        _add_histogram(running, point)
    else:
        exponential.add(running, point)
    return running


def _number(point: Any) -> int | float:
    which = point.WhichOneof("value")
    value: int | float = getattr(point, which) if which else 0
    return value


def _set_number(point: Any, value: float) -> None:
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        point.as_int = value
    else:
        point.as_double = float(value)


def _add_histogram(running: Any, point: Any) -> None:
    counts = [one + other for one, other in zip(running.bucket_counts, point.bucket_counts, strict=True)]
    del running.bucket_counts[:]
    running.bucket_counts.extend(counts)
    running.count += point.count
    if running.HasField("sum") and point.HasField("sum"):
        running.sum += point.sum
    else:
        running.ClearField("sum")
