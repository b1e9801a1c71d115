"""Dead letters: what was refused before it got a number, with its reason; redacted, bounded, durable on return.

Those that come together share one write and one sync.

One JSON object a line in ``dead-NNNNNN.jsonl``: time, reason, where, label, origin, and the redacted input (text if it is
UTF-8, else base64), with what is compressed in it inflated, since nobody can mask what they cannot read. When the bound is reached the sender hears it (`Overloaded`): nothing is dropped silently. A person
looks (`tally status`), mends the sender, and removes the files; that is seen with the next input that is refused.
"""

import base64
import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from collector.disk import UNREADABLE, AppendFile, Disk, write_again
from collector.errors import Overloaded
from collector.event import Origin, format_time
from collector.protect import ProtectError, Protector
from collector.protect.inflated import inflated
from collector.rejection import Rejection

__all__ = ["DeadLetter", "DeadLetters", "read_dead_letters"]

_log = logging.getLogger(__name__)

_PREFIX, _SUFFIX = "dead-", ".jsonl"
_NAME = re.compile(r"dead-\d{6,}\.jsonl", re.ASCII)
MAX_KEPT_BYTES = 64 * 1024
"""How much of one refused input is kept; what is longer is cut and says so."""
_UNSURE_BYTES = 1024
"""At the end of an input that was cut before it was masked there may be the front of a card number, at most so long."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One refused input.

    Attributes:
        time: when it was refused, RFC 3339.
        size_bytes: length of the input as it came.
        text, base64: what is kept of it, inflated and redacted; neither when protection refused it.
    """

    time: str
    reason: str
    label: str
    where: str = ""
    origin: Origin | None = None
    source_id: str = ""
    size_bytes: int = 0
    cut: bool = False
    text: str = ""
    base64: str = ""


class DeadLetters:
    """The dead letters of one collector. Thread-safe.

    Args:
        directory: where the files lie.
        protector: masks what is kept.
        total_bytes: bound of all files together; `file_bytes`: when a file is full, the next begins.
        clock: Unix time in nanoseconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk,
        protector: Protector,
        clock: Callable[[], int],
        total_bytes: int = 256 * 1024**2,
        file_bytes: int = 16 * 1024**2,
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._protector = protector
        self._clock = clock
        self._total_bytes = total_bytes
        self._file_bytes = file_bytes
        self._lock = threading.Lock()
        self._file: AppendFile | None = None
        self._number = 0
        self._torn = False  # behind what is durable of the last file something else may stand
        self._sizes: dict[str, int] = {}  # of the files, by name
        self._ids: dict[bytes, str] = {}  # that have a letter, and the file in which it stands
        self._look(starting=True)

    def limit(self, total_bytes: int) -> None:
        """Another bound of all files together."""
        self._total_bytes = total_bytes

    def add(self, rejections: Sequence[Rejection], *, protector: Protector | None = None) -> Sequence[Rejection]:
        """Keep refused inputs, all or none of them; durable on return.

        Args:
            rejections: in memory as letters as well while they are written.
            protector: masks them in place of the one that the dead letters were opened with.

        Returns:
            Those that became letters: all but those whose source id has a letter already.

        Raises:
            Overloaded: the bound is reached, or the disk takes no more.
        """
        letters = [msgspec.json.encode(self._letter(one, protector or self._protector)) for one in rejections]
        with self._lock:
            try:
                self._cut()
                self._look()
            except OSError as failure:
                raise Overloaded(f"the dead letters are out of reach: {failure}", retry_after_seconds=5.0) from failure
            kept: list[Rejection] = []
            ids: set[bytes] = set()
            lines = bytearray()
            for one, letter in zip(rejections, letters, strict=True):
                if one.source_id:
                    if one.source_id in self._ids or one.source_id in ids:
                        continue
                    ids.add(one.source_id)
                lines += letter + b"\n"
                kept.append(one)
            if not kept:
                return kept
            if sum(self._sizes.values()) + len(lines) > self._total_bytes:
                raise Overloaded("the dead letters are full: see `tally status`", retry_after_seconds=30.0)
            try:
                file = self._writable()
                file.write(bytes(lines))
                file.sync()
                name = _name(self._number)
                if self._disk.size(self._directory / name) != file.size():
                    raise OSError("another file stands in the place of the one that was open")
            except OSError as failure:
                self._torn = True
                with contextlib.suppress(OSError):  # else before the next
                    self._cut()
                raise Overloaded(f"a dead letter cannot be written: {failure}", retry_after_seconds=5.0) from failure
            self._sizes[name] = self._sizes.get(name, 0) + len(lines)
            self._ids.update(dict.fromkeys(ids, name))
        return kept

    def masked(self, text: str) -> str:
        """The text as a letter may have it; empty where that cannot be told."""
        try:
            return _text(self._protector, text)
        except ProtectError:
            return ""

    def close(self) -> None:
        """Close the file being written."""
        with self._lock:
            self._close()

    def _letter(self, rejection: Rejection, protector: Protector) -> DeadLetter:
        raw, error, origin = rejection.raw, rejection.error, rejection.origin
        text = encoded = ""
        reason, where, read = error.reason, "", b""
        try:
            reason, where = _text(protector, reason), _text(protector, error.where)
            if origin is not None:
                origin = msgspec.structs.replace(
                    origin, tag=_text(protector, origin.tag), file=_text(protector, origin.file)
                )
            read = inflated(raw[: 2 * MAX_KEPT_BYTES], 2 * MAX_KEPT_BYTES)
            kept = protector.raw(read[: 2 * MAX_KEPT_BYTES])
            if max(len(raw), len(read)) > 2 * MAX_KEPT_BYTES:
                kept = kept[:-_UNSURE_BYTES]
            kept = kept[:MAX_KEPT_BYTES]
            try:
                text = kept.decode()
            except UnicodeDecodeError:
                encoded = base64.b64encode(kept).decode("ascii")
        except ProtectError as refusal:
            # fails closed: the reason is kept, the content is not
            origin = None
            reason = f"{error.label}; its content is not kept, because it could not be checked: {refusal}"
        return DeadLetter(
            time=format_time(self._clock()),
            reason=reason,
            label=error.label,
            where=where,
            origin=origin,
            source_id=rejection.source_id.hex(),
            size_bytes=len(raw),
            cut=max(len(raw), len(read)) > MAX_KEPT_BYTES,
            text=text,
            base64=encoded,
        )

    def _writable(self) -> AppendFile:
        if self._file is not None and self._file.size() < self._file_bytes:
            return self._file
        if self._file is not None:
            self._close()
            self._number += 1
        self._file = self._disk.append_to(self._directory / _name(self._number))
        self._disk.sync_directory(self._directory)
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _cut(self) -> None:
        """Take back what a failed write or sync left: after a failed sync it can be read, and is on no disk."""
        if not self._torn:
            return
        self._close()
        name = _name(self._number)
        path, durable_bytes = self._directory / name, self._sizes.get(name, 0)
        if self._disk.exists(path):
            if not durable_bytes:
                self._disk.remove(path)  # so that a full disk does not get a file for each trial
            elif self._disk.size(path) > durable_bytes:
                self._disk.truncate(path, durable_bytes)
        self._torn = False

    def _look(self, *, starting: bool = False) -> None:
        """Know the folder as it is: who has read the letters takes files out of it, or lines out of a file, while we run.

        `starting`: nobody writes, so a line without an end was torn by a crash.
        """
        self._disk.make_directory(self._directory)
        names = [name for name in self._disk.list_directory(self._directory) if _NAME.fullmatch(name)]
        sizes = {name: self._disk.size(self._directory / name) for name in names}
        if starting:
            self._number = max(map(_number, names), default=0)
        elif sizes == self._sizes:
            return
        self._disk.sync_directory(self._directory)  # as in `_read`
        stale = {name for name, size in self._sizes.items() if sizes.get(name) != size}
        if stale:
            self._ids = {one: name for one, name in self._ids.items() if name not in stale}
            if _name(self._number) in stale:
                self._close()  # what is written to it now has no name, or a hole or a line without an end before it
                self._number += 1
        for name in sizes.keys() - (self._sizes.keys() - stale):
            self._sizes[name] = self._read(name, starting=starting)
        for name in stale - sizes.keys():
            del self._sizes[name]

    def _read(self, name: str, *, starting: bool) -> int:
        """Know the ids in a file; its size in bytes."""
        path = self._directory / name
        data = _data(self._disk, path)
        if data is None:  # left for a person, as it is: letters are of more use than its ids
            if name == _name(self._number):
                self._close()
                self._number += 1
            return self._disk.size(path)
        whole = data.rfind(b"\n") + 1
        if starting and name == _name(self._number):
            # a process that died before its own sync, or after it failed: who sends again hears that its letter is there
            data = data[:whole]  # behind it is what a crash has torn: nobody had been told
            write_again(self._disk, path, data)
        elif starting and whole < len(data):
            self._disk.truncate(path, whole)
            data = data[:whole]
        else:
            self._disk.sync_file(path)  # a person's edit
        for letter in _letters_of(data[:whole]):
            with contextlib.suppress(ValueError):  # a person's edit
                if letter.source_id:
                    self._ids[bytes.fromhex(letter.source_id)] = name
        return len(data)


def _data(disk: Disk, path: Path) -> bytes | None:
    """All of a file; None, and a line in the log, where it is on a sector that cannot be read."""
    try:
        return disk.read(path)
    except OSError as failure:
        if failure.errno not in UNREADABLE:
            raise
        _log.error("dead letters: %s cannot be read, and is passed over: %s", path, failure)
        return None


def _letters_of(data: bytes) -> Iterator[DeadLetter]:
    """Without the lines that are none: a page that never reached the disk, or a person's edit. The others still count."""
    for line in data.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield msgspec.json.decode(line, type=DeadLetter)


def _name(number: int) -> str:
    return f"{_PREFIX}{number:06d}{_SUFFIX}"


def _number(name: str) -> int:
    return int(name.removeprefix(_PREFIX).removesuffix(_SUFFIX))


def _text(protector: Protector, text: str) -> str:
    return protector.text(text).encode("utf-8", "replace").decode()  # a lone surrogate cannot be written


def read_dead_letters(directory: Path, *, disk: Disk) -> list[DeadLetter]:
    """All letters, oldest first; lines that are none, and files that cannot be read, are passed over. An absent folder has none."""
    if not disk.exists(directory):
        return []
    letters: list[DeadLetter] = []
    for name in disk.list_directory(directory):
        if not _NAME.fullmatch(name):
            continue
        with contextlib.suppress(FileNotFoundError):  # a person has taken it meanwhile
            letters += _letters_of(_data(disk, directory / name) or b"")
    return letters
