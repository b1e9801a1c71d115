"""The head (what the log is now) and stagings (what its publishes hold until they are durable), as bytes. Pure.

The head is one JSON object, replaced by compare-and-swap. A staging is one JSON line, then the objects it lists, side by
side. The head names each staging that it still needs, with its SHA-256: one that it does not name is garbage.
"""

import re
from hashlib import sha256
from typing import Literal

import msgspec

from correlator.checkpoint import MAX_SIZE
from correlator.errors import VerificationError
from correlator.tiles import Tile

__all__ = ["Head", "StagingRef", "decode_head", "decode_staging", "encode_head", "encode_staging", "staging_epoch"]


class StagingRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A staging: its name ``<size>-<root, hex>.<epoch>``, and the SHA-256 of its bytes (64 hex digits)."""

    name: str
    sha256: str


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log as its writer last left it.

    Attributes:
        v: version of the format, 1.
        epoch: raised by each writer when it opens the log; a writer that finds another epoch has been deposed.
        writer: who has the log open under this epoch; empty when it was closed. The name itself is for people.
        written_ns: when, by the writer's clock, in nanoseconds since 1970; for people, and so that no two heads are alike.
        size: number of leaves.
        root: root of the tree of that size, 64 hex digits.
        checkpoint: the signed checkpoint of that tree, as published.
        stagings: those whose objects may not be durable yet, oldest first.
    """

    v: Literal[1] = 1
    epoch: int
    writer: str
    written_ns: int
    size: int
    root: str
    checkpoint: str
    stagings: tuple[StagingRef, ...] = ()


class _StagingHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: Literal[1] = 1
    size: int
    objects: list[tuple[str, int]]


_STAGING_NAME = re.compile(r"[0-9]{1,19}-[0-9a-f]{64}\.[0-9]{1,19}", re.ASCII)
_encoder = msgspec.json.Encoder()
_head_decoder = msgspec.json.Decoder(Head)
_staging_decoder = msgspec.json.Decoder(_StagingHeader)


def encode_head(head: Head) -> bytes:
    """The head as stored: one line of JSON."""
    return _encoder.encode(head) + b"\n"


def decode_head(data: bytes) -> Head:
    """Read a head.

    Raises:
        VerificationError: malformed.
    """
    try:
        head = _head_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise VerificationError(f"the head is malformed: {error}") from error
    if head.epoch < 1 or not 0 <= head.size <= MAX_SIZE or encode_head(head) != data:
        raise VerificationError("the head is not in the form in which heads are written")
    for ref in head.stagings:
        if _STAGING_NAME.fullmatch(ref.name) is None:
            raise VerificationError(f"the head names a staging {ref.name[:200]!r}, which is no staging's name")
    return head


def encode_staging(size: int, objects: list[tuple[Tile, bytes]]) -> bytes:
    """The staging of the publish that made the tree of ``size`` leaves: all the objects it adds."""
    header = _StagingHeader(size=size, objects=[(tile.path, len(data)) for tile, data in objects])
    return b"".join([_encoder.encode(header), b"\n", *(data for _, data in objects)])


def decode_staging(data: bytes, ref: StagingRef) -> list[tuple[Tile, bytes]]:
    """The objects of a staging, each with its place.

    Raises:
        VerificationError: its bytes are not those that the head names, or malformed.
    """
    if sha256(data).hexdigest() != ref.sha256:
        raise VerificationError(f"staging/{ref.name} is not the one that the head names: it was changed")
    line, _, rest = data.partition(b"\n")
    try:
        header = _staging_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise VerificationError(f"staging/{ref.name} is malformed: {error}") from error
    objects = []
    at = 0
    for path, length in header.objects:
        if not 0 <= length <= len(rest) - at:
            raise VerificationError(f"staging/{ref.name} ends inside {path[:100]}")
        objects.append((Tile.parse(path), rest[at : at + length]))
        at += length
    if at != len(rest):
        raise VerificationError(f"staging/{ref.name} has {len(rest) - at} bytes after its last object")
    return objects


def staging_epoch(name: str) -> int:
    """The epoch in a staging's name; 0 for a name that no writer makes."""
    digits = name.rpartition(".")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else 0
