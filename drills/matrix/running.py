"""One run of one sender: it sends while the collector is killed and the store is away; then the account is taken."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from collector.batch import EventRef, StreamId
from collector.event import Event, decode_event
from deploy.checking.whole import check_everything
from deploy.config import load
from deploy.keys import log_verifier
from deploy.places import Places
from deploy.storing import open_store
from drills.matrix.away import Store
from drills.matrix.gauges import Gauges
from drills.matrix.sender import Place, Sender
from tests.support.collector_process import CollectorProcess
from tests.support.killing import Process

__all__ = ["Outcome", "Plan", "run"]

_TOML = """
[collector.spool]
max_bytes = {spool_bytes}
keep_free_bytes = 1048576
[collector.ship]
drain_seconds = 60.0
heartbeat_seconds = 0
[correlator]
poll_max_seconds = 0.2
"""
_MAKING = threading.Lock()
"""Held while something is built or a broker started: when several senders run at once, each is made once."""

_END_SECONDS = 600.0
_PATIENCE_SECONDS = 90.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens to a sender.

    Attributes:
        events: how many it sends.
        kills: when the collector is killed before and after the store is away: shares of the events, 0 to 1, that were taken by then.
        away: the share after which the store goes away.
        away_seconds: for how long; in the middle the collector is killed once more.
        spool_bytes: the bound of the spool: small, so that senders are told to wait.
        quiet_seconds: when a sender's program has ended and nothing was taken for so long, nothing more will come.
    """

    events: int
    kills: Sequence[float]
    away: float
    away_seconds: float
    spool_bytes: int
    quiet_seconds: float


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a sender was told, what the store holds, and what happened meanwhile.

    Attributes:
        sender, events: who, and how many it sent.
        acked, failed: numbers that it was told are taken, and that it gave up and said so.
        unnumbered_failed: how many it gave up, and said so, that have no numbers; some of them may have arrived.
        why: what it said of these.
        stored: how often each number is in the store.
        others: events in the store that bear no number.
        holes: streams whose sequences or batch numbers are not dense.
        entries: events that have their entry in the log.
        findings: of `tally check`.
        kills: how often the collector was killed, at least one of them while the store was away.
        refusals: connections and requests that were told "later".
        held_seconds: the longest time in which nothing was taken.
        points: data points of metrics that went by.
        seconds: from the first event to the last one stored.
        exit_code: of the sender's program, with what it last printed as an error.
    """

    sender: Sender
    events: int
    acked: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    unnumbered_failed: int = 0
    why: Counter[str] = field(default_factory=Counter)
    stored: Counter[int] = field(default_factory=Counter)
    others: int = 0
    holes: list[str] = field(default_factory=list)
    entries: int = 0
    findings: list[str] = field(default_factory=list)
    kills: int = 0
    refusals: int = 0
    held_seconds: float = 0.0
    points: int = 0
    seconds: float = 0.0
    exit_code: int | None = None
    errors: str = ""

    @property
    def in_store(self) -> int:
        """Events in the store, doubled ones counted once."""
        return len(self.stored) if self.sender.numbered else min(self.others, self.events)

    @property
    def doubled(self) -> int:
        """Events that the store has once more than it should."""
        if not self.sender.numbered:
            return max(0, self.others - self.events)
        return self.stored.total() - len(self.stored)

    @property
    def given_up(self) -> int:
        """Events that the sender gave up, and said so."""
        return len(self.failed) + self.unnumbered_failed

    @property
    def lost(self) -> int:
        """Events that are not in the store though the sender was told that they are, or has no way to know."""
        if self.sender.tells:
            return len(self.acked - self.stored.keys())
        return max(0, self.events - self.in_store - self.unnumbered_failed)

    def broken(self, kills: int) -> list[str]:
        """Every promise that was not kept, in words; `kills` were planned."""
        told = [
            (self.exit_code != 0, f"its program ended with {self.exit_code}: {self.errors}"),
            (self.kills != kills, f"the collector was killed {self.kills} times, not {kills}"),
            (bool(self.holes), f"holes in a stream: {self.holes[:3]}"),
            (bool(self.findings), f"`tally check` finds {self.findings[:3]}"),
            (self.entries != self.stored.total() + self.others, f"{self.entries} entries in the log"),
            (self.sender.acked and self.lost > 0, f"{self.lost} events lost"),
            (self.sender.ids == "always" and self.doubled > 0, f"{self.doubled} events doubled"),
            (self.sender.numbered and self.others > 0, f"{self.others} events that nobody sent"),
            (not self.in_store, "nothing was stored"),
            (not self.sender.gives_up and self.given_up > 0, f"{self.given_up} events given up: {self.why}"),
        ]
        if self.sender.numbered:
            strange = sorted(number for number in self.stored if not 0 <= number < self.events)
            told.append((bool(strange), f"numbers that nobody sent: {strange[:5]}"))
        if self.sender.tells:
            untold = self.events - len(self.acked | self.failed)
            told += [
                (untold > 0, f"of {untold} events the sender was told nothing"),
            ]
        return [text for wrong, text in told if wrong]


def run(sender: Sender, plan: Plan, store: Store, folder: Path) -> Outcome:
    """Run a sender to its end, do to the collector what the plan says, and take the account.

    Args:
        sender: whose turn it is.
        plan: what happens to it.
        store: where the collector ships to; there, and empty for this collector.
        folder: an empty one.
    """
    ours, theirs = folder / "collector", folder / "sender"
    ours.mkdir(parents=True)
    theirs.mkdir()
    place = Place(folder=theirs, events=plan.events, addresses={})
    with _MAKING:
        toml = _TOML.format(spool_bytes=plan.spool_bytes) + store.toml + sender.settings(place)
    collector = CollectorProcess(ours, further=toml)
    outcome = Outcome(sender=sender, events=plan.events)
    correlator: Process | None = None
    try:
        collector.start()
        correlator = Process(ours, "correlator")  # until its entries are in the log, an event stays in the spool
        place = Place(folder=theirs, events=plan.events, addresses=collector.addresses)
        with _MAKING:
            command = sender.command(place)
        gauges = Gauges(collector.addresses["http"])
        with gauges.running(), _Program(command, theirs, outcome) as program:
            began = time.monotonic()
            _harm(collector, store, plan, (gauges, program, outcome))
            program.wait()
            ledger = _Ledger(ours, outcome)
            if (
                sender.acked
            ):  # what a broker or a file still holds comes when the collector has found its way back to it
                while not ledger.whole() and gauges.quiet_seconds < _PATIENCE_SECONDS:
                    time.sleep(_LOOK_SECONDS * 10)
            gauges.wait_quiet(plan.quiet_seconds, seconds=_PATIENCE_SECONDS)
            outcome.seconds = gauges.last_growth - began
        collector.stop()
        correlator.stop()
    finally:
        store.back()
        collector.close()
        if correlator is not None:
            correlator.kill()
    outcome.refusals, outcome.points = gauges.refusals, gauges.points
    outcome.held_seconds = gauges.held_seconds
    ledger.read()
    ledger.check()
    return outcome


def _harm(collector: CollectorProcess, store: Store, plan: Plan, watched: tuple[Gauges, _Program, Outcome]) -> None:
    """Kill, take the store away, kill meanwhile, give it back, kill; each when so many events were taken."""
    gauges, program, outcome = watched

    def kill() -> None:
        collector.kill()
        outcome.kills += 1
        collector.start()

    def reach(share: float) -> None:
        while gauges.taken < share * plan.events and not (program.ended and gauges.quiet_seconds > plan.quiet_seconds):
            time.sleep(_LOOK_SECONDS)  # it happens in another process

    for share in [one for one in plan.kills if one < plan.away]:
        reach(share)
        kill()
    reach(plan.away)
    store.away(collector.folder / "tally-data")
    time.sleep(plan.away_seconds / 2)  # the outage is as long as asked for
    kill()
    time.sleep(plan.away_seconds / 2)
    store.back()
    for share in [one for one in plan.kills if one >= plan.away]:
        reach(share)
        kill()


class _Program:
    """A sender's program, whose output is read into the outcome while it runs."""

    def __init__(self, command: Sequence[str], folder: Path, outcome: Outcome) -> None:
        self._outcome = outcome
        self._errors = (folder / "stderr.log").open("w+b")
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reading.join()
        self._errors.close()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> None:
        """Until it has ended by itself."""
        self._outcome.exit_code = self._process.wait(timeout=_END_SECONDS)
        self._reading.join()
        self._errors.seek(0)
        self._outcome.errors = self._errors.read().decode(errors="replace")[-1_000:]

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                told = json.loads(line)
                self._outcome.acked.update(told.get("acked", ()))
                failed, unnumbered = told.get("failed", ()), told.get("given_up", 0)
                self._outcome.failed.update(failed)
                self._outcome.unnumbered_failed += unnumbered
                if (count := len(failed) + unnumbered) and told.get("why"):
                    self._outcome.why[str(told["why"])[:200]] += count


class _Ledger:
    """What the collector's store holds by now, read on from where the last look ended, and counted into the outcome."""

    def __init__(self, folder: Path, outcome: Outcome) -> None:
        self._config = load(folder / "tally.toml", environ={}, folder=folder)[0]
        self._places = Places(folder / "tally-data")
        self._outcome = outcome
        self._read: dict[StreamId, tuple[int, int]] = {}

    def read(self) -> None:
        """Count what came since the last time.

        Raises:
            Overloaded: the store does not answer.
        """
        with closing(open_store(self._config, self._places, read_only=True)) as store:
            for stream in store.streams():
                number, sequence = self._read.get(stream, (0, 0))
                while found := store.batches_after({stream: number}, 50):
                    for signed in found:
                        header = signed.header
                        if (header.number, header.first) != (number + 1, sequence):
                            self._outcome.holes.append(f"{stream}: batch {header.number} from {header.first} on")
                        refs = [
                            EventRef(stream=stream, sequence=at)
                            for at in range(header.first, header.first + header.count)
                        ]
                        self._count(map(decode_event, store.events(refs)))
                        number, sequence = header.number, header.first + header.count
                        self._read[stream] = number, sequence

    def whole(self) -> bool:
        """Whether the store has what it is to have in the end."""
        outcome = self._outcome
        self.read()
        if outcome.sender.tells:
            return outcome.acked <= outcome.stored.keys()
        return outcome.in_store + outcome.unnumbered_failed >= outcome.events

    def check(self) -> None:
        """All of the store against all of the log, as `tally check` does it."""
        findings, checked = check_everything(self._config, log_verifier(self._places))
        self._outcome.findings, self._outcome.entries = [str(finding) for finding in findings], checked.events

    def _count(self, events: Iterator[Event]) -> None:
        outcome = self._outcome
        for event in events:
            number = event.attributes.get("n")
            if (
                isinstance(number, int | float) and outcome.sender.numbered
            ):  # the OpenTelemetry Collector reads 5 as 5.0
                outcome.stored[int(number)] += 1
            else:
                outcome.others += 1
