"""The header log: chained, torn ends cut, damage told, failed writes cut off before anything follows them."""

from __future__ import annotations

import base64
import errno
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import BatchHeader, SignedHeader, facts_root, sign_header
from collector.disk import OsDisk
from collector.errors import StateUnknown
from collector.headerlog import HeaderLog
from tests.support.faulty_disk import Fate, FaultyDisk

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
    assert list(log.after(0)) == list(before.after(0))
    assert log.last == before.last
    assert numbers(log) == [1, 2, 3, 4, 5, 6, 7]
    assert [signed.header.number for signed in log.after(5)] == [6, 7]
    log.append(following(log.last))
    assert numbers(opened(disk)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_the_facts_of_a_header_are_not_kept_in_memory() -> None:
    log = opened(FaultyDisk())
    signed = following(None)
    log.append(replace(signed, facts=b"0\n1\n2\n"))
    assert list(log.after(0)) == [signed]
    assert log.last == signed


def test_a_night_of_headers_needs_little_memory(tmp_path: Path) -> None:
    # a correlator that is away for ten hours leaves some hundred thousand to be kept
    last, lines = None, []
    for _ in range(1_500):
        last = following(last)
        lines.append(base64.b64encode(last.signature) + b" " + last.data + b"\n")
    for first in (0, 500, 1_000):
        (tmp_path / path(first + 1).name).write_bytes(b"".join(lines[first : first + 500]))
    tracemalloc.start()
    log = HeaderLog(tmp_path, disk=OsDisk())
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 60 * 1_500
    for number in (1, 500, 501, 1_500):
        assert next(log.after(number - 1)).data == lines[number - 1].split(b" ", 1)[1][:-1]
    log.close()


@pytest.mark.parametrize("reopened", [False, True])
def test_where_batches_begin_is_known_without_reading_them(reopened: bool) -> None:
    disk = FaultyDisk()
    log = filled(disk, 4)
    assert log.last is not None
    log.append(following(log.last, count=0))
    log.append(following(log.last, count=0))
    log.append(following(log.last))
    one = opened(disk) if reopened else log
    assert [one.sequence_behind(number) for number in range(9)] == [0, 3, 6, 9, 12, 12, 12, 15, 15]
    assert [one.last_below(sequence) for sequence in (0, 1, 3, 4, 12, 13)] == [0, 1, 1, 2, 4, 7]
    assert (one.oldest, one.next_sequence) == (1, 15)
    one.release(5)
    assert [one.sequence_behind(number) for number in range(5, 9)] == [12, 12, 15, 15]
    assert (one.oldest, one.last_below(3), one.last_below(13)) == (6, 5, 7)
    assert numbers(one) == [6, 7]
    one.release(7)
    assert (one.oldest, one.last_below(20), one.sequence_behind(7)) == (8, 7, 15)
    empty = opened(FaultyDisk())
    assert (empty.oldest, empty.sequence_behind(0), empty.last_below(5), empty.next_sequence) == (1, 0, 0, 0)


def test_a_header_that_changed_since_the_start_is_told_when_it_is_read() -> None:
    disk = FaultyDisk()
    log = filled(disk, 5)
    disk.flip(path(1), disk.size(path(1)) // 2)
    with pytest.raises(StateUnknown, match="damaged at byte"):
        numbers(log)
    assert [signed.header.number for signed in log.after(2)] == [3, 4, 5]
    disk.unreadable.add(path(4))
    with pytest.raises(StateUnknown, match="cannot be read"):
        list(log.after(3))


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


@pytest.mark.parametrize("behind", [0, 1])
def test_in_a_full_file_every_flipped_bit_is_damage_at_the_start_or_when_its_header_is_read(behind: int) -> None:
    # headers vouch for those before them, so a start verifies few signatures: after a night without a correlator there are a million
    whole = FaultyDisk()
    filled(whole, 3 + behind)
    read = 0
    for offset in range(0, whole.size(path(1)), 3):
        disk = FaultyDisk()
        filled(disk, 3 + behind)
        disk.append_to(path(4))
        disk.flip(path(1), offset, bit=offset % 7)
        try:
            log = opened(disk)
        except StateUnknown:
            continue
        read += 1
        assert [signed.header.number for signed in log.after(3)] == [4] * behind
        with pytest.raises(StateUnknown, match="damaged at byte"):
            numbers(log)
    assert 10 < read < 100  # changed signatures


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
    assert list(opened(disk).after(0)) == list(log.after(0))
    assert numbers(log) == list(range(1, before + 3))


def test_a_header_that_a_restart_finds_after_a_failed_sync_outlives_a_power_cut() -> None:
    # it is sent then; without it, another batch would be cut under its number
    disk = FaultyDisk()
    log = filled(disk, 1)
    disk.failing["sync"] = OSError(errno.EIO, "I/O error")
    with pytest.raises(OSError, match="I/O"):
        log.append(following(log.last))
    disk.failing.clear()
    again = opened(disk)
    found = list(again.after(0))
    assert list(opened(disk.after_crash(Fate.LOST)).after(0)) == found
    again.append(following(again.last))
    assert list(opened(disk.after_crash(Fate.LOST)).after(0)) == list(again.after(0))


def test_a_new_file_whose_name_could_not_be_synced_is_tried_again() -> None:
    disk = FaultyDisk()
    log = filled(disk, 3)
    disk.failing["sync_directory"] = OSError(errno.EIO, "I/O error")
    with pytest.raises(OSError, match="I/O"):
        log.append(following(log.last))
    disk.failing.clear()
    log.append(following(log.last))
    for fate in Fate:
        assert numbers(opened(disk.after_crash(fate))) == [1, 2, 3, 4]


def test_released_headers_are_gone_but_for_the_last() -> None:
    disk = FaultyDisk()
    log = filled(disk, 8)
    log.release(4)
    assert numbers(log) == [5, 6, 7, 8]
    assert not disk.exists(path(1))
    assert disk.exists(path(4))
    log.release(8)
    assert list(log.after(0)) == []
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
