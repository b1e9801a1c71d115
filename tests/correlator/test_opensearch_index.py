"""What the trail index on OpenSearch keeps beyond the contract (test_index.py): crashes, two writers, a new index in the old one's place."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.errors import NotFound, Overloaded, StateUnknown, TallyError
from correlator.index import AmountRange, IndexedLeaf, TextSearch, TrailIndex, TrailQuery, TrailSummary
from correlator.index.amounts import ordered
from correlator.index.filters import parse_filter
from correlator.index.memory import MemoryIndex
from correlator.index.opensearch import documents
from correlator.index.opensearch.access import Access, Put
from correlator.index.opensearch.documents import CHUNK_LEAVES, CHUNK_LINKS, KeptTrail
from correlator.index.opensearch.index import OpenSearchIndex
from correlator.index.rows import KEYS_A_PAGE, MAX_HUB_LINKS, Row
from correlator.index.settings import IndexSettings
from tests.servers.opensearch import Cluster
from tests.support.leaves import TIME, Leaves, in_runs, story

REAL_SERVER = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]
ALL = 1 << 40
HUB_LINKS = 2


def on_server(test: Any) -> Any:
    for mark in REAL_SERVER:
        test = mark(test)
    return test


@pytest.fixture
def opened(opensearch_index: IndexSettings) -> Iterator[Callable[..., OpenSearchIndex]]:
    """Opens the index, as another process would; all are closed in the end."""
    made: list[OpenSearchIndex] = []

    def make(**options: Any) -> OpenSearchIndex:
        made.append(OpenSearchIndex(opensearch_index, hub_links=HUB_LINKS, **options))
        return made[-1]

    yield make
    for index in made:
        index.close()


def found(index: TrailIndex, size: int = ALL, **query: Any) -> Sequence[TrailSummary]:
    return tuple(map(without_some_links, index.find(TrailQuery(**query), size=size, limit=10_000).trails))


def without_some_links(told: TrailSummary) -> TrailSummary:
    """Which links of a hub are told, where not all are, is the index's choice."""
    return replace(told, links=()) if told.links_left_out else told


def must_be_as_the_log_says(index: TrailIndex, leaves: Sequence[IndexedLeaf]) -> None:
    expected = MemoryIndex(hub_links=HUB_LINKS)
    expected.apply(leaves)
    assert index.size() == len(leaves)
    assert found(index) == found(expected)
    for key in itertools.product("kl", ("v", "w", "1", "-2.5")):  # what `busy` makes
        assert found(index, key=key) == found(expected, key=key)
        assert found(index, text=TextSearch.parse(key[1])) == found(expected, text=TextSearch.parse(key[1]))
    for trail in {one.entry.trail for one in leaves}:
        assert without_some_links(index.trail(trail)) == without_some_links(expected.trail(trail))
        assert index.all_links(trail) == expected.all_links(trail)
        assert list(index.leaves(trail)) == list(expected.leaves(trail))


def busy(count: int, *, seed: int) -> Leaves:
    """Entries of few trails in any order."""
    dice = random.Random(seed)
    leaves = Leaves()
    trails = ["transaction/a", "transaction/b", "key/k/v", "trace/" + "b" * 32, "tenant/x/key/k/v"]
    for _ in range(count):
        trail = dice.choice(trails)
        if dice.random() < 0.3:
            leaves.add(trail, "link", to=dice.choice(trails))
        else:
            second = dice.randrange(5)
            leaves.event(
                trail,
                service=dice.choice(["", "s1", "s2"]),
                name=dice.choice(["", "K.one", "oneTwo", "İx"]),
                time=TIME.format(second) if second else "",
                keys={dice.choice(["k", "l", "amount.eur"]): dice.choice(["v", "w", "1", "-2.5"])},
                error=dice.random() < 0.1,
            )
    return leaves


# ------------------------------------------------------------------------------------------------------------- documents


@given(st.lists(st.tuples(st.text(), st.text()), unique=True), st.sets(st.text()))
def test_a_trail_comes_back_from_its_document(named: list[tuple[str, str]], services: set[str]) -> None:
    keys = dict.fromkeys(named)
    row = Row(trail="transaction/t", first_leaf=3, entries=2, last_leaf=5, links=1, services=services, keys=keys)
    data = KeptTrail(row, [3, 5], ["key/a/b"]).document()
    document = documents.opened(documents.trail_id("transaction/t"), data)
    back = document.row()
    assert (list(back.keys), back.services, back.status) == (named, services, 0)
    assert (document.leaves, document.linked) == ([3, 5], ["key/a/b"])
    assert len(document.keys) == len(keys), "no two keys have the same term"


@pytest.mark.parametrize("name", ["%" * 16_000, "=" * 16_000, "%25L3=" * 2_600, "\u0390%" * 5_000])
def test_keys_of_any_name_have_terms_that_a_server_takes(name: str) -> None:
    keys = {(name, "value"): None, (name[:-1], name[-1:] + "value"): None, (f"%L{len(name)}", f"{name}value"): None}
    data = KeptTrail(Row(trail="key/k/v", first_leaf=0, entries=1, last_leaf=0, keys=keys), [0]).document()
    document = documents.opened(documents.trail_id("key/k/v"), data)
    assert document.row().keys == keys
    assert len(set(document.keys)) == len(keys)
    assert max(len(term.encode()) for term in document.keys) <= 32_766
    assert documents.key_term("a%b=c", "=") == "a%25b%3Dc=="


@pytest.mark.parametrize(
    "change",
    [
        {"trail": "transaction/other"},
        {"trail": "tenant/%/x"},
        {"tenant": "acme"},
        {"kind": "key"},
        {"status": "splendid"},
        {"entries": 7},
        {"entries": "many"},
        {"links": 1},
        {"leaves": [1, 2, 3]},
        {"amountLeast": [f"EUR={ordered('1')}"]},
        {"amountLeast": [f"EUR={ordered('1')}"], "amountMost": [f"USD={ordered('1')}"]},
        {"amountLeast": [f"EUR={ordered('2')}"], "amountMost": [f"EUR={ordered('1')}"]},
        {"amountLeast": ["EUR=1"], "amountMost": ["EUR=1"]},
        {"events": ["refund"]},
        {"words": ["refund"]},
        {"texts": []},
    ],
)
def test_a_document_that_says_two_things_is_told(change: dict[str, Any]) -> None:
    row = Row(trail="transaction/t", first_leaf=3, entries=2, last_leaf=5)
    name = documents.trail_id("transaction/t")
    data = KeptTrail(row, [3, 5]).document()
    documents.opened(name, data)
    with pytest.raises(StateUnknown, match="reindex"):
        documents.opened(name, msgspec.json.encode(msgspec.json.decode(data) | change))


def test_chunks_hold_whole_spans_however_the_leaves_came() -> None:
    def chunks(steps: Sequence[int]) -> tuple[dict[str, bytes], list[int]]:
        row = Row(trail="key/k/v", first_leaf=0)
        kept, at = KeptTrail(row), 0
        written: dict[str, bytes] = {}
        for step in steps:
            row.new_leaves = list(range(at, at + step))
            row.new_links = [f"transaction/{n}" for n in row.new_leaves]
            at += step
            row.entries = row.links = at
            written |= dict(kept.written())
        return written, kept.leaves

    count = 3 * CHUNK_LEAVES + 5
    whole, tail = chunks([count])
    assert tail == list(range(3 * CHUNK_LEAVES, count))
    assert len(whole) == 3 + count // CHUNK_LINKS
    assert chunks([1] * count) == chunks([CHUNK_LEAVES] * 3 + [5]) == (whole, tail)


def test_a_server_that_is_not_there_is_overloaded() -> None:
    settings = IndexSettings(urls=["http://127.0.0.1:1"])
    for read_only, beside in ((False, False), (True, False), (False, True)):
        with pytest.raises(Overloaded, match="cannot be reached"):
            OpenSearchIndex(settings, read_only=read_only, beside=beside)


# ---------------------------------------------------------------------------------------------------- against the server


@on_server
@pytest.mark.parametrize(("seed", "page"), [(0, KEYS_A_PAGE), (1, 1), (2, 2)])
def test_it_never_differs_from_the_index_in_memory(
    opened: Callable[..., OpenSearchIndex], monkeypatch: pytest.MonkeyPatch, seed: int, page: int
) -> None:
    monkeypatch.setattr("correlator.index.rows.KEYS_A_PAGE", page)
    leaves = busy(60, seed=seed)
    dice = random.Random(seed)
    memory = MemoryIndex(hub_links=HUB_LINKS)
    index, at = opened(), 0
    while at < len(leaves.made):
        step = dice.randrange(1, 12)
        if dice.random() < 0.3:
            index = opened()  # reads back what the last one wrote
        for one in (memory, index):
            one.apply(leaves.made[at : at + step])
        at = memory.size()
        size = dice.randrange(at + 1)
        for query in (
            TrailQuery(),
            TrailQuery(service="s1"),
            TrailQuery(key=("k", "v")),
            TrailQuery(since=TIME.format(2)),
            TrailQuery(until=TIME.format(2), kind="transaction"),
            TrailQuery(status="error"),
            TrailQuery(tenant="x", kind="key"),
            TrailQuery(transaction="a"),
            TrailQuery(amount=AmountRange.parse("EUR:..0")),
            *(TrailQuery(text=TextSearch.parse(text)) for text in ("v", "one S1", "t* k*", "İx w", "a tw*")),
            TrailQuery(condition=parse_filter('key.k = "w" or not key.l = "1"')),
            TrailQuery(condition=parse_filter('text ~ "w*" and key.l in ("v", "1")'), key=("l", "w")),
        ):
            assert index.find(query, size=size, limit=3) == memory.find(query, size=size, limit=3)
        for trail in {one.entry.trail for one in leaves.made[:at]}:
            assert list(index.leaves(trail, start=1, size=size)) == list(memory.leaves(trail, start=1, size=size))
    must_be_as_the_log_says(index, leaves.made)


@on_server
def test_what_another_s_collector_signed_stops_no_index(opened: Callable[..., OpenSearchIndex]) -> None:
    leaves = Leaves()
    long = "\u0390" * 8_000  # three times as long when its case is folded
    leaves.event("transaction/a", service="s" * 16_000, name="\u0587" * 8_000, time=long, keys={"k": long})
    leaves.event("transaction/b", keys={"%" * 16_000: "v", "=" * 11_000: "w"})
    leaves.event("transaction/c", keys={"k": f"v {long}"})
    index = opened()
    index.apply(leaves.made)
    must_be_as_the_log_says(opened(), leaves.made)
    for key, trail in ((("k", long), "a"), (("%" * 16_000, "v"), "b"), (("=" * 11_000, "w"), "b")):
        assert [one.trail for one in found(index, key=key)] == [f"transaction/{trail}"]
    assert len(found(index, text=TextSearch.parse("\u0390" * 299 + "*"))) == 2
    assert found(index, text=TextSearch.parse("\u0390" * 300)) == ()


@on_server
def test_a_hot_trail_is_bounded_documents(
    opened: Callable[..., OpenSearchIndex], opensearch: Cluster, opensearch_index: IndexSettings
) -> None:
    leaves, hot, expected = Leaves(), "key/account/7", []
    for number in range(2 * CHUNK_LEAVES + 300):
        expected.append(leaves.add(hot, "link", to=f"transaction/{number}"))
        if number % 3 == 0:
            leaves.event(f"transaction/{number}")
    index = opened()
    for at in range(0, len(leaves.made), 700):
        index.apply(leaves.made[at : at + 700])
    edges = [0, 1, CHUNK_LEAVES - 1, CHUNK_LEAVES, CHUNK_LEAVES + 1, 2 * CHUNK_LEAVES, len(expected) - 1, len(expected)]
    for start in edges:
        for limit in (1, 2, CHUNK_LEAVES, 5_000):
            assert list(index.leaves(hot, start=start, limit=limit)) == expected[start : start + limit]
    for size in (1, 2, expected[CHUNK_LEAVES], expected[CHUNK_LEAVES] + 1, expected[-1], ALL):
        below = [leaf for leaf in expected if leaf < size]
        assert list(index.leaves(hot, limit=5_000, size=size)) == below
        (summary,) = [one for one in found(index, size=size, kind="key") if one.trail == hot]
        assert (summary.entries, summary.last_leaf) == (len(below), below[-1])
    links = {f"transaction/{number}" for number in range(len(expected))}
    told = index.trail(hot)
    assert (len(told.links), told.links_left_out) == (MAX_HUB_LINKS, len(links) - MAX_HUB_LINKS)
    assert set(told.links) <= links
    must_be_as_the_log_says(opened(read_only=True), leaves.made)
    hits = opensearch.ask("POST", f"/{opensearch_index.prefix}-trails/_search", {"size": 10_000})["hits"]["hits"]
    assert max(len(hit["_source"].get("leaves", ())) for hit in hits) <= CHUNK_LEAVES
    assert max(len(hit["_source"].get("linked", ())) for hit in hits) <= CHUNK_LINKS
    assert len(hits) == len({one.entry.trail for one in leaves.made}) + 2 + len(expected) // CHUNK_LINKS + 1


@on_server
def test_a_search_by_key_costs_nothing_for_each_trail_there_is(
    opened: Callable[..., OpenSearchIndex], opensearch: Cluster, opensearch_index: IndexSettings
) -> None:
    leaves, index = Leaves(), opened()
    for _ in range(3):  # each refresh is a segment
        for number in range(40):
            leaves.event(f"transaction/{len(leaves.made)}", keys={"k": f"v{number}"})
        index.apply(leaves.made[-40:])
        assert found(index, key=("k", "v1"), text=TextSearch.parse("v1*"))
    told = opensearch.ask("GET", f"/{opensearch_index.prefix}-trails/_stats/fielddata?fields=*")
    assert told["_all"]["total"]["fielddata"]["memory_size_in_bytes"] == 0, (
        "no ordinals of all trails, made at each refresh"
    )


@on_server
def test_a_search_sees_what_another_process_wrote_just_now(opened: Callable[..., OpenSearchIndex]) -> None:
    writer, reader, leaves = opened(), opened(read_only=True), Leaves()
    for number in range(10):
        leaves.event(f"transaction/{number}", service="s")
        writer.apply(leaves.made[-1:])
        assert next(one.trail for one in found(reader, service="s")) == f"transaction/{number}"
    assert [one.first_leaf for one in reader.find(TrailQuery(), size=ALL, below=7, limit=3).trails] == [6, 5, 4]


class Dying(Access):
    """Fails at the request of that number, half of which the server has taken when `half` is set."""

    def __init__(self, real: Access, *, at: int, half: bool = False) -> None:
        super().__init__(real._connection, real._alias, copies=real._copies)
        self.left = at
        self.half = half

    def put(self, puts: Sequence[Put]) -> None:
        if not puts:
            return
        self.left -= 1
        if self.left < 0:
            if self.half:
                super().put(puts[: len(puts) // 2])
            raise Overloaded("the process dies here", retry_after_seconds=0.0)
        super().put(puts)


@on_server
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("step", [7, 1_000])
def test_a_crash_between_two_requests_is_made_good_by_the_same_leaves(
    opened: Callable[..., OpenSearchIndex], monkeypatch: pytest.MonkeyPatch, at: int, half: bool, step: int
) -> None:
    monkeypatch.setattr("correlator.index.rows.KEYS_A_PAGE", 1)  # so that a page is, too
    leaves = busy(40, seed=at)
    for _ in range(CHUNK_LEAVES):  # so that a chunk is among what is written
        leaves.add("key/hot/1", "link", to="transaction/a")
    leaves.made += busy_after(leaves, 40)
    first = opened()
    first.apply(leaves.made[:20])
    first._access = Dying(first._access, at=at, half=half)
    with pytest.raises(Overloaded):
        first.apply(leaves.made[20:])
    again = opened()
    assert again.size() == 20, "the mark claims nothing that is not wholly written"
    reader = opened(read_only=True)
    for trail in {one.entry.trail for one in leaves.made[:20]}:
        expected = [one.leaf for one in leaves.made[:20] if one.entry.trail == trail]
        assert list(reader.leaves(trail, size=20)) == expected, "nor is anything lost meanwhile"
    for start in range(20, len(leaves.made), step):
        again.apply(in_runs(leaves.made[start : start + step]))
    must_be_as_the_log_says(reader, leaves.made)


def busy_after(leaves: Leaves, count: int) -> list[IndexedLeaf]:
    """More entries of the trails that there are."""
    start = len(leaves.made)
    trails = sorted({one.entry.trail for one in leaves.made})
    for at in range(count):
        leaves.event(trails[at % len(trails)], service=f"late-{at % 2}")
    more = leaves.made[start:]
    del leaves.made[start:]
    return more


class Delayed(Access):
    """Before its first write, something else happens."""

    def __init__(self, real: Access, first: Callable[[], None]) -> None:
        super().__init__(real._connection, real._alias, copies=real._copies)
        self.first: Callable[[], None] | None = first

    def put(self, puts: Sequence[Put]) -> None:
        first, self.first = self.first, None
        if first is not None:
            first()
        super().put(puts)


@on_server
@pytest.mark.parametrize("until", [8, 15, 30, 59])
def test_a_deposed_writer_s_older_state_stays_behind(opened: Callable[..., OpenSearchIndex], until: int) -> None:
    leaves = busy(60, seed=until)
    deposed, writer = opened(), opened()
    deposed.apply(leaves.made[:5])
    # it has read the size and made its documents, hangs before it writes them, and wakes when all is done
    deposed._access = Delayed(deposed._access, lambda: writer.apply(leaves.made))
    deposed.apply(in_runs(leaves.made[5:until]))
    must_be_as_the_log_says(writer, leaves.made)
    deposed.apply(leaves.made[until:])
    must_be_as_the_log_says(deposed, leaves.made)


@on_server
def test_a_new_index_takes_the_old_one_s_place_under_a_reader(
    opened: Callable[..., OpenSearchIndex], opensearch: Cluster, opensearch_index: IndexSettings
) -> None:
    leaves = busy(60, seed=1)
    opened().apply(leaves.made)
    reader = opened(read_only=True)
    before = found(reader)
    wrong: list[Any] = []
    stop = threading.Event()

    def read() -> None:
        other = opened(read_only=True)
        while not stop.is_set():
            try:
                if found(other) != before or other.size() != 60 or other.trail("transaction/a").entries < 1:
                    wrong.append("other trails")
            except TallyError as error:
                wrong.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(2, 12):
            beside = opened(beside=True)
            assert beside.size() == 0
            beside.apply(leaves.made[:30])
            assert found(reader) == before, "the old one is read until the new one is whole"
            beside.apply(leaves.made[30:])
            beside.take_over(linger_seconds=0.5)
            assert found(reader) == before
            names = opensearch.ask("GET", f"/{opensearch_index.prefix}-trails*")
            assert {name: set(one["aliases"]) for name, one in names.items()} == {
                f"{opensearch_index.prefix}-trails-{number:06}": {f"{opensearch_index.prefix}-trails"}
            }
    finally:
        stop.set()
        thread.join()
    assert wrong == []


@on_server
def test_a_rebuild_that_was_broken_off_leaves_the_old_one_and_is_removed_by_the_next(
    opened: Callable[..., OpenSearchIndex], opensearch: Cluster, opensearch_index: IndexSettings
) -> None:
    leaves = story()
    index = opened()
    index.apply(leaves.made)
    opened(beside=True).apply(leaves.made[:4])  # and no more is heard of it
    must_be_as_the_log_says(opened(), leaves.made)
    late = opened(beside=True)
    assert late.size() == 0
    names = sorted(opensearch.ask("GET", f"/{opensearch_index.prefix}-trails*"))
    assert [name.rpartition("-")[2] for name in names] == ["000001", "000002"]
    # a writer that was there before goes on, on whichever index is read
    late.apply(leaves.made[:8])
    late._generations.take_over()  # and dies before the old one is removed
    assert index.size() == 8
    index.apply(leaves.made)
    must_be_as_the_log_says(index, leaves.made)
    opened(beside=True)
    names = sorted(opensearch.ask("GET", f"/{opensearch_index.prefix}-trails*"))
    assert [name.rpartition("-")[2] for name in names] == ["000002", "000003"]
    must_be_as_the_log_says(index, leaves.made)


@on_server
def test_an_index_that_is_gone_is_not_made_by_writing_to_it(
    opened: Callable[..., OpenSearchIndex], opensearch: Cluster, opensearch_index: IndexSettings
) -> None:
    leaves, index = story(), opened()
    index.apply(leaves.made[:5])
    opensearch.ask("DELETE", f"/{opensearch_index.prefix}-trails-000001")
    for call in (
        index.size,
        lambda: index._access.put([Put(id="x", version=1, document=b"{}")]),
        lambda: found(index),
        lambda: index.trail("transaction/pay-1"),
        lambda: index.leaves("transaction/pay-1"),
    ):
        with pytest.raises(StateUnknown):
            call()
    assert opensearch.ask("GET", f"/{opensearch_index.prefix}-trails*") == {}
    with pytest.raises(NotFound, match="no trail index"):
        opened(read_only=True)
    again = opened()
    again.apply(leaves.made)
    must_be_as_the_log_says(again, leaves.made)


@on_server
def test_what_the_index_has_lost_is_told_and_not_made_up(
    opened: Callable[..., OpenSearchIndex], opensearch: Cluster, opensearch_index: IndexSettings
) -> None:
    leaves, index = story(), opened()
    index.apply(leaves.made[:4])
    where = f"/{opensearch_index.prefix}-trails/_doc/{documents.trail_id('transaction/pay-1')}"
    kept = opensearch.ask("GET", where)["_source"]
    opensearch.ask("DELETE", where)
    with pytest.raises(StateUnknown, match="reindex"):
        opened().apply(leaves.made[4:])
    opensearch.ask("PUT", where, kept | {"kind": "key"})
    for call in (lambda: found(index), lambda: index.trail("transaction/pay-1")):
        with pytest.raises(StateUnknown, match="damaged"):
            call()
    assert opened().size() == 4


@on_server
def test_an_index_of_another_format_or_maker_is_refused(
    opened: Callable[..., OpenSearchIndex], opensearch: Cluster, opensearch_index: IndexSettings
) -> None:
    alias = f"{opensearch_index.prefix}-trails"
    opensearch.ask("PUT", f"/{alias}", {})
    with pytest.raises(StateUnknown, match="alias"):
        opened()
    opensearch.ask("DELETE", f"/{alias}")
    opensearch.ask("PUT", f"/{alias}-000007", {"aliases": {alias: {}}, "mappings": {"_meta": {"tally": 99}}})
    for options in ({}, {"read_only": True}):
        with pytest.raises(StateUnknown, match=r"format 99.*reindex"):
            opened(**options)
    beside = opened(beside=True)
    beside.apply(story().made)
    beside.take_over(linger_seconds=0)
    must_be_as_the_log_says(opened(), story().made)
    with pytest.raises(StateUnknown, match="reading alone"):
        opened(read_only=True).apply([])
    with pytest.raises(StateUnknown, match="reading alone"):
        opened(read_only=True).clear()
