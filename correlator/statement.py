"""The joint statement: one signed note that covers the checkpoints of all shards of a ledger (docs/format.md, "Shards"). Pure.

    tallystick/shards/v1
    <ledger>
    <placement>                64 hex digits: of the rules by which events are placed (`correlator.derived.placement_of`)
    <number of shards>
    <origin> <size> <root>     a line for each shard, in order; the root as base64
    …

    — <ledger> <base64>        the signature of the ledger's key

It is no checkpoint: the second line of one is a number. Specification of the envelope: https://c2sp.org/signed-note
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from correlator.checkpoint import Checkpoint, parse_number
from correlator.errors import VerificationError
from correlator.merkle import EMPTY_ROOT, HASH_BYTES
from correlator.note import Signer, Verifier, decode_base64, open_note, sign_note
from correlator.shards import MAX_SHARDS, Shard

__all__ = ["MAGIC", "Statement", "is_statement", "open_statement", "sign_statement"]

MAGIC = "tallystick/shards/v1"
"""The first line: no other text that a ledger's key signs begins so."""

_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_COUNT = re.compile(r"[1-9][0-9]?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The trees of all shards of `ledger` at one moment: `trees[n - 1]` is shard n's, and its origin says so.

    `placement` stands for the rules by which every shard places events: shards with other rules could each leave an event to the other.
    """

    ledger: str
    placement: str
    trees: tuple[Checkpoint, ...]

    @classmethod
    def of(cls, ledger: str, placement: str, trees: Sequence[tuple[int, bytes]]) -> "Statement":
        """The statement over trees of these sizes and roots, one for each shard in order."""
        count = len(trees)
        return cls(
            ledger=ledger,
            placement=placement,
            trees=tuple(
                Checkpoint(origin=Shard(number=number, count=count).origin(ledger), size=size, root=root)
                for number, (size, root) in enumerate(trees, 1)
            ),
        )

    @classmethod
    def empty(cls, ledger: str, placement: str, count: int) -> "Statement":
        """The statement of a ledger that begins: no shard has a leaf."""
        return cls.of(ledger, placement, [(0, EMPTY_ROOT)] * count)

    @property
    def count(self) -> int:
        """The number of shards."""
        return len(self.trees)

    @property
    def text(self) -> bytes:
        """The note's text: what is signed."""
        lines = [MAGIC, self.ledger, self.placement, str(self.count)]
        lines += [f"{tree.origin} {tree.size} {base64.b64encode(tree.root).decode('ascii')}" for tree in self.trees]
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def parse(cls, text: bytes) -> "Statement":
        """Read the text. It is not signed: trust it only if `open_statement` gave it.

        Raises:
            VerificationError: malformed; the message names the line.
        """
        try:
            lines = text.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise VerificationError(f"the statement is not UTF-8 at byte {error.start}") from error
        if len(lines) < 5 or lines.pop() != "" or lines[0] != MAGIC:
            raise VerificationError(
                f"the statement does not begin with {MAGIC}, ledger, placement and number of shards"
            )
        ledger, placement, stated = lines[1:4]
        if _HEX64.fullmatch(placement) is None:
            raise VerificationError("the statement's placement is not 64 hex digits")
        count = int(stated) if _COUNT.fullmatch(stated) else 0
        if not 2 <= count <= MAX_SHARDS:
            raise VerificationError(f"the statement's number of shards is not one from 2 to {MAX_SHARDS}")
        if len(lines) != 4 + count:
            raise VerificationError(f"the statement is of {count} shards and has {len(lines) - 4} lines for them")
        trees = []
        for number, line in enumerate(lines[4:], 1):
            origin = Shard(number=number, count=count).origin(ledger)
            named, _, rest = line.rpartition(" ")[0].rpartition(" ")
            if named != origin:
                raise VerificationError(f"line {4 + number} of the statement is not of {origin[:200]!r}")
            size = parse_number(rest, f"the size in line {4 + number} of the statement")
            root = decode_base64(line.rpartition(" ")[2], f"the root in line {4 + number} of the statement")
            if len(root) != HASH_BYTES or (size == 0 and root != EMPTY_ROOT):
                raise VerificationError(f"the root in line {4 + number} of the statement is none of a tree of {size}")
            trees.append((size, root))
        return cls.of(ledger, placement, trees)

    def check_follows(self, older: "Statement") -> None:
        """Check what can be seen without the logs: the same ledger, shards and rules, no tree smaller, none of the same size another.

        Raises:
            VerificationError: it does not follow; the message names the shard.
        """
        if (self.ledger, self.count) != (older.ledger, older.count):
            raise VerificationError(
                f"the statement is of {self.count} shards of {self.ledger!r}, the older one of {older.count} of {older.ledger!r}"
            )
        if self.placement != older.placement:
            raise VerificationError(
                "the statement is of shards that place events by other rules than those of the older one"
            )
        for before in older.trees:
            self.check_covers(before)

    def check_covers(self, older: Checkpoint) -> None:
        """Check as `check_follows` against the checkpoint of one shard.

        Raises:
            VerificationError: it has no tree of that log, a smaller one, or another one of the same size.
        """
        mine = next((tree for tree in self.trees if tree.origin == older.origin), None)
        if mine is None:
            raise VerificationError(f"the statement has no tree of the log {older.origin!r}")
        if mine.size < older.size:
            raise VerificationError(f"{mine.origin} was rolled back: {mine.size} leaves, and {older.size} before")
        if mine.size == older.size and mine.root != older.root:
            raise VerificationError(f"{mine.origin} was forked: two trees of {mine.size} leaves have other roots")


def is_statement(data: bytes) -> bool:
    """Whether these bytes are a joint statement, or what is left of one, rather than something else."""
    return data.startswith(f"{MAGIC}\n".encode())


def sign_statement(statement: Statement, signer: Signer) -> bytes:
    """The signed statement.

    Raises:
        ValueError: it is not the signer's ledger's, or would not be read back as the same one.
    """
    if statement.ledger != signer.name:
        raise ValueError(f"the key {signer.name} signs no statement of {statement.ledger}")
    text = statement.text
    try:
        same = Statement.parse(text) == statement
    except VerificationError as error:
        raise ValueError(f"not a statement: {error}") from error
    if not same:
        raise ValueError("not a statement: a name in it holds a line break")
    return sign_note(text, [signer])


def open_statement(data: bytes, verifier: Verifier) -> Statement:
    """Check the signature of the ledger's key, then read.

    Raises:
        VerificationError: malformed, not signed by that key, or of another ledger.
    """
    statement = Statement.parse(open_note(data, [verifier]).text)
    if statement.ledger != verifier.name:
        raise VerificationError(f"the statement is of the ledger {statement.ledger!r}, not of {verifier.name!r}")
    return statement
