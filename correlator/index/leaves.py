"""What a chain has made, as an index takes it: events in runs of one trail, so that nothing is made for each of them. Pure."""

from collections.abc import Sequence
from typing import overload

import msgspec

from collector.event import Facts
from correlator.entry import decode_entry
from correlator.index import IndexedLeaf

__all__ = ["EventRun", "Leaves"]


class EventRun(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Neighbouring events of one trail.

    Attributes:
        leaf, position: of the first; those of the others follow.
        trail: the trail of all.
        facts: the facts of each.
    """

    leaf: int
    position: int
    trail: str
    facts: Sequence[Facts]


class Leaves(Sequence[IndexedLeaf]):
    """Consecutive leaves. As a sequence it gives each by itself, its entry decoded when asked for.

    Attributes:
        parts: the same leaves in the same order, events in runs; whoever appends an entry tells of it here.

    Args:
        first: index of the first leaf.
        entries: the entries' bytes; may grow.
    """

    def __init__(self, first: int, entries: Sequence[bytes]) -> None:
        self._first = first
        self._entries = entries
        self.parts: list[IndexedLeaf | EventRun] = []

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, at: int) -> IndexedLeaf: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[IndexedLeaf]: ...

    def __getitem__(self, at: int | slice) -> IndexedLeaf | Sequence[IndexedLeaf]:
        places = range(len(self._entries))[at]
        return [self._leaf(place) for place in places] if isinstance(places, range) else self._leaf(places)

    def _leaf(self, place: int) -> IndexedLeaf:
        return IndexedLeaf(leaf=self._first + place, entry=decode_entry(self._entries[place]))
