"""Exponential histograms: added up, made coarser, and as Prometheus has them: native, or classic with the powers of two as bounds.

Bucket ``i`` of OpenTelemetry holds what is above ``base**i`` and at most ``base**(i+1)``, with ``base = 2**(2**-scale)``
(https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram); bucket ``i`` of Prometheus what is above ``base**(i-1)`` and at
most ``base**i`` (https://prometheus.io/docs/specs/native_histograms/#schema), for scales from -4 to 8.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["MAX_BUCKETS", "MAX_SCALE", "MIN_SCALE", "Layout", "add", "coarser", "counts_of", "layout", "power_bounds"]

MIN_SCALE, MAX_SCALE = -4, 8
"""Of native histograms (their ``schema``)."""

MAX_BUCKETS = 160
"""Of either sign; what SDKs keep by default, and what adding up keeps to."""

_GAP = 2  # so many empty buckets are written rather than a new span begun


class Layout(NamedTuple):
    """Spans (gap to the one before, or the first index; length) and the counts of their buckets, each less the one before."""

    spans: tuple[tuple[int, int], ...]
    deltas: tuple[int, ...]


def counts_of(buckets: Any) -> dict[int, int]:
    """Of an OTLP ``Buckets``: bucket's index -> count, without empty ones."""
    return {buckets.offset + at: count for at, count in enumerate(buckets.bucket_counts) if count}


def coarser(counts: dict[int, int], steps: int) -> dict[int, int]:
    """The same with a scale that is lower by `steps` (0 or more): 2**steps buckets become one."""
    if not steps:
        return counts
    out: dict[int, int] = {}
    for index, count in counts.items():
        out[index >> steps] = out.get(index >> steps, 0) + count
    return out


def add(running: Any, point: Any) -> None:
    """Add an ExponentialHistogramDataPoint to another, in place: at the lower of their scales, and with `MAX_BUCKETS` at most of either sign."""
    scale = min(running.scale, point.scale)
    signs = []
    for name in ("positive", "negative"):
        merged = coarser(counts_of(getattr(running, name)), running.scale - scale)
        for index, count in coarser(counts_of(getattr(point, name)), point.scale - scale).items():
            merged[index] = merged.get(index, 0) + count
        signs.append(merged)
    while any(_width(counts) > MAX_BUCKETS for counts in signs):
        scale -= 1
        signs = [coarser(counts, 1) for counts in signs]
    running.scale = scale
    for name, counts in zip(("positive", "negative"), signs, strict=True):
        buckets = getattr(running, name)
        del buckets.bucket_counts[:]
        buckets.offset = min(counts, default=0)
        buckets.bucket_counts.extend(counts.get(buckets.offset + at, 0) for at in range(_width(counts)))
    running.zero_count += point.zero_count
    running.zero_threshold = max(running.zero_threshold, point.zero_threshold)
    running.count += point.count
    if running.HasField("sum") and point.HasField("sum"):
        running.sum += point.sum
    else:
        running.ClearField("sum")


def _width(counts: dict[int, int]) -> int:
    return max(counts) - min(counts) + 1 if counts else 0


def layout(counts: dict[int, int]) -> Layout:
    """Buckets as spans and deltas, their indexes those of Prometheus."""
    spans: list[list[int]] = []
    deltas: list[int] = []
    before = last = 0
    for index in sorted(counts):
        gap = index + 1 - last  # the indexes of Prometheus are one higher
        if spans and gap <= _GAP:
            deltas.extend([-before, *([0] * (gap - 1))] if gap else [])
            before = 0 if gap else before
            spans[-1][1] += gap + 1
        else:
            spans.append([gap, 1])
        deltas.append(counts[index] - before)
        before = counts[index]
        last = index + 2
    return Layout(tuple((gap, length) for gap, length in spans), tuple(deltas))


def power_bounds(point: Any) -> list[tuple[float, int]]:
    """Upper bounds, ascending, each with the count of what is at most as large; of an ExponentialHistogramDataPoint.

    The bounds are powers of two (or their negatives, and 0), so that they are the same ones at whatever scale a service measures. Values at a bound of
    negative buckets are counted one bucket too high, as the data model has their bounds the other way round. What is above the largest float has no bound.
    """
    steps = max(point.scale, 0)
    apart = 1 if point.scale >= 0 else 1 << min(-point.scale, 12)  # powers of two from one bound to the next
    negative, positive = (coarser(counts_of(getattr(point, name)), steps) for name in ("negative", "positive"))
    ordered: list[tuple[float, int]] = [
        (-_power(index * apart), negative[index]) for index in sorted(negative, reverse=True)
    ]
    if point.zero_count or negative:
        ordered.append((0.0, point.zero_count))
    ordered += [(_power((index + 1) * apart), positive[index]) for index in sorted(positive)]
    return _summed(ordered)


def _power(exponent: int) -> float:
    return 0.0 if exponent < -1_074 else float("inf") if exponent > 1_023 else 2.0**exponent


def _summed(ordered: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    out: list[tuple[float, int]] = []
    total = 0
    for bound, count in ordered:
        total += count
        if out and out[-1][0] == bound:
            out[-1] = (bound, total)
        elif bound != float("inf"):
            out.append((bound, total))
    return out
