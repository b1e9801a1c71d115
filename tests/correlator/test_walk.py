"""Random walks of a correlator: batches in any order, crashes, successors, a store that is put back, an index that is lost.

What the log says at the end of each walk is what a correlator says of the same batches that nothing ever disturbed; and nothing
that it had published on the way has changed.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector.batch import Batch, StreamId
from collector.errors import Conflict
from correlator import log as log_module
from correlator import state as state_module
from correlator.entry import Entry
from correlator.index.memory import MemoryIndex
from correlator.settings import CorrelatorSettings
from correlator.shards import WHOLE, Shard
from tests.support.correlating import Correlating, stitched
from tests.support.mortal import MortalDisk, MortalStore, mortal_state
from tests.support.shipper import Shipper, key_of, pay
from tests.support.walked_batches import FLOWS, LONGER, PATIENT, delivery
from tests.support.walked_correlator import Clock, Machine
from tests.support.walked_oracles import (
    assert_each_once,
    assert_links_have_reasons,
    findings,
    log_of,
    newest_verdicts,
    told_once,
)

WALKS = int(os.environ.get("TALLY_WALKS", "20"))
"""For each kind of walk; more of them than CI takes: `TALLY_WALKS=1000 make test PYTEST_ARGS='-k walk'`."""

RULES = CorrelatorSettings(
    key_order=("order",), flows=FLOWS, missing_poll_seconds=3_600, step_entries=40, streams_a_step=2
)
OTHER_KEY = key_of(7).public_key().public_bytes_raw().hex()
STEPS = 70
EACH = 8
"""Batches of each stream."""
LONG_SECONDS = 10_000
"""After so long every deadline has passed."""


class Walk:
    """A store that is filled, and one machine for each shard."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        shards: int = 1,
        settings: CorrelatorSettings = RULES,
    ) -> None:
        self.dice = random.Random(seed)
        self.store = MortalStore()
        self.clock = Clock()
        self.batches = delivery(self.dice, each=EACH)
        self._left = list(self.batches)
        self.copy: dict[str, dict[int, Batch]] = {}
        count = range(1, shards + 1)
        self.machines = [
            Machine(
                folder / str(number),
                self.store,
                self.dice,
                self.clock,
                settings,
                shard=WHOLE if shards == 1 else Shard(number=number, count=shards),
            )
            for number in count
        ]
        self.store.disks = [machine.disk for machine in self.machines]
        monkeypatch.setattr(state_module, "FLUSH_LEAVES", self.dice.choice((1, 30, 131_072)))
        monkeypatch.setattr(log_module, "MAX_STAGINGS", 3)
        mortal_state(monkeypatch, self.disk_of)

    def disk_of(self, folder: Path) -> MortalDisk | None:
        return next((machine.disk for machine in self.machines if folder.is_relative_to(machine.folder)), None)

    # ------------------------------------------------------------------------------------------------------ the store

    def deliver(self) -> None:
        """The store gets the next batches."""
        for _ in range(self.dice.randint(1, 3)):
            if self._left:
                down, self.store.down = self.store.down, ""
                self.append(self._left.pop(0))
                self.store.down = down

    def append(self, batch: Batch) -> None:
        with suppress(Conflict):
            self.store.append(batch)

    def copy_store(self) -> None:
        self.copy = {str(stream): dict(batches) for stream, batches in self.store.batches.items()}

    def put_store_back(self) -> None:
        """The store is as it was once; what is lost is sent again some time, by spools that have all of it."""
        lost = [
            batch
            for stream, batches in self.store.batches.items()
            for number, batch in batches.items()
            if number not in self.copy.get(stream, {})
        ]
        self.store.batches = {stream: dict(batches) for stream, batches in self.copy.items()}  # type: ignore[misc]
        self.store.frontier = {}
        self.store.shares = {}
        self._left[:0] = lost

    # -------------------------------------------------------------------------------------------------------- walking

    def go(self, steps: int) -> None:
        for _ in range(steps):
            machine = self.dice.choice(self.machines)
            machine.doing(lambda machine=machine: self.something(machine))  # type: ignore[misc]

    def something(self, machine: Machine) -> None:
        chances = [*self.chances(machine), *self.others(machine)]
        (what,) = self.dice.choices([one for one, _ in chances], [weight for _, weight in chances])
        what()

    def chances(self, machine: Machine) -> list[tuple[Callable[[], object], int]]:
        """What may happen, each with its weight."""
        return [
            (self.deliver, 25),
            (lambda: machine.endangered(machine.step), 30),
            (lambda: machine.step_interrupted(lambda: self.after_a_coup(machine)), 8),
            (machine.step_deposed, 5),
            (lambda: self.clock.pass_(self.dice.choice((0, 1, 20, 60, 200, -30))), 6),
            (self.turn_store, 3),
            (lambda: machine.die(power=self.dice.random() < 0.5), 3),
            (lambda: machine.endangered(machine.close), 4),
            (machine.back_up, 2),
            (machine.put_back, 3),
            (lambda: machine.endangered(machine.stand_by), 5),
            (machine.open, 3),
        ]

    def others(self, machine: Machine) -> list[tuple[Callable[[], object], int]]:
        """What this kind of walk adds to that."""
        del machine
        return []

    def turn_store(self) -> None:
        self.store.down = "" if self.store.down else "no route"

    def after_a_coup(self, machine: Machine) -> None:
        for _ in range(self.dice.randint(0, 4)):
            if self.dice.random() < 0.5:
                self.deliver()
            machine.step()

    def settle(self) -> list[Entry]:
        """All that is left comes, deadlines pass, and the machines are closed; returns the entries of all logs."""
        self.store.down = ""
        while self._left:
            self.append(self._left.pop(0))
        entries = []
        for machine in self.machines:
            machine.die(power=False)
            machine.settle()
        self.clock.pass_(LONG_SECONDS)
        for machine in self.machines:
            machine.settle()
            machine.close()
            entries += log_of(machine)
        return entries


class Restored(Walk):
    """The store is put back to an older state and filled again; flows and keys are declared otherwise from one start to the next."""

    def others(self, machine: Machine) -> list[tuple[Callable[[], object], int]]:
        return [(self.copy_store, 4), (self.put_store_back, 3), (lambda: self.declare(machine), 6)]

    def declare(self, machine: Machine) -> None:
        """Other flows; and keys, among which those of a collector may be missing for a while."""
        listed = {"gateway": (OTHER_KEY,), "ledger": (Shipper().public,)}
        machine.settings = msgspec.structs.replace(
            RULES,
            flows=self.dice.choice(((), FLOWS, FLOWS[:1], (LONGER,))),
            enrolled=self.dice.choice(({}, listed)),
        )
        machine.endangered(machine.close)

    def settle(self) -> list[Entry]:
        for machine in self.machines:
            machine.settings = msgspec.structs.replace(RULES, flows=(PATIENT, LONGER))
        return super().settle()


class Robbed(Walk):
    """Batches never reach the store, or are deleted when the log has them; in the place of one stands another that its key signed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        inner = [one for one in self.batches if not one.signed.header.closed and one.signed.header.number % 3 == 0]
        self.withheld = self.dice.sample(inner, self.dice.randint(0, min(2, len(inner))))
        self._left = [one for one in self.batches if one not in self.withheld]
        self.forged: list[Batch] = []
        self.deleted: list[Batch] = []

    def settle(self) -> list[Entry]:
        super().settle()
        for batch in self.withheld:
            if self.dice.random() < 0.3:
                header = batch.signed.header
                forger = Shipper(header.stream)
                forger.number, forger.sequence, forger.previous = header.number - 1, header.first, header.previous
                self.forged.append(forger.batch(*(pay("p1", body=f"forged {at}") for at in range(header.count or 1))))
                self.append(self.forged[-1])
        entries = super().settle()
        for batch in self.dice.sample(self.batches, self.dice.randint(0, 2)):
            header = batch.signed.header
            if batch not in self.withheld:
                self.deleted.append(batch)
                self.store.batches[StreamId(header.stream)].pop(header.number, None)
        return entries


def undisturbed(batches: Sequence[Batch], folder: Path, settings: CorrelatorSettings = RULES) -> list[Entry]:
    """What a correlator says of these batches when nothing ever happens."""
    world = Correlating(folder=folder / "undisturbed", settings=settings, index=MemoryIndex())
    for batch in batches:
        world.store.append(batch)
    world.run()
    world.now_ns += LONG_SECONDS * 1_000_000_000
    for _ in range(4):
        world.run()
    world.close()
    return world.entries()


def assert_as_undisturbed(walk: Walk, entries: list[Entry], folder: Path) -> None:
    """Of a log that holds all batches: the same trails, links and verdicts, and nothing for a check to find."""
    rules = walk.machines[0].settings
    expected = undisturbed(walk.batches, folder, rules)
    own = [one for one in entries if one.kind not in ("batch", "gap", "fork", "enrolment")]
    told_once(entries, shards=len(walk.machines))
    assert stitched(own) == stitched(expected)
    declared = {flow.name for flow in rules.flows}
    verdicts = newest_verdicts(own)
    assert {place: told for place, told in verdicts.items() if place[1] in declared} == newest_verdicts(expected)
    assert_each_once(own, walk.batches)
    assert_links_have_reasons(own, rules.key_order)
    assert [str(one) for one in findings(walk.machines, walk.store)] == []
    assert walk.store.frontier == {batch.signed.header.stream: EACH for batch in walk.batches}


@pytest.mark.parametrize("seed", range(WALKS))
def test_whatever_happens_to_a_correlator_its_log_says_what_it_would_have_said(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = Walk(seed, tmp_path, monkeypatch)
    walk.go(STEPS)
    assert_as_undisturbed(walk, walk.settle(), tmp_path)


@pytest.mark.parametrize("seed", range(WALKS))
def test_so_do_the_logs_of_a_ledger_that_is_cut_into_shards(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = Walk(seed, tmp_path, monkeypatch, 2, msgspec.structs.replace(RULES, flows=FLOWS[:2]))
    walk.go(2 * STEPS)
    assert_as_undisturbed(walk, walk.settle(), tmp_path)


@pytest.mark.parametrize("seed", range(WALKS))
def test_nor_does_a_store_that_was_put_back_matter_or_what_was_declared_meanwhile(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = Restored(seed, tmp_path, monkeypatch)
    walk.go(STEPS)
    assert_as_undisturbed(walk, walk.settle(), tmp_path)


@pytest.mark.parametrize("seed", range(WALKS))
def test_what_was_stolen_or_forged_is_named_and_nothing_else(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = Robbed(seed, tmp_path, monkeypatch)
    walk.go(STEPS)
    entries = walk.settle()
    found = [str(one) for one in findings(walk.machines, walk.store)]
    taken = {place_of(batch) for batch in [*walk.withheld, *walk.deleted]}
    assert {place for one in found for place in places_in(one)} == taken
    forged = {place_of(batch) for batch in walk.forged}
    assert {place for one in found if "does not fit" in one for place in places_in(one)} == forged
    logged = [batch for batch in walk.batches if batch not in walk.withheld]
    assert_each_once(entries, logged)
    expected = undisturbed(logged, tmp_path)
    assert stitched(entries) == stitched(expected)
    assert newest_verdicts(entries) == newest_verdicts(expected)


def place_of(batch: Batch) -> tuple[str, int]:
    return batch.signed.header.stream, batch.signed.header.number


def places_in(finding: str) -> set[tuple[str, int]]:
    """The batches that a finding says something of."""
    stream = re.search(r"[a-z]+/[0-9a-f]{16}", finding)
    numbers = re.search(r"(?:gap: |store, |: )batch(?:es)? (\d+)(?: to (\d+))?", finding)
    if "a fork: " in finding or "store does not hold" in finding:
        return set()  # of the same batches
    assert stream is not None, finding
    assert numbers is not None, finding
    return {(stream[0], number) for number in range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1)}
