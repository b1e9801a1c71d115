"""Gzip and zstd that cannot fill the memory: every compressed way in goes through here.

Three bounds: so many bytes in all, so many times what was sent, so many members. Memory beside the output stays small too: zstd's window is
bounded as RFC 8878 section 3.1.1.1.2 recommends.
"""

import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

from collector.errors import Malformed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["MAX_RATIO", "gunzip", "unzlib", "unzstd"]

MAX_RATIO = 1_032
"""Most bytes of content for each compressed byte: what deflate can do at best, so gzip never gets there, and zstd bombs do."""

_ALWAYS_BYTES = (
    8 * 2**20
)  # so much is inflated whatever the ratio: equal lines fill a chunk of fluentd, which is so long, from few bytes
_MAX_MEMBERS = 131_072
_FIRST_BYTES, _MOST_BYTES = 1_024, 1_048_576
_GZIP = 31  # zlib's wbits for "gzip header and trailer demanded"
_WINDOW: Mapping[int, int] = {
    zstd.DecompressionParameter.window_log_max: 23
}  # 8 MiB, which every level up to 19 keeps to


def gunzip(data: bytes | bytearray | memoryview, *, max_bytes: int) -> bytes:
    """The content of one or more gzip members (RFC 1952 section 2.2 lets them follow each other; fluentd sends such).

    Never holds more than `max_bytes` of output.

    Raises:
        Malformed: not gzip, cut short or damaged (``bad_gzip``), or more than `max_bytes` (``too_large``).
    """
    return _inflate(data, lambda: zlib.decompressobj(_GZIP), zlib.error, coding="gzip", max_bytes=max_bytes)


def unzstd(data: bytes | bytearray | memoryview, *, max_bytes: int) -> bytes:
    """The content of one or more zstd frames (RFC 8878 section 3.1).

    Never holds more than `max_bytes` of output, nor more than `MAX_RATIO` times the data (8 MiB are always allowed).

    Raises:
        Malformed: not zstd, cut short, damaged or with a window of more than 8 MiB (``bad_zstd``), or beyond these bounds (``too_large``).
    """
    return _inflate(
        data, lambda: zstd.ZstdDecompressor(options=_WINDOW), zstd.ZstdError, coding="zstd", max_bytes=max_bytes
    )


class _Member(Protocol):
    """What zlib's and zstd's decompressors have in common. When less than `limit` comes back, all input is used up or over."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview, limit: int, /) -> bytes: ...


def _inflate(
    data: bytes | bytearray | memoryview,
    new: Callable[[], _Member],
    broken: type[Exception],
    *,
    coding: str,
    max_bytes: int,
) -> bytes:
    out: list[bytes] = []
    view = memoryview(data)
    bound = min(max_bytes, max(_ALWAYS_BYTES, MAX_RATIO * len(view)))
    room = bound
    at = 0
    step = len(view)  # there is mostly one member
    for _ in range(_MAX_MEMBERS):
        member = new()
        while not member.eof:
            fed = view[at : at + step]
            if not fed:
                raise Malformed(f"{coding} data that ends too early", label=f"bad_{coding}")
            try:
                piece = member.decompress(fed, room + 1)
            except broken as error:
                raise Malformed(f"not {coding}: {error}", label=f"bad_{coding}") from error
            room -= len(piece)
            if room < 0:
                raise Malformed(f"more than {bound} bytes when decompressed", label="too_large")
            out.append(piece)
            at += len(fed)
            step = min(4 * step, _MOST_BYTES)
        # what follows a member is copied by it: so feed the next ones little by little, or many small ones would take forever
        at -= len(member.unused_data)
        step = _FIRST_BYTES
        if at == len(view):
            return out[0] if len(out) == 1 else b"".join(out)
    raise Malformed(f"more than {_MAX_MEMBERS} pieces of {coding}", label="too_large")


def unzlib(data: bytes | bytearray | memoryview, *, max_bytes: int) -> bytes:
    """The content of one zlib stream (RFC 1950), which gRPC and HTTP call "deflate". Bounds and errors as `gunzip` (``bad_zlib``)."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise Malformed(f"not zlib: {error}", label="bad_zlib") from error
    if len(content) > max_bytes:
        raise Malformed(f"more than {max_bytes} bytes when decompressed", label="too_large")
    if not stream.eof or stream.unused_data:
        raise Malformed("zlib data that ends too early, or does not end with its stream", label="bad_zlib")
    return content
