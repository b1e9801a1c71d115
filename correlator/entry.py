"""An entry: one leaf of the log, one step of one trail (docs/format.md, "Entry").

Pure. The leaf hash SHA-256(0x00 ‖ entry bytes) (RFC 6962 section 2.1) serves both chains: it is the leaf in the Merkle tree,
and what the trail's next entry names in `previous`.
"""

from typing import Any, Literal

import msgspec

from collector.batch import EventRef, StreamId
from collector.canonical import MAX_DEPTH, MAX_SAFE_INTEGER, Normaliser, encode_exact, is_too_deep
from collector.errors import Malformed
from collector.event import Facts, are_plain, are_safe
from correlator.errors import VerificationError

__all__ = [
    "MAX_ENTRY_BYTES",
    "Entry",
    "Kind",
    "Previous",
    "decode_entry",
    "encode_entry",
    "ref_of",
]

MAX_ENTRY_BYTES = 65_535
"""The entry bundle of C2SP tlog-tiles gives an entry's length 16 bits."""

Kind = Literal["event", "batch", "gap", "link", "verdict", "enrolment", "fork"]


class Previous(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True):
    """The preceding entry of the same trail: its leaf index in the log and its leaf hash (64 hex digits)."""

    leaf: int
    hash: str


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One entry. `v`, `trail`, `position`, `kind` and `recorded` are always written, the rest when set.

    Attributes:
        v: version of the format, 1.
        trail: the trail's id: ``transaction/…``, ``key/<name>/…``, ``trace/…``, ``stream/…``, ``access/…``, each
            after ``tenant/<tenant>/`` where a tenant is set (`correlator.stitch`).
        position: 0 for the trail's first entry, then one more each.
        previous: the trail's preceding entry; unset at position 0.
        kind: what this entry is; `detail` depends on it.
        recorded: when the correlator made it, RFC 3339 UTC with nine digits, never decreasing along the log.
        clock_stepped: true when the correlator's clock had gone back, so that `recorded` repeats the last value.
        why: for events and links: why it is in this trail, in words.
        stream, sequence: for events: the event's id.
        facts: for events: the facts exactly as the batch header commits to them (`collector.event.Facts`).
        detail: for the other kinds: an object whose fields docs/format.md lists for each kind.
    """

    v: int
    trail: str
    position: int
    previous: Previous | None = None
    kind: Kind
    recorded: str
    clock_stepped: bool = False
    why: str = ""
    stream: str = ""
    sequence: int = -1
    facts: msgspec.Raw = msgspec.Raw(b"")
    detail: dict[str, Any] = {}


class _Strict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """As `Entry`, but with nothing left open: what a parser of bytes from outside demands."""

    v: Literal[1]
    trail: str
    position: int
    previous: Previous | None = None
    kind: Kind
    recorded: str
    clock_stepped: bool = False
    why: str = ""
    stream: str = ""
    sequence: int = -1
    facts: Facts | None = None
    detail: dict[str, Any] = {}


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Entry).decode
_decode_strict = msgspec.json.Decoder(_Strict).decode


def encode_entry(entry: Entry) -> bytes:
    """The entry's canonical JSON, which is the log's leaf.

    Raises:
        ValueError: longer than `MAX_ENTRY_BYTES` (limits on facts make this impossible for events).
    """
    data = _encode(entry)
    if len(data) > MAX_ENTRY_BYTES:
        raise ValueError(f"an entry of {len(data)} bytes: at most {MAX_ENTRY_BYTES} fit into an entry bundle")
    return data


def decode_entry(data: bytes) -> Entry:
    """The entry of its bytes.

    Raises:
        VerificationError: not an entry, an unknown field or kind, not in canonical form, longer than `MAX_ENTRY_BYTES`, or nested more
            than `MAX_DEPTH` levels deep: no log holds such an entry, and what shows it would take many times its bytes.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise VerificationError(f"entry has {len(data)} bytes, at most {MAX_ENTRY_BYTES} are one")
    if is_too_deep(data):
        raise VerificationError(f"entry is nested deeper than {MAX_DEPTH} levels")
    try:
        strict = _decode_strict(data)
        entry = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError(f"entry cannot be read: {error}") from error
    if (_encode(strict) if _is_plain(strict, data) else encode_exact(_as_doubles(strict))) != data:
        raise VerificationError("entry is not in canonical form")
    numbers = (strict.position, strict.sequence, strict.previous.leaf if strict.previous is not None else 0)
    if max(map(abs, numbers)) > MAX_SAFE_INTEGER or (strict.facts is not None and not are_safe(strict.facts)):
        raise VerificationError("entry has an integer beyond 2^53 - 1")
    return entry


def _is_plain(entry: _Strict, data: bytes) -> bool:
    """Whether msgspec writes it as RFC 8785 does: numbers and names beyond ASCII may be written, or ordered, in another way."""
    is_ascii = data.isascii()
    if not is_ascii and entry.facts is not None and not are_plain(entry.facts):
        return False
    return all(type(value) is str and (is_ascii or name.isascii()) for name, value in entry.detail.items())


def _as_doubles(entry: _Strict) -> Any:
    """The entry's values, with the integers that only a double that RFC 8785 wrote with all its digits can be as that double.

    Raises:
        VerificationError: a number that no double is.
    """
    try:
        return Normaliser(canonical=True).value(msgspec.to_builtins(entry))
    except Malformed as error:
        raise VerificationError(f"entry cannot be read: {error}") from error


def ref_of(entry: Entry) -> EventRef:
    """The id of the event that an entry of kind `event` records."""
    return EventRef(stream=StreamId(entry.stream), sequence=entry.sequence)
