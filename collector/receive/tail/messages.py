"""Parts of lines become messages: what a container runtime has cut is joined, and lines that belong together are. Pure.

Each stream of a file (stdout, stderr) is joined on its own. A message's place is that of its first byte, and where it ends follows from the
bytes alone, with one exception: a message that is taken to be over because nothing followed in time. Such an end is a `Cut`; it is made
durable before the message is handed on, so that whoever reads the file again after a crash ends the message at the same place.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from collector.receive.tail.settings import MultilineSettings

__all__ = ["CONTINUED", "LINE_BREAK", "UNTERMINATED", "Assembler", "Cut", "Message", "Part", "Position"]

LINE_BREAK = "\n"
"""The stream of cuts that end a line, not a message: no stream is called so."""

CONTINUED = "continued"
"""Mark of a message that goes on in the next one of its stream: it was too long, or the rest did not come in time."""

UNTERMINATED = "unterminated"
"""Mark of a message whose last line has no line end: the file was let go."""


class Cut(NamedTuple):
    """What stands in this stream from `offset` on belongs to no message that began before."""

    stream: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a file's events are taken.

    Attributes:
        offset: all that stands before it, in bytes.
        ahead: streams of which more is taken: all that begins before this place.
        cuts: that lie behind it.
    """

    offset: int = 0
    ahead: Mapping[str, int] = field(default_factory=dict)
    cuts: tuple[Cut, ...] = ()

    def needs(self, cut: Cut) -> bool:
        """Whether the cut matters to who reads on from here."""
        return cut.offset > self.offset and cut.offset > self.ahead.get(cut.stream, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A line of the file, decoded: a line of the service, or where `whole` is false a piece of one that goes on in the next part.

    `raw` holds the line's bytes where `text` could not keep them; `time` is the container runtime's, RFC 3339; `others` further attributes.
    """

    start: int
    end: int
    text: str
    stream: str = ""
    time: str = ""
    whole: bool = True
    others: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One event's text, with what the parts said of it: of several that differ the first counts. `end` is behind its last part."""

    start: int
    end: int
    text: str
    stream: str
    time: str
    others: Mapping[str, Any]
    raw: bytes
    marks: tuple[str, ...]


class _Open:
    """A message that may go on: whole lines, and behind them perhaps the pieces of one more."""

    __slots__ = ("lines", "parts", "pieces", "size", "unfinished_at")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.lines: list[str] = []
        self.pieces: list[str] = []
        self.unfinished_at = 0  # which part the unfinished line begins with
        self.size = 0


class Assembler:
    """Joins the parts of one file. Not thread-safe.

    Args:
        rules: which lines belong together, and the bounds.
        position: from where the file is read (again): what it says is taken comes in, and nothing comes out for it.
    """

    def __init__(self, rules: MultilineSettings, position: Position) -> None:
        self._start = re.compile(rules.start).match if rules.start else None
        self._indented = rules.indented
        self._single = not (rules.start or rules.indented)
        self._max_bytes = rules.max_bytes
        self._timeout_seconds = rules.timeout_seconds
        self._open: dict[str, _Open] = {}
        self._since: dict[str, float] = {}
        self._done = dict(position.ahead)
        self._seen: set[str] = set()
        self._cuts = sorted((cut for cut in position.cuts if cut.stream != LINE_BREAK), key=lambda cut: cut.offset)

    def add(self, part: Part, now_seconds: float) -> list[Message]:
        """The messages that are over with this part, the next one of the file."""
        stream = part.stream
        self._seen.add(stream)
        if part.start < self._done.get(stream, 0):
            return []
        found: list[Message] = []
        if stream in self._open and self._is_cut(stream, part.start):
            found += self._close(stream)
        if self._single and part.whole and stream not in self._open:
            found.append(_message([part], part.text))
            return found
        self._join(part, found)
        if stream in self._open:
            self._since[stream] = now_seconds
        return found

    def due(self, now_seconds: float) -> list[str]:
        """The streams whose message has waited for more long enough."""
        return [stream for stream, since in self._since.items() if now_seconds - since >= self._timeout_seconds]

    @property
    def waiting(self) -> list[str]:
        """The streams whose last message may go on."""
        return list(self._open)

    def close(self, stream: str) -> list[Message]:
        """The stream's last message is over: what it has so far. The `Cut` there must be durable before this is handed on."""
        return self._close(stream)

    def position(self, read_to: int) -> Position:
        """What is taken once all messages that came out are, the file being read up to the line at `read_to`; without cuts."""
        starts = {stream: one.parts[0].start for stream, one in self._open.items()}
        offset = min(starts.values(), default=read_to)
        self._done = {stream: done for stream, done in self._done.items() if done > offset}
        ahead: dict[str, int] = {}
        for stream in self._seen | self._done.keys():
            done = max(self._done.get(stream, 0), starts.get(stream, read_to))
            if done > offset:
                ahead[stream] = done
        return Position(offset=offset, ahead=ahead)

    def _is_cut(self, stream: str, start: int) -> bool:
        first = self._open[stream].parts[0].start
        return any(cut.stream == stream and first < cut.offset <= start for cut in self._cuts)

    def _join(self, part: Part, found: list[Message]) -> None:
        stream = part.stream
        one = self._open.get(stream)
        size = len(part.text)
        if one is not None and one.size + size > self._max_bytes:
            if one.pieces and one.lines and one.size - sum(map(len, one.lines)) + size <= self._max_bytes:
                found.append(self._split(one, (CONTINUED,)))  # the whole lines go, the unfinished one stays
            else:
                found += self._close(stream, CONTINUED)
                one = None
        if one is None:
            one = self._open[stream] = _Open()
        if not one.pieces:
            one.unfinished_at = len(one.parts)
        one.parts.append(part)
        one.pieces.append(part.text)
        one.size += size
        if not part.whole:
            return
        line = "".join(one.pieces)
        if one.lines and not self._continues(line):
            found.append(self._split(one, ()))
        one.lines.append(line)
        one.pieces = []
        if self._single:
            found += self._close(stream)

    def _continues(self, line: str) -> bool:
        if self._start is not None and not self._start(line):
            return True
        return self._indented and line[:1] in {" ", "\t"}

    @staticmethod
    def _split(one: _Open, marks: tuple[str, ...]) -> Message:
        """Take out the whole lines; the line behind them, finished or not, begins a message of its own."""
        at = one.unfinished_at
        message = _message(one.parts[:at], "\n".join(one.lines), marks)
        one.parts = one.parts[at:]
        one.lines = []
        one.unfinished_at = 0
        one.size = sum(len(part.text) for part in one.parts)
        return message

    def _close(self, stream: str, *marks: str) -> list[Message]:
        one = self._open.pop(stream)
        self._since.pop(stream, None)
        if one.pieces and CONTINUED not in marks:
            marks = (*marks, CONTINUED)
        lines = [*one.lines, "".join(one.pieces)] if one.pieces else one.lines
        return [_message(one.parts, "\n".join(lines), marks)]


def _message(parts: list[Part], text: str, marks: tuple[str, ...] = ()) -> Message:
    first = parts[0]
    others = first.others
    raw = first.raw
    if len(parts) > 1:
        others = {name: value for part in reversed(parts) for name, value in part.others.items()}
        if any(part.raw for part in parts):
            raw = b"\n".join(part.raw or part.text.encode("utf-8", "surrogateescape") for part in parts)
        marks = (*dict.fromkeys(mark for part in parts for mark in part.marks), *marks)
    else:
        marks = (*first.marks, *marks)
    return Message(
        start=first.start,
        end=parts[-1].end,
        text=text,
        stream=first.stream,
        time=first.time,
        others=others,
        raw=raw,
        marks=marks,
    )
