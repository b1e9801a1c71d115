"""Events: times, the round trip through canonical bytes, and the facts made of them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.canonical import MAX_DEPTH, Normaliser
from collector.errors import Malformed
from collector.event import (
    Access,
    Event,
    Facts,
    Origin,
    Scope,
    Span,
    decode_event,
    decode_facts,
    encode_event,
    encode_facts,
    facts_of,
    format_time,
    may_hold_large_doubles,
    parse_time,
)

FIRST_NS = -62_135_596_800 * 10**9
LAST_NS = 253_402_300_800 * 10**9 - 1

texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
attributes = st.dictionaries(texts, values, max_size=4)
spans = st.builds(Span, name=texts, kind=texts, end=texts, status=texts, events=st.lists(values, max_size=3))
scopes = st.builds(Scope, name=texts, version=texts, attributes=attributes)
accesses = st.builds(Access, principal=texts, action=texts, trail=texts, head=st.integers(-1, 10), refused=texts)
events = st.builds(
    Event,
    time=texts,
    severity_number=st.integers(0, 24),
    body=values,
    attributes=attributes,
    resource=attributes,
    scope=st.none() | scopes,
    span=st.none() | spans,
    transaction=texts,
    keys=st.dictionaries(texts, texts, max_size=3),
    access=st.none() | accesses,
    origin=st.none() | st.builds(Origin, receiver=texts, tag=texts, row=st.integers(0, 9)),
    marks=st.lists(texts, max_size=3),
)


def encoded(event: Event) -> bytes:
    walk = Normaliser()
    plain = walk.value(msgspec.to_builtins(event), -2)
    return encode_event(msgspec.convert(plain, Event), exact=walk.exact)[0]


@pytest.mark.parametrize(
    ("text", "unix_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1754-08-30T22:43:41.128654848Z", -6_795_364_578_871_345_152),
        ("2023-01-30T11:50:59.971622667Z", 1_675_079_459_971_622_667),
        ("0001-01-01T00:00:00Z", FIRST_NS),
        ("9999-12-31T23:59:59.999999999Z", LAST_NS),
        ("2023-01-30 11:50:59,9z", 1_675_079_459_900_000_000),
        ("2023-01-30t12:50:59.000000001+01:00", 1_675_079_459_000_000_001),
        ("2023-01-30T00:20:59-1130", 1_675_079_459_000_000_000),
        ("2023-01-30T11:50:59.9999999999999Z", 1_675_079_459_999_999_999),  # cut, never rounded into the future
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),  # the leap second counts as the next one
        ("2000-02-29T00:00:00Z", 951_782_400_000_000_000),
    ],
)
def test_times_read(text: str, unix_ns: int) -> None:
    assert parse_time(text) == unix_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023-01-30T11:50:59",  # no zone: nobody could order it
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2023-13-01T00:00:00Z",
        "2023-01-30T24:00:00Z",
        "2023-01-30T23:60:00Z",
        "2023-01-30T23:59:61Z",
        "2023-01-30T11:50:59+24:00",
        "2023-01-30T11:50:59+00:60",
        "2023-01-30T11:50:59Z\n",
        "٢٠٢٣-01-30T11:50:59Z",
        "12023-01-30T11:50:59Z",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_time(text)
    assert refused.value.label == "bad_time"


@given(st.integers(FIRST_NS, LAST_NS))
@example(FIRST_NS)
@example(LAST_NS)
@example(-1)
def test_every_time_survives_being_written(unix_ns: int) -> None:
    text = format_time(unix_ns)
    assert len(text) == 30
    assert parse_time(text) == unix_ns
    assert datetime.fromisoformat(text[:19] + "Z") == datetime.fromisoformat("1970-01-01T00:00:00Z").fromtimestamp(
        unix_ns // 10**9, UTC
    )


@pytest.mark.parametrize("unix_ns", [FIRST_NS - 1, LAST_NS + 1, 2**80, -(2**80)])
def test_a_time_that_rfc3339_cannot_write_is_refused(unix_ns: int) -> None:
    with pytest.raises(Malformed):
        format_time(unix_ns)


@given(st.text() | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{0,12})?([zZ]|[+-]\d\d:?\d\d)?"))
def test_any_text_is_a_time_or_malformed(text: str) -> None:
    try:
        unix_ns = parse_time(text)
    except Malformed:
        return
    assert FIRST_NS - 10**14 < unix_ns < LAST_NS + 10**14


@given(events)
@example(Event(body=1e16))
@example(Event(body={"large": 2.0**53, "larger": -1e20, "largest": 1.7976931348623157e308}))
def test_an_event_survives_its_bytes(event: Event) -> None:
    try:
        data = encoded(event)
    except Malformed:
        return
    again = decode_event(data)
    assert encoded(again) == data
    walk = Normaliser()
    walk.value(msgspec.to_builtins(again), -2)
    assert encode_event(again, exact=walk.exact)[0] == data


@pytest.mark.parametrize("place", ["body", "attributes", "scope", "span"])
def test_the_deepest_event_that_is_taken_can_be_read_again(place: str) -> None:
    deep: Any = "leaf"
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    walk = Normaliser()
    event = {
        "body": Event(body=walk.value([deep])),
        "attributes": Event(attributes=walk.value({"k": deep})),
        "scope": Event(scope=Scope(attributes=walk.value({"k": deep}))),
        "span": Event(span=Span(events=walk.value([deep]))),
    }[place]
    data, _ = encode_event(event, exact=False)
    assert decode_event(data) == event


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b'{"body":',
        b'{"body":NaN}',
        b'{"body":' + b"[" * 100_000,
        b'{"nobody":' + b"[" * 100_000,
        b'{"body":1' + b"0" * 5_000 + b"}",
        b'{"body":1' + b"0" * 400 + b"}",
        b'{"severity_number":"9"}',
        b'{"trace_flags":9007199254740992}',
        b'{"origin":{"offset":1152921504606846976}}',
        b'{"marks":"card_masked"}',
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_no_event_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_event(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"body": 1}',
        b'{"body":1}\n',
        b'{"body":1.0}',
        b'{"body":1e2}',
        b'{"body":-0}',
        b'{"body":9007199254740993}',
        b'{"body":"\\u0041"}',
        b'{"body":"\\/"}',
        b'{"body":1,"attributes":{"a":1}}',
        b'{"attributes":{"b":1,"a":1}}',
        '{"attributes":{"\ufb33":1,"\U0001f600":1}}'.encode(),
        b'{"body":1,"body":1}',
        b'{"body":1,"time":""}',
        b'{"body":1,"unknown":1}',
        b'{"body":"\\ud800"}',
    ],
)
def test_an_event_in_another_spelling_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"canonical|not an event"):
        decode_event(data)


@given(events)
@example(Event(body=1e20, attributes={"n": -(2.0**53), "most": 2**53 - 1}))
def test_bytes_without_large_doubles_read_as_what_they_are(event: Event) -> None:
    try:
        data = encoded(event)
    except Malformed:
        return
    plain = msgspec.json.decode(data)
    if not may_hold_large_doubles(data):
        assert repr(msgspec.convert(plain, Event)) == repr(decode_event(data)), (
            "an integer equals the double that it stands for"
        )


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,eE+-.0123456789abodyrm\\u', max_size=60).map(str.encode))
def test_any_bytes_are_an_event_or_malformed(data: bytes) -> None:
    for decode in (decode_event, decode_facts):
        try:
            decode(data)
        except Malformed:
            pass


def test_the_facts_are_those_of_the_event() -> None:
    event = Event(
        time="2023-01-30T11:50:59.971622667Z",
        resource={"service.name": "payments"},
        span=Span(name="charge"),
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        transaction="T-1",
        tenant="acme",
        keys={"order_id": "O-9"},
        actor="ada",
        outcome="success",
        access=Access(principal="ada", action="read"),
        marks=["card_masked"],
    )
    data, digest = encode_event(event, exact=False)
    assert digest == hashlib.sha256(data).hexdigest()
    facts = facts_of(event, digest, {"order_id": "stated"})
    assert facts == Facts(
        digest=digest,
        time=event.time,
        service="payments",
        name="charge",
        trace_id=event.trace_id,
        span_id=event.span_id,
        transaction="T-1",
        tenant="acme",
        keys={"order_id": "O-9"},
        found={"order_id": "stated"},
        actor="ada",
        outcome="success",
        access=event.access,
        marks=["card_masked"],
    )
    assert decode_facts(encode_facts(facts)) == facts
    assert b"\n" not in encode_facts(facts)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Event(), False),
        (Event(severity_number=16), False),
        (Event(severity_number=17), True),
        (Event(outcome="failure"), True),
        (Event(outcome="success"), False),
        (Event(span=Span(status="ERROR")), True),
        (Event(span=Span(status="OK")), False),
    ],
)
def test_what_counts_as_an_error(event: Event, error: bool) -> None:
    assert facts_of(event, "0" * 64, {}).error is error


def test_names_of_events_and_services() -> None:
    assert Event(event_name="paid", span=Span(name="charge")).name == "paid"
    assert Event(span=Span(name="charge")).name == "charge"
    assert Event().name == ""
    assert Event(resource={"service.name": 7}).service == "7"
