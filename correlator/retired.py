"""Which events were let go of by policy, as the log itself tells. Pure (docs/format.md, "Retirement").

A retirement is an event that a recorder of ours signed, in the trail ``ledger/retirements``. All that matters of it stands in its
facts, and so in its entry: it is told for ever, also when its own bytes have been retired.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from collector.batch import BatchHeader, month_of
from collector.errors import Malformed
from collector.event import Retirement, decode_facts
from correlator.entry import Entry, decode_entry
from correlator.errors import VerificationError
from correlator.trail import RETIREMENTS

if TYPE_CHECKING:
    from correlator.bundle import Contents

__all__ = ["MonthAccount", "RetiredMonth", "Retirements", "meant_for", "retired_events", "retirement_of"]

_decode_header = msgspec.json.Decoder(BatchHeader).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class RetiredMonth:
    """A retirement as it stands in the log: leaf index and recorded time of its entry, and who did it."""

    retirement: Retirement
    leaf: int
    recorded: str
    by: str

    def __str__(self) -> str:
        return (
            f"retired by policy with {self.retirement.month}, on record at leaf {self.leaf} since {self.recorded[:19]}Z"
        )


def retirement_of(entry: Entry, leaf: int) -> RetiredMonth | None:
    """The retirement that this entry records; None when it records another thing.

    Raises:
        VerificationError: its facts cannot be read.
    """
    if entry.trail != RETIREMENTS or entry.kind != "event":
        return None
    try:
        facts = decode_facts(bytes(entry.facts))
    except Malformed as error:
        raise VerificationError(f"leaf {leaf}: {error}") from error
    if facts.retirement is None:
        return None
    return RetiredMonth(retirement=facts.retirement, leaf=leaf, recorded=entry.recorded, by=facts.actor)


def meant_for(entry: Entry) -> int:
    """The number of the shard in whose log the entry says that it stands, as a retirement does; 0: it says nothing.

    Raises:
        VerificationError: its facts cannot be read.
    """
    found = retirement_of(entry, -1)
    return 0 if found is None else found.retirement.shard


class Retirements:
    """The retirements of a log, in its order."""

    def __init__(self, known: Iterable[RetiredMonth] = ()) -> None:
        self._of: dict[str, list[RetiredMonth]] = {}
        # of each month those that let go of more than all before them, and below which leaf
        self._reach: dict[str, tuple[list[int], list[RetiredMonth]]] = {}
        for one in known:
            self.add(one)

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, one: RetiredMonth) -> None:
        """The next one."""
        self._of.setdefault(one.retirement.month, []).append(one)
        below, further = min(one.retirement.size, one.leaf), self._reach.setdefault(one.retirement.month, ([], []))
        if not further[0] or below > further[0][-1]:
            further[0].append(below)
            further[1].append(one)

    def of(self, month: str) -> list[RetiredMonth]:
        """Those of a month, in the order of the log."""
        return self._of.get(month, [])

    def months(self) -> list[str]:
        """The months of which there is one, ascending."""
        return sorted(self._of)

    def covers(self, month: str, batch_leaf: int) -> RetiredMonth | None:
        """The first that lets go of the events of this month's batch, whose entry is at this leaf.

        Whatever size a retirement says, it lets go of nothing that came into the log behind it. Costs a few steps, however many there are.
        """
        bounds, known = self._reach.get(month, ([], []))
        at = bisect_right(bounds, batch_leaf)
        return known[at] if at < len(known) else None


class MonthAccount:
    """The batches of a month as the log has them: what a retirement must say of them. Batches without events do not count."""

    def __init__(self) -> None:
        self._batches: list[tuple[int, int, str]] = []

    def add(self, leaf: int, header: BatchHeader, digest: str) -> None:
        """The month's next batch: its entry's leaf index, and the hex digest of its header."""
        if header.count:
            self._batches.append((leaf, header.count, digest))

    def digests(self, size: int) -> set[str]:
        """Of the headers of the batches below this leaf."""
        return {digest for leaf, _, digest in self._batches if leaf < size}

    def retirement(self, month: str, size: int, *, findings: int = 0, shard: int = 0) -> Retirement:
        """What lets go of everything of the month that is below this leaf. Costs a hash over 65 bytes a batch.

        `shard`: of a ledger that is cut, whose log the account is of.
        """
        digests, batches, events = hashlib.sha256(), 0, 0
        for leaf, count, digest in self._batches:
            if leaf < size:
                digests.update(f"{digest}\n".encode())
                batches += 1
                events += count
        return Retirement(
            month=month,
            size=size,
            batches=batches,
            events=events,
            digest=digests.hexdigest(),
            findings=findings,
            shard=shard,
        )


def retired_events(contents: "Contents") -> dict[tuple[str, int], RetiredMonth]:
    """Of the events that a bundle does not show, those of which it shows the retirement: by stream and sequence.

    Believe it after the bundle was verified.

    Raises:
        VerificationError: an entry in it cannot be read.
    """
    months = Retirements()
    withheld: set[tuple[str, int]] = set()
    for line in contents.entry_lines():
        entry = decode_entry(line.entry)
        found = retirement_of(entry, line.leaf)
        if found is not None:
            months.add(found)
        if entry.kind == "event" and line.event is None:
            withheld.add((entry.stream, entry.sequence))
    if not months:
        return {}
    out: dict[tuple[str, int], RetiredMonth] = {}
    for header in contents.headers:
        signed = _header_of(decode_entry(header.entry), header.leaf)
        covering = months.covers(month_of(signed), header.leaf)
        if covering is not None:
            ids = ((signed.stream, sequence) for sequence, _ in header.paths)
            out |= {one: covering for one in ids if one in withheld}
    return out


def _header_of(entry: Entry, leaf: int) -> BatchHeader:
    try:
        return _decode_header(str(entry.detail.get("header")).encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise VerificationError(f"leaf {leaf}: the batch header in it cannot be read: {error}") from error
