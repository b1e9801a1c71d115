"""Taking over the events of a forked stream: the groups that its successor numbers anew."""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence

from collector.batch import StreamId
from collector.errors import Overloaded
from collector.frame import Frame
from collector.sender import TAKEN_OVER
from collector.spool import Group, Spool, Spooled

__all__ = ["TakeOverWaits", "Told", "groups_of", "renumber"]

_READ_BYTES = 4 * 1024**2
"""About so much is read at a time, and durable elsewhere before the next: with few syncs, and far from a full queue."""

_READ_EVENTS = 32_768


def groups_of(spool: Spool, stream: StreamId, first: int) -> Iterator[tuple[list[Group], int]]:
    """The events of `spool` from sequence `first` on, a group for each frame, some MiB at a time, and the sequence behind them.

    Raises `Damaged` as `Spool.frames`.

    A group is named after where it was, so that a crash in the middle of the take-over doubles nothing. Source ids are left
    out: the journal has them already, and would take the events for re-sends. Frames without events are left out for the same reason:
    their groups' names are in the journal, and the frame that follows begins where they do, so that it would be a re-send of them.
    """
    cursor = spool.seek(first)
    while True:
        frames, cursor = spool.frames(cursor, events=_READ_EVENTS, limit_bytes=_READ_BYTES)
        if not frames:
            return
        yield [_group(stream, frame) for frame in frames if frame.count], frames[-1].first + frames[-1].count


def _group(stream: StreamId, frame: Frame) -> Group:
    place = f"{stream}\n{frame.first}".encode()
    ends = itertools.accumulate(frame.event_lengths, initial=0)
    return Group(
        group_id=b"takeover\0" + hashlib.sha256(place).digest(),
        source_ids=[b""] * frame.count,
        events=[frame.events[start:end] for start, end in itertools.pairwise(ends)],
        facts=frame.facts.split(b"\n")[:-1],
        sender=TAKEN_OVER,
    )


class TakeOverWaits(Overloaded):
    """The disk has no room just now for what is to be taken over: what is shipped and let go of meanwhile makes some."""


class Told:
    """A `collector.spool.Done` that a thread can wait for.

    The pipeline calls it in the committing thread, never through its caller's `deliver`, whose loop may be waiting for us.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.outcome: Spooled | Exception | None = None

    def __call__(self, outcome: Spooled | Exception) -> None:
        """Keep the outcome and wake who waits."""
        self.outcome = outcome
        self.event.set()


def renumber(
    spool: Spool, stream: StreamId, first: int, *, into: Spool, reached: Callable[[int], None] = lambda _: None
) -> None:
    """Append the events of `spool` from sequence `first` on to another spool; on return they are durable there.

    `reached` is told below which sequence they are, some MiB at a time. Raises as `Spool.append`; what was reached stays.
    """
    for groups, following in groups_of(spool, stream, first):
        waiting: list[Told] = []
        for group in groups:
            told = Told()
            try:
                into.append(group, told)
            except Overloaded:
                if not waiting:
                    raise
                _commit(into, waiting)  # what we have queued ourselves may be what fills the queue
                waiting = []
                into.append(group, told)
            waiting.append(told)
        _commit(into, waiting)
        reached(following)


def _commit(into: Spool, waiting: Sequence[Told]) -> None:
    """Return when all of these were told that they are durable; raises what one was told instead."""
    for told in waiting:
        # Here, unless a thread of the spool's is at it: that goes on then. Not until the queue is empty: under load it may never be.
        while not told.event.is_set() and into.commit_pending():
            pass
        told.event.wait()
        if isinstance(told.outcome, Exception):
            raise told.outcome
