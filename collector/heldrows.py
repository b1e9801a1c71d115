"""Which rows of a file are events of a stream: what an import that was broken off is told by the store."""

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from collector.batch import EventRef, StreamId
from collector.errors import Malformed, NotFound
from collector.event import Origin
from collector.store import EventStore

__all__ = ["HeldRows", "held_rows"]

_READ_EVENTS = 1_000

_PAGE_BITS = 13


class _Placed(msgspec.Struct):
    origin: Origin = Origin()


_decode = msgspec.json.Decoder(_Placed).decode


class HeldRows:
    """Numbers of rows, counted from 1; 0, of a row that has no number, is never among them. About a bit a row is kept of them."""

    def __init__(self) -> None:
        self._pages: defaultdict[int, int] = defaultdict(int)

    def add(self, number: int) -> None:
        """Add a number; 0 is passed over."""
        if number > 0:
            self._pages[number >> _PAGE_BITS] |= 1 << (number & ((1 << _PAGE_BITS) - 1))

    def __contains__(self, number: int) -> bool:
        return bool(self._pages.get(number >> _PAGE_BITS, 0) >> (number & ((1 << _PAGE_BITS) - 1)) & 1)


def held_rows(store: EventStore, stream: StreamId, *, below: int) -> HeldRows:
    """The rows whose events stand in `stream` under sequences from 0 to before `below`. All of these events are read.

    What was retired meanwhile is passed over: of those rows only the journal of source ids can tell.

    Raises:
        Overloaded: the store does not answer.
        Malformed: what it holds is no event.
    """
    rows = HeldRows()
    for first in range(0, below, _READ_EVENTS):
        refs = [EventRef(stream=stream, sequence=one) for one in range(first, min(first + _READ_EVENTS, below))]
        for event in _events(store, refs):
            try:
                rows.add(_decode(event).origin.row)
            except ValueError as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
                raise Malformed(f"the store holds what is no event in stream {stream}: {error}") from error
    return rows


def _events(store: EventStore, refs: Sequence[EventRef]) -> Sequence[bytes]:
    """Those of the events that are there."""
    try:
        return store.events(refs)
    except NotFound:
        half = len(refs) // 2
        return [*_events(store, refs[:half]), *_events(store, refs[half:])] if half else []
