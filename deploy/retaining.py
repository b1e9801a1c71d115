"""Letting go of old months' events: what is to go, a last check of it, its retirement on record in the log, and only then the deed.

What a crash means: before the retirement is in the log, nothing was done, and the next run decides anew. After it, the next run
finds it there, finds the month to be what it says, and goes on. A month of which more has come since gets another retirement.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from collector.errors import Conflict
from collector.event import Event, Origin, Retirement, format_time, parse_time
from collector.recorder import Recorder
from collector.store import EventStore
from collector.store.months import HeldMonth, MonthStore
from correlator.entry import decode_entry
from correlator.shards import key_of_log
from deploy.config import Config
from deploy.indexing import open_index
from deploy.keys import log_verifier
from deploy.lastlook import LastLook, RetiringLog
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.recording import principal
from deploy.retention import why_kept
from deploy.sharding import check_cut, shards_of
from deploy.storing import open_months, open_store

__all__ = ["MonthPlan", "Retaining", "open_retaining"]

_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthPlan:
    """What is to become of a month that the store has events of.

    Attributes:
        held: the month as it is.
        kept: why it stays; empty when it is to go.
        findings: what a last check found wrong with it; while there are any, it stays.
        retirements: what goes on record before it goes, or is there already, in each shard's log by number, or in the only one; none when it stays.
        on_record: leaves of those records; −1: it is not there yet.
        headers: digests of the headers of the batches that go.
        events: how many events of these the store has.
    """

    held: HeldMonth
    kept: str = ""
    findings: tuple[str, ...] = ()
    retirements: tuple[Retirement, ...] = ()
    on_record: tuple[int, ...] = ()
    headers: frozenset[str] = field(default=frozenset(), repr=False)
    events: int = 0

    @property
    def goes(self) -> bool:
        """Whether it is to go, and may."""
        return bool(self.retirements)

    @property
    def fresh(self) -> list[Retirement]:
        """Those that are not on record yet."""
        return [one for one, leaf in zip(self.retirements, self.on_record, strict=True) if leaf < 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retaining:
    """All that is needed, open. `logs`: of all shards by number, or the only one."""

    config: Config
    store: EventStore
    months: MonthStore
    logs: tuple[RetiringLog, ...]

    def plan(
        self,
        *,
        now_ns: int,
        despite_findings: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[MonthPlan]:
        """What is to become of each month. Costs a pass over each log, and reading every event that is to go for each of them.

        Args:
            now_ns: Unix time. Where a log's newest entry is older, that counts: a clock that is ahead lets nothing go early.
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
        if not due:
            return [MonthPlan(held=one, kept=kept[one.month]) for one in held]
        with tempfile.TemporaryDirectory(prefix="tally-retain-") as folder:
            look = LastLook(due, self.store, self.logs, Path(folder), progress)
        # the month is what a sidecar's clock said; a batch that came later than that stays as long as any that came then
        for month in due:
            came = look.recorded(month)[:7].replace("-", ".")
            if came > month and (why := why_kept(came, today, self.config.retention)):
                kept[month] = f"events of it came in {came}: {why}"
        return [
            MonthPlan(held=one, kept=kept[one.month])
            if kept[one.month]
            else _due(one, look, despite_findings=despite_findings)
            for one in held
        ]

    def _today(self, now_ns: int) -> str:
        return format_time(min(now_ns, *map(_newest_ns, self.logs)))

    def record(self, plans: Sequence[MonthPlan], recorder: Recorder) -> list[Retirement]:
        """Put on record what is not yet; durable on return. Raises as `Recorder.record`."""
        fresh = [retirement for one in plans for retirement in one.fresh]
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
        """Whether the logs have all of these within so long; asked at least once."""
        deadline = time.monotonic() + seconds
        while not self._have(recorded):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_SECONDS)  # the correlator is another process: there is nothing to wait for but its log
        return True

    def _have(self, wanted: Sequence[Retirement]) -> bool:
        """Whether each of these is in the log that it is meant for."""
        known = [log.on_record() for log in self.logs]
        return all(
            any(one.retirement == each for one in known[max(0, each.shard - 1)].of(each.month)) for each in wanted
        )

    def carry_out(self, plan: MonthPlan) -> None:
        """Let go of a month whose retirement is in the log, in every shard's where there are several.

        Raises:
            Conflict: events came meanwhile, or a log does not have the retirement; nothing was done.
            Overloaded, StateUnknown: the store does not do it now; do it again.
        """
        if not plan.goes or not self._have(plan.retirements):
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


def _due(held: HeldMonth, look: LastLook, *, despite_findings: bool) -> MonthPlan:
    month = held.month
    general, findings = look.general(month), look.findings(month, held.events)
    if general or (findings and not despite_findings):
        why = "a last check found something wrong with it"
        return MonthPlan(held=held, kept=why, findings=(*general, *findings))
    planned = look.retirements(month, findings=len(findings))
    return MonthPlan(
        held=held,
        findings=tuple(findings),
        retirements=tuple(retirement for retirement, _ in planned),
        on_record=tuple(leaf for _, leaf in planned),
        headers=look.headers(month),
        events=held.events if despite_findings else look.there(month),
    )


def _newest_ns(log: RetiringLog) -> int:
    reader = log.reader()
    size = reader.tree().size
    return parse_time(decode_entry(reader.entry(size - 1)).recorded) if size else 0


@contextmanager
def open_retaining(config: Config) -> Iterator[Retaining]:
    """Open all that is needed; everything may be running.

    Raises:
        ConfigError: there is no ledger yet, its key cannot be read, or it began with another number of shards.
        NotFound: it has no store or index yet.
        Overloaded, StateUnknown: something does not answer, or is not ours.
    """
    places = Places(Path(config.data))
    verifier = log_verifier(places)
    check_cut(config)
    with ExitStack() as opened:
        store = open_store(config, places, read_only=True)
        opened.callback(store.close)
        logs = []
        for shard in shards_of(config):
            index = open_index(config, places.of_shard(shard.name), read_only=True)
            opened.callback(index.close)
            key = key_of_log(verifier, shard.origin(verifier.name))
            logs.append(RetiringLog(shard=shard, storage=log_storage(config, shard), index=index, verifier=key))
        months = open_months(config, places)
        opened.callback(months.close)
        yield Retaining(config=config, store=store, months=months, logs=tuple(logs))
