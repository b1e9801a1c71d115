"""What is counted before a request is decoded: as many as decoding finds, or more, and never fewer."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from collector.errors import TooLarge
from collector.receive.census import check_decoded, check_json, check_nested, check_protobuf, count_msgpack
from collector.receive.otlp_export import LOGS, METRICS
from collector.receive.otlp_json import read_logs, read_metrics


def count_of(body: bytes, path: Any) -> int:
    """The least bound that the message keeps."""
    for most in range(len(body)):
        try:
            check_protobuf(body, path, most)
        except TooLarge:
            continue
        return most
    return len(body)


def logs(*scopes: int) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    for count in scopes:
        scoped = request.resource_logs.add().scope_logs.add()
        for _ in range(count):
            scoped.log_records.add().severity_text = "a text that makes a record longer than 300 bytes" * 7
    return request


def test_records_are_counted_with_what_they_stand_in() -> None:
    body = logs(3, 0, 130).SerializeToString()
    assert count_of(body, LOGS.path) == 3 + 3 + 133
    metrics = ExportMetricsServiceRequest()
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="x" * 99)
    for _ in range(5):
        metric.gauge.data_points.add(as_double=0.5, time_unix_nano=1)
    body = metrics.SerializeToString()
    assert count_of(body, METRICS.path) == 1 + 1 + 1 + 1 + 5
    told = read_metrics(b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"dataPoints":[{},{}]}}]}]}]}')
    check_decoded(told, METRICS.message.DESCRIPTOR, METRICS.path, 6)
    with pytest.raises(TooLarge):
        check_decoded(told, METRICS.message.DESCRIPTOR, METRICS.path, 5)


@pytest.mark.parametrize(
    "body", [b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{},{}]}]}]}', b'{"resourceLogs":[{},{},{},{},{}]}']
)
def test_what_holds_no_records_counts_as_well(body: bytes) -> None:
    request = read_logs(body)
    check_decoded(request, LOGS.message.DESCRIPTOR, LOGS.path, 5)
    with pytest.raises(TooLarge):
        check_decoded(request, LOGS.message.DESCRIPTOR, LOGS.path, 4)


def test_a_request_is_refused_before_what_is_wrong_with_it_is_found() -> None:
    """A decoder makes all that stands before the fault."""
    with pytest.raises(TooLarge, match="more than 1000 records"):
        check_protobuf(b"\x0a\xd0\x0f\x12\xcd\x0f" + b"\x12\x00" * 1_000 + b"\xff", LOGS.path, 1_000)


@pytest.mark.parametrize("field", [b"\x10\x00", b"\x1a\x00", b"\x1d....", b"\x19........", b"\x1b\x1c"])
@pytest.mark.parametrize("head", [b"", b"\x0a\xff\xff\x07", b"\x0a\xff\xff\x07\x12\xff\xff\x07"])
def test_fields_beside_the_records_are_counted(head: bytes, field: bytes) -> None:
    """They were passed over without end, while nobody else was heard."""
    check_protobuf(head + field * 2_000, LOGS.path, 1_000)
    with pytest.raises(TooLarge, match="more than 4000 fields beside the records"):
        check_protobuf(head + field * 4_001, LOGS.path, 1_000)


def test_what_belongs_to_records_is_not_too_much_beside_them() -> None:
    metrics = ExportMetricsServiceRequest()
    for _ in range(100):
        group = metrics.resource_metrics.add(schema_url="u")
        group.resource.dropped_attributes_count = 1
        scoped = group.scope_metrics.add(schema_url="u")
        scoped.scope.name = "s"
        metric = scoped.metrics.add(name="n", unit="u", description="d")
        metric.metadata.add(key="a")
        metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        metric.sum.is_monotonic = True
        metric.sum.data_points.add(as_int=1)
    check_protobuf(metrics.SerializeToString(), METRICS.path, 500)


pieces = st.sampled_from(
    [b"\x0a\x00", b"\x0a\x02\x12\x00", b"\x0a\x04\x12\x02\x12\x00", b"\x0a\x04\x0b\x12\x00\x0c", b"\x1b\x0a\x00\x1c"]
)


@given(st.binary(max_size=60) | st.lists(pieces).map(b"".join))
def test_what_protobuf_finds_is_never_more_than_was_counted(body: bytes) -> None:
    count = count_of(body, LOGS.path)
    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError:
        return
    groups = list(request.resource_logs)
    scopes = [scoped for group in groups for scoped in group.scope_logs]
    found = len(groups) + len(scopes) + sum(len(scoped.log_records) for scoped in scopes)
    assert count >= min(found, len(body) // 2)


def parts_of(body: bytes) -> int:
    """The least bound on nested messages that the body keeps."""
    for most in range(len(body)):
        try:
            list(check_nested(body, ExportLogsServiceRequest.DESCRIPTOR, most))
        except TooLarge:
            continue
        return most
    return len(body)


def messages_in(message: Message) -> int:
    """As protobuf finds them."""
    count = 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            below = [value] if isinstance(value, Message) else value
            count += len(below) + sum(map(messages_in, below))
    return count


@given(st.recursive(st.none() | st.text(max_size=9) | st.integers(0, 2**40), st.lists, max_leaves=9), st.integers(0, 3))
def test_nested_parts_are_counted_wherever_they_stand(value: Any, attributes: int) -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add(schema_url="\n" * 99).scope_logs.add().log_records.add(time_unix_nano=1)
    record.flags = 10

    def put(into: AnyValue, given: Any) -> None:
        if isinstance(given, str):
            into.string_value = given
        elif isinstance(given, int):
            into.int_value = given
        elif given is not None:
            into.array_value.SetInParent()
            for item in given:
                put(into.array_value.values.add(), item)

    put(record.body, value)
    for _ in range(attributes):
        pair = record.attributes.add(key="a")
        put(pair.value.kvlist_value.values.add(key="b").value, value)
    body = request.SerializeToString()
    assert parts_of(body) == min(messages_in(request), len(body) // 2)


@given(st.binary(max_size=60) | st.lists(pieces).map(b"".join))
def test_of_any_bytes_no_fewer_parts_are_counted_than_protobuf_finds(body: bytes) -> None:
    count = parts_of(body)
    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError:
        return
    assert count >= min(messages_in(request), len(body) // 2)


def test_counting_millions_of_parts_gives_turns() -> None:
    request = logs(1)
    values = request.resource_logs[0].scope_logs[0].log_records[0].body.array_value.values
    for _ in range(30_000):
        values.add(bool_value=True)
    body = request.SerializeToString()
    assert len(list(check_nested(body, ExportLogsServiceRequest.DESCRIPTOR, 30_005))) > 10
    with pytest.raises(TooLarge, match="more than 30004 attributes and other parts"):
        list(check_nested(body, ExportLogsServiceRequest.DESCRIPTOR, 30_004))


@pytest.mark.parametrize("piece", [b"0,", b"{},", b"[", b'{"a":[]},'])
def test_json_of_millions_of_values_is_refused_undecoded(piece: bytes) -> None:
    check_json(piece * 2**18)
    with pytest.raises(TooLarge, match="4194304 values"):
        check_json(piece * (4 * 2**20 + 1))


def test_long_json_of_few_values_is_not() -> None:
    check_json(b'{"a":"' + b"x" * (5 * 2**20) + b'"}')


@given(
    st.recursive(
        st.none() | st.integers(0, 9) | st.text(max_size=3) | st.binary(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
        max_leaves=20,
    )
)
def test_values_of_messagepack_are_counted_with_what_holds_them(value: Any) -> None:
    def count(one: Any) -> int:
        below = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else None
        return 0 if below is None else 4 + len(below) + sum(map(count, below))

    data, expected = msgpack.packb(value), count(value)
    assert count_msgpack(data, expected) == expected
    if expected:
        with pytest.raises(TooLarge, match=f"more than {expected - 1} values"):
            count_msgpack(data, expected - 1)
