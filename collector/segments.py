"""A spool's segments: found again after a restart (what is whole is kept, what a crash tore is cut), and read back for batches.

A crash can tear only what was not yet synced: the end of the last segment. A frame says which sequences were durable when
it was written, so a bad frame with a later one behind it that calls it durable is no crash but damage.

A segment is made longer ahead of what is written (`Disk.append_to`), so a crash also leaves zeros behind the frames: they are nothing.
That they are not frames which became zeros is told by what follows: the next segment's name, a signed header, the log.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from collector.disk import UNREADABLE, Disk, write_again
from collector.errors import Overloaded, StateUnknown
from collector.frame import PREFIX_BYTES, Frame, FrameError, durable_behind, read_frame

__all__ = [
    "Cursor",
    "Damaged",
    "Recovered",
    "SourceIds",
    "find_sequence",
    "only_zeros",
    "read_frames",
    "read_kept",
    "recover_segments",
    "segment_path",
]

_SUFFIX = ".seg"
_READ_BYTES = 1024 * 1024
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

    def flush_soon(self) -> None:
        """The same, some time from now and without an answer: for a commit, whose senders wait."""

    def forget(self) -> None:
        """Forget all of them, durably."""


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
        torn_bytes: how many bytes were cut off the end, zeros behind them not counted: nobody had been told of them.
    """

    sizes: dict[int, int]
    next_sequence: int
    torn_bytes: int


def segment_path(directory: Path, segment: int) -> Path:
    """The file of the segment whose first event has this sequence."""
    return directory / f"{segment:020d}{_SUFFIX}"


def read_kept(disk: Disk, path: Path, offset: int = 0, length: int = -1) -> bytes:
    """Bytes of a file that the spool keeps, as `Disk.read`.

    Raises:
        Damaged: they cannot be read any more; says which and why.
        OSError: something else is wrong, and may pass.
    """
    try:
        return disk.read(path, offset, length)
    except OSError as error:
        if error.errno not in UNREADABLE and not isinstance(error, FileNotFoundError):
            raise  # no more files can be opened, say
        raise Damaged(f"{path.name} cannot be read from byte {offset} on: {error}") from error


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
        data = read_kept(disk, path)
        last = name == names[-1]
        sizes[name], expected = _whole_frames(path, data, expected, journal, last=last)
        torn_bytes += len(data[sizes[name] :].rstrip(b"\0"))
        if last:
            # a crash, or a sync that failed, may have left whole frames that are not on the disk; they are kept, so they are made durable
            # before anyone is told that a re-send of them is a duplicate
            write_again(disk, path, data[: sizes[name]])
        else:
            if sizes[name] < len(data):
                disk.truncate(path, sizes[name])
            # keeps memory small, and nothing else: where the disk is full, the ids stay in memory until `Spool.release`
            with suppress(Overloaded):
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
            if only_zeros(data, at):
                break
            if not last or durable_behind(data, at + 1) > expected:
                # what stood here was durable when a later frame was written, so no crash explains it
                raise Damaged(
                    f"segment {path.name}: damaged at byte {at}, from sequence {expected} on: {error}"
                ) from error
            break
        journal.add((frame.group_id, *frame.source_ids))
        expected += frame.count
        at = frame.end
    return at, expected


def only_zeros(data: bytes, offset: int) -> bool:
    """Whether nothing but zeros stands from `offset` on: room that was made and not written."""
    return data.count(0, offset) == len(data) - offset


def read_frames(
    directory: Path, cursor: Cursor, *, disk: Disk, sizes: Mapping[int, int], events: int, limit_bytes: int
) -> tuple[list[Frame], Cursor]:
    """Whole durable frames from `cursor` on: at least one if there is one, then up to about the limits.

    Returns them with the cursor behind them. `sizes`: the durable bytes of each segment, by its first sequence.

    Raises:
        Damaged: a frame that was durable does not read back.
    """
    found: list[Frame] = []
    count = size = 0
    while count < events and size < limit_bytes:
        end = sizes.get(cursor.segment, 0)
        if cursor.offset >= end:
            later = min((name for name in sizes if name > cursor.segment), default=None)
            if later is None:
                break
            cursor = Cursor(segment=later, offset=0)
            continue
        path = segment_path(directory, cursor.segment)
        data = _piece(path, cursor.offset, end, disk)
        at = 0
        while at < len(data) and count < events and size < limit_bytes:
            try:
                frame = read_frame(data, at)
            except FrameError as error:
                if at > 0:
                    break  # cut by the end of what was read: the next round begins here
                raise Damaged(f"segment {path.name}: damaged at byte {cursor.offset}: {error}") from error
            found.append(frame)
            count += frame.count
            size += frame.end - at
            at = frame.end
        cursor = Cursor(segment=cursor.segment, offset=cursor.offset + at)
    return found, cursor


def _piece(path: Path, offset: int, end: int, disk: Disk) -> bytes:
    """The bytes from `offset` on: a bounded piece, or one whole frame when that is longer."""
    data = read_kept(disk, path, offset, min(_READ_BYTES, end - offset))
    if len(data) >= PREFIX_BYTES:
        needed = PREFIX_BYTES + int.from_bytes(data[4:8], "little")
        if len(data) < needed <= end - offset:
            data = read_kept(disk, path, offset, needed)
    return data


def find_sequence(
    directory: Path, sequence: int, *, disk: Disk, sizes: Mapping[int, int], next_sequence: int
) -> Cursor:
    """The place of the frame that holds `sequence`, or of the next frame to come. Reads one segment.

    `sizes`: the durable bytes of each segment, by its first sequence; `next_sequence` is behind the last of them.

    Raises:
        Damaged: its segment is gone, or a frame before it does not read back.
    """
    segment = max((name for name in sizes if name <= sequence), default=None)
    if segment is None:
        if sequence != next_sequence:
            raise Damaged(f"spool {directory.name}: the segment of sequence {sequence} is gone")
        return Cursor(segment=min(sizes, default=next_sequence), offset=0)
    path, size = segment_path(directory, segment), sizes[segment]
    data = read_kept(disk, path, 0, size)
    at = 0
    while at < size:
        try:
            frame = read_frame(data, at)
        except FrameError as error:
            raise Damaged(f"segment {path.name}: damaged at byte {at}: {error}") from error
        if frame.first + frame.count > sequence:
            break
        at = frame.end
    return Cursor(segment=segment, offset=at)
