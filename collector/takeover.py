"""Taking over the events of a forked stream: the groups that its successor numbers anew."""

import hashlib
import itertools
import threading
from collections.abc import Iterator

from collector.batch import StreamId
from collector.spool import Group, Spool, Spooled

__all__ = ["Told", "groups_of", "renumber"]


def groups_of(spool: Spool, stream: StreamId, first: int) -> Iterator[Group]:
    """The events of `spool` from sequence `first` on, a group for each frame.

    A group is named after where it was, so that a crash in the middle of the take-over doubles nothing. Source ids are left
    out: the journal has them already, and would take the events for re-sends.
    """
    cursor = spool.seek(first)
    while True:
        frames, cursor = spool.frames(cursor, events=1, limit_bytes=1)
        if not frames:
            return
        for frame in frames:
            place = f"{stream}\n{frame.first}".encode()
            ends = itertools.accumulate(frame.event_lengths, initial=0)
            yield Group(
                group_id=b"takeover\0" + hashlib.sha256(place).digest(),
                source_ids=[b""] * frame.count,
                events=[frame.events[start:end] for start, end in itertools.pairwise(ends)],
                facts=frame.facts.split(b"\n")[:-1],
            )


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


def renumber(spool: Spool, stream: StreamId, first: int, *, into: Spool) -> None:
    """Append the events of `spool` from sequence `first` on to another spool; on return they are durable there. Raises as `Spool.append`."""
    for group in groups_of(spool, stream, first):
        told = Told()
        into.append(group, told)
        # Here, unless a thread of the spool's is at it: that goes on then. Not until the queue is empty: under load it may never be.
        while not told.event.is_set() and into.commit_pending():
            pass
        told.event.wait()
        if isinstance(told.outcome, Exception):
            raise told.outcome
