"""The two lanes of normalising lead to the same event, and the cheap question before masking never says no in vain."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.canonical import MAX_SAFE_INTEGER, Normaliser
from collector.event import Access, Event, Origin, Scope, Span, encode_event, format_time
from collector.extract import Extractor, StitchSettings
from collector.normal import normalised, plain, times_in
from collector.protect import Protector

NOW = format_time(1_700_000_000_000_000_000)
EXTRACTOR = Extractor(StitchSettings())
PROTECTOR = Protector(token_key=b"k" * 32, masked_fields=("*password", "*cvv2", "*.pin"))

# mostly what the fast lane takes, so that it is taken often; beside it something of everything
words = st.sampled_from(
    ["", "a", "ok", "tx-1", "pay: 12", "a=b", "x" * 300, "é", "\ud800", "10:20", ":", '"a":1', "\\"]
)
pair = st.sampled_from(
    ["password: hunter2", "cvv2=123", "cvv2:123", '{"password":"x"}', ":password", "password", "pin"]
)
numbers = st.sampled_from([0, 1, -5, 200, MAX_SAFE_INTEGER, MAX_SAFE_INTEGER + 1, -(2**60), 4111111111111111])
plain_values = words | numbers | st.booleans() | st.none()
values = plain_values | pair | st.floats() | st.binary(max_size=3) | st.lists(words, max_size=2)
names = st.sampled_from(
    ["a", "b.c", "trace_id", "transaction.id", "http.method", "é", "k:v", "my_password", "card.pin"]
)
fields = st.dictionaries(names, plain_values, max_size=4) | st.dictionaries(names | st.integers(), values, max_size=4)
times = st.sampled_from(["", NOW, "2023-01-01T00:00:00Z", "yesterday", NOW.replace("Z", "z")])
trace_ids = st.sampled_from(["", "0af7651916cd43dd8448eb211c80319c", "0AF7651916CD43DD8448EB211C80319C", "zz"])
span_ids = st.sampled_from(["", "b7ad6b7169203331", "B7AD6B7169203331", "1"])
PLAIN = Event(
    time=NOW,
    severity_number=9,
    severity_text="INFO",
    body="paid",
    attributes={"transaction.id": "tx-1", "status": 200, "retry": False, "note": None},
    resource={"service.name": "shop"},
    scope=Scope(name="shop.pay", version="1"),
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    span=Span(name="POST /pay", kind="SERVER", end=NOW, parent_span_id="b7ad6b7169203331"),
    origin=Origin(receiver="otlp"),
)
odd_fields: dict[str, st.SearchStrategy[Any]] = {
    "time": times,
    "observed": times,
    "severity_number": st.sampled_from([0, 9, 24, 25, -1]),
    "severity_text": words,
    "event_name": words,
    "body": plain_values | values,
    "attributes": fields,
    "resource": fields,
    "scope": st.none() | st.builds(Scope, name=words, version=words) | st.builds(Scope, attributes=fields),
    "trace_id": trace_ids,
    "span_id": span_ids,
    "trace_flags": st.sampled_from([0, 1, 2**40, -1]),
    "span": st.none()
    | st.builds(Span, name=words, parent_span_id=span_ids, kind=words, end=times, status_message=words | pair)
    | st.builds(Span, events=st.lists(values, max_size=1), links=st.lists(values, max_size=1)),
    "transaction": words,
    "keys": st.just({}) | st.dictionaries(st.sampled_from(["order", "password", "É"]), words, max_size=2),
    "actor": words,
    "access": st.none() | st.builds(Access, principal=words, action=words),
    "origin": st.none() | st.builds(Origin, receiver=st.just("forward"), tag=words),
    "marks": st.lists(st.sampled_from(["truncated", "time_unusable"]), max_size=2),
}


@st.composite
def raw_events(draw: st.DrawFn) -> Event:
    """A plain event with a few fields that may be anything: with all of them odd, no event would be plain."""
    odd = draw(st.sets(st.sampled_from(sorted(odd_fields)), max_size=2))
    return msgspec.structs.replace(PLAIN, **{name: draw(odd_fields[name]) for name in sorted(odd)})


def slow(raw: Event) -> tuple[bytes, Normaliser]:
    walk = Normaliser(PROTECTOR.raw)
    event = normalised(raw, EXTRACTOR.find(raw), walk, NOW, PROTECTOR.protect)
    return encode_event(event, exact=walk.exact)[0], walk


def fast(raw: Event) -> tuple[Event, bytes] | None:
    """The fast lane under the conditions that it states: names are texts, and the JSON is ASCII."""
    scope = raw.scope.attributes if raw.scope else {}
    if not all(type(name) is str for name in (*raw.attributes, *raw.resource, *scope)):
        return None
    event = plain(raw, EXTRACTOR.find(raw), NOW)
    if event is None:
        return None
    try:
        data = encode_event(event, exact=False)[0]
    except UnicodeEncodeError:
        return None
    return (event, data) if data.isascii() else None


@settings(max_examples=600)
@given(raw_events())
@example(Event(time=NOW, body="b", attributes={"n": 1, "t": True, "x": None, "s": "y"}, span=Span(name="s", end=NOW)))
def test_both_lanes_lead_to_the_same_bytes(raw: Event) -> None:
    taken = fast(raw)
    if taken is not None:
        data, walk = slow(raw)
        assert taken[1] == data
        assert not walk.exact
        assert not walk.nested
        assert not walk.marks


def test_the_fast_lane_is_taken() -> None:
    taken = fast(PLAIN)
    assert taken is not None
    assert taken[0].transaction == "tx-1"
    assert taken[0].observed == NOW
    assert taken[1] == slow(PLAIN)[0]


@settings(max_examples=600)
@given(raw_events())
@example(Event(body="cvv2:123", time=NOW))
@example(Event(body=":password", observed=NOW, attributes={"k:v": "password"}))
@example(Event(body="", time=NOW, span=Span(name="password: x", end=NOW)))
@example(Event(body="", scope=Scope(name="password=1")))
@example(Event(body="", scope=Scope(attributes={"my_password": "x"})))
@example(Event(body='{"password": 1}'))
def test_the_cheap_question_never_misses_a_declared_field(raw: Event) -> None:
    walk = Normaliser(PROTECTOR.raw)
    event = normalised(raw, EXTRACTOR.find(raw), walk, NOW, PROTECTOR.protect)
    data = encode_event(event, exact=walk.exact)[0]
    keys = [*event.attributes, *event.resource, *event.keys, *(event.scope.attributes if event.scope else {})]
    if walk.nested or PROTECTOR.declares(keys):
        return
    if not PROTECTOR.needs_walk(data, times=times_in(event)):
        built: Any = msgspec.to_builtins(event)
        assert PROTECTOR.protect(built) == (built, ())


def test_keys_that_are_no_text_may_be_anything() -> None:
    assert PROTECTOR.declares([1])
    assert not PROTECTOR.declares(["a", "b"])
    assert PROTECTOR.declares(["a", "My-Password"])
