"""The last look at months that are to go: a pass over each log, and everything that the store has of them compared with it.

Of a ledger that is cut into shards each log is passed over, for each holds the entries of its own trails' events; what only all of them together
can show is looked at as well. So the events are read once for each shard.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.batch import month_of
from collector.event import Retirement
from collector.store import EventStore
from correlator.check import check_log
from correlator.entry import decode_entry
from correlator.index import TrailIndex
from correlator.note import Verifier
from correlator.reader import LogReader
from correlator.retired import MonthAccount, RetiredMonth, Retirements, retirement_of
from correlator.shards import Shard
from correlator.storage import LogStorage
from correlator.trail import RETIREMENTS
from deploy.checking import DAMAGE, Finding
from deploy.checking.entries import EntryCheck
from deploy.checking.heads import Heads
from deploy.checking.shards import check_together, of_log

__all__ = ["LastLook", "RetiringLog"]

_MAX_FINDINGS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RetiringLog:
    """A log of the ledger, with its index: the only one, or a shard's. `verifier` signs this log."""

    shard: Shard
    storage: LogStorage
    index: TrailIndex
    verifier: Verifier

    def reader(self) -> LogReader:
        """It, as it is now."""
        return LogReader(self.storage, self.verifier)

    def on_record(self) -> Retirements:
        """The retirements in it, as the index finds them and the log's own tree proves them."""
        reader = self.reader()
        leaves = self.index.leaves(RETIREMENTS, limit=100_000, size=reader.tree().size)
        found = (retirement_of(decode_entry(reader.entry(leaf)), leaf) for leaf in leaves)
        return Retirements(one for one in found if one is not None)


class LastLook:
    """What a look at everything of the months that are due found, before it is gone for ever.

    Args:
        due: the months.
        store: has them.
        logs: of all shards; the one of a ledger that is not cut.
        folder: for what a pass notes down.
        progress: told now and then how many leaves of how many of a log are done.

    Raises:
        Overloaded, StateUnknown: log or store cannot be read now.
    """

    def __init__(
        self,
        due: set[str],
        store: EventStore,
        logs: Sequence[RetiringLog],
        folder: Path,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._found: dict[str, list[str]] = {}
        self._passes = [_Pass(due, store, log, self._note) for log in logs]
        for one in self._passes:
            one.take(folder / f"heads-{one.log.shard.number}", progress)
        if len(logs) > 1:
            check_together({one.log.shard: one.entries for one in self._passes}, lambda one: self._note("", str(one)))

    def general(self, month: str) -> list[str]:
        """What was found wrong with a log, or with what may be of any month, or is still to come: while that is so, the month may not go."""
        # nobody may let go of what waits: the log would get to know batches whose events are gone
        waiting = [
            f"{one.waiting[month]:,} events of it wait for the correlator{one.called and f' of {one.called}'}"
            for one in self._passes
            if one.waiting[month]
        ]
        return [*self._found.get("", ()), *waiting]

    def findings(self, month: str, held: int) -> list[str]:
        """What was found wrong with the month, of which the store says that it holds so many events."""
        found = list(self._found.get(month, ()))
        for one in self._passes:
            if one.waiting[month]:
                continue  # its numbers cannot agree yet
            there, called = one.there(month), f" ({one.called})" if one.called else ""
            if held < there:
                found.append(f"the store counts {there - held:,} events of it less than it gave us{called}")
            elif held > there:
                found.append(f"the store has {held - there:,} events of it that no accepted batch holds{called}")
        return found

    def there(self, month: str) -> int:
        """How many events of the month the store has that the logs know."""
        return self._passes[0].there(month)

    def recorded(self, month: str) -> str:
        """When the newest batch of the month came into a log, RFC 3339; empty when none did."""
        return max(one.entries.retired.recorded.get(month, "") for one in self._passes)

    def headers(self, month: str) -> frozenset[str]:
        """Digests of the headers of the month's batches, as far as every log's retirement covers them: what came between two passes is in the later one alone."""
        first, *others = (one.account(month).digests(one.size) for one in self._passes)
        return frozenset(first.intersection(*others))

    def retirements(self, month: str, *, findings: int) -> tuple[tuple[Retirement, int], ...]:
        """For each log what lets go of the month; and the leaf at which that is on record already, −1 where it is not."""
        return tuple(one.retirement(month, findings) for one in self._passes)

    def _note(self, month: str, text: str) -> None:
        found = self._found.setdefault(month, [])
        if len(found) < _MAX_FINDINGS:
            found.append(text)


class _Pass:
    """The pass over one log."""

    def __init__(self, due: set[str], store: EventStore, log: RetiringLog, note: Callable[[str, str], None]) -> None:
        self.log = log
        self.called = log.shard.name
        self._due = due
        self._store = store
        self._note = note
        self.waiting = Counter[str]()
        """How many of a month's events the log does not have and may take yet."""
        self.size = 0
        self.entries: EntryCheck

    def take(self, folder: Path, progress: Callable[[int, int], None] | None) -> None:
        """Take it; what is found wrong is noted."""
        heads = Heads(folder)
        entries = self.entries = EntryCheck(
            store=self._store,
            origin=self.log.verifier.name,
            heads=heads,
            tell=self._tell,
            wanted=lambda header: month_of(header) in self._due,
        )

        def visit(first: int, bundle: Sequence[bytes]) -> None:
            for _ in entries.visit(first, bundle):
                pass

        try:
            found = check_log(self.log.storage, self.log.verifier, progress=progress, visit=visit)
            for one in of_log(found, self.log.shard):
                self._note("", str(one))
            entries.finish_batches()
            self._count_waiting()
            for month, finding in entries.retired.judge():
                self._note(month, str(finding))
        finally:
            heads.close()
        self.size = entries.account.leaves

    def account(self, month: str) -> MonthAccount:
        """What the log has of the month."""
        return self.entries.retired.months.get(month, MonthAccount())

    def there(self, month: str) -> int:
        """How many events of the month the log has, less those that the store does not have: retired before, or lost and found so."""
        events = self.account(month).retirement(month, self.size).events
        return events - self.entries.retired.absent_events(month)

    def retirement(self, month: str, findings: int) -> tuple[Retirement, int]:
        shard = self.log.shard.number if self.called else 0
        fresh = self.account(month).retirement(month, self.size, findings=findings, shard=shard)
        known = self.entries.retired.retirements.of(month)
        if known and _covers_the_same(known[-1], fresh):
            return known[-1].retirement, known[-1].leaf
        return fresh, -1

    def _count_waiting(self) -> None:
        try:
            for header in self.entries.unlogged():
                self.waiting[month_of(header)] += header.count
        except DAMAGE as error:
            self._note("", f"store: {error}")

    def _tell(self, finding: Finding) -> None:
        """What has a leaf concerns the batch that was read last; what has none may concern any."""
        self._note(self.entries.retired.month if finding.leaf >= 0 else "", str(finding))


def _covers_the_same(known: RetiredMonth, fresh: Retirement) -> bool:
    one = known.retirement
    return (one.batches, one.events, one.digest) == (fresh.batches, fresh.events, fresh.digest)
