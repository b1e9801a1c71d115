"""Canonical JSON, indented for people, piece by piece: deeply nested, it is sixty times as long as what it is made of. Pure."""

import re
from collections.abc import Iterator

import msgspec

from collector.canonical import MAX_DEPTH
from correlator.errors import VerificationError

__all__ = ["indented"]

AT_ONCE_BYTES = 4 << 20
"""What cannot become longer is indented in one piece, which is faster."""

_PIECE_BYTES = 64 << 10
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},:]|[^"\[\]{},:]++', re.DOTALL)


def indented(data: bytes, *, at_once_bytes: int = AT_ONCE_BYTES) -> Iterator[bytes]:
    """JSON without white space, indented by two spaces a level, as ``msgspec.json.format`` does; in pieces that end between characters.

    Raises:
        VerificationError: it is no JSON; found of what is indented in one piece, of the rest whoever decoded it before knows.
    """
    if _at_most(data) <= at_once_bytes:
        try:
            yield msgspec.json.format(data, indent=2)
        except (msgspec.DecodeError, RecursionError) as error:
            raise VerificationError(f"what is shown on the page cannot be read: {error}") from error
        return
    piece = bytearray()
    depth = 0
    opened = False  # the last token opened a list or an object: a line of its own follows, unless it is empty
    for found in _TOKEN.finditer(data):
        token = found.group()
        closes = token in (b"]", b"}")
        depth -= closes
        if opened != closes and (opened or closes):
            piece += b"\n" + b"  " * depth
        piece += token
        opened = token in (b"[", b"{")
        depth += opened
        if token == b",":
            piece += b"\n" + b"  " * depth
        elif token == b":":
            piece += b" "
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _at_most(data: bytes) -> int:
    """As long as it may become, from counts alone: what stands in strings is counted, too."""
    opened = data.count(b"[") + data.count(b"{")
    lines = data.count(b",") + 2 * opened
    return len(data) + data.count(b":") + lines * (1 + 2 * min(opened, 2 * MAX_DEPTH))
