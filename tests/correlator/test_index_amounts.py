"""Amounts as the index has them: text in the order of the numbers; and the ranges that people write."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.amounts import amount_text
from correlator.errors import VerificationError
from correlator.index.amounts import LEAST, MOST, AmountRange, currency_of, number_of, ordered

numbers = st.decimals(min_value=-(10**15) + 1, max_value=10**15 - 1, places=8).map(
    lambda one: amount_text(format(one, "f"))
)


@given(numbers, numbers)
def test_the_order_of_the_text_is_that_of_the_numbers(one: str, other: str) -> None:
    assert (ordered(one) < ordered(other)) == (Decimal(one) < Decimal(other))
    assert number_of(ordered(one)) == one
    assert len(ordered(one)) == len(LEAST) == len(MOST)
    assert LEAST < ordered(one) < MOST


@pytest.mark.parametrize("text", ["", "12.50", "012", "-0", "1e3", "+1", "1" * 16, "0.123456789", "1.", "١"])
def test_what_is_not_in_the_one_form_is_not_indexed(text: str) -> None:
    assert ordered(text) == ""


def test_an_amount_is_a_key_by_name_and_by_value() -> None:
    assert currency_of("amount.eur", "-12.5") == "EUR"
    others = [
        ("amount.note", "1"),
        ("amount.EUR", "1"),
        ("amount.", "1"),
        ("order_id", "1"),
        ("amount.eur", "=1+1"),
        ("amount.eur", ""),
    ]
    assert [currency_of(*one) for one in others] == [""] * len(others)


@given(st.text(max_size=30))
def test_any_text_is_read_or_told(text: str) -> None:
    ordered(text)
    try:
        number_of(text)
    except VerificationError:
        pass
    try:
        AmountRange.parse(text)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("EUR:10..20", "10", "20"),
        ("eur:10.50..20.5", "10.5", "20.5"),
        ("EUR:-5..-1", "-5", "-1"),
        ("EUR:12.50", "12.5", "12.5"),
        ("EUR:12.50..12.5", "12.5", "12.5"),
        ("EUR:10..", "10", None),
        ("EUR:..20", None, "20"),
        ("EUR:..", None, None),
    ],
)
def test_a_range(text: str, least: str | None, most: str | None) -> None:
    found = AmountRange.parse(text)
    assert found.currency == "EUR"
    assert (found.least, found.most) == (ordered(least) if least else LEAST, ordered(most) if most else MOST)


@pytest.mark.parametrize(
    "text", ["", "10..20", "EURO:1", "EUR", "EUR:", "EUR:a..b", "EUR:2..1", "EUR:1..2..3", "EUR:1...2", "EUR:1e3"]
)
def test_what_is_no_range_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"write CURRENCY|is no amount|is more than"):
        AmountRange.parse(text)
