"""The index compared with a fresh one, page by page: the same findings as with all of it in memory at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.event import Facts, encode_facts
from correlator.entry import Entry
from correlator.errors import NotFound
from correlator.index import IndexedLeaf, Page, TrailIndex, TrailQuery, TrailSummary
from correlator.index.memory import MemoryIndex
from correlator.index.opensearch.access import Named
from correlator.index.opensearch.beside import Beside, beside_of
from correlator.index.opensearch.documents import CHUNK_LEAVES, trail_id
from correlator.index.rows import MAX_HUB_LINKS
from correlator.index.sqlite import SqliteIndex
from deploy.checking import trails
from deploy.checking.pages import page_differences
from deploy.checking.tables import table_differences
from deploy.checking.trails import IndexCheck

FACTS = msgspec.Raw(encode_facts(Facts(digest="0" * 64)))


class Tampered:
    """A `TrailIndex` whose rows were changed: by trail, each with its leaves."""

    def __init__(self, rows: Sequence[TrailSummary], leaves: dict[str, list[int]], size: int) -> None:
        self.rows = sorted(rows, key=lambda row: -row.first_leaf)
        self._leaves = leaves
        self._size = size

    def size(self) -> int:
        return self._size

    def find(self, query: TrailQuery, *, size: int, below: int | None = None, limit: int = 50) -> Page:
        del query
        bound = size if below is None else min(size, below)
        found = [row for row in self.rows if row.first_leaf < bound]
        page = tuple(found[:limit])
        return Page(trails=page, next_below=page[-1].first_leaf if len(found) > limit else None)

    def trail(self, trail: str) -> TrailSummary:
        for row in self.rows:
            if row.trail == trail:
                return row
        raise NotFound(trail)

    def is_hub(self, trail: str) -> bool:
        return self.trail(trail).hub

    def all_links(self, trail: str) -> Sequence[str]:
        return self.trail(trail).links

    def leaves(self, trail: str, *, start: int = 0, limit: int = 1_000, size: int | None = None) -> Sequence[int]:
        return [leaf for leaf in self._leaves.get(trail, [])[start : start + limit] if size is None or leaf < size]

    def apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        raise AssertionError(f"a check writes nothing: {leaves}")

    def clear(self) -> None:
        raise AssertionError("a check writes nothing")

    def close(self) -> None:
        pass


def entry(trail: str, position: int, *, service: str = "") -> Entry:
    recorded = "2026-01-02T03:04:05.000000000Z"
    facts = msgspec.Raw(encode_facts(Facts(digest="0" * 64, service=service))) if service else FACTS
    return Entry(v=1, trail=trail, position=position, kind="event", recorded=recorded, facts=facts)


def made_of(names: Sequence[int]) -> tuple[list[Entry], MemoryIndex]:
    """A log with one entry for each name, and its true index."""
    positions: dict[int, int] = {}
    entries = []
    for name in names:
        positions[name] = positions.get(name, -1) + 1
        entries.append(entry(f"trace/{name:032x}", positions[name]))
    index = MemoryIndex()
    index.apply([IndexedLeaf(leaf=leaf, entry=one) for leaf, one in enumerate(entries)])
    return entries, index


def all_of(index: MemoryIndex) -> tuple[list[TrailSummary], dict[str, list[int]]]:
    rows = list(index.find(TrailQuery(), size=index.size(), limit=10_000).trails)
    return rows, {row.trail: list(index.leaves(row.trail)) for row in rows}


def findings(entries: Sequence[Entry], index: TrailIndex) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    check = IndexCheck(
        index=index,
        fresh=MemoryIndex(),
        tables=lambda _size: (),
        tell=lambda finding: told.append((finding.where, finding.problem)),
    )
    for leaf, one in enumerate(entries):
        check.visit(leaf, one)
    check.finish(log_holds=True)
    return told


def in_memory_at_once(
    rows: Sequence[TrailSummary], leaves: dict[str, list[int]], truth: MemoryIndex
) -> Iterator[tuple[str, str]]:
    """What the check says when it holds every trail of the index in one dictionary."""
    theirs = {row.trail: row for row in sorted(rows, key=lambda row: -row.first_leaf) if row.first_leaf < truth.size()}
    own, own_leaves = all_of(truth)
    for ours in own:
        found = theirs.pop(ours.trail, None)
        where = f"index, {ours.trail}"
        if found is None:
            yield where, "the index does not know it"
        elif found != ours:
            fields = [name for name in TrailSummary.__dataclass_fields__ if getattr(found, name) != getattr(ours, name)]
            yield where, f"the index says otherwise of it than the log: {', '.join(fields)}"
        elif leaves[ours.trail] != own_leaves[ours.trail]:
            yield where, "the index names other leaves than the log has of it"
    for trail in theirs:
        yield f"index, {trail}", "the index knows it, and the log does not"


CHANGES = st.lists(
    st.tuples(st.sampled_from(["drop", "move", "status", "leaves", "add", "swap"]), st.integers(0, 99)), max_size=4
)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), CHANGES)
def test_whatever_was_changed_the_findings_are_those_of_a_comparison_in_memory(
    names: list[int], changes: list[tuple[str, int]]
) -> None:
    entries, truth = made_of(names)
    rows, leaves = all_of(truth)
    for what, number in changes:
        at = number % len(rows) if rows else 0
        taken = {row.first_leaf for row in rows}
        free = next(leaf for leaf in range(number, 1_000) if leaf not in taken)
        if what == "add":
            rows.append(TrailSummary(trail=f"trace/added-{free}", entries=1, first_leaf=free, last_leaf=free))
        elif not rows:
            continue
        elif what == "drop":
            del rows[at]
        elif what == "move":
            rows[at] = replace(rows[at], first_leaf=free)
        elif what == "status":
            rows[at] = replace(rows[at], status="failed")
        elif what == "leaves":
            leaves[rows[at].trail] = [*leaves.get(rows[at].trail, []), 0][1:]
        else:
            other = rows[-1]
            rows[at], rows[-1] = (
                replace(rows[at], first_leaf=other.first_leaf),
                replace(other, first_leaf=rows[at].first_leaf),
            )
    index = Tampered(rows, leaves, truth.size())
    assert findings(entries, index) == list(in_memory_at_once(rows, leaves, truth))


def test_pages_and_looks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trails, "_TRAILS_A_PAGE", 3)
    monkeypatch.setattr(trails, "_LEAVES_A_LOOK", 2)
    entries, truth = made_of([*range(10), *[4] * 9, *range(10)])
    rows, leaves = all_of(truth)
    assert findings(entries, Tampered(rows, leaves, truth.size())) == []
    leaves[f"trace/{4:032x}"][7] += 1
    assert findings(entries, Tampered(rows, leaves, truth.size())) == [
        (f"index, trace/{4:032x}", "the index names other leaves than the log has of it")
    ]


def test_all_links_of_a_hub_are_compared_whichever_its_summary_tells(tmp_path: Path) -> None:
    """An index on OpenSearch tells those that came first, the one that is made anew those that sort last."""

    class First(MemoryIndex):
        def find(self, query: TrailQuery, *, size: int, below: int | None = None, limit: int = 50) -> Page:
            page = super().find(query, size=size, below=below, limit=limit)
            trails = [replace(one, links=tuple(self.all_links(one.trail)[: len(one.links)])) for one in page.trails]
            return replace(page, trails=trails)

    hub = "key/merchant/acme"
    entries = [
        Entry(
            v=1,
            trail=hub,
            position=at,
            kind="link",
            recorded="2026-01-02T03:04:05.000000000Z",
            detail={"to": f"transaction/{at:05d}"},
        )
        for at in range(MAX_HUB_LINKS + 500)
    ]
    with closing(SqliteIndex(tmp_path / "index")) as disk:
        indexes: tuple[TrailIndex, ...] = (First(), disk)
        for index in indexes:
            index.apply([IndexedLeaf(leaf=leaf, entry=one) for leaf, one in enumerate(entries)])
            assert findings(entries, index) == []
        with closing(sqlite3.connect(tmp_path / "index")) as db, db:
            db.execute("UPDATE links SET trail = 'transaction/other' WHERE trail = 'transaction/00003'")
        assert "transaction/00003" not in disk.trail(hub).links
        assert findings(entries, disk) == [(f"index, {hub}", "the index says otherwise of it than the log: links")]


def test_an_index_of_another_log_is_told_to_a_bound() -> None:
    entries, truth = made_of(list(range(300)))
    rows = [TrailSummary(trail=f"trace/other-{at}", entries=1, first_leaf=at, last_leaf=at) for at in range(300)]
    told = findings(entries, Tampered(rows, {}, truth.size()))
    assert len(told) == 101
    assert told[-1] == ("index", "and more: make it anew with `tally reindex`")


def test_an_index_that_grows_between_two_questions_is_no_finding(tmp_path: Path) -> None:
    def leaves(start: int, end: int) -> list[IndexedLeaf]:
        return [
            IndexedLeaf(leaf=at, entry=entry(f"trace/{at % 3:032x}", at // 3, service=f"s{at}"))
            for at in range(start, end)
        ]

    with closing(SqliteIndex(tmp_path / "index")) as index, closing(SqliteIndex(tmp_path / "fresh")) as fresh:
        index.apply(leaves(0, 6))
        fresh.apply(leaves(0, 6))
        with closing(sqlite3.connect(tmp_path / "index")) as db, db:
            db.execute("UPDATE trails SET kind = 'other' WHERE first_leaf = 1")
        looks = table_differences(tmp_path / "index", tmp_path / "fresh", size=6)
        found = [next(looks)]
        index.apply(leaves(6, 12))
        found += looks
        assert found == [
            (f"trace/{1:032x}", "the index does not have all of its kind and tenant"),
            (f"trace/{1:032x}", "the index has more of its kind and tenant"),
        ]
        assert list(table_differences(tmp_path / "index", tmp_path / "fresh", size=6)) == found[:1], "it has grown"


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("INSERT INTO trails SELECT 99, 'trace/x', tenant, kind, 1, 5, '', '', 0, 0, services, events, keys, amounts FROM trails LIMIT 1", "reach to 100"),
        ("INSERT INTO keys VALUES (1, 'v', 99)", "has more of its keys"),
        ("INSERT INTO texts VALUES ('v', 99)", "has more of its texts"),
        ("INSERT INTO links VALUES (99, 'trace/x')", "has more of its links"),
        ("INSERT INTO runs SELECT 99, position, leaves FROM runs LIMIT 1", "has more of its leaves"),
        ("INSERT INTO runs SELECT first_leaf, 7, leaves FROM runs LIMIT 1", "has more of its leaves"),
    ],
)  # fmt: skip
def test_a_row_that_was_added_is_found_wherever_it_says_to_belong(added: str, told: str, tmp_path: Path) -> None:
    """A row of a leaf that the log does not have yet would be found by once it has."""
    leaves = [IndexedLeaf(leaf=at, entry=entry(f"trace/{at % 3:032x}", at // 3, service="s")) for at in range(6)]
    for name in ("index", "fresh"):
        with closing(SqliteIndex(tmp_path / name)) as index:
            index.apply(leaves)
    assert list(table_differences(tmp_path / "index", tmp_path / "fresh", size=6)) == []
    with closing(sqlite3.connect(tmp_path / "index")) as db, db:
        db.execute(added)
    assert told in repr(list(table_differences(tmp_path / "index", tmp_path / "fresh", size=6)))


class Pages:
    """A `PagedIndex` that lacks nothing, and holds these documents beside its trails."""

    def __init__(self, *documents: Beside) -> None:
        self._documents = documents

    def lacks(self, trail: str, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        del trail, keys
        return []

    def beside(self, size: int) -> Iterator[Beside]:
        del size
        yield from self._documents


def test_what_an_index_was_given_since_the_check_began_is_no_surplus(tmp_path: Path) -> None:
    """What says that it was written with leaves that the log has by now may be true; the next check knows."""
    long = f"trace/{1:032x}"
    with closing(SqliteIndex(tmp_path / "fresh")) as fresh:
        fresh.apply([IndexedLeaf(leaf=at, entry=entry(long, at)) for at in range(CHUNK_LEAVES)])
    for written, told in ((CHUNK_LEAVES, 3), (CHUNK_LEAVES + 1, 0), (CHUNK_LEAVES + 9, 0), (CHUNK_LEAVES + 10, 3)):
        chunks = [
            Beside(id=f"{at}", written=written, kind="leaves", of=trail_id(trail), at=at)
            for trail, at in ((long, 0), (long, 1), (f"trace/{2:032x}", 0))
        ]
        index = Pages(*chunks, Beside(id="mark", written=written, kind="mark"), Beside(id="?", written=written))
        found = page_differences(index, tmp_path / "fresh", size=CHUNK_LEAVES, reached=lambda: CHUNK_LEAVES + 9)
        assert len(list(found)) == told, written


@given(st.text() | st.from_regex(r"\A[0-9a-f]{64}(-(leaves|links|keys)-[0-9a-f]{1,32})?\Z"), st.binary(), st.text())
def test_whatever_lies_beside_the_trails_is_told_of(id_: str, data: bytes, routing: str) -> None:
    found = beside_of(Named(id=id_, version=1, sort=[0], routing=routing), data)
    assert found.kind not in ("trail", "keys"), "their ids are hashes of what they say"
