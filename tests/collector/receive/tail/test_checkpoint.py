"""The positions on disk: whole after a crash at every change of the disk, and nothing but its one error for anything else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed, StateUnknown
from collector.receive.tail.checkpoint import Checkpoint
from collector.receive.tail.position import Remembered, decode_checkpoint, encode_checkpoint
from tests.support.faulty_disk import Crashed, Fate, FaultyDisk
from tests.support.tailing import Tailing, copytruncate, write

ONE = Remembered(
    identity="ab" * 16,
    entry="shop",
    path="/var/log/a.log",
    real="/var/log/a.log",
    device=1,
    inode=2,
    form="cri",
    head_bytes=3,
    head="cd" * 32,
    marks=((3, 3, "ef" * 32),),
    offset=2,
    ahead={"stdout": 3},
    cuts=(("stderr", 9),),
    seen=1_767_225_600,
)


def test_what_is_encoded_is_decoded() -> None:
    data = encode_checkpoint((ONE, ONE), ("shop",))
    assert decode_checkpoint(data) == ((ONE, ONE), ("shop",))


@given(
    data=st.binary(max_size=300) | st.integers(0, 700).map(lambda at: flipped(encode_checkpoint((ONE,), ("x",)), at))
)
def test_anything_else_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_checkpoint(data)


def flipped(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("fate", list(Fate), ids=lambda fate: fate.value)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_leaves_the_old_or_the_new_one(fate: Fate, after: bool) -> None:
    folder = Path("tail")
    old, new = (ONE,), (msgspec.structs.replace(ONE, offset=5),)

    def work(disk: FaultyDisk) -> None:
        Checkpoint(folder, disk=disk).save(old, ["x"])
        Checkpoint(folder, disk=disk).save(new, ["x"])

    whole = FaultyDisk()
    work(whole)
    for crash_at in range(1, len(whole.changes) + 1):
        disk = FaultyDisk(crash_at=crash_at, after=after)
        with pytest.raises(Crashed):
            work(disk)
        found = Checkpoint(folder, disk=disk.after_crash(fate))
        assert found.files in ((), old, new)
        if crash_at > len(whole.changes) // 2 + 1:
            assert found.files != ()
        found.save(new, [])
        assert Checkpoint(folder, disk=found._disk).files == new


def test_a_changed_one_is_refused() -> None:
    disk = FaultyDisk()
    Checkpoint(Path("tail"), disk=disk).save((ONE,), [])
    disk.flip(Path("tail/positions"), 120)
    with pytest.raises(StateUnknown, match="positions"):
        Checkpoint(Path("tail"), disk=disk)


@pytest.mark.parametrize(("fate", "after"), [(Fate.LOST, False), (Fate.KEPT, True)], ids=["lost", "kept"])
def test_every_line_once_after_a_crash_at_every_change_of_the_disk(tmp_path: Path, fate: Fate, after: bool) -> None:
    """The intake outlives the crash, as the spool does; the files go on; rotations by both ways happen meanwhile."""
    crash_at = 0
    while True:
        crash_at += 1
        folder = tmp_path / str(crash_at)
        folder.mkdir()
        disk = FaultyDisk(crash_at=crash_at, after=after)
        tail = Tailing(folder, disk=disk, root=Path("tail"), multiline={"indented": True, "timeout_seconds": 3})
        log = tail.logs / "app.log"
        steps: list[Callable[[], object]] = [
            partial(write, log, "one\n  more\ntwo\n"),
            list,  # nothing
            partial(write, log, " of it\nthree\n"),
            partial(log.rename, tail.logs / "old"),
            partial(write, log, "four\nfi"),
            partial(write, log, "ve\n"),
            partial(copytruncate, log, tail.logs / "app.log.1"),
            partial(write, log, "six\n"),
            list,
            list,
        ]
        left = list(steps)

        def next_step(left: list[Callable[[], object]] = left) -> None:
            left.pop(0)()

        crashed = False
        try:
            tail.look(*[next_step] * len(steps))
            tail.look(list, list)
        except Crashed:
            crashed = True
            tail.disk = disk.after_crash(fate)
            tail.look(*[next_step] * len(left))
            tail.look(list, list)
        words = "\n".join(map(str, tail.bodies)).split()
        assert sorted(words) == sorted("one more two of it three four five six".split()), (crash_at, tail.bodies)
        if not crashed:
            break
    assert crash_at > 20
