"""Spool to store: re-sends, heartbeats, closing, releasing, forks, damage and outages, on a disk in memory and with real threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import SignedHeader, StreamId, facts_root, open_header
from collector.errors import Overloaded, StateUnknown
from collector.incarnation import find_incarnations
from collector.pipeline import Pipeline, PipelineLimits
from collector.retry import RetryLimits
from collector.ship import BatchLimits
from collector.spool import Group, Spooled, SpoolLimits
from tests.support.faulty_disk import Crashed, Fate, FaultyDisk
from tests.support.memory_store import MemoryStore

ROOT = Path("spool")
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
START_NS = 1_700_000_000_000_000_000


class Ids:
    """A journal: what was flushed outlives a crash."""

    def __init__(self) -> None:
        self.durable: set[bytes] = set()
        self.recent: set[bytes] = set()
        self.full = False

    def known(self, source_ids: Iterable[bytes]) -> set[bytes]:
        return {one for one in source_ids if one in self.durable or one in self.recent}

    def add(self, source_ids: Iterable[bytes]) -> None:
        self.recent.update(one for one in source_ids if one)

    def flush(self) -> None:
        if self.full:
            raise Overloaded("the disk takes no more")
        self.durable |= self.recent

    def flush_soon(self) -> None:
        with suppress(Overloaded):
            self.flush()

    def forget(self) -> None:
        self.durable.clear()
        self.recent.clear()


class Clock:
    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        self.now_ns += 1
        return self.now_ns


class House:
    """What outlives a process: disk, store, journal, clock; and how to start the next one."""

    def __init__(self, disk: FaultyDisk | None = None, store: MemoryStore | None = None) -> None:
        self.disk = disk or FaultyDisk()
        self.store = store or MemoryStore()
        self.journal = Ids()
        self.clock = Clock()
        self.seconds = 0.0
        self.minted = 0

    def open(
        self,
        *,
        heartbeat_seconds: int = 0,
        ledger: str = "test/ledger",
        events: int = 4,
        spool: SpoolLimits | None = None,
    ) -> Pipeline:
        return Pipeline(
            ROOT,
            collector="payments",
            ledger=ledger,
            store=self.store,
            key=KEY,
            limits=PipelineLimits(
                spool=spool or SpoolLimits(segment_bytes=300),
                batch=BatchLimits(events=events, heartbeat_seconds=heartbeat_seconds),
                retry=RetryLimits(base_seconds=0.001, cap_seconds=0.01, failures_to_open=3, open_seconds=0.02),
                linger_seconds=0.0,
                release_seconds=0.0,
            ),
            disk=self.disk,
            journal=self.journal,
            clock=self.clock,
            monotonic=lambda: self.seconds,
            random_bytes=self._random,
        )

    def _random(self, count: int) -> bytes:
        self.minted += 1
        return self.minted.to_bytes(count, "big")

    def restart(self, fate: Fate = Fate.LOST) -> Pipeline:
        self.disk = self.disk.after_crash(fate)
        self.journal.recent.clear()
        return self.open()

    def cloned(self) -> House:
        """Another machine with a copy of the disk, and the same store."""
        other = House(self.disk.after_crash(Fate.KEPT), self.store)
        other.journal.durable = set(self.journal.durable)
        other.minted = 100 + self.minted
        return other


def put(pipeline: Pipeline, *names: str) -> None:
    told: list[Spooled | Exception] = []
    for name in names:
        pipeline.append(group(name), told.append)
        pipeline.commit_once()
    assert all(isinstance(one, Spooled) for one in told), told


def group(name: str) -> Group:
    return Group(
        group_id=b"group " + name.encode(),
        source_ids=[name.encode() + b"/0", b""],
        events=[f'{{"body":"{name}.{at}"}}'.encode() for at in range(2)],
        facts=[f'{{"digest":"{name}.{at}"}}'.encode() for at in range(2)],
    )


def ship(pipeline: Pipeline) -> int:
    steps = 0
    while pipeline.ship_once():
        steps += 1
    return steps


def stored(store: MemoryStore) -> list[str]:
    """The events of every stream, sorted, after checking each stream's numbers, chain, signatures and sequences."""
    found: list[str] = []
    for stream, batches in store.batches.items():
        previous, sequence = "", 0
        for expected, number in enumerate(sorted(batches), start=1):
            batch = batches[number]
            header = open_header(batch.signed.data, batch.signed.signature, batch.signed.facts).header
            assert (header.number, header.previous, header.first) == (expected, previous, sequence), stream
            assert facts_root(batch.signed.facts_lines()) == header.facts_root
            at = 0
            for length in batch.lengths:
                found.append(batch.events[at : at + length].decode()[9:-2])
                at += length
            sequence += header.count
            previous = batch.signed.digest
    return sorted(found)


def both(*names: str) -> list[str]:
    return sorted(f"{name}.{at}" for name in names for at in range(2))


def headers(store: MemoryStore, stream: StreamId) -> list[tuple[int, int, bool]]:
    return [
        (number, batch.signed.header.count, batch.signed.header.closed)
        for number, batch in sorted(store.batches[stream].items())
    ]


def test_events_are_shipped_in_batches_of_whole_groups() -> None:
    house = House()
    pipeline = house.open(events=3)
    put(pipeline, "a", "b", "c")
    assert pipeline.state().waiting_events == 6
    assert ship(pipeline) == 2
    assert headers(house.store, pipeline.stream) == [(1, 4, False), (2, 2, False)]
    assert stored(house.store) == both("a", "b", "c")
    assert pipeline.state().waiting_events == 0
    assert pipeline.state().shipped_number == 2


def test_groups_of_known_events_alone_do_not_stop_shipping() -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, "a")
    ship(pipeline)
    pipeline._live.shipper.limits = BatchLimits(events=4, size_bytes=60, heartbeat_seconds=0)  # type: ignore[union-attr]
    for at in range(9):  # a sender's new chunk of old events: a frame without any
        told: list[Spooled | Exception] = []
        old = Group(group_id=b"%d" % at, source_ids=[b"a/0"], events=[b"{}"], facts=[b"{}"])
        pipeline.append(old, told.append)
        pipeline.commit_once()
        assert told == [Spooled(first=2, stored=0, duplicates=1)]
    assert not pipeline.ship_once()
    put(pipeline, "b")
    assert ship(pipeline) == 1
    assert stored(house.store) == both("a", "b")


def test_a_store_that_is_down_gets_the_same_batch_later() -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, "a")
    ship(pipeline)
    put(pipeline, "b")
    house.store.down = "no route"
    for _ in range(3):
        with pytest.raises(Overloaded, match="no route"):
            pipeline.ship_once()
    put(pipeline, "c")
    assert pipeline.state().waiting_events == 4
    house.store.down = ""
    ship(pipeline)
    assert headers(house.store, pipeline.stream) == [(1, 2, False), (2, 2, False), (3, 2, False)]
    assert stored(house.store) == both("a", "b", "c")


def test_a_store_that_is_down_at_the_start_does_not_keep_events_out() -> None:
    house = House()
    house.store.down = "no route"
    pipeline = house.open()
    put(pipeline, "a")
    with pytest.raises(Overloaded):
        pipeline.ship_once()
    assert pipeline.state().waiting_events == 2
    house.store.down = ""
    ship(pipeline)
    assert stored(house.store) == both("a")


@pytest.mark.parametrize("arrived", [False, True], ids=["lost", "arrived"])
def test_a_batch_in_flight_is_sent_again_after_a_restart_as_it_was_signed(arrived: bool) -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, "a", "b", "c")
    house.store.down = "no route"
    with pytest.raises(Overloaded):
        pipeline.ship_once()
    house.store.down = ""
    if arrived:
        ship(pipeline)
    stream = pipeline.stream
    first = house.store.batches[stream][1] if arrived else None
    again = house.restart()
    assert again.stream == stream
    put(again, "b", "d")  # the sender had no answer, and sends again
    ship(again)
    assert first is None or house.store.batches[stream][1] == first
    assert stored(house.store) == both("a", "b", "c", "d")


def test_a_header_that_cannot_be_synced_is_not_sent() -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, "a")
    assert ship(pipeline)
    put(pipeline, "b")
    house.disk.failing["sync"] = OSError(5, "I/O error")
    with pytest.raises(OSError, match="I/O"):
        pipeline.ship_once()
    assert stored(house.store) == both("a")
    house.disk.failing.clear()
    ship(pipeline)
    assert stored(house.store) == both("a", "b")
    assert house.restart().state().damaged == ()


# -- heartbeats, closing, letting go


def test_a_quiet_stream_signs_a_heartbeat_and_a_busy_one_does_not() -> None:
    house = House()
    pipeline = house.open(heartbeat_seconds=60)
    assert ship(pipeline) == 1  # nothing was ever signed: the stream says at once that it lives
    house.clock.now_ns += 59 * 10**9
    assert ship(pipeline) == 0
    put(pipeline, "a")
    ship(pipeline)
    house.clock.now_ns += 59 * 10**9
    assert ship(pipeline) == 0
    house.clock.now_ns += 10**9
    assert ship(pipeline) == 1
    assert [count for _, count, _ in headers(house.store, pipeline.stream)] == [0, 2, 0]
    assert stored(house.store) == both("a")


def test_a_clock_that_is_set_back_stops_no_heartbeats() -> None:
    house = House()
    pipeline = house.open(heartbeat_seconds=60)
    put(pipeline, "a")
    ship(pipeline)
    house.clock.now_ns -= 3_600 * 10**9
    assert ship(pipeline) == 1
    house.clock.now_ns += 59 * 10**9
    assert ship(pipeline) == 0
    house.clock.now_ns += 10**9
    assert ship(pipeline) == 1
    assert [count for _, count, _ in headers(house.store, pipeline.stream)] == [2, 0, 0]


def test_a_stream_without_heartbeats_signs_none() -> None:
    house = House()
    pipeline = house.open(heartbeat_seconds=0)
    house.clock.now_ns += 10**15
    assert ship(pipeline) == 0
    assert pipeline.stream not in house.store.batches


def run(pipeline: Pipeline, *names: str, **stop: float | bool) -> bool:
    pipeline.start()
    told = threading.Semaphore(0)
    for name in names:
        pipeline.append(group(name), lambda _: told.release())
    assert all(told.acquire(timeout=20) for _ in names)
    return pipeline.stop(drain_seconds=float(stop.get("drain_seconds", 20.0)))


def test_a_stop_ships_everything_and_closes_the_stream() -> None:
    house = House()
    pipeline = house.open()
    assert run(pipeline, "a", "b")
    assert stored(house.store) == both("a", "b")
    assert headers(house.store, pipeline.stream)[-1][1:] == (0, True)
    again = house.open()  # the lock is free
    assert again.stream != pipeline.stream
    ship(again)
    assert headers(house.store, pipeline.stream)[-1][1:] == (0, True)  # nothing more is signed by the closed one
    assert list(house.store.batches) == [pipeline.stream]


def test_a_stop_while_the_store_is_down_leaves_the_rest_for_the_next_start() -> None:
    house = House()
    house.store.down = "no route"
    pipeline = house.open()
    assert not run(pipeline, "a", drain_seconds=0.05)
    house.store.down = ""
    again = house.open()
    assert again.stream == pipeline.stream
    ship(again)
    assert stored(house.store) == both("a")


def test_segments_go_when_the_log_has_them_and_a_closed_incarnation_with_them() -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, *"abcdefgh")
    ship(pipeline)
    before = pipeline.state().spool_bytes
    pipeline.release_once()
    assert pipeline.state().spool_bytes == before  # the store has them, the log has not
    house.store.acknowledge({pipeline.stream: 2})
    pipeline.release_once()
    between = pipeline.state().spool_bytes
    assert 0 < between < before
    run(pipeline)
    house.store.acknowledge({pipeline.stream: max(house.store.batches[pipeline.stream])})
    again = house.open()
    ship(again)
    again.release_once()
    assert [one.stream for one in find_incarnations(ROOT, ledger="test/ledger", disk=house.disk)] == [again.stream]
    assert stored(house.store) == both(*"abcdefgh")


def test_ids_outlive_the_folder_of_the_incarnation_that_had_them() -> None:
    house = House()
    first = house.open()
    assert run(first, "a")
    house.store.acknowledge({first.stream: max(house.store.batches[first.stream])})
    second = house.restart()
    ship(second)
    house.journal.full = True
    with pytest.raises(Overloaded):
        second.release_once()
    assert len(find_incarnations(ROOT, ledger="test/ledger", disk=house.disk)) == 2
    house.journal.full = False
    second.release_once()
    assert [one.stream for one in find_incarnations(ROOT, ledger="test/ledger", disk=house.disk)] == [second.stream]
    third = house.restart()
    put(third, "a")  # its sender, which had no answer, sends it again
    ship(third)
    assert stored(house.store) == both("a")


def test_an_incarnation_minted_under_an_earlier_clock_is_closed_when_it_is_drained() -> None:
    house = House()
    house.clock.now_ns += 365 * 86_400 * 10**9  # a machine whose clock was a year ahead
    first = house.open(heartbeat_seconds=60)
    assert run(first, "a")
    house.clock.now_ns -= 365 * 86_400 * 10**9
    second = house.open(heartbeat_seconds=60)
    put(second, "b")
    ship(second)
    third = house.restart()  # the second is open still, and stands before the first
    assert third.stream not in (first.stream, second.stream)
    ship(third)
    assert headers(house.store, second.stream) == [(1, 2, False), (2, 0, True)]
    for stream in (first.stream, second.stream):
        house.store.acknowledge({stream: max(house.store.batches[stream])})
    third.release_once()
    assert [one.stream for one in find_incarnations(ROOT, ledger="test/ledger", disk=house.disk)] == [third.stream]
    put(third, "c")
    ship(third)
    assert stored(house.store) == both(*"abc")


def test_what_the_log_gets_to_hold_while_it_is_sent_again_is_released_afterwards() -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, *(f"g{at}" for at in range(12)))
    assert ship(pipeline) == 6
    stream = pipeline.stream
    house.store.batches[stream] = {
        1: house.store.batches[stream][1]
    }  # put back; the log has none yet: all are sent again
    again = house.restart(Fate.KEPT)
    assert again.ship_once()
    assert again.state().waiting_events == 20
    house.store.acknowledge({stream: 4})  # the correlator has not rested meanwhile
    again.release_once()
    assert again.state().acknowledged_number == 1  # what is still to be sent again is read from the spool
    ship(again)
    assert again.state().damaged == ()
    assert (again.stream, again.state().shipped_number) == (stream, 6)
    before = again.state().spool_bytes
    again.release_once()  # the log has nothing new, but what was kept to be sent again may go
    assert again.state().acknowledged_number == 4
    assert 0 < again.state().spool_bytes < before
    assert stored(house.store) == both(*(f"g{at}" for at in range(12)))


def test_numbers_go_on_after_everything_was_released() -> None:
    house = House()
    pipeline = house.open()
    for name in "abcdef":
        put(pipeline, name)
        ship(pipeline)
        house.store.acknowledge({pipeline.stream: max(house.store.batches[pipeline.stream])})
        pipeline.release_once()
        pipeline = house.restart()
    assert len(house.store.batches) == 1
    assert stored(house.store) == both(*"abcdef")


# -- what the store loses


def lose(house: House, pipeline: Pipeline, *numbers: int) -> None:
    for number in numbers:
        del house.store.batches[pipeline.stream][number]


def correlate(house: House, pipeline: Pipeline) -> None:
    """What the correlator does: cover everything in front of the first batch that is missing."""
    there = house.store.batches[pipeline.stream]
    house.store.acknowledge(
        {pipeline.stream: next(number for number in range(len(there) + 2) if number + 1 not in there)}
    )


def look(house: House, pipeline: Pipeline, after_seconds: float) -> int:
    """Let this time go by; how many batches were sent again."""
    before = pipeline.state().resent_batches
    house.seconds += after_seconds
    pipeline.release_once()
    return pipeline.state().resent_batches - before


def shipped(house: House, names: Iterable[str]) -> Pipeline:
    pipeline = house.open()
    for name in names:
        put(pipeline, name)
        ship(pipeline)
    return pipeline


def test_a_batch_that_the_store_lost_comes_back_and_the_spool_is_released() -> None:
    house = House()
    pipeline = shipped(house, "abcdefgh")
    lose(house, pipeline, 3)
    correlate(house, pipeline)
    assert look(house, pipeline, 0.0) == 0
    assert pipeline.state().acknowledged_number == 2
    kept = pipeline.state().spool_bytes
    assert look(house, pipeline, 29.0) == 0  # not yet: it may only be slow
    assert look(house, pipeline, 1.0) == 1
    assert stored(house.store) == both(*"abcdefgh")
    correlate(house, pipeline)
    assert look(house, pipeline, 2.0) == 0
    assert pipeline.state().acknowledged_number == 8
    assert pipeline.state().spool_bytes < kept
    put(pipeline, "i")
    ship(pipeline)  # the place from which new batches are cut is as it was
    assert stored(house.store) == both(*"abcdefghi")


def test_a_spool_smaller_than_a_segment_takes_events_again_when_the_log_has_them() -> None:
    house = House()
    pipeline = house.open(spool=SpoolLimits(total_bytes=600))
    names = [f"n{at}" for at in range(30)]
    refused, covered = 0, False
    for name in names:
        try:
            put(pipeline, name)
        except Overloaded:
            refused += 1
            pipeline.release_once()
            if not covered:
                with pytest.raises(Overloaded, match="the spool is full"):
                    put(pipeline, name)  # the store has all of it, and may lose it before the log has it
                house.store.acknowledge({pipeline.stream: pipeline.state().shipped_number})
                pipeline.release_once()
            put(pipeline, name)
        ship(pipeline)
        covered = refused == 2  # then the log has all of it before anybody is refused
        if covered:
            house.store.acknowledge({pipeline.stream: pipeline.state().shipped_number})
            pipeline.release_once()
    assert refused >= 3
    assert stored(house.store) == sorted(f"{name}.{at}" for name in names for at in range(2))
    pipeline = house.restart()
    ship(pipeline)
    assert len(stored(house.store)) == 60


def test_lost_batches_far_apart_and_heartbeats_come_back_a_bounded_number_at_a_time() -> None:
    house = House()
    pipeline = house.open(heartbeat_seconds=60)
    for at in range(30):
        put(pipeline, f"a{at}")
        ship(pipeline)
        house.clock.now_ns += 60 * 10**9
        ship(pipeline)  # a heartbeat: a batch without events
    lose(house, pipeline, *range(2, 30), 50, 60)
    correlate(house, pipeline)
    look(house, pipeline, 0.0)
    found = []
    while len(house.store.batches[pipeline.stream]) < 60:
        found.append(look(house, pipeline, 30.0))
        correlate(house, pipeline)
        look(house, pipeline, 2.0)
        assert len(found) < 20
    assert sum(found) == 30
    assert max(found) == 16
    assert stored(house.store) == both(*(f"a{at}" for at in range(30)))


def test_a_correlator_that_is_down_causes_few_questions_and_no_batch_to_be_sent_again() -> None:
    class Counting(MemoryStore):
        asked = 0

        def batch(self, stream: StreamId, number: int) -> SignedHeader | None:
            self.asked += 1
            return super().batch(stream, number)

    store = Counting()
    house = House(store=store)
    pipeline = shipped(house, "abcdefgh")
    appends = store.appends
    for _ in range(3_600):
        assert look(house, pipeline, 1.0) == 0
    assert store.appends == appends
    assert 5 <= store.asked <= 12  # 30 s, 90 s, 210 s, ..., then each 10 minutes


def test_a_batch_that_is_lost_again_and_again_is_sent_ever_more_rarely() -> None:
    house = House()
    pipeline = shipped(house, "abc")
    sent = 0
    for _ in range(3_600):
        house.store.batches[pipeline.stream].pop(1, None)
        sent += look(house, pipeline, 1.0)
    assert 5 <= sent <= 12


def test_a_changed_batch_is_no_lost_one() -> None:
    house = House()
    pipeline = shipped(house, "abc")
    batches = house.store.batches[pipeline.stream]
    batches[1] = replace(batches[1], signed=replace(batches[1].signed, signature=bytes(64)))
    look(house, pipeline, 0.0)
    assert look(house, pipeline, 31.0) == 0
    assert pipeline.state().forks == 0


def test_a_lost_batch_that_does_not_read_back_is_told_and_shipping_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    pipeline = shipped(house, "abcdefgh")
    lose(house, pipeline, 1, 8)
    damaged(house, ".seg")  # where the first batch was
    look(house, pipeline, 0.0)
    assert look(house, pipeline, 31.0) == 1  # the other one
    assert "batch 1 of payments/" in caplog.text
    assert "cannot be sent again" in caplog.text
    put(pipeline, "i")
    ship(pipeline)
    assert sorted(house.store.batches[pipeline.stream]) == list(range(2, 10))


def test_what_was_lost_and_whose_number_another_copy_took_is_numbered_anew() -> None:
    house = House()
    pipeline = house.open()
    other = house.cloned()
    put(pipeline, "a")
    ship(pipeline)
    put(late := other.restart(), "x")
    house.store.batches[pipeline.stream].clear()  # put back to before the first
    look(house, pipeline, 0.0)
    real = house.store.batch

    def blind(stream: StreamId, number: int) -> SignedHeader | None:
        house.store.batch = real  # type: ignore[method-assign]
        answer = real(stream, number)
        ship(late)  # between the question and the answer
        return answer

    house.store.batch = blind  # type: ignore[method-assign]
    assert look(house, pipeline, 31.0) == 0
    assert stored(house.store) == both("x")
    ship(pipeline)
    assert stored(house.store) == both("a", "x")
    assert pipeline.state().forks == 1


def test_a_header_that_does_not_read_back_before_its_batch_is_let_go_of_sets_the_spool_aside() -> None:
    house = House()
    pipeline = shipped(house, "abc")
    (path,) = (path for path in house.disk.files(ROOT) if path.name.startswith("headers-"))
    house.disk.flip(path, 100)
    house.store.acknowledge({pipeline.stream: 1})
    pipeline.release_once()
    assert len(pipeline.state().damaged) == 1
    put(pipeline, "d")
    ship(pipeline)
    assert stored(house.store) == both(*"abcd")


def test_a_store_that_was_put_back_is_sent_what_the_spool_still_has(caplog: pytest.LogCaptureFixture) -> None:
    started_within_a_batch = 0
    for acknowledged in range(1, 6):
        for back in range(acknowledged):
            house = House()
            pipeline = house.open(events=6, spool=SpoolLimits(segment_bytes=150))  # a segment ends within a batch
            put(pipeline, *(f"g{at:02}" for at in range(15)))
            assert ship(pipeline) == 5
            stream = pipeline.stream
            house.store.acknowledge({stream: acknowledged})
            pipeline.release_once()
            start = pipeline._live.spool.start.segment
            started_within_a_batch += start % 6 != 0
            put(pipeline, "kept")  # its sender was told so
            house.store.batches[stream] = {
                number: batch for number, batch in house.store.batches[stream].items() if number <= back
            }
            house.store.frontier = {stream: back}
            caplog.clear()
            again = house.restart()
            ship(again)
            assert (again.state().damaged, again.stream) == ((), stream)
            assert again.state().waiting_events == 0
            there = house.store.batches[stream]
            assert list(there)[:back] == list(range(1, back + 1))
            assert list(there)[back:] == list(range(max(back, -(-start // 6)) + 1, 7)), (acknowledged, back)
            assert b"kept" in there[6].events
            assert ("put back" in caplog.text) == (start > 6 * back)
            house.seconds += 100.0
            again.release_once()
            assert "cannot be sent again" not in caplog.text
    assert started_within_a_batch


def test_a_start_sends_again_from_where_the_store_ends() -> None:
    class Counting(MemoryStore):
        asked = 0

        def batch(self, stream: StreamId, number: int) -> SignedHeader | None:
            self.asked += 1
            return super().batch(stream, number)

    for there in (0, 1, 2, 31, 32, 62, 63, 64):
        store = Counting()
        house = House(store=store)
        pipeline = shipped(house, [f"g{at}" for at in range(64)])  # the correlator is away, so all headers are kept
        stream = pipeline.stream
        store.batches[stream] = {number: store.batches[stream][number] for number in range(1, there + 1)}
        store.appends = 0
        again = house.restart()
        put(again, "new")
        ship(again)
        assert store.asked <= 8
        # the last that is there may have been on its way; what nobody flushed, its sender's re-send is told of
        assert store.appends == 64 - there + (there > 0) + 1
        assert again.state().waiting_events == 0
        assert stored(store) == both(*(f"g{at}" for at in range(64)), "new")


def test_what_the_store_lost_among_what_it_has_is_healed_after_a_start_too() -> None:
    house = House()
    pipeline = shipped(house, "abcdefgh")
    for number in (2, 5):
        del house.store.batches[pipeline.stream][number]
    again = house.restart()
    ship(again)
    look(house, again, 0.0)
    house.store.acknowledge({again.stream: 1})
    look(house, again, 0.0)
    assert look(house, again, 31.0) == 2
    assert stored(house.store) == both(*"abcdefgh")


def test_no_stream_is_closed_before_what_is_sent_again() -> None:
    house = House()
    pipeline = house.open(heartbeat_seconds=1)
    put(pipeline, "a")
    for _ in range(3):
        ship(pipeline)
        house.clock.now_ns += 2 * 10**9
    stream = pipeline.stream
    assert len(house.store.batches[stream]) == 3
    house.store.batches.clear()
    again = house.restart()
    assert again.ship_once()
    again._close_stream = True  # as `stop` does
    assert not again.drained()  # heartbeats are no events that wait, and yet are to be sent again
    while not again.drained():
        again.ship_once()
    assert headers(house.store, stream) == [(1, 2, False), (2, 0, False), (3, 0, False), (4, 0, True)]


def test_an_older_incarnation_heals_too_and_goes_when_the_log_has_it() -> None:
    house = House()
    first = shipped(house, "abc")
    run(first)
    pipeline = house.open()
    ship(pipeline)
    del house.store.batches[first.stream][2]
    house.store.acknowledge({first.stream: 1})
    look(house, pipeline, 0.0)
    assert look(house, pipeline, 31.0) == 1
    house.store.acknowledge({first.stream: max(house.store.batches[first.stream])})
    look(house, pipeline, 2.0)
    assert [one.stream for one in find_incarnations(ROOT, ledger="test/ledger", disk=house.disk)] == [pipeline.stream]


def test_many_incarnations_that_wait_for_the_log_hold_few_files_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    append_to = FaultyDisk.append_to

    def watched(disk: FaultyDisk, path: Path, *, reserve_bytes: int = 0) -> object:
        file = append_to(disk, path, reserve_bytes=reserve_bytes)
        opened.append(path)
        close = file.close

        def closed() -> None:
            close()
            if path in opened:
                opened.remove(path)

        file.close = closed  # type: ignore[method-assign]
        return file

    monkeypatch.setattr(FaultyDisk, "append_to", watched)
    house = House()
    for at in range(12):  # clean starts and stops, and no correlator
        pipeline = house.open()
        assert len(opened) <= 2
        put(pipeline, f"a{at}")
        run(pipeline)
        opened.clear()
    pipeline = house.open()
    ship(pipeline)
    assert len(opened) <= 2
    assert len(find_incarnations(ROOT, ledger="test/ledger", disk=house.disk)) == 13
    for stream, batches in house.store.batches.items():
        house.store.acknowledge({stream: max(batches)})
    pipeline.release_once()
    assert len(find_incarnations(ROOT, ledger="test/ledger", disk=house.disk)) == 1
    assert stored(house.store) == both(*(f"a{at}" for at in range(12)))


# -- who may open it


def test_a_second_process_is_refused_until_the_first_is_gone() -> None:
    house = House()
    first = house.open()
    with pytest.raises(StateUnknown, match="in use by another process"):
        house.open()
    first.stop(drain_seconds=0.0)
    house.open()


def test_another_ledgers_spool_is_refused_and_left_alone() -> None:
    house = House()
    put(house.open(), "a")
    house.disk = house.disk.after_crash(Fate.LOST)
    with pytest.raises(StateUnknown, match="belongs to the ledger 'test/ledger', not to 'other'"):
        house.open(ledger="other")
    again = house.open()  # the refused one gave its lock back
    ship(again)
    assert stored(house.store) == both("a")


# -- forks


def test_both_clones_of_a_spool_go_on_and_the_fork_is_named() -> None:
    for original_first in (True, False):
        house = House()
        put(house.open(), "a")
        ship_and_stay(house)
        other = house.cloned()
        one, two = (house, other) if original_first else (other, house)
        pipelines = [one.restart(), two.restart()]
        put(pipelines[0], "b")
        put(pipelines[1], "c")
        ship(pipelines[0])
        forked = pipelines[1].stream
        ship(pipelines[1])
        assert pipelines[1].state().forks == 1
        assert pipelines[1].stream != forked
        first = house.store.batches[pipelines[1].stream][1].signed.header
        assert first.fork is not None
        assert (first.fork.stream, first.fork.number) == (forked, 2)
        put(pipelines[0], "d")
        put(pipelines[1], "e")
        ship(pipelines[0])
        ship(pipelines[1])
        assert stored(house.store) == both(*"abcde")
        put(two.restart(), "c", "e")  # re-sends, recognised across the fork
        ship_and_stay(two)
        assert stored(house.store) == both(*"abcde")


def ship_and_stay(house: House) -> None:
    ship(house.restart())


def test_a_clones_backlog_is_numbered_anew() -> None:
    house = House()
    pipeline = house.open(events=2)
    put(pipeline, "a")
    ship(pipeline)
    other = house.cloned()
    put(pipeline, "x")
    ship(pipeline)
    late = other.open(events=2)
    put(late, *"bcdefgh")
    ship(late)
    assert stored(house.store) == both(*"axbcdefgh")
    assert late.state().waiting_events == 0


def test_a_clones_group_of_which_nothing_was_new_hides_no_events_behind_it() -> None:
    house = House()
    put(pipeline := house.open(), "a")
    ship(pipeline)
    other = house.cloned()
    put(pipeline, "x")
    ship(pipeline)
    late = other.open()
    known = Group(group_id=b"another", source_ids=[b"a/0"], events=[b'{"body":"a.0"}'], facts=[b'{"digest":"a.0"}'])
    told: list[Spooled | Exception] = []
    put(late, "b")
    late.append(known, told.append)
    late.commit_once()
    put(late, "c")  # it begins where the other one stands
    assert all(isinstance(one, Spooled) and not one.stored for one in told)
    ship(late)
    assert late.state().forks == 1
    assert stored(house.store) == both(*"axbc")
    again = other.restart()
    again.append(known, told.append)
    again.commit_once()
    assert told[-1] == Spooled(first=again.next_sequence, stored=0, duplicates=1)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("acknowledged", [1, 2, 3, 9])
def test_a_clone_does_not_take_its_batch_for_acknowledged_because_the_log_has_that_number(
    acknowledged: int, closed: bool
) -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, "a")
    ship(pipeline)
    other = house.cloned()
    late = other.open()
    ship(late)
    for name in "uvwxyz":  # the original goes on, and the log holds what it sends
        put(pipeline, name)
        ship(pipeline)
    put(late, "b")
    other.store.down = "no route"
    with pytest.raises(Overloaded):
        late.ship_once()  # its own batch 2 is signed, and its sender was told
    other.store.down = ""
    stream = late.stream
    house.store.acknowledge({stream: acknowledged})
    again = other.restart()
    if closed:
        run(again)  # drained, and closed: then its folder is removed when the log holds it
        again = other.open()
    put(again, "c")
    for _ in range(4):
        again.ship_once()
        again.release_once()
    assert again.state().damaged == ()
    assert again.state().waiting_events == 0
    assert stored(house.store) == both(*"abcuvwxyz")
    forks = [batches[1].signed.header.fork for batches in house.store.batches.values()]
    assert [(fork.stream, fork.number) for fork in forks if fork] == [(stream, 2)]


def test_a_clone_keeps_what_is_to_be_sent_again_whatever_the_log_has_under_its_numbers() -> None:
    house = House()
    pipeline = house.open(events=2)
    put(pipeline, *"abcd")
    ship(pipeline)
    other = house.cloned()
    late = other.open(events=2)
    ship(late)
    put(late, "e")
    house.store.down = "no route"
    with pytest.raises(Overloaded):
        ship(late)  # 5 is cut, and all before it is sent again after a start
    house.store.down = ""
    late = other.restart()
    put(pipeline, *"xyz")
    run(pipeline)
    assert late.ship_once()
    house.store.acknowledge({pipeline.stream: max(house.store.batches[pipeline.stream])})
    for _ in range(20):
        late.release_once()  # between two re-sends: neither segments nor headers go
        late = other.restart()
        late.ship_once()
    assert stored(house.store) == both(*"abcdexyz")


def test_a_fork_that_was_taken_over_is_done_with_and_its_ids_are_remembered() -> None:
    house = House()
    put(house.open(), "a")
    ship_and_stay(house)
    other = house.cloned()
    put(pipeline := house.restart(), "x")
    ship(pipeline)
    late = other.open()
    put(late, "b")  # too little for a segment to roll, which would make its ids durable, too
    ship(late)
    again = other.restart()
    put(again, "b")
    ship(again)
    assert again.state().forks == 0
    assert stored(house.store) == both("a", "x", "b")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_fork_counts_to_the_bound_until_the_log_holds_what_the_store_took_of_it(restarted: bool) -> None:
    house = House()
    pipeline = house.open(events=2)
    put(pipeline, *"ab")
    ship(pipeline)
    other = house.cloned()
    put(pipeline, "x")
    ship(pipeline)
    late = other.open(events=2)
    put(late, "c")
    ship(late)
    forked = pipeline.stream
    if restarted:
        late = other.restart()
        ship(late)

    def folders() -> list[StreamId]:
        return [one.stream for one in find_incarnations(ROOT, ledger="test/ledger", disk=other.disk)]

    def on_disk() -> int:
        return sum(other.disk.size(path) for path in other.disk.files(ROOT) if path.parent.name.startswith("0"))

    late.release_once()
    assert folders() == [forked, late.stream]
    held = late.state().spool_bytes
    assert held > late._live.spool.size_bytes
    late.limit(PipelineLimits(spool=SpoolLimits(total_bytes=held)))
    with pytest.raises(Overloaded, match="full"):
        put(late, "d")
    other.store.acknowledge({forked: 1})
    late.release_once()
    assert folders() == [forked, late.stream], "batch 2 is in no log yet"
    before = on_disk()
    other.store.acknowledge({forked: 2})  # the store refused the third
    late.release_once()
    assert folders() == [late.stream]
    assert late.state().spool_bytes == late._live.spool.size_bytes == held - (before - on_disk())
    put(late, "d")
    put(other.restart(), *"abcd")  # re-sends of what was in the folder are recognised
    ship(late)
    assert stored(house.store) == both(*"abxcd")


def test_a_full_spool_is_taken_over_into_one_that_senders_have_filled() -> None:
    limits = SpoolLimits(segment_bytes=300, total_bytes=2_000)
    house = House()
    pipeline = house.open(spool=limits)
    put(pipeline, "a")
    ship(pipeline)
    other = house.cloned()
    put(pipeline, "x")
    ship(pipeline)
    late = other.open(spool=limits)
    names = filled(late)
    other.disk.crash_at = len(other.disk.changes) + 20  # in the middle of the take-over
    with pytest.raises(Crashed):
        ship(late)
    other.disk = other.disk.after_crash(Fate.LOST)
    other.journal.recent.clear()
    late = other.open(spool=replace(limits, total_bytes=4_000))
    assert late.stream != pipeline.stream
    names += filled(late)  # senders are first, and leave no room
    assert late.state().spool_bytes > 3_800
    ship(late)
    assert stored(house.store) == both("a", "x", *names)


def filled(pipeline: Pipeline) -> list[str]:
    """Puts groups until the spool is full; their names."""
    names: list[str] = []
    with suppress(Overloaded):
        while True:
            put(pipeline, name := f"n{pipeline.stream[-2:]}{len(names):02}")
            names.append(name)
    return names


def test_a_take_over_that_the_disk_has_no_room_for_ships_what_it_has_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("collector.takeover._READ_BYTES", 3_000)

    class Small(FaultyDisk):
        size_bytes = 2**40

        def free_bytes(self, path: Path) -> int:  # noqa: ARG002 - there is one disk
            return self.size_bytes - sum(self.size(one) for one in self.files(ROOT))

    def long(name: str) -> Group:
        return Group(group_id=name.encode(), source_ids=[b""], events=[name.encode() * 1_000], facts=[b"{}"])

    house = House()
    put(pipeline := house.open(), "a")
    ship(pipeline)
    other = house.cloned()
    put(pipeline, "x")
    ship(pipeline)
    other.disk = Small(root=other.disk._root)
    late = other.open(
        events=2, spool=SpoolLimits(segment_bytes=3_000, queued_bytes=3_000, reserve_bytes=0, keep_free_bytes=10_000)
    )
    names = [f"n{at:02}" for at in range(40)]
    told: list[Spooled | Exception] = []
    for name in names:
        late.append(long(name), told.append)
        late.commit_once()
    held = late.state().spool_bytes
    assert held > 120_000
    other.disk.size_bytes = held + 50_000  # of which 40,000 may be written, so that it takes several goes
    rounds = 0
    while late.state().waiting_events or rounds == 0:
        rounds += 1
        with suppress(Overloaded):
            late.ship_once()
        for stream, batches in house.store.batches.items():
            house.store.acknowledge({stream: max(batches)})
        with suppress(Overloaded):
            late.release_once()
        assert late.state().waiting_events <= 44, "what was taken over waits once"
        assert rounds < 100
    assert late.state().forks == 1, "there is one clone, however often its take-over was tried"
    bodies = [batch.events for batches in house.store.batches.values() for batch in batches.values()]
    assert all(sum(body.count(name.encode() * 1_000) for body in bodies) == 1 for name in names)
    assert [one.stream for one in find_incarnations(ROOT, ledger="test/ledger", disk=other.disk)] == [late.stream]


def test_all_incarnations_have_one_bound_together() -> None:
    limits = SpoolLimits(segment_bytes=300, total_bytes=2_000)
    house = House()  # whose correlator is down
    first = house.open(spool=limits)
    names = filled(first)
    assert len(names) > 5
    assert run(first)
    second = house.open(spool=limits)
    assert second.stream != first.stream
    assert filled(second) == []
    assert second.state().spool_bytes <= 2_000
    ship(second)
    house.store.acknowledge({first.stream: 2})
    second.release_once()
    more = filled(second)
    assert more
    assert second.state().spool_bytes <= 2_000
    house.store.acknowledge({first.stream: max(house.store.batches[first.stream])})
    ship(second)
    second.release_once()
    assert len(filled(second)) > len(more) > 0
    assert second.state().spool_bytes <= 2_000


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_crash_anywhere_in_a_take_over_loses_and_doubles_nothing(acknowledged: bool) -> None:
    def clone_with_backlog(crash_at: int | None) -> tuple[House, Pipeline]:
        house = House()
        pipeline = house.open(events=2)
        put(pipeline, "a")
        ship(pipeline)
        other = house.cloned()
        put(pipeline, "x")
        ship(pipeline)
        late = other.open(events=2)
        put(late, *"bcd")
        other.disk.crash_at = crash_at and len(other.disk.changes) + crash_at
        return other, late

    whole, late = clone_with_backlog(None)
    before = len(whole.disk.changes)
    ship(late)
    changes = len(whole.disk.changes) - before
    assert changes > 10
    for crash_at in range(1, changes + 1):
        for fate in Fate:
            house, late = clone_with_backlog(crash_at)
            stream = late.stream
            with pytest.raises(Crashed):
                ship(late)
            if acknowledged:  # the correlator has taken the other copy's batch meanwhile
                house.store.acknowledge({stream: 2})
            again = house.restart(fate)
            put(again, *"bcd")
            ship(again)
            assert stored(house.store) == both(*"axbcd"), (crash_at, fate)


# -- damage


def damaged(house: House, where: str) -> Path:
    (path,) = [one for one in house.disk.files(ROOT) if where in one.name][:1]
    house.disk.flip(path, 30)
    return path


@pytest.mark.parametrize("where", [".seg", "headers-"])
def test_a_spool_that_does_not_read_back_is_set_aside_and_a_new_one_goes_on(where: str) -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, *"abc")
    ship(pipeline)
    house.disk = house.disk.after_crash(Fate.LOST)
    damaged(house, where)
    again = house.open()
    (aside,) = again.state().damaged
    assert aside.name.endswith(".damaged")
    assert house.disk.exists(aside)
    assert "damaged at byte 0" in again.state().last_error
    put(again, "d")
    ship(again)
    assert stored(house.store) == both(*"abcd")
    assert house.restart().state().damaged == ()  # told once, by the start that found it


@pytest.mark.parametrize("where", [".seg", "headers-"])
def test_a_spool_on_a_sector_that_cannot_be_read_is_set_aside_and_a_new_one_goes_on(where: str) -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, *"abc")
    ship(pipeline)
    house.disk = house.disk.after_crash(Fate.LOST)
    house.disk.unreadable = {path for path in house.disk.files(ROOT) if where in path.name}
    again = house.open()
    assert len(again.state().damaged) == 1
    assert "Input/output error" in again.state().last_error
    put(again, "d")
    ship(again)
    assert stored(house.store) == both(*"abcd")


@pytest.mark.parametrize("lost", ["segments", "headers"])
def test_segments_and_headers_that_do_not_belong_together_are_damage(lost: str) -> None:
    house = House()
    pipeline = house.open()
    for name in "abcdef":
        put(pipeline, name)
        ship(pipeline)
    house.store.acknowledge({pipeline.stream: 5})
    pipeline.release_once()
    house.disk = house.disk.after_crash(Fate.LOST)
    for path in house.disk.files(ROOT):
        if path.name.endswith(".seg") if lost == "segments" else path.name.startswith("headers-"):
            house.disk.remove(path)
    again = house.open()
    assert len(again.state().damaged) == 1
    put(again, "g")
    ship(again)
    assert stored(house.store) == both(*"abcdefg")


def test_a_lost_end_of_the_segments_is_damage_when_a_header_names_it() -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, *"ab")
    ship(pipeline)
    house.disk = house.disk.after_crash(Fate.LOST)
    (path,) = [one for one in house.disk.files(ROOT) if one.name.endswith(".seg")]
    frames = house.disk.read(path).rstrip(b"\0")  # behind them stands what was reserved
    house.disk.truncate(path, len(frames) - 1)  # looks as if torn: but it was signed
    again = house.open()
    assert len(again.state().damaged) == 1
    put(again, "c")
    ship(again)
    assert stored(house.store) == both(*"abc")


@pytest.mark.parametrize("damage", ["flipped", "unreadable", "gone"])
def test_damage_found_while_shipping_stops_neither_the_live_stream_nor_the_others(damage: str) -> None:
    house = House()
    house.store.down = "no route"
    run(house.open(), "a", drain_seconds=0.0)
    house.store.down = ""
    pipeline = house.open()
    put(pipeline, *"bcd")
    (path,) = [one for one in house.disk.files(ROOT) if one.name.endswith(".seg")][:1]
    if damage == "flipped":
        house.disk.flip(path, 30)
    elif damage == "unreadable":
        house.disk.unreadable.add(path)
    else:
        house.disk.remove(path)
    before = pipeline.stream
    ship(pipeline)
    assert pipeline.stream != before
    assert len(pipeline.state().damaged) == 1
    put(pipeline, "e")
    ship(pipeline)
    assert stored(house.store) == both("e")
    assert pipeline.state().waiting_events == 0


def test_a_signed_batch_whose_events_were_changed_under_a_right_checksum_is_never_sent() -> None:
    from collector.frame import read_frame, write_frame

    house = House()
    pipeline = house.open()
    ship(pipeline)
    put(pipeline, "a")
    house.store.down = "no route"
    with pytest.raises(Overloaded):
        pipeline.ship_once()
    house.store.down = ""
    house.disk = house.disk.after_crash(Fate.LOST)
    (path,) = [one for one in house.disk.files(ROOT) if one.name.endswith(".seg")]
    frame = read_frame(house.disk.read(path))
    other = write_frame(
        first=frame.first,
        durable=frame.durable,
        group_id=frame.group_id,
        source_ids=frame.source_ids,
        events=[b"{}", b"{}"],
        facts=[b"other", b"facts"],
    )
    house.disk.remove(path)
    house.disk.write_new(path, other)
    again = house.open()
    ship(again)
    assert stored(house.store) == []
    assert len(again.state().damaged) == 1
    assert "not those that were signed" in again.state().last_error


def test_what_is_sent_again_after_damage_is_new_because_its_first_copy_may_be_in_no_store() -> None:
    house = House()
    house.store.down = "no route"
    pipeline = house.open()
    put(pipeline, *"abc")
    house.journal.flush()
    house.disk = house.disk.after_crash(Fate.LOST)
    damaged(house, ".seg")
    house.store.down = ""
    again = house.open()
    put(again, *"abc")
    ship(again)
    assert stored(house.store) == both(*"abc")


# -- senders that wait for the store


class Heard:
    """What a sender was told of the store's side of its group."""

    def __init__(self, pipeline: Pipeline, one: Group) -> None:
        self.spooled: list[Spooled | Exception] = []
        self.stored: list[Spooled | Exception] = []
        pipeline.append(one, self.spooled.append, stored=self._hear)
        pipeline.commit_once()
        assert isinstance(self.spooled[0], Spooled)

    def _hear(self, outcome: Spooled | Exception) -> None:
        assert self.spooled
        self.stored.append(outcome)


def test_who_waits_for_the_store_is_told_when_it_has_the_batch_and_not_before() -> None:
    house = House()
    house.store.down = "no route"
    pipeline = house.open(events=2)
    first, second = Heard(pipeline, group("a")), Heard(pipeline, group("b"))
    with pytest.raises(Overloaded):
        pipeline.ship_once()
    assert (first.stored, second.stored) == ([], [])
    assert pipeline.state().waiting_groups == 2
    house.store.down = ""
    pipeline.ship_once()
    assert (first.stored, second.stored) == ([Spooled(first=0, stored=2, duplicates=0)], [])
    pipeline.ship_once()
    assert second.stored == [Spooled(first=2, stored=2, duplicates=0)]
    assert pipeline.state().waiting_groups == 0


def test_a_duplicate_waits_for_its_first_copy_and_one_of_what_is_stored_does_not() -> None:
    house = House()
    house.store.down = "no route"
    pipeline = house.open()
    Heard(pipeline, group("a"))
    partly = Group(
        group_id=b"p", source_ids=[b"a/0", b"new"], events=[b'{"body":"p.0"}', b'{"body":"p.1"}'], facts=[b"{}", b"{}"]
    )
    again, other_company = Heard(pipeline, group("a")), Heard(pipeline, partly)
    with pytest.raises(Overloaded):
        pipeline.ship_once()
    assert (again.stored, other_company.stored) == ([], [])
    house.store.down = ""
    ship(pipeline)
    assert again.stored == [Spooled(first=2, stored=0, duplicates=2)]
    assert other_company.stored == [Spooled(first=2, stored=1, duplicates=1)]
    assert Heard(pipeline, group("a")).stored == [Spooled(first=3, stored=0, duplicates=2)]


def test_a_duplicate_waits_across_a_restart() -> None:
    house = House()
    house.store.down = "no route"
    Heard(house.open(), group("a"))
    pipeline = house.restart()
    again = Heard(pipeline, group("a"))
    with pytest.raises(Overloaded):
        pipeline.ship_once()
    assert (again.spooled, again.stored) == ([Spooled(first=2, stored=0, duplicates=2)], [])
    house.store.down = ""
    ship(pipeline)
    assert again.stored == again.spooled


def test_a_duplicate_waits_for_an_older_incarnation_that_is_still_drained() -> None:
    house = House()
    pipeline = house.open()
    run(pipeline)  # closes its stream
    house.store.down = "no route"
    assert not run(house.open(), "a", drain_seconds=0.05)
    house.disk = house.disk.after_crash(Fate.LOST)
    pipeline = house.open()
    pipeline._succeed(None)  # the stream with the first copy is now an older one
    fresh, again = Heard(pipeline, group("b")), Heard(pipeline, group("a"))
    house.store.down = ""
    pipeline._step(pipeline._live)
    assert (len(fresh.stored), again.stored) == (1, [])  # new events do not wait for an older stream's backlog
    ship(pipeline)
    assert again.stored == again.spooled


def test_who_waits_when_the_spool_is_found_cloned_is_told_when_the_new_stream_is_stored() -> None:
    house = House()
    pipeline = house.open(events=2)
    put(pipeline, "a")
    ship(pipeline)
    other = house.cloned()
    put(pipeline, "x")
    ship(pipeline)
    late = other.open(events=2)
    heard = [Heard(late, group(name)) for name in "bcd"]
    again = Heard(late, group("d"))
    while not late.state().forks:  # after the old batch again, the conflict: taken over
        assert late.ship_once()
    assert not any(one.stored for one in (*heard, again))
    while late.ship_once():
        there = stored(house.store)
        for name, one in zip("bcd", heard, strict=True):
            assert not one.stored or set(both(name)) <= set(there)
        assert not again.stored or set(both("d")) <= set(there)
    assert all(isinstance(one.stored[0], Spooled) for one in (*heard, again))


def test_who_waits_for_a_spool_that_is_set_aside_is_told_and_its_re_send_is_taken_as_new() -> None:
    house = House()
    house.store.down = "no route"
    pipeline = house.open()
    with suppress(Overloaded):
        pipeline.ship_once()
    heard = Heard(pipeline, group("a"))
    again = Heard(pipeline, group("a"))
    house.journal.flush()
    damaged(house, ".seg")
    house.store.down = ""
    ship(pipeline)
    assert all(isinstance(one.stored[0], Overloaded) for one in (heard, again))
    assert stored(house.store) == []
    third = Heard(pipeline, group("a"))
    assert third.stored == []
    ship(pipeline)
    assert third.stored == [Spooled(first=0, stored=2, duplicates=0)]
    assert stored(house.store) == both("a")


def test_a_duplicate_that_was_recognised_just_before_a_spool_was_set_aside_is_not_confirmed() -> None:
    house = House()
    pipeline = house.open()
    put(pipeline, "a")
    told: list[Spooled | Exception] = []
    pipeline.append(group("a"), lambda _: None, stored=told.append)
    life = pipeline._live
    pipeline._succeed(None)
    pipeline._confirmations._given_up += 1  # a spool went while this one was queued
    life.spool.commit_pending()
    assert isinstance(told[0], Overloaded)


def test_a_re_send_waits_for_what_a_store_that_was_put_back_has_lost() -> None:
    house = House()
    pipeline = house.open()
    first = Heard(pipeline, group("a"))
    ship(pipeline)
    assert first.stored == [Spooled(first=0, stored=2, duplicates=0)]
    house.store.batches[pipeline.stream].clear()
    house.store.acknowledge({pipeline.stream: 1})  # the log was not put back
    pipeline.release_once()
    again = Heard(pipeline, group("a"))
    assert again.stored == []
    ship(pipeline)
    assert again.stored == [Spooled(first=2, stored=0, duplicates=2)]
    assert stored(house.store) == both("a")


def test_a_stop_with_a_store_that_is_down_tells_who_waits() -> None:
    house = House()
    house.store.down = "no route"
    pipeline = house.open()
    pipeline.start()
    told: list[Spooled | Exception] = []
    pipeline.append(group("a"), lambda _: None, stored=told.append)
    assert not pipeline.stop(drain_seconds=0.05)
    assert [type(one) for one in told] == [Overloaded]


def test_a_stop_drains_who_waits() -> None:
    house = House()
    pipeline = house.open()
    pipeline.start()
    told: list[Spooled | Exception] = []
    pipeline.append(group("a"), lambda _: None, stored=told.append)
    assert pipeline.stop(drain_seconds=20)
    assert told == [Spooled(first=0, stored=2, duplicates=0)]


# -- real threads


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def threaded() -> Iterator[tuple[House, Pipeline]]:
    house = House()
    pipeline = house.open()
    pipeline.start()
    yield house, pipeline
    pipeline.stop(drain_seconds=5.0)


def test_an_outage_opens_the_breaker_and_its_end_closes_it(threaded: tuple[House, Pipeline]) -> None:
    house, pipeline = threaded
    house.store.down = "no route"
    pipeline.append(group("a"), lambda _: None)
    until(lambda: pipeline.state().breaker_open)
    assert pipeline.state().waiting_seconds > 0.0
    assert pipeline.state().last_error == "no route"
    house.store.down = ""
    until(lambda: stored(house.store) == both("a"))
    until(lambda: not pipeline.state().breaker_open and pipeline.state().waiting_seconds == 0.0)


def test_a_defect_of_the_store_does_not_end_shipping() -> None:
    class Broken(MemoryStore):
        broken = True

        def acknowledged(self, stream: StreamId) -> int:
            if self.broken:
                raise LookupError("a driver's own error")
            return super().acknowledged(stream)

    store = Broken()
    house = House(store=store)
    pipeline = house.open()
    pipeline._rounds.breaker._limits = RetryLimits(base_seconds=0.0)
    pipeline.start()
    pipeline.append(group("a"), lambda _: None)
    until(lambda: "LookupError" in pipeline.state().last_error)
    store.broken = False
    until(lambda: stored(store) == both("a"))
    assert pipeline.stop()


def test_a_fork_is_taken_over_while_senders_send() -> None:
    house = House()
    pipeline = house.open(events=2)
    put(pipeline, "a")
    ship(pipeline)
    other = house.cloned()
    put(pipeline, "x")
    ship(pipeline)
    late = other.open(events=2)
    late.start()
    names = [f"s{at}" for at in range(60)]
    accepted: set[str] = set()

    def attempt(name: str) -> None:
        told = threading.Event()

        def done(outcome: Spooled | Exception) -> None:
            if isinstance(outcome, Spooled):
                accepted.add(name)
            told.set()

        with suppress(Overloaded):  # the instant of the change
            late.append(group(name), done)
            assert told.wait(20)

    def send(part: list[str]) -> None:
        for name in part:
            while name not in accepted:
                attempt(name)

    threads = [threading.Thread(target=send, args=(names[at::4],)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert late.stop(drain_seconds=20)
    assert late.state().forks == 1
    assert stored(house.store) == both("a", "x", *names)


def test_a_stop_in_the_middle_of_a_take_over_drains_it() -> None:
    for _ in range(10):
        house = House()
        pipeline = house.open(events=2)
        put(pipeline, "a")
        ship(pipeline)
        other = house.cloned()
        put(pipeline, "x")
        ship(pipeline)
        late = other.open(events=2)
        put(late, *"bcdefgh")
        late.start()
        assert late.stop(drain_seconds=20)
        assert stored(house.store) == both("x", *"abcdefgh")
        with pytest.raises(Overloaded, match="stopping"):
            late.append(group("i"), lambda _: None)


def test_an_idle_pipeline_hardly_wakes() -> None:
    class Counting(MemoryStore):
        asked = 0

        def acknowledged(self, stream: StreamId) -> int:
            self.asked += 1
            return super().acknowledged(stream)

    store = Counting()
    pipeline = Pipeline(ROOT, collector="payments", ledger="l", store=store, key=KEY, disk=FaultyDisk(), journal=Ids())
    pipeline.start()
    until(lambda: store.asked > 0)
    before = store.asked
    began = time.process_time()
    time.sleep(1.2)  # the thing under test is what happens while nothing does
    assert store.asked - before <= 2
    assert time.process_time() - began < 0.3
    pipeline.stop(drain_seconds=5)


def test_while_the_oldest_event_waits_too_long_nothing_is_taken_and_then_everything_is() -> None:
    house = House()
    pipeline = house.open()
    limits = PipelineLimits(spool=SpoolLimits(segment_bytes=300), linger_seconds=0.0, max_age_seconds=3_600.0)
    pipeline.limit(limits)
    house.store.down = "no route"
    pipeline.start()
    try:
        assert take(pipeline, "a") == Spooled(first=0, stored=2, duplicates=0)
        until(lambda: pipeline.state().waiting_seconds > 0.05)
        assert isinstance(take(pipeline, "b"), Spooled), "not longer than it may"
        pipeline.limit(replace(limits, max_age_seconds=0.05))
        with pytest.raises(Overloaded, match="the spool's oldest event has waited for 0 s") as refused:
            pipeline.append(group("c"), lambda _: None)
        assert refused.value.retry_after_seconds >= 1
        assert "the spool's oldest event" in pipeline.state().refusing
        house.store.down = ""
        until(lambda: not pipeline.waiting_events() and not pipeline.state().waiting_seconds)
        assert isinstance(take(pipeline, "c"), Spooled)
        assert not pipeline.state().refusing
    finally:
        pipeline.stop(drain_seconds=20)
    assert stored(house.store) == both("a", "b", "c")


def take(pipeline: Pipeline, name: str) -> Spooled | Exception:
    told: queue.Queue[Spooled | Exception] = queue.Queue()
    pipeline.append(group(name), told.put)
    return told.get(timeout=20)
