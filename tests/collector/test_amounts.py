"""Amounts: read exactly or not at all, found where they are declared, and kept from what is no amount."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.amounts import AmountRule, amount_key, amount_text, is_amount, parts_of
from collector.errors import Malformed
from collector.event import Event, decode_event, decode_facts
from collector.extract import Extractor, Found, KeyRule, StitchSettings
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive import Arrival

AMEX = 378282246310005  # a test number, of 15 digits


@pytest.mark.parametrize(
    ("value", "minor_digits", "text"),
    [
        (12, 0, "12"),
        (12.5, 0, "12.5"),
        ("12.50", 0, "12.5"),
        ("0012", 0, "12"),
        ("+3", 0, "3"),
        ("-3.10", 0, "-3.1"),
        ("-0.00", 0, "0"),
        (0.1 + 0.2, 0, ""),  # 17 digits: not what anybody meant, and not rounded
        (0.1, 0, "0.1"),
        (1e14, 0, "100000000000000"),
        (1e15, 0, ""),
        (1e300, 0, ""),
        (float("inf"), 0, ""),
        (float("nan"), 0, ""),
        (1250, 2, "12.5"),
        (5, 2, "0.05"),
        (-5, 2, "-0.05"),
        ("1250", 2, "12.5"),
        ("1.5", 2, "0.015"),
        (0, 2, "0"),
        (10**15 - 1, 0, "999999999999999"),
        (10**15, 0, ""),
        ("0.00000001", 0, "0.00000001"),
        ("0.000000001", 0, ""),
        ("1,250.00", 0, ""),
        ("1e3", 0, ""),
        ("12 EUR", 0, ""),
        ("", 0, ""),
        ("٣", 0, ""),
        (True, 0, ""),
        (None, 0, ""),
        (["1"], 0, ""),
    ],
)
def test_a_number_is_read_exactly_or_not_at_all(value: Any, minor_digits: int, text: str) -> None:
    assert amount_text(value, minor_digits) == text


def test_a_number_too_long_to_be_written_is_none() -> None:
    assert amount_text(10**5_000) == ""


anything = st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.binary() | st.lists(st.integers())


@given(anything, st.integers(0, 8))
def test_what_is_read_is_in_the_one_form_and_the_same_number(value: Any, minor_digits: int) -> None:
    text = amount_text(value, minor_digits)
    if text:
        assert parts_of(text) is not None
        assert amount_text(text) == text
        shifted = Decimal(str(value).strip()) / 10**minor_digits
        assert Decimal(text) == shifted


@given(st.text(max_size=20))
def test_only_the_one_form_has_parts(text: str) -> None:
    parts = parts_of(text)
    assert (parts is not None) == (bool(text) and amount_text(text) == text)


def test_names() -> None:
    assert [amount_key(one) for one in ("EUR", "usd", "", "EURO", "€", "e1r")] == [
        "amount.eur",
        "amount.usd",
        "amount.xxx",
        "",
        "",
        "",
    ]
    assert [
        is_amount(one) for one in ("amount.eur", "amount.EUR", "amount.euro", "amount.e1r", "amount", "order_id")
    ] == [
        True,
        *(False,) * 5,
    ]


def find(event: Event, *rules: AmountRule) -> Found:
    return Extractor(StitchSettings(amounts=rules)).find(event)


def test_an_amount_is_found_with_its_currency_and_its_rule() -> None:
    rule = AmountRule(
        fields=("attributes.total", "body.amount"), currency_fields=("attributes.currency",), currency="CHF"
    )
    found = find(Event(attributes={"total": 12.5, "currency": "EUR"}), rule)
    assert (found.keys, found.rules) == ({"amount.eur": "12.5"}, {"amount.eur": "attributes.total"})
    assert find(Event(body={"amount": "7"}), rule).keys == {"amount.chf": "7"}
    assert find(Event(attributes={"total": "", "currency": "EUR"}, body={"amount": 7}), rule).keys == {
        "amount.eur": "7"
    }
    assert find(Event(attributes={"total": 1}), AmountRule(fields=("attributes.total",))).keys == {"amount.xxx": "1"}
    assert find(Event(attributes={"other": 1}), rule).keys == {}


def test_rules_are_for_services_and_operations_and_the_first_of_a_currency_wins() -> None:
    cents = AmountRule(services=("pay*",), fields=("attributes.cents",), currency="EUR", minor_digits=2)
    fee = AmountRule(operations=("charged",), fields=("attributes.fee",), currency="EUR")
    event = Event(attributes={"cents": 1250, "fee": 1}, resource={"service.name": "payments"}, event_name="charged")
    assert find(event, cents, fee).keys == {"amount.eur": "12.5"}
    assert find(event, fee, cents).keys == {"amount.eur": "1"}
    other = Event(attributes={"cents": 1250}, resource={"service.name": "risk"})
    assert find(other, cents).keys == {}


@pytest.mark.parametrize(
    "attributes",
    [
        {"total": "a lot"},
        {"total": 10**18},
        {"total": [1]},
        {"total": 1, "currency": "EURO"},
        {"total": AMEX},
        {"total": str(AMEX)},
    ],
)
def test_what_is_no_amount_is_marked_and_left_where_it_is(attributes: dict[str, Any]) -> None:
    rule = AmountRule(fields=("attributes.total",), currency_fields=("attributes.currency",), minor_digits=2)
    found = find(Event(attributes=attributes), rule)
    assert (found.keys, found.marks) == ({}, ("amount_unusable",))


def test_an_amount_that_the_event_states_itself_is_brought_into_the_one_form() -> None:
    found = find(Event(keys={"amount.eur": "012.50", "order_id": "012.50"}))
    assert found.keys == {"amount.eur": "12.5", "order_id": "012.50"}
    found = find(Event(keys={"amount.eur": "much"}))
    assert (found.keys, found.rules, found.marks) == ({}, {}, ("amount_unusable",))
    assert found.refused == {"keys.amount.eur": "much"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"amounts": (AmountRule(fields=()),)}, r"amounts\[0\]: give the fields"),
        ({"amounts": (AmountRule(fields=("nowhere",)),)}, "a path starts with"),
        ({"amounts": (AmountRule(fields=("attributes.a",), currency="EURO"),)}, r"amounts\[0\].currency"),
        ({"amounts": (AmountRule(fields=("attributes.a",), minor_digits=9),)}, r"amounts\[0\].minor_digits"),
        ({"keys": (KeyRule(name="amount.eur", fields=("attributes.a",)),)}, "declare it under amounts"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused_with_its_place(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        Extractor(StitchSettings(**settings))


def prepared(event: Event, **protect: Any) -> tuple[Event, dict[str, str]]:
    rule = AmountRule(fields=("attributes.total",), currency_fields=("attributes.currency",))
    preparer = Preparer(
        extractor=Extractor(StitchSettings(amounts=(rule,))),
        protector=Protector(token_key=b"t" * 32, **protect),
        clock=lambda: 1_700_000_000_000_000_000,
    )
    got = preparer.prepare([Arrival(event=event)])
    (data,), (facts,) = got.events, got.facts
    return decode_event(data), decode_facts(facts).keys


def test_it_stands_in_the_event_and_in_its_facts() -> None:
    event, keys = prepared(Event(attributes={"total": 12.5, "currency": "EUR"}))
    assert event.keys == keys == {"amount.eur": "12.5"}


def test_a_card_number_and_what_is_masked_do_not_get_in() -> None:
    _, keys = prepared(Event(attributes={"total": AMEX, "currency": "EUR"}))
    assert keys == {}
    _, keys = prepared(Event(keys={"amount.eur": str(AMEX)}))
    assert str(AMEX) not in str(keys)
    for name in ("eur", "keys.amount.eur", "*.eur"):
        _, keys = prepared(Event(attributes={"total": 12.5, "currency": "EUR"}), masked_fields=(name,))
        assert keys == {"amount.eur": "***"}, "masked by its own name, which is known only with its currency"
