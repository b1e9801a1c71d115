"""What a SIEM holds, held to the log: does each record's entry stand where it says, and does the log continue what it was sent under?"""

import base64
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from collector.canonical import encode_exact
from collector.errors import Malformed, VerificationError
from correlator.merkle import leaf_hash
from correlator.reader import LogReader

__all__ = ["Held", "read_held", "verify_held"]

_MAX_DEPTH = 8
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    size: _Count
    root: str


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a record of the formats ``json``, ``ecs`` and ``ocsf`` says of its entry; `entry` and `event` are in ``json`` alone.

    One of ``json`` that has no event says why: it is `cut`, there was a `problem`, or the event was `retired`.
    """

    id: str
    log: str
    leaf: _Count
    leaf_hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    checkpoint: _Checkpoint
    entry: dict[str, Any] | None = None
    event: dict[str, Any] | None = None
    cut: Any = None
    problem: str = ""
    retired: str = ""

    @property
    def reasoned(self) -> bool:
        """Whether it says why it has no event."""
        return bool(self.cut or self.problem or self.retired)


def read_held(line: bytes) -> Held:
    """The record in a line of JSON, also inside of what a SIEM puts around it (``_source``, ``result``). Raises `Malformed`."""
    try:
        told = msgspec.json.decode(line)
        found = _inside(told, _MAX_DEPTH)
        if found is None:
            raise Malformed("no record of ours: nothing in it has id, leaf_hash and checkpoint")
        return msgspec.convert(found, Held)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"no record of ours: {error}") from error


def _inside(value: Any, depth: int) -> Mapping[str, Any] | None:
    if not isinstance(value, dict) or depth == 0:
        return None
    if {"id", "leaf_hash", "checkpoint"} <= value.keys():
        return value
    return next((found for below in value.values() if (found := _inside(below, depth - 1)) is not None), None)


def verify_held(held: Held, reader: LogReader) -> None:
    """Hold a record to its log, as `reader` verified that against the log's key.

    Raises:
        VerificationError: what does not hold, by the record's id.
        NotFound: nothing is published.
        Overloaded: the log does not answer.
    """
    size = reader.tree().size
    if held.leaf >= size or held.checkpoint.size > size:
        raise VerificationError(f"{held.id} was sent of a log of {held.checkpoint.size} leaves, and there are {size}")
    if held.id != f"{held.log}#{held.leaf}":
        raise VerificationError(f"{held.id} is not the id of what stands at leaf {held.leaf} of {held.log}")
    if reader.leaf_hash(held.leaf).hex() != held.leaf_hash:
        raise VerificationError(f"{held.id}: the log has another entry at leaf {held.leaf}")
    root = base64.b64encode(reader.root(held.checkpoint.size)).decode("ascii")
    if root != held.checkpoint.root:
        raise VerificationError(
            f"{held.id}: the log's first {held.checkpoint.size} leaves are not those it was sent under"
        )
    if held.entry is None:
        if held.event is not None:
            raise VerificationError(f"{held.id}: it has an event, and the entry that names it was taken out")
        return
    if leaf_hash(encode_exact(held.entry)).hex() != held.leaf_hash:
        raise VerificationError(f"{held.id}: its entry is not the one in the log")
    if held.event is None and held.entry.get("kind") == "event" and not held.reasoned:
        raise VerificationError(f"{held.id}: its event was taken out, and nothing in it says why")
    digest = (held.entry.get("facts") or {}).get("digest")
    if held.event is not None and sha256(encode_exact(held.event)).hexdigest() != digest:
        raise VerificationError(f"{held.id}: its event is not the one in the log")
