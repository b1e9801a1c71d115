"""Death at every change of the disk, and every fate of what was not synced: the table in `correlator/log.py`, tried."""

import errno
import itertools
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from correlator import log as log_module
from correlator.errors import Conflict, Overloaded, StateUnknown
from correlator.storage.file import FileStorage
from tests.support import log_story
from tests.support.faulty_disk import Crashed, Fate, FaultyDisk, _File, _Folder
from tests.support.interrupted_disk import Interrupted
from tests.support.log_story import Reopen
from tests.support.logs import grow, open_log

ROOT = Path("log")


@pytest.fixture(autouse=True)
def small_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_STAGINGS", 2)


def opener(disk: FaultyDisk) -> Reopen:
    return lambda: FileStorage(ROOT, disk)


def story(disk: FaultyDisk, published: list[int]) -> None:
    log_story.story(opener(disk), published)


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


def assert_recovers(disk: FaultyDisk, published: list[int], what: str) -> None:
    log_story.assert_recovers(opener(disk), published, what)


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


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_sync_that_failed_is_not_believed_when_it_is_asked_again(number: int) -> None:
    """What it left out is read as if all were well, by this process and by the next one, until the power is cut."""
    whole = FaultyDisk()
    story(whole, [])
    for at in [at for at, change in enumerate(whole.changes, start=1) if change.startswith("sync")]:
        disk = FaultyDisk()
        disk.failing_once = at, OSError(number, "no luck")
        published: list[int] = []
        try:
            story(disk, published)
        except (Overloaded, StateUnknown):
            disk._locks.clear()  # the process has ended, not the machine
            published.append(open_log(FileStorage(ROOT, disk)).size)
        assert_recovers(disk.after_crash(Fate.LOST), published, f"change {at} failed ({whole.changes[at - 1]})")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_publish_whose_settling_failed_is_not_tried_again(number: int) -> None:
    """Full tiles lie there unsynced, the next publish settles, and a sync of them fails: the same publish must not succeed then."""

    def settling(disk: FaultyDisk) -> tuple[int, int]:
        log = open_log(FileStorage(ROOT, disk))
        grow(log, (300, 301))
        before = len(disk.changes)
        try:
            grow(log, [302])
        except Overloaded:
            log.publish()
        return before, len(disk.changes)

    whole = FaultyDisk()
    before, end = settling(whole)
    for at in [at for at in range(before + 1, end + 1) if whole.changes[at - 1].startswith("sync_")]:
        disk = FaultyDisk()
        disk.failing_once = at, OSError(number, "no luck")
        with pytest.raises(StateUnknown):
            settling(disk)
        recovered = disk.after_crash(Fate.LOST)
        with open_log(FileStorage(ROOT, recovered)) as log:
            assert log.size in (301, 302)
        assert log_story.findings(FileStorage(ROOT, recovered)) == []


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
    assert log_story.findings(FileStorage(ROOT, disk)) == []


@pytest.mark.parametrize("fate", [Fate.TORN, None])
def test_a_writer_that_is_deposed_between_any_two_operations_leaves_nothing_torn(fate: Fate | None) -> None:
    """It hangs there, its successor publishes, settles and fills tiles up; then it goes on, and then the power is cut."""
    deposed = [False]
    for at in itertools.count(1):
        disk = FaultyDisk()
        grow(open_log(FileStorage(ROOT, disk)), [50, 60])
        disk._locks.clear()  # that one was killed: who opens next restores
        paused = Interrupted(disk)
        deposed[0] = False

        def successor(disk: FaultyDisk = disk) -> None:
            with suppress(Overloaded):  # the other one is in the middle of a swap
                grow(open_log(FileStorage(ROOT, disk), take_over=True), range(252, 258))
                deposed[0] = True

        paused.interrupt(at, successor)
        try:
            with open_log(FileStorage(ROOT, paused)) as log:
                grow(log, [61, 62])
        except (StateUnknown, Conflict):
            assert deposed[0]
        if paused.waits:
            break
        recovered = after_crash(disk, fate, seed=at)
        with open_log(FileStorage(ROOT, recovered)) as log:
            assert log.size >= (257 if deposed[0] else 62)
        assert log_story.findings(FileStorage(ROOT, recovered)) == [], f"deposed before operation {at}"
    assert at > 60


def publish_and_die(disk: FaultyDisk) -> None:
    log = open_log(FileStorage(ROOT, disk))
    grow(log, [50])
    log.append([b"never told"])
    log.publish()


def test_a_head_that_was_swapped_and_is_not_durable_yet_publishes_nothing_that_a_power_cut_leaves() -> None:
    """A writer dies between the two, its successor begins to restore, the power is cut: another publish must be as good as the first."""
    whole = FaultyDisk()
    publish_and_die(whole)
    changes = list(enumerate(whole.changes, start=1))[-25:]
    for at in [at for at, change in changes if change in ("rename", "sync_directory")]:
        for second, fate in itertools.product(range(1, 30), [Fate.LOST, None]):
            disk = FaultyDisk(crash_at=at)
            with suppress(Crashed):
                publish_and_die(disk)
            killed = FaultyDisk(crash_at=second, root=disk._root)  # the machine goes on
            with suppress(Crashed):
                open_log(FileStorage(ROOT, killed))
            recovered = after_crash(killed, fate, seed=at * second)
            with open_log(FileStorage(ROOT, recovered)) as log:
                log.append([b"told another time" if log.size == 50 else b"more"])
                log.publish()
            assert log_story.findings(FileStorage(ROOT, recovered)) == [], f"{disk.changes[-1]}, then change {second}"
