"""The contract of `EventStore`, kept by the embedded store, by OpenSearch, and by the one in memory that other tests stand on.

Then SQLite's own troubles; those of OpenSearch are in test_opensearch_store.py.
"""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector.batch import EventRef, StreamId
from collector.errors import Conflict, NotFound, Overloaded, StateUnknown, VerificationError
from collector.event import Event
from collector.store import EventStore, sqlite
from collector.store.opensearch.store import OpenSearchStore
from collector.store.sqlite import SqliteStore
from tests.support.memory_store import MemoryStore
from tests.support.shipper import Shipper, pay, texts

STREAM = StreamId("gateway/0123456789abcdef")
OTHER = StreamId("orders/0123456789abcdef")
EVENTS = [pay(f"T-{at}", body="é" * at) for at in range(9)]


REAL_SERVER = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]


@pytest.fixture(params=["sqlite", "memory", pytest.param("opensearch", marks=REAL_SERVER)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
    made: EventStore
    if request.param == "sqlite":
        made = SqliteStore(tmp_path / "store.sqlite")
    elif request.param == "memory":
        made = MemoryStore()
    else:
        made = OpenSearchStore(request.getfixturevalue("opensearch_settings"), look_beyond_seconds=0)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def refs(*sequences: int, stream: StreamId = STREAM) -> list[EventRef]:
    return [EventRef(stream=stream, sequence=sequence) for sequence in sequences]


def filled(store: EventStore, *sizes: int, shipper: Shipper | None = None) -> Shipper:
    """Batches of so many events each."""
    shipper = shipper or Shipper()
    for size in sizes:
        store.append(shipper.batch(*(EVENTS[(shipper.sequence + at) % 9] for at in range(size))))
    return shipper


# -- the contract


def test_an_empty_store_has_nothing(store: EventStore) -> None:
    assert list(store.streams()) == []
    assert list(store.batches_after({STREAM: 0}, 10)) == []
    assert store.batch(STREAM, 1) is None
    assert store.acknowledged(STREAM) == 0
    with pytest.raises(NotFound, match=f"event 0 of stream {STREAM}"):
        store.events(refs(0))


def test_batches_come_back_as_they_were_signed(store: EventStore) -> None:
    batch = Shipper().batch(*EVENTS[:3])
    store.append(batch)
    assert store.batch(STREAM, 1) == batch.signed
    assert list(store.batches_after({STREAM: 0}, 10)) == [batch.signed]
    place = store.place(batch.signed.header.created)
    assert place in {"", store.place("2026-01-31T23:59:59.999999999Z")}, (
        "the month's, where there is more than one place"
    )


def test_the_same_batch_twice_is_once(store: EventStore) -> None:
    batch = Shipper().batch(*EVENTS[:3])
    for _ in range(3):
        store.append(batch)
    assert len(store.batches_after({STREAM: 0}, 10)) == 1
    assert list(store.events(refs(0, 1, 2))) == texts(EVENTS[:3])


def test_another_batch_under_a_number_is_a_conflict_and_changes_nothing(store: EventStore) -> None:
    shipper = filled(store, 2)
    clone = shipper.clone()
    mine = shipper.batch(EVENTS[2])
    store.append(mine)
    with pytest.raises(Conflict, match=f"another batch 2 of stream {STREAM}"):
        store.append(clone.batch(EVENTS[3]))
    assert store.batch(STREAM, 2) == mine.signed
    assert list(store.events(refs(2))) == texts([EVENTS[2]])
    store.append(shipper.batch(EVENTS[4]))  # the store goes on


def test_what_follows_a_frontier_is_ascending_limited_and_of_each_stream(store: EventStore) -> None:
    filled(store, 1, 0, 2, 1)
    filled(store, 1, 1, shipper=Shipper(OTHER))
    assert list(store.streams()) == [STREAM, OTHER]

    def numbers(frontier: dict[StreamId, int], limit: int) -> list[tuple[str, int]]:
        return [(one.header.stream, one.header.number) for one in store.batches_after(frontier, limit)]

    assert numbers({STREAM: 0, OTHER: 1}, 3) == [(STREAM, 1), (STREAM, 2), (STREAM, 3), (OTHER, 2)]
    assert numbers({STREAM: 3}, 10) == [(STREAM, 4)]
    assert numbers({STREAM: 4, StreamId("nobody/0123456789abcdef"): 0}, 10) == []


def test_a_missing_number_is_skipped_not_waited_for(store: EventStore) -> None:
    shipper = Shipper()
    batches = [shipper.batch(EVENTS[at]) for at in range(4)]
    for at in (0, 2, 3):
        store.append(batches[at])
    assert [one.header.number for one in store.batches_after({STREAM: 0}, 10)] == [1, 3, 4]
    assert store.batch(STREAM, 2) is None
    with pytest.raises(NotFound, match="event 1 "):
        store.events(refs(0, 1))
    store.append(batches[1])  # late
    assert [one.header.number for one in store.batches_after({STREAM: 0}, 10)] == [1, 2, 3, 4]
    assert list(store.events(refs(1))) == texts([EVENTS[1]])


def test_a_gap_of_more_numbers_than_are_asked_for_is_passed(store: EventStore) -> None:
    shipper = Shipper()
    batches = [shipper.batch(EVENTS[at]) for at in range(8)]
    for at in (0, 5, 6, 7):
        store.append(batches[at])
    assert [one.header.number for one in store.batches_after({STREAM: 1}, 2)] == [6, 7]
    assert [one.header.number for one in store.batches_after({STREAM: 7}, 2)] == [8]
    assert list(store.batches_after({STREAM: 8}, 2)) == []


def test_events_are_sliced_in_the_order_asked_for(store: EventStore) -> None:
    filled(store, 3, 0, 1, 4)
    filled(store, 2, shipper=Shipper(OTHER))
    wanted = [*refs(7, 0, 3, 2, 7), *refs(1, stream=OTHER)]
    assert list(store.events(wanted)) == texts([EVENTS[at] for at in (7, 0, 3, 2, 7, 1)])
    for sequence in (8, -1, 2**40):
        with pytest.raises(NotFound, match=f"event {sequence} "):
            store.events(refs(0, sequence))


def test_an_acknowledgement_never_goes_back(store: EventStore) -> None:
    filled(store, 1, 1, 1)
    store.acknowledge({STREAM: 2})
    store.acknowledge({STREAM: 1, OTHER: 5})
    assert store.acknowledged(STREAM) == 2
    assert store.acknowledged(OTHER) == 0  # a stream that stored nothing
    store.acknowledge({STREAM: 3})
    assert store.acknowledged(STREAM) == 3


def test_shards_acknowledge_what_every_one_of_them_holds(store: EventStore) -> None:
    filled(store, 1, 1, 1)
    filled(store, 1, shipper=Shipper(OTHER))
    store.acknowledge({STREAM: 3, OTHER: 1}, part=1, parts=3)
    store.acknowledge({STREAM: 2}, part=3, parts=3)
    assert store.acknowledged(STREAM) == 0, "the second one has not started yet"
    store.acknowledge({STREAM: 0, OTHER: 0}, part=2, parts=3)
    assert store.acknowledged(STREAM) == 0
    store.acknowledge({STREAM: 3, OTHER: 1}, part=2, parts=3)
    assert store.acknowledged(STREAM) == 2
    assert store.acknowledged(OTHER) == 0, "the third one has said nothing of it"
    store.acknowledge({STREAM: 1}, part=2, parts=3)
    assert store.acknowledged(STREAM) == 2, "no word is taken back"
    store.acknowledge({STREAM: 3, OTHER: 1}, part=3, parts=3)
    assert (store.acknowledged(STREAM), store.acknowledged(OTHER)) == (3, 1)


def test_words_of_another_number_of_shards_do_not_count(store: EventStore) -> None:
    filled(store, 1, 1)
    store.acknowledge({STREAM: 2}, part=1, parts=3)
    store.acknowledge({STREAM: 2}, part=2, parts=2)
    store.acknowledge({STREAM: 2}, part=3, parts=3)
    assert store.acknowledged(STREAM) == 0


# -- SQLite


def test_what_was_appended_is_there_for_the_next_process(path: Path) -> None:
    filled(SqliteStore(path), 3, 2)
    again = SqliteStore(path)
    assert list(again.events(refs(4))) == texts([EVENTS[4]])
    reader = SqliteStore(path, read_only=True)
    assert list(reader.events(refs(4, 0))) == texts([EVENTS[4], EVENTS[0]])
    with pytest.raises(Overloaded, match="readonly"):
        reader.append(Shipper(OTHER).batch(Event()))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_killed_around_the_commit(path: Path, repo_root: Path, when: str) -> None:
    died = subprocess.run(
        [sys.executable, "-m", "tests.support.kill_append", str(path), when], cwd=repo_root, timeout=60, check=False
    )
    assert died.returncode == -signal.SIGKILL
    store = SqliteStore(path)
    shipper = Shipper()
    batch = shipper.batch(pay("T-1"), pay("T-2"))
    assert (store.batch(STREAM, 1) is not None) == (when == "after")
    store.append(batch)  # the shipper sends it again
    assert list(store.batches_after({STREAM: 0}, 9)) == [batch.signed]
    assert list(store.events(refs(0, 1))) == texts([pay("T-1"), pay("T-2")])


def test_nobody_else_may_read_the_files(path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = SqliteStore(path)
        filled(store, 1)
        assert {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == dict.fromkeys(
            ["store.sqlite", "store.sqlite-wal", "store.sqlite-shm"], 0o600
        )
    finally:
        os.umask(before)


def test_many_open_a_new_file_at_once_and_all_write(path: Path) -> None:
    failures: list[Exception] = []
    start = threading.Barrier(8)

    def work(at: int) -> None:
        try:
            start.wait(20)
            filled(SqliteStore(path), 2, 2, shipper=Shipper(f"sender{at}/0123456789abcdef"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    store = SqliteStore(path)
    assert len(store.streams()) == 8
    assert len(store.batches_after(dict.fromkeys(store.streams(), 0), 9)) == 16


def test_a_store_that_another_process_writes_for_long_is_overloaded_not_broken(path: Path) -> None:
    store = SqliteStore(path, busy_seconds=0.02)
    filled(store, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    shipper = Shipper(OTHER)
    batch = shipper.batch(EVENTS[0])
    with pytest.raises(Overloaded, match="locked"):
        store.append(batch)
    assert store.batch(STREAM, 1) is not None  # reading goes on
    other.execute("ROLLBACK")
    store.append(batch)
    assert list(store.streams()) == [STREAM, OTHER]
    other.close()


def test_a_full_disk_is_overloaded_and_later_it_goes_on(path: Path) -> None:
    store = SqliteStore(path)
    shipper = filled(store, 1)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    large = shipper.batch(pay("T-large", body="x" * 200_000))
    with pytest.raises(Overloaded, match="full"):
        store.append(large)
    assert store.batch(STREAM, 2) is None
    store._db.execute("PRAGMA max_page_count = 100000")
    store.append(large)
    assert len(store.batches_after({STREAM: 0}, 9)) == 2


def test_reading_keeps_nothing_of_each_event_that_was_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BLOBS_A_CONNECTION", 100)
    store = SqliteStore(path)
    filled(store, 3)
    store.events(refs(0, 1, 2))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2_000):
            assert list(store.events(refs(0, 1, 2))) == texts(EVENTS[:3])
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        store.close()
    assert grown < 100_000, "88 bytes each would be half a million"


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def _overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[16384:] = b"\xff" * (len(data) - 16384)  # every page but the first, which holds the schema
    path.write_bytes(data)


def _without_table(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("DROP TABLE batches")
    db.close()


def _newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize("damage", [_garbage, _overwritten, _without_table, _newer])
def test_a_damaged_file_is_told_and_never_taken_for_an_empty_one(path: Path, damage: Callable[[Path], None]) -> None:
    store = SqliteStore(path)
    filled(store, 3)
    store.close()
    damage(path)
    with pytest.raises(StateUnknown):
        SqliteStore(path).batch(STREAM, 1)


def test_a_file_that_is_not_there_is_not_made_by_a_reader(path: Path) -> None:
    with pytest.raises(Overloaded):
        SqliteStore(path, read_only=True)
    assert not path.exists()
    with pytest.raises(Overloaded):
        SqliteStore(path / "deeper" / "store.sqlite")
    sqlite3.connect(path).execute("CREATE TABLE other (x)").connection.close()
    with pytest.raises(NotFound):
        SqliteStore(path, read_only=True)


@pytest.mark.parametrize("column", ["header", "signature", "facts"])
def test_a_flipped_bit_in_a_row_names_stream_and_number(path: Path, column: str) -> None:
    store = SqliteStore(path)
    filled(store, 1, 3, 1)
    (value,) = store._db.execute(f"SELECT {column} FROM batches WHERE number = 2").fetchone()
    for at in range(0, len(value), 7):
        changed = value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]
        store._db.execute(f"UPDATE batches SET {column} = ? WHERE number = 2", (changed,))
        with pytest.raises(VerificationError, match=f"stream {STREAM}, batch 2 in the store") as caught:
            store.batch(STREAM, 2)
        assert caught.value.label == ("facts" if column == "facts" else "")
        with pytest.raises(VerificationError, match="batch 2 in the store"):
            store.batches_after({STREAM: 0}, 9)
    assert store.batch(STREAM, 1) is not None


def test_a_row_moved_to_another_number_is_named(path: Path) -> None:
    store = SqliteStore(path)
    filled(store, 1, 1)
    store._db.execute("UPDATE batches SET number = 3 WHERE number = 2")
    with pytest.raises(VerificationError, match="batch 3 in the store: the row holds batch 2"):
        store.batches_after({STREAM: 0}, 9)


@pytest.mark.parametrize("column", ["header", "signature", "facts"])
def test_a_column_that_was_made_text_fails_its_own_batch(path: Path, column: str) -> None:
    store = SqliteStore(path)
    filled(store, 1, 1, 1)
    store._db.execute(f"UPDATE batches SET {column} = CAST(x'ff41' AS TEXT) WHERE number = 2")
    with pytest.raises(VerificationError, match="batch 2 in the store"):
        store.batches_after({STREAM: 0}, 9)
    assert store.batch(STREAM, 3) is not None


@pytest.mark.parametrize("change", ["first = first + 1", "count = count + 1", "lengths = lengths || x'00'"])
@pytest.mark.parametrize("count", [0, 3])
def test_a_row_that_says_otherwise_than_its_header_is_named(path: Path, change: str, count: int) -> None:
    store = SqliteStore(path)
    filled(store, 1, count)
    store._db.execute(f"UPDATE batches SET {change} WHERE number = 2")
    with pytest.raises(VerificationError, match="batch 2 in the store: the row says"):
        store.batch(STREAM, 2)
    with pytest.raises(VerificationError, match="batch 2 in the store: the row says"):
        store.batches_after({STREAM: 0}, 9)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE bodies SET events = events || 'x'", VerificationError),
        ("UPDATE batches SET lengths = substr(lengths, 5)", VerificationError),
        ("DELETE FROM bodies", NotFound),
    ],
)
def test_events_that_lost_their_shape_are_told(path: Path, statement: str, error: type[Exception]) -> None:
    store = SqliteStore(path)
    filled(store, 3)
    store._db.execute(statement)
    with pytest.raises(error, match=f"event 1 of stream {STREAM}"):
        store.events(refs(1))
