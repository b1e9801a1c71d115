"""Log, state, index and store of a correlator that may die at any change of them, and who watches what it publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import pytest

from correlator.coldstate import ColdState
from correlator.errors import Overloaded
from correlator.index import IndexedLeaf
from correlator.index.sqlite import SqliteIndex
from correlator.storage import CHECKPOINT
from correlator.storage.file import FileStorage
from tests.support.faulty_disk import FaultyDisk
from tests.support.memory_store import MemoryStore

ROOT = Path("log")


@dataclass
class Witness:
    """Whoever reads the log and remembers: every checkpoint that stood there at any moment, and every tile."""

    roots: dict[int, str] = field(default_factory=dict)
    tiles: dict[str, bytes] = field(default_factory=dict)
    last: bytes = b""

    def look(self, disk: FaultyDisk) -> None:
        """At the checkpoint, in the middle of whatever."""
        try:
            raw = disk.read(ROOT / CHECKPOINT)
        except FileNotFoundError:
            return
        if raw != self.last and raw.count(b"\n\n") == 1:  # else torn by a power cut, and not yet mended
            self.last = raw
            _, size, root = raw.decode().split("\n")[:3]
            assert self.roots.setdefault(int(size), root) == root, "two checkpoints of one size"

    def look_at_tiles(self, storage: FileStorage) -> None:
        """At all that is published, while a writer has it open."""
        self.last = storage.get(CHECKPOINT)
        size = int(self.last.split(b"\n")[1])
        assert size >= max(self.roots, default=0), "the log was rolled back"
        for path in storage.paths():
            data = storage.get(path)
            assert self.tiles.setdefault(path, data) == data, f"{path} has changed"


class MortalDisk(FaultyDisk):
    """Each change is seen by the witness. `moments`: it crashes at the one of this number from now on; 0: at none."""

    witness: Witness
    moments = 0

    def change(self, name: str) -> Any:
        self.witness.look(self)
        return super().change(name)

    @contextmanager
    def moment(self, name: str) -> Iterator[None]:
        """What is no change of this disk, where one may die or be refused as well: before it or after it."""
        self.moments -= 1
        if self.moments == 0:
            self.crash_at = len(self.changes) + 1
        try:
            with self.change(name):
                yield
        except OSError as error:
            raise Overloaded(f"{name}: {error}") from error


class MortalIndex(SqliteIndex):
    """In whose writing one may die, before or after it; not in the middle, which is SQLite's to test."""

    disk: MortalDisk
    before: Callable[[], None]

    def apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        self.before()
        with self.disk.moment("index"):
            super().apply(leaves)


class MortalStore(MemoryStore):
    """In whose being told one may die."""

    disks: list[MortalDisk]

    def acknowledge(self, frontier: Any, *, part: int = 1, parts: int = 1) -> None:
        with self.disks[part - 1].moment("acknowledge"):
            super().acknowledge(frontier, part=part, parts=parts)


def mortal_state(monkeypatch: pytest.MonkeyPatch, disk_of: Callable[[Path], MortalDisk | None]) -> None:
    """One may die before and after each transaction of a state, on the disk that `disk_of` gives for its folder.

    It is not synced: a crash is a copy of the file here.
    """
    monkeypatch.setattr(lmdb, "open", partial(lmdb.open, sync=False))
    original = ColdState._writing

    @contextmanager
    def writing(self: ColdState) -> Iterator[lmdb.Transaction]:
        disk = disk_of(self._folder)
        with disk.moment("state") if disk else nullcontext(), original(self) as transaction:
            yield transaction

    monkeypatch.setattr(ColdState, "_writing", writing)
