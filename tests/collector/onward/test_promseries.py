"""Data points as series, and series as remote-write's messages: read again by the protobuf library from the published definitions."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from collector.onward.datapoint import NO_RECORDED_VALUE
from collector.onward.prompb import request_v1, request_v2
from collector.onward.promseries import STALE, is_stale, translate
from tests.support.otlp_points import NOW_NS, add_exponential, add_gauge, add_histogram, add_sum, request_of
from tests.support.prompb import labels_v1, labels_v2, write_request
from tests.support.prompb import request_v2 as read_v2

NOW_MS = NOW_NS // 1_000_000
AROUND = {"job": "shop", "instance": "i", "otel_scope_name": "lib"}


def everything() -> Any:
    request = request_of(instance="i", scope="lib", host__name="h")
    point = add_sum(request, "hits", 7, unit="{hit}", start_ns=NOW_NS - 10**9, http__method="GET")
    point.exemplars.add(as_int=1, time_unix_nano=NOW_NS, trace_id=b"\1" * 16, span_id=b"\2" * 8)
    request.resource_metrics[0].scope_metrics[0].metrics[0].description = "How often"
    add_sum(request, "queue", 3, monotonic=False)
    add_gauge(request, "load", 0.0, unit="1")
    histogram = add_histogram(request, "took", [1, 2, 3], total=4.5)
    histogram.exemplars.add(as_double=0.5, trace_id=b"\3" * 16)
    add_exponential(request, "spread", {-3: 1, 4: 2}, negative={2: 1}, zeros=1, scale=3, total=10.5)
    summary = request.resource_metrics[0].scope_metrics[0].metrics.add(name="old").summary.data_points.add()
    summary.time_unix_nano, summary.count, summary.sum = NOW_NS, 9, 3.0
    summary.quantile_values.add(quantile=0.5, value=0.3)
    return request


SAMPLES = [
    ({"__name__": "hits_total", "http_method": "GET"}, 7.0),
    ({"__name__": "queue"}, 3.0),
    ({"__name__": "load_ratio"}, 0.0),
    ({"__name__": "took_seconds_count"}, 6.0),
    ({"__name__": "took_seconds_sum"}, 4.5),
    ({"__name__": "took_seconds_bucket", "le": "0.1"}, 1.0),
    ({"__name__": "took_seconds_bucket", "le": "1.0"}, 3.0),
    ({"__name__": "took_seconds_bucket", "le": "+Inf"}, 6.0),
    ({"__name__": "spread_seconds"}, None),
    ({"__name__": "old_count"}, 9.0),
    ({"__name__": "old_sum"}, 3.0),
    ({"__name__": "old", "quantile": "0.5"}, 0.3),
]
EXPECTED = [*(({**labels, **AROUND}, value) for labels, value in SAMPLES), (
    {"__name__": "target_info", "host_name": "h", "job": "shop", "instance": "i"}, 1.0,
)]  # fmt: skip


def check_native(told: Any) -> None:
    assert (told.schema, told.count_int, told.sum, told.zero_count_int, told.timestamp) == (3, 5, 10.5, 1, NOW_MS)
    assert [(one.offset, one.length) for one in told.positive_spans] == [(-2, 1), (6, 1)]
    assert list(told.positive_deltas) == [1, 1]
    assert [(one.offset, one.length) for one in told.negative_spans] == [(3, 1)]
    assert list(told.negative_deltas) == [1]


def test_version_1_says_everything() -> None:
    read = write_request(request_v1(translate(everything(), native=True)))
    found = [(labels_v1(one), one.samples[0].value if one.samples else None) for one in read.timeseries]
    assert found == EXPECTED
    for series in read.timeseries:
        names = [label.name for label in series.labels]
        assert names == sorted(set(names))  # the specification demands it
        assert [sample.timestamp for sample in series.samples] == ([NOW_MS] if series.samples else [])
    (exemplar,) = read.timeseries[0].exemplars
    assert {label.name: label.value for label in exemplar.labels} == {"trace_id": "01" * 16, "span_id": "02" * 8}
    assert (exemplar.value, exemplar.timestamp) == (1.0, NOW_MS)
    assert [len(one.exemplars) for one in read.timeseries[5:8]] == [0, 1, 0]  # in the bucket that holds it
    check_native(read.timeseries[8].histograms[0])
    metadata = {one.metric_family_name: (one.type, one.help, one.unit) for one in read.metadata}
    assert metadata["hits"] == (1, "How often", "")
    assert metadata["took_seconds"] == (3, "", "seconds")
    assert {name: kind for name, (kind, *_) in metadata.items()} == {
        "hits": 1, "queue": 2, "load_ratio": 2, "took_seconds": 3, "spread_seconds": 3, "old": 5, "target": 6,
    }  # fmt: skip


def test_series_that_differ_in_their_scope_are_told_apart() -> None:
    request = request_of(scope="lib")
    add_gauge(request, "load", 0.5, otel__scope__name="mine")
    scope = request.resource_metrics[0].scope_metrics[0].scope
    for key, value in (("short.name", "x"), ("short_name", "y"), ("name", "evil"), ("version", "9"), ("", "z")):
        scope.attributes.add(key=key).value.string_value = value
    (told, _) = translate(request, native=True)
    assert dict(told.series[0].labels) == {
        "__name__": "load", "job": "shop", "otel_scope_name": "lib", "otel_scope_short_name": "x;y", "otel_scope_": "z",
    }  # fmt: skip


def test_version_2_says_the_same_with_symbols_start_times_and_metadata() -> None:
    read = read_v2(request_v2(translate(everything(), native=True)))
    assert read.symbols[0] == ""
    assert len(read.symbols) == len(set(read.symbols))
    found = [(labels_v2(read, one), one.samples[0].value if one.samples else None) for one in read.timeseries]
    assert found == EXPECTED
    first = read.timeseries[0]
    assert first.samples[0].start_timestamp == NOW_MS - 1_000
    assert (first.metadata.type, read.symbols[first.metadata.help_ref]) == (1, "How often")
    assert labels_v2(read, first.exemplars[0]) == {"trace_id": "01" * 16, "span_id": "02" * 8}
    check_native(read.timeseries[8].histograms[0])
    assert read.symbols[read.timeseries[3].metadata.unit_ref] == "seconds"


def test_without_native_histograms_the_powers_of_two_are_bounds() -> None:
    told = {dict(one.labels).get("le", name): one.value for name, one in _series_of(everything(), "spread_seconds")}
    assert told == {
        "spread_seconds_sum": 10.5, "spread_seconds_count": 5.0, "-1.0": 1.0, "0.0": 2.0, "1.0": 3.0, "2.0": 5.0, "+Inf": 5.0,
    }  # fmt: skip


def _series_of(request: Any, family: str) -> list[tuple[str, Any]]:
    points = [one for one in translate(request, native=False) if one.family == family]
    return [(dict(series.labels)["__name__"], series) for point in points for series in point.series]


def test_a_scale_that_prometheus_has_not_is_made_coarser_or_classic() -> None:
    fine, wide = request_of(), request_of()
    add_exponential(fine, "x", {1_000: 1}, scale=12)
    add_exponential(wide, "x", {0: 1}, scale=-5)
    (point, *_) = translate(fine, native=True)
    value: Any = point.series[0].value
    assert (value.schema, value.positive.spans) == (8, ((63, 1),))
    assert len(next(iter(translate(wide, native=True))).series) > 2


@pytest.mark.parametrize("native", [True, False])
def test_what_ends_is_said_with_prometheus_own_nan(native: bool) -> None:
    request = everything()
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        kind: Any = metric.WhichOneof("data")
        getattr(metric, kind).data_points[0].flags = NO_RECORDED_VALUE
    points = list(translate(request, native=native))
    assert all(is_stale(series.value) for point in points for series in point.series)
    assert not points[-1].series or points[-1].family != "target"
    for read in (write_request(request_v1(points)), read_v2(request_v2(points))):
        for series in read.timeseries:
            value = series.samples[0].value if series.samples else series.histograms[0].sum
            assert struct.pack("<d", value) == struct.pack("<Q", 0x7FF0000000000002)
    assert not is_stale(math.nan)
    assert is_stale(STALE)


def test_a_quantile_that_stands_twice_is_one_series() -> None:
    request = request_of()
    summary = request.resource_metrics[0].scope_metrics[0].metrics.add(name="old").summary.data_points.add()
    for value in (0.3, 0.4):
        summary.quantile_values.add(quantile=0.5, value=value)
    (point,) = translate(request, native=True)
    assert [series.value for series in point.series] == [0.0, 0.0, 0.4]


def test_who_it_is_comes_from_the_resource() -> None:
    request = request_of(instance="i", service__namespace="eu", flag="yes")
    request.resource_metrics[0].resource.attributes.add(key="list").value.array_value.values.add(int_value=1)
    add_gauge(request, "g", 1.0, job="mine", a__b="1", a_b="2")
    gauge, target = translate(request, native=True)
    assert dict(gauge.series[0].labels) == {"__name__": "g", "job": "eu/shop", "instance": "i", "a_b": "1;2"}
    assert dict(target.series[0].labels) == {
        "__name__": "target_info",
        "job": "eu/shop",
        "instance": "i",
        "flag": "yes",
        "list": "[1]",
    }
    nobody = request_of(service="", flag="yes")
    add_gauge(nobody, "温度", 1.0)
    assert [(one.points, one.series) for one in translate(nobody, native=True)] == [(1, ()), (0, ())]
