"""Gzip that cannot fill the memory: every compressed way in goes through here."""

import zlib

from collector.errors import Malformed

__all__ = ["gunzip", "unzlib"]

_GZIP = 31  # zlib's wbits for "gzip header and trailer demanded"


def gunzip(data: bytes | bytearray | memoryview, *, max_bytes: int) -> bytes:
    """The content of one or more gzip members (RFC 1952 section 2.2 lets them follow each other; fluentd sends such).

    Never holds more than `max_bytes` of output.

    Raises:
        Malformed: not gzip, cut short or damaged (``bad_gzip``), or more than `max_bytes` (``too_large``).
    """
    out: list[bytes] = []
    room = max_bytes
    rest: bytes | bytearray | memoryview = data
    while True:
        member = zlib.decompressobj(_GZIP)
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
