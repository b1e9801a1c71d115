"""What goes on is bounded, cumulative, masked and in order, and what does not is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.onward.datapoint import NO_RECORDED_VALUE, points_of
from collector.onward.exponential import counts_of
from collector.onward.promseries import translate
from collector.onward.seriestable import SeriesTable
from collector.protect import ProtectError, Protector
from tests.support.otlp_points import (
    CUMULATIVE,
    DELTA,
    MS_NS,
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


def test_two_points_within_a_millisecond_are_one_and_no_delta_is_lost() -> None:
    into = table()

    def told(value: int, at: int) -> list[int]:
        request = request_of()
        add_sum(request, "paid", value, temporality=DELTA, at_ns=NOW_NS + at)
        add_gauge(request, "load", value, at_ns=NOW_NS + at)
        add_gauge(request, "fine", value, at_ns=NOW_NS + value * MS_NS)
        dropped = taken(into, request)
        assert points_of(request) + dropped["not_newer"] == 3
        return [int(point.as_int or point.as_double) for point in the_points(request)]

    assert told(1, 1) == [1, 1, 1]
    assert told(2, 2) == [2]
    assert told(2, 2) == []
    assert told(3, MS_NS) == [6, 3, 3]


def test_histograms_of_deltas_add_up_and_begin_anew_with_other_bounds() -> None:
    into = table()

    def told(counts: list[int], total: float, at: int, bounds: tuple[float, ...] = (0.1, 1.0)) -> Any:
        request = request_of()
        point = add_histogram(
            request, "d", counts, total=total, bounds=bounds, temporality=DELTA, at_ns=NOW_NS + at * MS_NS
        )
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
        add_exponential(request, "d", buckets, scale=scale, temporality=DELTA, at_ns=NOW_NS + (at + 1) * MS_NS, zeros=1)
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
    add_sum(request, "paid", 1, temporality=DELTA, at_ns=NOW_NS + MS_NS)
    taken(into, request)
    assert the_points(request)[0].as_int == 6


def test_a_histogram_ends_with_the_bounds_of_its_last_point() -> None:
    into = table()
    for at, bounds in enumerate([(0.1, 1.0), (0.5,), (2.0, 3.0, 4.0)]):
        request = request_of()
        add_histogram(request, "d", [1] * (len(bounds) + 1), bounds=bounds, at_ns=NOW_NS + at * MS_NS)
        assert not taken(into, request)
    request = request_of()
    add_histogram(request, "d", [], bounds=[], at_ns=NOW_NS + SECOND_NS).flags = NO_RECORDED_VALUE
    assert not taken(into, request)
    (told,) = the_points(request)
    (point,) = the_points(into.forget(now_ns=NOW_NS + 61 * SECOND_NS))
    assert list(told.explicit_bounds) == list(point.explicit_bounds) == [2.0, 3.0, 4.0]
    assert into._bytes == 0


def test_bounds_that_change_are_bounded_in_bytes() -> None:
    into = table(most=10_000, most_of_service=10_000)
    dropped: Counter[str] = Counter()
    for bounds in (range(1), range(999)):
        request = request_of()
        for at in range(5_000):
            add_histogram(request, f"d{at}", [0] * (len(bounds) + 1), bounds=bounds, at_ns=NOW_NS + len(bounds) * MS_NS)
        dropped += taken(into, request)
    assert 500 < dropped["series_limit"] < 1_000
    assert into._bytes <= 64 * 1024**2


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
    add_sum(again, "hits", 2, user="3", at_ns=NOW_NS + MS_NS)
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


def test_a_long_resource_is_read_once_for_all_its_scopes() -> None:
    into = table()
    request = request_of(big="x" * 30_000)
    for at in range(20):
        scoped = request.resource_metrics[0].scope_metrics.add()
        scoped.scope.name = f"lib{at}"
        scoped.metrics.add(name="load").gauge.data_points.add(as_double=1.0, time_unix_nano=NOW_NS)
    request.resource_metrics[0].scope_metrics.add()
    assert not taken(into, request)
    assert len(into) == len(into._groups) == 20
    assert len({id(group.resource) for group in into._groups.values()}) == 1


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


def _of_process(pid: str, at: int) -> Any:
    """What a process without an id says: which one it is stands in its resource alone."""
    request = request_of(process__pid=pid)
    at_ns = NOW_NS + at * SECOND_NS
    add_sum(request, "hits", 1, at_ns=at_ns)
    add_histogram(request, "took", [1, 0, 0], at_ns=at_ns)
    add_gauge(request, "温度", 1.0, at_ns=at_ns)
    return request


def test_a_process_that_began_anew_is_not_ended_by_the_one_before() -> None:
    into = table()

    def ended(at: int) -> list[str]:
        request = into.forget(now_ns=NOW_NS + at * SECOND_NS)
        return [metric.name for metric in request.resource_metrics[0].scope_metrics[0].metrics] if request else []

    for pid, at in (("1", 0), ("2", 10), ("2", 70)):
        taken(into, _of_process(pid, at), NOW_NS + at * SECOND_NS)
    assert ended(71) == ["温度"]  # which has no name in Prometheus that another could have, too
    assert len(into) == 3
    assert ended(131) == ["hits", "took", "温度"]
    for pid, at in (("3", 140), ("4", 150), ("3", 160)):  # two at a time
        taken(into, _of_process(pid, at), NOW_NS + at * SECOND_NS)
    assert ended(211) == ["温度"]  # 3 goes on
    assert ended(221) == ["hits", "took", "温度"]
    assert (into._series, into._last, into._bytes) == ({}, {}, 0)


def test_a_time_that_is_none_keeps_no_series_from_its_end() -> None:
    into = table()
    request = request_of()
    for name, at_ns in (("a", NOW_NS), ("evil", 2**64 - 1), ("fast", NOW_NS + 600 * SECOND_NS), ("z", NOW_NS)):
        add_gauge(request, name, 1.0, at_ns=at_ns)
    assert taken(into, request) == {"ahead": 1}
    ended = into.forget(now_ns=NOW_NS + 61 * SECOND_NS)
    assert [metric.name for metric in ended.resource_metrics[0].scope_metrics[0].metrics] == ["a", "fast", "z"]
    assert [(point.time_unix_nano - NOW_NS) // MS_NS for point in the_points(ended)] == [61_000, 600_001, 61_000]


def test_attributes_are_masked_as_events_are() -> None:
    protector = Protector(token_key=b"k" * 32)
    into = table(protector=lambda: protector)
    for at in (1, 2):
        request = request_of(db__password="hunter2")
        add_sum(request, "hits", at, at_ns=NOW_NS + at * MS_NS, card="4111 1111 1111 1111", token="", plain="x")
        assert not taken(into, request)
        text = request.SerializeToString()
        assert b"4111 1111" not in text
        assert b"hunter2" not in text
        assert b"[4111 11** **** 1111~card:" in text
        assert b"plain" in text
    assert len(into) == 1


CARD = "4111111111111111"


def _twice(pairs: Any, key: str = "card") -> None:
    pairs.add(key=key).value.string_value = CARD
    pairs.add(key=key).value.string_value = "x"


def _twice_inside(point: Any) -> None:
    point.attributes.add(key="first").value.kvlist_value.values.add(key="o").value.kvlist_value.SetInParent()
    inside = point.attributes.add(key="first").value.array_value.values.add().kvlist_value
    _twice(inside.values)


def _unknown(message: Any) -> None:
    field = b"\xa2\x06\x10" + CARD.encode()  # of number 100
    message.MergeFromString(field)


class _To(NamedTuple):
    group: Any
    scoped: Any
    metric: Any
    point: Any


@pytest.mark.parametrize(
    "hide",
    [
        lambda to: _twice(to.point.attributes),
        lambda to: _twice(to.point.attributes, "password"),
        lambda to: _twice_inside(to.point),
        lambda to: _twice(to.group.resource.attributes),
        lambda to: _twice(to.scoped.scope.attributes),
        lambda to: to.metric.metadata.add(key="a").value.MergeFromString(b"\x0a\x10" + CARD.encode()),
        lambda to: setattr(to.metric, "name", f"pay {CARD}"),
        lambda to: setattr(to.metric, "unit", CARD),
        lambda to: setattr(to.metric, "description", f"of {CARD}"),
        lambda to: setattr(to.scoped.scope, "name", CARD),
        lambda to: setattr(to.scoped.scope, "version", CARD),
        lambda to: setattr(to.scoped, "schema_url", f"https://x/{CARD}"),
        lambda to: setattr(to.group, "schema_url", f"https://x/{CARD}"),
        lambda to: to.group.resource.entity_refs.add(type=CARD),
        lambda to: to.point.exemplars.add(trace_id=b"\1" * 16, span_id=CARD.encode()),
        lambda to: _unknown(to.group),
        lambda to: _unknown(to.point),
    ],
)  # fmt: skip
def test_a_card_number_goes_on_from_no_place(hide: Any) -> None:
    protector = Protector(token_key=b"k" * 32)
    into = table(protector=lambda: protector)
    for at in (1, 2):
        request = request_of(db__name="x")
        point = add_sum(request, "hits", at, at_ns=NOW_NS + at * MS_NS, way="in")
        group = request.resource_metrics[0]
        hide(_To(group, group.scope_metrics[0], group.scope_metrics[0].metrics[0], point))
        assert CARD.encode() in request.SerializeToString()
        assert not taken(into, request)
        assert CARD.encode() not in request.SerializeToString()
        assert {"way": "in"}.items() <= {pair.key: pair.value.string_value for pair in the_points(request)[0].attributes}.items()  # fmt: skip
    assert len(into) == 1
    assert CARD.encode() not in into.forget(now_ns=NOW_NS + 61 * SECOND_NS).SerializeToString()


def test_of_a_key_that_stands_twice_the_last_one_goes_on_as_it_was() -> None:
    protector = Protector(token_key=b"k" * 32)
    request = request_of()
    point = add_gauge(request, "load", 0.5, way="in")
    point.attributes.add(key="way").value.array_value.values.add(int_value=1)
    assert not taken(table(protector=lambda: protector), request)
    (pair,) = the_points(request)[0].attributes
    assert (pair.key, pair.value.array_value.values[0].int_value) == ("way", 1)


def test_another_mask_holds_for_series_that_are_known() -> None:
    in_force = [Protector(token_key=b"k" * 32)]
    into = table(protector=lambda: in_force[-1])

    def send(at: int) -> list[tuple[str, str, bool]]:
        request = request_of()
        add_sum(request, "hits", 1, temporality=DELTA, at_ns=NOW_NS + at * MS_NS, mail="ann@example.org")
        add_sum(request, "plain", 1, temporality=DELTA, at_ns=NOW_NS + at * MS_NS, way="x")
        assert not taken(into, request, NOW_NS + at * MS_NS)
        return [
            (metric.name, point.attributes[0].value.string_value, bool(point.flags))
            for group in request.resource_metrics
            for metric in group.scope_metrics[0].metrics
            for point in metric.sum.data_points
        ]

    clear, plain = ("hits", "ann@example.org", False), ("plain", "x", False)
    assert send(1) == [clear, plain]
    in_force.append(Protector(token_key=b"k" * 32, masked_fields=["mail"]))
    assert send(2) == [("hits", "***", False), plain, ("hits", "ann@example.org", True)]  # the clear one has ended
    assert send(3) == [("hits", "***", False), plain]
    in_force.append(Protector(token_key=b"k" * 32, masked_fields=["mail"]))  # as it was: nothing ends
    assert send(4) == [("hits", "***", False), plain]
    in_force.append(Protector(token_key=b"k" * 32))
    assert send(5) == [clear, plain, ("hits", "***", True)]
    assert len(into) == 2


def test_of_series_that_are_one_once_they_are_masked_the_first_goes_on_alone() -> None:
    in_force = [Protector(token_key=b"k" * 32, masked_fields=["mail"])]
    into = table(protector=lambda: in_force[-1])

    def send(at: int, *mails: str) -> tuple[list[tuple[int, str, bool]], Counter[str]]:
        request = request_of()
        for mail in mails:
            add_sum(request, "hits", ord(mail[0]), at_ns=NOW_NS + at * SECOND_NS, mail=mail)
        dropped = taken(into, request, NOW_NS + at * SECOND_NS)
        told = [(one.as_int, one.attributes[0].value.string_value, bool(one.flags)) for one in the_points(request)]
        return told, dropped

    first = (ord("a"), "***", False)
    assert send(0, "ann", "bob", "***") == ([first], {"same_name": 2})
    assert send(1, "bob", "ann") == ([first], {"same_name": 1})  # in whatever order they come
    assert len(into) == 1
    assert points_of(into.forget(now_ns=NOW_NS + 62 * SECOND_NS)) == 1
    assert send(62, "bob", "ann") == ([(ord("b"), "***", False)], {"same_name": 1})  # there is room for another
    in_force.append(Protector(token_key=b"k" * 32))
    clear = [(ord("a"), "ann", False), (ord("b"), "bob", False), (0, "***", True)]
    assert send(63, "ann", "bob") == (clear, {})
    in_force.append(in_force[0])
    ends = [(0, "ann", True), (0, "bob", True)]
    assert send(64, "ann", "bob") == ([first, *ends], {"same_name": 1})
    into.forget(now_ns=NOW_NS + 200 * SECOND_NS)
    assert (into._names, into._series, into._last, into._bytes) == (set(), {}, {}, 0)


def test_what_cannot_be_checked_does_not_go_on_and_the_rest_does() -> None:
    class Unable(Protector):
        def protect(self, value: Any, *, path: str = "") -> tuple[Any, tuple[str, ...]]:
            if "bad" in value:
                raise ProtectError(f"cannot check {path}")
            return super().protect(value, path=path)

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
    unable = Unable(token_key=b"k" * 32)
    assert taken(table(protector=lambda: unable), request) == {"unmaskable": 3}
    text = request.SerializeToString()
    assert b"second" in text
    assert not any(word in text for word in (b"4111", b"first", b"third", b"fourth"))


def _with_scope(request: Any, text: str) -> Any:
    request.resource_metrics[0].scope_metrics[0].scope.attributes.add(key="long").value.string_value = text
    return request


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
        (lambda request: add_gauge(request, "x", 1.0, at_ns=2**64 - 1), "ahead"),
        (lambda request: add_gauge(request, "x", 1.0, at_ns=NOW_NS + 600 * SECOND_NS + 1), "ahead"),
        (lambda request: add_gauge(request, "x" * 2_000, 1.0), "too_long"),
        (lambda request: add_gauge(request, "x", 1.0, long="x" * 10_000), "too_long"),
        (lambda request: add_gauge(_with_scope(request, "x" * 10_000), "x", 1.0), "too_long"),
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
        add_histogram(request, "d", [2**63 - 1, 0, 0], temporality=DELTA, at_ns=NOW_NS + at * MS_NS)
        assert not taken(into, request)
        assert the_points(request)[0].count >= 2**63 - 1
    request = request_of()
    add_sum(request, "s", 2**63 - 1, temporality=DELTA)
    taken(into, request)
    more = request_of()
    add_sum(more, "s", 2**63 - 1, temporality=DELTA, at_ns=NOW_NS + MS_NS)
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
