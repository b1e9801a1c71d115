"""From an arrival to what the spool takes: what is changed, marked, masked or refused, and that nothing in an event raises."""

from __future__ import annotations

import hashlib
import json
import random
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.canonical import MAX_DEPTH
from collector.event import Access, Event, Facts, Origin, Scope, Span, decode_event, decode_facts, format_time
from collector.extract import Extractor, KeyRule, OperationRule, StitchSettings
from collector.prepare import MAX_FACTS_BYTES, Prepared, Preparer, raw_of
from collector.protect import Protector
from collector.protect.cardnumber import luhn_valid
from collector.protect.classify import find_cards
from collector.receive import Arrival

NOW_NS = 1_700_000_000_000_000_000
CARD = "4111 1111 1111 1111"
DIGITS = "4111111111111111"
TOKEN_KEY = b"t" * 32

texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=12) | st.just(CARD)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(), inner, max_size=3),
    max_leaves=8,
)
fields = st.dictionaries(texts, values, max_size=4)
raw_events = st.builds(
    Event,
    time=texts,
    observed=texts,
    severity_number=st.integers(),
    severity_text=texts,
    event_name=texts,
    body=values,
    attributes=fields,
    resource=fields,
    scope=st.none() | st.builds(Scope, name=texts, version=texts, attributes=fields),
    trace_id=texts,
    span_id=texts,
    trace_flags=st.integers(),
    span=st.none()
    | st.builds(Span, name=texts, parent_span_id=texts, kind=texts, end=texts, events=st.lists(values, max_size=2)),
    transaction=texts,
    tenant=texts,
    keys=st.dictionaries(texts, texts, max_size=3),
    actor=texts,
    outcome=texts,
    access=st.none() | st.builds(Access, principal=texts, action=texts, trail=texts, refused=texts),
    origin=st.none() | st.builds(Origin, receiver=st.just("forward"), tag=texts, file=texts),
    marks=st.lists(texts, max_size=3),
)


def preparer(*, clock: bool = True, **settings: Any) -> Preparer:
    return Preparer(
        extractor=Extractor(StitchSettings(**settings)),
        protector=Protector(token_key=TOKEN_KEY),
        clock=(lambda: NOW_NS) if clock else None,
        max_event_bytes=10_000,
    )


def prepared(event: Event, **settings: Any) -> tuple[Event, Facts]:
    made = preparer(**settings).prepare([Arrival(event=event)])
    assert not made.refused, made.refused
    return decode_event(made.events[0]), decode_facts(made.facts[0])


def refusal(event: Event, **settings: Any) -> str:
    made = preparer(**settings).prepare([Arrival(event=event)])
    assert made.events == made.facts == made.source_ids == []
    return made.refused[0].error.label


@given(st.lists(raw_events, min_size=1, max_size=3))
@example([Event(origin=Origin(receiver="forward", tag="\ud800"))])
@example([Event(access=Access(principal="\udcff", action="read"))])
@example([Event(time="yesterday \ud800")])
@example([Event(marks=["\ud800"], body=f"card {CARD}")])
@example([Event(attributes={"baggage": "transaction.id=%ED%A0%80"})])
def test_whatever_an_event_holds_it_is_taken_or_refused(events: list[Event]) -> None:
    made = preparer(keys=(KeyRule(name="order_id", fields=("attributes.order",)),)).prepare(
        [Arrival(event=event, source_id=b"%d" % at) for at, event in enumerate(events)]
    )
    assert len(made.events) == len(made.facts) == len(made.source_ids) == len(events) - len(made.refused)
    for data, line in zip(made.events, made.facts, strict=True):
        event, facts = decode_event(data), decode_facts(line)
        assert facts.digest == hashlib.sha256(data).hexdigest()
        assert (facts.transaction, facts.keys, facts.marks) == (event.transaction, event.keys, event.marks)
        assert b"\n" not in line
        assert CARD.encode() not in data
        assert DIGITS.encode() not in data + line
        assert event.marks == sorted(set(event.marks))
    for refused in made.refused:
        assert refused.error.label != "defect", refused.error
        assert raw_of(refused.arrival)


def test_an_event_gets_the_time_it_was_seen_unless_it_is_imported() -> None:
    assert prepared(Event(body=1))[0].observed == format_time(NOW_NS)
    made = preparer(clock=False).prepare([Arrival(event=Event(body=1))])
    assert made.events == [b'{"body":1}']


def test_a_time_that_is_none_is_kept_as_it_was_stated() -> None:
    event, _ = prepared(Event(time="yesterday", observed="now", span=Span(name="s", end="2023-01-30T12:50:59+01:00")))
    assert event.attributes == {"time.stated": "yesterday", "observed.stated": "now"}
    assert event.span is not None
    assert event.span.end == "2023-01-30T11:50:59.000000000Z"
    event, facts = prepared(Event(time="yesterday", observed="2023-01-30T12:50:59+01:00"))
    assert (event.time, event.attributes, event.marks) == ("", {"time.stated": "yesterday"}, ["time_unusable"])
    assert event.observed == "2023-01-30T11:50:59.000000000Z"
    assert facts.marks == ["time_unusable"]


def test_ids_of_another_shape_stay_attributes() -> None:
    event, facts = prepared(Event(trace_id="0AF7651916CD43DD8448EB211C80319C", span_id="7"))
    assert (event.trace_id, event.span_id, facts.trace_id, facts.span_id) == ("", "", "", "")
    assert event.attributes == {"trace_id": "0AF7651916CD43DD8448EB211C80319C", "span_id": "7"}
    assert event.marks == ["span_id_unusable", "trace_id_unusable"]


def test_what_does_not_fit_stands_beside_an_attribute_of_its_name() -> None:
    event, _ = prepared(
        Event(
            attributes={"trace_id": "mine", "span_id": "7", "end.stated": "mine"},
            trace_id="stated",
            span_id="7",
            span=Span(name="s", parent_span_id="xyz", end="late"),
        )
    )
    assert event.attributes == {
        "trace_id": "mine",
        "trace_id.stated": "stated",
        "span_id": "7",
        "parent_span_id": "xyz",
        "end.stated": "mine",
        "end.stated.stated": "late",
    }
    assert event.marks == ["end_unusable", "parent_span_id_unusable", "span_id_unusable", "trace_id_unusable"]


def test_identities_that_an_event_cannot_have_are_kept_as_attributes() -> None:
    stated = {"transaction": "t" * 300, "tenant": "é" * 200, "actor": "a" * 300}
    keys = {"orderId": "A1", "amount.eur": "1,234.50", "order": "O" * 300, "_x": "", "ok": "O1", "empty": ""}
    event, facts = prepared(Event(**stated, keys=keys))  # type: ignore[arg-type]  # all of them are texts
    assert (facts.transaction, facts.tenant, facts.actor) == ("", "", "")
    assert (facts.keys, facts.found) == ({"ok": "O1", "empty": ""}, {"ok": "stated", "empty": "stated"})
    assert event.attributes == {
        **{f"{place}.stated": text for place, text in stated.items()},
        **{f"keys.{name}.stated": keys[name] for name in ("orderId", "amount.eur", "order", "_x")},
    }
    assert facts.marks == ["amount_unusable", "key_name_unusable", "key_too_long"]


def test_a_stated_transaction_that_is_too_long_makes_room_for_one_that_is_found() -> None:
    event, facts = prepared(Event(transaction="t" * 300, attributes={"transaction.id": "T"}))
    assert facts.transaction == "T"
    assert event.attributes["transaction.stated"] == "t" * 300


def test_what_an_event_cannot_have_is_masked_as_what_it_was() -> None:
    own = Preparer(
        extractor=Extractor(StitchSettings()),
        protector=Protector(token_key=TOKEN_KEY, masked_fields=("keys.owner", "event_name"), dropped_fields=("actor",)),
        clock=None,
    )
    event = Event(actor="a" * 300, event_name="n" * 300, keys={"owner": "Ann " * 100, f"Card {DIGITS}": "x"})
    (data,) = own.prepare([Arrival(event=event)]).events
    kept = decode_event(data)
    assert kept.event_name == "***"
    assert kept.attributes.pop("keys.owner.stated") == kept.attributes.pop("event_name.stated") == "***"
    assert [name[:17] for name in kept.attributes] == ["keys.Card [411111"]


def test_a_name_too_long_is_masked_before_it_is_cut_and_kept_whole() -> None:
    name = "x" * 238 + f" {CARD} and more"
    event, facts = prepared(Event(event_name=name, severity_text=name, span=Span(name=name)))
    assert event.span is not None
    for cut in (event.event_name, event.severity_text, event.span.name, facts.name):
        assert cut == "x" * 238 + " [4111 11** ****" + cut[254:]
        assert len(cut) == 256
    assert {len(text) for text in event.attributes.values()} == {len(name) + len("[~card:]") + 20}
    assert set(event.attributes) == {"event_name.stated", "severity_text.stated", "span.name.stated"}
    assert {"name_too_long", "card:event_name", "card:span.name"} <= set(event.marks)


def test_an_operation_read_from_a_text_is_masked_before_it_is_cut() -> None:
    operations = (OperationRule(pattern="^did (.*)$"),)
    event, _ = prepared(Event(body="did " + "x" * 240 + " " + DIGITS), operations=operations)
    assert DIGITS[:8] not in event.event_name
    assert len(event.event_name) == 256


def test_numbers_out_of_their_range_are_unset() -> None:
    event, _ = prepared(Event(severity_number=25, trace_flags=-1))
    assert (event.severity_number, event.trace_flags) == (0, 0xFFFFFFFF)


@pytest.mark.parametrize(
    "event",
    [
        Event(body=f"paid with {CARD}"),
        Event(body={"card": {"number": int(DIGITS)}}),
        Event(attributes={CARD: 1}),
        Event(resource={"service.name": DIGITS}),
        Event(transaction=CARD),
        Event(tenant=DIGITS),
        Event(actor=DIGITS),
        Event(keys={"order_id": DIGITS}),
        Event(keys={f"card_{DIGITS}": "x"}),
        Event(attributes={"order": CARD}),
        Event(attributes={"transaction.id": int(DIGITS)}),
        Event(span=Span(name=DIGITS, events=[{"name": CARD}])),
        Event(scope=Scope(name=DIGITS)),
        Event(access=Access(principal="ada", action="read", trail=f"key/order_id/{DIGITS}")),
        Event(origin=Origin(receiver="forward", tag=DIGITS)),
        Event(body=b"raw " + DIGITS.encode()),
        Event(time=DIGITS),
        Event(trace_id=DIGITS),
        Event(marks=[DIGITS]),
    ],
    ids=lambda event: str(msgspec.to_builtins(event))[:40],
)
def test_a_card_number_reaches_neither_event_nor_facts(event: Event) -> None:
    keys = (KeyRule(name="order_id", fields=("attributes.order",)),)
    made = preparer(keys=keys).prepare([Arrival(event=event)])
    assert len(made.events) == 1
    for text in (made.events[0], made.facts[0]):
        assert DIGITS.encode() not in text
        assert CARD.encode() not in text
    assert any(mark.startswith(("card:", "bytes_masked")) for mark in decode_event(made.events[0]).marks)


def test_the_rules_in_the_facts_are_those_of_what_the_event_still_has() -> None:
    event = Event(transaction="T", keys={f"card_{DIGITS}": "x", "owner": "Ann", "order": "O"})
    own = Preparer(
        extractor=Extractor(StitchSettings()),
        protector=Protector(token_key=TOKEN_KEY, dropped_fields=("transaction", "keys.owner")),
        clock=None,
    )
    facts = decode_facts(own.prepare([Arrival(event=event)]).facts[0])
    assert facts.found == dict.fromkeys(facts.keys, "stated")
    assert [name[:12] for name in facts.keys] == ["card_[411111", "order"]


def test_the_same_card_as_a_key_is_the_same_token_however_it_is_written() -> None:
    keys = (KeyRule(name="card", fields=("attributes.card",)),)
    tokens = {
        prepared(Event(attributes={"card": card}), keys=keys)[1].keys["card"]
        for card in (CARD, DIGITS, int(DIGITS), CARD.replace(" ", "-"))
    }
    (token,) = tokens
    assert token.startswith("card:")


@pytest.mark.parametrize(
    ("event", "label"),
    [
        (Event(body="x" * 20_000), "too_large"),
        (Event(body={1: "a", "1": "b"}), "duplicate_key"),
        (Event(body=object()), "bad_type"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_label(event: Event, label: str) -> None:
    assert refusal(event) == label


@pytest.mark.parametrize("items", [[0] * 4_950, [[0] * 99] * 49, {"a": [0] * 2_000, "b": [0] * 2_900}])
def test_no_event_that_fits_has_too_many_values(items: Any) -> None:
    assert prepared(Event(body=items))[0].body == items


@pytest.mark.parametrize("many", [[[]] * 5_001, [[0] * 100] * 51, {str(at): {} for at in range(5_001)}])
@pytest.mark.parametrize("place", ["body", "attributes", "resource"])
def test_values_that_cannot_fit_are_refused_before_they_are_all_walked(many: Any, place: str) -> None:
    """Of bytes that are few there may be millions, and while they are walked nobody else is heard."""
    fields: dict[str, Any] = {place: many if place == "body" else {"many": many}}
    event = Event(**fields)
    (refused,) = preparer().prepare([Arrival(event=event)]).refused
    assert str(refused.error) == "more than 5000 values in an event"
    assert refused.error.label == "too_large"
    assert raw_of(refused.arrival)


def test_of_millions_of_values_the_first_are_shown() -> None:
    span = Span(name="pay", events=[{"attributes": {"a": [0] * 200_000}}])
    event = Event(attributes={"kept": CARD}, body=[[None] * 10] * 100_000, resource={"r": "cut"}, span=span)
    raw = raw_of(Arrival(event=event))
    assert raw.startswith(b'{"body": [[null, null')
    shown = json.loads(raw)
    assert shown["attributes"] == {"kept": CARD}
    assert sum(map(len, shown["body"])) + len(shown["body"]) == 131_072 - 1
    assert "resource" not in shown
    assert shown["span"] == {"name": "pay"}


def test_an_event_may_be_as_long_as_its_masks_make_it_and_no_longer() -> None:
    """preparer() takes events of 10,000 bytes."""
    event, _ = prepared(Event(body="4222222222222 " * 700))
    assert 25_000 < len(event.body) < 40_000
    # every group of four digits begins two numbers, and ends two others
    groups = [f"{first}{last:02d}" for first in (50, 56, 57, 58, 63) for last in range(100)]
    body = " ".join(random.Random(7).choices([group for group in groups if luhn_valid(group)], k=1_900))
    assert len(body) < 10_000
    assert len(Protector(token_key=TOKEN_KEY).text(body)) > 40_000
    assert refusal(Event(body=body)) == "too_large"


def test_an_event_too_deep_is_refused_and_still_shown() -> None:
    deep: Any = "leaf"
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    assert refusal(Event(body=deep)) == "too_deep"
    for _ in range(20_000):
        deep = [deep]
    made = preparer().prepare([Arrival(event=Event(body=deep))])
    assert made.refused[0].error.label == "too_deep"
    assert raw_of(made.refused[0].arrival)


@pytest.mark.parametrize(
    "value",
    [
        DIGITS.translate({ord("0") + at: 0xFF10 + at for at in range(10)}),
        DIGITS.translate({ord("0") + at: 0x06F0 + at for at in range(10)}).encode(),
        {b"password": DIGITS, b"\xff": 1},
        "\ud800" + DIGITS,
    ],
)
def test_a_refused_event_is_shown_and_its_card_number_is_not(value: Any) -> None:
    event = Event(body={"shop": "kept", "value": value, "refused": object()})
    raw = raw_of(preparer().prepare([Arrival(event=event)]).refused[0].arrival)
    masked = Protector(token_key=TOKEN_KEY).raw(raw).decode()
    assert "kept" in masked
    assert masked != raw.decode()
    assert not find_cards(masked)
    assert not re.search(r"\d{9}", masked)  # of a card number six and four stay


def test_what_is_refused_is_shown_with_keys_that_no_json_has() -> None:
    deep: Any = "leaf"
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    attributes: Any = {b"pay": "EVIDENCE", "pay": 1, (1, b"x"): b"bytes", "deep": deep}
    (refused,) = preparer().prepare([Arrival(event=Event(attributes=attributes))]).refused
    shown = json.loads(raw_of(refused.arrival))["attributes"]
    assert shown.pop("deep")
    assert sorted(shown.items(), key=str) == [("[1, 'x']", "bytes"), ("pay", "EVIDENCE"), ("pay~", 1)]


def test_too_many_keys_for_the_facts_are_refused() -> None:
    keys = {f"key_{at:060d}": "v" * 60 for at in range(100)}
    made = Preparer(
        extractor=Extractor(StitchSettings()), protector=Protector(token_key=TOKEN_KEY), clock=None
    ).prepare([Arrival(event=Event(keys=keys))])
    assert made.refused[0].error.label == "too_many_keys"
    assert MAX_FACTS_BYTES == 16_384


def test_one_refused_event_leaves_the_others_side_by_side() -> None:
    bad = Event(body=object())
    events = [Event(body="a"), bad, Event(body="b"), bad]
    made = preparer(clock=False).prepare(
        [Arrival(event=event, source_id=b"%d" % at) for at, event in enumerate(events)]
    )
    assert made.events == [b'{"body":"a"}', b'{"body":"b"}']
    assert made.source_ids == [b"0", b"2"]
    assert [refused.at for refused in made.refused] == [1, 3]


def test_a_defect_met_by_one_event_is_a_dead_letter_not_a_storm() -> None:
    made: Prepared = preparer().prepare([Arrival(event=Event(severity_text=7)), Arrival(event=Event(body="a"))])  # type: ignore[arg-type]  # a receiver's mistake
    assert [refused.error.label for refused in made.refused] == ["defect"]
    assert len(made.events) == 1


def test_preparing_is_pure() -> None:
    event = Event(body={"z": 1, "a": [1, {"b": 2.5}]}, attributes={"n": 2**60})
    before = msgspec.json.encode(event)
    assert preparer().prepare([Arrival(event=event)]) == preparer().prepare([Arrival(event=event)])
    assert msgspec.json.encode(event) == before


def test_a_name_that_normalising_adds_may_be_declared_too() -> None:
    protector = Protector(token_key=TOKEN_KEY, masked_fields=("*stated",))
    own = Preparer(extractor=Extractor(StitchSettings()), protector=protector, clock=lambda: NOW_NS)
    made = own.prepare([Arrival(event=Event(time="yesterday", body="b"))])
    assert decode_event(made.events[0]).attributes == {"time.stated": "***"}


SPEAKERS = {"payments": ("certificate:pay", "user:ann"), "closed": ()}


@pytest.mark.parametrize(
    ("service", "peer", "taken"),
    [
        ("payments", "certificate:pay", True),
        ("payments", "user:ann", True),
        ("payments", "certificate:shop", False),
        ("payments", "certificate:payments", False),
        ("payments", "", False),
        (b"payments", "", True),  # is written in base64, so it is another one
        ("payments\udc80", "", True),  # and this one with a replacement character
        ("closed", "certificate:pay", False),
        ("shop", "", True),
        (None, "", True),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_only_its_speakers_speak_for_a_service(service: object, peer: str, taken: bool, plain: bool) -> None:
    made = Preparer(
        extractor=Extractor(StitchSettings()),
        protector=Protector(token_key=b"k" * 32),
        clock=lambda: NOW_NS,
        speakers=SPEAKERS,
    )
    event = Event(
        body="x",
        resource={} if service is None else {"service.name": service},
        origin=Origin(receiver="forward", tag="payments", peer=peer),
    )
    group = made.prepare([Arrival(event=event, plain=plain and type(service) is not bytes)])
    assert all(decode_event(data).service != "payments" for data in group.events if peer == "")
    assert [len(group.events), len(group.refused)] == [taken, not taken]
    assert [refused.error.label for refused in group.refused] == ["not_its_speaker"] * (not taken)


def test_an_event_of_unknown_origin_speaks_for_no_closed_service() -> None:
    made = Preparer(
        extractor=Extractor(StitchSettings()),
        protector=Protector(token_key=b"k" * 32),
        clock=None,
        speakers=SPEAKERS,
    )
    assert made.prepare([Arrival(event=Event(resource={"service.name": "payments"}))]).refused
