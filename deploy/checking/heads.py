"""The last entry of every trail while a log is read from its first leaf on: the correlator's own table, in a folder for this once.

Those touched lately are in memory, the rest in a file, and a filter in memory (some two bytes a trail) spares most new trails
a look at the file.
"""

from pathlib import Path
from typing import NamedTuple

from correlator.coldstate import ColdState, Table

__all__ = ["Heads", "Last"]

_HOT_TRAILS = 16_384


class Last(NamedTuple):
    """The last entry of a trail so far: its position, leaf index and leaf hash."""

    position: int
    leaf: int
    hash: bytes


class Heads:
    """See the module. `close` before the folder is removed.

    Args:
        folder: an empty one, or one to be made.
        hot_trails: how many trails are in memory, twice.

    Attributes:
        trails: how many there are.
    """

    def __init__(self, folder: Path, *, hot_trails: int = _HOT_TRAILS) -> None:
        self.trails = 0
        self._hot_trails = hot_trails
        self._cold = ColdState(folder)
        self._table = Table(self._cold, b"h", limit=hot_trails, encode=_encode, decode=_decode)

    def follow(self, trail: str, last: Last) -> Last | None:
        """This is the trail's last entry now; returns the one before it.

        Raises Overloaded or StateUnknown when the file cannot be used: no finding follows from that.
        """
        before = self._table.get(trail)
        if before is None:
            self.trails += 1
        self._table.put(trail, last)
        if len(self._table.dirty) >= self._hot_trails:
            self._cold.write(self._table.changed())
            self._table.flushed()
        return before

    def close(self) -> None:
        """Release the file."""
        self._cold.close()


def _encode(last: Last) -> bytes:
    return b"%d %d %b" % last  # in decimals, because a forged entry may say any number


def _decode(raw: bytes) -> Last:
    position, leaf, digest = raw.split(b" ", 2)
    return Last(position=int(position), leaf=int(leaf), hash=digest)
