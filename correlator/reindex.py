"""The trail index brought up to the log: everything in it follows from the log's entries."""

from collections.abc import Callable

from correlator.entry import decode_entry
from correlator.errors import StateUnknown
from correlator.index import IndexedLeaf, TrailIndex
from correlator.state import EntryReader

__all__ = ["catch_up"]

_LEAVES_A_TURN = 8_192


def catch_up(
    index: TrailIndex,
    reader: EntryReader,
    size: int,
    *,
    progress: Callable[[int, int], None] | None = None,
    published: Callable[[], int] | None = None,
) -> int:
    """Index the leaves that the index does not have, up to `size`; returns how many those were.

    An index that is ahead of the log (it belonged to another one) is emptied first. One that is only ahead of `size`, because
    another writer of the same log has gone on, is left alone: `published` tells, once it was asked, how long the log is now.

    Raises:
        VerificationError: the log was changed.
        Overloaded, StateUnknown: the index does not answer.
    """
    start = at = index.size()
    if at > size:
        if published is not None and at <= published():
            return 0
        index.clear()
        start = at = 0
    while at < size:
        entries = reader.entries(at, min(size, at + _LEAVES_A_TURN))
        index.apply([IndexedLeaf(leaf=at + n, entry=decode_entry(data)) for n, data in enumerate(entries)])
        at += len(entries)
        if index.size() < at:
            raise StateUnknown("the index did not take the leaves that it was given")
        if progress is not None:
            progress(at, size)
    return at - start
