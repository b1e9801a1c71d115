"""What a Beats connection says: bytes in, windows and documents out; no sockets here.

Lumberjack, versions 1 and 2, as github.com/elastic/go-lumber has it in ``client/v2``, ``server/v1`` and ``server/v2``, and Logstash's beats input. (Its
PROTOCOL.md describes other frames, which neither of them sends.) Numbers are 32 bits, big-endian; each frame begins with the version, ``1`` or
``2``, and its kind:

    W  size                              a window: so many documents follow, then the sender waits for their ack
    J  sequence, length, JSON            a document
    D  sequence, pairs, (length, name, length, value) …      a document of version 1: texts under names
    C  length, zlib                      J and D frames, compressed
    A  sequence                          from the receiver: everything up to here is taken

Lengths are believed only as far as bytes have come. A compressed frame is inflated a step at a time, so that what it holds is never in memory
as a whole, and it holds no compressed frame of its own.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from collector.errors import Malformed

__all__ = ["Document", "FrameReader", "Limits", "Window", "ack"]

_NUMBER = struct.Struct(">I")
_TWO = struct.Struct(">II")
_ACK = struct.Struct(">BBI")
_VERSIONS = (ord("1"), ord("2"))
_INFLATE_STEP_BYTES = 262_144


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may ask for.

    Attributes:
        max_frame_bytes: longest frame, compressed or not, hence the most that a connection buffers of one.
        max_inflated_bytes: most that one compressed frame may hold.
        max_pairs: most names in a document of version 1.
    """

    max_frame_bytes: int = 16 * 2**20
    max_inflated_bytes: int = 64 * 2**20
    max_pairs: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The sender announces `size` documents; what it sent before is to be acknowledged, even if that window is not full."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document: `json` as it was sent, or `fields`, if it came as version 1 has it. `last`: the window is full."""

    version: int
    sequence: int
    json: bytes = b""
    fields: dict[str, str] | None = None
    last: bool

    @property
    def size_bytes(self) -> int:
        """About how much of the connection it was."""
        return len(self.json) + sum(len(name) + len(value) for name, value in (self.fields or {}).items())


def ack(version: int, sequence: int) -> bytes:
    """The frame that acknowledges everything up to `sequence` of the window; 0 says only that the receiver is alive."""
    return _ACK.pack(version, ord("A"), sequence)


class _Incomplete(Exception):
    """A frame of at least `need_bytes`, of which fewer have come."""

    def __init__(self, need_bytes: int) -> None:
        super().__init__()
        self.need_bytes = need_bytes


class FrameReader:
    """Cuts a connection's bytes into frames.

    Args:
        limits: what is refused.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._buffer = bytearray()
        self._need_bytes = 2
        self._left = 0  # documents of the window that have not come
        # places of the texts that have come of a document of version 1: else each piece of it would look for them all again
        self._texts: list[tuple[int, int]] = []

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that has not arrived whole."""
        return len(self._buffer)

    @property
    def in_window(self) -> bool:
        """Whether documents of a window are still to come."""
        return self._left > 0

    def take(self, max_bytes: int = 65_536) -> bytes:
        """What was read and not understood, for the dead letters: cut to `max_bytes`."""
        return bytes(self._buffer[:max_bytes])

    def frames(self, data: bytes) -> Iterator[Window | Document]:
        """The windows and documents that `data` completes, in order. To be read to its end before the next call.

        Raises:
            Malformed: not Lumberjack, or beyond the limits (``framing``, ``too_large``, ``bad_zlib``). The connection is of no further use;
                `take` gives the frame.
        """
        self._buffer += data
        yield from self._walk(self._buffer, nested=False)

    def _walk(self, buffer: bytearray, *, nested: bool) -> Iterator[Window | Document]:
        """Yield what is whole in `buffer`, and take it out of there."""
        at = 0
        need_bytes = 2 if nested else self._need_bytes
        try:
            while len(buffer) - at >= need_bytes:
                try:
                    version, kind = buffer[at], chr(buffer[at + 1])
                    if version not in _VERSIONS:
                        raise Malformed("no frame of Lumberjack 1 or 2", label="framing")
                    if kind == "J":
                        end, found = self._json(buffer, at)
                        yield found
                    elif kind == "D":
                        end, found = self._pairs(buffer, at)
                        yield found
                    elif kind == "W" and not nested:
                        (size,) = _NUMBER.unpack(_part(buffer, at, 2, 4))
                        end, self._left = at + 6, size
                        yield Window(size=size)
                    elif kind == "C" and not nested:
                        (length,) = _NUMBER.unpack(_part(buffer, at, 2, 4))
                        self._check(length)
                        payload = _part(buffer, at, 6, length)
                        yield from self._inflated(payload)
                        end = at + 6 + length
                    else:
                        where = "in a compressed frame " if nested else ""
                        raise Malformed(f"a frame of a kind that {where}cannot be", label="framing")
                except _Incomplete as incomplete:
                    need_bytes = incomplete.need_bytes
                    self._check(need_bytes)
                    break
                at, need_bytes = end, 2
        finally:
            del buffer[:at]
        if not nested:
            self._need_bytes = need_bytes

    def _json(self, buffer: bytearray, at: int) -> tuple[int, Document]:
        sequence, length = _TWO.unpack(_part(buffer, at, 2, 8))
        self._check(length)
        payload = _part(buffer, at, 10, length)
        return at + 10 + length, Document(version=buffer[at], sequence=sequence, json=payload, last=self._counted())

    def _pairs(self, buffer: bytearray, at: int) -> tuple[int, Document]:
        sequence, count = _TWO.unpack(_part(buffer, at, 2, 8))
        if count > self._limits.max_pairs:
            raise Malformed(f"a document of more than {self._limits.max_pairs} names", label="too_large")
        while len(self._texts) < 2 * count:
            start = self._texts[-1][1] if self._texts else 10
            (length,) = _NUMBER.unpack(_part(buffer, at, start, 4))
            end = start + 4 + length
            self._check(end)
            if len(buffer) < at + end:
                raise _Incomplete(end)
            self._texts.append((start + 4, end))
        places, self._texts = self._texts, []
        texts = [buffer[at + start : at + end].decode("utf-8", "surrogateescape") for start, end in places]
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        size = places[-1][1] if places else 10
        return at + size, Document(version=buffer[at], sequence=sequence, fields=fields, last=self._counted())

    def _inflated(self, payload: bytes) -> Iterator[Window | Document]:
        inflater, rest = zlib.decompressobj(), payload
        content = bytearray()
        room = self._limits.max_inflated_bytes
        while not inflater.eof:
            try:
                piece = inflater.decompress(rest, _INFLATE_STEP_BYTES)
            except zlib.error as error:
                raise Malformed(f"a compressed frame that is not zlib: {error}", label="bad_zlib") from error
            rest = inflater.unconsumed_tail
            room -= len(piece)
            if room < 0:
                raise Malformed(
                    f"a compressed frame of more than {self._limits.max_inflated_bytes} bytes", label="too_large"
                )
            if not piece and not rest and not inflater.eof:
                raise Malformed("a compressed frame that ends too early", label="bad_zlib")
            content += piece
            yield from self._walk(content, nested=True)
        if content or inflater.unused_data:
            raise Malformed("a compressed frame does not end where its last frame ends", label="framing")

    def _counted(self) -> bool:
        if self._left == 0:
            raise Malformed("a document outside of a window", label="framing")
        self._left -= 1
        return self._left == 0

    def _check(self, length: int) -> None:
        if length > self._limits.max_frame_bytes:
            raise Malformed(f"a frame of more than {self._limits.max_frame_bytes} bytes", label="too_large")


def _part(buffer: bytearray, at: int, offset: int, length: int) -> bytes:
    """`length` bytes of the frame at `at`, from its `offset` on. Raises _Incomplete."""
    start = at + offset
    if len(buffer) < start + length:
        raise _Incomplete(offset + length)
    return bytes(buffer[start : start + length])
