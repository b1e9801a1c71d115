"""Exponential histograms keep their observations, whatever is done to their buckets."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint

from collector.onward.exponential import MAX_BUCKETS, Layout, add, coarser, counts_of, layout, power_bounds

counts = st.dictionaries(st.integers(-400, 400), st.integers(1, 1_000), max_size=20)


def point_of(positive: dict[int, int], negative: dict[int, int], zeros: int, scale: int) -> Any:
    point = ExponentialHistogramDataPoint(scale=scale, zero_count=zeros, sum=1.0)
    for buckets, told in ((point.positive, positive), (point.negative, negative)):
        if told:
            buckets.offset = min(told)
            buckets.bucket_counts.extend(told.get(at, 0) for at in range(min(told), max(told) + 1))
    point.count = zeros + sum(positive.values()) + sum(negative.values())
    return point


points = st.builds(point_of, counts, counts, st.integers(0, 50), st.integers(-6, 20))


def read_layout(told: Layout) -> dict[int, int]:
    """As Prometheus reads spans and deltas (https://prometheus.io/docs/specs/native_histograms/#spans-and-deltas)."""
    out = {}
    index = value = at = 0
    for gap, length in told.spans:
        index += gap
        for _ in range(length):
            value += told.deltas[at]
            out[index] = value
            index += 1
            at += 1
    assert at == len(told.deltas)
    return {index: count for index, count in out.items() if count}


@given(counts)
def test_a_layout_says_the_same_counts_one_index_higher(told: dict[int, int]) -> None:
    assert read_layout(layout(told)) == {index + 1: count for index, count in told.items()}


def test_a_small_gap_is_filled_and_a_large_one_begins_a_span() -> None:
    assert layout({-3: 1, 0: 2, 9: 1}) == Layout(((-2, 4), (8, 1)), (1, -1, 0, 2, -1))


@given(counts, st.integers(0, 12))
def test_coarser_buckets_hold_the_same(told: dict[int, int], steps: int) -> None:
    assert sum(coarser(told, steps).values()) == sum(told.values())


@given(points, points)
def test_what_is_added_up_is_there_and_bounded(one: Any, other: Any) -> None:
    total = one.count + other.count
    apart = [counts_of(sign) for point in (one, other) for sign in (point.positive, point.negative)]
    add(one, other)
    assert one.count == total == one.zero_count + sum(one.positive.bucket_counts) + sum(one.negative.bucket_counts)
    assert max(len(one.positive.bucket_counts), len(one.negative.bucket_counts)) <= MAX_BUCKETS
    assert sum(one.positive.bucket_counts) == sum(apart[0].values()) + sum(apart[2].values())
    assert one.sum == 2.0


def test_the_same_value_at_two_scales_is_in_one_bucket() -> None:
    one = point_of({7: 1}, {}, 0, 3)  # above 2**(7/8), at most 2
    add(one, point_of({0: 1}, {}, 0, 0))  # above 1, at most 2
    assert (one.scale, counts_of(one.positive)) == (0, {0: 2})


@given(points)
def test_classic_bounds_rise_and_miss_no_more_than_what_is_beyond_floats(point: Any) -> None:
    told = power_bounds(point)
    bounds, totals = [bound for bound, _ in told], [total for _, total in told]
    assert bounds == sorted(set(bounds))
    assert totals == sorted(totals)
    assert (totals or [0])[-1] <= point.count
    if point.scale >= 0:
        assert (totals or [0])[-1] == point.count


def test_classic_bounds_are_powers_of_two() -> None:
    assert power_bounds(point_of({-1: 1, 0: 2, 8: 4}, {3: 8}, 16, 2)) == [
        (-1.0, 8),
        (0.0, 24),
        (1.0, 25),
        (2.0, 27),
        (8.0, 31),
    ]
