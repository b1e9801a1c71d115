"""OTLP/HTTP: the data model in both encodings, the protocol's answers, real requests and the real SDK."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from collector.errors import Malformed, TooLarge
from collector.event import Event, Scope, Span
from collector.receive import Arrival, otlp_json
from collector.receive.body import BodyLimits
from collector.receive.otlp import OtlpReceiver
from collector.receive.otlp_events import JSON, PROTOBUF, Refused, Void, events_of_logs, events_of_traces
from collector.receive.otlp_export import LOGS, METRICS, TRACES, OtlpExports, Signal, Taken
from collector.receive.record import span_uid
from collector.receive.room import Room
from collector.receive.turns import LoopTime, Turns
from tests.support.memory_intake import MemoryIntake, normalised

PB = {"content-type": "application/x-protobuf"}
JS = {"content-type": "application/json"}
NOW = "2023-11-14T22:13:20.000000000Z"
TRACE = "5b8efff798038103d269b633813fc60c"
SPAN = "eee19b7ec3c1b174"


def receiver(intake: MemoryIntake, **options: Any) -> OtlpReceiver:
    return OtlpReceiver(OtlpExports(intake, clock=lambda: 1_700_000_000_000_000_000), **options)


def logs_json(*records: dict[str, Any]) -> bytes:
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": list(records)}]}]}).encode()


def spans_json(*spans: dict[str, Any]) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}).encode()


def logs(body: bytes) -> list[Arrival | Refused | Void]:
    return list(events_of_logs(otlp_json.read_logs(body), JSON, observed=NOW))


def traces(body: bytes) -> list[Arrival | Refused | Void]:
    return list(events_of_traces(otlp_json.read_traces(body), JSON, observed=NOW))


def only(records: list[Arrival | Refused | Void]) -> Arrival:
    (record,) = records
    assert isinstance(record, Arrival)
    return record


# ------------------------------------------------------------------------------------------------------ data model
def test_the_specification_s_examples(data_dir: Path) -> None:
    examples = data_dir / "otlp" / "otlp-proto-examples"
    event = only(logs((examples / "logs.json").read_bytes())).event
    assert event.time == event.observed == "2018-12-13T14:51:00.300000000Z"
    assert (event.severity_number, event.severity_text, event.body) == (10, "Information", "Example log record")
    assert (event.trace_id, event.span_id) == (TRACE, SPAN)
    assert event.resource == {"service.name": "my.service"}
    assert event.scope == Scope(
        name="my.library", version="1.0.0", attributes={"my.scope.attribute": "some scope attribute"}
    )
    assert event.attributes == {
        "string.attribute": "some string",
        "boolean.attribute": True,
        "int.attribute": 10,
        "double.attribute": 637.704,
        "array.attribute": ["many", "values"],
        "map.attribute": {"some.map.key": "some value"},
    }
    named = [record.event for record in logs((examples / "events.json").read_bytes()) if isinstance(record, Arrival)]
    assert named
    assert all(event.event_name for event in named)
    arrival = only(traces((examples / "trace.json").read_bytes()))
    assert arrival.source_id == span_uid(TRACE, SPAN, kind="SERVER", time=arrival.event.time)
    assert arrival.event.span == Span(
        name="I'm a server span",
        parent_span_id="eee19b7ec3c1b173",
        kind="SERVER",
        end="2018-12-13T14:51:01.000000000Z",
    )
    assert arrival.event.observed == NOW


def test_a_server_that_shares_the_ids_of_its_client_is_a_span_of_its_own() -> None:
    def span(kind: int, start_ns: int) -> bytes:
        return spans_json({"traceId": TRACE, "spanId": SPAN, "kind": kind, "startTimeUnixNano": str(start_ns)})

    # the client, the server that it called, and the one that was asked when that did not answer
    halves = [span(3, 10**18), span(2, 10**18 + 1), span(2, 10**18 + 2)]
    ids = [only(traces(half)).source_id for half in halves]
    assert len(set(ids)) == 3
    assert ids == [only(traces(half)).source_id for half in halves]
    assert ids[0] == b"span\0" + bytes.fromhex(TRACE + SPAN)


def all_spans(data_dir: Path) -> ExportTraceServiceRequest:
    with (data_dir / "otlp" / "hipstershop-oteltraces.zst").open("rb") as file:
        data = zstandard.ZstdDecompressor().stream_reader(file).read()
    length = int.from_bytes(data[:4])
    assert len(data) == length + 4
    return ExportTraceServiceRequest.FromString(data[4:])


def test_every_span_of_a_real_system_is_an_event_and_the_json_of_it_is_the_same_event(data_dir: Path) -> None:
    request = all_spans(data_dir)
    records = list(events_of_traces(request, PROTOBUF, observed=NOW))
    assert len(records) == 86_583
    events = [record.event for record in records if isinstance(record, Arrival)]
    assert len(events) == 86_583
    assert len({record.source_id for record in records if isinstance(record, Arrival)}) == 86_583
    assert len({event.trace_id for event in events}) == 9_047
    assert len({event.service for event in events}) == 10
    assert sum(event.span is not None and event.span.status == "ERROR" for event in events) == 667
    for event in events[::1000]:
        normalised(event)
    from_json = traces((data_dir / "otlp" / "hipstershop_sample.otlp.json").read_bytes())
    assert from_json
    assert from_json == records[: len(from_json)]


VALUES: list[tuple[dict[str, Any], AnyValue, Any]] = [
    ({"stringValue": "é\u0000"}, AnyValue(string_value="é\u0000"), "é\u0000"),
    ({"stringValue": ""}, AnyValue(string_value=""), ""),
    ({"boolValue": False}, AnyValue(bool_value=False), False),
    ({"intValue": "-9223372036854775808"}, AnyValue(int_value=-(2**63)), str(-(2**63))),
    ({"intValue": 7}, AnyValue(int_value=7), 7),
    ({"doubleValue": 0.5}, AnyValue(double_value=0.5), 0.5),
    ({"doubleValue": "NaN"}, AnyValue(double_value=float("nan")), "NaN"),
    ({"doubleValue": "-Infinity"}, AnyValue(double_value=float("-inf")), "-Infinity"),
    (
        {"bytesValue": base64.b64encode(b"\xff\xfe\xfd").decode()},
        AnyValue(bytes_value=b"\xff\xfe\xfd"),
        base64.b64encode(b"\xff\xfe\xfd").decode(),
    ),
    ({"bytesValue": "__79"}, AnyValue(bytes_value=b"\xff\xfe\xfd"), "//79"),
    (
        {"arrayValue": {"values": [{"intValue": "1"}, {}, {"kvlistValue": {"values": []}}]}},
        AnyValue(
            array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue(), AnyValue(kvlist_value=KeyValueList())])
        ),
        [1, None, {}],
    ),
    (
        {"kvlistValue": {"values": [{"key": "a", "value": {"stringValue": "b"}}, {"key": "c"}]}},
        AnyValue(
            kvlist_value=KeyValueList(
                values=[KeyValue(key="a", value=AnyValue(string_value="b")), KeyValue(key="c", value=AnyValue())]
            )
        ),
        {"a": "b", "c": None},
    ),
    ({}, AnyValue(), None),
]


@pytest.mark.parametrize(("as_json", "as_protobuf", "stored"), VALUES)
def test_every_kind_of_value_in_both_encodings(as_json: dict[str, Any], as_protobuf: AnyValue, stored: Any) -> None:
    from_json = only(logs(logs_json({"body": as_json, "attributes": [{"key": "k", "value": as_json}]})))
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.body.CopyFrom(as_protobuf)
    record.attributes.add(key="k", value=as_protobuf)
    (from_protobuf,) = events_of_logs(
        ExportLogsServiceRequest.FromString(request.SerializeToString()), PROTOBUF, observed=NOW
    )
    assert isinstance(from_protobuf, Arrival)
    for arrival in (from_json, from_protobuf):
        event, _ = normalised(arrival.event)
        assert event.body == stored
        assert event.attributes == {"k": stored}


def test_a_whole_span_in_both_encodings() -> None:
    attribute = {"key": "a", "value": {"intValue": "1"}}
    body = {
        "resourceSpans": [
            {
                "resource": {"attributes": [attribute], "droppedAttributesCount": 1},
                "schemaUrl": "https://r",
                "scopeSpans": [
                    {
                        "scope": {"name": "s", "version": "1", "attributes": [attribute], "droppedAttributesCount": 2},
                        "schemaUrl": "https://s",
                        "spans": [
                            {
                                "traceId": TRACE.upper(),
                                "spanId": SPAN,
                                "parentSpanId": SPAN[::-1],
                                "traceState": "k=v",
                                "flags": 257,
                                "name": "n",
                                "kind": 3,
                                "startTimeUnixNano": "1",
                                "endTimeUnixNano": 2,
                                "attributes": [attribute],
                                "droppedAttributesCount": 3,
                                "droppedEventsCount": 4,
                                "droppedLinksCount": 5,
                                "events": [
                                    {"timeUnixNano": "2", "name": "e", "attributes": [attribute], "droppedAttributesCount": 6}
                                ],
                                "links": [
                                    {"traceId": TRACE, "spanId": SPAN, "traceState": "x=y", "attributes": [attribute],
                                     "droppedAttributesCount": 7, "flags": 1}
                                ],
                                "status": {"code": 2, "message": "bad"},
                                "fieldOfTheFuture": [1],
                            }
                        ],
                    }
                ],
            }
        ]
    }  # fmt: skip
    event = only(traces(json.dumps(body).encode())).event
    assert event == Event(
        time="1970-01-01T00:00:00.000000001Z",
        observed=NOW,
        attributes={
            "a": 1,
            "otel.dropped_attributes_count": 3,
            "otel.dropped_events_count": 4,
            "otel.dropped_links_count": 5,
        },
        resource={"a": 1, "otel.schema_url": "https://r", "otel.dropped_attributes_count": 1},
        scope=Scope(
            name="s",
            version="1",
            attributes={"a": 1, "otel.schema_url": "https://s", "otel.dropped_attributes_count": 2},
        ),
        trace_id=TRACE,
        span_id=SPAN,
        trace_flags=257,
        span=Span(
            name="n",
            parent_span_id=SPAN[::-1],
            kind="CLIENT",
            end="1970-01-01T00:00:00.000000002Z",
            status="ERROR",
            status_message="bad",
            trace_state="k=v",
            events=[
                {
                    "time": "1970-01-01T00:00:00.000000002Z",
                    "name": "e",
                    "attributes": {"a": 1, "otel.dropped_attributes_count": 6},
                }
            ],
            links=[
                {
                    "trace_id": TRACE,
                    "span_id": SPAN,
                    "trace_state": "x=y",
                    "attributes": {"a": 1, "otel.dropped_attributes_count": 7},
                    "flags": 1,
                }
            ],
        ),
        origin=event.origin,
    )
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add(schema_url="https://r")
    group.resource.dropped_attributes_count = 1
    scoped = group.scope_spans.add(schema_url="https://s")
    scoped.scope.name, scoped.scope.version, scoped.scope.dropped_attributes_count = "s", "1", 2
    span = scoped.spans.add(
        trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(SPAN), parent_span_id=bytes.fromhex(SPAN[::-1]),
        trace_state="k=v", flags=257, name="n", kind=3, start_time_unix_nano=1, end_time_unix_nano=2,
        dropped_attributes_count=3, dropped_events_count=4, dropped_links_count=5,
    )  # fmt: skip
    happened = span.events.add(time_unix_nano=2, name="e", dropped_attributes_count=6)
    link = span.links.add(
        trace_id=bytes.fromhex(TRACE),
        span_id=bytes.fromhex(SPAN),
        trace_state="x=y",
        dropped_attributes_count=7,
        flags=1,
    )
    span.status.MergeFromString(b"\x12\x03bad\x18\x02")  # message = 2, code = 3
    for owner in (group.resource, scoped.scope, span, happened, link):
        owner.attributes.add(key="a").value.int_value = 1
    assert only(list(events_of_traces(request, PROTOBUF, observed=NOW))).event == event


def test_null_is_as_good_as_absent() -> None:
    body = b'{"resourceSpans":[{"resource":null,"scopeSpans":[{"scope":null,"spans":[{"traceId":"%b","spanId":"%b","events":null,"links":null,"attributes":null,"status":null}]}]}]}'
    assert only(traces(body % (TRACE.encode(), SPAN.encode()))).event.trace_id == TRACE


@pytest.mark.parametrize("signal", [LOGS, TRACES])
def test_a_text_cut_within_a_character_and_a_null_harm_no_record(signal: Signal) -> None:
    cut = json.dumps({"stringValue": "cut \ud83d"})  # as JSON.stringify writes it
    if signal is LOGS:
        body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityText":null,"body":%b},{"body":%b}]}]}]}'
        body %= (cut.encode(), b'{"stringValue":"good"}')
    else:
        span = b'{"traceId":"%b","spanId":"%%b","traceState":null,"attributes":[{"key":"a","value":%b}]}'
        span %= (TRACE.encode(), cut.encode())
        body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[%b,%b,%b]}]}]}'
        body %= (span % SPAN.encode(), span % SPAN[::-1].encode(), span % b"none")
    intake = MemoryIntake()
    taken = asyncio.run(OtlpExports(intake, clock=lambda: 1_700_000_000_000_000_000).take(body, signal, json=True))
    texts = [event.body or event.attributes["a"] for event in intake.events]
    if signal is LOGS:
        assert (texts, taken.rejected) == (["cut \ufffd", "good"], 0)
    else:
        assert (texts, taken.rejected) == (["cut \ufffd", "cut \ufffd"], 1)
        assert b"cut \\ud800" in intake.dead[0][0]


@pytest.mark.parametrize(
    ("trace_id", "span_id"),
    [("", SPAN), (TRACE, ""), ("0" * 32, SPAN), (TRACE, "0" * 16), (TRACE[:-2], SPAN), (TRACE, SPAN + "00"),
     (SPAN, SPAN), ("W46A95gDgQPSabYzgT/GDA==", SPAN)],
)  # fmt: skip
def test_a_span_without_its_ids_is_refused_with_its_bytes(trace_id: str, span_id: str) -> None:
    (record,) = traces(spans_json({"traceId": trace_id, "spanId": span_id, "name": "lost"}))
    assert isinstance(record, Refused)
    assert record.error.label == "bad_id"
    assert b"lost" in record.raw
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\0" * 16, span_id=b"\1" * 8, name="lost")
    (record,) = events_of_traces(request, PROTOBUF, observed=NOW)
    assert isinstance(record, Refused)
    assert b"lost" in record.raw


@pytest.mark.parametrize("text", ["+/8=", "-_8=", "-_8", "+/8"])
def test_base64_is_taken_in_either_alphabet_and_without_padding(text: str) -> None:
    """https://protobuf.dev/programming-guides/json/, "bytes"."""
    resource = {"attributes": [{"key": "r", "value": {"bytesValue": text}}]}
    body = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [{"body": {"bytesValue": text}}]}]}]}
    event = only(logs(json.dumps(body).encode())).event
    assert event.body == event.resource["r"] == b"\xfb\xff"


@pytest.mark.parametrize("text", ["é", "a", "🙂", "=", "!!!!"])
def test_bytes_that_are_no_base64_refuse_their_record_alone(text: str) -> None:
    bad, good = logs(logs_json({"body": {"bytesValue": text}}, {"body": {"stringValue": "good"}}))
    assert isinstance(bad, Refused)
    assert bad.error.label == "bad_otlp"
    assert isinstance(good, Arrival)


def test_a_log_record_with_bad_ids_is_kept() -> None:
    event = only(logs(logs_json({"traceId": "abc", "spanId": "0000000000000000", "severityNumber": 99}))).event
    assert (event.trace_id, event.span_id, event.severity_number) == ("abc", "", 0)  # the intake marks the first


def test_what_we_say_beside_the_attributes_takes_the_place_of_none() -> None:
    own = [{"key": name, "value": {"intValue": 7}} for name in ("otel.dropped_attributes_count", "parent_span_id")]
    span = {"traceId": TRACE, "spanId": SPAN, "parentSpanId": "ab", "attributes": own, "droppedAttributesCount": 2}
    assert only(traces(spans_json(span))).event.attributes == {
        "otel.dropped_attributes_count": 2,
        "otel.dropped_attributes_count.stated": 7,
        "parent_span_id": "ab",
        "parent_span_id.stated": 7,
    }
    event = only(logs(logs_json({"attributes": own, "droppedAttributesCount": 7}))).event
    assert event.attributes == {"otel.dropped_attributes_count": 7, "parent_span_id": 7}


def test_a_repeated_attribute_a_bad_parent_and_an_impossible_time_are_marked() -> None:
    pair = [{"key": "a", "value": {"intValue": 1}}, {"key": "a", "value": {"intValue": 2}}]
    span = {"traceId": TRACE, "spanId": SPAN, "parentSpanId": "12", "attributes": pair, "startTimeUnixNano": 10**30}
    event = only(traces(spans_json(span))).event
    assert event.attributes == {"a": 2, "parent_span_id": "12", "time.stated": str(10**30)}
    assert sorted(event.marks) == ["duplicate_attribute", "parent_span_id_unusable", "time_unusable"]


def test_a_repeated_attribute_of_resource_or_scope_marks_what_is_in_it() -> None:
    pair = [{"key": "a", "value": {"intValue": 1}}, {"key": "a", "value": {"intValue": 2}}]
    record = {"logRecords": [{"attributes": pair}]}
    for resource, scopes, marked in (
        ({"attributes": pair}, [{"logRecords": [{}]}, record], [True, True]),
        ({}, [{"scope": {"attributes": pair}, "logRecords": [{}]}, {"logRecords": [{}]}], [True, False]),
    ):
        found = logs(json.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": scopes}]}).encode())
        events = [one.event for one in found if isinstance(one, Arrival)]
        assert [event.marks for event in events] == [["duplicate_attribute"] * one for one in marked]
    spans = [{"traceId": TRACE, "spanId": SPAN}]
    for request in (
        [{"resource": {"attributes": pair}, "scopeSpans": [{"spans": spans}]}],
        [{"scopeSpans": [{"scope": {"attributes": pair}, "spans": spans}]}],
    ):
        assert only(traces(json.dumps({"resourceSpans": request}).encode())).event.marks == ["duplicate_attribute"]


# ---------------------------------------------------------------------------------------------------- the protocol
def spans_protobuf(*ids: int) -> bytes:
    request = ExportTraceServiceRequest()
    scoped = request.resource_spans.add().scope_spans.add()
    for number in ids:
        scoped.spans.add(trace_id=number.to_bytes(16), span_id=(number + 1).to_bytes(8), name=f"s{number}")
    return request.SerializeToString()


def test_success_repetition_and_overlap(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        for body in (spans_protobuf(1, 2), spans_protobuf(1, 2), spans_protobuf(2, 3)):
            answer = await client.post("/v1/traces", content=body, headers=PB)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/x-protobuf"
            assert not ExportTraceServiceResponse.FromString(answer.content).HasField("partial_success")
        assert [event.name for event in intake.events] == ["s1", "s2", "s3"]

    serve(receiver(intake).routes, story)


def test_the_same_log_request_twice_is_stored_once(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        body = logs_json({"body": {"stringValue": "once"}, "timeUnixNano": "1"})
        for encoding, content in (("identity", body), ("gzip", gzip.compress(body)), ("identity", body)):
            answer = await client.post("/v1/logs", content=content, headers={**JS, "content-encoding": encoding})
            assert (answer.status_code, answer.json()) == (200, {})
        assert [event.body for event in intake.events] == ["once"]

    serve(receiver(intake).routes, story)


def _delimited(field: int, content: bytes) -> bytes:
    length, out = len(content), bytearray([field << 3 | 2])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes(out) + bytes([length]) + content


@pytest.mark.parametrize("signal", [LOGS, TRACES, METRICS])
def test_what_holds_nothing_takes_turns_and_has_a_bound(intake: MemoryIntake, signal: Signal) -> None:
    waited = 0

    def waits() -> None:
        nonlocal waited
        waited += 1

    async def take(body: bytes) -> int:
        nonlocal waited
        waited = 0
        exports = OtlpExports(intake, clock=lambda: 1, turns=Turns(LoopTime(turn_seconds=0.0), waits))
        assert await exports.take(body, signal, json=False) == Taken()
        return waited

    async def story() -> None:
        empty = b"\x0a\x00", _delimited(1, b"\x12\x00" * 10_000), _delimited(1, _delimited(2, b"\x12\x00" * 10_000))
        resources, scopes, metrics = empty[0] * 10_000, *empty[1:]
        assert await take(b"") == 0
        for body in (resources, scopes, *([metrics] if signal is METRICS else [])):
            assert await take(body) >= 10
            assert not intake.dead
            with pytest.raises(Malformed, match="hold nothing"):
                await take(body * 11)
            assert intake.dead.pop()[0] == body * 11

    asyncio.run(story())


def test_a_refused_span_that_comes_again_is_no_second_letter(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        for body in (spans_protobuf(0, 1, 0), spans_protobuf(0, 1, 0), spans_protobuf(0)):
            answer = await client.post("/v1/traces", content=body, headers=PB)
            partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
            assert partial.rejected_spans >= 1
        assert len(intake.dead) == 3

    serve(receiver(intake).routes, story)


def test_partial_success_counts_and_says_why(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/traces", content=spans_protobuf(1, 0, 2), headers=PB)
        assert answer.status_code == 200
        partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
        assert (partial.rejected_spans, partial.error_message) == (
            1,
            "a span whose trace id is not 16 bytes, or zero",
        )
        deep: dict[str, Any] = {"stringValue": "x"}
        for _ in range(70):  # deeper than an event may be, so the intake refuses it
            deep = {"arrayValue": {"values": [deep]}}
        answer = await client.post(
            "/v1/logs", content=logs_json({"body": deep}, {"body": {"stringValue": "ok"}}), headers=JS
        )
        assert answer.json()["partialSuccess"]["rejectedLogRecords"] == "1"
        assert "dead letters" in answer.json()["partialSuccess"]["errorMessage"]
        assert [error.label for _, error, _ in intake.dead] == ["bad_id", "too_deep"]
        assert [event.name or event.body for event in intake.events] == ["s1", "s2", "ok"]

    serve(receiver(intake).routes, story)


@pytest.mark.parametrize(
    ("path", "name"),
    [("logs", "resource_logs"), ("traces", "resource_spans"), ("metrics", "resource_metrics")],
)
def test_names_as_protobuf_has_them_are_ignored_in_json_and_both_sides_hear_it(
    path: str, name: str, intake: MemoryIntake, serve: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            answer = await client.post(f"/v1/{path}", content=json.dumps({name: [{"scope": {}}]}), headers=JS)
            assert (answer.status_code, list(answer.json())) == (200, ["partialSuccess"])
            assert list(answer.json()["partialSuccess"]) == ["errorMessage"]  # none is counted as rejected
            assert answer.json()["partialSuccess"]["errorMessage"].startswith(f"{name} is no field of OTLP/JSON")
        for empty in ("{}", f'{{"{name}": null}}', f'{{"{name}": []}}', '{"unknown": [1, 2, 3]}'):
            answer = await client.post(f"/v1/{path}", content=empty, headers=JS)
            assert answer.json() == {}
        assert not intake.dead

    serve(receiver(intake).routes, story)
    assert [name in one.getMessage() for one in caplog.records if one.name == "collector.receive.otlp_export"] == [True]


def test_what_cannot_be_decoded_is_told_as_a_status_and_is_in_the_dead_letters(
    intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    reasons: list[str] = []

    async def story(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/logs", content=b"\xff\xff", headers=PB)
        assert answer.status_code == 400
        status = Status.FromString(answer.content)
        assert (status.code, status.message) == (3, "not ExportLogsServiceRequest in protobuf")
        answer = await client.post("/v1/traces", content=b'{"resourceSpans": 1}', headers=JS)
        assert answer.status_code == 400
        assert answer.json()["code"] == 3
        assert "$.resourceSpans" in answer.json()["message"]
        assert [raw for raw, _, _ in intake.dead] == [b"\xff\xff", b'{"resourceSpans": 1}']
        assert reasons == []  # dead letters are counted where they are put

    serve(receiver(intake, refused=reasons.append).routes, story)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (PB, b"\x0a\x84\x80\x10\x12\x80\x80\x10" + b"\x12\x00" * 131_072),
        (JS, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"{}," * 131_071 + b"{}]}]}]}"),
        (JS, b'{"resourceLogs":[' + b"{}," * 131_072 + b"{}]}"),
        (JS, b'{"resourceLogs":[' + b"{}," * 2_200_000 + b"{}]}"),
    ],
)
def test_a_small_request_with_very_many_records_is_refused_before_they_are_made(
    intake: MemoryIntake, serve: Callable[..., None], headers: dict[str, str], body: bytes
) -> None:
    reasons: list[str] = []

    async def story(client: httpx.AsyncClient) -> None:
        answer = await client.post(
            "/v1/logs", content=gzip.compress(body), headers={**headers, "content-encoding": "gzip"}
        )
        assert answer.status_code == 413  # the sender is told, and repeats it no more
        assert "more than" in answer.text
        assert not intake.groups
        assert not intake.dead

    serve(receiver(intake, refused=reasons.append).routes, story)
    assert reasons == ["too_large"]


def test_what_is_nested_in_one_record_has_a_bound_and_is_counted_in_turns(
    intake: MemoryIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.receive.otlp_export._MAX_PARTS", 50_000)  # of millions it takes long
    waited = 0

    def waits() -> None:
        nonlocal waited
        waited += 1

    def request(values: int) -> bytes:
        return _delimited(1, _delimited(2, _delimited(2, _delimited(5, _delimited(5, b"\x0a\x00" * values)))))

    async def story() -> None:
        exports = OtlpExports(intake, clock=lambda: 1, turns=Turns(LoopTime(turn_seconds=0.0), waits))
        assert await exports.take(request(49_995), LOGS, json=False) == Taken()
        with pytest.raises(TooLarge, match="more than 50000 attributes and other parts"):
            await exports.take(
                request(49_996) + b"\xff", LOGS, json=False
            )  # a decoder makes all that stands before the fault
        assert waited > 10
        assert not intake.dead

    asyncio.run(story())


def _array(values: int) -> bytes:
    """An AnyValue with a list of so many values that say nothing."""
    return _delimited(5, b"\x0a\x00" * values)


TWO_MANY = 2 * b"".join((b"\x32\x00", _delimited(6, _delimited(2, _array(2**19)))))  # two attributes, two of nothing


@pytest.mark.parametrize(
    "many",
    [
        _delimited(5, _array(2**20 + 1)),
        _delimited(5, _array(2**20)) + b"\x32\x00",  # body and attributes together
        TWO_MANY,
        _delimited(5, _delimited(6, b"\x0a\x00" * (2**20 + 1))),
        b"\x32\x00" * (2**20 + 1),
    ],
    ids=["list", "together", "attributes", "map", "flat"],
)
def test_a_record_of_very_many_values_is_refused_alone_and_what_has_many_takes_turns(
    intake: MemoryIntake, many: bytes
) -> None:
    waited = 0

    def waits() -> None:
        nonlocal waited
        waited += 1

    good = _delimited(5, _array(20_000))
    request = _delimited(1, _delimited(2, b"".join(_delimited(2, one) for one in (good, many, good + b"\x18\x01"))))

    async def story() -> None:
        exports = OtlpExports(intake, clock=lambda: 1, turns=Turns(LoopTime(turn_seconds=0.0), waits))
        assert await exports.take(request, LOGS, json=False) == Taken(rejected=1, reason="more than 1048576 values")
        assert waited == 2  # one behind each of the first two records
        ((_, error, _),) = intake.dead
        assert error.label == "too_large"

    asyncio.run(story())


def test_in_json_a_record_of_very_many_values_is_refused_alone() -> None:
    many: dict[str, Any] = {"body": {"arrayValue": {"values": [{}] * (2**20 + 1)}}}
    good, refused, other = logs(logs_json({}, many, {}))
    assert isinstance(good, Arrival)
    assert isinstance(other, Arrival)
    assert isinstance(refused, Refused)
    assert str(refused.error) == "more than 1048576 values"


def test_a_resource_of_very_many_values_is_refused_with_all_that_is_in_it(intake: MemoryIntake) -> None:
    resource = _delimited(1, b"\x0a\x00" * (2**20 + 1))
    request = _delimited(1, resource + _delimited(2, b"\x12\x00"))

    async def story() -> None:
        with pytest.raises(Malformed, match="more than 1048576 values"):
            await OtlpExports(intake, clock=lambda: 1).take(request, LOGS, json=False)
        ((raw, error, _),) = intake.dead
        assert (raw, error.label) == (request, "too_large")

    asyncio.run(story())


def test_limits_and_pressure(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        big = await client.post("/v1/traces", content=b"x" * 5000, headers=PB)
        bomb = await client.post(
            "/v1/traces", content=gzip.compress(b"x" * 100_000), headers={**PB, "content-encoding": "gzip"}
        )
        for answer in (big, bomb):
            assert answer.status_code == 413
            assert Status.FromString(answer.content).code == 3
        assert (await client.post("/v1/logs", content=b"", headers={"content-type": "text/plain"})).status_code == 415
        coded = await client.post("/v1/logs", content=b"", headers={**PB, "content-encoding": "zstd"})
        assert coded.status_code == 415
        intake.overloaded = 1
        busy = await client.post("/v1/traces", content=spans_protobuf(1), headers=PB)
        assert busy.status_code == 503
        assert int(busy.headers["retry-after"]) >= 1
        assert Status.FromString(busy.content).code == 14
        again = await client.post("/v1/traces", content=spans_protobuf(1), headers=PB)
        assert again.status_code == 200
        assert len(intake.events) == 1

    serve(receiver(intake, limits=BodyLimits(max_body_bytes=4000, max_inflated_bytes=50_000)).routes, story)


def test_a_request_without_room_is_told_to_come_again(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    room = Room(10_000)

    async def story(client: httpx.AsyncClient) -> None:
        with room.claim() as others:
            others.add(9_999)
            for content, headers in (
                (spans_protobuf(1), PB),
                (gzip.compress(spans_protobuf(1)), {**PB, "content-encoding": "gzip"}),
            ):
                answer = await client.post("/v1/traces", content=content, headers=headers)
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) >= 1
        assert (await client.post("/v1/traces", content=spans_protobuf(1), headers=PB)).status_code == 200
        assert room.used_bytes == 0
        assert len(intake.events) == 1

    serve(receiver(intake, room=room).routes, story)


def test_the_python_sdk_s_exporters(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    async def story(client: httpx.AsyncClient) -> None:
        def send() -> None:
            resource = Resource({"service.name": "shop"})
            spans = TracerProvider(resource=resource)
            spans.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{client.base_url}/v1/traces")))
            records = LoggerProvider(resource=resource)
            records.add_log_record_processor(
                SimpleLogRecordProcessor(OTLPLogExporter(endpoint=f"{client.base_url}/v1/logs"))
            )
            with spans.get_tracer("t").start_as_current_span("pay", attributes={"amount": 7}):
                records.get_logger("l").emit(
                    LogRecord(body={"n": 1}, severity_number=SeverityNumber.WARN, event_name="paid")
                )
            spans.shutdown()
            records.shutdown()

        await asyncio.to_thread(send)
        log, span = intake.events
        assert (log.service, log.event_name, log.severity_number, log.body) == ("shop", "paid", 13, {"n": 1})
        assert (span.service, span.name, span.attributes) == ("shop", "pay", {"amount": 7})
        assert (log.trace_id, log.span_id) == (span.trace_id, span.span_id)

    serve(receiver(intake).routes, story)


# ---------------------------------------------------------------------------------------------------------- fuzzing
@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_malformed(body: bytes) -> None:
    for read, events, reading in (
        (otlp_json.read_logs, events_of_logs, JSON),
        (otlp_json.read_traces, events_of_traces, JSON),
        (ExportLogsServiceRequest.FromString, events_of_logs, PROTOBUF),
        (ExportTraceServiceRequest.FromString, events_of_traces, PROTOBUF),
    ):
        try:
            list(events(read(body), reading, observed=NOW))
        except (Malformed, DecodeError):
            pass


field = st.sampled_from(
    "traceId spanId parentSpanId name kind startTimeUnixNano attributes events links status flags body severityNumber "
    "timeUnixNano droppedAttributesCount key value stringValue intValue doubleValue bytesValue arrayValue values code".split()
)
tree = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(TRACE) | st.just(SPAN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(field, inner, max_size=5),
    max_leaves=15,
)


@given(st.lists(st.dictionaries(field, tree, max_size=6), max_size=3))
def test_any_json_is_records_or_malformed(records: list[dict[str, Any]]) -> None:
    for read, body in ((logs, logs_json(*records)), (traces, spans_json(*records))):
        try:
            found = read(body)
        except Malformed:
            continue
        assert len(found) == (len(records) or 1)  # a scope that holds none


@pytest.mark.parametrize("depth", [60, 200, 400, 900, 5_000, 100_000])
def test_deep_values_are_taken_or_malformed(depth: int) -> None:
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":' + b'{"arrayValue":{"values":[' * depth
    body += b"{}" + b"]}}" * depth + b"}]}]}]}"
    try:
        (record,) = logs(body)
        assert isinstance(record, Arrival if depth < 300 else (Arrival, Refused))
    except Malformed:
        assert depth > 100
