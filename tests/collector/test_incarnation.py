"""Incarnations: found oldest first, minted whole or not at all, set aside and removed."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from collector.batch import Fork
from collector.errors import StateUnknown
from collector.incarnation import Incarnation, find_incarnations, mark_forked, mint, remove, set_aside
from tests.support.faulty_disk import Crashed, Fate, FaultyDisk

ROOT = Path("spool")
FORK = Fork(stream="payments/0123456789abcdef", number=3, digest="ab" * 32)


def make(disk: FaultyDisk, number: int = 1, *, fork: Fork | None = None) -> Incarnation:
    disk.make_directory(ROOT)
    return mint(
        ROOT,
        collector="payments",
        ledger="test/ledger",
        disk=disk,
        clock=lambda: 1_700_000_000_000_000_000 + number,
        random=lambda length: number.to_bytes(length, "big"),
        fork=fork,
    )


def found(disk: FaultyDisk) -> list[Incarnation]:
    return find_incarnations(ROOT, ledger="test/ledger", disk=disk)


def test_what_was_minted_is_found_oldest_first() -> None:
    disk = FaultyDisk()
    made = [make(disk, 9), make(disk, 2, fork=FORK)]
    assert found(disk.after_crash(Fate.LOST)) == sorted(made, key=lambda one: one.created)
    assert made[1].fork == FORK
    assert made[0].stream == "payments/0000000000000009"


@pytest.mark.parametrize("fate", list(Fate))
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_while_minting_leaves_all_of_it_or_nothing(fate: Fate, after: bool) -> None:
    for crash_at in count(2):  # 1 is the root folder
        disk = FaultyDisk(crash_at=crash_at, after=after)
        try:
            make(disk)
        except Crashed:
            disk = disk.after_crash(fate)
            assert [one.stream for one in found(disk)] in ([], ["payments/0000000000000001"])
            assert not any(name.endswith(".new") for name in disk.list_directory(ROOT))
        else:
            assert crash_at > 5
            return


@pytest.mark.parametrize("fate", list(Fate))
def test_a_crash_while_removing_leaves_all_of_it_or_nothing(fate: Fate) -> None:
    for crash_at in count(1):
        disk = FaultyDisk()
        made = make(disk)
        disk.crash_at = len(disk.changes) + crash_at
        try:
            remove(made, disk=disk)
        except Crashed:
            assert found(disk.after_crash(fate)) in ([], [made])
        else:
            assert crash_at > 3
            assert disk.list_directory(ROOT) == []
            return


def test_a_forked_incarnation_says_so_and_a_damaged_one_is_found_no_more() -> None:
    disk = FaultyDisk()
    first, second = make(disk, 1), make(disk, 2)
    assert mark_forked(first, 12, disk=disk) == mark_forked(first, 12, disk=disk) == replace(first, forked=12)
    aside = set_aside(second, disk=disk)
    disk = disk.after_crash(Fate.LOST)
    assert [(one.stream, one.forked) for one in found(disk)] == [(first.stream, 12)]
    assert disk.exists(aside / "meta.json")


def test_a_fork_that_was_marked_without_a_number_is_not_opened_and_stays() -> None:
    disk = FaultyDisk()
    disk.write_new(make(disk).directory / "forked", b"")
    assert [one.forked for one in found(disk)] == [2**53 - 1]


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"v":1,"ledger":"l","stream":7,"created":""}'])
def test_a_folder_whose_meta_does_not_read_is_told(data: bytes) -> None:
    disk = FaultyDisk()
    made = make(disk)
    disk.remove(made.directory / "meta.json")
    disk.write_new(made.directory / "meta.json", data)
    with pytest.raises(StateUnknown, match=r"meta\.json cannot be read"):
        found(disk)


def test_another_ledgers_folder_is_refused() -> None:
    disk = FaultyDisk()
    make(disk)
    with pytest.raises(StateUnknown, match="belongs to the ledger"):
        find_incarnations(ROOT, ledger="other", disk=disk)
