"""Compressed streams inside of refused input, opened, so that what is kept of it can be masked: whoever has the compressed bytes has what is in them.

gzip (RFC 1952), zlib (RFC 1950) and zstd (RFC 8878), wherever they begin, whole, cut or damaged. Pure.
"""

import hashlib
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["inflated"]

_BEGIN = re.compile(
    rb"(?P<gzip>\x1f\x8b\x08)|(?P<zstd>\x28\xb5\x2f\xfd)|(?P<zlib>[\x08\x18\x28\x38\x48\x58\x68\x78].)", re.DOTALL
)
_DIGIT = re.compile(rb"[0-9]")
_LEAST_BYTES, _LEAST_DIGITS = 64, 12
"""What begins like zlib and breaks off with less than either is taken for no stream: its header has two bytes, and is found in many things. No card number is so short."""

_SLOWLY_BYTES, _STEP_BYTES = 512, 64
"""The first bytes of a stream are fed one by one: what comes out before a fault must be known of a short one as well."""

_MAX_LEVELS = 4
_MAX_TRIED_BYTES = 2**18
"""Fed to what was no stream after all. After so much the rest is taken for one: else many beginnings in a row, each tried to the end, would take long."""
_WINDOW: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: 23}


class _Stream(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, limit: int, /) -> bytes: ...


_OPEN: dict[str, Callable[[], _Stream]] = {
    "gzip": lambda: zlib.decompressobj(31),
    "zlib": lambda: zlib.decompressobj(15),
    "zstd": lambda: zstd.ZstdDecompressor(options=_WINDOW),
}


def inflated(data: bytes, most_bytes: int) -> bytes:
    """`data` with what is in its compressed streams in their places.

    Of a stream that is cut or damaged, or with those before it holds more than `most_bytes`, stands what comes out of it, and a note with length and SHA-256 in place of all that
    follows: where it would end is not known. So it is with streams inside of streams inside of streams inside of streams. UTF-8 holds no streams, and is what it was.
    """
    for _ in range(_MAX_LEVELS):
        opened = _opened(data, most_bytes)
        if opened is data:
            return data
        data = opened
    return data if _opened(data, most_bytes) is data else _note(data)


def _opened(data: bytes, most_bytes: int) -> bytes:
    """One level; `data` itself where there is nothing to open."""
    if _is_text(data):
        return data
    parts: list[bytes] = []
    kept = at = tried_bytes = 0
    room = most_bytes  # for all streams together: a few hundred bytes of streams inside of streams would else become gigabytes
    while (begin := _BEGIN.search(data, at)) is not None:
        at = begin.start()
        kind = begin.lastgroup or ""
        if kind == "zlib" and int.from_bytes(begin[0]) % 31:  # RFC 1950 section 2.2: FCHECK
            at += 1
            continue
        content, end, fed_bytes = _content(data, at, kind, room)
        tried_bytes += fed_bytes if end is None else 0
        if kind == "zlib" and end is None and tried_bytes <= _MAX_TRIED_BYTES and _gives_nothing(content):
            at += 1
            continue
        parts += [data[kept:at], content]
        if end is None:
            parts.append(_note(data[at:]))
            return b"".join(parts)
        room = max(room - len(content), _LEAST_BYTES)  # so much is needed to tell that something is a stream
        kept = at = end
    return b"".join((*parts, data[kept:])) if parts else data


def _gives_nothing(content: bytes) -> bool:
    return len(content) < _LEAST_BYTES and len(_DIGIT.findall(content)) < _LEAST_DIGITS


def _content(data: bytes, at: int, kind: str, room: int) -> tuple[bytes, int | None, int]:
    """At most `room` bytes of the stream that begins here, where it ends (None: it is cut, damaged or longer), and how much it was fed."""
    begin = at
    stream = _OPEN[kind]()
    out: list[bytes] = []
    slowly = at + _SLOWLY_BYTES
    while at < len(data):
        step = 1 if at < slowly else _STEP_BYTES
        fed = data[at : at + step]
        try:
            piece = stream.decompress(fed, room + 1)
        except (zlib.error, zstd.ZstdError):
            break
        out.append(piece[:room])
        at += len(fed)
        if stream.eof:
            return b"".join(out), at - len(stream.unused_data), at - begin
        room -= len(piece)
        if room < 0:
            break
    return b"".join(out), None, at - begin


def _note(data: bytes) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    return f" [{len(data)} compressed bytes from here on are not kept; SHA-256 {digest}]".encode()


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return (
            error.start >= len(data) - 3 and error.reason == "unexpected end of data"
        )  # it was cut inside of a character
    return True
