"""How often a disk is asked what it has left, and that what is to be kept free is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.diskroom import DiskRoom
from collector.errors import Overloaded
from collector.refusals import Refusals
from tests.support.faulty_disk import FaultyDisk


class Asked(FaultyDisk):
    """Has so much left, and counts how often it was asked."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left
        self.asked = 0

    def free_bytes(self, path: Path) -> int:
        del path
        self.asked += 1
        return self.left


@given(st.integers(0, 3 * 2**20), st.integers(0, 2**20), st.lists(st.integers(1, 2**18), max_size=60))
def test_what_is_kept_free_is_never_written(left: int, keep: int, writes: list[int]) -> None:
    disk = Asked(left)
    room = DiskRoom(disk, Path("spool"), keep, Refusals())
    for size in writes:
        try:
            room.take(size)
        except Overloaded:
            assert disk.left - size < keep, "refused though there is room"
        else:
            disk.left -= size
            assert disk.left >= keep


def test_a_disk_with_room_is_asked_once_a_mebibyte_and_one_without_each_time() -> None:
    disk = Asked(2**30)
    room = DiskRoom(disk, Path("spool"), 2**26, Refusals())
    for _ in range(2_048):
        room.take(1_024)
    assert disk.asked == 2
    disk = Asked(2**26)
    room = DiskRoom(disk, Path("spool"), 2**26, Refusals())
    for _ in range(3):
        with pytest.raises(Overloaded, match="63 MiB, kept for shipping"):
            room.take(1_024)
    assert disk.asked == 3
    disk.left += 2**26
    room.take(1_024)
