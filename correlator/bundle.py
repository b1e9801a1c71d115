"""The bundle: one trail, or a story of several, with all that an offline check needs, as one zip. Pure; it checks form only.

    manifest.json       what is in here: ledger, key, size of the log, trails, counts
    checkpoint          the signed checkpoint, verbatim
    trail.ndjson        each trail's entries by position, each with its event (or null: not shown)
    headers.ndjson      the entries that hold the signed batch headers concerned, and where each event's facts are under them
    enrolments.ndjson   the entries that enrolled the keys of those headers
    proofs.ndjson       for each entry of the other files its RFC 6962 inclusion path
    index.html          the same story for people (may be left out)

Everything in it follows from what is proved: the manifest is worked out from the other members, and the page is rendered from
them, so nothing unproved can be slipped in, and the same trail at the same checkpoint always is the same file.
`correlator.verify` says whether it is true. Format: docs/format-bundle.md.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec

from correlator.archive import pack, unpack
from correlator.checkpoint import Checkpoint
from correlator.errors import VerificationError
from correlator.merkle import HASH_BYTES, leaf_hash
from correlator.note import Verifier, decode_base64

__all__ = [
    "MAX_BUNDLE_ENTRIES",
    "PAGE",
    "BundleHeader",
    "BundleLine",
    "Contents",
    "Manifest",
    "TrailPart",
    "encode_members",
    "manifest_of",
    "pack_bundle",
    "parse_members",
    "unpack_bundle",
]

MAX_BUNDLE_ENTRIES = 100_000
"""Most lines of one member that are written or read."""

MAX_MANIFEST_BYTES = 1 << 20
MAX_TRAILS = 1_000
_MAX_HASHES = 63

MANIFEST, CHECKPOINT, TRAIL = "manifest.json", "checkpoint", "trail.ndjson"
HEADERS, ENROLMENTS, PROOFS = "headers.ndjson", "enrolments.ndjson", "proofs.ndjson"
PAGE = "index.html"
_REQUIRED = (MANIFEST, CHECKPOINT, TRAIL, HEADERS, ENROLMENTS, PROOFS)


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last entry of a trail here: its leaf index, and its leaf hash as 64 hex digits."""

    hash: str
    leaf: int


class TrailRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which entries of a trail are here: positions `first` to ``first + entries - 1``."""

    entries: int
    first: int
    head: Head
    trail: str


class Counts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lines of each member; `events` counts those that are not null, `facts` the paths in headers.ndjson."""

    enrolments: int
    entries: int
    events: int
    facts: int
    headers: int
    proofs: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in a bundle; nothing in it is more than the other members say.

    Attributes:
        counts: lines of each member.
        key: the log's verifier key (vkey), as the bundle states it: for comparing, not for trust.
        ledger: the log's origin.
        page: 1 when ``index.html`` is there, rendered by version 1 of the page; else null.
        size: leaves of the log under the checkpoint.
        trails: the trail asked for, then those linked to it by name.
        v: version of the format, 1.
    """

    counts: Counts
    key: str
    ledger: str
    page: Literal[1] | None
    size: int
    trails: list[TrailRange]
    v: Literal[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleLine:
    """An entry (canonical bytes) with its leaf index; in trail.ndjson with its event's canonical bytes, None if not shown."""

    leaf: int
    entry: bytes
    event: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleHeader:
    """The entry of kind `batch` that holds a signed header, and for some of its events the path of their facts.

    `paths`: (sequence, inclusion path of that event's facts line under the header's `facts_root`), ascending.
    """

    leaf: int
    entry: bytes
    paths: tuple[tuple[int, tuple[bytes, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailPart:
    """A trail's entries from position `first` on."""

    trail: str
    first: int
    lines: tuple[BundleLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All that a bundle says. `proofs`: leaf index to inclusion path; `page`: index.html, None when left out."""

    key: Verifier
    checkpoint: bytes = field(repr=False)
    trails: tuple[TrailPart, ...]
    headers: tuple[BundleHeader, ...]
    enrolments: tuple[BundleLine, ...]
    proofs: Mapping[int, tuple[bytes, ...]] = field(repr=False)
    page: bytes | None = field(default=None, repr=False)

    def entry_lines(self) -> Iterator[BundleLine]:
        """The lines of trail.ndjson, in order."""
        for part in self.trails:
            yield from part.lines


# -------------------------------------------------------------------------------------------------------------- writing

_encode = msgspec.json.Encoder(order="sorted").encode


def _base64(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(part).decode("ascii") for part in hashes]


def _entry_line(line: BundleLine) -> bytes:
    return b'{"entry":%b,"event":%b,"leaf":%d}\n' % (line.entry, line.event or b"null", line.leaf)


def _header_line(header: BundleHeader) -> bytes:
    facts = [{"path": _base64(path), "sequence": sequence} for sequence, path in header.paths]
    return b'{"entry":%b,"facts":%b,"leaf":%d}\n' % (header.entry, _encode(facts), header.leaf)


def _enrolment_line(line: BundleLine) -> bytes:
    return b'{"entry":%b,"leaf":%d}\n' % (line.entry, line.leaf)


def _proof_line(leaf: int, hashes: Sequence[bytes]) -> bytes:
    return b'{"hashes":%b,"leaf":%d}\n' % (_encode(_base64(hashes)), leaf)


def manifest_of(contents: Contents) -> Manifest:
    """The one manifest that these contents have; their checkpoint is read, not checked. Raises `VerificationError`."""
    checkpoint = Checkpoint.parse(contents.checkpoint.rpartition(b"\n\n")[0] + b"\n")
    return Manifest(
        counts=Counts(
            enrolments=len(contents.enrolments),
            entries=sum(len(part.lines) for part in contents.trails),
            events=sum(line.event is not None for line in contents.entry_lines()),
            facts=sum(len(header.paths) for header in contents.headers),
            headers=len(contents.headers),
            proofs=len(contents.proofs),
        ),
        key=contents.key.vkey,
        ledger=checkpoint.origin,
        page=None if contents.page is None else 1,
        size=checkpoint.size,
        trails=[
            TrailRange(
                entries=len(part.lines),
                first=part.first,
                head=Head(hash=leaf_hash(part.lines[-1].entry).hex(), leaf=part.lines[-1].leaf),
                trail=part.trail,
            )
            for part in contents.trails
        ],
        v=1,
    )


def encode_members(contents: Contents) -> dict[str, bytes]:
    """The members of the bundle, in the order of the archive. Each trail must have an entry."""
    members = {
        MANIFEST: _encode(manifest_of(contents)) + b"\n",
        CHECKPOINT: contents.checkpoint,
        TRAIL: b"".join(map(_entry_line, contents.entry_lines())),
        HEADERS: b"".join(map(_header_line, contents.headers)),
        ENROLMENTS: b"".join(map(_enrolment_line, contents.enrolments)),
        PROOFS: b"".join(_proof_line(leaf, contents.proofs[leaf]) for leaf in sorted(contents.proofs)),
    }
    return members if contents.page is None else {**members, PAGE: contents.page}


def pack_bundle(contents: Contents) -> bytes:
    """The bundle as a zip. Raises ValueError when it is larger than an archive may be."""
    return pack(encode_members(contents))


# -------------------------------------------------------------------------------------------------------------- reading


class _EntryRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entry: msgspec.Raw
    event: msgspec.Raw
    leaf: int


class _FactsPath(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: list[str]
    sequence: int


class _HeaderRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entry: msgspec.Raw
    facts: list[_FactsPath]
    leaf: int


class _EnrolmentRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entry: msgspec.Raw
    leaf: int


class _ProofRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hashes: list[str]
    leaf: int


_Row = TypeVar("_Row")
_manifest: msgspec.json.Decoder[Manifest] = msgspec.json.Decoder(Manifest)
_entry_row: msgspec.json.Decoder[_EntryRow] = msgspec.json.Decoder(_EntryRow)
_header_row: msgspec.json.Decoder[_HeaderRow] = msgspec.json.Decoder(_HeaderRow)
_enrolment_row: msgspec.json.Decoder[_EnrolmentRow] = msgspec.json.Decoder(_EnrolmentRow)
_proof_row: msgspec.json.Decoder[_ProofRow] = msgspec.json.Decoder(_ProofRow)


def unpack_bundle(data: bytes) -> dict[str, bytes]:
    """The members of a bundle.

    Raises:
        VerificationError: not a zip of the one form, or its members are not those of a bundle, in their order.
    """
    members = unpack(data)
    if tuple(members) not in (_REQUIRED, (*_REQUIRED, PAGE)):
        raise VerificationError(
            f"the bundle holds {', '.join(members)}; a bundle holds {', '.join(_REQUIRED)} and perhaps {PAGE}, in this order"
        )
    return members


def parse_members(members: Mapping[str, bytes]) -> Contents:
    """The contents of a bundle's members: every line in its one spelling, nothing missing, nothing more.

    Raises:
        VerificationError: names the member and line.
    """
    for name in _REQUIRED:
        if name not in members:
            raise VerificationError(f"the bundle has no {name}")
    for name in members:
        if name not in (*_REQUIRED, PAGE):
            raise VerificationError(f"the bundle holds {name!r}, which is no member of a bundle")
    manifest = _read_manifest(members[MANIFEST])
    lines = []
    for where, data in _lines(members, TRAIL):
        row = _decode(_entry_row, data, where)
        raw = bytes(row.event)
        event = None if raw == b"null" else raw
        lines.append(BundleLine(leaf=row.leaf, entry=bytes(row.entry), event=event))
        _same_spelling(_entry_line(lines[-1]), data, where)
    contents = Contents(
        key=Verifier.parse(manifest.key),
        checkpoint=members[CHECKPOINT],
        trails=_cut(manifest, lines),
        headers=tuple(_read_headers(members)),
        enrolments=tuple(_read_enrolments(members)),
        proofs=_read_proofs(members),
        page=members.get(PAGE),
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
    if _encode(manifest) + b"\n" != data:
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
    for where, data in _lines(members, HEADERS):
        row = _decode(_header_row, data, where)
        before = _ascending(row.leaf, before, where)
        paths = tuple((part.sequence, _hashes(part.path, where)) for part in row.facts)
        header = BundleHeader(leaf=row.leaf, entry=bytes(row.entry), paths=paths)
        _same_spelling(_header_line(header), data, where)
        yield header


def _read_enrolments(members: Mapping[str, bytes]) -> Iterator[BundleLine]:
    before = -1
    for where, data in _lines(members, ENROLMENTS):
        row = _decode(_enrolment_row, data, where)
        before = _ascending(row.leaf, before, where)
        line = BundleLine(leaf=row.leaf, entry=bytes(row.entry))
        _same_spelling(_enrolment_line(line), data, where)
        yield line


def _read_proofs(members: Mapping[str, bytes]) -> dict[int, tuple[bytes, ...]]:
    proofs = {}
    before = -1
    for where, data in _lines(members, PROOFS):
        row = _decode(_proof_row, data, where)
        before = _ascending(row.leaf, before, where)
        proofs[before] = _hashes(row.hashes, where)
        _same_spelling(_proof_line(before, proofs[before]), data, where)
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
