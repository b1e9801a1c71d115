"""A stream of bytes is cut into syslog messages (RFC 6587), in either of its two ways. Pure.

    octet counting     ``LENGTH SP MESSAGE``, the length in decimal (section 3.4.1; the only way over TLS: RFC 5425, section 4.3)
    non-transparent    ``MESSAGE LF`` (section 3.4.2; some senders end it with NUL)

Which it is, shows at the first byte of each message: a digit, or the ``<`` of its priority. A message that is too long comes with its true
length and its beginning alone.
"""

import re
from dataclasses import dataclass

__all__ = ["Frame", "FrameReader"]

_COUNT = re.compile(rb"([1-9]\d{0,8}) ")
_PERHAPS_COUNT = re.compile(rb"[1-9]\d{0,8}\Z")
_BETWEEN = re.compile(rb"[\n\0\r ]*")
_END = re.compile(rb"[\n\0]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message: `data`, at most as many bytes as are kept; `size`, how many it has; `ended`, whether its end came."""

    data: bytes
    size: int
    ended: bool = True


class FrameReader:
    """Cuts what is fed to it. `max_bytes`: how much of a message is kept."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._undecided = b""  # what may be the beginning of a length
        self._kept = bytearray()
        self._size = 0
        self._due: int | None = None  # how many bytes a counted message has; None: it ends at a line end
        self._inside = False

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that end in `data`, the next bytes of the stream."""
        data = self._undecided + data
        self._undecided = b""
        found: list[Frame] = []
        at = 0
        while True:
            if not self._inside:
                at = self._begin(data, at)
                if not self._inside:
                    self._undecided = data[at:]
                    return found
            at, ended = self._go_on(data, at)
            if not ended:
                return found
            found.append(self._take(ended=True))

    def end(self) -> list[Frame]:
        """The message that the stream's end has cut off; one that ends at a line end may be whole."""
        if self._undecided:
            self._inside = True
            self._keep(self._undecided, 0, len(self._undecided))
            self._undecided = b""
        return [self._take(ended=False)] if self._inside else []

    def _begin(self, data: bytes, at: int) -> int:
        """Find out how the message at `at` is framed, and return where it begins; not yet inside it when more is needed."""
        between = _BETWEEN.match(data, at)
        at = between.end() if between else at
        if match := _COUNT.match(data, at):
            self._due, self._inside = int(match[1]), True
            return match.end()
        if at < len(data) and not _PERHAPS_COUNT.match(data, at):
            self._due, self._inside = None, True
        return at

    def _go_on(self, data: bytes, at: int) -> tuple[int, bool]:
        """Take what there is of the message; where it goes on or ends, and whether it has ended."""
        if self._due is not None:
            end = min(len(data), at + self._due - self._size)
            self._keep(data, at, end)
            return end, self._size == self._due
        match = _END.search(data, at)
        self._keep(data, at, match.start() if match else len(data))
        return (match.end(), True) if match else (len(data), False)

    def _keep(self, data: bytes, start: int, end: int) -> None:
        self._kept += data[start : min(end, start + self._max_bytes - len(self._kept))]
        self._size += end - start

    def _take(self, *, ended: bool) -> Frame:
        frame = Frame(data=bytes(self._kept), size=self._size, ended=ended)
        self._kept.clear()
        self._size = 0
        self._inside = False
        return frame
