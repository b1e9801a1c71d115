"""The real disk: files that are made longer ahead of what is written; `test_crash.py` shows what a crash leaves of them."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collector.disk import OsDisk, write_again


def test_room_is_reserved_ahead_and_given_back_on_closing(tmp_path: Path) -> None:
    path, disk = tmp_path / "one.seg", OsDisk()
    file = disk.append_to(path, reserve_bytes=10_000)
    file.write(b"first")
    file.sync()
    length = path.stat().st_size
    assert (file.size(), path.read_bytes().rstrip(b"\0")) == (5, b"first")
    assert length == 10_005
    file.write(b"second")
    assert path.stat().st_size == length  # so its sync has no new length to write
    assert path.read_bytes() == b"firstsecond".ljust(length, b"\0")
    file.write(bytes(10_000) + b"end")  # beyond it: more is reserved
    assert path.stat().st_size == file.size() + 10_000
    file.close()
    assert path.read_bytes() == b"firstsecond" + bytes(10_000) + b"end"


def test_what_was_reserved_is_written_to_after_opening_again(tmp_path: Path) -> None:
    path, disk = tmp_path / "one.seg", OsDisk()
    disk.append_to(path, reserve_bytes=100).write(b"a")  # never closed
    disk.truncate(path, 1)  # as recovery does
    file = disk.append_to(path, reserve_bytes=100)
    file.write(b"b")
    file.close()
    assert path.read_bytes() == b"ab"


def test_who_writes_little_has_the_place_for_it_cleared(tmp_path: Path) -> None:
    path, disk = tmp_path / "one.seg", OsDisk()
    file = disk.append_to(path, reserve_bytes=1_000_000)
    for at in range(4_000):  # over what was cleared, and over what was reserved
        file.write(b"%0300d" % at)
        if at % 1_000 == 0:
            # a block that was reserved and never written reads as a hole; a file system that cannot tell says that there is none
            with path.open("rb") as written:
                assert os.lseek(written.fileno(), 0, os.SEEK_HOLE) >= file.size() + 100_000
    file.write(bytes(20_000))  # much at a time is written where it belongs, and that is all
    file.write(b"end")
    file.close()
    assert path.read_bytes() == b"".join(b"%0300d" % at for at in range(4_000)) + bytes(20_000) + b"end"


def test_a_file_is_written_again_in_another_one(tmp_path: Path) -> None:
    path, disk = tmp_path / "one.seg", OsDisk()
    path.write_bytes(b"kept and torn")
    (tmp_path / ".one.seg.new").write_bytes(b"of a crash")
    before = path.stat().st_ino
    write_again(disk, path, b"kept")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"kept", 0o600)
    assert path.stat().st_ino != before, "its pages would count as written"
    assert disk.list_directory(tmp_path) == ["one.seg"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As a full disk: a write beyond this size writes what fits, the next one fails."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("reserve_bytes", [0, 1_000])
def test_a_write_that_fails_in_the_middle_is_written_over(tmp_path: Path, reserve_bytes: int) -> None:
    path, disk = tmp_path / "one.seg", OsDisk()
    file = disk.append_to(path, reserve_bytes=reserve_bytes)
    file.write(b"kept")
    with largest_file(8_192), pytest.raises(OSError, match=r".") as failed:
        file.write(b"x" * 20_000)
    assert failed.value.errno in {errno.EFBIG, errno.ENOSPC}
    assert file.size() == 4
    disk.truncate(path, 4)
    file.write(b" and more")
    file.close()
    assert path.read_bytes() == b"kept and more"


@pytest.mark.parametrize("number", [0, errno.EPERM, errno.EOPNOTSUPP])
def test_a_name_that_is_taken_is_not_renamed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Also where the file system has no hard links (`number`: what it says then)."""

    def no_links(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    if number:
        monkeypatch.setattr(os, "link", no_links)
    disk, source, target = OsDisk(), tmp_path / "source", tmp_path / "target"
    disk.write_new(source, b"first")
    disk.rename_new(source, target)
    assert (disk.list_directory(tmp_path), disk.read(target)) == (["target"], b"first")
    disk.write_new(source, b"second")
    with pytest.raises(FileExistsError):
        disk.rename_new(source, target)
    assert (disk.read(source), disk.read(target)) == (b"second", b"first")
