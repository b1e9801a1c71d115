"""Gzip that cannot fill the memory: every compressed way in goes through here."""

import zlib

from collector.errors import Malformed

__all__ = ["gunzip", "inflate"]

# zlib's wbits
_GZIP = 31  # gzip header and trailer demanded
_EITHER = 47  # those of gzip or of zlib


def gunzip(data: bytes | bytearray | memoryview, *, max_bytes: int) -> bytes:
    """The content of one or more gzip members (RFC 1952 section 2.2 lets them follow each other; fluentd sends such).

    Never holds more than `max_bytes` of output.

    Raises:
        Malformed: not gzip, cut short or damaged (``bad_gzip``), or more than `max_bytes` (``too_large``).
    """
    return _inflate(data, max_bytes, _GZIP)


def inflate(data: bytes | bytearray | memoryview, *, max_bytes: int) -> bytes:
    """As `gunzip`; the data may also be in zlib's format (RFC 1950), which gRPC and HTTP call "deflate"."""
    return _inflate(data, max_bytes, _EITHER)


def _inflate(data: bytes | bytearray | memoryview, max_bytes: int, window_bits: int) -> bytes:
    out: list[bytes] = []
    room = max_bytes
    rest: bytes | bytearray | memoryview = data
    while True:
        member = zlib.decompressobj(window_bits)
        try:
            piece = member.decompress(rest, room + 1)
        except zlib.error as error:
            raise Malformed(f"not gzip: {error}", label="bad_gzip") from error
        room -= len(piece)
        if room < 0:
            raise Malformed(f"more than {max_bytes} bytes when decompressed", label="too_large")
        out.append(piece)
        if not member.eof:
            raise Malformed("gzip data that ends too early", label="bad_gzip")
        rest = member.unused_data
        if not rest:
            return b"".join(out)
