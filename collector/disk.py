"""The seam between our own files and the disk.

Every byte that the spool and the log write goes through a `Disk`, so that a test can put a disk in its place that loses,
tears or reorders whatever was not yet synced (``tests/support/faulty_disk.py``). The rules of POSIX that the callers rely
on, and nothing else: bytes are durable after `AppendFile.sync`; a name (created, renamed, removed) is durable after
`Disk.sync_directory` of its folder; a rename replaces atomically.
"""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

__all__ = ["UNREADABLE", "AppendFile", "Disk", "DiskLock", "OsDisk", "write_again"]

UNREADABLE = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})
"""A sector that cannot be read, and file systems' words for their own damage: drive and kernel have tried for long enough."""

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""What file systems say that have no hard links."""


class AppendFile(Protocol):
    """A file open for appending."""

    def write(self, data: bytes) -> None:
        """Append all of `data`; durable only after `sync`.

        Raises OSError: part of it may stand there; the next write begins where this one did.
        """

    def sync(self) -> None:
        """Make all bytes written so far durable (fdatasync). Raises OSError; the bytes' fate is then unknown."""

    def size(self) -> int:
        """How many bytes were written in all, unsynced ones included."""

    def close(self) -> None:
        """Close without syncing; what was reserved and not written is cut off, until a sync perhaps not durably."""


class DiskLock(Protocol):
    """An exclusive lock held until `release` or the end of the process."""

    def release(self) -> None:
        """Give the lock up."""


class Disk(Protocol):
    """The few file operations that durability is built from. All paths are absolute or relative to the process."""

    def make_directory(self, path: Path) -> None:
        """Create `path` and its missing parents (mode 0700), each name synced in its parent; fine if it is there."""

    def list_directory(self, path: Path) -> list[str]:
        """The names in `path`, sorted; FileNotFoundError if there is no such folder."""

    def exists(self, path: Path) -> bool:
        """Whether a file or folder stands at `path`."""

    def size(self, path: Path) -> int:
        """The length of the file in bytes; FileNotFoundError."""

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        """Bytes of the file from `offset`, at most `length` of them (-1: to the end); FileNotFoundError."""

    def append_to(self, path: Path, *, reserve_bytes: int = 0) -> AppendFile:
        """Open for appending, created with mode 0600 when absent (its name is durable after `sync_directory`).

        With `reserve_bytes` the file is made longer by so much at a time, ahead of what is written, if the disk can: a sync then has
        only bytes to write, no new length and, where little is written at a time, no new block. Until it is closed, and after a crash, zeros may stand behind what was written.
        """

    def write_new(self, path: Path, data: bytes, *, sync: bool = True) -> None:
        """Create `path` with `data`, synced if `sync`; FileExistsError if the name is taken. The name is not synced."""

    def replace(self, source: Path, target: Path) -> None:
        """Rename over `target` atomically; durable after `sync_directory`."""

    def rename_new(self, source: Path, target: Path) -> None:
        """Rename to a name that is free; FileExistsError if it is taken, and then nothing is done. Durable after `sync_directory`."""

    def truncate(self, path: Path, size: int) -> None:
        """Cut the file to `size` bytes and sync it."""

    def remove(self, path: Path) -> None:
        """Remove the name; durable after `sync_directory`; FileNotFoundError."""

    def remove_directory(self, path: Path) -> None:
        """Remove an empty folder; durable after `sync_directory` of its parent; OSError if it is not empty."""

    def sync_file(self, path: Path) -> None:
        """Make the file's bytes durable (fsync by name)."""

    def sync_directory(self, path: Path) -> None:
        """Make the names in the folder durable."""

    def free_bytes(self, path: Path) -> int:
        """How much more can be written to the file system that holds the folder `path`."""

    def lock(self, path: Path) -> DiskLock | None:
        """Take an exclusive lock on the file at `path` (created when absent), or None if another process holds it."""


def write_again(disk: Disk, path: Path, data: bytes) -> None:
    """Put `data` into another file under the name `path`, durable on return: for what a restart has found there and means to keep.

    To sync by name what is found would not do. A sync that fails is told once, and what it could not write reads well afterwards and
    counts as written: neither who finds it nor another sync can tell. A file of its own has all its bytes to write, and its name.

    Where there is no room for another file, the one that is there is cut to `data`, with which it begins, and synced: who starts on a
    full disk must be able to ship, and let go of what is shipped.

    A crash leaves one file or the other, and perhaps a part of a new one beside it, which the next call removes. Raises OSError.
    """
    new = path.with_name(f".{path.name}.new")
    if disk.exists(new):
        disk.remove(new)
    try:
        disk.write_new(new, data)
    except OSError as error:
        with suppress(OSError):
            disk.remove(new)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        disk.truncate(path, len(data))
    else:
        disk.replace(new, path)
    disk.sync_directory(path.parent)


_LITTLE_BYTES = 16_384
"""Who writes less than this, time after time, syncs often for what is written; see `_OsAppendFile._clear`."""

_ZEROS = bytes(262_144)


class _OsAppendFile:
    __slots__ = ("_cleared", "_fd", "_little", "_reserve_bytes", "_reserved", "_size")

    def __init__(self, path: Path, reserve_bytes: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._reserve_bytes = reserve_bytes
        self._reserved = self._size  # the file's length
        self._cleared = self._size  # zeros were written up to here
        self._little = True  # the last write was

    def write(self, data: bytes) -> None:
        end = self._size + len(data)
        if self._reserve_bytes and end > self._reserved:
            self._reserve(end + self._reserve_bytes)
        view, at = memoryview(data), self._size
        try:
            little = len(data) < _LITTLE_BYTES
            if little and self._little and end > self._cleared:
                self._clear(end)
            self._little = little
            while view:
                written = os.pwrite(self._fd, view, at)
                at += written
                view = view[written:]
        except OSError:
            self._reserved = self._cleared = self._size  # whoever cuts the torn tail off cuts the reserve off with it
            raise
        self._size = at

    def _reserve(self, length: int) -> None:
        try:
            os.posix_fallocate(self._fd, 0, length)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                self._reserve_bytes = 0  # this file system cannot
            return  # there may be room for the data alone, and its write says so if not
        self._reserved = length

    def _clear(self, start: int) -> None:
        """Write zeros ahead, into what is reserved.

        A reserved block that was never written is marked as such, and the sync that writes it first changes the mark: a transaction of
        the file system's journal, in every fourth or so of small syncs, which then take twice as long. After this, in one of some hundred.
        """
        length = min(self._reserved - start, len(_ZEROS))
        if length > 0:
            self._cleared = start + length
            with suppress(OSError):  # there may be room for the data alone, as above
                os.pwrite(self._fd, memoryview(_ZEROS)[:length], start)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def size(self) -> int:
        return self._size

    def close(self) -> None:
        if self._fd >= 0:
            if self._reserved > self._size:
                with suppress(OSError):  # zeros that stay take room, and nothing else
                    os.ftruncate(self._fd, self._size)
            os.close(self._fd)
            self._fd = -1


class _OsLock:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)  # closing the last descriptor of the open file drops the flock
            self._fd = -1


class OsDisk:
    """The real disk."""

    def make_directory(self, path: Path) -> None:
        """See `Disk.make_directory`."""
        if path.is_dir():
            return
        if path.parent != path:
            self.make_directory(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        self.sync_directory(path.parent)

    def list_directory(self, path: Path) -> list[str]:
        """See `Disk.list_directory`."""
        return sorted(os.listdir(path))

    def exists(self, path: Path) -> bool:
        """See `Disk.exists`."""
        return path.exists()

    def size(self, path: Path) -> int:
        """See `Disk.size`."""
        return path.stat().st_size

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        """See `Disk.read`."""
        with path.open("rb") as file:
            if offset:
                file.seek(offset)
            return file.read(length)

    def append_to(self, path: Path, *, reserve_bytes: int = 0) -> AppendFile:
        """See `Disk.append_to`."""
        return _OsAppendFile(path, reserve_bytes)

    def write_new(self, path: Path, data: bytes, *, sync: bool = True) -> None:
        """See `Disk.write_new`."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, source: Path, target: Path) -> None:
        """See `Disk.replace`."""
        source.replace(target)

    def rename_new(self, source: Path, target: Path) -> None:
        """See `Disk.rename_new`. A crash in the middle leaves both names; without hard links the look and the renaming are two steps."""
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
            source.replace(target)
        else:
            source.unlink()

    def truncate(self, path: Path, size: int) -> None:
        """See `Disk.truncate`."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, path: Path) -> None:
        """See `Disk.remove`."""
        path.unlink()

    def remove_directory(self, path: Path) -> None:
        """See `Disk.remove_directory`."""
        path.rmdir()

    def sync_file(self, path: Path) -> None:
        """See `Disk.sync_file`."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync_directory(self, path: Path) -> None:
        """See `Disk.sync_directory`."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: Path) -> int:
        """See `Disk.free_bytes`."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def lock(self, path: Path) -> DiskLock | None:
        """See `Disk.lock`: flock(2), which the kernel drops when the process dies, however it dies."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        return _OsLock(fd)
