"""The contract of every trail index, on each of them; and what only the SQLite one can get wrong.

Those of OpenSearch are in test_opensearch_index.py.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.errors import NotFound, Overloaded, StateUnknown
from correlator.index import AmountRange, TextSearch, TrailIndex, TrailQuery
from correlator.index.condition import Condition
from correlator.index.filters import parse_filter
from correlator.index.memory import MemoryIndex
from correlator.index.opensearch.index import OpenSearchIndex
from correlator.index.recent import Recent
from correlator.index.rows import KEYS_A_PAGE, MAX_EVENT_NAMES, MAX_HUB_LINKS, MAX_SERVICES
from correlator.index.sqlite import SqliteIndex
from tests.support.filters import conditions
from tests.support.leaves import TIME, Leaves, in_runs, story

REAL_SERVER = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]


@pytest.fixture(params=["memory", "sqlite", pytest.param("opensearch", marks=REAL_SERVER)])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TrailIndex]:
    made: TrailIndex
    if request.param == "memory":
        made = MemoryIndex(hub_links=2)
    elif request.param == "sqlite":
        made = SqliteIndex(tmp_path / "index.sqlite", hub_links=2)
    else:
        made = OpenSearchIndex(request.getfixturevalue("opensearch_index"), hub_links=2)
    yield made
    made.close()


def trails(index: TrailIndex, size: int = 1 << 40, **query: Any) -> list[str]:
    return [trail.trail for trail in index.find(TrailQuery(**query), size=size).trails]


def test_a_summary_tells_all(index: TrailIndex) -> None:
    index.apply(story().made)
    assert index.size() == 9
    pay = index.trail("transaction/pay-1")
    assert (pay.entries, pay.first_leaf, pay.last_leaf) == (4, 0, 7)
    assert (pay.first_time, pay.last_time) == (TIME.format(2), TIME.format(3))
    assert pay.services == ("gateway", "ledger")
    assert pay.keys == (("order_id", "o1"),)
    assert (pay.status, pay.links, pay.hub) == ("complete", ("key/order_id/o1",), False)
    assert index.trail("transaction/pay-2").status == "error"
    assert index.trail("stream/gateway/0123456789abcdef").status == "gap"
    assert index.trail("trace/" + "a" * 32).status == "ok"
    assert index.trail("key/order_id/o1").keys == (("order_id", "o1"),)
    with pytest.raises(NotFound, match="transaction/none"):
        index.trail("transaction/none")


def test_each_condition_finds_and_all_must_hold(index: TrailIndex) -> None:
    index.apply(story().made)
    pay, acme = "transaction/pay-1", "tenant/acme/transaction/pay-1"
    assert trails(index, transaction="pay-1") == [pay]
    assert trails(index, transaction="pay-1", tenant="acme") == [acme]
    assert trails(index, tenant="acme") == [acme]
    assert trails(index, key=("order_id", "o1")) == ["key/order_id/o1", pay]
    assert trails(index, key=("order_id", "o1"), kind="transaction") == [pay]
    assert trails(index, key=("order_id", "o1"), service="ledger") == [pay]
    assert trails(index, key=("order_id", "o1"), service="risk") == []
    assert trails(index, service="ledger") == ["transaction/pay-2", pay]
    assert trails(index, service="ledger", status="error") == ["transaction/pay-2"]
    assert trails(index, status="complete") == [pay]
    assert trails(index, status="ok") == ["trace/" + "a" * 32, acme, "key/order_id/o1"]
    assert trails(index, kind="stream") == ["stream/gateway/0123456789abcdef"]
    assert trails(index, since=TIME.format(3)) == [acme, pay]
    assert trails(index, until=TIME.format(3)) == ["transaction/pay-2", pay]
    assert trails(index, since=TIME.format(4), until=TIME.format(7)) == []
    assert trails(index, service="none") == trails(index, status="none") == trails(index, kind="none") == []


def test_amounts_are_found_by_range_within_their_currency(index: TrailIndex) -> None:
    leaves = Leaves()
    leaves.event("transaction/a", service="s", keys={"amount.eur": "12.5", "order_id": "o1"})
    leaves.event("transaction/b", service="t", keys={"amount.eur": "900", "amount.usd": "1000"})
    leaves.event("transaction/refund", keys={"amount.eur": "-12.5"})
    leaves.event("transaction/none", keys={"amount.eur": "", "order_id": "o1"})
    leaves.event("transaction/token", keys={"amount.eur": "[4111 11** **** 1111]"})
    leaves.event("transaction/two", keys={"amount.eur": "5"})
    index.apply(leaves.made)
    leaves.event("transaction/two", keys={"amount.eur": "50"})
    leaves.event("transaction/two", keys={"amount.eur": "20"})
    index.apply(leaves.made[6:])

    def of(text: str, **more: Any) -> list[str]:
        found = trails(index, amount=AmountRange.parse(text), **more)
        return [trail.removeprefix("transaction/") for trail in found]

    assert of("EUR:12.50") == ["two", "a"], "the span from 5 to 50 meets it"
    assert of("EUR:100..") == ["b"]
    assert of("EUR:..0") == ["refund"]
    assert of("EUR:..") == ["two", "refund", "b", "a"]
    assert of("USD:..") == ["b"]
    assert of("USD:900") == [], "900 euros are no dollars"
    assert of("CHF:..") == []
    assert of("EUR:..", key=("order_id", "o1")) == ["a"]
    assert of("EUR:..", service="t") == ["b"]
    assert of("EUR:..", kind="key") == []
    assert index.trail("transaction/two").amounts == (("EUR", "5", "50"),)
    assert index.trail("transaction/b").amounts == (("EUR", "900", "900"), ("USD", "1000", "1000"))
    assert index.trail("transaction/a").keys == (("order_id", "o1"),), "an amount is no key to an index"
    assert index.trail("transaction/token").amounts == ()
    page = index.find(TrailQuery(amount=AmountRange.parse("EUR:..")), size=len(leaves.made), limit=2)
    rest = index.find(
        TrailQuery(amount=AmountRange.parse("EUR:..")), size=len(leaves.made), below=page.next_below, limit=2
    )
    assert [one.trail[12:] for one in (*page.trails, *rest.trails)] == ["two", "refund", "b", "a"]


def test_text_is_found_in_ids_keys_and_names(index: TrailIndex) -> None:
    leaves = Leaves()
    leaves.event(
        "transaction/PAY-1", service="paymentGateway", name="payment.refundTimeout", keys={"order_id": "O 1/x"}
    )
    leaves.event("tenant/acme/transaction/Pay-1", service="ledger", name="refund.requested")
    leaves.event("key/account/Ab-7", name="refund_timeout", keys={"amount.eur": "77"})
    leaves.event("trace/" + "a" * 32, service="ledger")
    leaves.add("transaction/links-only", "link", to="transaction/PAY-1")
    index.apply(leaves.made)
    leaves.event("trace/" + "a" * 32, service="ledger", name="Timeout", keys={"order_id": "o-2"})
    index.apply(leaves.made[5:])

    def of(text: str, **more: Any) -> list[int]:
        page = index.find(TrailQuery(text=TextSearch.parse(text), **more), size=1 << 40)
        return [one.first_leaf for one in page.trails]

    assert of("refund timeout") == of("TIMEOUT Refund") == [2, 0]
    assert of("timeout") == [3, 2, 0]
    assert of("refundtimeout") == of("refundTimeout") == of("payment.refundTimeout") == [0]
    assert of("refund_timeout") == [2, 0], "each word of it is a word of the names"
    assert of("pay-1") == of("PAY-1") == [1, 0]
    assert of("pay-1", tenant="acme") == [1]
    assert of("pay") == [], "a value is matched whole"
    assert of("pay*") == [1, 0]
    assert of("o") == [0], "a value with white space is several"
    assert of("1/X ledger") == []
    assert of("1/X gateway") == [0]
    assert of("ab-7") == [2]
    assert of("o-2") == [3]
    assert of("links-only") == [4]
    assert of("eur") == of("77") == of("order_id") == of("transaction") == [], "names of keys, and amounts, are no text"
    assert of("ledg*", kind="trace") == of("ledger", service="ledger", kind="trace") == [3]
    assert of("refund", key=("order_id", "O 1/x")) == of("refund", service="paymentGateway") == [0]
    assert of("refund-*") == [2, 1, 0]
    assert of("refun-*") == [], "a word that a sign ends is whole"
    assert of("payment-ref*") == [0]
    assert of("ab*", status="error") == of("nothing refund") == []
    assert index.trail("transaction/PAY-1").events == ("payment.refundTimeout",)
    first = index.find(TrailQuery(text=TextSearch.parse("timeout")), size=len(leaves.made), limit=2)
    assert ([one.first_leaf for one in first.trails], first.next_below) == ([3, 2], 2)
    leaves.event("transaction/late", name="timeout")
    index.apply(leaves.made[6:])
    rest = index.find(TrailQuery(text=TextSearch.parse("timeout")), size=6, below=first.next_below, limit=2)
    assert ([one.first_leaf for one in rest.trails], rest.next_below) == ([0], None)


def test_conditions_combine(index: TrailIndex) -> None:
    leaves = story()
    leaves.event("transaction/pay-3", service="risk", name="payment.refused", keys={"amount.eur": "20", "a=b": "c=d"})
    index.apply(leaves.made)
    pay1, pay2, pay3 = (f"transaction/pay-{number}" for number in (1, 2, 3))
    acme, trace = "tenant/acme/transaction/pay-1", "trace/" + "a" * 32
    key, stream = "key/order_id/o1", "stream/gateway/0123456789abcdef"

    def of(text: str, **more: Any) -> list[str]:
        return trails(index, condition=parse_filter(text), **more)

    assert of("service = ledger or service = risk") == of("service in (risk, ledger)") == [pay3, pay2, pay1]
    assert of("service = ledger and service = gateway") == [pay1]
    assert of("not service in (ledger, risk)") == [trace, stream, acme, key]
    assert of("status = error or status = gap") == of("status in (gap, error)") == [stream, pay2]
    assert of("status != ok and kind = transaction") == [pay2, pay1]
    assert of("kind = transaction and not (status = complete or amount.EUR >= 10)") == [acme, pay2]
    assert of("transaction = pay-1 or trail = tenant/acme/transaction/pay-1") == [acme, pay1]
    assert of("tenant = acme or key.order_id = o1") == [acme, key, pay1]
    assert of("tenant != acme and kind = transaction") == [pay3, pay2, pay1]
    assert of('key."a=b" = "c=d"') == of("event = payment.refused") == of("amount.EUR > 19.99") == [pay3]
    assert of("amount.EUR > 20") == of("amount.EUR < 20") == of('key.a = "b=c"') == []
    assert of("amount.EUR != 20 and kind = transaction") == [acme, pay2, pay1], "with other amounts, or none"
    assert of(f"time >= {TIME.format(3)}") == [acme, pay1]
    assert of(f"time > {TIME.format(3)}") == [acme]
    assert of(f"time <= {TIME.format(2)}") == of(f"time < {TIME.format(3)}") == [pay2, pay1]
    assert of(f"not time > {TIME.format(1)} and kind = transaction") == [pay3, pay2], "one states no time"
    assert of('text ~ "pay-1" and not tenant = acme') == [pay1]
    assert of('text ~ "pay-1" and text ~ ledger or text ~ refus*') == [pay3, pay1]
    assert of("service = ledger or status = gap", status="error") == [pay2], "beside the other fields"
    assert of("service = ledger", service="gateway") == [pay1]
    assert of("tenant = acme", transaction="pay-1") == [], "a transaction is looked for within the field `tenant` alone"
    assert of("tenant = acme", transaction="pay-1", tenant="acme") == [acme]
    assert of(f"time >= {TIME.format(2)}", since=TIME.format(4)) == [acme]
    assert of(f"time < {TIME.format(2)}", until=TIME.format(8)) == [pay2]
    query = TrailQuery(condition=parse_filter("service = ledger or service = gateway"))
    page = index.find(query, size=9, limit=2)
    rest = index.find(query, size=9, below=page.next_below, limit=2)
    assert [one.trail for one in (*page.trails, *rest.trails)] == [acme, pay2, pay1]
    assert rest.next_below is None


def test_names_of_events_are_kept_up_to_a_number(index: TrailIndex) -> None:
    leaves = Leaves()
    for number in range(MAX_EVENT_NAMES + 3):
        leaves.event("transaction/t", name=f"e{number}")
    index.apply(leaves.made[:100])
    index.apply(leaves.made[100:])
    assert len(index.trail("transaction/t").events) == MAX_EVENT_NAMES
    for number, found in ((0, 1), (MAX_EVENT_NAMES - 1, 1), (MAX_EVENT_NAMES, 0)):
        assert len(trails(index, text=TextSearch.parse(f"e{number}"))) == found


def test_names_of_services_are_kept_up_to_a_number(index: TrailIndex) -> None:
    leaves = Leaves()
    for number in range(MAX_SERVICES + 3):
        leaves.event("transaction/t", service=f"s{number}")
    leaves.event("transaction/t", service="s0", name="known")
    leaves.event("transaction/t", service="one more", name="beside it")
    index.apply(leaves.made[:100])
    index.apply(leaves.made[100:])
    row = index.trail("transaction/t")
    assert len(row.services) == MAX_SERVICES
    assert row.events == ("beside it", "known")
    for number, found in ((0, 1), (MAX_SERVICES - 1, 1), (MAX_SERVICES, 0)):
        assert len(trails(index, service=f"s{number}")) == found
        assert len(trails(index, text=TextSearch.parse(f"s{number}"))) == found


def test_a_trail_of_very_many_keys_is_found_by_each_and_tells_some(index: TrailIndex) -> None:
    leaves, shop = Leaves(), "key/shop/acme"
    count = 3 * KEYS_A_PAGE + 7
    for number in range(count):
        leaves.event(
            shop, service="till", keys={"till.receipt": f"R-{number}", "kind": "sale", "amount.eur": str(number)}
        )
        if number % 50 == 0:
            leaves.event(f"transaction/{number}", keys={"till.receipt": f"R-{number}"})
    memory = MemoryIndex(hub_links=2)
    memory.apply(leaves.made)
    for at in range(0, len(leaves.made), 170):
        index.apply(in_runs(leaves.made[at : at + 170]))
    told = index.trail(shop)
    assert told == memory.trail(shop)
    assert KEYS_A_PAGE <= len(told.keys) <= 2 * KEYS_A_PAGE
    assert {("shop", "acme"), ("kind", "sale"), ("till.receipt", "R-0"), ("till.receipt", f"R-{count - 1}")} <= {
        *told.keys
    }
    assert told.amounts == (("EUR", "0", str(count - 1)),)
    for number in (0, 1, KEYS_A_PAGE - 3, KEYS_A_PAGE, 300, 2 * KEYS_A_PAGE - 3, 2 * KEYS_A_PAGE, count - 1):
        both = [shop, f"transaction/{number}"] if number % 50 == 0 else [shop]
        assert sorted(trails(index, key=("till.receipt", f"R-{number}"))) == both
        assert sorted(trails(index, text=TextSearch.parse(f"r-{number}"))) == both
        assert trails(index, text=TextSearch.parse(f"r-{number} acme till")) == [shop]
        assert trails(index, key=("till.receipt", f"R-{number}"), service="till") == [shop]
    for text, its in {
        'key."till.receipt" = "R-310"': [shop],
        'key."till.receipt" in ("R-310", "R-50", "R-none")': ["transaction/50", shop],
        'not key."till.receipt" = "R-310" and kind = key': [],
        'not key."till.receipt" = "R-none" and kind = key': [shop],
        'text ~ "r-31*" and key.kind = sale': [shop],
        'text ~ "r-99999*" or key."till.receipt" = "R-none"': [],
        'key."till.receipt" = "R-300" and text ~ "r-301"': [shop],
        'key."till.receipt" = "R-300" and not text ~ "r-301"': ["transaction/300"],
    }.items():
        assert trails(index, condition=parse_filter(text)) == its, text
    assert trails(index, size=1, key=("till.receipt", "R-310")) == [shop]
    assert trails(index, size=0, key=("till.receipt", "R-310")) == []


def test_pages_are_stable_while_the_log_grows(index: TrailIndex) -> None:
    leaves = Leaves()
    for number in range(25):
        leaves.event(f"transaction/{number}", service="s")
    index.apply(leaves.made)
    size = 25
    first = index.find(TrailQuery(service="s"), size=size, limit=10)
    for number in range(5):
        leaves.event(f"transaction/late-{number}", service="s")
        leaves.event(f"transaction/{number}", service="s")
    index.apply(leaves.made[size:])
    second = index.find(TrailQuery(service="s"), size=size, below=first.next_below, limit=10)
    third = index.find(TrailQuery(service="s"), size=size, below=second.next_below, limit=10)
    found = [*first.trails, *second.trails, *third.trails]
    assert [trail.first_leaf for trail in found] == list(range(24, -1, -1))
    assert third.next_below is None
    assert {trail.entries for trail in found} == {1}, "entries beyond the cursor's size are not counted"
    assert index.find(TrailQuery(), size=size, limit=25).next_below is None


def test_leaves_by_position(index: TrailIndex) -> None:
    leaves = Leaves()
    expected = []
    for _ in range(7):
        start = len(leaves.made)
        expected += [leaves.event("transaction/t") for _ in range(3)]
        leaves.event("transaction/other")
        index.apply(leaves.made[start:])
    for start in range(len(expected) + 1):
        for limit in (0, 1, 4, 100):
            assert list(index.leaves("transaction/t", start=start, limit=limit)) == expected[start : start + limit]
    assert list(index.leaves("transaction/t", size=10)) == [leaf for leaf in expected if leaf < 10]
    assert list(index.leaves("transaction/none")) == []


def test_leaves_that_are_indexed_are_passed_over_and_a_hole_is_refused(index: TrailIndex) -> None:
    leaves = story()
    index.apply(leaves.made[:5])
    before = index.trail("transaction/pay-1")
    index.apply(leaves.made[:5])
    assert index.trail("transaction/pay-1") == before
    with pytest.raises(ValueError, match="5 are indexed"):
        index.apply(leaves.made[6:])
    index.apply(leaves.made[2:])
    assert index.size() == 9
    index.apply([])
    assert index.trail("transaction/pay-1").entries == 4


def test_events_in_runs_are_as_good_as_one_by_one(index: TrailIndex) -> None:
    leaves = Leaves()
    for step in range(6):
        leaves.event("transaction/a", service=f"s{step % 2}", time=TIME.format(step), keys={"k": "v"}, error=step == 4)
        if step % 3 == 1:
            leaves.add("transaction/a", "link", to="key/k/v")
        for _ in range(step):
            leaves.event("transaction/b", service="s2")
    memory = MemoryIndex(hub_links=2)
    memory.apply(leaves.made)
    index.apply(in_runs(leaves.made[:7]))
    index.apply(in_runs(leaves.made[3:12]))  # the first of them are known, one run in part
    index.apply(in_runs(leaves.made[12:]))
    assert index.size() == len(leaves.made)
    assert index.find(TrailQuery(), size=1 << 40) == memory.find(TrailQuery(), size=1 << 40)
    for trail in ("transaction/a", "transaction/b"):
        assert list(index.leaves(trail)) == list(memory.leaves(trail))


@pytest.mark.parametrize(
    "trail", ["stream/shoP/0123456789abcdef", "incident/x", "incident/", "", "key/a", "tenant/%/transaction/x"]
)
def test_trails_that_cannot_be_are_passed_over(index: TrailIndex, trail: str) -> None:
    leaves = Leaves()
    leaves.event("transaction/a")
    leaves.add(trail, "gap", reason="bad_signature")
    leaves.event(trail)
    leaves.event("transaction/a")
    index.apply(in_runs(leaves.made[:3]))
    leaves.event(trail)
    leaves.event("transaction/b")
    index.apply(leaves.made[3:])
    assert index.size() == len(leaves.made) == 6
    assert trails(index) == ["transaction/b", "transaction/a"]
    assert list(index.leaves("transaction/a")) == [0, 3]
    assert list(index.leaves(trail)) == []
    with pytest.raises(NotFound):
        index.trail(trail)


def test_a_key_with_many_links_is_a_hub(index: TrailIndex) -> None:
    leaves = Leaves()
    with pytest.raises(NotFound):
        index.is_hub("key/account/7")
    for number in range(3):
        assert not [t for t in index.find(TrailQuery(), size=1 << 40).trails if t.hub]
        leaves.add("key/account/7", "link", to=f"transaction/{number}")
        leaves.add(f"transaction/{number}", "link", to="key/account/7")
        index.apply(leaves.made[-2:])
        assert index.is_hub("key/account/7") is (number == 2)
    assert not index.is_hub("transaction/0")
    assert index.trail("key/account/7").hub
    assert index.trail("key/account/7").links == ("transaction/0", "transaction/1", "transaction/2")


def test_of_a_hubs_links_some_are_told_and_the_rest_counted(index: TrailIndex) -> None:
    leaves = Leaves()
    for number in range(MAX_HUB_LINKS + 300):
        leaves.add("key/account/7", "link", to=f"transaction/{number:04d}")
        leaves.add("transaction/all", "link", to=f"key/order/{number:04d}")
    index.apply(leaves.made)
    for told in (index.trail("key/account/7"), index.find(TrailQuery(kind="key"), size=1 << 40).trails[0]):
        assert (told.hub, len(told.links), told.links_left_out) == (True, MAX_HUB_LINKS, 300)
        assert list(told.links) == sorted(set(told.links))
    assert index.all_links("key/account/7") == [f"transaction/{number:04d}" for number in range(MAX_HUB_LINKS + 300)]
    assert index.all_links("key/account/8") == []
    whole = index.trail("transaction/all")
    assert (len(whole.links), whole.links_left_out) == (MAX_HUB_LINKS + 300, 0)


def test_a_newer_verdict_stands_and_an_error_does_not_hide_it(index: TrailIndex) -> None:
    leaves = Leaves()
    trail = "transaction/t"
    for verdict in ("incomplete", "complete"):
        leaves.add(trail, "verdict", flow="f", verdict=verdict, missing=[])
        leaves.event(trail, error=True)
        index.apply(leaves.made[-2:])
        assert index.trail(trail).status == verdict


def test_clear_and_begin_again(index: TrailIndex) -> None:
    leaves = story()
    index.apply(leaves.made)
    before = index.find(TrailQuery(), size=1 << 40)
    index.clear()
    assert index.size() == 0
    assert index.find(TrailQuery(), size=1 << 40).trails == ()
    index.apply(leaves.made)
    assert index.find(TrailQuery(), size=1 << 40) == before


some_trails = st.sampled_from(
    ["transaction/a", "transaction/b", "key/k/v", "trace/" + "b" * 32, "tenant/x/key/k/v", "tenant/x/transaction/a"]
)
some_facts: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    service=st.sampled_from(["", "s1", "s2"]),
    name=st.sampled_from(["", "K.one", "oneTwo", "two\U0010ffff v", "İx"]),
    time=st.sampled_from(["", *(TIME.format(n) for n in range(4))]),
    keys=st.dictionaries(
        st.sampled_from(["k", "l", "amount.eur", "amount.usd"]), st.sampled_from(["v", "1", "2.5", "-3"])
    ),
    error=st.booleans(),
)
text_searches = ("v", "one", "ONE s1", "t*", "k/v", "a one*", "İx", "two\U0010ffff*", "b* s*", "2.5", "k-* o*")


@given(
    st.lists(st.tuples(some_trails, some_facts | some_trails), max_size=30),
    st.lists(st.integers(1, 10), max_size=6),
    st.integers(0, 30),
    st.lists(conditions, min_size=1, max_size=4),
    st.sampled_from([0, 1, KEYS_A_PAGE]),
)
def test_sqlite_and_memory_never_differ(
    what: list[Any], steps: list[int], size: int, combined: list[Condition], page: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr("correlator.index.rows.KEYS_A_PAGE", page)
        must_never_differ(Path(folder) / "index.sqlite", what, steps, size, combined)


def must_never_differ(path: Path, what: list[Any], steps: list[int], size: int, combined: list[Condition]) -> None:
    leaves = Leaves()
    for trail, fact in what:
        if isinstance(fact, str):
            leaves.add(trail, "link", to=fact)
        else:
            leaves.event(trail, **fact)
    memory = MemoryIndex(hub_links=2)
    at = 0
    for step in [*steps, len(what)]:
        # a new object each time reads back what the last one wrote
        disk = SqliteIndex(path, hub_links=2)
        for index in (memory, disk):
            index.apply(leaves.made[at : at + step])
        at = min(at + step, len(what))
        disk.close()
    disk = SqliteIndex(path, hub_links=2)
    for query in (
        TrailQuery(),
        TrailQuery(service="s1"),
        TrailQuery(key=("k", "v")),
        TrailQuery(amount=AmountRange.parse("EUR:1..2")),
        TrailQuery(amount=AmountRange.parse("USD:..0"), key=("k", "v")),
        TrailQuery(since=TIME.format(2)),
        TrailQuery(until=TIME.format(1), kind="transaction"),
        TrailQuery(status="error"),
        TrailQuery(tenant="x"),
        *(TrailQuery(text=TextSearch.parse(text)) for text in text_searches),
        TrailQuery(text=TextSearch.parse("one"), service="s1", kind="transaction"),
        *(TrailQuery(condition=condition) for condition in combined),
        TrailQuery(condition=combined[0], text=TextSearch.parse("v"), since=TIME.format(1), service="s1"),
        TrailQuery(condition=combined[0], transaction="a"),
    ):
        assert disk.find(query, size=size, limit=3) == memory.find(query, size=size, limit=3)
    for trail in {trail for trail, _ in what}:
        assert disk.trail(trail) == memory.trail(trail)
        assert list(disk.leaves(trail, start=1, size=size)) == list(memory.leaves(trail, start=1, size=size))
    disk.close()


# ------------------------------------------------------------------------------------------------------------ SQLite only


@pytest.mark.parametrize(
    ("query", "uses"),
    [
        (TrailQuery(), "SEARCH trails USING INTEGER PRIMARY KEY"),
        (TrailQuery(transaction="t"), "sqlite_autoindex_trails_1 (trail=?)"),
        (TrailQuery(key=("a", "b")), "SEARCH keys USING PRIMARY KEY (name=? AND value=? AND first_leaf<?)"),
        (TrailQuery(service="s"), "SEARCH services USING PRIMARY KEY (service=? AND first_leaf<?)"),
        (TrailQuery(status="failed"), "trails_by_status (status=? AND rowid<?)"),
        (TrailQuery(kind="key"), "trails_by_kind (kind=? AND rowid<?)"),
        (TrailQuery(tenant="acme"), "trails_by_tenant (tenant=? AND rowid<?)"),
        (
            TrailQuery(amount=AmountRange.parse("EUR:1..")),
            "SEARCH amounts USING COVERING INDEX amounts_by_most (currency=? AND most>?",
        ),
        (
            TrailQuery(amount=AmountRange.parse("EUR:1.."), service="s"),
            "SEARCH amounts USING PRIMARY KEY (first_leaf=? AND currency=?)",
        ),
        (TrailQuery(text=TextSearch.parse("a b*")), "SEARCH texts USING PRIMARY KEY (text=?)"),
        (TrailQuery(text=TextSearch.parse("a*")), "SEARCH words USING PRIMARY KEY (word>? AND word<?)"),
        (TrailQuery(text=TextSearch.parse("a"), service="s"), "SEARCH services USING PRIMARY KEY (service=?"),
        (TrailQuery(condition=parse_filter("service = s and status = failed")), "SEARCH services USING PRIMARY KEY"),
        (TrailQuery(condition=parse_filter("key.a in (b, c)")), "SEARCH keys USING PRIMARY KEY (name=? AND value=?)"),
        (TrailQuery(condition=parse_filter("trail = t")), "sqlite_autoindex_trails_1 (trail=?)"),
        (
            TrailQuery(
                condition=parse_filter("service = s or event in (e, f) or status in (failed, gap) or tenant = t")
            ),
            "SEARCH trails USING COVERING INDEX trails_by_status (status=?)",
        ),
        (TrailQuery(condition=parse_filter("not service = s")), "SEARCH trails USING INTEGER PRIMARY KEY (rowid<?)"),
        (TrailQuery(since="2026"), "SEARCH trails USING INTEGER PRIMARY KEY (rowid<?)"),
    ],
)
def test_no_search_sorts_or_scans(tmp_path: Path, query: TrailQuery, uses: str) -> None:
    index = SqliteIndex(tmp_path / "index.sqlite")
    plan = index.explain(query)
    assert uses in plan
    assert "TEMP B-TREE" not in plan
    assert "SCAN" not in plan
    index.close()


def test_a_text_of_frequent_words_alone_is_found_by_walking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("correlator.index.search._RARE", 2)
    leaves = Leaves()
    for number in range(9):
        leaves.event(f"transaction/{number}", service="s", name=("odd", "even")[number % 2 == 0])
    index = SqliteIndex(tmp_path / "index.sqlite")
    index.apply(leaves.made)
    assert trails(index, text=TextSearch.parse("even s")) == [f"transaction/{number}" for number in (8, 6, 4, 2, 0)]
    assert trails(index, text=TextSearch.parse("even odd")) == []
    assert trails(index, text=TextSearch.parse("s 3")) == ["transaction/3"]
    monkeypatch.setattr("correlator.index.sqlite._LOOKS", 4)
    for text, expected in (("even s", [8, 6, 4, 2, 0]), ("even odd", [])):
        for limit in (1, 2, 9):
            found, below, pages = [], None, 0
            while pages == 0 or below is not None:
                page = index.find(TrailQuery(text=TextSearch.parse(text)), size=9, below=below, limit=limit)
                found += [int(one.trail.partition("/")[2]) for one in page.trails]
                below, pages = page.next_below, pages + 1
                assert len(page.trails) <= limit
            assert (found, pages >= 3) == (expected, True)
    index.close()


def test_of_a_prefix_only_trails_whose_rows_lack_it_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("correlator.index.rows.KEYS_A_PAGE", 2)
    monkeypatch.setattr("correlator.index.search._RARE", 2)  # frequent: all trails are walked
    monkeypatch.setattr("correlator.index.sqlite._LOOKS_A_TURN", 1)
    leaves = Leaves()
    for number in range(6):
        for receipt in range(7):
            leaves.event(f"key/shop/{number}", service="till", keys={"receipt": f"R-{receipt}"})
    leaves.event("key/shop/0", keys={f"late.{at}": f"x{at}" for at in range(4)})
    index = SqliteIndex(tmp_path / "index.sqlite")
    index.apply(leaves.made)
    for text, lookups in (("r-*", 0), ("ti*", 0), ("r-5*", 1), ("r-1*", 6)):
        statements: list[str] = []
        index._db.set_trace_callback(statements.append)
        found = trails(index, text=TextSearch.parse(text))
        index._db.set_trace_callback(None)
        assert len(found) == 6
        assert sum("min(text)" in one for one in statements) == lookups, text
    index.close()


@pytest.mark.parametrize(
    "changed", ['{"EUR":["1","2"]}', '{"EUR":["x"]}', "{", '{"EUR":["' + "9" * 24 + '","' + "9" * 24 + '"]}']
)
def test_amounts_that_are_none_are_damage(tmp_path: Path, changed: str) -> None:
    leaves = Leaves()
    leaves.event("transaction/a", keys={"amount.eur": "1"})
    path = tmp_path / "index.sqlite"
    index = SqliteIndex(path)
    index.apply(leaves.made)
    assert index.trail("transaction/a").amounts == (("EUR", "1", "1"),)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE trails SET amounts = ?", (changed,))
    db.close()
    with pytest.raises(StateUnknown, match="damaged"):
        index.trail("transaction/a")
    index.close()


def test_names_are_kept_in_memory_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("correlator.index.sqlite._KNOWN_NAMES", 8)
    leaves = Leaves()
    for number in range(30):
        leaves.event(f"transaction/{number}", service="s", name=f"e{number}", keys={f"k{number}": "v"})
    index = SqliteIndex(tmp_path / "index.sqlite")
    for at in range(30):
        index.apply(leaves.made[at : at + 1])
        assert max(len(index._names), len(index._worded)) <= 8
    for number in range(30):
        assert trails(index, key=(f"k{number}", "v")) == trails(index, text=TextSearch.parse(f"e{number}"))
    assert len(trails(index, service="s", key=("k3", "v"))) == 1
    index.close()


def test_what_was_touched_lately_is_kept_within_bounds() -> None:
    recent = Recent[list[str]](len, trails=3, keys=10)

    def touch(*trails: str, keys: int = 1) -> None:
        for trail in trails:
            kept = recent.get(trail) or []
            kept += ["k"] * keys
            recent.put(trail, kept, new_keys=keys)
        recent.turn()

    touch("a", "b")
    touch("a")
    assert len(recent) == 2
    touch("c")
    touch("d")
    assert [trail for trail in "abcd" if recent.get(trail) is None] == [], "the old generation is still there"
    touch("e", "f", "g")
    touch("h", "i", "j")
    assert recent.get("a") is None, "not touched for two generations"
    recent.forget()
    touch("a", keys=6)
    touch("b", keys=3)
    touch("a", keys=1)
    touch("c", keys=10)
    assert (recent.get("a"), recent.get("b")) == (None, None), "few trails, many keys"


def test_trails_of_many_keys_are_not_all_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recent.__init__, "__kwdefaults__", {"trails": 8_192, "keys": 200})
    leaves, memory = Leaves(), MemoryIndex()
    for number in range(600):
        leaves.event(f"key/account/{number // 20}", keys={"order": f"o-{number}"})
    index = SqliteIndex(tmp_path / "index.sqlite")
    for at in range(0, 600, 60):
        for one in (memory, index):
            one.apply(leaves.made[at : at + 60])
    held = {id(row): row for generation in (index._recent._young, index._recent._old) for row in generation.values()}
    assert 200 <= sum(len(row.keys) for row in held.values()) < 600
    assert index.find(TrailQuery(), size=600) == memory.find(TrailQuery(), size=600)
    index.close()


def test_another_process_may_reindex_meanwhile(tmp_path: Path) -> None:
    leaves = story()
    one, other = SqliteIndex(tmp_path / "index.sqlite"), SqliteIndex(tmp_path / "index.sqlite")
    one.apply(leaves.made[:6])
    other.clear()
    other.apply(leaves.made[:7])
    one.apply(leaves.made)
    assert one.trail("transaction/pay-1").entries == 4
    assert other.trail("transaction/pay-1") == one.trail("transaction/pay-1")
    one.close()
    other.close()


def test_a_reader_needs_an_index_and_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with pytest.raises(Overloaded):
        SqliteIndex(path, read_only=True)
    SqliteIndex(path).close()
    reader = SqliteIndex(path, read_only=True)
    assert reader.size() == 0
    with pytest.raises(Overloaded):
        reader.apply(story().made)
    reader.close()


def test_drivers_errors_do_not_get_out(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(b"no database at all" * 1_000)
    with pytest.raises(StateUnknown, match="reindex"):
        SqliteIndex(path)
    path.unlink()
    SqliteIndex(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateUnknown, match="format 99"):
        SqliteIndex(path)
    with pytest.raises(NotFound):
        SqliteIndex(path, read_only=True)


def test_a_failed_write_leaves_no_trace(tmp_path: Path) -> None:
    index = SqliteIndex(tmp_path / "index.sqlite")
    leaves = story()
    index.apply(leaves.made[:4])
    bad = Leaves()
    bad.made = list(leaves.made[:4])
    bad._positions = {"transaction/pay-1": 1}
    bad.event("transaction/pay-1", service="bad")
    bad.add("transaction/pay-1", "verdict", flow="f", verdict="nonsense", missing=[])
    with pytest.raises(ValueError, match="not in tuple"):
        index.apply(bad.made[4:])
    assert index.size() == 4
    index.apply(leaves.made)
    assert "bad" not in index.trail("transaction/pay-1").services
    index.close()
