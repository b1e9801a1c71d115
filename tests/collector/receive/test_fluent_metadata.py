"""Events with metadata, as Fluent Bit sends them: what has a place in the event goes there, and nothing else is lost.

Fluent Bit itself is not to be had here: the messages are written from its documentation and from what its 5.x puts on the wire.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.event import Scope
from collector.receive import Arrival
from collector.receive.forward_group import Group, Limits
from collector.receive.forward_message import MessageReader
from collector.receive.record import record_uid
from tests.support.memory_intake import normalised

NOW_NS = 1_700_000_000_000_000_000
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def at(seconds: int, nanoseconds: int = 0) -> msgpack.ExtType:
    return msgpack.ExtType(0, struct.pack(">II", seconds & 0xFFFFFFFF, nanoseconds))


TIME = at(1_675_079_459, 971_622_667)
TIME_TEXT = "2023-01-30T11:50:59.971622667Z"
START, END = at(-1), at(-2)


def read(*messages: Any, service: str | None = None, **limits: int) -> list[Group]:
    data = b"".join(message if isinstance(message, bytes) else msgpack.packb(message) for message in messages)
    return list(MessageReader(clock=lambda: NOW_NS, service=service, limits=Limits(**limits)).groups(data))


def arrivals(*entries: Any, service: str | None = None, **limits: int) -> list[Arrival]:
    """What the entries become, the same in Forward and PackedForward mode."""
    packed = b"".join(msgpack.packb(entry) for entry in entries)
    (forward,) = read(["shop.cart", list(entries), {"size": len(entries)}], service=service, **limits)
    (whole,) = read(["shop.cart", packed, {"size": len(entries)}], service=service, **limits)
    assert forward.refused == whole.refused == []
    assert [arrival.event for arrival in forward.arrivals] == [arrival.event for arrival in whole.arrivals]
    return whole.arrivals


def test_bytes_as_fluent_bit_5_sends_them_with_an_ack_asked_for() -> None:
    """An option map with a 32-bit length, an ext of 8 bytes in an array of two, an empty map beside it."""
    entry = b"\x92\x92\xd7\x00\x6a\x91\x2d\x02\x1f\x6e\x43\xc0\x80\x82\xa3log\xa4paid\xa6stream\xa6stderr"
    option = b"\xdf\x00\x00\x00\x03\xa5chunk\xb8AAECAwQFBgcICQoLDA0ODw==\xa4size\x01\xadfluent_signal\x00"
    (group,) = read(b"\x93\xa7app.log\x91" + entry + option)
    assert group.refused == []
    assert group.chunk == "AAECAwQFBgcICQoLDA0ODw=="
    (arrival,) = group.arrivals
    assert (arrival.event.body, arrival.event.attributes) == ("paid", {"stream": "stderr"})
    assert arrival.event.time == "2026-08-28T06:38:58.527320000Z"


def test_empty_metadata_leaves_no_trace_and_costs_no_second_look() -> None:
    with_it = arrivals([[TIME, {}], {"message": "a", "n": 1}])
    without = arrivals([TIME, {"message": "a", "n": 1}])
    assert with_it == without
    assert with_it[0].plain
    assert with_it[0].event.time == TIME_TEXT


def test_both_forms_may_stand_in_one_message() -> None:
    first, second = arrivals([TIME, {"message": "a"}], [[1_675_079_459, {}], {"message": "b"}])
    assert (first.event.body, second.event.body) == ("a", "b")
    assert second.event.time == "2023-01-30T11:50:59.000000000Z"


def test_what_opentelemetry_says_beside_the_record_goes_to_its_places() -> None:
    otlp = {
        "observed_timestamp": 1_675_079_460_000_000_000,
        "timestamp": 1_675_079_459_971_622_667,
        "severity_number": 17,
        "severity_text": "ERROR",
        "attributes": {"transaction.id": "pay-1", "log.record.uid": "u-1", "message": "an attribute"},
        "trace_id": bytes.fromhex(TRACE),
        "span_id": bytes.fromhex(SPAN),
        "trace_flags": 1,
    }
    (arrival,) = arrivals([[TIME, {"otlp": otlp}], {"log": "declined"}])
    event = arrival.event
    assert (event.trace_id, event.span_id, event.trace_flags) == (TRACE, SPAN, 1)
    assert (event.severity_text, event.severity_number) == ("ERROR", 17)
    assert event.body == "declined"
    assert event.attributes == {
        "transaction.id": "pay-1",
        "log.record.uid": "u-1",
        "message": "an attribute",  # an attribute there is none of the record's well-known fields
        "fluent.metadata": {"otlp": {"observed_timestamp": 1_675_079_460_000_000_000}},
    }
    assert arrival.source_id == record_uid("u-1")
    assert not arrival.plain


def test_the_record_s_own_words_count_before_its_metadata() -> None:
    otlp = {"severity_text": "ERROR", "severity_number": 17, "trace_id": b"\1" * 16, "attributes": {"n": 2, "m": 3}}
    record = {"level": "info", "trace_id": TRACE, "n": 1, "fluent.metadata": "mine"}
    (arrival,) = arrivals([[TIME, {"otlp": otlp, "other": "kept"}], record])
    event = arrival.event
    assert (event.severity_text, event.severity_number, event.trace_id) == ("info", 9, TRACE)
    assert event.attributes == {
        "n": 1,
        "m": 3,
        "fluent.metadata": "mine",
        "fluent.metadata_": {
            "otlp": {
                "severity_text": "ERROR",
                "severity_number": 17,
                "trace_id": b"\1" * 16,
                "attributes": {"n": 2},
            },
            "other": "kept",
        },
    }


def test_groups_tell_resource_and_scope_of_what_they_hold() -> None:
    group = {
        "resource": {"attributes": {"service.name": "payments", "host.name": "a"}, "schema_url": "https://s"},
        "scope": {"name": "lib", "version": "2", "attributes": {"x": 1}},
    }
    made = arrivals(
        [[START, {"schema": "otlp", "resource_id": 0, "scope_id": 0}], group],
        [[TIME, {}], {"message": "in"}],
        [[TIME, {}], {"message": "in, by another", "service": "wallet"}],
        [[END, {}], {}],
        [[TIME, {}], {"message": "out"}],
        service="configured",
    )
    events = [arrival.event for arrival in made]
    assert [event.body for event in events] == ["in", "in, by another", "out"]
    assert events[0].resource == {"service.name": "payments", "host.name": "a"}
    assert events[1].resource == {"service.name": "wallet", "host.name": "a"}
    assert events[2].resource == {"service.name": "configured"}
    assert events[0].scope == Scope(name="lib", version="2", attributes={"x": 1})
    assert events[0].attributes == {"fluent.group": {"resource": {"schema_url": "https://s"}}}
    assert (events[2].scope, events[2].attributes) == (None, {})


def test_a_group_of_another_schema_is_kept_as_it_is() -> None:
    (arrival,) = arrivals([[START, {"group": "g1"}], {"a": 1}], [[TIME, {}], {"message": "in"}], [[END, {}], {}])
    assert arrival.event.attributes == {"fluent.group": {"metadata": {"group": "g1"}, "attributes": {"a": 1}}}


def test_the_size_may_count_the_markers_or_not() -> None:
    entries = [[[START, {}], {}], [[TIME, {}], {"message": "in"}], [[END, {}], {}]]
    for size, wrong in ((1, False), (3, False), (2, True)):
        (group,) = read(["t", entries, {"size": size}])
        assert [error.label for _, error in group.refused] == ["size_mismatch"] * wrong


def test_an_end_without_a_start_and_a_start_without_an_end() -> None:
    resource = {"resource": {"attributes": {"k": "v"}}}
    message = ["t", [[[END, {}], {}], [[START, {"schema": "otlp"}], resource], [[TIME, {}], {"message": "a"}]], {}]
    first, second = read(message, ["u", [[[TIME, {}], {"message": "b"}]], {}])
    assert first.arrivals[0].event.resource == {"k": "v", "service.name": "t"}
    assert second.arrivals[0].event.resource == {"service.name": "u"}  # a group ends with its message


def test_a_long_group_header_cannot_be_multiplied_without_bounds() -> None:
    header = {"resource": {"attributes": {"k": "x" * 10_000}}}
    entries = [[[START, {"schema": "otlp"}], header], *[[[TIME, {}], {"n": n}] for n in range(100)]]
    (group,) = read(["t", entries, {"chunk": "c"}], max_inflated_bytes=2_000_000)
    assert len(group.arrivals) == 100
    assert group.size_bytes > 1_000_000  # it counts against the room of all connections
    for message in (
        ["t", entries, {"chunk": "c"}],
        ["t", [*entries, [[TIME, {}], {"n": b"\xff", 5: 6}]], {"chunk": "c"}],
    ):
        data = msgpack.packb(message)
        (group,) = read(data, max_inflated_bytes=500_000)
        assert group.arrivals == []
        assert (group.refused[0][0], group.refused[0][1].label) == (data, "too_large")
        assert group.chunk == "c"


@pytest.mark.parametrize(
    "message",
    [
        ["t", TIME, {"message": "a"}, {"chunk": "c", "metadata": {"k": "v"}}],
        ["t", [TIME, {"k": "v"}], {"message": "a"}, {"chunk": "c"}],
        b"\x94\xc4\x01t" + msgpack.packb([TIME, {"k": "v"}]) + b"\x81\xa7message\xa1a" + b"\x81\xa5chunk\xa1c",
    ],
)
def test_message_mode_with_metadata(message: Any) -> None:
    (group,) = read(message)
    assert (group.chunk, group.refused) == ("c", [])
    (arrival,) = group.arrivals
    assert (arrival.event.body, arrival.event.time) == ("a", TIME_TEXT)
    assert arrival.event.attributes == {"fluent.metadata": {"k": "v"}}


def test_metadata_that_is_no_map_or_time_that_is_none_is_refused_alone() -> None:
    entries = [[[TIME, {}], {"message": "good"}], [[TIME, 5], {"m": 1}], [["noon", {}], {"m": 1}], [[TIME, {}], ["m"]]]
    (group,) = read(["t", entries, {"chunk": "c"}])
    assert [arrival.event.body for arrival in group.arrivals] == ["good"]
    assert [error.label for _, error in group.refused] == ["bad_record"] * 3
    assert [msgpack.unpackb(raw)[1] for raw, _ in group.refused] == [{"m": 1}, {"m": 1}, ["m"]]


@pytest.mark.parametrize("signal", [1, 2, "logs"])
def test_metrics_and_traces_of_fluent_bit_are_refused_as_what_they_are(signal: object) -> None:
    (group,) = read(["t", b"\x80", {"chunk": "c", "fluent_signal": signal}])
    assert (group.arrivals, group.chunk) == ([], "c")
    assert [error.label for _, error in group.refused] == ["bad_signal"]


def test_an_odd_time_with_metadata_is_kept_and_marked() -> None:
    (arrival,) = arrivals([[msgpack.ExtType(0, b"\0" * 7), {}], {"message": "kept"}])
    assert (arrival.event.time, arrival.event.marks) == ("", ["time_unusable"])
    assert arrival.event.attributes == {"fluent.time": "00" * 7}


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=17),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(
    "otlp schema resource scope attributes name version severity_number severity_text trace_id span_id trace_flags timestamp "
    "log.record.uid fluent.metadata service.name".split()
)
maps = st.recursive(
    st.dictionaries(names, anything | st.just("otlp") | st.integers(-3, 25), max_size=4),
    lambda inner: st.dictionaries(names | st.text(max_size=2), inner | anything, max_size=4),
    max_leaves=6,
)
times = st.sampled_from([TIME, START, END, -1, -2, 1.5, msgpack.ExtType(5, b""), None])


@settings(max_examples=300)
@given(st.lists(st.tuples(times, maps, maps), min_size=1, max_size=4))
def test_whatever_metadata_holds_each_entry_is_an_event_a_marker_or_refused_with_a_reason(rows: list[Any]) -> None:
    entries = [[[time, metadata], record] for time, metadata, record in rows]
    good = [time for time, _, _ in rows if time is not None]
    events = [time for time in good if time not in {START, END, -1, -2}]
    packed = b"".join(msgpack.packb(entry) for entry in entries)
    for message in (["t", entries, {"size": len(rows)}], ["t", packed, {"size": len(rows)}]):
        (group,) = read(message)
        assert len(group.arrivals) == len(events)
        assert len(group.refused) == len(rows) - len(good)
        for arrival in group.arrivals:
            try:
                normalised(arrival.event)
            except Malformed:
                pass  # nested too deeply, or another thing that the intake refuses
