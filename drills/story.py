"""One drill from its first event to its account: senders send all the time, things go wrong in phases, and everything is looked at."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from drills.account import Account, account_of
from drills.installation import Installation, Watch, until
from drills.senders import Senders, Told

__all__ = ["Outcome", "Phase", "Story", "print_outcome"]

WAITING = "tally_collector_spool_waiting_events"
AGE = "tally_collector_spool_age_seconds"
BREAKER = "tally_collector_breaker_open"
SPOOL = "tally_collector_spool_bytes"
REFUSING = "tally_collector_refusing"
REFUSED = 'tally_collector_refused_total{reason="overloaded"}'
GIVEN_UP = "tally_correlator_failures_total"

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+,? ?")
_ALIKE = 40  # lines that begin alike are one: the rest are numbers of the moment


@dataclass(slots=True, kw_only=True)
class Phase:
    """A part of a drill.

    Attributes:
        name: what was wrong.
        lines: how many lines each sidecar had logged before.
        begin, end: `time.monotonic`.
        told: what the sidecars' logs said of it first; each line once, without what changes from run to run.
        status: what `tally status` said, where it was asked.
        resumed_seconds: from the end of what was wrong until every sidecar's next batch was stored; None where nobody looked.
        most: the largest value of each gauge; of a counter, by how much it grew.
    """

    name: str
    lines: dict[str, int]
    begin: float
    end: float = 0.0
    told: list[str] = field(default_factory=list)
    status: str = ""
    resumed_seconds: float | None = None
    most: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a drill."""

    phases: Sequence[Phase]
    senders: Told
    account: Account
    exit_codes: Sequence[int]

    def broken(self) -> dict[str, int]:
        """How often each promise was broken."""
        return {
            **self.account.broken(),
            "answers that nobody expects": len(self.senders.odd),
            "processes that did not stop cleanly in the end": sum(code != 0 for code in self.exit_codes),
        }

    def phase(self, name: str) -> Phase:
        """The phase whose name begins so."""
        return next(phase for phase in self.phases if phase.name.startswith(name))


class Story:
    """A drill that runs.

    Args:
        installation: not started yet.
        pause_seconds: between a sender's groups of ten events.
    """

    def __init__(self, installation: Installation, *, pause_seconds: float = 0.05) -> None:
        self.installation = installation
        self.senders = Senders(installation.address, installation.sidecars, pause_seconds=pause_seconds)
        self._watch = Watch(installation)
        self.phases: list[Phase] = []

    def tell(self, steps: Callable[[Story], None]) -> Outcome:
        """Start everything, go through `steps` while the senders send, stop, and take the account."""
        with self.installation as installation:
            with self._watch.running():
                with self.senders.running():
                    self.stored_on(at_least=2)
                    steps(self)
                installation.settle()
                time.sleep(0.5)  # one more look at the metrics: what they say when all is well again
            codes = installation.stop()
            account = account_of(installation, self.senders.told.acknowledged)
        for phase in self.phases:
            self._look_up(phase)
        return Outcome(phases=self.phases, senders=self.senders.told, account=account, exit_codes=codes)

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """A part of the drill; what the sidecars log in it is remembered."""
        lines = {sidecar: len(self.installation.logged(sidecar)) for sidecar in self.installation.sidecars}
        phase = Phase(name=name, lines=lines, begin=time.monotonic())
        yield phase
        phase.end = time.monotonic()
        for sidecar, seen in lines.items():
            for line in self.installation.logged(sidecar)[seen:]:
                reason = _reason(line)
                if not any(reason[:_ALIKE] == one[:_ALIKE] for one in phase.told):
                    phase.told.append(reason)
        self.phases.append(phase)

    def stored_on(self, *, at_least: int = 1, seconds: float = 180.0) -> float:
        """Wait until each sidecar has stored so many batches more; gives the seconds that it took."""
        began = time.monotonic()
        for sidecar in self.installation.sidecars:
            start = self._stored(sidecar)
            until(
                f"{sidecar} stores batches",
                lambda sidecar=sidecar, start=start: self._stored(sidecar) >= start + at_least,  # type: ignore[misc]
                seconds=seconds,
            )
        return time.monotonic() - began

    def send(self, events: int, *, seconds: float = 180.0) -> None:
        """Wait until so many more events are acknowledged."""
        start = self.senders.acknowledged
        until(f"{events} more events", lambda: self.senders.acknowledged >= start + events, seconds=seconds)

    def gauge(self, metric: str) -> float:
        """The largest value that a sidecar tells now."""
        return max(self.installation.metrics(sidecar).get(metric, 0.0) for sidecar in self.installation.sidecars)

    def _stored(self, sidecar: str) -> float:
        return self.installation.metrics(sidecar).get("tally_collector_shipped_batch", -1.0)

    def _look_up(self, phase: Phase) -> None:
        for gauge in (WAITING, AGE, BREAKER, SPOOL, REFUSING):
            phase.most[gauge] = self._watch.most(gauge, begin=phase.begin, end=phase.end)
        for counter in (REFUSED, GIVEN_UP):
            phase.most[counter] = self._watch.grown(counter, begin=phase.begin, end=phase.end)


def _reason(line: str) -> str:
    """What a log line says, without addresses and pauses."""
    return _ADDRESS.sub("", line.partition(" s: ")[2] if line.startswith("shipping waits") else line)


def print_outcome(title: str, outcome: Outcome) -> int:
    """Print a drill's tables as Markdown; gives how many promises were broken."""
    print(f"\n### {title}\n")
    print(
        "| phase | s | waiting events | spool age s | breaker open | spool kB | told later | correlator gave up | resumed after s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for phase in outcome.phases:
        most = phase.most
        resumed = "" if phase.resumed_seconds is None else f"{phase.resumed_seconds:.1f}"
        print(
            f"| {phase.name} | {phase.end - phase.begin:.0f} | {most[WAITING]:,.0f} | {most[AGE]:.1f} |"
            f" {'yes' if most[BREAKER] else 'no'} | {most[SPOOL] / 1e3:,.0f} | {most[REFUSED]:.0f} |"
            f" {most[GIVEN_UP]:.0f} | {resumed} |"
        )
    print("\n| | |\n|---|---|")
    for phase in outcome.phases:
        for line in phase.told[:4]:
            print(f"| sidecar's log, {phase.name} | {_cell(line)} |")
        if phase.status:
            print(f"| `tally status`, {phase.name} | {_cell(phase.status)} |")
    senders, account = outcome.senders, outcome.account
    for kind, count in sorted(senders.refusals.items()):
        print(f"| senders told later: {kind} | {count:,} |")
    if senders.retry_after_seconds:
        print(f"| Retry-After | {', '.join(map(str, sorted(senders.retry_after_seconds)))} s |")
    for reason, count in senders.reasons.most_common(3):
        print(f"| said to senders, {count:,} times | {_cell(reason)} |")
    if senders.unheard:
        print(f"| sends without an answer | {senders.unheard:,} |")
    print(f"| events acknowledged | {account.acknowledged:,} |")
    print(f"| events stored, in {account.streams} streams | {account.stored:,} |")
    broken = outcome.broken()
    for what, count in broken.items():
        print(f"| **{what}** | {count} |")
    named = (*account.lost[:5], *account.doubled[:5], *account.disordered[:5], *account.holes[:5])
    for line in (*named, *account.findings[:5], *senders.odd[:5]):
        print(f"\n{line}")
    return sum(count > 0 for count in broken.values())


def _cell(text: str) -> str:
    text = _ADDRESS.sub("", " ".join(text.split())).replace("|", "\\|")
    return text if len(text) <= 240 else f"{text[:240]} …"
