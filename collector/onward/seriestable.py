"""Which series there are, at most so many: what goes on is bounded, masked, cumulative and in the order of time.

An OTLP series is a resource, a scope, a metric (name, unit, kind) and attributes; a histogram is one. Data points of deltas are added up to
cumulative ones (https://opentelemetry.io/docs/specs/otel/metrics/data-model/#sums-delta-to-cumulative), since Prometheus knows no others. What begins when
the table is full is dropped; what has not been seen for a while is forgotten, and a point that says so (NO_RECORDED_VALUE) goes on.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from collector.errors import TallyError
from collector.onward import datapoint
from collector.onward.datapoint import MAX_BUCKETS, NO_RECORDED_VALUE, added_up, sound, trim_exemplars
from collector.onward.mask import Mask
from collector.onward.promseries import translate
from collector.protect import Protector
from collector.receive.otlp_metrics import KINDS

__all__ = ["REJECTED", "SeriesTable"]

REJECTED = {
    "series_limit": "there are too many series for this sidecar (max_series), or 64 MiB of their names",
    "service_limit": "there are too many series of this service (max_series_of_service)",
    "ahead": "of a time more than ten minutes ahead of this sidecar's",
    "temporality": "neither delta nor cumulative",
    "buckets": f"not buckets with ascending bounds, counts that add up, and {MAX_BUCKETS} at most",
    "too_long": "names or attributes of more than a few thousand bytes",
    "unmaskable": "attributes that cannot be checked for what may not go on",
    "same_name": "of a series that differs from another one in nothing that may go on",
}
"""Why a data point does not go on, as its sender hears it. A point no newer than the one before is left out as ``not_newer``: nearly all are re-sends."""

_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_HAS_TEMPORALITY = frozenset({"sum", "histogram", "exponential_histogram"})
_MS = 1_000_000
_MAX_AHEAD_NS = 600 * 10**9  # Prometheus takes no more, and refuses a whole request for one point
_MAX_TEXT = 1_024  # characters
_MAX_ATTRIBUTES_BYTES = 8_192
_MAX_RESOURCE_BYTES = 32_768
_MAX_TABLE_BYTES = 64 * 1024**2


class _Resource:
    """A resource as it goes on, serialised, and the service that it names; once for all scopes of it, for it may be long."""

    __slots__ = ("data", "key", "service")

    def __init__(self, resource: Any) -> None:
        self.data: bytes = resource.SerializeToString(deterministic=True)
        self.key = _digest(self.data)
        self.service = next((pair.value.string_value for pair in resource.attributes if pair.key == "service.name"), "")


class _Group:
    """A resource and a scope as they go on, and how many series there are of them."""

    __slots__ = ("key", "resource", "scope", "series")

    def __init__(self, resource: _Resource, scope: Any) -> None:
        self.series = 0
        self.resource = resource
        self.scope: bytes = scope.SerializeToString(deterministic=True)
        self.key = _digest(resource.key, self.scope)

    @property
    def size_bytes(self) -> int:
        """What it holds of what came from outside."""
        return len(self.resource.data) + len(self.scope)


class _Series:
    """What is known of a series.

    `name`: digest of it as it goes on; `metric`: it without points, and `shell`: a point of it without values, both serialised; `running`: the sum of its deltas, None where there are none;
    `masked`: whether a mask, `mask_number`, changed its attributes; `bounds`: those of its last point, where it is a histogram of explicit ones;
    `called`: a hash of what Prometheus calls it, where series that are several here may be one.
    """

    __slots__ = (
        "bounds", "called", "group", "last_ns", "mask_number", "masked", "metric", "name", "running", "seen_ns", "shell",
    )  # fmt: skip

    def __init__(
        self, name: bytes, group: _Group, metric: bytes, shell: bytes, *, masked: bool, mask_number: int
    ) -> None:
        self.name = name
        self.group = group
        self.metric = metric
        self.shell = shell
        self.bounds = b""
        self.masked = masked
        self.mask_number = mask_number
        self.last_ns = 0
        self.seen_ns = 0
        self.running: Any = None
        self.called = 0  # not known before it is one of the table's

    @property
    def size_bytes(self) -> int:
        """What it holds of what came from outside, about; a histogram's sum is as large as its bounds."""
        return len(self.metric) + 2 * len(self.shell) + 2 * len(self.bounds)


class _Unfit(Exception):
    """A point does not go on; `args[0]` is the reason."""


class SeriesTable:
    """The series that go on. Not safe for several threads at once.

    Args:
        most: series at most.
        most_of_service: of one ``service.name``.
        stale_ns: a series without a point for so long is forgotten.
        protector: returns what is in force and masks names and attributes; of None nothing is masked.
    """

    def __init__(
        self,
        *,
        most: int,
        most_of_service: int,
        stale_ns: int,
        protector: Callable[[], Protector | None] = lambda: None,
    ) -> None:
        self._most = most
        self._most_of_service = most_of_service
        self._stale_ns = stale_ns
        self._protector = protector
        self._mask = Mask(None)  # until something comes: `take` asks for what is in force then
        self._mask_number = 0
        self._ended: list[_Series] = []  # by another mask, while a request is taken
        self._series: dict[bytes, _Series] = {}  # by digests of what they are as they come
        self._names: set[bytes] = set()  # as they go on
        self._last: dict[int, _Series] = {}  # of those that Prometheus calls the same the one that had the last point
        self._of_service: Counter[str] = Counter()
        self._groups: dict[bytes, _Group] = {}  # once, however many series and requests they are of
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._series)

    def take(self, request: Any, *, now_ns: int) -> Counter[str]:
        """Leave in an ExportMetricsServiceRequest what goes on, in place; returns how many data points do not, by reason.

        Behind it are the ends of series that another protector gives another name.
        """
        dropped: Counter[str] = Counter()
        if (protector := self._protector()) is not self._mask.protector:
            self._mask = Mask(protector)
            self._mask_number += 1
        request.DiscardUnknownFields()  # protobuf would carry them through, and nobody can look into them
        for resource_metrics in request.resource_metrics:
            resource = resource_metrics.resource
            if getattr(resource, "entity_refs", ()):  # older definitions have none
                resource.ClearField("entity_refs")
            resource_unfit = self._checked(resource_metrics, resource, "resource")
            known = _Resource(resource)
            for scoped in resource_metrics.scope_metrics:
                unfit = self._checked(scoped, scoped.scope, "scope.attributes", "name", "version") or resource_unfit
                if not scoped.metrics:
                    continue
                group = _Group(known, scoped.scope)
                for metric in scoped.metrics:
                    self._metric(metric, group, now_ns, dropped, unfit)
                kept = [metric for metric in scoped.metrics if metric.WhichOneof("data")]
                if len(kept) < len(scoped.metrics):  # made-up names do not go on either
                    del scoped.metrics[:]
                    scoped.metrics.extend(kept)
        _add_ends(request, (one for one in self._ended if one.called not in self._last), now_ns)
        self._ended.clear()
        return dropped

    def forget(self, *, now_ns: int) -> Any:
        """Forget the series that have not been seen for a while; returns a request that says so of them, None when there is nothing to say.

        Of one that goes on in another, as when a process begins anew under the same name, nothing is said: in Prometheus it would be the other's end.
        """
        gone = {key: series for key, series in self._series.items() if now_ns - series.seen_ns > self._stale_ns}
        request = ExportMetricsServiceRequest()
        ended = [series for series in gone.values() if self._last.get(series.called) is series]
        _add_ends(request, ended, now_ns)  # before they go: what fails is tried again
        for key in gone:
            self._gone(key)
        self._of_service += Counter()  # without zeros
        return request if ended else None

    def _checked(self, group: Any, owner: Any, where: str, *texts: str) -> str:
        """Mask a group's resource or scope and its schema URL, in place; or empty them, and return why nothing of it goes on."""
        # a scope stands in each of its series' labels
        most = _MAX_RESOURCE_BYTES if where == "resource" else _MAX_ATTRIBUTES_BYTES
        too_long = owner.ByteSize() > most or len(group.schema_url) > _MAX_TEXT
        unfit = "too_long" if too_long else ""
        try:
            if not unfit:
                self._mask.attributes(owner.attributes, where)
                self._mask.texts(owner, *texts)
                self._mask.texts(group, "schema_url")
        except TallyError:
            unfit = "unmaskable"
        if unfit:
            owner.Clear()
            group.ClearField("schema_url")
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
        metric.ClearField("metadata")
        if max(len(metric.name), len(metric.unit), len(metric.description)) > _MAX_TEXT:
            unfit = unfit or "too_long"
        if not unfit:
            try:
                self._mask.texts(metric, "name", "unit", "description")
            except TallyError:
                unfit = "unmaskable"
        if unfit:
            dropped[unfit] += len(data.data_points)
            metric.ClearField(kind)
            return
        bare = Metric(name=metric.name, unit=metric.unit)
        getattr(bare, kind).SetInParent()
        if kind in _HAS_TEMPORALITY:
            getattr(bare, kind).aggregation_temporality = _CUMULATIVE
        if kind == "sum":
            bare.sum.is_monotonic = data.is_monotonic
        shell = bare.SerializeToString(deterministic=True)
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
        at_ns = point.time_unix_nano
        if not at_ns:
            at_ns = point.time_unix_nano = now_ns
        if at_ns > now_ns + _MAX_AHEAD_NS:
            raise _Unfit("ahead")
        ended = bool(point.flags & NO_RECORDED_VALUE)
        if not ended and not sound(point, kind):
            raise _Unfit("buckets")
        parts = _parts(point)
        key = _digest(group.key, metric, *parts)
        series = self._series.get(key)
        if series is not None and series.mask_number != self._mask_number:
            series = self._masked_anew(key, series, point)
        if series is None:
            if sum(map(len, parts)) > _MAX_ATTRIBUTES_BYTES:
                raise _Unfit("too_long")
            series = self._new(key, point, kind, metric, group)
        elif series.masked:
            datapoint.take_attributes(point, series.shell)
        if at_ns <= series.last_ns:
            raise _Unfit("not_newer")
        same_ms = at_ns // _MS == series.last_ns // _MS
        if kind == "histogram" and not ended:
            self._bound(series, array("d", point.explicit_bounds).tobytes())
        elif kind == "histogram" and not point.explicit_bounds:  # an SDK names none with an end
            point.explicit_bounds.extend(array("d", series.bounds))
        if kind != "summary":
            trim_exemplars(point)
        if delta and not ended:
            series.running = added_up(series.running, point, kind)
        series.last_ns = at_ns
        series.seen_ns = now_ns
        self._last[series.called] = series
        if same_ms:  # Prometheus' times are no finer, and it refuses a request for a second value; a delta is in the sum that goes on next
            raise _Unfit("not_newer")

    def _new(self, key: bytes, point: Any, kind: str, metric: bytes, group: _Group) -> _Series:
        if len(self._series) >= self._most:
            raise _Unfit("series_limit")
        if self._of_service[group.resource.service] >= self._most_of_service:
            raise _Unfit("service_limit")
        masked = self._masked(point)
        name = _digest(group.key, metric, *_parts(point)) if masked else key
        if name in self._names:  # a mask leaves no difference: two counters in one series would be neither
            raise _Unfit("same_name")
        known = self._groups.get(group.key, group)
        series = _Series(
            name, known, metric, datapoint.shell_of(point, kind), masked=masked, mask_number=self._mask_number
        )
        more = series.size_bytes + (0 if known.series else group.size_bytes)
        if self._bytes + more > _MAX_TABLE_BYTES:
            raise _Unfit("series_limit")
        self._bytes += more
        series.called = _called(series)
        known.series += 1
        self._groups[known.key] = known
        self._series[key] = series
        self._names.add(name)
        self._of_service[known.resource.service] += 1
        return series

    def _masked_anew(self, key: bytes, series: _Series, point: Any) -> _Series | None:
        """A series that is known, under the mask in force; None where that gives it another name: it ends then, and a new one begins."""
        # a copy: a new one is told by what came
        named = type(point)(attributes=point.attributes)
        masked = self._masked(named)
        if _parts(named) != _parts(type(point).FromString(series.shell)):
            self._ended.append(self._gone(key))
            return None
        series.masked, series.mask_number = masked, self._mask_number
        return series

    def _masked(self, point: Any) -> bool:
        try:
            return self._mask.attributes(point.attributes, "attributes")
        except TallyError:
            raise _Unfit("unmaskable") from None

    def _bound(self, series: _Series, bounds: bytes) -> None:
        """Remember the bounds that a histogram has now: they are what ends with it."""
        if bounds == series.bounds:
            return
        more = 2 * (len(bounds) - len(series.bounds))
        if more > 0 and self._bytes + more > _MAX_TABLE_BYTES:
            raise _Unfit("series_limit")
        self._bytes += more
        series.bounds = bounds

    def _gone(self, key: bytes) -> _Series:
        series = self._series.pop(key)
        self._names.discard(series.name)
        if self._last.get(series.called) is series:
            del self._last[series.called]
        group = series.group
        self._bytes -= series.size_bytes
        self._of_service[group.resource.service] -= 1
        group.series -= 1
        if not group.series:
            self._bytes -= group.size_bytes
            del self._groups[group.key]
        return series


def _digest(*parts: bytes) -> bytes:
    return blake2b(b"".join(len(part).to_bytes(4, "big") + part for part in parts), digest_size=16).digest()


def _parts(point: Any) -> list[bytes]:
    return sorted(pair.SerializeToString(deterministic=True) for pair in point.attributes)


def _called(series: _Series) -> int:
    """A hash of the labels that it has in Prometheus, of a histogram or a summary those of ``_count``; of what has none there it is its own."""
    request = ExportMetricsServiceRequest()
    _add_ends(request, (series,), 0)
    point = next(translate(request, native=False))
    return hash(point.series[0].labels if point.series else series.name)


def _add_ends(request: Any, ended: Iterable[_Series], now_ns: int) -> None:
    """Add points that say that these series have ended."""
    groups: dict[bytes, Any] = {}
    for series in ended:
        scoped = groups.get(series.group.key)
        if scoped is None:
            resource_metrics = request.resource_metrics.add()
            resource_metrics.resource.ParseFromString(series.group.resource.data)
            scoped = groups[series.group.key] = resource_metrics.scope_metrics.add()
            scoped.scope.ParseFromString(series.group.scope)
        metric = scoped.metrics.add()
        metric.ParseFromString(series.metric)
        data = metric.WhichOneof("data")
        assert data is not None  # a metric was kept with its kind
        point = getattr(metric, data).data_points.add()
        point.ParseFromString(series.shell)
        if series.bounds:
            point.explicit_bounds.extend(array("d", series.bounds))
        point.time_unix_nano = max(now_ns, series.last_ns + _MS)
        point.flags = NO_RECORDED_VALUE
