"""Payments are read off events, whatever those hold."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.detect.payment import Unreadable
from collector.errors import Malformed
from collector.event import Access, Event, facts_of
from tests.alerting.payments import SETTINGS, event, reader

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_all_that_is_declared_is_read() -> None:
    told = event(
        0, "12.50", shop="S", category="food", device="d", country="DE", lat="52.5", lon=13.4, transaction="T-1"
    )
    found = reader().payment(told, 7)
    assert (found.kind, found.leaf, found.amount, found.currency) == ("card", 7, Decimal("12.50"), "EUR")
    assert (found.account, found.counterparty, found.category, found.device) == ("A", "S", "food", "d")
    assert (found.country, found.place, found.transaction) == ("DE", (52.5, 13.4), "T-1")
    assert found.time_ns == 1_700_000_000_000_000_000


@pytest.mark.parametrize(("amount", "read"), [(3, "3"), (-2.5, "2.5"), ("1e3", "1E+3"), ("0.10", "0.10")])
def test_amounts(amount: Any, read: str) -> None:
    assert str(reader().payment(event(0, amount), 0).amount) == read


@pytest.mark.parametrize("amount", [None, True, "much", "", "NaN", "Infinity", "1e99", "9" * 100, [], {"v": 1}])
def test_what_is_no_amount_is_said_to_be_none(amount: Any) -> None:
    with pytest.raises(Unreadable, match=r"^attributes\.amount: (no|not an) amount$"):
        reader().payment(event(0, amount), 0)


def test_a_payment_has_an_account_and_a_time() -> None:
    with pytest.raises(Unreadable, match="no account"):
        reader().payment(event(0, 1, card=""), 0)
    with pytest.raises(Unreadable, match="no time"):
        reader().payment(Event(attributes={"amount": 1, "card": "A"}), 0)


def test_which_events_are_payments() -> None:
    def matches(**fields: Any) -> bool:
        one = Event(**({"event_name": "paid", "resource": {"service.name": "payments"}} | fields))
        return reader(SETTINGS).matches(facts_of(one, "", {}))

    assert matches()
    assert not matches(event_name="refused")
    assert not matches(resource={"service.name": "shop"})
    assert not matches(outcome="failure")
    assert not matches(severity_number=17)
    assert not matches(access=Access(principal="p", action="a"))


@given(JSON, JSON, JSON, JSON, st.text(max_size=30))
def test_whatever_an_event_holds_it_is_a_payment_or_malformed(
    amount: Any, card: Any, lat: Any, lon: Any, time: str
) -> None:
    strange = Event(time=time, attributes={"amount": amount, "card": card, "lat": lat, "lon": lon})
    try:
        found = reader().payment(strange, 0)
    except Malformed:
        return
    assert found.amount >= 0
    assert found.place is None or (abs(found.place[0]) <= 90 and abs(found.place[1]) <= 180)
