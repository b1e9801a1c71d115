"""Which files there are, and their bytes: what the tail asks of the file system. Files are opened for reading alone, and never waited for."""

import fnmatch
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from collector.receive.tail.settings import TailSettings

__all__ = ["Found", "OpenFile", "found_files", "is_compressed", "look", "neighbours", "opened", "start_of_last_line"]

MAX_NEIGHBOURS = 4_096
"""How many names of a folder are looked at when a file is searched under another name."""

_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh")  # gzip, zstd, xz, bzip2


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A regular file as it was when it was looked at. `entry` is the place of the configuration's entry that names it."""

    path: str
    device: int
    inode: int
    size: int
    modified_ns: int
    entry: int = -1

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode


def look(path: str, entry: int = -1) -> Found | None:
    """The regular file at `path`, through symbolic links; None if there is none, or it cannot be seen."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a text in, many times a second
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Found(
        path=path,
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        entry=entry,
    )


def found_files(entries: Sequence[TailSettings]) -> dict[tuple[int, int], Found]:
    """The files that the entries name, each once, by device and inode; sorted by entry, then by path."""
    found: dict[tuple[int, int], Found] = {}
    for at, entry in enumerate(entries):
        for pattern in entry.paths:
            for path in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207 - absolute patterns
                if any(fnmatch.fnmatchcase(path, excluded) for excluded in entry.exclude):
                    continue
                one = look(path, at)
                if one is not None:
                    found.setdefault(one.key, one)
    return found


def neighbours(path: str) -> Iterator[Found]:
    """The regular files in the folder of `path`; none if it cannot be read."""
    folder = Path(path).parent
    with suppress(OSError):
        for at, name in enumerate(os.listdir(folder)):
            if at >= MAX_NEIGHBOURS:
                return
            one = look(str(folder / name))
            if one is not None:
                yield one


def is_compressed(beginning: bytes) -> bool:
    """Whether contents that begin so are gzip, zstd, xz or bzip2."""
    return beginning.startswith(_COMPRESSED)


class OpenFile:
    """A file held open: it can be read to its end whatever becomes of its name.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """

    __slots__ = ("_fd", "device", "inode")

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OSError(f"{path} is no regular file")
        self.device, self.inode = status.st_dev, status.st_ino

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode

    def size(self) -> int:
        """Its length in bytes just now."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """The bytes at `offset`: so many unless the file ends before. Raises OSError."""
        data = os.pread(self._fd, size, offset)
        while 0 < len(data) < size:
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def opened(file: Found) -> OpenFile | None:
    """The file that was found, open; None if it cannot be opened, or another stands there by now."""
    try:
        file_there = OpenFile(file.path)
    except OSError:
        return None
    if file_there.key != file.key:
        file_there.close()
        return None
    return file_there


def start_of_last_line(file: OpenFile, max_line_bytes: int) -> int:
    """Where the line begins that has no end yet; the file's end if it is longer than a line may be."""
    size = file.size()
    at = max(0, size - max_line_bytes)
    newline = file.read(at, size - at).rfind(b"\n")
    return at + newline + 1 if newline >= 0 else size if at else 0
