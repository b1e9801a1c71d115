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
from typing import Literal

import msgspec

from correlator.archive import pack
from correlator.checkpoint import Checkpoint
from correlator.merkle import leaf_hash
from correlator.note import Verifier

__all__ = [
    "MAX_BUNDLE_ENTRIES",
    "MAX_TRAILS",
    "PAGE",
    "BundleHeader",
    "BundleLine",
    "Contents",
    "Manifest",
    "TrailPart",
    "encode_members",
    "manifest_of",
    "pack_bundle",
]

MAX_BUNDLE_ENTRIES = 100_000
"""Most lines of one member that are written or read."""

MAX_TRAILS = 1_000
"""Most trails of one bundle."""


MANIFEST, CHECKPOINT, TRAIL = "manifest.json", "checkpoint", "trail.ndjson"
HEADERS, ENROLMENTS, PROOFS = "headers.ndjson", "enrolments.ndjson", "proofs.ndjson"
PAGE = "index.html"
REQUIRED = (MANIFEST, CHECKPOINT, TRAIL, HEADERS, ENROLMENTS, PROOFS)


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
        page: when ``index.html`` is there, which version of the page rendered it (`correlator.page`); else null.
        size: leaves of the log under the checkpoint.
        trails: the trail asked for, then those linked to it by name.
        v: version of the format, 1.
    """

    counts: Counts
    key: str
    ledger: str
    page: Literal[1, 2, 3] | None
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
    """All that a bundle says. `proofs`: leaf index to inclusion path; `page`: index.html, None when left out, and the version that rendered it."""

    key: Verifier
    checkpoint: bytes = field(repr=False)
    trails: tuple[TrailPart, ...]
    headers: tuple[BundleHeader, ...]
    enrolments: tuple[BundleLine, ...]
    proofs: Mapping[int, tuple[bytes, ...]] = field(repr=False)
    page: bytes | None = field(default=None, repr=False)
    page_version: Literal[1, 2, 3] = 1

    def entry_lines(self) -> Iterator[BundleLine]:
        """The lines of trail.ndjson, in order."""
        for part in self.trails:
            yield from part.lines


# -------------------------------------------------------------------------------------------------------------- writing

_encode = msgspec.json.Encoder(order="sorted").encode


def _base64(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(part).decode("ascii") for part in hashes]


def entry_line(line: BundleLine) -> bytes:
    """A line of trail.ndjson, line end included."""
    return b'{"entry":%b,"event":%b,"leaf":%d}\n' % (line.entry, line.event or b"null", line.leaf)


def header_line(header: BundleHeader) -> bytes:
    """A line of headers.ndjson."""
    facts = [{"path": _base64(path), "sequence": sequence} for sequence, path in header.paths]
    return b'{"entry":%b,"facts":%b,"leaf":%d}\n' % (header.entry, _encode(facts), header.leaf)


def enrolment_line(line: BundleLine) -> bytes:
    """A line of enrolments.ndjson."""
    return b'{"entry":%b,"leaf":%d}\n' % (line.entry, line.leaf)


def proof_line(leaf: int, hashes: Sequence[bytes]) -> bytes:
    """A line of proofs.ndjson."""
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
        page=None if contents.page is None else contents.page_version,
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


def encode_manifest(manifest: Manifest) -> bytes:
    """manifest.json: one line."""
    return _encode(manifest) + b"\n"


def encode_members(contents: Contents) -> dict[str, bytes]:
    """The members of the bundle, in the order of the archive. Each trail must have an entry."""
    members = {
        MANIFEST: encode_manifest(manifest_of(contents)),
        CHECKPOINT: contents.checkpoint,
        TRAIL: b"".join(map(entry_line, contents.entry_lines())),
        HEADERS: b"".join(map(header_line, contents.headers)),
        ENROLMENTS: b"".join(map(enrolment_line, contents.enrolments)),
        PROOFS: b"".join(proof_line(leaf, contents.proofs[leaf]) for leaf in sorted(contents.proofs)),
    }
    return members if contents.page is None else {**members, PAGE: contents.page}


def pack_bundle(contents: Contents) -> bytes:
    """The bundle as a zip. Raises ValueError when it is larger than an archive may be."""
    return pack(encode_members(contents))
