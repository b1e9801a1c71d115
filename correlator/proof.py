"""Transparency-log proofs: one entry's inclusion with its checkpoint, as C2SP ``tlog-proof`` writes them. Pure.

    c2sp.org/tlog-proof@v1
    extra <base64>           optional, opaque, not authenticated
    index <leaf index>
    <base64 of each hash of the inclusion proof, leaf's sibling first>

    <the signed checkpoint, verbatim>

Such a file and the log's public key are all that an offline check needs, beside the entry itself. A consistency proof, for which C2SP has no file,
is read as our API answers it.

Specification: https://c2sp.org/tlog-proof
"""

import base64
from dataclasses import dataclass, field

import msgspec

from correlator.checkpoint import Checkpoint, open_checkpoint, parse_number
from correlator.errors import VerificationError
from correlator.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from correlator.note import MAX_NOTE_BYTES, Verifier, decode_base64

__all__ = ["ConsistencyProof", "EntryProof", "read_consistency"]

_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 63  # as many as a tree of 2^63 leaves needs
_MAX_PROOF_BYTES = 2 * MAX_NOTE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryProof:
    """That the entry at ``index`` is in the tree of ``checkpoint`` (a signed note, verbatim).

    ``hashes`` is the inclusion proof (RFC 9162 section 2.1.3). ``extra`` is opaque and not authenticated; None when absent.
    """

    index: int
    hashes: tuple[bytes, ...] = field(repr=False)
    checkpoint: bytes = field(repr=False)
    extra: bytes | None = field(default=None, repr=False)

    def encode(self) -> bytes:
        """The proof as text: the content of a ``.tlog-proof`` file."""
        lines = [_HEADER]
        if self.extra is not None:
            lines.append("extra " + base64.b64encode(self.extra).decode("ascii"))
        lines.append(f"index {self.index}")
        lines += [base64.b64encode(part).decode("ascii") for part in self.hashes]
        return "\n".join(lines).encode("ascii") + b"\n\n" + self.checkpoint

    @classmethod
    def parse(cls, text: bytes) -> "EntryProof":
        """Read a proof. It says nothing until `verify` has checked it.

        Raises:
            VerificationError: malformed.
        """
        if len(text) > _MAX_PROOF_BYTES:
            raise VerificationError(f"the proof has {len(text)} bytes, at most {_MAX_PROOF_BYTES} are read")
        head, found, checkpoint = text.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise VerificationError(f"the proof is not ASCII at byte {error.start}") from error
        if not found or lines.pop(0) != _HEADER:
            raise VerificationError(
                f"the proof does not start with {_HEADER}, or has no empty line before its checkpoint"
            )
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0)[6:], "the extra data of the proof")
        if not lines or not lines[0].startswith("index "):
            raise VerificationError("the proof has no index line after its header")
        index = parse_number(lines.pop(0)[6:], "the index in the proof")
        if len(lines) > _MAX_HASHES:
            raise VerificationError(f"the proof has {len(lines)} hashes, no tree needs more than {_MAX_HASHES}")
        hashes = tuple(decode_base64(line, f"hash {at} of the proof") for at, line in enumerate(lines))
        for at, part in enumerate(hashes):
            if len(part) != HASH_BYTES:
                raise VerificationError(f"hash {at} of the proof has {len(part)} bytes, not {HASH_BYTES}")
        return cls(index=index, hashes=hashes, checkpoint=checkpoint, extra=extra)

    def verify(self, entry: bytes, verifier: Verifier, *, origin: str | None = None) -> Checkpoint:
        """Check offline that ``entry`` is at ``index`` in the log whose key is ``verifier``; gives the checkpoint.

        Raises:
            VerificationError: the checkpoint's signature is false or of another log, or the entry is not there.
        """
        return self.verify_leaf(leaf_hash(entry), verifier, origin=origin)

    def verify_leaf(self, leaf: bytes, verifier: Verifier, *, origin: str | None = None) -> Checkpoint:
        """As `verify`, for who has the entry's leaf hash."""
        checkpoint = open_checkpoint(self.checkpoint, verifier, origin=origin)
        verify_inclusion(leaf, self.index, checkpoint.size, self.hashes, checkpoint.root)
        return checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyProof:
    """That a tree continues an earlier one (RFC 9162 section 2.1.4): ``hashes``, between the sizes ``first`` and ``second``, each None where it is not said.

    The sizes are believed for nothing but that another proof is needed.
    """

    hashes: tuple[bytes, ...]
    first: int | None = None
    second: int | None = None

    def may_be_of(self, first: int, second: int) -> bool:
        """Whether it does not say that it is of other sizes."""
        return self.first in (None, first) and self.second in (None, second)


class _Tree(msgspec.Struct, frozen=True):
    size: int | None = None


class _Consistency(msgspec.Struct):
    proof: list[str]
    first: _Tree = _Tree()
    second: _Tree = _Tree()


def read_consistency(text: bytes) -> ConsistencyProof:
    """What an API answers to ``/v1/consistency``: JSON with the hashes in base64 as ``proof``, and the sizes. Nothing of it is believed.

    Raises:
        VerificationError: malformed.
    """
    if len(text) > _MAX_PROOF_BYTES:
        raise VerificationError(f"the consistency proof has {len(text)} bytes, at most {_MAX_PROOF_BYTES} are read")
    try:
        told = msgspec.json.decode(text, type=_Consistency)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError(f"the consistency proof cannot be read: {error}") from error
    hashes = (decode_base64(part, f"hash {at} of the consistency proof") for at, part in enumerate(told.proof))
    return ConsistencyProof(hashes=tuple(hashes), first=told.first.size, second=told.second.size)
