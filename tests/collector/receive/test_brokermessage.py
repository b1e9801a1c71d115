"""What a message of a broker becomes, whatever is in it."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.canonical import Normaliser
from collector.errors import Malformed
from collector.event import Origin
from collector.receive.brokermessage import (
    MAX_HEADERS,
    BrokerMessage,
    Format,
    Reading,
    arrival_of_broker_message,
)

MESSAGE = BrokerMessage(value=b"", attributes={"messaging.system": "kafka"}, origin=Origin(receiver="kafka"))
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def read(value: bytes | None, **further: object) -> object:
    return arrival_of_broker_message(replace(MESSAGE, value=value), Reading(**further)).event.body  # type: ignore[arg-type]  # any reading


def test_formats() -> None:
    assert read(b'{"message": "a"}') == "a"
    assert read(b'{"message": "a"}', format="text") == '{"message": "a"}'
    assert read(b"{no json") == "{no json"
    assert read(b"[1]") == "[1]"
    assert read(None, format="json") is None
    raw = arrival_of_broker_message(replace(MESSAGE, value=b"\0\xff"), Reading(format="raw")).event
    assert (raw.body, raw.attributes["log.record.original"]) == (None, b"\0\xff")
    with pytest.raises(Malformed):
        read(b"[1]", format="json")


def test_what_a_message_states_goes_before_its_headers() -> None:
    headers = (("TraceParent", f"00-{TRACE}-{SPAN}-01".encode()), ("tx", b"t-1"), ("baggage", b"a=b"), ("tx", b"t-2"))
    message = replace(MESSAGE, headers=headers, time="2026-01-01T00:00:00.000000000Z", source_id=b"name")
    reading = Reading(transaction_header="tx", service="s", tenant="t")
    arrival = arrival_of_broker_message(replace(message, value=b"text"), reading)
    event = arrival.event
    assert (event.trace_id, event.span_id, event.trace_flags) == (TRACE, SPAN, 1)
    assert (event.transaction, event.tenant, event.resource) == ("t-2", "t", {"service.name": "s"})
    assert (event.time, event.attributes["baggage"], arrival.source_id) == (message.time, "a=b", b"name")
    own = b'{"trace_id": "%s", "transaction": "own", "tenant": "own", "time": "2025-01-01T00:00:00Z", "resource": {"service.name": "own"}}'
    event = arrival_of_broker_message(replace(message, value=own % (b"1" * 32)), reading).event
    assert (event.trace_id, event.span_id, event.transaction, event.tenant) == ("1" * 32, "", "own", "own")
    assert (event.time, event.resource) == ("2025-01-01T00:00:00.000000000Z", {"service.name": "own"})


def test_a_message_does_not_say_where_it_stood() -> None:
    known = {"messaging.destination.name": "public", "messaging.kafka.offset": 1}
    said = b'{"messaging.destination.name": "ledger", "messaging.kafka.offset": true, "messaging.message.header.tx": "t-2"}'
    message = replace(MESSAGE, attributes=known, value=said, headers=(("tx", b"t-1"),))
    assert arrival_of_broker_message(message, Reading()).event.attributes == {
        "messaging.destination.name": "public",
        "messaging.destination.name.stated": "ledger",
        "messaging.kafka.offset": 1,
        "messaging.kafka.offset.stated": True,
        "messaging.message.header.tx": "t-1",
        "messaging.message.header.tx.stated": "t-2",
    }


@pytest.mark.parametrize(
    "header", [f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}", ""]
)
def test_a_traceparent_that_is_none(header: str) -> None:
    message = replace(MESSAGE, headers=(("traceparent", header.encode()),))
    event = arrival_of_broker_message(message, Reading()).event
    assert (event.trace_id, event.span_id) == ("", "")
    assert event.attributes["messaging.message.header.traceparent"] == header


def test_too_many_headers_are_cut_and_told() -> None:
    message = replace(MESSAGE, headers=tuple((f"h{at}", b"v") for at in range(MAX_HEADERS + 5)))
    event = arrival_of_broker_message(message, Reading()).event
    assert event.marks == ["headers_cut"]
    assert len(event.attributes) == MAX_HEADERS + 1


@given(
    st.one_of(st.none(), st.binary(max_size=60), st.binary(max_size=40).map(lambda data: b"{" + data)),
    st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=60)), max_size=4),
    st.sampled_from(get_args(Format)),
)
def test_any_message_is_an_event_or_malformed(
    value: bytes | None, headers: list[tuple[str, bytes]], form: Format
) -> None:
    message = replace(MESSAGE, value=value, headers=tuple(headers))
    try:
        event = arrival_of_broker_message(message, Reading(format=form, transaction_header="x")).event
    except Malformed:
        assert form == "json"
        return
    normaliser = Normaliser()
    normaliser.value(event.body)
    normaliser.value(event.attributes)
