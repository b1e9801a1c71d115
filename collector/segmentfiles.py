"""The segments of one stream as files: appended to by one at a time, read and removed by others meanwhile.

A new segment is opened only when the one before is synced, so a torn frame can stand at the end of the last one alone. What a crash means
is said at each line; what is found after one is `collector.segments`'.
"""

import itertools
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from collector.disk import AppendFile, Disk
from collector.errors import Overloaded, StateUnknown
from collector.frame import Frame
from collector.segments import Cursor, SourceIds, find_sequence, read_frames, recover_segments, segment_path
from collector.spoollimits import SpoolLimits

__all__ = ["SegmentFiles"]

_SYNC_WEIGHT = 0.2  # of the last sync in the moving average: one that stalls ends quick commits for a dozen others


class SegmentFiles:
    """Who appends sees to it that nobody else does (`collector.spool`).

    Args:
        directory: of the segments; made if there is none.
        disk: the seam to the file system.
        journal: is given the source ids that are found, and flushed when a segment is closed.
        limits: bounds; of the first segment's reserve.
        monotonic: seconds that never go back.

    Attributes:
        next_sequence: of the next event: all below it are durable.
        size_bytes: durable bytes of all segments.
        sync_seconds: a moving average of what a sync takes; infinite while that is not known.
        torn_bytes: what was cut off on opening.
        failed: why nothing more is appended, until the folder is opened anew.

    Raises:
        Damaged: on opening, a segment is damaged (not merely torn at its end); says which, where, and from which sequence on.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk,
        journal: SourceIds,
        limits: SpoolLimits,
        monotonic: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._journal = journal
        self._monotonic = monotonic
        self._lock = threading.Lock()  # of the sizes
        self._file: AppendFile | None = None
        self.sync_seconds = math.inf
        self.failed: StateUnknown | None = None
        disk.make_directory(directory)
        found = recover_segments(directory, disk=disk, journal=journal)
        self._sizes = found.sizes  # durable bytes of each, by its first sequence
        self.size_bytes = sum(found.sizes.values())
        self.next_sequence = found.next_sequence
        self.torn_bytes = found.torn_bytes
        if self._sizes:
            self._file = self._open(max(self._sizes), limits)

    # -- appending, one at a time

    @property
    def is_open(self) -> bool:
        """Whether there is a segment that the next frame may go into."""
        return self._file is not None

    def append(self, data: bytes, *, following: int, limits: SpoolLimits) -> int:
        """Append whole frames and sync; `following` is the sequence behind them. Returns the segment that they are in.

        Raises:
            Overloaded: the disk does not take them; nothing of them is left.
            StateUnknown: what is on the disk now is unknown until it is read again; nothing more is appended.
        """
        name = max(self._sizes, default=-1)
        if self._file is None or self._sizes[name] >= limits.segment_bytes:
            name = self.roll(limits)
        file = self._file
        assert file is not None
        size = self._sizes[name]
        try:
            file.write(data)
        except OSError as error:
            # part of it may be in the file: cut it off, so that the next frame follows the last durable one
            try:
                self._disk.truncate(self._path(name), size)
            except OSError as second:
                raise self.abandon(f"a torn write could not be cut off: {second}") from second
            raise Overloaded(f"the disk takes no more: {error}", retry_after_seconds=5.0) from error
        began = self._monotonic()
        try:
            file.sync()
        except OSError as error:
            # after a failed fsync the kernel may have dropped the pages, and they read as if they were on the disk: cut off, so that
            # nobody finds them. If that fails, or after a crash at this line, recovery writes what it finds again
            with suppress(OSError):
                self._disk.truncate(self._path(name), size)
            raise self.abandon(f"fsync failed: {error}") from error
        taken_seconds = self._monotonic() - began
        if self.sync_seconds == math.inf:
            self.sync_seconds = taken_seconds
        self.sync_seconds += _SYNC_WEIGHT * (taken_seconds - self.sync_seconds)
        self.next_sequence = (
            following  # before the size: whoever reads the frames must find the sequences that they hold
        )
        with self._lock:
            self._sizes[name] = size + len(data)
            self.size_bytes += len(data)
        return name

    def roll(self, limits: SpoolLimits) -> int:
        """Open the segment that the next frame begins. The one before is synced already: every append syncs. Raises as `append`."""
        name = self.next_sequence
        if self._file is not None and name in self._sizes:
            return name  # nothing but frames without events so far: it goes on under its name
        self._journal.flush_soon()  # keeps memory small, and nothing else: its ids are flushed before a segment is removed
        if self._file is not None:
            self._file.close()
            self._file = None
        try:
            file = self._open(name, limits)
        except OSError as error:
            raise Overloaded(f"no new segment can be made: {error}", retry_after_seconds=5.0) from error
        try:
            self._disk.sync_directory(self._directory)
        except OSError as error:
            file.close()
            raise self.abandon(f"fsync of the folder failed: {error}") from error
        self._file = file
        with self._lock:
            self._sizes.setdefault(name, 0)
        return name

    def abandon(self, reason: str) -> StateUnknown:
        """Append no more; returns the error that who tries is told."""
        self.failed = StateUnknown(f"spool {self._directory.name}: {reason}; reopen it")
        return self.failed

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # -- reading and removing, by whoever ships

    @property
    def start(self) -> Cursor:
        """The place of the oldest frame still kept."""
        with self._lock:
            return Cursor(segment=min(self._sizes, default=self.next_sequence), offset=0)

    def frames(self, cursor: Cursor, *, events: int, limit_bytes: int) -> tuple[list[Frame], Cursor]:
        """Whole durable frames from `cursor` on: at least one if there is one, then up to about the limits.

        Returns them with the cursor behind them. The bytes come from the disk, so what is shipped is what was kept.

        Raises:
            Damaged: a frame that was durable does not read back.
        """
        with self._lock:
            sizes = dict(self._sizes)
        return read_frames(
            self._directory, cursor, disk=self._disk, sizes=sizes, events=events, limit_bytes=limit_bytes
        )

    def seek(self, sequence: int) -> Cursor:
        """The place of the frame that holds `sequence` (or of the next frame to come). Reads one segment.

        Raises:
            Damaged: its segment is gone or damaged.
        """
        with self._lock:
            sizes, following = dict(self._sizes), self.next_sequence
        return find_sequence(self._directory, sequence, disk=self._disk, sizes=sizes, next_sequence=following)

    def below(self, sequence: int) -> list[int]:
        """The segments all of whose events are below `sequence`, oldest first; never the last."""
        with self._lock:
            names = sorted(self._sizes)
        return [name for name, following in itertools.pairwise(names) if following <= sequence]

    def remove(self, segment: int) -> None:
        """Remove one, durably. To be called oldest first: a crash must not bring an older one back in front of a hole."""
        with suppress(FileNotFoundError):  # removed before, when the folder's sync then failed
            self._disk.remove(self._path(segment))
        self._disk.sync_directory(self._directory)
        with self._lock:
            self.size_bytes -= self._sizes.pop(segment)

    def _open(self, segment: int, limits: SpoolLimits) -> AppendFile:
        return self._disk.append_to(self._path(segment), reserve_bytes=limits.reserve_bytes)

    def _path(self, segment: int) -> Path:
        return segment_path(self._directory, segment)
