"""Dead letters: redacted, bounded, durable, and each source id once."""

from __future__ import annotations

import base64
import errno
from pathlib import Path

import pytest

from collector.deadletters import MAX_KEPT_BYTES, DeadLetters, read_dead_letters
from collector.errors import Malformed, Overloaded
from collector.event import Origin
from collector.protect import Protector
from collector.rejection import Rejection
from tests.support.faulty_disk import FaultyDisk

ROOT = Path("dead")
DIGITS = "4111111111111111"
REASON = Malformed("no such thing", where="body.x", label="bad_type")


def opened(disk: FaultyDisk, *, total_bytes: int = 10**6, file_bytes: int = 10**6) -> DeadLetters:
    return DeadLetters(
        ROOT,
        disk=disk,
        protector=Protector(token_key=b"t" * 32),
        clock=lambda: 1_700_000_000_000_000_000,
        total_bytes=total_bytes,
        file_bytes=file_bytes,
    )


def content(disk: FaultyDisk) -> bytes:
    return b"".join(disk.read(path) for path in disk.files(ROOT))


def test_a_letter_says_what_why_when_and_whence() -> None:
    disk = FaultyDisk()
    assert opened(disk).add([Rejection(b"raw text", REASON, Origin(receiver="forward", tag="shop"), b"\x01\x02")])
    assert disk.changes[-1] == "sync"
    (letter,) = read_dead_letters(ROOT, disk=disk)
    assert (letter.text, letter.size_bytes, letter.cut) == ("raw text", 8, False)
    assert (letter.reason, letter.where, letter.label) == ("no such thing", "body.x", "bad_type")
    assert (letter.time, letter.source_id) == ("2023-11-14T22:13:20.000000000Z", "0102")
    assert letter.origin == Origin(receiver="forward", tag="shop")


@pytest.mark.parametrize("raw", [f"pan {DIGITS}".encode(), b"\xff pan " + DIGITS.encode(), DIGITS.encode("utf-16-le")])
def test_a_card_number_is_never_written(raw: bytes) -> None:
    disk = FaultyDisk()
    origin = Origin(receiver="forward", tag=f"shop.{DIGITS}", file=DIGITS)
    reason = Malformed(f"cannot read {DIGITS}", where=f"body.{DIGITS}")
    opened(disk).add([Rejection(raw, reason, origin)])
    (letter,) = read_dead_letters(ROOT, disk=disk)
    for text in (content(disk), base64.b64decode(letter.base64)):
        assert DIGITS.encode() not in text
        assert DIGITS.encode("utf-16-le") not in text


def test_whatever_text_comes_is_written() -> None:
    disk = FaultyDisk()
    letters = opened(disk)
    assert letters.add(
        [Rejection(b"\xff\xfe", Malformed("\ud800", where="\udcff"), Origin(receiver="import", file="\udcff.csv"))]
    )
    (letter,) = read_dead_letters(ROOT, disk=disk)
    assert base64.b64decode(letter.base64) == b"\xff\xfe"


def test_a_long_input_is_cut_and_says_so() -> None:
    disk = FaultyDisk()
    opened(disk).add([Rejection(b"x" * (MAX_KEPT_BYTES + 1), REASON, None)])
    (letter,) = read_dead_letters(ROOT, disk=disk)
    assert letter.cut
    assert len(letter.text) == MAX_KEPT_BYTES
    assert letter.size_bytes == MAX_KEPT_BYTES + 1


def test_the_same_source_id_is_one_letter_across_a_restart() -> None:
    disk = FaultyDisk()
    letters = opened(disk)
    assert letters.add([Rejection(b"a", REASON, None, b"1")])
    assert not letters.add([Rejection(b"a", REASON, None, b"1")])
    assert letters.add([Rejection(b"a", REASON, None)])
    assert letters.add([Rejection(b"a", REASON, None)])
    again = opened(disk)
    assert not again.add([Rejection(b"a", REASON, None, b"1")])
    assert again.add([Rejection(b"b", REASON, None, b"2")])
    assert len(read_dead_letters(ROOT, disk=disk)) == 4


def test_those_that_come_together_share_a_sync_and_are_kept_in_their_order() -> None:
    disk = FaultyDisk()
    letters = opened(disk)
    named = Rejection(b"named", REASON, None, b"1")
    some = [Rejection(b"a", REASON, None), named, Rejection(b"b", REASON, None), named]
    assert letters.add(some) == some[:3]
    assert disk.changes.count("sync") == 1
    assert [letter.text for letter in read_dead_letters(ROOT, disk=disk)] == ["a", "named", "b"]
    before = list(disk.changes)
    assert letters.add([named]) == letters.add([]) == []
    assert disk.changes == before


def test_what_does_not_fit_together_is_not_kept_in_part() -> None:
    disk = FaultyDisk()
    letters = opened(disk, total_bytes=600)
    some = [Rejection(b"x" * 100, REASON, None, b"%d" % at) for at in range(4)]
    with pytest.raises(Overloaded, match="full"):
        letters.add(some)
    assert read_dead_letters(ROOT, disk=disk) == []
    assert letters.add(some[:1]) == some[:1]


def test_a_full_folder_is_overload_until_a_person_has_looked() -> None:
    disk = FaultyDisk()
    letters = opened(disk, total_bytes=1_000, file_bytes=300)
    while len(content(disk)) <= 850:
        letters.add([Rejection(b"x", REASON, None)])
    with pytest.raises(Overloaded, match="full"):
        letters.add([Rejection(b"x" * 200, REASON, None)])
    assert len(content(disk)) <= 1_000
    assert len(disk.files(ROOT)) > 1
    with pytest.raises(Overloaded):  # the bound holds across a restart
        opened(disk, total_bytes=1_000).add([Rejection(b"x" * 200, REASON, None)])
    for path in disk.files(ROOT):
        disk.remove(path)
    assert opened(disk, total_bytes=1_000).add([Rejection(b"x", REASON, None)])


def test_a_torn_line_is_cut_and_a_persons_edit_is_passed_over() -> None:
    disk = FaultyDisk()
    opened(disk).add([Rejection(b"a", REASON, None, b"1")])
    (path,) = disk.files(ROOT)
    disk.append_to(path).write(b'not a letter\n{"time":"torn')
    letters = opened(disk)
    assert disk.read(path).endswith(b"not a letter\n")
    assert not letters.add([Rejection(b"a", REASON, None, b"1")])
    assert letters.add([Rejection(b"b", REASON, None)])
    assert [letter.text for letter in read_dead_letters(ROOT, disk=disk)] == ["a", "b"]


def test_a_file_under_another_name_is_left_alone() -> None:
    disk = FaultyDisk()
    opened(disk).add([Rejection(b"a", REASON, None)])
    disk.write_new(ROOT / "dead-000000.jsonl.bak", b"a person's copy")
    assert opened(disk).add([Rejection(b"b", REASON, None)])
    assert disk.read(ROOT / "dead-000000.jsonl.bak") == b"a person's copy"


@pytest.mark.parametrize("failing", ["sync", "sync_directory", "create"])
def test_a_disk_that_fails_is_overload_and_later_it_goes_on(failing: str) -> None:
    disk = FaultyDisk()
    letters = opened(disk)
    disk.failing[failing] = OSError(errno.EIO, "I/O error")
    with pytest.raises(Overloaded, match="I/O"):
        letters.add([Rejection(b"a", REASON, None, b"1")])
    disk.failing.clear()
    assert letters.add([Rejection(b"a", REASON, None, b"1")])
    assert "a" in [letter.text for letter in read_dead_letters(ROOT, disk=disk)]


def test_an_absent_folder_has_no_letters() -> None:
    assert read_dead_letters(ROOT, disk=FaultyDisk()) == []
