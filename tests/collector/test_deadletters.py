"""Dead letters: redacted, bounded, durable, and each source id once."""

from __future__ import annotations

import base64
import contextlib
import errno
import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.deadletters import MAX_KEPT_BYTES, DeadLetters, read_dead_letters
from collector.disk import OsDisk
from collector.errors import Malformed, Overloaded
from collector.event import Origin
from collector.protect import Protector
from collector.rejection import Rejection
from tests.support.faulty_disk import Crashed, Fate, FaultyDisk

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


def test_a_card_number_across_the_cut_is_not_kept_in_part() -> None:
    disk = FaultyDisk()
    token = (
        b"eyJhbGciOiJIUzI1NiJ9.eyJ" + b"a" * 2 * MAX_KEPT_BYTES
    )  # becomes short, so that what stands behind it is kept
    raw = token[: 2 * MAX_KEPT_BYTES - 1_500] + b" z" * 742 + b" " + DIGITS.encode() + b" and more"
    assert raw[: 2 * MAX_KEPT_BYTES].endswith(b" " + DIGITS[:15].encode())
    opened(disk).add([Rejection(raw, REASON, None)])
    (letter,) = read_dead_letters(ROOT, disk=disk)
    assert letter.cut
    assert letter.text.endswith(" z")
    assert "z z" in letter.text
    assert DIGITS[:2] not in letter.text


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


@pytest.mark.parametrize("removed", ["files", "folder", "lines", "bytes"])
def test_what_a_person_removes_while_we_run_is_gone_and_what_comes_next_is_kept(removed: str, tmp_path: Path) -> None:
    """On a real disk: a file that is open goes on without its name, and a write behind its new end leaves a hole."""
    disk, root = OsDisk(), tmp_path / "dead"
    letters = DeadLetters(
        root, disk=disk, protector=Protector(token_key=b"t" * 32), clock=lambda: 0, total_bytes=600, file_bytes=150
    )

    def texts() -> list[str]:
        return [letter.text for letter in read_dead_letters(root, disk=disk)]

    for text in (b"a", b"b", b"c"):
        letters.add([Rejection(text, REASON, None, text)])
    with pytest.raises(Overloaded, match="full"):
        letters.add([Rejection(b"x" * 400, REASON, None, b"x")])
    files = sorted(root.iterdir())
    assert len(files) > 1
    for path in files:
        if removed in {"files", "folder"}:
            path.unlink()
        elif removed == "bytes":
            os.truncate(path, 0)
        else:  # as an editor does it: another file under the same name
            path.rename(path.with_suffix(".old"))
            path.write_bytes(b"")
            path.with_suffix(".old").unlink()
    if removed == "folder":
        root.rmdir()
    named = Rejection(b"a", REASON, None, b"a")
    assert letters.add([named]) == [named], "its letter is no longer there"
    assert letters.add([named]) == []
    assert texts() == ["a"]
    assert letters.add([Rejection(b"x" * 300, REASON, None, b"x")])
    assert letters.add([named]) == []
    assert texts() == ["a", "x" * 300]
    assert all(b"\0" not in path.read_bytes() for path in root.iterdir())
    with pytest.raises(Overloaded, match="full"):
        letters.add([Rejection(b"x" * 300, REASON, None, b"y")])


def test_a_letter_goes_into_no_file_whose_name_another_one_has(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, disk=OsDisk(), protector=Protector(token_key=b"t" * 32), clock=lambda: 0)
    letters.add([Rejection(b"a", REASON, None, b"a")])
    (path,) = tmp_path.iterdir()
    path.with_suffix(".copy").write_bytes(path.read_bytes())
    path.with_suffix(".copy").replace(path)
    named = Rejection(b"b", REASON, None, b"b")
    with pytest.raises(Overloaded, match="another file"):
        letters.add([named])
    assert letters.add([named]) == [named]
    assert [letter.text for letter in read_dead_letters(tmp_path, disk=OsDisk())] == ["a", "b"]


def test_what_a_person_writes_while_we_run_is_left_as_it_is() -> None:
    disk = FaultyDisk()
    letters = opened(disk)
    letters.add([Rejection(b"a", REASON, None, b"1"), Rejection(b"b", REASON, None, b"2")])
    (path,) = disk.files(ROOT)
    edited = disk.read(path).splitlines()[1] + b"\nno end yet"
    disk.truncate(path, 0)
    disk.append_to(path).write(edited)
    assert not letters.add([Rejection(b"b", REASON, None, b"2")])
    assert letters.add([Rejection(b"a", REASON, None, b"1")])
    assert disk.read(path) == edited
    assert [letter.text for letter in read_dead_letters(ROOT, disk=disk)] == ["b", "a"]


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


def test_what_is_told_after_the_process_died_is_durable() -> None:
    """The machine lives on, so that what was not synced can still be read; the power goes when the re-send has its answer."""
    named = Rejection(b"a", REASON, None, b"1")
    died = 0
    for at in range(1, 20):
        disk = FaultyDisk(crash_at=at)
        with contextlib.suppress(Crashed):
            opened(disk).add([named])
        died += len(disk.changes) == at
        disk.crash_at = None
        opened(disk).add([named])
        assert len(read_dead_letters(ROOT, disk=disk.after_crash(Fate.LOST))) == 1, f"died at change {at}"
    assert died >= 4


@pytest.mark.parametrize(
    "line",
    [b'{"time":"","reason":"caf\xe9","label":""}', b"\0" * 512, b'{"x":' + b"[" * 100_000, b'{"reason":1}', b"{}"],
    ids=["latin-1", "zeros", "deep", "type", "missing"],
)
def test_a_line_that_is_no_letter_keeps_nobody_from_starting(line: bytes) -> None:
    disk = FaultyDisk()
    opened(disk).add([Rejection(b"a", REASON, None, b"1")])
    (path,) = disk.files(ROOT)
    disk.append_to(path).write(line + b"\n" + disk.read(path).replace(b'"31"', b'"no hex"'))
    letters = opened(disk)
    assert not letters.add([Rejection(b"a", REASON, None, b"1")])
    assert letters.add([Rejection(b"b", REASON, None)])
    assert [letter.text for letter in read_dead_letters(ROOT, disk=disk)] == ["a", "a", "b"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_on_a_sector_that_cannot_be_read_keeps_nobody_from_starting(
    which: int, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FaultyDisk()
    before = opened(disk, file_bytes=1)
    for at in range(2):
        before.add([Rejection(b"%d" % at, REASON, None, b"%d" % at)])
    files = disk.files(ROOT)
    assert len(files) == 2
    disk.unreadable.add(files[which])
    letters = opened(disk)
    assert f"{files[which]} cannot be read" in caplog.text
    assert not letters.add([Rejection(b"again", REASON, None, b"%d" % (1 - which))])
    assert letters.add([Rejection(b"new", REASON, None, b"new")])
    assert letters.add([Rejection(b"newer", REASON, None, b"newer")])
    assert [letter.text for letter in read_dead_letters(ROOT, disk=disk)] == [str(1 - which), "new", "newer"]
    assert files[which] in disk.files(ROOT)
    assert not opened(disk).add([Rejection(b"new", REASON, None, b"new")])


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
    assert [letter.text for letter in read_dead_letters(ROOT, disk=disk)] == ["a"]


@pytest.mark.parametrize("before", [0, 1])
def test_trials_on_a_full_disk_leave_nothing_behind(before: int) -> None:
    disk = FaultyDisk()
    letters = opened(disk)
    for _ in range(before):
        letters.add([Rejection(b"a", REASON, None, b"1")])
    there, disk.room_bytes = content(disk), 10
    for _ in range(5):
        with pytest.raises(Overloaded, match="No space"):
            letters.add([Rejection(b"b", REASON, None, b"2")])
        assert (content(disk), len(disk.files(ROOT))) == (there, before)
    disk.room_bytes = None
    assert letters.add([Rejection(b"b", REASON, None, b"2")])
    assert len(disk.files(ROOT)) == 1
    assert [letter.text for letter in read_dead_letters(ROOT, disk=disk)] == ["a", "b"][1 - before :]


@pytest.mark.parametrize("before", [0, 1])
def test_what_a_failed_sync_left_is_no_letter_even_if_it_cannot_be_cut_at_once(before: int) -> None:
    disk = FaultyDisk()
    letters = opened(disk)
    for _ in range(before):
        letters.add([Rejection(b"a", REASON, None, b"1")])
    disk.failing.update(dict.fromkeys(("sync", "truncate", "remove"), OSError(errno.EIO, "I/O error")))
    for _ in range(2):
        with pytest.raises(Overloaded, match="I/O"):
            letters.add([Rejection(b"b", REASON, None, b"2")])
    disk.failing.clear()
    assert letters.add([Rejection(b"b", REASON, None, b"2")])
    assert [letter.text for letter in read_dead_letters(ROOT, disk=disk)] == ["a", "b"][1 - before :]


def test_what_is_told_after_a_failed_sync_and_a_restart_outlives_a_power_cut() -> None:
    """What could not be synced is read by the next process as if all were well, and another sync of it writes nothing."""
    disk = FaultyDisk()
    letters = opened(disk)
    letters.add([Rejection(b"a", REASON, None, b"1")])
    disk.failing.update(dict.fromkeys(("sync", "truncate"), OSError(errno.EIO, "I/O error")))
    with pytest.raises(Overloaded, match="I/O"):
        letters.add([Rejection(b"b", REASON, None, b"2")])
    disk.failing.clear()
    assert not opened(disk).add([Rejection(b"b", REASON, None, b"2")])
    after = disk.after_crash(Fate.LOST)
    assert [letter.text for letter in read_dead_letters(ROOT, disk=after)] == ["a", "b"]
    assert len(after.files(ROOT)) == 1


def test_an_absent_folder_has_no_letters() -> None:
    assert read_dead_letters(ROOT, disk=FaultyDisk()) == []


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("cut", [None, -4])
def test_card_numbers_are_masked_in_what_came_compressed_as_well(
    compress: Callable[[bytes], bytes], cut: int | None
) -> None:
    disk = FaultyDisk()
    raw = b"\x93\xa3pay\xc4\x40" + compress(f"card {DIGITS} declined".encode())[:cut]
    opened(disk).add([Rejection(raw, REASON, None)])
    (letter,) = read_dead_letters(ROOT, disk=disk)
    kept = base64.b64decode(letter.base64)
    assert kept.startswith(b"\x93\xa3pay\xc4\x40card [411111******1111~card:")
    assert raw[7:] not in kept
    assert letter.size_bytes == len(raw)
