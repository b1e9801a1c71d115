"""A disk in memory that forgets, tears or reorders what was not synced: `collector.disk.Disk` for crash tables.

`FaultyDisk(crash_at=n)` raises `Crashed` at its n-th change, before making it or after (`after=True`): the process dies there.
`after_crash(fate)` is the disk that the next process finds:

    lost        nothing that was not synced is there
    kept        everything is there, synced or not
    torn        of each unsynced write's bytes the first half is there
    reordered   of each unsynced stretch the second half is there, zeros before it

A sync that fails does so as on Linux: the kernel tells of it once and counts as written what it could not write. The next sync
of the same bytes or names succeeds and makes nothing durable, and they are read as if all were well, until the power is cut: then a hole
is there, of zeros if something behind it was synced.

What was reserved (`append_to(reserve_bytes=…)`) reads as zeros behind the data, as it does on a file system, and after a crash too.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Crashed(BaseException):
    """The process died. Not an Exception: no handler of the code under test may live on."""


class Fate(Enum):
    """What became of the bytes and names that were not synced."""

    LOST = "lost"
    KEPT = "kept"
    TORN = "torn"
    REORDERED = "reordered"


@dataclass(eq=False)
class _File:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    length: int = 0  # with what is reserved, if that is more than the data
    synced_length: int = 0
    hole: tuple[int, int] | None = None  # from where to where a failed sync left bytes out

    def whole(self) -> bytes:
        return bytes(self.data).ljust(self.length, b"\0")

    def sync(self) -> None:
        if self.hole is None or len(self.data) > self.hole[1]:
            self.synced, self.synced_length = self.written(), self.length

    def written(self) -> bytes:
        start, end = self.hole or (0, 0)
        return bytes(self.data[:start]) + bytes(end - start) + bytes(self.data[end:])

    def sync_failed(self) -> None:
        start = self.hole[0] if self.hole else len(self.synced)
        self.hole = (start, len(self.data)) if start < len(self.data) else None

    def cut(self, size: int) -> None:
        del self.data[size:]
        self.length = 0
        if self.hole is not None:
            start, end = self.hole
            self.hole = (start, min(end, size)) if start < size else None

    def after(self, fate: Fate) -> _File:
        written = self.written()
        kept, tail = self.synced, written[len(self.synced) :]
        if fate is Fate.KEPT:
            kept = written
        elif fate is Fate.TORN:
            kept += tail[: (len(tail) + 1) // 2]
        elif fate is Fate.REORDERED and tail:
            half = len(tail) // 2
            kept += bytes(half) + tail[half:]
        kept = kept.ljust(self.synced_length if fate is Fate.LOST else self.length, b"\0")
        return _File(bytearray(kept), kept)


@dataclass(eq=False)
class _Folder:
    names: dict[str, _File | _Folder] = field(default_factory=dict)
    synced: dict[str, _File | _Folder] = field(default_factory=dict)
    unwritten: dict[str, _File | _Folder] | None = None  # the names that a failed sync left out

    def after(self, fate: Fate) -> _Folder:
        names = self.synced if fate is Fate.LOST else self.names
        copied = {name: node.after(fate) for name, node in names.items()}
        return _Folder(dict(copied), dict(copied))


class _Append:
    def __init__(self, disk: FaultyDisk, file: _File, reserve_bytes: int) -> None:
        self._disk, self._file, self._reserve_bytes = disk, file, reserve_bytes

    def write(self, data: bytes) -> None:
        end = len(self._file.data) + len(data)
        if self._reserve_bytes and end > self._file.length and self._disk.room_bytes is None:
            with self._disk.change("reserve"):
                self._file.length = end + self._reserve_bytes
        with self._disk.change("write"):
            room = self._disk.room_bytes
            if room is not None and len(data) > room:
                self._file.data += data[:room]
                raise OSError(errno.ENOSPC, "No space left on device")
            self._file.data += data

    def sync(self) -> None:
        self._disk.sync_bytes("sync", self._file)

    def size(self) -> int:
        return len(self._file.data)

    def close(self) -> None:
        self._file.length = 0  # not a place to crash at: the bytes are the same before and after


class _Change:
    def __init__(self, disk: FaultyDisk, name: str) -> None:
        self._disk, self._name = disk, name

    def __enter__(self) -> None:
        disk = self._disk
        disk.changes.append(self._name)
        if self._name in disk.failing:
            raise disk.failing[self._name]
        if disk.failing_once is not None and len(disk.changes) == disk.failing_once[0]:
            raise disk.failing_once[1]
        if disk.broken is not None and len(disk.changes) >= disk.broken[0]:
            raise disk.broken[1]
        if len(disk.changes) > (disk.crash_at or len(disk.changes)):
            raise Crashed("the process is dead already")
        if len(disk.changes) == disk.crash_at and not disk.after:
            raise Crashed(self._name)

    def __exit__(self, kind: object, *_: object) -> None:
        disk = self._disk
        if kind is None and len(disk.changes) == disk.crash_at and disk.after:
            raise Crashed(f"after {self._name}")


class _Lock:
    def __init__(self, held: set[Path], path: Path) -> None:
        self._held, self._path = held, path

    def release(self) -> None:
        self._held.discard(self._path)


class FaultyDisk:
    """See the module.

    `changes` names every change made; `broken = (n, error)` makes every change from the n-th on fail, `failing` every change of
    a name, `failing_once = (n, error)` the n-th alone; files in `unreadable` are on a bad sector: reading them fails; `room_bytes` is the most that one more write takes: a longer one writes so much and fails with ENOSPC; `free` is what it
    says that there is left.
    """

    def __init__(self, *, crash_at: int | None = None, after: bool = False, root: _Folder | None = None) -> None:
        self.crash_at = crash_at
        self.after = after
        self.changes: list[str] = []
        self.broken: tuple[int, OSError] | None = None
        self.failing: dict[str, OSError] = {}
        self.failing_once: tuple[int, OSError] | None = None
        self.unreadable: set[Path] = set()
        self.room_bytes: int | None = None
        self.free = 2**40
        self._root = root or _Folder()
        self._locks: set[Path] = set()

    def after_crash(self, fate: Fate, *, crash_at: int | None = None, after: bool = False) -> FaultyDisk:
        """The disk that the next process finds; it may crash again."""
        return FaultyDisk(crash_at=crash_at, after=after, root=self._root.after(fate))

    def change(self, name: str) -> _Change:
        """A change of the disk: a place to crash at."""
        return _Change(self, name)

    def sync_bytes(self, name: str, file: _File) -> None:
        """Sync a file's bytes; a change of this name."""
        try:
            with self.change(name):
                file.sync()
        except OSError:
            file.sync_failed()
            raise

    def flip(self, path: Path, offset: int, bit: int = 0) -> None:
        """Change one bit of a synced file, as a tamperer or a bad sector does."""
        file = self._file(path)
        file.data[offset] ^= 1 << bit
        file.sync()

    def files(self, path: Path) -> list[Path]:
        """Every file below `path`."""
        folder = self._folder(path)
        found: list[Path] = []
        for name, node in sorted(folder.names.items()):
            found += self.files(path / name) if isinstance(node, _Folder) else [path / name]
        return found

    def _node(self, path: Path) -> _File | _Folder:
        node: _File | _Folder = self._root
        for part in path.parts:
            if not isinstance(node, _Folder) or part not in node.names:
                raise FileNotFoundError(str(path))
            node = node.names[part]
        return node

    def _folder(self, path: Path) -> _Folder:
        node = self._node(path)
        if not isinstance(node, _Folder):
            raise NotADirectoryError(str(path))
        return node

    def _file(self, path: Path) -> _File:
        node = self._node(path)
        if not isinstance(node, _File):
            raise IsADirectoryError(str(path))
        return node

    def make_directory(self, path: Path) -> None:
        folder = self._root
        for part in path.parts:
            if part not in folder.names:
                with self.change("make_directory"):
                    made = _Folder()
                    folder.names[part] = folder.synced[part] = made
            folder = self._node_in(folder, part)

    @staticmethod
    def _node_in(folder: _Folder, part: str) -> _Folder:
        node = folder.names[part]
        if not isinstance(node, _Folder):
            raise NotADirectoryError(part)
        return node

    def list_directory(self, path: Path) -> list[str]:
        return sorted(self._folder(path).names)

    def exists(self, path: Path) -> bool:
        try:
            self._node(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def size(self, path: Path) -> int:
        return len(self._file(path).whole())

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        data = self._file(path).whole()
        if path in self.unreadable:
            raise OSError(errno.EIO, "Input/output error")
        return data[offset:] if length < 0 else data[offset : offset + length]

    def append_to(self, path: Path, *, reserve_bytes: int = 0) -> _Append:
        folder = self._folder(path.parent)
        if path.name not in folder.names:
            with self.change("create"):
                folder.names[path.name] = _File()
        return _Append(self, self._file(path), reserve_bytes)

    def write_new(self, path: Path, data: bytes, *, sync: bool = True) -> None:
        folder = self._folder(path.parent)
        if path.name in folder.names:
            raise FileExistsError(str(path))
        file = _File()
        with self.change("create"):
            folder.names[path.name] = file
        with self.change("write"):
            file.data += data
        if sync:
            self.sync_bytes("sync", file)

    def replace(self, source: Path, target: Path) -> None:
        node = self._node(source)
        with self.change("rename"):
            del self._folder(source.parent).names[source.name]
            self._folder(target.parent).names[target.name] = node

    def rename_new(self, source: Path, target: Path) -> None:
        if self.exists(target):
            raise FileExistsError(str(target))
        self.replace(source, target)

    def truncate(self, path: Path, size: int) -> None:
        file = self._file(path)
        with self.change("truncate"):
            file.cut(size)
            file.sync()

    def remove(self, path: Path) -> None:
        self._file(path)
        with self.change("remove"):
            del self._folder(path.parent).names[path.name]

    def remove_directory(self, path: Path) -> None:
        if self._folder(path).names:
            raise OSError(39, "not empty")
        with self.change("remove_directory"):
            del self._folder(path.parent).names[path.name]

    def sync_file(self, path: Path) -> None:
        self.sync_bytes("sync_file", self._file(path))

    def sync_directory(self, path: Path) -> None:
        folder = self._folder(path)
        try:
            with self.change("sync_directory"):
                if folder.names != folder.unwritten:
                    folder.synced = dict(folder.names)
        except OSError:
            folder.unwritten = dict(folder.names)
            raise

    def free_bytes(self, path: Path) -> int:  # noqa: ARG002 - there is one disk
        return self.free

    def lock(self, path: Path) -> _Lock | None:
        if path in self._locks:
            return None
        self._locks.add(path)
        return _Lock(self._locks, path)
