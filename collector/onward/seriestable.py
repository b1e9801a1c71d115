"""Which series there are, at most so many: what goes on is bounded, masked, cumulative and in the order of time.

An OTLP series is a resource, a scope, a metric (name, unit, kind) and attributes; a histogram is one. Data points of deltas are added up to
cumulative ones (https://opentelemetry.io/docs/specs/otel/metrics/data-model/#sums-delta-to-cumulative), since Prometheus knows no others. What begins when
the table is full is dropped; what has not been seen for a while is forgotten, and a point that says so (NO_RECORDED_VALUE) goes on.
"""

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from collector.errors import TallyError
from collector.onward.datapoint import MAX_BUCKETS, added_up, sound, trim_exemplars
from collector.receive.otlp_events import PROTOBUF
from collector.receive.otlp_metrics import KINDS

__all__ = ["NO_RECORDED_VALUE", "REJECTED", "SeriesTable"]

NO_RECORDED_VALUE = 1
"""The bit of a data point's flags (metrics.proto, DataPointFlags) that says that its series has ended."""

REJECTED = {
    "series_limit": "there are too many series for this sidecar (max_series), or 64 MiB of their names",
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
_MAX_NAME_BYTES = 1_024
_MAX_ATTRIBUTES_BYTES = 8_192
_MAX_RESOURCE_BYTES = 32_768
_MAX_TABLE_BYTES = 64 * 1024**2


class _Group:
    """A resource and a scope as they go on, serialised, the service that they are of, and how many series there are of them."""

    __slots__ = ("key", "resource", "scope", "series", "service")

    def __init__(self, resource: Any, scope: Any) -> None:
        self.series = 0
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

    @property
    def size_bytes(self) -> int:
        """What it holds of what came from outside, about; a histogram's sum is as large as its shell."""
        return len(self.metric) + 2 * len(self.shell)


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
        self._groups: dict[bytes, _Group] = {}  # once, however many series and requests they are of
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._series)

    def take(self, request: Any, *, now_ns: int) -> Counter[str]:
        """Leave in an ExportMetricsServiceRequest what goes on, in place; returns how many data points do not, by reason."""
        dropped: Counter[str] = Counter()
        for resource_metrics in request.resource_metrics:
            resource_unfit = self._checked(resource_metrics.resource, "resource")
            for scoped in resource_metrics.scope_metrics:
                unfit = self._checked(scoped.scope, "scope.attributes") or resource_unfit
                group = _Group(resource_metrics.resource, scoped.scope)
                for metric in scoped.metrics:
                    self._metric(metric, group, now_ns, dropped, unfit)
                kept = [metric for metric in scoped.metrics if metric.WhichOneof("data")]
                if len(kept) < len(scoped.metrics):  # made-up names do not go on either
                    del scoped.metrics[:]
                    scoped.metrics.extend(kept)
        return dropped

    def forget(self, *, now_ns: int) -> Any:
        """Forget the series that have not been seen for a while; returns a request that says so of them, None when there are none."""
        gone = [key for key, series in self._series.items() if now_ns - series.seen_ns > self._stale_ns]
        if not gone:
            return None
        request = ExportMetricsServiceRequest()
        groups: dict[bytes, Any] = {}
        for key in gone:
            series = self._gone(key)
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
        """Mask what has attributes, in place; or empty it, and return why nothing of it goes on."""
        unfit = "too_long" if owner.ByteSize() > _MAX_RESOURCE_BYTES else ""
        try:
            if not unfit:
                _mask_in_place(owner.attributes, self._mask, where)
        except TallyError:
            unfit = "unmaskable"
        if unfit:
            owner.Clear()
        return unfit

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
        if not ended and not sound(point, kind):
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
            trim_exemplars(point)
        if delta and not ended:
            series.running = added_up(series.running, point, kind)
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
        known = self._groups.get(group.key, group)
        series = _Series(known, metric, _shell(point, kind), masked=masked)
        more = series.size_bytes + (0 if known.series else len(group.resource) + len(group.scope))
        if self._bytes + more > _MAX_TABLE_BYTES:
            raise _Unfit("series_limit")
        self._bytes += more
        known.series += 1
        self._groups[known.key] = known
        self._series[key] = series
        self._of_service[known.service] += 1
        return series

    def _gone(self, key: bytes) -> _Series:
        series = self._series.pop(key)
        group = series.group
        self._bytes -= series.size_bytes
        self._of_service[group.service] -= 1
        group.series -= 1
        if not group.series:
            self._bytes -= len(group.resource) + len(group.scope)
            del self._groups[group.key]
        return series


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
