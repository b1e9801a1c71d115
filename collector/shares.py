"""Fair shares of the spool's bytes: who fills it leaves room for the others (docs/decisions/0045-fair-shares-between-inputs.md).

All but the last part of the spool, the reserve, is for whoever comes first: while there is room, nobody is held back. Of the reserve each way in has
an equal part that no other way can use. Within it a sender is taken from while it holds no more in the whole spool than is left of the part:
a connection that has filled the spool has nothing of it, and of many small ones each has as much.

What is held is known since the spool was opened: what an earlier process left, in this incarnation's folder or in another's, counts as
filled, and as nobody's.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from collector.fairqueue import Queued
from collector.sender import TAKEN_OVER, Sender
from collector.spoollimits import SpoolLimits

__all__ = ["Shares"]

Key = TypeVar("Key")

_SLOTS = 256
"""Connections of a way in are told apart by so many numbers: what is remembered is bounded, and two seldom share one (McKenney's stochastic fairness)."""


class Shares:
    """See the module. Not thread-safe. Groups of ourselves (`OURSELVES`) are held to the whole alone, and those taken over (`TAKEN_OVER`) to nothing.

    Attributes:
        elsewhere_bytes: what other incarnations' folders hold, since they have one bound together. May be set in any thread.
    """

    def __init__(self) -> None:
        self.elsewhere_bytes = 0
        self._held: Counter[Sender] = Counter()
        self._charged: Counter[str] = Counter()
        self._segments: dict[int, tuple[Counter[Sender], Counter[str]]] = {}

    def held_bytes(self, way: str) -> int:
        """What a way in has in the spool and in its queue."""
        return sum(size for sender, size in self._held.items() if sender.way == way)

    def admits(self, sender: Sender, size_bytes: int, used_bytes: int, limits: SpoolLimits) -> tuple[bool, bool]:
        """Whether a group may come in beside the bytes that are there; and if so, whether it is charged to its way's part of the reserve."""
        after_bytes = used_bytes + self.elsewhere_bytes + size_bytes
        if after_bytes <= limits.open_bytes:
            return True, False
        if sender == TAKEN_OVER:
            return True, False
        if after_bytes > limits.total_bytes or not sender.way:
            return after_bytes <= limits.total_bytes, False
        left_bytes = limits.reserve_of_a_way_bytes - self._charged[sender.way]
        return self._held[_slot(sender)] + size_bytes <= left_bytes, True

    def put(self, sender: Sender, size_bytes: int, *, charged: bool) -> None:
        """A group is queued, or kept."""
        if sender.way:
            self._held[_slot(sender)] += size_bytes
            if charged:
                self._charged[sender.way] += size_bytes

    def left_queue(self, groups: Iterable[Queued]) -> None:
        """Groups are queued no more; those that are written then are `kept`."""
        for one in groups:
            sender = one.group.sender
            if sender.way:
                _give_back(self._held, _slot(sender), one.size_bytes)
                if one.charged:
                    _give_back(self._charged, sender.way, one.size_bytes)

    def kept(self, groups: Iterable[Queued], segment: int) -> None:
        """Groups are in a segment now."""
        for one in groups:
            sender = one.group.sender
            if sender.way:
                self.put(sender, one.size_bytes, charged=one.charged)
                found = self._segments.get(segment)
                if found is None:
                    found = self._segments[segment] = (Counter(), Counter())
                held, charged = found
                held[_slot(sender)] += one.size_bytes
                if one.charged:
                    charged[sender.way] += one.size_bytes

    def released(self, segment: int) -> None:
        """A segment is gone."""
        held, charged = self._segments.pop(segment, (Counter(), Counter()))
        for sender, size_bytes in held.items():
            _give_back(self._held, sender, size_bytes)
        for way, size_bytes in charged.items():
            _give_back(self._charged, way, size_bytes)


def _give_back(counter: Counter[Key], key: Key, size_bytes: int) -> None:
    counter[key] -= size_bytes
    if not counter[key]:
        del counter[key]


def _slot(sender: Sender) -> Sender:
    return sender if 0 <= sender.connection < _SLOTS else Sender(sender.way, sender.connection % _SLOTS)
