"""Finding a spool's segments again after a restart: what is whole is kept, what a crash tore is cut, damage is told.

A crash can tear only what was not yet synced: the end of the last segment. A frame says which sequences were durable when
it was written, so a bad frame with a later one behind it that calls it durable is no crash but damage.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from collector.disk import Disk
from collector.errors import StateUnknown
from collector.frame import FrameError, find_frame, read_frame

__all__ = ["Cursor", "Damaged", "Recovered", "SourceIds", "recover_segments", "segment_path"]

_SUFFIX = ".seg"
_NAME = re.compile(r"\d{20}\.seg", re.ASCII)


class Damaged(StateUnknown):
    """A spool does not read back: its folder is set aside for a person, and a new incarnation goes on."""


class SourceIds(Protocol):
    """What the spool needs of a journal (`collector.journal.Journal`)."""

    def known(self, source_ids: Iterable[bytes]) -> set[bytes]:
        """Those that are remembered."""

    def add(self, source_ids: Iterable[bytes]) -> None:
        """Remember, in memory at least."""

    def flush(self) -> None:
        """Make what is remembered durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A place between two frames: the segment's first sequence, and an offset in it."""

    segment: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What was found.

    Attributes:
        sizes: whole bytes of each segment, by the sequence of its first event.
        next_sequence: the sequence of the next event.
        torn_bytes: how many bytes were cut off the end: nobody had been told of them.
    """

    sizes: dict[int, int]
    next_sequence: int
    torn_bytes: int


def segment_path(directory: Path, segment: int) -> Path:
    """The file of the segment whose first event has this sequence."""
    return directory / f"{segment:020d}{_SUFFIX}"


def recover_segments(directory: Path, *, disk: Disk, journal: SourceIds) -> Recovered:
    """Read every segment, cut a torn end, give all source ids to the journal, and make what stays durable.

    Raises:
        Damaged: a segment is damaged or missing; says which, where, and from which sequence on.
    """
    names = _segments(directory, disk)
    sizes: dict[int, int] = {}
    expected = names[0] if names else 0
    torn_bytes = 0
    for name in names:
        path = segment_path(directory, name)
        if name != expected:
            raise Damaged(f"segment {path.name}: sequences {expected} to {name - 1} are missing before it")
        data = disk.read(path)
        last = name == names[-1]
        sizes[name], expected = _whole_frames(path, data, expected, journal, last=last)
        if last:
            if sizes[name] < len(data):
                torn_bytes = len(data) - sizes[name]
                disk.truncate(path, sizes[name])
            # a crash may have left whole frames that were never synced; they are kept, so they are made durable before
            # anyone is told that a re-send of them is a duplicate
            disk.sync_file(path)
            disk.sync_directory(directory)
        else:
            journal.flush()
    return Recovered(sizes=sizes, next_sequence=expected, torn_bytes=torn_bytes)


def _segments(directory: Path, disk: Disk) -> list[int]:
    files = [name for name in disk.list_directory(directory) if name.endswith(_SUFFIX)]
    for name in files:
        if not _NAME.fullmatch(name):
            raise Damaged(f"{name} in the spool {directory.name} is no segment's name")
    return sorted(int(name.removesuffix(_SUFFIX)) for name in files)


def _whole_frames(path: Path, data: bytes, expected: int, journal: SourceIds, *, last: bool) -> tuple[int, int]:
    """The bytes that hold whole frames in sequence, and the sequence that follows them."""
    at = 0
    while at < len(data):
        try:
            frame = read_frame(data, at)
            if frame.first != expected:
                raise FrameError(f"begins at sequence {frame.first}, expected {expected}")
        except FrameError as error:
            later = find_frame(data, at + 1)
            if not last or (later is not None and later.durable > expected):
                # what stood here was durable when a later frame was written, so no crash explains it
                raise Damaged(
                    f"segment {path.name}: damaged at byte {at}, from sequence {expected} on: {error}"
                ) from error
            break
        journal.add((frame.group_id, *frame.source_ids))
        expected += frame.count
        at = frame.end
    return at, expected
