"""What a verification has found to hold. Pure values; `correlator.verify` makes them."""

from dataclasses import dataclass
from typing import Literal

from correlator.checkpoint import Checkpoint, Verifier
from correlator.entry import Entry
from correlator.proved import EnrolledKey

__all__ = ["NOT_SHOWN", "Consistency", "EntryReport", "Report", "TrailReport"]

Consistency = Literal["not asked", "same", "continues", "precedes", "not shown"]


NOT_SHOWN = "nothing shows that its log continues the remembered checkpoint, or precedes it"
"""What is left open when the two trees have other sizes, and no proof between them was given."""


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

    What is said here holds; whether it is all that a reader may want of a bundle is what `doubts` says.
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
    def doubts(self) -> tuple[str, ...]:
        """Why it cannot be told that the bundle is true, though nothing in it is false; empty when it is true."""
        no_key = () if self.trusted else ("no key was given from outside",)
        cut = (
            f"the beginning of {trail.trail} is not in it: it begins at position {trail.first}"
            for trail in self.trails
            if trail.first
        )
        alone = (NOT_SHOWN,) if self.consistency == "not shown" else ()
        return (*no_key, *cut, *alone)

    @property
    def exit_code(self) -> int:
        """What a command ends with: 0 true, 2 could not tell. False is a `VerificationError`: 1."""
        return 2 if self.doubts else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryReport:
    """What a ``.tlog-proof`` file shows: that this entry is in the tree of this checkpoint, and how that relates to the remembered one."""

    trusted_key: Verifier
    checkpoint: Checkpoint
    leaf: int
    entry: Entry
    consistency: Consistency = "not asked"

    @property
    def doubts(self) -> tuple[str, ...]:
        """As `Report.doubts`."""
        return (NOT_SHOWN,) if self.consistency == "not shown" else ()
