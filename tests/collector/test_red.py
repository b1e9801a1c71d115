"""Rate, errors and duration: what is read from spans and access logs, the bounds on labels, and that only what was stored counts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from collector.event import Event, Span
from collector.extract import Extractor, StitchSettings
from collector.mapping.language import load_mappings
from collector.mapping.mapper import Mapper
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive import Arrival
from collector.red import Request, RequestMetrics, request_of

TRACE = "ab" * 16
START, END = "2026-01-01T10:00:00.000000000Z", "2026-01-01T10:00:00.250000000Z"


def span(
    name: str = "pay",
    *,
    kind: str = "SERVER",
    status: str = "",
    end: str = END,
    service: str = "shop",
    outcome: str = "",
    **attributes: Any,
) -> Event:
    return Event(
        time=START,
        attributes={name.replace("__", "."): value for name, value in attributes.items()},
        resource={"service.name": service},
        trace_id=TRACE,
        outcome=outcome,
        span=Span(name=name, kind=kind, status=status, end=end),
    )


def read(event: Event) -> Request:
    request = request_of(event)
    assert request is not None
    return request


def test_a_server_span_is_a_request() -> None:
    assert read(span()) == Request("shop", "pay", "server", "success", 0.25, TRACE)
    assert read(span(kind="CONSUMER")).kind == "consumer"
    for kind in ("CLIENT", "PRODUCER", "INTERNAL", ""):
        assert request_of(span(kind=kind)) is None
    assert request_of(Event(body="a log line", attributes={"http.response.status_code": 500})) is None


@pytest.mark.parametrize(
    ("name", "attributes", "operation"),
    [
        ("pay", {}, "pay"),
        ("shop.Cart/Add", {}, "shop.Cart/Add"),
        ("GET /orders/{id}", {"http__route": "/orders/{id}", "http__request__method": "GET"}, "GET /orders/{id}"),
        ("GET", {"http__route": "GET /orders/{id}", "http__request__method": "GET"}, "GET /orders/{id}"),
        ("GET", {"http__route": "/orders/{id}"}, "/orders/{id}"),
        ("GET /orders/4711", {}, "GET"),
        ("/orders/4711", {"http__method": "POST"}, "POST"),
        ("/orders/4711", {}, "unknown"),
        ("https://shop.example/orders/4711", {}, "unknown"),
        ("/orders/4711", {"http__method": "an invented one 4711"}, "unknown"),
        ("", {}, "unknown"),
        ("a\nb\x00c" + "d" * 1_000, {}, "a b c" + "d" * 123),
    ],
)
def test_an_operation_is_a_route_or_a_name_and_never_a_path(
    name: str, attributes: dict[str, Any], operation: str
) -> None:
    assert read(span(name, **attributes)).operation == operation


def test_errors_are_the_services_own_or_its_clients() -> None:
    assert read(span(status="ERROR", http__response__status_code=404)).outcome == "failure"
    assert read(span(http__response__status_code=404)).outcome == "client_error"
    assert read(span(http__status_code=503)).outcome == "failure"
    assert read(span(http__response__status_code=302)).outcome == "success"
    assert read(span(outcome="failure")).outcome == "failure"


def test_a_duration_that_cannot_be_is_none() -> None:
    assert read(span(end="")).seconds is None
    assert read(span(end="2026-01-01T09:59:59.000000000Z")).seconds is None
    assert read(span(end=START)).seconds == 0.0


def test_a_gateways_access_log_is_a_request() -> None:
    record = {
        "request_method": "GET",
        "request_uri": "/orders/4711?x=1",
        "status": "404",
        "request_time": "0.125",
        "http_traceparent": f"00-{TRACE}-{'cd' * 8}-01",
    }
    mapped = Mapper(load_mappings(["preset:nginx"])).map(Arrival(event=Event(attributes=record)))
    made = prepared([mapped.event], requests=True)
    assert made == {0: Request("unknown", "GET", "gateway", "client_error", 0.125, TRACE)}
    for odd in (True, "0.1", -1.0, float("nan"), float("inf"), None):
        event = Event(event_name="http.server.request", attributes={"http.server.request.duration": odd})
        assert read(event).seconds is None


def shown(registry: CollectorRegistry) -> dict[str, Any]:
    """The families by name, as OpenMetrics' text says them."""
    encode: Any = openmetrics
    parse: Any = text_string_to_metric_families
    return {one.name: one for one in parse(encode(registry).decode())}


@given(
    st.builds(
        Event,
        time=st.text(max_size=40),
        event_name=st.sampled_from(["http.server.request", ""]),
        attributes=st.dictionaries(
            st.sampled_from(
                ["http.route", "http.request.method", "http.response.status_code", "http.server.request.duration"]
            ),
            st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.text())),
        ),
        resource=st.dictionaries(st.just("service.name"), st.one_of(st.text(), st.integers())),
        trace_id=st.text(max_size=40),
        span=st.one_of(
            st.none(), st.builds(Span, name=st.text(), kind=st.sampled_from(["SERVER", "CONSUMER"]), end=st.text())
        ),
    )
)
def test_whatever_an_event_holds_it_can_be_counted_and_shown(event: Event) -> None:
    request = request_of(event)
    if request is None:
        return
    registry = CollectorRegistry()
    RequestMetrics(registry, services=1, operations=1).count(request)
    families = shown(registry)
    counts = [one for one in families["tally_service_requests"].samples if one.name.endswith("_total")]
    assert {(one.labels["service"], one.labels["operation"]) for one in counts} == {
        (request.service, request.operation)
    }
    assert {one.labels["outcome"]: one.value for one in counts} == {"failure": 0, request.outcome: 1}


def samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_a_hundred_thousand_names_are_a_bounded_number_of_series() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, services=3, operations=4)
    for at in range(100_000):
        metrics.count(Request(f"s{at % 5}", f"o{at}", "server", "success", 0.1, TRACE))
    counted = samples(registry, "tally_service_requests_total")
    assert len(counted) == 2 * (3 * (4 + 1) + 1), "each with its failures, of which there are none"
    assert sum(counted.values()) == 100_000
    assert counted["other", "other", "server", "success"] == 40_000
    assert samples(registry, "tally_service_folded_requests_total") == {
        ("service",): 40_000,
        ("operation",): 60_000 - 12,
    }
    assert sum(samples(registry, "tally_service_request_duration_seconds_count").values()) == 100_000


def test_failures_begin_at_nothing_so_that_the_first_of_them_are_a_rise() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, services=3, operations=4)
    pay = Request("payments", "POST /payments", "server", "success", 0.1, TRACE)
    metrics.count(pay)
    metrics.count(pay)
    assert samples(registry, "tally_service_requests_total") == {
        ("payments", "POST /payments", "server", "success"): 2,
        ("payments", "POST /payments", "server", "failure"): 0,
    }
    metrics.count(pay._replace(outcome="failure"))
    assert samples(registry, "tally_service_requests_total")["payments", "POST /payments", "server", "failure"] == 1


def test_exemplars_lead_to_the_trace_and_are_in_openmetrics_alone() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, services=3, operations=4)
    metrics.count(read(span()))
    metrics.count(read(Event(event_name="http.server.request", trace_id="no trace id")))
    families = shown(registry)
    buckets = families["tally_service_request_duration_seconds"].samples
    (exemplar,) = [one.exemplar for one in buckets if one.exemplar]
    assert (exemplar.labels, exemplar.value) == ({"trace_id": TRACE}, 0.25)


def preparer(*, requests: bool) -> Preparer:
    return Preparer(
        extractor=Extractor(StitchSettings()),
        protector=Protector(token_key=b"t" * 32),
        clock=lambda: 1_700_000_000 * 10**9,
        requests=requests,
    )


def prepared(events: Sequence[Event], *, requests: bool) -> dict[int, Request]:
    return preparer(requests=requests).prepare([Arrival(event=event) for event in events]).requests


def test_requests_stand_beside_their_events_and_are_masked_like_them() -> None:
    events = [Event(body="log"), span("charge 4111 1111 1111 1111"), Event(body={1: 1, "1": 1}), span("b")]
    found = prepared(events, requests=True)
    assert list(found) == [1, 2]  # the third is refused
    assert "4111 1111" not in found[1].operation
    assert prepared(events, requests=False) == {}


def test_a_log_that_is_no_request_costs_a_dozen_instructions() -> None:
    """Counted, not timed: the interpreter's instructions with and without looking for requests."""
    arrivals = [Arrival(event=Event(body=f"line {at}", attributes={"n": at})) for at in range(100)]
    counts = {requests: instructions(preparer(requests=requests), arrivals) for requests in (False, True)}
    assert 0 < counts[True] - counts[False] <= 100 * 16
    assert (counts[True] - counts[False]) / counts[False] < 0.02


def instructions(preparer: Preparer, arrivals: Sequence[Arrival]) -> int:
    preparer.prepare(arrivals)  # what is remembered of a shape is remembered now
    count = 0

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += what == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        preparer.prepare(arrivals)
    finally:
        sys.settrace(before)
    return count
