"""Death at every change of the disk, and every fate of what was not synced: the table in `correlator/log.py`, tried."""

import errno
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from correlator import log as log_module
from correlator import merkle
from correlator.check import check_log
from correlator.errors import Overloaded, StateUnknown
from correlator.log import LogReader
from correlator.storage.file import FileStorage
from tests.support.faulty_disk import Crashed, Fate, FaultyDisk, _File, _Folder
from tests.support.logs import SIGNER, entries_of, grow, open_log

ROOT = Path("log")
LIVES = ((3, 250, 257), (258, 600))
"""Sizes published by two writers, one after the other: a bundle filled up, a settle and a renewal in between, a clean close."""


@pytest.fixture(autouse=True)
def small_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_STAGINGS", 2)


def story(disk: FaultyDisk, published: list[int]) -> None:
    """Notes each size that `publish` has returned."""
    for sizes in LIVES:
        log = open_log(FileStorage(ROOT, disk))
        published.append(log.size)
        for size in sizes:
            if log.next_leaf_index < size:
                grow(log, [size])
                published.append(log.size)
        log.renew()
        log.close()


def changes_of_the_story() -> int:
    disk = FaultyDisk()
    story(disk, [])
    return len(disk.changes)


def _mixed(node: _File | _Folder, dice: random.Random) -> _File | _Folder:
    """As after a real power cut: each name as it is or as it was synced, each file with a fate of its own."""
    if isinstance(node, _File):
        return node.after(dice.choice(list(Fate)))
    names: dict[str, _File | _Folder] = {}
    for name in sorted({*node.names, *node.synced}):
        found = dice.choice([node.names, node.synced]).get(name)
        if found is not None:
            names[name] = _mixed(found, dice)
    return _Folder(dict(names), dict(names))


def after_crash(disk: FaultyDisk, fate: Fate | None, seed: int) -> FaultyDisk:
    """The disk that the next process finds; without a fate, a mixture."""
    if fate is not None:
        return disk.after_crash(fate)
    root = _mixed(disk._root, random.Random(seed))
    assert isinstance(root, _Folder)
    return FaultyDisk(root=root)


def findings(disk: FaultyDisk) -> list[str]:
    return [str(finding) for finding in check_log(FileStorage(ROOT, disk), SIGNER.verifier)]


def assert_recovers(disk: FaultyDisk, published: list[int], what: str) -> None:
    """A writer opens what the crash left, nothing published is missing, everything checks, and it goes on."""
    log = open_log(FileStorage(ROOT, disk))
    assert log.size >= max(published, default=0), what
    assert log.size in {0, *LIVES[0], *LIVES[1]}, what
    assert findings(disk) == [], what
    grow(log, [log.size + 260])
    log.close()
    assert findings(disk) == [], what
    assert FileStorage(ROOT, disk).stages() == [], what
    reader = LogReader(FileStorage(ROOT, disk), SIGNER.verifier)
    size = reader.tree().size
    assert reader.entries(0, size) == entries_of(0, size), what
    assert reader.root(size) == merkle.root_of(merkle.leaf_hashes(entries_of(0, size))), what


FATES: list[Fate | None] = [*Fate, None]


def crashes(step: int) -> Iterator[tuple[int, bool]]:
    for at in range(1, changes_of_the_story() + 1, step):
        yield at, False
        yield at, True


@pytest.mark.parametrize("fate", FATES)
def test_a_crash_at_every_change_of_the_disk(fate: Fate | None) -> None:
    for at, after in crashes(step=1):
        disk = FaultyDisk(crash_at=at, after=after)
        published: list[int] = []
        with pytest.raises(Crashed):
            story(disk, published)
        what = f"{'after' if after else 'before'} change {at} ({disk.changes[-1]}), unsynced {fate}"
        assert_recovers(after_crash(disk, fate, seed=at), published, what)


@pytest.mark.parametrize("fate", FATES)
def test_a_crash_in_the_recovery_from_a_crash(fate: Fate | None) -> None:
    dice = random.Random(5)
    for at, after in crashes(step=5):
        disk = FaultyDisk(crash_at=at, after=after)
        published: list[int] = []
        with pytest.raises(Crashed):
            story(disk, published)
        second = after_crash(disk, fate, seed=at)
        second.crash_at, second.after = dice.randrange(1, 40), not after
        try:
            story(second, published)
        except Crashed:
            pass
        assert_recovers(after_crash(second, fate, seed=at + 1), published, f"crash {at}, then {second.crash_at}")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_from_any_change_on_is_told_and_loses_nothing(number: int) -> None:
    for at in range(1, changes_of_the_story() + 1, 3):
        disk = FaultyDisk()
        disk.broken = at, OSError(number, "no luck")
        published: list[int] = []
        with pytest.raises((Overloaded, StateUnknown)):
            story(disk, published)
        assert_recovers(disk.after_crash(Fate.LOST), published, f"failed from change {at} on ({disk.changes[at - 1]})")


def test_a_power_cut_at_any_moment_keeps_what_publish_returned() -> None:
    """The promise of `publish` at its shortest: everything not synced is lost at once after it returned."""
    disk = FaultyDisk()
    log = open_log(FileStorage(ROOT, disk))
    for size in range(0, 2000, 97):
        grow(log, [size])
        for fate in FATES:
            assert_recovers_at(after_crash(disk, fate, seed=size), size)


def assert_recovers_at(disk: FaultyDisk, size: int) -> None:
    with open_log(FileStorage(ROOT, disk)) as log:
        assert log.size == size
    assert findings(disk) == []
