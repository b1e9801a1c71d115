"""What goes on is bounded, cumulative, masked and in order, and what does not is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.onward.datapoint import points_of
from collector.onward.exponential import counts_of
from collector.onward.promseries import translate
from collector.onward.seriestable import NO_RECORDED_VALUE, SeriesTable
from collector.protect import ProtectError, Protector
from tests.support.otlp_points import (
    CUMULATIVE,
    DELTA,
    NOW_NS,
    SECOND_NS,
    add_exponential,
    add_gauge,
    add_histogram,
    add_sum,
    request_of,
    the_points,
)


def table(**bounds: Any) -> SeriesTable:
    return SeriesTable(**{"most": 100, "most_of_service": 100, "stale_ns": 60 * SECOND_NS, **bounds})


def taken(into: SeriesTable, request: Any, now_ns: int = NOW_NS) -> Counter[str]:
    return into.take(request, now_ns=now_ns)


def test_deltas_become_the_sum_since_the_first() -> None:
    into = table()
    for at, (value, expected) in enumerate([(5, 5), (0, 5), (7, 12)]):
        request = request_of()
        start_ns = NOW_NS + at * SECOND_NS
        add_sum(request, "paid", value, temporality=DELTA, start_ns=start_ns, at_ns=start_ns + SECOND_NS, shop="a")
        assert not taken(into, request)
        (point,) = the_points(request)
        assert (point.as_int, point.start_time_unix_nano, point.time_unix_nano) == (
            expected, NOW_NS, start_ns + SECOND_NS,
        )  # fmt: skip
        metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
        assert metric.sum.aggregation_temporality == CUMULATIVE
        assert point.attributes[0].value.string_value == "a"
    assert len(into) == 1


def test_histograms_of_deltas_add_up_and_begin_anew_with_other_bounds() -> None:
    into = table()

    def told(counts: list[int], total: float, at: int, bounds: tuple[float, ...] = (0.1, 1.0)) -> Any:
        request = request_of()
        point = add_histogram(request, "d", counts, total=total, bounds=bounds, temporality=DELTA, at_ns=NOW_NS + at)
        point.min, point.max = 0.0, 9.0
        assert not taken(into, request)
        return the_points(request)[0]

    told([1, 2, 0], 0.5, 1)
    second = told([0, 1, 4], 2.5, 2)
    assert (list(second.bucket_counts), second.count, second.sum) == ([1, 3, 4], 8, 3.0)
    assert not second.HasField("min")  # of the last interval alone
    assert list(told([1, 1], 1.0, 3, (0.5,)).bucket_counts) == [1, 1]
    assert list(told([1, 1], 1.0, 4, (0.5,)).bucket_counts) == [2, 2]


def test_exponential_deltas_add_up_at_the_coarser_scale() -> None:
    into = table()
    request = request_of()
    for at, (scale, buckets) in enumerate([(3, {7: 1}), (0, {0: 1})]):
        request = request_of()
        add_exponential(request, "d", buckets, scale=scale, temporality=DELTA, at_ns=NOW_NS + at + 1, zeros=1)
        assert not taken(into, request)
    (point,) = the_points(request)
    assert (point.scale, counts_of(point.positive), point.zero_count, point.count, point.sum) == (0, {0: 2}, 2, 4, 2.0)


def test_what_is_sent_again_is_left_out_and_added_once() -> None:
    into = table()

    def send() -> tuple[Counter[str], int]:
        request = request_of()
        add_sum(request, "paid", 5, temporality=DELTA)
        add_gauge(request, "load", 0.5)
        return taken(into, request), points_of(request)

    assert send() == ({}, 2)
    assert send() == ({"not_newer": 2}, 0)
    request = request_of()
    add_sum(request, "paid", 1, temporality=DELTA, at_ns=NOW_NS + 1)
    taken(into, request)
    assert the_points(request)[0].as_int == 6


def test_made_up_label_sets_are_bounded_and_counted() -> None:
    into = table(most_of_service=20, most=30)
    for service, expected, reason in (("shop", 20, "service_limit"), ("other", 10, "series_limit")):
        request = request_of(service=service)
        for at in range(1_000):
            add_sum(request, "hits", 1, user=str(at))
        dropped = taken(into, request)
        assert points_of(request) == expected
        assert dropped == {reason: 1_000 - expected}
    assert len(into) == 30
    again = request_of()
    add_sum(again, "hits", 2, user="3", at_ns=NOW_NS + 1)
    assert not taken(into, again)  # those that are there go on


def test_what_is_remembered_of_series_is_bounded_in_bytes() -> None:
    into = table(most=100_000, most_of_service=100_000)

    def send(at: int, now_ns: int) -> Counter[str]:
        request = request_of(big=str(at) + "x" * 30_000)
        add_gauge(request, "load", 1.0, at_ns=now_ns)
        add_gauge(request, "more", 1.0, at_ns=now_ns)
        return taken(into, request, now_ns)

    dropped = sum((send(at, NOW_NS) for at in range(2_300)), Counter())
    assert 0 < dropped["series_limit"] < 300
    assert 4_000 < len(into) < 4_600
    into.forget(now_ns=NOW_NS + 61 * SECOND_NS)
    assert (len(into), into._bytes, into._groups) == (0, 0, {})
    assert not send(1, NOW_NS + 61 * SECOND_NS)


def test_a_series_that_is_not_seen_any_more_ends_and_makes_room() -> None:
    into = table(most=2)
    request = request_of(instance="i", scope="lib")
    add_histogram(request, "d", [1, 0, 0], at_ns=NOW_NS, way="in")
    add_gauge(request, "load", 0.5)
    taken(into, request)
    assert into.forget(now_ns=NOW_NS + 60 * SECOND_NS) is None
    later = request_of(instance="i", scope="lib")
    add_gauge(later, "load", 0.7, at_ns=NOW_NS + 50 * SECOND_NS)
    taken(into, later, NOW_NS + 50 * SECOND_NS)
    ended = into.forget(now_ns=NOW_NS + 61 * SECOND_NS)
    (point,) = the_points(ended)
    assert point.flags & NO_RECORDED_VALUE
    assert point.time_unix_nano == NOW_NS + 61 * SECOND_NS
    names = [dict(one.labels) for told in translate(ended, native=False) for one in told.series]
    assert {
        "__name__": "d_seconds_bucket",
        "le": "0.1",
        "way": "in",
        "job": "shop",
        "instance": "i",
        "otel_scope_name": "lib",
    } in names
    assert len(into) == 1
    assert into.forget(now_ns=NOW_NS + 61 * SECOND_NS) is None
    fresh = request_of()
    add_gauge(fresh, "new", 1.0)
    assert not taken(into, fresh)


def test_attributes_are_masked_as_events_are() -> None:
    protector = Protector(token_key=b"k" * 32)
    into = table(mask=lambda attributes, where: protector.protect(attributes, path=where)[0])
    for at in (1, 2):
        request = request_of(db__password="hunter2")
        add_sum(request, "hits", at, at_ns=NOW_NS + at, card="4111 1111 1111 1111", token="", plain="x")
        assert not taken(into, request)
        text = request.SerializeToString()
        assert b"4111 1111" not in text
        assert b"hunter2" not in text
        assert b"[4111 11** **** 1111~card:" in text
        assert b"plain" in text
    assert len(into) == 1


def test_what_cannot_be_checked_does_not_go_on_and_the_rest_does() -> None:
    def mask(attributes: dict[str, Any], where: str) -> dict[str, Any]:
        if "bad" in attributes:
            raise ProtectError(f"cannot check {where}")
        return attributes

    request = request_of()
    scopes = request.resource_metrics[0].scope_metrics
    scopes[0].scope.attributes.add(key="bad").value.string_value = "4111111111111111"
    add_gauge(request, "first", 1.0)
    other = request_of()
    add_gauge(other, "second", 1.0)
    add_gauge(other, "third", 1.0, bad="4111111111111111")
    scopes.add().CopyFrom(other.resource_metrics[0].scope_metrics[0])
    whole = request_of(bad="4111111111111111")
    add_gauge(whole, "fourth", 1.0)
    request.resource_metrics.add().CopyFrom(whole.resource_metrics[0])
    assert taken(table(mask=mask), request) == {"unmaskable": 3}
    text = request.SerializeToString()
    assert b"second" in text
    assert not any(word in text for word in (b"4111", b"first", b"third", b"fourth"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda request: add_sum(request, "x", 1, temporality=0), "temporality"),
        (lambda request: add_histogram(request, "x", [1, 1]), "buckets"),
        (lambda request: add_histogram(request, "x", [1, 1, 1], bounds=(1.0, 0.1)), "buckets"),
        (lambda request: setattr(add_histogram(request, "x", [1, 1, 1]), "count", 2), "buckets"),
        (lambda request: setattr(add_exponential(request, "x", {0: 1}), "count", 2), "buckets"),
        (lambda request: add_exponential(request, "x", {0: 1, 1_001: 1}), "buckets"),
        (lambda request: add_exponential(request, "x", {0: 1}, scale=-2_000), "buckets"),
        (lambda request: add_gauge(request, "x" * 2_000, 1.0), "too_long"),
        (lambda request: add_gauge(request, "x", 1.0, long="x" * 10_000), "too_long"),
    ],
)
def test_what_cannot_go_on_is_told_by_its_reason(change: Any, reason: str) -> None:
    request = request_of()
    change(request)
    assert taken(table(), request) == {reason: 1}
    assert points_of(request) == 0


def test_exemplars_keep_their_trace_and_nothing_else() -> None:
    request = request_of()
    point = add_sum(request, "hits", 30)
    point.exemplars.add(as_int=1)
    for at in range(1, 21):
        exemplar = point.exemplars.add(as_int=at, trace_id=bytes([at]) * 16, span_id=b"\2" * 8)
        exemplar.filtered_attributes.add(key="user").value.string_value = "ann"
    taken(table(), request)
    kept = the_points(request)[0].exemplars
    assert [one.as_int for one in kept] == list(range(11, 21))
    assert not any(one.filtered_attributes for one in kept)


def test_counts_beyond_64_bits_begin_anew() -> None:
    into = table()
    for at in range(4):
        request = request_of()
        add_histogram(request, "d", [2**63 - 1, 0, 0], temporality=DELTA, at_ns=NOW_NS + at)
        assert not taken(into, request)
        assert the_points(request)[0].count >= 2**63 - 1
    request = request_of()
    add_sum(request, "s", 2**63 - 1, temporality=DELTA)
    taken(into, request)
    more = request_of()
    add_sum(more, "s", 2**63 - 1, temporality=DELTA, at_ns=NOW_NS + 1)
    taken(into, more)
    assert the_points(more)[0].as_double == pytest.approx(2.0**64)


@given(st.lists(st.binary(max_size=80), max_size=4), st.booleans())
def test_whatever_is_sent_the_account_is_whole(bodies: list[bytes], native: bool) -> None:
    into = table(most=3, most_of_service=2)
    good = request_of()
    add_sum(good, "a", 1)
    add_histogram(good, "b", [1, 0, 0], temporality=DELTA)
    add_exponential(good, "c", {0: 1}, temporality=DELTA)
    for body in [*bodies, good.SerializeToString(), *(good.SerializeToString() + body for body in bodies)]:
        try:
            request = ExportMetricsServiceRequest.FromString(body)
        except Exception:  # noqa: BLE001, S112 - protobuf's own matter
            continue
        before = points_of(request)
        dropped = taken(into, request)
        assert points_of(request) + dropped.total() == before
        list(translate(request, native=native))
        assert len(into) <= 3
