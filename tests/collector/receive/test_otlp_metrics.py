"""Metrics over OTLP: exemplars with a trace are events, alike from both encodings; everything else is counted and told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar

from collector.errors import Malformed
from collector.event import Event, Origin, Scope, decode_facts
from collector.extract import Extractor, StitchSettings
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive import Arrival, otlp_json
from collector.receive.otlp import OtlpReceiver
from collector.receive.otlp_events import JSON, PROTOBUF, Refused, Void
from collector.receive.otlp_export import OtlpExports
from collector.receive.otlp_metrics import KINDS, Points, events_of_metrics
from tests.support.memory_intake import MemoryIntake, normalised

NOW = "2023-11-14T22:13:20.000000000Z"
TRACE = "5b8efff798038103d269b633813fc60c"
SPAN = "eee19b7ec3c1b174"
Record = Arrival | Refused | Points | Void


def exemplar(**changes: Any) -> Exemplar:
    made = Exemplar(time_unix_nano=1, as_double=0.25, trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(SPAN))
    made.filtered_attributes.add(key="transaction.id").value.string_value = "pay-1"
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def request_of(kind: str, *exemplars: Exemplar, metric: str = "duration") -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add(schema_url="https://r")
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    scoped = group.scope_metrics.add()
    scoped.scope.name = "meter"
    point = getattr(scoped.metrics.add(name=metric, unit="s"), kind).data_points.add()
    point.attributes.add(key="route").value.string_value = "/pay"
    point.exemplars.extend(exemplars)
    return request


def as_json(request: ExportMetricsServiceRequest) -> bytes:
    """OTLP/JSON of it: protobuf's JSON mapping, but with hexadecimal ids."""
    plain = MessageToDict(request)
    for one in _exemplars_in(plain):
        for name in ("traceId", "spanId"):
            if name in one:
                one[name] = base64.b64decode(one[name]).hex()
    return json.dumps(plain).encode()


def _exemplars_in(plain: Any) -> Iterable[dict[str, Any]]:
    if isinstance(plain, dict):
        yield from plain.get("exemplars", ())
        for value in plain.values():
            yield from _exemplars_in(value)
    elif isinstance(plain, list):
        for value in plain:
            yield from _exemplars_in(value)


def both(request: ExportMetricsServiceRequest) -> list[Record]:
    """What the request becomes: the same from protobuf and from JSON."""
    from_protobuf = list(events_of_metrics(request, PROTOBUF, observed=NOW))
    from_json = list(events_of_metrics(otlp_json.read_metrics(as_json(request)), JSON, observed=NOW))
    assert [record for record in from_json if not isinstance(record, Refused)] == [
        record for record in from_protobuf if not isinstance(record, Refused)
    ]
    assert len(from_json) == len(from_protobuf)
    return from_protobuf


def arrivals(records: Iterable[Record]) -> list[Arrival]:
    return [record for record in records if isinstance(record, Arrival)]


# ------------------------------------------------------------------------------------------------------ data model
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "summary"])
def test_an_exemplar_with_a_trace_is_an_event_that_says_what_was_measured(kind: str) -> None:
    event, points = both(request_of(kind, exemplar()))
    assert points == Points(kind=kind, count=1, untraced=0)
    assert isinstance(event, Arrival)
    assert event.event == Event(
        time="1970-01-01T00:00:00.000000001Z",
        observed=NOW,
        event_name="metric.exemplar",
        body={"metric": "duration", "type": kind, "unit": "s", "value": 0.25},
        attributes={"route": "/pay", "transaction.id": "pay-1"},
        resource={"service.name": "shop", "otel.schema_url": "https://r"},
        scope=Scope(name="meter"),
        trace_id=TRACE,
        span_id=SPAN,
        origin=Origin(receiver="otlp"),
    )
    normalised(event.event)


def test_an_exemplar_is_evidence_of_its_trace_and_transaction() -> None:
    preparer = Preparer(
        extractor=Extractor(StitchSettings()), protector=Protector(token_key=b"t" * 32), clock=lambda: 1, max_event_bytes=2**20
    )  # fmt: skip
    prepared = preparer.prepare(arrivals(both(request_of("histogram", exemplar()))))
    facts = decode_facts(prepared.facts[0])
    assert (facts.trace_id, facts.span_id, facts.transaction) == (TRACE, SPAN, "pay-1")
    assert (facts.name, facts.service, facts.marks) == ("metric.exemplar", "shop", [])


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("as_int", -7, -7),
        ("as_int", 2**62, str(2**62)),
        ("as_double", float("nan"), "NaN"),
        ("as_double", float("-inf"), "-Infinity"),
        ("as_double", 1e300, 1e300),
    ],
)
def test_every_number_is_kept(name: str, value: float, stored: object) -> None:
    request = request_of("sum", exemplar(**{name: value}))
    for message, reading in ((request, PROTOBUF), (otlp_json.read_metrics(as_json(request)), JSON)):
        (arrival,) = arrivals(events_of_metrics(message, reading, observed=NOW))
        event, _ = normalised(arrival.event)
        assert event.body["value"] == stored
    nothing = exemplar()
    nothing.ClearField("as_double")
    assert arrivals(both(request_of("sum", nothing)))[0].event.body["value"] is None


def test_exemplars_without_a_trace_are_counted_and_those_with_a_bad_one_refused() -> None:
    request = request_of(
        "histogram",
        exemplar(trace_id=b""),
        exemplar(trace_id=b"\0" * 16),
        exemplar(trace_id=b"\1" * 8),  # padded where others send it; OTLP has no such ids
        exemplar(span_id=b"\1"),
        exemplar(span_id=b""),
    )
    refused, odd, spanless, points = both(request)
    assert isinstance(refused, Refused)
    assert refused.error.label == "bad_id"
    assert Exemplar.FromString(refused.raw).trace_id == b"\1" * 8
    assert isinstance(odd, Arrival)
    assert odd.event.span_id == "01"  # the intake marks it
    assert isinstance(spanless, Arrival)
    assert spanless.event.span_id == ""
    assert points == Points(kind="histogram", count=1, untraced=2)


def test_exemplars_of_one_point_take_turns() -> None:
    request = request_of("gauge", *[exemplar(trace_id=b"")] * 10_000)
    passed = [one for one in events_of_metrics(request, PROTOBUF, observed=NOW) if isinstance(one, Points)]
    assert (sum(one.count for one in passed), sum(one.untraced for one in passed)) == (1, 10_000)
    assert max(one.untraced for one in passed) == 1_000


def test_an_attribute_of_both_and_an_impossible_time_are_marked() -> None:
    twice = exemplar(time_unix_nano=2**64 - 1)
    twice.filtered_attributes.add(key="route").value.string_value = "/pay?n=1"
    event = arrivals(both(request_of("gauge", twice)))[0].event
    assert event.attributes["route"] == "/pay?n=1"
    assert event.marks == ["duplicate_attribute"]  # the year 2554 can be written
    body = json.loads(as_json(request_of("gauge", exemplar())))
    body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"][0]["exemplars"][0][
        "timeUnixNano"
    ] = str(10**30)
    (late,) = arrivals(events_of_metrics(otlp_json.read_metrics(json.dumps(body).encode()), JSON, observed=NOW))
    assert (late.event.time, late.event.marks) == ("", ["time_unusable"])


def test_the_source_id_is_of_what_the_exemplar_says_wherever_it_stands() -> None:
    def source(request: ExportMetricsServiceRequest) -> bytes | None:
        return arrivals(both(request))[-1].source_id

    first = source(request_of("sum", exemplar()))
    assert first is not None
    assert len(first) <= 64
    again = request_of("sum", exemplar(time_unix_nano=2), exemplar())  # collected again, beside a newer one
    again.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].as_int = 99
    assert source(again) == first
    others = [
        request_of("gauge", exemplar()),
        request_of("sum", exemplar(), metric="other"),
        request_of("sum", exemplar(time_unix_nano=2)),
        request_of("sum", exemplar(as_double=0.5)),
        request_of("sum", exemplar(as_int=0)),
        request_of("sum", exemplar(as_double=0.0)),
        request_of("sum", exemplar(span_id=b"\1" * 8)),
    ]
    elsewhere = request_of("sum", exemplar())
    elsewhere.resource_metrics[0].resource.attributes[0].value.string_value = "bank"
    assert len({source(request) for request in [*others, elsewhere]} | {first}) == len(others) + 2


def test_a_summary_has_points_and_no_exemplars() -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="old")
    for _ in range(2_500):
        metric.summary.data_points.add(count=1)
    assert [(p.kind, p.count) for p in both(request) if isinstance(p, Points)] == [
        ("summary", 1_000),
        ("summary", 1_000),
        ("summary", 500),
    ]


def test_the_specification_s_example_and_a_real_system_s_metrics(data_dir: Path) -> None:
    body = (data_dir / "otlp" / "otlp-proto-examples" / "metrics.json").read_bytes()
    records = list(events_of_metrics(otlp_json.read_metrics(body), JSON, observed=NOW))
    assert records == [Points(kind=kind, count=1, untraced=0) for kind in ("sum", "gauge", *KINDS[2:4])]
    with (data_dir / "otlp" / "hipstershop-otelmetrics.zst").open("rb") as file:
        data = zstandard.ZstdDecompressor().stream_reader(file).read()
    at = count = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        request = ExportMetricsServiceRequest.FromString(data[at + 4 : at + 4 + length])
        at += 4 + length
        for record in events_of_metrics(request, PROTOBUF, observed=NOW):
            assert isinstance(record, Points)
            count += record.count
    assert count == 66_816


# ------------------------------------------------------------------------------------------------------------ HTTP
def test_metrics_are_answered_with_what_is_kept_and_what_is_not(
    intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    passed: list[tuple[dict[str, int], int, int]] = []
    exports = OtlpExports(
        intake, clock=lambda: 1_700_000_000_000_000_000, passed=lambda points, *counts: passed.append((dict(points), *counts))
    )  # fmt: skip

    async def story(client: httpx.AsyncClient) -> None:
        request = request_of("histogram", exemplar(), exemplar(trace_id=b""), exemplar(trace_id=b"\1"))
        request.resource_metrics[0].scope_metrics[0].metrics.add(name="up").gauge.data_points.add(as_int=1)
        body = request.SerializeToString()
        headers = {"content-type": "application/x-protobuf"}
        for _ in range(2):
            answer = await client.post("/v1/metrics", content=body, headers=headers)
            assert answer.status_code == 200
            partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
            assert partial.rejected_data_points == 2
            assert "2 data points are not kept" in partial.error_message
            assert "1 here" in partial.error_message
            assert "trace id is not 16 bytes" in partial.error_message
        answer = await client.post(
            "/v1/metrics", content=as_json(request), headers={"content-type": "application/json"}
        )
        assert answer.json()["partialSuccess"]["rejectedDataPoints"] == "2"
        assert [event.body["value"] for event in intake.events] == [0.25]  # recognised, whole and by itself
        assert passed == [({"histogram": 1, "gauge": 1}, 1, 1)] * 3
        answer = await client.post("/v1/metrics", content=b"", headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
        intake.overloaded = 1
        again = request_of("sum", exemplar()).SerializeToString()
        answer = await client.post("/v1/metrics", content=again, headers=headers)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert len(passed) == 4  # what comes again is counted then
        answer = await client.post("/v1/metrics", content=b"\xff", headers=headers)
        assert answer.status_code == 400

    serve(OtlpReceiver(exports).routes, story)


def test_the_python_sdk_s_exemplars_are_in_the_trace_of_their_span(
    intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    async def story(client: httpx.AsyncClient) -> None:
        def send() -> str:
            resource = Resource({"service.name": "shop"})
            reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{client.base_url}/v1/metrics"))
            meters, spans = MeterProvider([reader], resource=resource), TracerProvider(resource=resource)
            histogram = meters.get_meter("m").create_histogram("pay.duration", unit="s")
            with spans.get_tracer("t").start_as_current_span("pay") as span:
                histogram.record(0.25, {"currency": "EUR"})
            meters.shutdown()
            spans.shutdown()
            return format(span.get_span_context().trace_id, "032x")

        trace_id = await asyncio.to_thread(send)
        (event,) = intake.events
        assert (event.trace_id, event.service, event.attributes) == (trace_id, "shop", {"currency": "EUR"})
        assert event.body == {"metric": "pay.duration", "type": "histogram", "unit": "s", "value": 0.25}

    serve(OtlpReceiver(OtlpExports(intake, clock=lambda: 1)).routes, story)


# ---------------------------------------------------------------------------------------------------------- fuzzing
def through(records: Iterable[Record]) -> None:
    for record in records:
        if isinstance(record, Arrival):
            assert len(record.source_id or b"") == 41


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_bytes_are_records_or_malformed(body: bytes, inner: bytes) -> None:
    nested = inner
    for field in (5, 1, 7, 2, 2, 1):  # exemplars of a data point of a sum of a metric …
        nested = bytes([field << 3 | 2]) + len(nested).to_bytes(1) + nested
    for content in (body, nested):
        try:
            through(events_of_metrics(ExportMetricsServiceRequest.FromString(content), PROTOBUF, observed=NOW))
        except DecodeError:
            pass
        try:
            through(events_of_metrics(otlp_json.read_metrics(content), JSON, observed=NOW))
        except Malformed:
            pass


names = st.sampled_from(
    "name unit gauge sum histogram exponentialHistogram summary dataPoints exemplars attributes filteredAttributes key value asInt "
    "asDouble traceId spanId timeUnixNano stringValue bytesValue kvlistValue values".split()
)
tree = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(TRACE) | st.just(SPAN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=15,
)


@given(st.lists(st.dictionaries(names, tree, max_size=6), max_size=3), st.sampled_from(["gauge", "sum", "histogram"]))
def test_any_json_is_records_or_malformed(exemplars: list[Any], kind: str) -> None:
    metrics = [{"name": "m", kind: {"dataPoints": [{"exemplars": exemplars}]}}, *exemplars]
    body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()
    try:
        through(events_of_metrics(otlp_json.read_metrics(body), JSON, observed=NOW))
    except Malformed:
        pass
