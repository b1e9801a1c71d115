"""Reads bundles, strictly: every member in its one spelling, nothing missing, nothing more. Pure; it checks form only.

`correlator.bundle` writes them, `correlator.verify` says whether they are true. Format: docs/format-bundle.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import msgspec

from collector.event import MAX_EVENT_BYTES
from correlator.archive import unpack
from correlator.bundle import (
    CHECKPOINT,
    ENROLMENTS,
    HEADERS,
    MANIFEST,
    MAX_BUNDLE_ENTRIES,
    MAX_TRAILS,
    PAGE,
    PROOFS,
    REQUIRED,
    TRAIL,
    BundleHeader,
    BundleLine,
    Contents,
    Manifest,
    TrailPart,
    encode_manifest,
    enrolment_line,
    entry_line,
    header_line,
    manifest_of,
    proof_line,
)
from correlator.errors import VerificationError
from correlator.merkle import HASH_BYTES
from correlator.note import Verifier, decode_base64

__all__ = ["parse_members", "unpack_bundle"]

MAX_MANIFEST_BYTES = 1 << 20
_MAX_HASHES = 63
_MAX_EVENT_BYTES = 4 * MAX_EVENT_BYTES  # protection, which makes a text up to 3.2 times as long, comes after that bound
_MAX_EVENT_PARTS = 10 << 20


class _EntryRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entry: msgspec.Raw
    event: msgspec.Raw
    leaf: int


class _FactsPath(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: list[str]
    sequence: int


class _HeaderRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entry: msgspec.Raw
    facts: msgspec.Raw
    leaf: int


class _EnrolmentRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entry: msgspec.Raw
    leaf: int


class _ProofRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hashes: msgspec.Raw
    leaf: int


_Row = TypeVar("_Row")
_manifest: msgspec.json.Decoder[Manifest] = msgspec.json.Decoder(Manifest)
_entry_row: msgspec.json.Decoder[_EntryRow] = msgspec.json.Decoder(_EntryRow)
_header_row: msgspec.json.Decoder[_HeaderRow] = msgspec.json.Decoder(_HeaderRow)
_enrolment_row: msgspec.json.Decoder[_EnrolmentRow] = msgspec.json.Decoder(_EnrolmentRow)
_proof_row: msgspec.json.Decoder[_ProofRow] = msgspec.json.Decoder(_ProofRow)
_facts_paths: msgspec.json.Decoder[list[_FactsPath]] = msgspec.json.Decoder(list[_FactsPath])
_texts: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(list[str])


def unpack_bundle(data: bytes) -> dict[str, bytes]:
    """The members of a bundle.

    Raises:
        VerificationError: not a zip of the one form, or its members are not those of a bundle, in their order.
    """
    members = unpack(data)
    if tuple(members) not in (REQUIRED, (*REQUIRED, PAGE)):
        raise VerificationError(
            f"the bundle holds {', '.join(members)}; a bundle holds {', '.join(REQUIRED)} and perhaps {PAGE}, in this order"
        )
    return members


def parse_members(members: Mapping[str, bytes]) -> Contents:
    """The contents of a bundle's members: every line in its one spelling, nothing missing, nothing more.

    Raises:
        VerificationError: names the member and line.
    """
    for name in REQUIRED:
        if name not in members:
            raise VerificationError(f"the bundle has no {name}")
    for name in members:
        if name not in (*REQUIRED, PAGE):
            raise VerificationError(f"the bundle holds {name!r}, which is no member of a bundle")
    manifest = _read_manifest(members[MANIFEST])
    lines = []
    for where, data in _lines(members, TRAIL):
        row = _decode(_entry_row, data, where)
        raw = bytes(row.event)
        event = None if raw == b"null" else raw
        _demand_bounds(raw, where)
        lines.append(BundleLine(leaf=row.leaf, entry=bytes(row.entry), event=event))
        _same_spelling(entry_line(lines[-1]), data, where)
    contents = Contents(
        key=Verifier.parse(manifest.key),
        checkpoint=members[CHECKPOINT],
        trails=_cut(manifest, lines),
        headers=tuple(_read_headers(members)),
        enrolments=tuple(_read_enrolments(members)),
        proofs=_read_proofs(members),
        page=members.get(PAGE),
        page_version=manifest.page or 1,
    )
    _compare(manifest, manifest_of(contents))
    return contents


def _decode(decoder: "msgspec.json.Decoder[_Row]", data: bytes, where: str) -> _Row:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError(f"{where} cannot be read: {error}") from error


def _same_spelling(expected: bytes, line: bytes, where: str) -> None:
    if expected != line + b"\n":
        raise VerificationError(f"{where} is not in its canonical form")


def _read_manifest(data: bytes) -> Manifest:
    if len(data) > MAX_MANIFEST_BYTES:
        raise VerificationError(f"{MANIFEST} has {len(data)} bytes, at most {MAX_MANIFEST_BYTES} are read")
    manifest = _decode(_manifest, data, MANIFEST)
    if encode_manifest(manifest) != data:
        raise VerificationError(f"{MANIFEST} is not in its canonical form")
    if not 1 <= len(manifest.trails) <= MAX_TRAILS:
        raise VerificationError(f"{MANIFEST} names {len(manifest.trails)} trails: 1 to {MAX_TRAILS} are allowed")
    return manifest


def _lines(members: Mapping[str, bytes], name: str) -> Iterator[tuple[str, bytes]]:
    """Each line of a member without its line end, and how to call it."""
    data = members[name]
    if data and not data.endswith(b"\n"):
        raise VerificationError(f"{name} does not end with a line end: it was cut")
    if data.count(b"\n") > MAX_BUNDLE_ENTRIES:
        raise VerificationError(f"{name} has more than {MAX_BUNDLE_ENTRIES} lines")
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        yield f"{name} line {number}", line


def _demand_bounds(event: bytes, where: str) -> None:
    """Refuse what no collector takes, before it is decoded: then an empty list in an event is seventy times its bytes."""
    if len(event) > _MAX_EVENT_BYTES:
        raise VerificationError(f"{where}: the event has {len(event)} bytes, at most {_MAX_EVENT_BYTES} are one")
    parts = sum(map(event.count, (b",", b"[", b"{")))
    if parts > _MAX_EVENT_PARTS:
        raise VerificationError(f"{where}: the event has {parts} parts, at most {_MAX_EVENT_PARTS} are one")


def _listed(
    decoder: "msgspec.json.Decoder[list[_Row]]", raw: msgspec.Raw, where: str, *, most: int, strings: int
) -> list[_Row]:
    """A list of at most `most` objects with at most `strings` strings each, names included (0 objects: of strings).

    Counted before it is decoded, because a bundle of a megabyte has room for twenty million.
    """
    data = bytes(raw)
    if data.count(b"{") > most or data.count(b'"') > 2 * strings * max(data.count(b"{"), 1):
        raise VerificationError(f"{where} lists more than there can be")
    return _decode(decoder, data, where)


def _hashes(texts: Sequence[str], where: str) -> tuple[bytes, ...]:
    if len(texts) > _MAX_HASHES:
        raise VerificationError(f"{where} has {len(texts)} hashes, no tree needs more than {_MAX_HASHES}")
    hashes = tuple(decode_base64(text, f"{where}: hash {at}") for at, text in enumerate(texts))
    for at, part in enumerate(hashes):
        if len(part) != HASH_BYTES:
            raise VerificationError(f"{where}: hash {at} has {len(part)} bytes, not {HASH_BYTES}")
    return hashes


def _cut(manifest: Manifest, lines: Sequence[BundleLine]) -> tuple[TrailPart, ...]:
    """The lines of trail.ndjson, trail by trail as the manifest counts them."""
    parts = []
    at = 0
    for trail in manifest.trails:
        if not 1 <= trail.entries <= len(lines) - at or trail.first < 0:
            raise VerificationError(
                f"{MANIFEST} states {trail.entries} entries of {trail.trail} from position {trail.first} on; "
                f"{TRAIL} has {len(lines) - at} lines left for it"
            )
        parts.append(TrailPart(trail=trail.trail, first=trail.first, lines=tuple(lines[at : at + trail.entries])))
        at += trail.entries
    if at != len(lines):
        raise VerificationError(f"{TRAIL} has {len(lines)} lines, {MANIFEST} states {at}")
    return tuple(parts)


def _ascending(leaf: int, before: int, where: str) -> int:
    if leaf <= before:
        raise VerificationError(f"{where}: leaf {leaf} does not come after the line before it (leaf {before})")
    return leaf


def _read_headers(members: Mapping[str, bytes]) -> Iterator[BundleHeader]:
    before = -1
    room = MAX_BUNDLE_ENTRIES  # each is of another event, and each event a line of trail.ndjson
    for where, data in _lines(members, HEADERS):
        row = _decode(_header_row, data, where)
        before = _ascending(row.leaf, before, where)
        facts = _listed(_facts_paths, row.facts, where, most=room, strings=2 + _MAX_HASHES)
        room -= len(facts)
        sequences = [part.sequence for part in facts]
        if any(later <= earlier for earlier, later in pairwise(sequences)):
            raise VerificationError(f"{where}: its paths are not in the order of their sequences, each once")
        paths = tuple((part.sequence, _hashes(part.path, where)) for part in facts)
        header = BundleHeader(leaf=row.leaf, entry=bytes(row.entry), paths=paths)
        _same_spelling(header_line(header), data, where)
        yield header


def _read_enrolments(members: Mapping[str, bytes]) -> Iterator[BundleLine]:
    before = -1
    for where, data in _lines(members, ENROLMENTS):
        row = _decode(_enrolment_row, data, where)
        before = _ascending(row.leaf, before, where)
        line = BundleLine(leaf=row.leaf, entry=bytes(row.entry))
        _same_spelling(enrolment_line(line), data, where)
        yield line


def _read_proofs(members: Mapping[str, bytes]) -> dict[int, tuple[bytes, ...]]:
    proofs = {}
    before = -1
    for where, data in _lines(members, PROOFS):
        row = _decode(_proof_row, data, where)
        before = _ascending(row.leaf, before, where)
        proofs[before] = _hashes(_listed(_texts, row.hashes, where, most=0, strings=_MAX_HASHES), where)
        _same_spelling(proof_line(before, proofs[before]), data, where)
    return proofs


def _compare(stated: Manifest, found: Manifest) -> None:
    """Every field of the manifest must be what the other members say."""

    def walk(name: str, left: Any, right: Any) -> None:
        if left == right:
            return
        if isinstance(left, msgspec.Struct) and isinstance(right, msgspec.Struct):
            for field_name in left.__struct_fields__:
                walk(f"{name}.{field_name}", getattr(left, field_name), getattr(right, field_name))
        elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
            for at, (one, other) in enumerate(zip(left, right, strict=True)):
                walk(f"{name}[{at}]", one, other)
        else:
            raise VerificationError(f"{MANIFEST}: {name[1:]} is {left!r}, the other members say {right!r}")

    walk("", stated, found)
