"""Dead letters: what was refused before it got a number, with its reason; redacted, bounded, durable on return.

Those that come together share one write and one sync.

One JSON object a line in ``dead-NNNNNN.jsonl``: time, reason, where, label, origin, and the redacted input (text if it is
UTF-8, else base64). When the bound is reached the sender hears it (`Overloaded`): nothing is dropped silently. A person
looks (`tally status`), mends the sender, and removes the files.
"""

import base64
import contextlib
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from collector.disk import AppendFile, Disk
from collector.errors import Overloaded
from collector.event import Origin, format_time
from collector.protect import ProtectError, Protector
from collector.rejection import Rejection

__all__ = ["DeadLetter", "DeadLetters", "read_dead_letters"]

_PREFIX, _SUFFIX = "dead-", ".jsonl"
_NAME = re.compile(r"dead-\d{6,}\.jsonl", re.ASCII)
MAX_KEPT_BYTES = 64 * 1024
"""How much of one refused input is kept; what is longer is cut and says so."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One refused input.

    Attributes:
        time: when it was refused, RFC 3339.
        size_bytes: length of the input as it came.
        text, base64: what is kept of it, redacted; neither when protection refused it.
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
        disk.make_directory(directory)
        names = [name for name in disk.list_directory(directory) if _NAME.fullmatch(name)]
        self._number = max((int(name.removeprefix(_PREFIX).removesuffix(_SUFFIX)) for name in names), default=0)
        self._size = sum(disk.size(directory / name) for name in names)
        self._ids: set[bytes] = set()
        for name in names:
            self._recover(directory / name)

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
            if self._size + len(lines) > self._total_bytes:
                raise Overloaded("the dead letters are full: see `tally status`", retry_after_seconds=30.0)
            try:
                file = self._writable()
                file.write(bytes(lines))
                file.sync()
            except OSError as failure:
                if self._file is not None:  # a torn line is cut when the file is read again
                    self._file.close()
                    self._file = None
                    self._number += 1
                raise Overloaded(f"a dead letter cannot be written: {failure}", retry_after_seconds=5.0) from failure
            self._size += len(lines)
            self._ids |= ids
        return kept

    def close(self) -> None:
        """Close the file being written."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _letter(self, rejection: Rejection, protector: Protector) -> DeadLetter:
        raw, error, origin = rejection.raw, rejection.error, rejection.origin
        text = encoded = ""
        reason, where = error.reason, ""
        try:
            reason, where = _text(protector, reason), _text(protector, error.where)
            if origin is not None:
                origin = msgspec.structs.replace(
                    origin, tag=_text(protector, origin.tag), file=_text(protector, origin.file)
                )
            kept = protector.raw(raw[: 2 * MAX_KEPT_BYTES])[:MAX_KEPT_BYTES]
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
            cut=len(raw) > MAX_KEPT_BYTES,
            text=text,
            base64=encoded,
        )

    def _writable(self) -> AppendFile:
        if self._file is not None and self._file.size() < self._file_bytes:
            return self._file
        if self._file is not None:
            self._file.close()
            self._number += 1
        self._file = self._disk.append_to(self._directory / f"{_PREFIX}{self._number:06d}{_SUFFIX}")
        self._disk.sync_directory(self._directory)
        return self._file

    def _recover(self, path: Path) -> None:
        data = self._disk.read(path)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._disk.truncate(path, whole)  # torn by a crash: nobody had been told
            self._size -= len(data) - whole
        for line in data[:whole].splitlines():
            try:
                letter = msgspec.json.decode(line, type=DeadLetter)
            except msgspec.DecodeError:
                continue  # a page that never reached the disk, or a person's edit: the rest still counts
            with contextlib.suppress(ValueError):  # a person's edit, as above
                if letter.source_id:
                    self._ids.add(bytes.fromhex(letter.source_id))


def _text(protector: Protector, text: str) -> str:
    return protector.text(text).encode("utf-8", "replace").decode()  # a lone surrogate cannot be written


def read_dead_letters(directory: Path, *, disk: Disk) -> list[DeadLetter]:
    """All letters, oldest first; lines that are none are passed over. An absent folder has none."""
    if not disk.exists(directory):
        return []
    letters: list[DeadLetter] = []
    for name in disk.list_directory(directory):
        if not _NAME.fullmatch(name):
            continue
        for line in disk.read(directory / name).splitlines():
            try:
                letters.append(msgspec.json.decode(line, type=DeadLetter))
            except msgspec.DecodeError:
                continue
    return letters
