"""One data point of OTLP metrics: whether it is sound, and what deltas add up to. Pure; a point is changed in place."""

import itertools
import math
from typing import Any

from collector.onward import exponential

__all__ = [
    "MAX_BUCKETS",
    "NO_RECORDED_VALUE",
    "added_up",
    "points_of",
    "shell_of",
    "sound",
    "take_attributes",
    "trim_exemplars",
]

MAX_BUCKETS = 1_000
"""Of a histogram of either sign, and quantiles of a summary; a point with more is dropped."""

NO_RECORDED_VALUE = 1
"""The bit of a data point's flags (metrics.proto, DataPointFlags) that says that its series has ended."""

_MAX_EXEMPLARS = 10
_SPAN_ID_BYTES = 8
_MAX_SCALE, _MAX_OFFSET = 40, 2**30  # SDKs begin at 20
_INT64 = 2**63

_OF_INTERVAL = frozenset({"min", "max"})
_OWN_OF_POINT = _OF_INTERVAL | {"attributes", "exemplars", "flags", "start_time_unix_nano", "time_unix_nano"}
"""Of a delta's point: what its sum does not take over from the points before."""


def points_of(request: Any) -> int:
    """How many data points a request has."""
    return sum(
        len(getattr(metric, kind).data_points)
        for group in request.resource_metrics
        for scoped in group.scope_metrics
        for metric in scoped.metrics
        if (kind := metric.WhichOneof("data")) is not None
    )


def sound(point: Any, kind: str) -> bool:
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


def trim_exemplars(point: Any) -> None:
    """Those that lead to a trail, without the attributes that were left out of the series on purpose."""
    kept = [exemplar for exemplar in point.exemplars if len(exemplar.trace_id) == 16 and any(exemplar.trace_id)]
    if len(kept) < len(point.exemplars) or len(kept) > _MAX_EXEMPLARS:
        del point.exemplars[:]
        point.exemplars.extend(kept[-_MAX_EXEMPLARS:])
    for exemplar in point.exemplars:
        del exemplar.filtered_attributes[:]
        if len(exemplar.span_id) != _SPAN_ID_BYTES:  # it goes on as it is
            exemplar.ClearField("span_id")


def shell_of(point: Any, kind: str) -> bytes:
    """A point without values, serialised: its attributes, and of a summary its quantiles."""
    shell = type(point)(attributes=point.attributes)
    if kind == "summary":
        for quantile in point.quantile_values:
            shell.quantile_values.add(quantile=quantile.quantile)
    return bytes(shell.SerializeToString())


def take_attributes(point: Any, shell: bytes) -> None:
    """Give a point the attributes of a shell, in place."""
    known = type(point).FromString(shell)
    del point.attributes[:]
    point.attributes.extend(known.attributes)


def added_up(running: Any, point: Any, kind: str) -> Any:
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
