"""Committing in the calling thread while the disk is quick: when it happens, and that it never meets the committing thread."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.disk import OsDisk
from collector.errors import StateUnknown
from collector.sender import Sender
from collector.spool import Group, Spool, Spooled, SpoolLimits
from tests.collector.test_spool import Ids
from tests.support.faulty_disk import FaultyDisk

ROOT = Path("spool")


class NoIds:
    """A journal for groups without ids."""

    def known(self, source_ids: Iterable[bytes]) -> set[bytes]:
        del source_ids
        return set()

    def add(self, source_ids: Iterable[bytes]) -> None:
        assert not any(source_ids)

    def flush(self) -> None:
        pass

    def flush_soon(self) -> None:
        self.flush()

    def forget(self) -> None:
        pass


class Stopwatch:
    """A clock that is read before and after each sync: `sync_seconds` is what the next ones take."""

    def __init__(self, sync_seconds: float) -> None:
        self.sync_seconds = sync_seconds
        self._now = 0.0
        self._readings = itertools.count()

    def __call__(self) -> float:
        if next(self._readings) % 2:
            self._now += self.sync_seconds
        return self._now


class Told:
    """What a group's sender was told, and in which thread; asserts that it was told once."""

    def __init__(self) -> None:
        self.outcome: Spooled | Exception | None = None
        self.thread = 0
        self.event = threading.Event()

    def __call__(self, outcome: Spooled | Exception) -> None:
        assert self.outcome is None
        self.outcome, self.thread = outcome, threading.get_ident()
        self.event.set()


def group(name: str, size: int = 10) -> Group:
    return Group(source_ids=[b""], events=[name.encode().ljust(size, b".")], facts=[b"{}"])


def opened(watch: Stopwatch) -> Spool:
    return Spool(ROOT, disk=FaultyDisk(), journal=NoIds(), monotonic=watch)


def quickly(spool: Spool, one: Group) -> Told:
    told = Told()
    spool.append(one, told, held=True)
    spool.commit_quickly()
    return told


def test_a_disk_of_unknown_speed_is_left_to_the_committing_thread() -> None:
    spool = opened(Stopwatch(0.0001))
    spool.start_committing()
    told = quickly(spool, group("a"))
    assert told.event.wait(20)
    assert told.thread != threading.get_ident()
    spool.close()


def test_a_quick_disk_is_not_worth_a_thread() -> None:
    spool = opened(Stopwatch(0.0001))
    spool.append(group("a"), Told())
    spool.commit_pending()
    told = quickly(spool, group("b"))
    assert told.thread == threading.get_ident()
    assert spool.next_sequence == 2


def test_a_disk_that_stalls_once_is_left_alone_for_a_while() -> None:
    watch = Stopwatch(0.0001)
    spool = opened(watch)
    spool.append(group("a"), Told())
    spool.commit_pending()
    watch.sync_seconds = 0.05
    assert quickly(spool, group("b")).outcome is not None
    watch.sync_seconds = 0.0001
    waited = 0
    while quickly(spool, group("c")).outcome is None:
        spool.commit_pending()  # as the committing thread does
        waited += 1
    assert 5 <= waited <= 20


def test_much_is_left_to_the_committing_thread() -> None:
    spool = opened(Stopwatch(0.0001))
    spool.append(group("a"), Told())
    spool.commit_pending()
    assert quickly(spool, group("b", 70_000)).outcome is None
    assert spool.commit_pending() == 1


@pytest.mark.parametrize("end", ["settle", "close"])
@pytest.mark.parametrize("threaded", [True, False])
def test_what_is_held_is_committed_in_the_end(end: str, threaded: bool) -> None:
    spool = opened(Stopwatch(0.0001))
    if threaded:
        spool.start_committing()
    told = Told()
    spool.append(group("a"), told, held=True)
    getattr(spool, end)()
    assert told.outcome == Spooled(first=0, stored=1, duplicates=0)
    spool.close()


def test_a_sync_that_fails_is_told_in_the_calling_thread_too() -> None:
    disk = FaultyDisk()
    spool = Spool(ROOT, disk=disk, journal=NoIds(), monotonic=Stopwatch(0.0001))
    spool.append(group("a"), Told())
    spool.commit_pending()
    disk.failing["sync"] = OSError(errno.EIO, "I/O error")
    assert isinstance(quickly(spool, group("b")).outcome, StateUnknown)


def test_both_ways_at_once_tell_everybody_once_and_number_densely(tmp_path: Path) -> None:
    spool = Spool(
        tmp_path / "spool",
        disk=OsDisk(),
        journal=NoIds(),
        limits=SpoolLimits(segment_bytes=20_000),
        monotonic=Stopwatch(0.0),
    )
    spool.start_committing()
    told: list[Told] = []

    def send(quick: bool, at: int) -> None:
        for count in range(60):
            one, done = group(f"{quick}/{at}/{count}"), Told()
            told.append(done)
            spool.append(one, done, held=quick)
            if quick or count % 7 == 0:
                spool.commit_quickly()
                spool.finish()
            if count % 7 == 0:
                assert done.event.wait(20)

    threads = [threading.Thread(target=send, args=(at % 2 == 0, at)) for at in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spool.close()
    firsts = [one.outcome.first for one in told if isinstance(one.outcome, Spooled)]
    assert sorted(firsts) == list(range(6 * 60))


def test_what_only_memory_knows_of_a_commit_comes_behind_its_answers_and_before_another_commit() -> None:
    woken: list[int] = []
    journal = Ids()
    spool = Spool(
        ROOT,
        disk=FaultyDisk(),
        journal=journal,
        committed=lambda: woken.append(spool.next_sequence),
        monotonic=Stopwatch(0.0001),
    )
    spool.append(group("a"), Told())
    spool.commit_pending()
    one = Group(group_id=b"one", source_ids=[b"id"], events=[b"e"], facts=[b"f"], sender=Sender("forward", 1))
    first, again = quickly(spool, one), Told()
    assert first.outcome == Spooled(first=1, stored=1, duplicates=0)
    assert (woken, journal.known([b"one", b"id"])) == ([1], set())
    held_bytes = spool.shares.held_bytes("forward")
    spool.append(one, again, held=True)
    spool.commit_quickly()
    assert again.outcome == Spooled(first=2, stored=0, duplicates=1)
    assert (woken, journal.known([b"one", b"id"])) == ([1, 2], {b"one", b"id"})
    assert spool.shares.held_bytes("forward") == 2 * held_bytes
    spool.finish()
    spool.finish()
    assert (woken, spool.shares.held_bytes("forward")) == ([1, 2, 2], held_bytes)


@pytest.mark.parametrize("end", ["settle", "close"])
@pytest.mark.parametrize("threaded", [True, False])
def test_a_commit_that_nobody_finished_keeps_no_spool_from_ending(end: str, threaded: bool) -> None:
    spool = opened(Stopwatch(0.0001))
    spool.append(group("a"), Told())
    spool.commit_pending()
    if threaded:
        spool.start_committing()
    quickly(spool, group("b"))
    behind = Told()
    spool.append(group("c"), behind, held=True)
    getattr(spool, end)()
    assert behind.outcome == Spooled(first=2, stored=1, duplicates=0)
    spool.close()


@given(
    st.lists(
        st.one_of(st.integers(0, 5), st.sampled_from(["commit_quickly", "finish", "commit_pending", "settle"])),
        max_size=60,
    )
)
def test_in_whatever_order_it_is_called_each_group_is_told_once_and_each_id_stored_once(steps: list[int | str]) -> None:
    disk = FaultyDisk()
    spool = Spool(ROOT, disk=disk, journal=Ids(), monotonic=Stopwatch(0.0001))
    told: list[tuple[int, Told]] = []
    for step in steps:
        if isinstance(step, str):
            getattr(spool, step)()
            continue
        told.append((step, Told()))
        one = Group(
            group_id=b"group %d" % (step // 2), source_ids=[b"id %d" % step], events=[b"event"], facts=[b"facts"]
        )
        spool.append(one, told[-1][1], held=True)
    spool.close()
    outcomes = [(name, one.outcome) for name, one in told]
    assert all(isinstance(outcome, Spooled) for _, outcome in outcomes)
    stored = [(name, outcome.first) for name, outcome in outcomes if isinstance(outcome, Spooled) and outcome.stored]
    assert len({name // 2 for name, _ in stored}) == len(stored) == len({name // 2 for name, _ in outcomes})
    assert [first for _, first in stored] == list(range(len(stored)))
    assert Spool(ROOT, disk=disk, journal=Ids()).next_sequence == len(stored)
