"""Names by OpenTelemetry's compatibility specification; `make test-prometheus3` compares them with what Prometheus' own receiver makes of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.onward.promnames import float_text, label_name, labels_of, metric_name, unit_name


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", "", "http_server_request_duration_seconds"),
        ("http.server.request.body.size", "By", "", "http_server_request_body_size_bytes"),
        ("requests", "{request}", "counter", "requests_total"),
        ("requests_total", "1", "counter", "requests_total"),
        ("request.total.count", "", "counter", "request_count_total"),
        ("total", "", "counter", "total_total"),
        ("_total.total", "1", "counter", "total_total"),
        ("total", "s", "counter", "seconds_total"),
        ("total", "", "gauge", "total"),
        ("cpu.utilization", "1", "gauge", "cpu_utilization_ratio"),
        ("hits", "1", "counter", "hits_total"),
        ("net.io", "By/s", "gauge", "net_io_bytes_per_second"),
        ("speed", "m/s", "gauge", "speed_meters_per_second"),
        ("calls", "{call}/s", "gauge", "calls_per_second"),
        ("paper", "paper/min", "gauge", "paper_per_min"),
        ("duration_seconds", "s", "", "duration_seconds"),
        ("a..b__c", "", "", "a_b_c"),
        ("4xx", "", "", "_4xx"),
        ("a:b", "", "", "a:b"),
        ("Überweisungen", "€", "counter", "berweisungen_total"),
        ("温度", "Cel", "gauge", ""),
        ("", "s", "", ""),
    ],
)
def test_a_metric_is_called_as_prometheus_has_it(name: str, unit: str, kind: str, expected: str) -> None:
    assert metric_name(name, unit, counter=kind == "counter", gauge=kind == "gauge") == expected


@pytest.mark.parametrize(
    ("unit", "expected"), [("s", "seconds"), ("1", ""), ("{x}", ""), ("KiBy/h", "kibibytes_per_hour"), ("/s", "per_second"), ("°", "")]
)  # fmt: skip
def test_a_unit_has_its_long_name(unit: str, expected: str) -> None:
    assert unit_name(unit) == expected


def test_labels_that_become_one_keep_both_values() -> None:
    assert labels_of([("a_b", "2"), ("a.b", "1"), ("c", ""), ("é", "x"), ("9", "y"), ("_p", "z")]) == {
        "a_b": "1;2",
        "key_9": "y",
        "key_p": "z",
    }
    assert label_name("__name__") == "key_name_"  # reserved names are Prometheus' own


def test_a_bound_is_a_canonical_number() -> None:
    assert [float_text(bound) for bound in (1, 0.005, 1e9, float("inf"), -float("inf"))] == [
        "1.0", "0.005", "1000000000.0", "+Inf", "-Inf",
    ]  # fmt: skip


@given(st.text(max_size=30), st.text(max_size=12), st.booleans(), st.booleans())
def test_whatever_the_name_it_is_one_or_none(name: str, unit: str, counter: bool, gauge: bool) -> None:
    assert re.fullmatch(r"([a-zA-Z_:][a-zA-Z0-9_:]*)?", metric_name(name, unit, counter=counter, gauge=gauge))
    assert re.fullmatch(r"([a-zA-Z][a-zA-Z0-9_]*)?", label_name(name))
