"""A batch: a numbered, chained, signed run of events of one stream (docs/format.md, "Batch header").

The header is small and public: it names the run, chains to the header before it, and commits to every event through
`facts_root`, the RFC 6962 Merkle tree hash over the events' facts lines. So a bundle can show that the collector signed
one event without showing the facts of its neighbours.

Pure: bytes in, values or `VerificationError` out.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from collector.canonical import MAX_SAFE_INTEGER
from collector.errors import VerificationError

__all__ = [
    "MAX_BATCH_EVENTS",
    "MAX_HEADER_BYTES",
    "Batch",
    "BatchHeader",
    "Clock",
    "EventRef",
    "Fork",
    "SignedHeader",
    "StreamId",
    "facts_root",
    "is_stream_id",
    "month_of",
    "open_header",
    "read_header",
    "sign_header",
    "stream_id",
]

StreamId = NewType("StreamId", str)
"""``<collector name>/<incarnation>``: one life of one spool; for an imported file ``import/<SHA-256 of the file>``."""

_STREAM = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?/[0-9a-f]{16,64}", re.ASCII)
_DOMAIN = b"tallystick/batch/v1\n"

MAX_HEADER_BYTES = 8_192
"""Longest header accepted: it must fit into one log entry with room to spare."""

MAX_BATCH_EVENTS = 65_536
"""Most events in one batch."""

_MOST_HEARTBEAT_SECONDS = 2**31


def stream_id(collector: str, incarnation: str) -> StreamId:
    """The stream of a collector's name and its incarnation (16–64 hex digits); raises ValueError on other characters."""
    text = f"{collector}/{incarnation}"
    if not is_stream_id(text):
        raise ValueError(
            f"{text!r} cannot name a stream: lower-case letters, digits, dots, dashes and underscores, "
            "a slash, then 16 to 64 hex digits"
        )
    return StreamId(text)


def is_stream_id(text: str) -> bool:
    """Whether this can name a stream: what `stream_id` gives, and nothing else."""
    return _STREAM.fullmatch(text) is not None


class Clock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By how much the collector's clock was measured to be ahead of UTC (negative: behind), in nanoseconds, and the uncertainty (±)."""

    offset_ns: int
    uncertainty_ns: int


class Fork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Said once, in a stream's first header: it takes over from `stream`, whose batch `number` the store held with other bytes.

    That happens when a spool was cloned and both copies ship. `digest` is the hash of the header that was refused.
    """

    stream: str
    number: int
    digest: str


class BatchHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a collector signs. Every field is always written.

    Attributes:
        v: version of the format, 1.
        ledger: name of the ledger (the log's origin) this stream belongs to.
        stream: the `StreamId`.
        number: 1 for the stream's first batch, then one more each. No integer here is beyond ±(2^53 − 1).
        first: sequence of the first event (the stream's first event has sequence 0); of the next event if `count` is 0.
        count: number of events, 0–65,536; a batch without events is a heartbeat or a closing.
        previous: SHA-256 of the previous header's bytes, hex; empty for number 1.
        facts_root: RFC 6962 tree hash over the facts lines, hex; SHA-256 of nothing when `count` is 0.
        key: the Ed25519 public key that signs, 64 hex digits.
        created: when it was cut, RFC 3339 UTC with nine digits, by the collector's clock.
        clock: measured clock offset, null when unmeasured.
        place: where the store keeps the events (an index name), empty where the store has but one place.
        heartbeat_seconds: the next batch follows within so many seconds, at most 2^31; 0: no promise.
        closed: true when this is the stream's last batch.
        fork: in the first header of a stream that replaces a forked one; else null.
    """

    v: int
    ledger: str
    stream: str
    number: int
    first: int
    count: int
    previous: str
    facts_root: str
    key: str
    created: str
    clock: Clock | None
    place: str
    heartbeat_seconds: int
    closed: bool
    fork: Fork | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRef:
    """An event's id: its stream and its sequence in it, dense from 0."""

    stream: StreamId
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHeader:
    """A header as it was signed, with the facts lines it commits to.

    Attributes:
        header: the parsed header.
        data: its canonical bytes, which are what is hashed and signed.
        signature: Ed25519 over the line ``tallystick/batch/v1`` and its line end, then `data`; 64 bytes.
        facts: one canonical facts JSON a line, in sequence order, each line ended by LF; empty if `count` is 0.
    """

    header: BatchHeader
    data: bytes
    signature: bytes
    facts: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the header's bytes, hex: what the next header's `previous` must be."""
        return hashlib.sha256(self.data).hexdigest()

    def facts_lines(self) -> list[bytes]:
        """The facts of each event, without line ends: the leaves of the facts tree."""
        return self.facts.split(b"\n")[:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A signed header with its events.

    Attributes:
        signed: header, signature and facts.
        events: the events' canonical bytes, one after the other.
        lengths: the length in bytes of each, in sequence order; their sum is ``len(events)``.
    """

    signed: SignedHeader
    events: bytes
    lengths: Sequence[int]


_PLACE = re.compile(r".*-events-(\d{4}\.\d\d)", re.ASCII)


def month_of(header: BatchHeader) -> str:
    """The month, ``2026.01``, that the batch's events are kept and retired with: that of its place, else that of its making."""
    placed = _PLACE.fullmatch(header.place)
    return placed[1] if placed else f"{header.created[:4]}.{header.created[5:7]}"


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(BatchHeader).decode


def facts_root(lines: Sequence[bytes]) -> str:
    """RFC 6962 section 2.1 Merkle tree hash over the facts lines, hex. Costs one hash a line and one a pair."""
    sha256 = hashlib.sha256
    if not lines:
        return sha256().hexdigest()
    hashes = []
    leaf_hash = sha256(b"\x00").copy  # saves finding the algorithm again for each line
    for line in lines:
        leaf = leaf_hash()
        leaf.update(line)
        hashes.append(leaf.digest())
    level = b"".join(hashes)
    while len(level) > 32:
        # joining neighbours and carrying an odd last one up gives the same tree as RFC 6962's recursive split
        odd = level[len(level) // 64 * 64 :]
        pairs = range(0, len(level) - 32, 64)
        level = b"".join([sha256(b"\x01" + level[at : at + 64]).digest() for at in pairs]) + odd
    return level.hex()


def sign_header(header: BatchHeader, key: Ed25519PrivateKey, facts: bytes) -> SignedHeader:
    """Sign `header`; `facts` are the lines its `facts_root` was made of."""
    data = _encode(header)
    return SignedHeader(header=header, data=data, signature=key.sign(_DOMAIN + data), facts=facts)


def read_header(data: bytes) -> BatchHeader:
    """Parse a header and check its canonical bytes and values, but not who signed it: for bytes that something signed names by their hash.

    Raises:
        VerificationError: says which part does not hold.
    """
    if len(data) > MAX_HEADER_BYTES:
        raise VerificationError(f"batch header of {len(data)} bytes: at most {MAX_HEADER_BYTES} are allowed")
    try:
        header = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError(f"batch header cannot be read: {error}") from error
    if _encode(header) != data:
        raise VerificationError("batch header is not in canonical form")
    _check_fields(header)
    return header


def open_header(data: bytes, signature: bytes, facts: bytes | None = None) -> SignedHeader:
    """Parse and check a header: canonical bytes, its own key's signature and, if given, that `facts` are what it commits to.

    Whether the key may sign for the stream, and whether number and `previous` follow, is the caller's to check.

    Raises:
        VerificationError: says which part does not hold.
    """
    header = read_header(data)
    name = f"batch {header.number} of stream {header.stream}"
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(header.key)).verify(signature, _DOMAIN + data)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(f"{name}: the signature does not hold") from error
    signed = SignedHeader(header=header, data=data, signature=signature, facts=facts or b"")
    if facts is not None:
        lines = signed.facts_lines()
        if (facts and not facts.endswith(b"\n")) or len(lines) != header.count:
            counted = f"{name}: {len(lines)} facts where the header counts {header.count}"
            raise VerificationError(counted, label="facts")
        if facts_root(lines) != header.facts_root:
            changed = f"{name}: the facts are not those that were signed (tree hash differs)"
            raise VerificationError(changed, label="facts")
    return signed


_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", re.ASCII)


def _is_fork(fork: Fork) -> bool:
    return (
        is_stream_id(fork.stream) and 1 <= fork.number <= MAX_SAFE_INTEGER and _HEX64.fullmatch(fork.digest) is not None
    )


def _is_clock(clock: Clock) -> bool:
    return all(-MAX_SAFE_INTEGER <= ns <= MAX_SAFE_INTEGER for ns in (clock.offset_ns, clock.uncertainty_ns))


def _check_fields(header: BatchHeader) -> None:
    checks = (
        ("v", header.v == 1),
        ("stream", is_stream_id(header.stream)),
        ("number", 1 <= header.number <= MAX_SAFE_INTEGER),
        ("first", 0 <= header.first <= MAX_SAFE_INTEGER),
        ("count", 0 <= header.count <= MAX_BATCH_EVENTS),
        ("previous", _HEX64.fullmatch(header.previous) is not None if header.number > 1 else header.previous == ""),
        ("facts_root", _HEX64.fullmatch(header.facts_root) is not None),
        ("key", _HEX64.fullmatch(header.key) is not None),
        ("created", _TIME.fullmatch(header.created) is not None),
        ("clock", header.clock is None or _is_clock(header.clock)),
        ("heartbeat_seconds", 0 <= header.heartbeat_seconds <= _MOST_HEARTBEAT_SECONDS),
        ("fork", header.fork is None or (header.number == 1 and _is_fork(header.fork))),
    )
    for field, holds in checks:
        if not holds:
            raise VerificationError(f"batch header: the field {field!r} has a value the format does not allow")
