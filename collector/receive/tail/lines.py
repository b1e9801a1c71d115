"""Bytes of a file become its lines, each with its place. Pure.

A line longer than allowed comes with its true length and its beginning alone, so that a file without line ends costs no memory.
Zeros in front of a line are passed over: a file that is truncated under a writer which does not append (``O_APPEND``) gets a hole there.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Line", "LineCutter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line without its line end.

    Attributes:
        start, end: where it stands in the file, in bytes; `end` is behind its line end.
        data: its bytes, at most as many as the cutter keeps.
        size: how many it has.
        ended: whether a line end stands behind it.
        hole: whether zeros in front of it were passed over.
    """

    start: int
    end: int
    data: bytes
    size: int
    ended: bool = True
    hole: bool = False


class LineCutter:
    """Cuts what is fed to it, piece after piece.

    Args:
        offset: where in the file the first byte fed stands; a line begins there.
        max_bytes: how much of a line is kept.
        breaks: places where a line was taken to end although no line end stands there (`rest` in an earlier life).
    """

    def __init__(self, *, offset: int, max_bytes: int, breaks: Iterable[int] = ()) -> None:
        self.start = offset
        self.end = offset
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._size = 0
        self._hole = False
        self._breaks = sorted(place for place in breaks if place > offset)

    @property
    def open_bytes(self) -> int:
        """How long the line is that has no end yet."""
        return self.end - self.start

    def feed(self, data: bytes) -> list[Line]:
        """The lines that end in `data`, the next bytes of the file."""
        found: list[Line] = []
        while self._breaks and self._breaks[0] <= self.end + len(data):
            here = self._breaks.pop(0) - self.end
            self._feed(data[:here], found)
            data = data[here:]
            if self.open_bytes:
                found.append(self._take(ended=False))
        self._feed(data, found)
        return found

    def rest(self) -> Line | None:
        """Take the line that has no end yet, as it is; None if there is none."""
        return self._take(ended=False) if self.open_bytes else None

    def _feed(self, data: bytes, found: list[Line]) -> None:
        at = 0
        while (newline := data.find(b"\n", at)) >= 0:
            self._keep(data[at:newline])
            self.end += 1
            found.append(self._take(ended=True))
            at = newline + 1
        self._keep(data[at:])

    def _keep(self, piece: bytes) -> None:
        self.end += len(piece)
        if not self._size and piece[:1] == b"\0":
            piece = piece.lstrip(b"\0")
            self._hole = True
        self._size += len(piece)
        self._kept += piece[: self._max_bytes - len(self._kept)]

    def _take(self, *, ended: bool) -> Line:
        line = Line(
            start=self.start, end=self.end, data=bytes(self._kept), size=self._size, ended=ended, hole=self._hole
        )
        self.start = self.end
        self._kept.clear()
        self._size = 0
        self._hole = False
        return line
