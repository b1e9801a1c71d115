"""Random walks of a pipeline: puts, shipping, releasing, crashes, a cloned spool, a store that is away or put back, in any order.

What a sender was told is kept is, at the end of each walk, in the store or in the log, wherever the walk went.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import pytest

from collector.batch import StreamId
from collector.errors import Overloaded
from collector.pipeline import Pipeline
from collector.spool import Spooled
from tests.collector.test_pipeline import House, group
from tests.support.faulty_disk import Crashed, Fate
from tests.support.memory_store import MemoryStore

WALKS = int(os.environ.get("TALLY_WALKS", "20"))
"""For each kind of walk; more of them than CI takes: `TALLY_WALKS=5000 make test PYTEST_ARGS='-k walk'`."""


@dataclass
class Log:
    """What the correlator holds: each stream as far as one batch follows from the one before, whatever becomes of the store."""

    frontier: dict[StreamId, tuple[int, str]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    def correlate(self, store: MemoryStore) -> None:
        for stream, batches in store.batches.items():
            number, digest = self.frontier.get(stream, (0, ""))
            while (batch := batches.get(number + 1)) is not None and batch.signed.header.previous == digest:
                number, digest = number + 1, batch.signed.digest
                self.events += names_in(batch.events, batch.lengths)
            self.frontier[stream] = number, digest
        store.acknowledge({stream: number for stream, (number, _) in self.frontier.items()})


class Machine:
    """A house with the pipeline that runs in it; after a crash, with the next one."""

    def __init__(self, house: House, dice: random.Random) -> None:
        self.house = house
        self._dice = dice
        self.pipeline: Pipeline = house.open()
        self.kept: set[str] = set()

    def put(self, name: str) -> None:
        told: list[Spooled | Exception] = []
        self.pipeline.append(group(name), told.append)
        self.pipeline.commit_once()
        if told and isinstance(told[0], Spooled):
            self.kept |= {f"{name}.0", f"{name}.1"}

    def ship(self) -> None:
        self.pipeline.ship_once()

    def release(self) -> None:
        self.house.seconds += self._dice.choice((1, 40, 2_000))
        self.pipeline.release_once()

    def crash(self) -> None:
        self.pipeline = self.house.restart(self._dice.choice(list(Fate)))

    def step(self, name: str) -> None:
        """Something, in the middle of which the machine may die."""
        put = partial(self.put, name)
        what = self._dice.choice((put, put, self.ship, self.ship, self.release, self.crash))
        disk = self.house.disk
        if self._dice.random() < 0.1:
            disk.crash_at = len(disk.changes) + self._dice.randrange(1, 12)
        try:
            what()
        except Overloaded:
            pass  # the store is away
        except Crashed:
            self.crash()
        self.house.disk.crash_at = None

    def settle(self) -> None:
        with suppress(Overloaded):
            while self.pipeline.ship_once():
                pass
        self.house.seconds += 2_000
        self.pipeline.release_once()


def names_in(events: bytes, lengths: Sequence[int]) -> list[str]:
    found, at = [], 0
    for length in lengths:
        found.append(events[at : at + length].decode()[9:-2])
        at += length
    return found


def names_stored(store: MemoryStore) -> list[str]:
    return [
        name
        for batches in store.batches.values()
        for batch in batches.values()
        for name in names_in(batch.events, batch.lengths)
    ]


def walk(seed: int, *, clones: bool, puts_back: bool) -> tuple[set[str], MemoryStore, Log, list[Machine]]:
    """Two hundred steps and a rest; returns what senders were told is kept, and where it ended up."""
    dice = random.Random(seed)
    store, log = MemoryStore(), Log()
    machines = [Machine(House(store=store), dice)]
    copy = MemoryStore()
    for at in range(200):
        fate = dice.random()
        if fate < 0.1:
            if not store.down:
                log.correlate(store)
        elif fate < 0.14:
            store.down = "" if store.down else "no route"
        elif fate < 0.16 and clones and len(machines) < 3:
            other = dice.choice(machines)
            house = other.house.cloned()
            house.minted = 1_000 * len(machines)  # or two copies would name their next incarnations alike
            machines.append(Machine(house, dice))
        elif fate < 0.17:
            copy.batches = {stream: dict(batches) for stream, batches in store.batches.items()}
            copy.frontier = dict(store.frontier)
        elif fate < 0.18 and puts_back:
            store.batches = {stream: dict(batches) for stream, batches in copy.batches.items()}
            store.frontier = dict(copy.frontier)
        else:
            dice.choice(machines).step(f"{seed}-{at}")
    store.down = ""
    for _ in range(12):
        for machine in machines:
            machine.settle()
        log.correlate(store)
    return set().union(*(machine.kept for machine in machines)), store, log, machines


@pytest.mark.parametrize("seed", range(WALKS))
def test_what_was_told_to_be_kept_is_stored_once(seed: int) -> None:
    kept, store, log, machines = walk(seed, clones=False, puts_back=False)
    stored = names_stored(store)
    assert kept <= set(stored)
    assert len(stored) == len(set(stored)), "nothing was sent twice, so nothing is there twice"
    assert sorted(log.events) == sorted(stored)
    assert machines[0].pipeline.state().waiting_events == 0


@pytest.mark.parametrize("seed", range(WALKS))
def test_what_copies_of_a_spool_were_told_to_keep_is_stored_and_in_the_log(seed: int) -> None:
    kept, store, log, machines = walk(seed, clones=True, puts_back=False)
    assert kept <= set(names_stored(store))
    assert kept <= set(log.events)
    assert not any(machine.pipeline.state().waiting_events for machine in machines)


@pytest.mark.parametrize("seed", range(WALKS))
def test_what_a_store_lost_that_was_put_back_is_in_the_log_or_sent_again(seed: int) -> None:
    kept, store, log, _ = walk(seed, clones=False, puts_back=True)
    assert kept <= set(names_stored(store)) | set(log.events)


@pytest.mark.parametrize("seed", range(WALKS))
def test_copies_of_a_spool_and_a_store_that_was_put_back_lose_nothing_together(seed: int) -> None:
    kept, store, log, _ = walk(seed, clones=True, puts_back=True)
    assert kept <= set(names_stored(store)) | set(log.events)
