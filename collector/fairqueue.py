"""A queue between many senders and one disk: who has queued little is not behind all that others have queued.

Deficit round robin (Shreedhar and Varghese, 1995): each sender that waits gets so many bytes in its turn, and keeps what it could not use of them while it
waits. What one sender has queued stays in its order.
"""

from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter

import msgspec

from collector.group import Done, Group
from collector.sender import Sender

__all__ = ["FairQueue", "Queued"]

_TURN_BYTES = 65_536
_CROWDED = 8  # of the bound this part is kept for senders with less in the queue than is left of it


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """A group that waits: its place in the order of arrival, how long it is, and whether it is charged to its way's part (`collector.shares`)."""

    at: int
    group: Group
    done: Done
    size_bytes: int
    charged: bool = False

    def at_most(self, size_bytes: int) -> "Queued":
        """It, not longer than so many bytes."""
        return self if self.size_bytes <= size_bytes else msgspec.structs.replace(self, size_bytes=size_bytes)


@dataclass(slots=True)
class _Line:
    """What one sender has queued."""

    waiting: deque[Queued] = field(default_factory=deque)
    size_bytes: int = 0
    deficit_bytes: int = 0


class FairQueue:
    """See the module. Not thread-safe.

    Attributes:
        size_bytes: of all that waits.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._lines: dict[Sender, _Line] = {}  # the first is the next
        self._arrived = 0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._lines)

    def has_room(self, sender: Sender, size_bytes: int, limit_bytes: int) -> bool:
        """Whether a group may be queued within a bound; a longer one than that may wait alone."""
        left_bytes = limit_bytes - self.size_bytes
        if size_bytes > left_bytes:
            return not self._lines
        if left_bytes - size_bytes >= limit_bytes // _CROWDED:
            return True
        line = self._lines.get(sender)
        return line is None or line.size_bytes + size_bytes <= left_bytes

    def put(self, group: Group, done: Done, size_bytes: int, *, charged: bool = False) -> None:
        """Queue a group."""
        self._arrived += 1
        line = self._lines.get(group.sender)
        if line is None:
            line = self._lines[group.sender] = _Line()
        line.waiting.append(Queued(at=self._arrived, group=group, done=done, size_bytes=size_bytes, charged=charged))
        line.size_bytes += size_bytes
        self.size_bytes += size_bytes

    def take(self, limit_bytes: int) -> list[Queued]:
        """Take out all, or about so many bytes where there are more, at least one group; in the order in which they came."""
        taken: list[Queued] = []
        if self.size_bytes <= limit_bytes:
            for line in self._lines.values():
                taken += line.waiting
            self._lines.clear()
            self.size_bytes = 0
        else:
            left_bytes = limit_bytes
            while self._lines and left_bytes > 0:
                left_bytes -= self._serve_next(left_bytes, taken)
        if len(taken) > 1:
            taken.sort(key=attrgetter("at"))
        return taken

    def _serve_next(self, left_bytes: int, taken: list[Queued]) -> int:
        """Serve one sender its turn; returns the bytes that were taken."""
        sender = next(iter(self._lines))
        line = self._lines.pop(sender)
        line.deficit_bytes += _TURN_BYTES
        served_bytes = 0
        while line.waiting and line.waiting[0].size_bytes <= line.deficit_bytes and served_bytes < left_bytes:
            one = line.waiting.popleft()
            line.deficit_bytes -= one.size_bytes
            served_bytes += one.size_bytes
            taken.append(one)
        line.size_bytes -= served_bytes
        self.size_bytes -= served_bytes
        if line.waiting:
            self._lines[sender] = line
        return served_bytes
