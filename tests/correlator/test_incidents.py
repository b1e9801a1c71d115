"""Incidents as the log tells them: their place, what is gathered from entries, and bundles that prove them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.event import Event, Incident
from correlator.entry import decode_entry
from correlator.errors import VerificationError
from correlator.incidents import (
    CAUSES,
    Incidents,
    LoggedIncident,
    closed_event,
    incident_id,
    opened_event,
    signed_event,
)
from correlator.index import TrailQuery
from correlator.index.sqlite import SqliteIndex
from correlator.proved import EnrolledKey, check_placement, open_entry, open_event
from tests.support.ledgers import START_NS, SmallLedger
from tests.support.memory_store import MemoryStore

ONE = incident_id("gap", "shop/00000000000000aa", "17")
RECORDER, SERVICE = "api/00000000000000cc", "shop/00000000000000aa"


def opened(subject: str = "shop/00000000000000aa", **more: int) -> Event:
    said = Incident(id=ONE, state="opened", cause="gap", subject=subject, time="2026-01-01T00:00:00.000000000Z", **more)
    return opened_event(said, detail="batches 3 to 4 are missing")


def closed() -> Event:
    said = Incident(id=ONE, state="closed", cause="gap", subject=SERVICE, time="2026-01-01T00:01:00.000000000Z")
    return closed_event(said, detail="they came", seconds=60)


def signed(one: LoggedIncident) -> Event:
    return signed_event(
        one, now_ns=START_NS, by="ann", roles="admin", root_cause="disk", remediation="a new disk", comment="case 7"
    )


@pytest.fixture
def ledger(tmp_path: Path) -> SmallLedger:
    return SmallLedger(store=MemoryStore(), index=SqliteIndex(tmp_path / "index.sqlite", hub_links=20))


def gathered(ledger: SmallLedger) -> Incidents:
    found = Incidents()
    for leaf, data in enumerate(ledger.reader.entries(0, ledger.reader.tree().size)):
        found.add(decode_entry(data), leaf)
    return found


def test_from_its_opening_to_the_sign_off(ledger: SmallLedger) -> None:
    ledger.ship(RECORDER, [opened(first=5, last=9)], role="recorder")
    ledger.publish()
    (one,) = gathered(ledger).all()
    assert (one.state, one.cause, one.subject, one.first, one.last) == ("opened", "gap", SERVICE, 5, 9)
    found = gathered(ledger)
    assert found.open_of("gap", SERVICE) == one
    ledger.ship(RECORDER, [closed(), signed(one)], role="recorder")
    ledger.publish()
    found = gathered(ledger)
    (one,) = found.all()
    assert (one.state, one.signed_by, one.open) == ("signed_off", "ann", False)
    assert one.ended > one.began
    assert found.open_of("gap", SERVICE) is None
    assert found.count_of("gap", SERVICE) == 1
    page = ledger.index.find(TrailQuery(kind="incident"), size=ledger.reader.tree().size)
    assert [trail.trail for trail in page.trails] == [one.trail]
    assert page.trails[0].events == ("incident.closed", "incident.opened", "incident.signed_off")


def test_a_service_that_claims_an_incident_is_placed_like_any_other(ledger: SmallLedger) -> None:
    ledger.ship(SERVICE, [opened()])
    ledger.publish()
    assert not gathered(ledger).all()


def test_a_verifier_demands_the_same_place(ledger: SmallLedger) -> None:
    (ref,) = ledger.ship(RECORDER, [opened()], role="recorder")
    ledger.publish()
    data = next(data for data in ledger.reader.entries(0, ledger.reader.tree().size) if b'"incident":{' in data)
    (event,) = ledger.store.events([ref])
    proved = open_event(open_entry(data, "it"), event, "it")
    key = EnrolledKey(stream=RECORDER, key="", how="first use", role="recorder")
    check_placement(proved, key)
    with pytest.raises(VerificationError, match="does not belong here"):
        check_placement(proved, EnrolledKey(stream=RECORDER, key="", how="first use", role="collector"))


def test_one_whose_id_can_be_none_stands_where_a_verifier_looks_for_it(ledger: SmallLedger) -> None:
    (ref,) = ledger.ship(RECORDER, [Event(incident=Incident(id="x", state="opened", cause="gap"))], role="recorder")
    ledger.publish()
    assert not gathered(ledger).all()
    data = next(data for data in ledger.reader.entries(0, ledger.reader.tree().size) if b'"incident":{' in data)
    (event,) = ledger.store.events([ref])
    proved = open_event(open_entry(data, "it"), event, "it")
    assert proved.trail == f"stream/{RECORDER}"
    check_placement(proved, EnrolledKey(stream=RECORDER, key="", how="first use", role="recorder"))


def test_the_first_word_holds_and_twice_is_once() -> None:
    found = Incidents()
    times = ("2026-01-01T00:00:00.000000000Z", "2026-01-02T00:00:00.000000000Z")
    for time in times:
        found.take(Incident(id=ONE, state="opened", cause="fork", subject="s", time=time), leaf=3)
    (one,) = found.all()
    assert one.began.startswith("2026-01-01")
    assert (len(found), found.count_of("fork", "s")) == (1, 1)


def test_what_waits_in_the_spool_gets_its_leaf_when_the_log_has_it() -> None:
    found = Incidents()
    said = Incident(id=ONE, state="opened", cause="fork", subject="s", time="2026-01-01T00:00:00.000000000Z")
    assert found.take(said).opened_leaf == -1
    assert found.take(said, leaf=4).opened_leaf == 4


@given(st.sampled_from(sorted(CAUSES)), st.text(max_size=40), st.integers(0, 10_000))
def test_an_id_follows_from_its_parts_and_holds_no_card_number(cause: str, subject: str, number: int) -> None:
    found = incident_id(cause, subject, str(number))
    assert found == incident_id(cause, subject, str(number))
    assert re.fullmatch("[0-9a-f]{32}", found)
    assert not re.search(r"\d{12}", found)
