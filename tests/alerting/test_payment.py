"""Payments are read off events, whatever those hold."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.detect.payment import Unreadable, credible
from collector.errors import Malformed
from collector.event import Access, Event, facts_of, format_time
from tests.alerting.payments import BEGIN_NS, DAY, SETTINGS, event, reader

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS

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


@pytest.mark.parametrize(
    ("stated", "read"), [("usd", "USD"), (" Usd ", "USD"), (" ", "EUR"), (None, "EUR"), (978, "978")]
)
def test_currencies(stated: Any, read: str) -> None:
    assert reader().payment(event(0, currency=stated), 0).currency == read


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


@pytest.mark.parametrize(
    ("stated", "observed", "believed"),
    [
        (MINUTE_NS, "", MINUTE_NS),
        (5 * MINUTE_NS, "", 5 * MINUTE_NS),
        (-DAY * SECOND_NS, "", -DAY * SECOND_NS),
        (6 * MINUTE_NS, "", 0),
        (30 * DAY * SECOND_NS, format_time(BEGIN_NS - SECOND_NS), -SECOND_NS),
        (30 * DAY * SECOND_NS, format_time(BEGIN_NS + 30 * DAY * SECOND_NS), 0),
        (30 * DAY * SECOND_NS, "yesterday", 0),
    ],
)
def test_a_time_that_cannot_be_is_not_believed(stated: int, observed: str, believed: int) -> None:
    told = msgspec.structs.replace(event(stated / 1e9), observed=observed)
    one = reader().payment(told, 0)
    found = credible(one, told, recorded_ns=BEGIN_NS)
    assert found.time_ns - BEGIN_NS == believed
    assert (found is one) == (stated == believed)


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
