"""Events that are not in the store: whether they were retired by policy, and whether what is on record of that is true.

A retirement comes into the log after the batches that it lets go of, so this is judged when all entries were read.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from collector.batch import BatchHeader, month_of
from correlator.entry import Entry
from correlator.retired import MonthAccount, Retirements, retirement_of
from deploy.checking import Finding

__all__ = ["RetiredCheck"]

_MAX_ABSENT_TOLD = 1_000


class _Absent(NamedTuple):
    leaf: int
    events: int
    problem: str


class RetiredCheck:
    """Give it every logged batch and every retirement, then `finish`. Findings go to `tell`.

    Attributes:
        months: what the log has of each month.
        recorded: when the newest batch of each month came into the log, RFC 3339.
        retirements: what it says was let go of.
        month: that of the batch that was given last.
        events: how many events were found to be retired; known after `finish`.
    """

    def __init__(self, tell: Callable[[Finding], None]) -> None:
        self.months: dict[str, MonthAccount] = {}
        self.recorded: dict[str, str] = {}
        self.retirements = Retirements()
        self.month = ""
        self.events = 0
        self._tell = tell
        self._absent: dict[str, list[_Absent]] = {}

    def batch(self, leaf: int, header: BatchHeader, digest: str, recorded: str) -> None:
        """The log's next batch, its entry at this leaf, recorded then."""
        self.month = month_of(header)
        if header.count:
            self.recorded[self.month] = max(self.recorded.get(self.month, ""), recorded)
        self.months.setdefault(self.month, MonthAccount()).add(leaf, header, digest)

    def absent(self, leaf: int, header: BatchHeader, problem: str) -> None:
        """The store has none of this batch's events; `problem` is what to say if nothing explains it."""
        self._absent.setdefault(month_of(header), []).append(_Absent(leaf, header.count, problem))

    def entry(self, leaf: int, entry: Entry) -> None:
        """An event's entry, which may record a retirement; raises `VerificationError`."""
        found = retirement_of(entry, leaf)
        if found is not None:
            self.retirements.add(found)

    def absent_events(self, month: str) -> int:
        """How many of this month's events the store was found not to have."""
        return sum(one.events for one in self._absent.get(month, ()))

    def finish(self) -> None:
        """Judge what is absent, and each retirement."""
        for _, finding in self.judge():
            self._tell(finding)

    def judge(self) -> Iterator[tuple[str, Finding]]:
        """What is not as it must be, with the month that it concerns."""
        for month in self.retirements.months():
            account = self.months.get(month, MonthAccount())
            for one in self.retirements.of(month):
                said = one.retirement
                if said.size > one.leaf:
                    yield month, _of(one.leaf, f"the retirement of {month} lets go of what was not in the log yet")
                elif account.retirement(month, said.size, findings=said.findings, shard=said.shard) != said:
                    problem = f"the retirement of {month} speaks of other batches than the log has of it"
                    yield month, _of(one.leaf, problem)
        untold = 0
        for month, absent in self._absent.items():
            for batch in absent:
                if self.retirements.covers(month, batch.leaf) is not None:
                    self.events += batch.events
                    continue
                untold += 1
                if untold <= _MAX_ABSENT_TOLD:
                    yield month, Finding(where="store", problem=batch.problem, leaf=batch.leaf)
        if untold > _MAX_ABSENT_TOLD:
            more = f"and the events of {untold - _MAX_ABSENT_TOLD:,} batches more"
            yield "", Finding(where="store", problem=more)


def _of(leaf: int, problem: str) -> Finding:
    return Finding(where="retirements", problem=problem, leaf=leaf)
