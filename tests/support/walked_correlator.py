"""A correlator on a machine that dies: its log on a disk that forgets, its state and index copied as a crash leaves them.

`Machine` has one correlator at a time, and those that it deposed, which do not know it yet. Whatever it does may end in the middle:
at any change of the log's disk, of the state, of the index or of what the store is told; or another correlator takes over in between.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from correlator.errors import Conflict, NotFound, Overloaded, StateUnknown
from correlator.run import Correlator
from correlator.settings import CorrelatorSettings
from correlator.shards import WHOLE, Shard
from correlator.standby import Standby
from correlator.storage.file import FileStorage
from tests.correlator.test_log_crashes import FATES, after_crash
from tests.support.correlating import SIGNER
from tests.support.faulty_disk import Crashed, FaultyDisk
from tests.support.interrupted_disk import Interrupted
from tests.support.mortal import ROOT, MortalDisk, MortalIndex, MortalStore, Witness
from tests.support.shipper import LEDGER, START_NS

SECOND_NS = 1_000_000_000
HUB_LINKS = 3


@dataclass
class Clock:
    """The wall clock and the monotonic one; only the first is ever set back."""

    wall_ns: int = START_NS
    monotonic_ns: int = 0

    def wall(self) -> int:
        return self.wall_ns

    def monotonic(self) -> int:
        return self.monotonic_ns

    def pass_(self, seconds: float) -> None:
        self.wall_ns += int(seconds * SECOND_NS)
        self.monotonic_ns += int(max(seconds, 0) * SECOND_NS)


@dataclass
class Process:
    """A correlator that runs, with what it has open."""

    correlator: Correlator
    index: MortalIndex
    storage: FileStorage
    disk: Interrupted

    def end(self) -> None:
        """As a process ends that found out that it is no longer the writer."""
        with suppress(StateUnknown, Overloaded):
            self.correlator.close()
        self.index.close()

    def vanish(self) -> None:
        """As a process that is killed: the system drops its claim, nothing is written."""
        self.correlator._state.discard()
        claim = self.correlator._audit_log._claim
        if claim is not None:
            claim.release()
        self.index.close()


@dataclass
class Machine:
    """See the module. `settings` count from the next start on."""

    folder: Path
    store: MortalStore
    dice: random.Random
    clock: Clock
    settings: CorrelatorSettings
    shard: Shard = WHOLE
    witness: Witness = field(default_factory=Witness)
    process: Process | None = None
    deposed: list[Process] = field(default_factory=list)
    standby: tuple[Standby, MortalIndex, Path] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._made = 0
        self.disk = self._plugged(FaultyDisk())
        self.state, self.index = self.fresh("state"), self.fresh("index")
        self.copies: dict[str, Path] = {}
        self.signer = SIGNER.named(self.shard.origin(LEDGER))

    def _plugged(self, disk: FaultyDisk) -> MortalDisk:
        made = MortalDisk(root=disk._root)
        made.witness = self.witness
        return made

    def fresh(self, what: str) -> Path:
        """A name that nothing has."""
        self._made += 1
        return self.folder / f"{what}-{self._made}"

    # ------------------------------------------------------------------------------------------------ state and index

    def copied(self, path: Path) -> Path:
        """State or index as it is on the disk at this moment, elsewhere: what a crash leaves, and what a backup has."""
        target = self.fresh(path.name.partition("-")[0])
        if path.is_dir():
            shutil.copytree(path, target)
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            if source.is_file():
                shutil.copy(source, target.with_name(target.name + suffix))
        return target

    def back_up(self) -> None:
        """Take copies, over the ones before."""
        self.copies = {"state": self.copied(self.state), "index": self.copied(self.index)}

    def put_back(self) -> None:
        """All processes are killed; state or index come from the copy, or are lost, as the next start finds them."""
        self.die(power=False)
        what = self.dice.choice(("state", "index"))
        lost = what not in self.copies or self.dice.random() < 0.4
        setattr(self, what, self.fresh(what) if lost else self.copied(self.copies[what]))

    # ----------------------------------------------------------------------------------------------------- processes

    def _opened(self, state: Path, index: Path, *, take_over: bool = False) -> Process:
        disk = Interrupted(self.disk)
        storage = FileStorage(ROOT, disk)
        opened = self._index(index)
        opened.before = disk.tick
        try:
            correlator = Correlator.open(
                store=self.store,
                storage=storage,
                signer=self.signer,
                index=opened,
                state_folder=state,
                settings=self.settings,
                clock=self.clock.wall,
                monotonic_ns=self.clock.monotonic,
                take_over=take_over,
            )
        except BaseException:
            opened.close()
            raise
        return Process(correlator, opened, storage, disk)

    def _index(self, path: Path) -> MortalIndex:
        opened = MortalIndex(path, hub_links=HUB_LINKS)
        opened.disk, opened.before = self.disk, lambda: None
        opened._db.execute("PRAGMA synchronous = OFF")  # a crash is a copy of the file here
        return opened

    def open(self) -> Process:
        """The correlator that runs, or the next one; those that hang and would be in its way are killed."""
        if self.process is None:
            self._end_standby()
            while self.deposed:
                self.deposed.pop().vanish()
            self.process = self._opened(self.state, self.index)
            self.witness.look_at_tiles(FileStorage(ROOT, self.disk))
        return self.process

    def stand_by(self) -> None:
        """Look as a standby does, one that keeps a state and perhaps an index of its own."""
        if self.standby is None:
            path = self.fresh("state")
            index = self.index if self.dice.random() < 0.5 else self.fresh("index")
            opened = self._index(index)
            standby = Standby(
                storage=FileStorage(ROOT, self.disk),
                verifier=self.signer.verifier,
                index=opened,
                state_folder=path,
                settings=self.settings,
                monotonic_ns=self.clock.monotonic,
            )
            self.standby = standby, opened, path
        with suppress(NotFound):
            self.standby[0].look()

    def _end_standby(self) -> tuple[Path, Path]:
        """Where the state and the index are that a successor goes on with."""
        if self.standby is None:
            return self.fresh("state"), self.dice.choice((self.index, self.fresh("index")))
        standby, index, state = self.standby
        self.standby = None
        standby.close()
        index.close()
        return state, index._path

    def take_over(self) -> None:
        """Another correlator deposes the one that runs, which does not hear of it."""
        state, index = self._end_standby()
        try:
            successor = self._opened(state, index, take_over=True)
        except (Overloaded, Conflict, StateUnknown):
            return  # the other is in the middle of a swap
        if self.process is not None:
            self.deposed.append(self.process)
        self.process, self.state, self.index = successor, state, index

    def close(self) -> None:
        """A stop as it should be."""
        if self.process is not None:
            process, self.process = self.process, None
            process.end()

    def die(self, *, power: bool) -> None:
        """All processes are gone; with the power, what was not synced meets its fate."""
        state, index = self.copied(self.state), self.copied(self.index)
        if self.standby is not None:
            if self.standby[0]._state is not None:
                self.standby[0]._state.discard()
            self.standby[1].close()
            self.standby = None
        for process in [*self.deposed, *([self.process] if self.process else [])]:
            process.vanish()
        self.deposed, self.process = [], None
        self.state, self.index = state, index
        after = after_crash(self.disk, self.dice.choice(FATES), self.dice.random()) if power else self.disk  # type: ignore[arg-type]
        self.disk = self._plugged(after)
        self.store.disks[self.shard.number - 1] = self.disk

    # ---------------------------------------------------------------------------------------------------------- doing

    def doing(self, what: Callable[[], object]) -> None:
        """Do it; what it may raise is what the process around it acts on, and then it may have died."""
        try:
            what()
        except Overloaded:
            pass
        except (StateUnknown, Conflict):
            self.close()
        except Crashed:
            self.die(power=self.dice.random() < 0.6)
        self.disk.crash_at = self.disk.failing_once = None
        self.disk.moments = 0
        if self.process is not None:
            self.witness.look_at_tiles(FileStorage(ROOT, self.disk))

    def endangered(self, what: Callable[[], object]) -> None:
        """Do it while the machine may die, or its disk may fail."""
        danger = self.dice.random()
        if danger < 0.25:
            self.doomed()
        elif danger < 0.33:
            self.fails()
        what()

    def doomed(self) -> None:
        """The machine will die soon."""
        if self.dice.random() < 0.5:
            self.disk.moments = self.dice.randint(1, 5)
        else:
            self.disk.crash_at = len(self.disk.changes) + self.dice.randint(1, 40)
        self.disk.after = self.dice.random() < 0.5

    def fails(self) -> None:
        """The disk will fail once, soon."""
        number = self.dice.choice((errno.EIO, errno.ENOSPC))
        self.disk.failing_once = len(self.disk.changes) + self.dice.randint(1, 40), OSError(number, "no luck")

    def step(self) -> None:
        """One step, perhaps with a look at what is missing."""
        self.step_of(self.open().correlator)

    def step_of(self, correlator: Correlator) -> int:
        if self.dice.random() < 0.5:
            correlator._source._next_recheck_ns = 0
        correlator.renew()
        return correlator.step()

    def step_interrupted(self, meanwhile: Callable[[], object]) -> None:
        """A step of a correlator in the middle of which it is deposed, and more happens before it goes on."""
        paused = self.open()

        def other() -> None:
            self.take_over()
            if self.process is not paused:
                with suppress(Overloaded):
                    meanwhile()

        paused.disk.interrupt(self.dice.randint(1, 80), other)
        try:
            self.step_of(paused.correlator)
        except StateUnknown:
            if paused is self.process:
                raise
            self.deposed.remove(paused)
            paused.end()
        finally:
            paused.disk.interrupt(0, other)

    def step_deposed(self) -> None:
        """One that was deposed goes on, and finds out when it would write."""
        if self.deposed:
            process = self.deposed[0]
            try:
                self.step_of(process.correlator)
            except StateUnknown:
                self.deposed.remove(process)
                process.end()

    def settle(self) -> None:
        """Nothing is in its way any more: all that the store has comes into the log."""
        process = self.open()
        quiet = 0
        while quiet < 3:
            process.correlator._source._next_recheck_ns = 0
            made = process.correlator.step()
            quiet = 0 if made or process.correlator._source.backlog else quiet + 1
