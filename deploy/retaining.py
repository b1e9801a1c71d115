"""Letting go of old months' events: what is to go, a last check of it, its retirement on record in the log, and only then the deed.

What a crash means: before the retirement is in the log, nothing was done, and the next run decides anew. After it, the next run
finds it there, finds the month to be what it says, and goes on. A month of which more has come since gets another retirement.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from collector.batch import month_of
from collector.errors import Conflict
from collector.event import Event, Origin, Retirement, format_time, parse_time
from collector.recorder import Recorder
from collector.store import EventStore
from collector.store.months import HeldMonth, MonthStore
from correlator.check import check_log
from correlator.entry import decode_entry
from correlator.index import TrailIndex
from correlator.log import LogReader
from correlator.note import Verifier
from correlator.retired import MonthAccount, Retirements, retirement_of
from correlator.storage import LogStorage
from correlator.trail import RETIREMENTS
from deploy.checking import DAMAGE, Finding
from deploy.checking.entries import EntryCheck
from deploy.checking.heads import Heads
from deploy.config import Config, ConfigError
from deploy.indexing import open_index
from deploy.keys import log_verifier
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.recording import principal
from deploy.retention import why_kept
from deploy.storing import open_months, open_store

__all__ = ["MonthPlan", "Retaining", "open_retaining"]

_MAX_FINDINGS = 20
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthPlan:
    """What is to become of a month that the store has events of.

    Attributes:
        held: the month as it is.
        kept: why it stays; empty when it is to go.
        findings: what a last check found wrong with it; while there are any, it stays.
        retirement: what goes on record before it goes, or is there already; None when it stays.
        on_record: leaf of that record; −1: it is not there yet.
        headers: digests of the headers of the batches that go.
        events: how many events of these the store has.
    """

    held: HeldMonth
    kept: str = ""
    findings: tuple[str, ...] = ()
    retirement: Retirement | None = None
    on_record: int = -1
    headers: frozenset[str] = field(default=frozenset(), repr=False)
    events: int = 0

    @property
    def goes(self) -> bool:
        """Whether it is to go, and may."""
        return self.retirement is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retaining:
    """All that is needed, open."""

    config: Config
    store: EventStore
    months: MonthStore
    index: TrailIndex
    storage: LogStorage
    verifier: Verifier

    def plan(
        self,
        *,
        now_ns: int,
        despite_findings: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[MonthPlan]:
        """What is to become of each month. Costs a pass over the log, and reading every event that is to go.

        Args:
            now_ns: Unix time. Where the log's newest entry is older, that counts: a clock that is ahead lets nothing go early.
            despite_findings: a month may go although a last check found something wrong with it; how much goes on record. What is
                wrong with the log, or not in it yet, is not passed over.
            progress: told now and then how many leaves of how many are done.

        Raises:
            NotFound: nothing is published yet.
            Overloaded, StateUnknown: log or store cannot be read now.
        """
        held = self.months.held()
        today = self._today(now_ns)
        kept = {one.month: why_kept(one.month, today, self.config.retention) for one in held}
        due = {month for month, why in kept.items() if not why}
        look = _LastLook(due)
        if due:
            with tempfile.TemporaryDirectory(prefix="tally-retain-") as folder:
                look.read(self, Path(folder), progress)
        return [
            self._due(one, look, despite_findings=despite_findings)
            if one.month in due
            else MonthPlan(held=one, kept=kept[one.month])
            for one in held
        ]

    def _today(self, now_ns: int) -> str:
        reader = LogReader(self.storage, self.verifier)
        size = reader.tree().size
        newest = decode_entry(reader.entry(size - 1)).recorded if size else format_time(0)
        return format_time(min(now_ns, parse_time(newest)))

    def _due(self, held: HeldMonth, look: "_LastLook", *, despite_findings: bool) -> MonthPlan:
        month = held.month
        account = look.account(month)
        there = account.retirement(month, look.size).events - look.absent(month)
        general, findings = look.general(), look.findings(month)
        waiting = look.waiting.get(month, 0)
        if waiting:
            # nobody may let go of these: the log would get to know batches whose events are gone
            general.append(f"{waiting:,} events of it wait for the correlator")
        elif held.events < there:
            findings.append(f"the store counts {there - held.events:,} events of it less than it gave us")
        elif held.events > there:
            findings.append(f"the store has {held.events - there:,} events of it that no accepted batch holds")
        if general or (findings and not despite_findings):
            findings = [*general, *findings]
            return MonthPlan(held=held, kept="a last check found something wrong with it", findings=tuple(findings))
        retirement = account.retirement(month, look.size, findings=len(findings))
        known = look.retirements.of(month)
        same = known[-1] if known and _covers_the_same(known[-1].retirement, retirement) else None
        return MonthPlan(
            held=held,
            findings=tuple(findings),
            retirement=same.retirement if same else retirement,
            on_record=same.leaf if same else -1,
            headers=frozenset(account.digests(look.size)),
            events=held.events if despite_findings else there,
        )

    def record(self, plans: Sequence[MonthPlan], recorder: Recorder) -> list[Retirement]:
        """Put on record what is not yet; durable on return. Raises as `Recorder.record`."""
        fresh = [one.retirement for one in plans if one.retirement is not None and one.on_record < 0]
        for retirement in fresh:
            now = format_time(time.time_ns())
            recorder.record(
                Event(
                    time=now,
                    event_name="retention.retire",
                    resource={"service.name": "tally"},
                    attributes={"retention.keep_months": self.config.retention.keep_months},
                    actor=principal(),
                    outcome="success",
                    retirement=retirement,
                    origin=Origin(receiver="record"),
                )
            )
        return fresh

    def wait_for(self, recorded: Sequence[Retirement], *, seconds: float) -> bool:
        """Whether the log has all of these within so long; asked at least once."""
        deadline = time.monotonic() + seconds
        while True:
            known = self.on_record()
            if all(any(one.retirement == wanted for one in known.of(wanted.month)) for wanted in recorded):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_SECONDS)  # the correlator is another process: there is nothing to wait for but its log

    def on_record(self) -> Retirements:
        """The retirements in the log, as the index finds them and the log's own tree proves them."""
        reader = LogReader(self.storage, self.verifier)
        leaves = self.index.leaves(RETIREMENTS, limit=100_000, size=reader.tree().size)
        found = (retirement_of(decode_entry(reader.entry(leaf)), leaf) for leaf in leaves)
        return Retirements(one for one in found if one is not None)

    def carry_out(self, plan: MonthPlan) -> None:
        """Let go of a month whose retirement is in the log.

        Raises:
            Conflict: events came meanwhile, or the log does not have the retirement; nothing was done.
            Overloaded, StateUnknown: the store does not do it now; do it again.
        """
        wanted = plan.retirement
        if wanted is None or all(one.retirement != wanted for one in self.on_record().of(plan.held.month)):
            raise Conflict(f"the retirement of {plan.held.month} is not in the log")
        self.months.drop(plan.held.month, plan.headers, plan.events)

    def tidy(self, plans: Sequence[MonthPlan], *, compact: bool) -> list[str]:
        """Reopen months that an earlier run left shut and that stay; and put together those that are past, if asked for.

        Returns the months that are being put together.
        """
        for one in plans:
            if one.held.shut and not one.goes:
                self.months.reopen(one.held.month)
        today = self._today(time.time_ns())
        current = f"{today[:4]}.{today[5:7]}"
        past = [
            one.held.month for one in plans if compact and one.held.loose and not one.goes and one.held.month < current
        ]
        for month in past:
            self.months.compact(month)
        return past


class _LastLook:
    """A pass over the log that looks at everything of the months that are due, before it is gone for ever."""

    def __init__(self, due: set[str]) -> None:
        self._due = due
        self._found: dict[str, list[str]] = {}
        self._entries: EntryCheck | None = None
        self.waiting = Counter[str]()
        """How many of a month's events the log does not have and may take yet."""
        self.size = 0

    def read(self, desk: Retaining, folder: Path, progress: Callable[[int, int], None] | None) -> None:
        """Take the pass."""
        heads = Heads(folder / "heads")
        entries = self._entries = EntryCheck(
            store=desk.store,
            origin=desk.verifier.name,
            heads=heads,
            tell=self._tell,
            wanted=lambda header: month_of(header) in self._due,
        )

        def visit(first: int, bundle: Sequence[bytes]) -> None:
            for _ in entries.visit(first, bundle):
                pass

        try:
            for one in check_log(desk.storage, desk.verifier, progress=progress, visit=visit):
                self._note("", f"log {one}")
            entries.finish_batches()
            self._count_waiting(entries)
            for month, finding in entries.retired.judge():
                self._note(month, str(finding))
        finally:
            heads.close()
        self.size = entries.account.leaves

    def _count_waiting(self, entries: EntryCheck) -> None:
        try:
            for header in entries.unlogged():
                self.waiting[month_of(header)] += header.count
        except DAMAGE as error:
            self._note("", f"store: {error}")

    def _tell(self, finding: Finding) -> None:
        """What has a leaf concerns the batch that was read last; what has none may concern any."""
        assert self._entries is not None, "told by it alone"
        self._note(self._entries.retired.month if finding.leaf >= 0 else "", str(finding))

    def _note(self, month: str, text: str) -> None:
        found = self._found.setdefault(month, [])
        if len(found) < _MAX_FINDINGS:
            found.append(text)

    def findings(self, month: str) -> list[str]:
        """What was found wrong with the month."""
        return list(self._found.get(month, ()))

    def general(self) -> list[str]:
        """What was found wrong with the log, or with what may be of any month: where that is so, nothing may go."""
        return list(self._found.get("", ()))

    def account(self, month: str) -> MonthAccount:
        """What the log has of the month."""
        known = self._entries.retired.months if self._entries is not None else {}
        return known.get(month, MonthAccount())

    def absent(self, month: str) -> int:
        """How many of the month's events the store does not have: retired before, or lost and found so."""
        return self._entries.retired.absent_events(month) if self._entries is not None else 0

    @property
    def retirements(self) -> Retirements:
        """Those in the log."""
        return self._entries.retired.retirements if self._entries is not None else Retirements()


def _covers_the_same(one: Retirement, other: Retirement) -> bool:
    return (one.batches, one.events, one.digest) == (other.batches, other.events, other.digest)


@contextmanager
def open_retaining(config: Config) -> Iterator[Retaining]:
    """Open all that is needed; everything may be running.

    Raises:
        ConfigError: there is no ledger yet, its key cannot be read, or the ledger is cut into shards: a retirement stands in one
            shard's log, and the bundles of the others could not show it.
        NotFound: it has no store or index yet.
        Overloaded, StateUnknown: something does not answer, or is not ours.
    """
    if config.correlator.shards > 1:
        raise ConfigError("tally retain does not know ledgers that are cut into shards yet (docs/operating.md)")
    places = Places(Path(config.data))
    verifier = log_verifier(places)
    with ExitStack() as opened:
        store = open_store(config, places, read_only=True)
        opened.callback(store.close)
        index = open_index(config, places, read_only=True)
        opened.callback(index.close)
        months = open_months(config, places)
        opened.callback(months.close)
        yield Retaining(
            config=config, store=store, months=months, index=index, storage=log_storage(config), verifier=verifier
        )
