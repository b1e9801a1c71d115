"""The header log: chained, torn ends cut, damage told, failed writes cut off before anything follows them."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import BatchHeader, SignedHeader, facts_root, sign_header
from collector.errors import StateUnknown
from collector.headerlog import HeaderLog
from tests.support.faulty_disk import FaultyDisk

ROOT = Path("spool")
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def following(last: SignedHeader | None, *, count: int = 3, created: int = 0) -> SignedHeader:
    number = last.header.number + 1 if last else 1
    lines = [b"%d" % at for at in range(count)]
    header = BatchHeader(
        v=1,
        ledger="test/ledger",
        stream="payments/0123456789abcdef",
        number=number,
        first=last.header.first + last.header.count if last else 0,
        count=count,
        previous=last.digest if last else "",
        facts_root=facts_root(lines),
        key=KEY.public_key().public_bytes_raw().hex(),
        created=f"2023-01-30T11:50:59.{created:09d}Z",
        clock=None,
        place="",
        heartbeat_seconds=60,
        closed=False,
        fork=None,
    )
    return sign_header(header, KEY, b"")


def opened(disk: FaultyDisk) -> HeaderLog:
    disk.make_directory(ROOT)
    return HeaderLog(ROOT, disk=disk, headers_a_file=3)


def filled(disk: FaultyDisk, count: int) -> HeaderLog:
    log = opened(disk)
    for _ in range(count):
        log.append(following(log.last))
    return log


def numbers(log: HeaderLog) -> list[int]:
    return [signed.header.number for signed in log.after(0)]


def path(first: int) -> Path:
    return ROOT / f"headers-{first:012d}.log"


def test_headers_are_there_after_a_restart() -> None:
    disk = FaultyDisk()
    before = filled(disk, 7)
    log = opened(disk)
    assert log.after(0) == before.after(0)
    assert log.last == before.last
    assert numbers(log) == [1, 2, 3, 4, 5, 6, 7]
    assert [signed.header.number for signed in log.after(5)] == [6, 7]
    log.append(following(log.last))
    assert numbers(opened(disk)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_the_facts_of_a_header_are_not_kept_in_memory() -> None:
    log = opened(FaultyDisk())
    signed = following(None)
    log.append(replace(signed, facts=b"0\n1\n2\n"))
    assert log.after(0) == [signed]
    assert log.last == signed


def test_an_end_torn_at_any_byte_is_cut_to_whole_headers() -> None:
    disk = FaultyDisk()
    one = filled(disk, 1)
    end = disk.size(path(1))
    one.append(following(one.last))
    for size in range(end, disk.size(path(1)) + 1):
        torn = FaultyDisk()
        filled(torn, 2)
        torn.truncate(path(1), size)
        log = opened(torn)
        assert numbers(log) == ([1, 2] if size == disk.size(path(1)) else [1])
        log.append(following(log.last))
        assert numbers(opened(torn)) == [1, 2] if log.last and log.last.header.number == 2 else [1, 2, 3]


def test_every_flipped_bit_is_damage_or_cuts_an_end_that_looks_torn() -> None:
    whole = FaultyDisk()
    filled(whole, 2)
    size = whole.size(path(1))
    for offset in range(size):
        disk = FaultyDisk()
        filled(disk, 2)
        disk.flip(path(1), offset, bit=offset % 7)
        if offset == size - 1 or disk.read(path(1), offset, 1) == b"\x00" or offset == size - 2:
            assert numbers(opened(disk)) == [1]
        else:
            with pytest.raises(StateUnknown, match="damaged at byte"):
                opened(disk)


def test_damage_before_the_last_file_is_never_cut() -> None:
    disk = FaultyDisk()
    filled(disk, 5)
    disk.truncate(path(1), disk.size(path(1)) - 1)
    with pytest.raises(StateUnknown, match=path(1).name):
        opened(disk)


def test_a_missing_file_breaks_the_chain() -> None:
    disk = FaultyDisk()
    filled(disk, 8)
    disk.remove(path(4))
    with pytest.raises(StateUnknown, match="batch 7 does not follow batch 3"):
        opened(disk)


def test_a_header_that_follows_another_is_refused() -> None:
    disk = FaultyDisk()
    log = filled(disk, 2)
    last = log.last
    other = following(None, created=1)
    disk.truncate(path(1), 0)
    log = opened(disk)
    log.append(other)
    assert last is not None
    log.append(last)  # signed by the same key, but it names another header as previous
    with pytest.raises(StateUnknown, match="batch 2 does not follow batch 1"):
        opened(disk)


def test_a_file_under_another_name_is_told() -> None:
    disk = FaultyDisk()
    filled(disk, 1)
    disk.write_new(ROOT / "headers-copy.log", b"")
    with pytest.raises(StateUnknown, match="headers-copy"):
        opened(disk)


@pytest.mark.parametrize("room", [None, 0, 40])
@pytest.mark.parametrize("before", [0, 2, 3])
@pytest.mark.parametrize("truncates", [True, False])
def test_a_header_that_could_not_be_synced_never_was(room: int | None, before: int, truncates: bool) -> None:
    disk = FaultyDisk()
    log = filled(disk, before)
    failure = OSError(errno.EIO, "I/O error")
    disk.room_bytes = room
    if room is None:
        disk.failing["sync"] = failure
    if not truncates:
        disk.failing["truncate"] = failure
    for attempt in range(3):
        with pytest.raises(OSError, match=r"I/O|space"):
            log.append(following(log.last, created=attempt))
        assert (log.last.header.number if log.last else 0) == before
    disk.room_bytes, disk.failing = None, {}
    log.append(following(log.last, created=9))
    log.append(following(log.last))
    assert opened(disk).after(0) == log.after(0)
    assert numbers(log) == list(range(1, before + 3))


def test_a_new_file_whose_name_could_not_be_synced_is_tried_again() -> None:
    disk = FaultyDisk()
    log = filled(disk, 3)
    disk.failing["sync_directory"] = OSError(errno.EIO, "I/O error")
    with pytest.raises(OSError, match="I/O"):
        log.append(following(log.last))
    disk.failing.clear()
    log.append(following(log.last))
    assert numbers(opened(disk)) == [1, 2, 3, 4]


def test_released_headers_are_gone_but_for_the_last() -> None:
    disk = FaultyDisk()
    log = filled(disk, 8)
    log.release(4)
    assert numbers(log) == [5, 6, 7, 8]
    assert not disk.exists(path(1))
    assert disk.exists(path(4))
    log.release(8)
    assert log.after(0) == []
    assert disk.list_directory(ROOT) == [path(7).name]
    again = opened(disk)
    assert again.last == log.last
    again.append(following(again.last))
    assert again.last is not None
    assert again.last.header.number == 9


def test_the_last_header_is_kept_when_a_crash_left_an_empty_file_behind_it() -> None:
    disk = FaultyDisk()
    filled(disk, 3)
    disk.append_to(path(4))  # made for the fourth header, which was never written
    log = opened(disk)
    log.release(3)
    again = opened(disk)
    assert again.last is not None
    assert again.last.header.number == 3
    again.append(following(again.last))
    again.release(4)
    assert disk.list_directory(ROOT) == [path(4).name]


def test_a_release_that_failed_in_the_middle_is_tried_again() -> None:
    disk = FaultyDisk()
    log = filled(disk, 8)
    disk.failing["sync_directory"] = OSError(errno.EIO, "I/O error")
    with pytest.raises(OSError, match="I/O"):
        log.release(8)
    disk.failing.clear()
    log.release(8)
    assert disk.list_directory(ROOT) == [path(7).name]
