"""What a verification has found to hold. Pure values; `correlator.verify` makes them."""

from dataclasses import dataclass
from typing import Literal

from correlator.checkpoint import Checkpoint, Verifier
from correlator.entry import Entry
from correlator.proved import EnrolledKey

__all__ = ["Consistency", "EntryReport", "Report", "TrailReport"]

Consistency = Literal["not asked", "same", "continues", "precedes", "not shown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailReport:
    """What holds of one trail: its entries from position `first` on, `entries` of them, chained up to this head.

    ``first == 0`` means that the beginning is here. `head_hash` is the leaf hash of the last entry, 64 hex digits.
    """

    trail: str
    first: int
    entries: int
    head_leaf: int
    head_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found to hold.

    Attributes:
        trusted: true when the log's key was given from outside. Else everything fits together under the key that the
            bundle itself states, and whether that is the log's key is for the reader to find out (``key.fingerprint``).
        ledger: the log's name.
        key: the log's public key.
        checkpoint: the tree that every entry was shown to be in.
        trails: the trail asked for first, then those linked to it.
        events, withheld: events whose bytes are here, and events of which only the entry is.
        retired: of those withheld, how many were retired by policy: the retirements are in the bundle.
        streams: the collectors' keys that signed the events.
        recorded: when the first and the last of the trails' entries were recorded, RFC 3339.
        consistency: how the checkpoint relates to the remembered one.
        page: whether there is a page for people (which then was checked).
    """

    trusted: bool
    ledger: str
    key: Verifier
    checkpoint: Checkpoint
    trails: tuple[TrailReport, ...]
    events: int
    withheld: int
    retired: int
    headers: int
    streams: tuple[EnrolledKey, ...]
    recorded: tuple[str, str]
    consistency: Consistency
    page: bool

    @property
    def exit_code(self) -> int:
        """What a command ends with: 0 true, 2 could not tell. False is a `VerificationError`: 1."""
        return 0 if self.trusted else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryReport:
    """What a ``.tlog-proof`` file shows: that this entry is in the tree of this checkpoint."""

    trusted_key: Verifier
    checkpoint: Checkpoint
    leaf: int
    entry: Entry
