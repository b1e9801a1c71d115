"""Checkpoints: the log's signed size and root, as C2SP ``tlog-checkpoint`` over ``signed-note``. Pure.

    <origin>                 the ledger's name; also the name of its key
    <size>                   number of leaves, decimal
    <root>                   base64 of the 32-byte root hash
    <extension lines, if any>

    — <key name> <base64>    one or more signatures

Specifications: https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note, https://c2sp.org/tlog-cosignature
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from correlator.errors import VerificationError
from correlator.merkle import EMPTY_ROOT, HASH_BYTES
from correlator.note import Signature, Signer, Verifier, decode_base64, open_note, sign_note

__all__ = ["MAX_SIZE", "Checkpoint", "Signer", "Verifier", "cosignatures", "open_checkpoint", "parse_number", "sign"]

MAX_SIZE = (1 << 63) - 1
"""The largest size that is read: what the Go libraries can hold."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def parse_number(text: str, what: str) -> int:
    """A decimal number from 0 to `MAX_SIZE`, without sign, spaces or leading zeros.

    Raises:
        VerificationError: it is not; the message starts with ``what``.
    """
    if _NUMBER.fullmatch(text) is None or int(text) > MAX_SIZE:
        raise VerificationError(f"{what} is not a decimal number from 0 to 2^63 - 1 without leading zeros")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree of the log ``origin``: its ``size`` in leaves and its 32-byte ``root``; extension lines are opaque."""

    origin: str
    size: int
    root: bytes = field(repr=False)
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> bytes:
        """The note text: what is signed."""
        root = base64.b64encode(self.root).decode("ascii")
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.extensions)).encode()

    @classmethod
    def parse(cls, text: bytes) -> "Checkpoint":
        """Read the note text of a checkpoint. It is not signed: trust it only if `open_checkpoint` gave it.

        Raises:
            VerificationError: malformed.
        """
        try:
            lines = text.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise VerificationError(f"the checkpoint is not UTF-8 at byte {error.start}") from error
        if len(lines) < 4 or lines.pop() != "":
            raise VerificationError("the checkpoint is not origin, size and root, each on a line")
        if "" in lines:
            raise VerificationError(f"line {lines.index('') + 1} of the checkpoint is empty")
        size = parse_number(lines[1], "the size in the checkpoint")
        root = decode_base64(lines[2], "the root hash in the checkpoint")
        if len(root) != HASH_BYTES:
            raise VerificationError(f"the root hash in the checkpoint has {len(root)} bytes, not {HASH_BYTES}")
        if size == 0 and root != EMPTY_ROOT:
            raise VerificationError("the checkpoint is of an empty tree, but its root is not that of the empty tree")
        return cls(origin=lines[0], size=size, root=root, extensions=tuple(lines[3:]))


def sign(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """The signed checkpoint: the bytes that the log publishes.

    Raises:
        ValueError: the checkpoint would not be read back as the same one, or its origin is not the signer's name.
    """
    if checkpoint.origin != signer.name:
        raise ValueError(f"the key {signer.name} signs no checkpoint of {checkpoint.origin}")
    text = checkpoint.text
    try:
        same = Checkpoint.parse(text) == checkpoint
    except VerificationError as error:
        raise ValueError(f"not a checkpoint: {error}") from error
    if not same:
        raise ValueError("not a checkpoint: a line of it holds a line break")
    return sign_note(text, [signer])


def open_checkpoint(text: bytes, verifier: Verifier, *, origin: str | None = None) -> Checkpoint:
    """Check the signature of the log's key, then read. ``origin`` is the log's name; by default it is the key's name.

    Raises:
        VerificationError: malformed, not signed by that key, or of another log.
    """
    checkpoint = Checkpoint.parse(open_note(text, [verifier]).text)
    expected = verifier.name if origin is None else origin
    if checkpoint.origin != expected:
        raise VerificationError(f"the checkpoint is of the log {checkpoint.origin!r}, not of {expected!r}")
    return checkpoint


def cosignatures(text: bytes, witnesses: Sequence[Verifier]) -> tuple[Signature, ...]:
    """The signatures of ``witnesses`` under a signed checkpoint, each with the POSIX time that it states.

    Raises:
        VerificationError: malformed, a witness's signature is false, or none of them has signed.
    """
    note = open_note(text, witnesses)
    Checkpoint.parse(note.text)
    return note.signatures
