"""The spool's frame: how a group of events lies in a segment file (docs/format.md, "Spool").

    magic "TSF1" | body length u32 | CRC-32 of the body u32 | body

The body holds the sequence of its first event, the sequence below which all was durable when it was written, the group's
id, and for each event its source id, canonical bytes and facts line. Integers are little-endian. A frame is whole or it is not there:
what a crash tore is cut off on recovery, and `durable` tells a torn tail from damage, because no frame can name as durable
what was not.

Pure: bytes in, values out; `FrameError` for what is not a frame.
"""

import struct
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "MAGIC",
    "MAX_FRAME_BYTES",
    "PREFIX_BYTES",
    "Frame",
    "FrameError",
    "durable_behind",
    "read_frame",
    "write_frame",
]

MAGIC = b"TSF1"
"""How a frame begins. What else may stand in one is text, lengths and digests that hold none of it with a length behind it; ids are seen to (`collector.admission`)."""
_PREFIX = struct.Struct("<4sII")
_BODY = struct.Struct("<QQIH")

PREFIX_BYTES = _PREFIX.size
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Longest body that is written or believed: a longer length can only be damage."""


class FrameError(Exception):
    """The bytes are not a whole, undamaged frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A group of events as it stands in a segment.

    Attributes:
        first: sequence of the first event.
        durable: all sequences below this one were durable when the frame was written.
        group_id: the group's id, empty when it has none.
        source_ids: one for each event, empty where there is none.
        event_lengths: bytes of each event in `events`.
        events: canonical event bytes, one after the other.
        facts: facts lines, each ended by LF.
        end: offset of the first byte after the frame in what it was read from.
    """

    first: int
    durable: int
    group_id: bytes
    source_ids: Sequence[bytes]
    event_lengths: Sequence[int]
    events: bytes
    facts: bytes
    end: int = 0

    @property
    def count(self) -> int:
        """How many events the frame holds."""
        return len(self.event_lengths)


def write_frame(
    *,
    first: int,
    durable: int,
    group_id: bytes,
    source_ids: Sequence[bytes],
    events: Sequence[bytes],
    facts: Sequence[bytes],
) -> bytes:
    """The frame's bytes. `facts` are lines without their LF. Ids are at most 255 bytes each."""
    body = b"".join(
        (
            _BODY.pack(first, durable, len(events), len(group_id)),
            group_id,
            bytes(map(len, source_ids)),
            *source_ids,
            array("I", map(len, events)).tobytes(),
            *events,
            b"\n".join(facts),
            b"\n" if facts else b"",
        )
    )
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes; at most {MAX_FRAME_BYTES}")
    return _PREFIX.pack(MAGIC, len(body), zlib.crc32(body)) + body


def read_frame(data: bytes | memoryview, offset: int = 0) -> Frame:
    """The frame that starts at `offset`.

    Raises:
        FrameError: torn (too short), damaged (magic, checksum) or with lengths that do not add up.
    """
    if len(data) - offset < PREFIX_BYTES:
        raise FrameError("shorter than a frame's prefix")
    magic, length, checksum = _PREFIX.unpack_from(data, offset)
    if magic != MAGIC or length > MAX_FRAME_BYTES:
        raise FrameError("no frame starts here")
    start = offset + PREFIX_BYTES
    body = bytes(data[start : start + length])
    if len(body) < length:
        raise FrameError("the frame is cut short")
    if zlib.crc32(body) != checksum:
        raise FrameError("the frame's checksum does not hold")
    try:
        return _parse(body, start + length)
    except (struct.error, ValueError, IndexError) as error:
        raise FrameError(f"the frame's lengths do not add up: {error}") from error


def _parse(body: bytes, end: int) -> Frame:
    first, durable, count, group_length = _BODY.unpack_from(body, 0)
    at = _BODY.size
    group_id = body[at : at + group_length]
    at += group_length
    id_lengths = body[at : at + count]
    at += count
    source_ids: list[bytes] = []
    for length in id_lengths:
        source_ids.append(body[at : at + length])
        at += length
    event_lengths = array("I", body[at : at + 4 * count])
    at += 4 * count
    events_end = at + sum(event_lengths)
    facts = body[events_end:]
    if len(event_lengths) != count or events_end > len(body) or facts.count(b"\n") != count:
        raise ValueError("counts differ")
    return Frame(
        first=first,
        durable=durable,
        group_id=group_id,
        source_ids=source_ids,
        event_lengths=event_lengths,
        events=body[at:events_end],
        facts=facts,
        end=end,
    )


def durable_behind(data: bytes, offset: int) -> int:
    """Below which sequence all was durable, by what stands at or after `offset`, wherever it starts: the most that a whole frame there says; 0 if none is there.

    All of them are asked: those of one commit say the same, so that the first one behind a damaged place may not know of what was damaged.
    """
    durable = 0
    at = data.find(MAGIC, offset)
    while at >= 0:
        try:
            frame = read_frame(data, at)
        except FrameError:
            following = at + 1
        else:
            durable, following = max(durable, frame.durable), frame.end
        at = data.find(MAGIC, following)
    return durable
