"""The spool: the write-ahead log of one stream, and the place where "acknowledged" becomes true.

Groups of events are queued by `append`; one thread writes all that is queued, syncs once, and only then calls each group's
`done`. The sender's acknowledgement is sent by that call, so it can never precede the fsync. While the disk syncs faster than a
thread is woken, who queued a little may commit it itself (`commit_quickly`); the two never commit at the same time. What need not
precede the answers, which is all that only memory knows of a commit, comes after them (`finish`).

What a crash means, line by line of `commit_pending`: before the sync returns nobody was told, and recovery keeps what is
whole and cuts what is torn; after it, everything told is on disk. The files are `collector.segmentfiles`'. What does not read
back is damage: `StateUnknown`, and the sidecar goes on under a new incarnation.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.admission import admit
from collector.disk import Disk
from collector.diskroom import DiskRoom
from collector.errors import Overloaded, StateUnknown
from collector.fairqueue import FairQueue, Queued
from collector.frame import Frame
from collector.group import Deliver, Done, Group, Spooled, check_fits, checked_size, deliver_here
from collector.refusals import Refusals
from collector.segmentfiles import SegmentFiles
from collector.segments import Cursor, SourceIds
from collector.sender import TAKEN_OVER
from collector.shares import Shares
from collector.spoollimits import SpoolLimits

__all__ = ["Cursor", "Deliver", "Done", "Group", "Spool", "SpoolLimits", "Spooled", "deliver_here"]

_log = logging.getLogger(__name__)

_QUICK_SECONDS = 0.001
"""What a sync may take for `commit_quickly`: about what waking a thread and being woken by it costs a busy process."""

_QUICK_BYTES = 65_536
"""What may be queued for it: writing more takes longer than handing over."""

_COMMIT_BYTES = 1024**2
"""About so much is written before a sync: who queued a little beside a flood waits for no more than that."""

_FULL = "the spool is full: shipping does not keep up"


@dataclass(slots=True, kw_only=True)
class _Told:
    """A commit whose senders were told: what it took from the queue, what of it is in which segment, and the ids that are new."""

    groups: Sequence[Queued]
    written: Sequence[Queued] = ()
    segment: int = -1
    fresh_ids: Sequence[bytes] = ()


class Spool:
    """The segments of one stream. Open with `Spool(...)`, then `start_committing` a thread, or call `commit_pending`.

    Args:
        directory: of the segments.
        disk: the seam to the file system.
        journal: the source ids that are remembered.
        limits: bounds; may be changed.
        deliver: tells senders what became of their groups.
        committed: called after each commit, when its senders are told.
        monotonic: seconds that never go back.

    Raises:
        Damaged: on opening, a segment is damaged (not merely torn at its end); says which, where, and from which sequence on.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk,
        journal: SourceIds,
        limits: SpoolLimits | None = None,
        deliver: Deliver = deliver_here,
        committed: Callable[[], object] = lambda: None,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._name = directory.name
        self._journal = journal
        self.limits = limits or SpoolLimits()
        self._deliver = deliver
        self._committed = committed
        # taken by itself: going through a condition calls Python twice, some ten times a group
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)  # for the committing thread: something is queued
        self._idle = threading.Condition(self._lock)  # for who waits until nothing is
        self._queue = FairQueue()
        self.shares = Shares()
        self._committing = False
        self._told: _Told | None = None  # and not finished
        self._stopping = False
        self.refusals = Refusals()
        self.room = DiskRoom(disk, directory, self.limits.keep_free_bytes, self.refusals)
        self._thread: threading.Thread | None = None
        self._segments = SegmentFiles(directory, disk=disk, journal=journal, limits=self.limits, monotonic=monotonic)

    # -- what is there

    @property
    def next_sequence(self) -> int:
        """The sequence of the next event: all below it are durable."""
        return self._segments.next_sequence

    @property
    def size_bytes(self) -> int:
        """Bytes of all live segments."""
        return self._segments.size_bytes

    @property
    def start(self) -> Cursor:
        """The place of the oldest frame still kept."""
        return self._segments.start

    @property
    def torn_bytes(self) -> int:
        """What was cut off on opening."""
        return self._segments.torn_bytes

    @property
    def failed(self) -> StateUnknown | None:
        """Why nothing more is taken; None while it is."""
        return self._segments.failed

    # -- taking groups in

    def append(self, group: Group, done: Done, *, held: bool = False) -> None:
        """Queue a group; `done` is called with what became of it, after the sync (or with the error).

        With `held` the committing thread is not woken: the caller is about to call `commit_quickly`.

        Raises:
            Overloaded: the spool or its queue is full; nothing was queued.
            TooLarge: the spool will never have room for the group; nothing was queued.
            StateUnknown: an earlier sync failed; the process must reopen the spool.
            ValueError: the group is larger than one frame may be (the caller splits it), an id is too long, or ids, events
                and facts do not stand side by side.
        """
        size = checked_size(group)
        limits = self.limits
        if group.sender != TAKEN_OVER:
            check_fits(size, limits.open_bytes)
        with self._lock:
            if self._segments.failed is not None:
                raise self._segments.failed
            if self._stopping:
                raise Overloaded("the spool is closing")
            if not self._queue.has_room(group.sender, size, limits.queued_bytes):
                raise Overloaded("more is waiting for the disk than the spool's queue takes", retry_after_seconds=0.2)
            used_bytes = self._segments.size_bytes + self._queue.size_bytes
            admitted, charged = self.shares.admits(group.sender, size, used_bytes, limits)
            if not admitted:
                raise self.refusals.refuse(_FULL + ", and the rest is for who holds less" * charged, share=charged)
            self._queue.put(group, done, size, charged=charged)
            self.shares.put(group.sender, size, charged=charged)
            if not held:
                self._wake.notify()

    def commit_pending(self) -> int:
        """Write and sync what is queued, as much as one sync takes, then tell; returns how many groups. For the committing thread, or for a test."""
        try:
            return self._commit_queued()
        finally:
            self.finish()

    def commit_quickly(self) -> None:
        """Commit what is queued in the calling thread if that is quick, as the last syncs were; else wake the committing thread.

        When it returns, senders are told; whoever calls it calls `finish` once it has written what they are answered.
        """
        with self._lock:
            if self._segments.sync_seconds > _QUICK_SECONDS or self._queue.size_bytes > _QUICK_BYTES or self._stopping:
                self._wake.notify()
                return
        self._commit_queued()

    def finish(self) -> None:
        """Do what is left of a commit whose senders were told, if there is one. In any thread; the next commit begins with it."""
        with self._lock:
            told, self._told = self._told, None
            if told is None:
                return
            # none of this is on disk: what a crash before this line forgets, recovery finds in the segments
            self._journal.add(told.fresh_ids)
            self.shares.left_queue(told.groups)
            if told.written:
                self.shares.kept(told.written, told.segment)
                held_bytes = self._segments.size_bytes + self.shares.elsewhere_bytes
                self.refusals.over(full=held_bytes > self.limits.open_bytes)
            self._notify()
        self._committed()

    def _notify(self) -> None:
        if self._queue:
            self._wake.notify()
        self._idle.notify_all()

    def settle(self) -> None:
        """Return when all that was queued is committed and told."""
        self.finish()
        while self._thread is None and self.commit_pending():
            pass
        with self._lock:
            self._wake.notify()
            self._idle.wait_for(lambda: not self._queue and not self._committing)

    def _commit_queued(self) -> int:
        """Commit and tell; `finish` is left to do. Returns how many groups."""
        with self._lock:
            if self._committing or not self._queue:
                return 0
            self.finish()
            work = self._queue.take(_COMMIT_BYTES)
            self._committing = True
        told = _Told(groups=work)
        try:
            self._commit_and_tell(work, told)
        finally:
            with self._lock:
                self._told, self._committing = told, False
        return len(work)

    def _commit_and_tell(self, work: Sequence[Queued], told: _Told) -> None:
        try:
            outcomes = self._commit(work, told)
        except (Overloaded, StateUnknown) as error:
            # nobody was told, so nothing is lost: every sender of these groups tries again
            outcomes = [(one.done, error) for one in work]
            self.refusals.note(str(error))
        except Exception as error:  # noqa: BLE001 - a defect: senders must hear of it, and nobody may write behind it
            _log.exception("spool %s: a commit failed", self._name)
            failure = self.abandon(f"a commit failed: {type(error).__name__}")
            outcomes = [(one.done, failure) for one in work]
        self._deliver(outcomes)

    def _commit(self, work: Sequence[Queued], told: _Told) -> list[tuple[Done, Spooled | Exception]]:
        if self._segments.failed is not None:
            # queued while a sync failed: what stands behind bytes of unknown fate would be cut off with them
            raise self._segments.failed
        first = durable = self._segments.next_sequence
        outcomes: list[tuple[Done, Spooled | Exception]] = []
        frames: list[bytes] = []
        fresh_ids: list[bytes] = []
        seen_now: set[bytes] = set()
        written: list[Queued] = []
        for one in work:
            outcome, frame = admit(
                one.group,
                first=first,
                durable=durable,
                journal=self._journal,
                seen_now=seen_now,
                fresh_ids=fresh_ids,
            )
            first += outcome.stored
            outcomes.append((one.done, outcome))
            if frame:
                frames.append(frame)
                written.append(one.at_most(len(frame)))  # of a re-send its name alone
        if frames:
            data = b"".join(frames)
            self.room.take(len(data))
            told.segment = self._segments.append(data, following=first, limits=self.limits)
            told.written, told.fresh_ids = written, fresh_ids
        return outcomes

    def abandon(self, reason: str) -> StateUnknown:
        """Take no more: what is queued and what comes is told the error that is returned, and its sender sends it again."""
        with self._lock:
            return self._segments.abandon(reason)

    # -- reading back, for batches

    def frames(self, cursor: Cursor, *, events: int, limit_bytes: int) -> tuple[list[Frame], Cursor]:
        """See `SegmentFiles.frames`."""
        return self._segments.frames(cursor, events=events, limit_bytes=limit_bytes)

    def seek(self, sequence: int) -> Cursor:
        """See `SegmentFiles.seek`."""
        return self._segments.seek(sequence)

    def release(self, sequence: int) -> None:
        """Remove segments all of whose events are below `sequence`; never the one being written.

        While events are refused, that one is closed for it, if nothing in it is needed any more: it may be all that the spool holds.

        Raises Overloaded if the journal cannot be flushed first, or no segment made; the segments then stay.
        """
        self.finish()  # of what is in a segment that is about to go
        if self.refusals.now:
            self._close_covered(sequence)
        done = self._segments.below(sequence)
        if not done:
            return
        self._journal.flush()
        for name in done:
            self._segments.remove(name)
            with self._lock:
                self.shares.released(name)

    def _close_covered(self, sequence: int) -> None:
        with self._lock:
            if self._committing or self._queue or self._stopping or self.failed or self.next_sequence > sequence:
                return
            self._committing = True  # nobody else writes until the next segment is there
        try:
            if self._segments.is_open:
                self._segments.roll(self.limits)
        finally:
            with self._lock:
                self._committing = False
                self._notify()

    # -- life

    def start_committing(self) -> None:
        """Start the committing thread."""
        self._thread = threading.Thread(target=self._commit_for_ever, name="spool-commit", daemon=True)
        self._thread.start()

    def _commit_for_ever(self) -> None:
        while True:
            with self._lock:
                # who commits quickly just now wakes this thread when more has come meanwhile
                while (not self._queue or self._committing) and not self._stopping:
                    self._wake.wait()
                self._idle.wait_for(lambda: not self._committing)
                if not self._queue and self._stopping:
                    return
            try:
                self.commit_pending()
            except Exception:  # noqa: BLE001 - what was committed stays so: senders who heard nothing send again
                _log.exception("spool %s: senders could not be told", self._name)

    def close(self) -> None:
        """Commit what is queued, stop the thread, close the file. Later appends are `Overloaded`."""
        with self._lock:
            self._stopping = True
            self._wake.notify()
        self.finish()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        else:
            self.settle()
        with self._lock:
            self._idle.wait_for(lambda: not self._committing)
        self._segments.close()
