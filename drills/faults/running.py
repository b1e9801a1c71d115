"""Makes one fault after the other, hears who is told, and says how long that took, and what came that should not have come."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from drills.faults.setting import HURRY, Setting, setting
from drills.faults.table import FAULTS, STORE_FAULTS, Fault
from drills.installation import until
from tests.servers.opensearch import Cluster

__all__ = ["Outcome", "faults_table", "quiet_hour", "quiet_time", "run_fault"]

_STORM_SECONDS = 10.0
"""So long a fault goes on after somebody was told: what else comes then is a storm."""

_MOST_MESSAGES = 2
"""Of one alert: it fires, and once more when further processes have come to the same."""


@dataclass
class Outcome:
    """What a fault led to.

    Attributes:
        webhook: seconds from the fault to the first message; None: there was to be none.
        incident: seconds from the fault until its incident could be read; None: there was to be none, or it came after the fault.
        over: seconds from its end until no alert fired and no incident was open.
        alerts: those that people were told of, with how many messages each.
        incidents: their causes.
        broken: promises that were not kept, in words.
    """

    name: str
    webhook: float | None = None
    incident: float | None = None
    over: float = 0.0
    alerts: Counter[str] = field(default_factory=Counter)
    incidents: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def run_fault(made: Setting, fault: Fault) -> Outcome:
    """Make a fault, wait until people are told, undo it, and wait until all is well; then look at all that came."""
    outcome = Outcome(name=fault.name)
    before = set(made.incidents())
    with fault.make(made):
        began = time.time()
        if fault.alert:
            told = made.heard.until(lambda one: _is(one, fault.alert, "firing", began), 3 * fault.bound_seconds)
            outcome.webhook = told["arrived"] - began
        if fault.cause and not fault.later:
            until(f"an incident: {fault.cause}", lambda: _new(made, before), seconds=3 * fault.bound_seconds)
            outcome.incident = time.time() - began
        time.sleep(_STORM_SECONDS)
    ended = time.time()
    if fault.alert:
        made.heard.until(lambda one: _is(one, fault.alert, "resolved", ended), 3 * fault.over_seconds)
    if fault.later:
        until(f"an incident: {fault.cause}", lambda: _new(made, before), seconds=3 * fault.over_seconds)
    made.settled(3 * fault.over_seconds)
    outcome.over = time.time() - ended
    _judge(outcome, fault, made, began, before)
    return outcome


def _judge(outcome: Outcome, fault: Fault, made: Setting, began: float, before: set[str]) -> None:
    outcome.alerts = _messages(made, began)
    outcome.incidents = sorted(one["cause"] for one in _new(made, before))
    measured = outcome.webhook if fault.alert else outcome.incident
    if measured is None or measured > fault.bound_seconds:
        outcome.broken.append(f"told after {measured:.1f} s, not within {fault.bound_seconds:.0f} s" if measured else "nobody told")  # fmt: skip
    if outcome.over > fault.over_seconds:
        outcome.broken.append(f"over after {outcome.over:.1f} s, not within {fault.over_seconds:.0f} s")
    if others := sorted(outcome.alerts.keys() - {fault.alert, *fault.also}):
        outcome.broken.append(f"told of {', '.join(others)} as well")
    if storm := [name for name, messages in outcome.alerts.items() if messages > _MOST_MESSAGES]:
        outcome.broken.append(f"a storm of {', '.join(storm)}")
    if outcome.incidents != ([fault.cause] if fault.cause else []):
        outcome.broken.append(f"incidents: {', '.join(outcome.incidents) or 'none'}")
    outcome.broken += [f"traffic failed: {error}" for error in made.failed[:1]]
    made.failed.clear()


def quiet_time(made: Setting, seconds: float) -> list[str]:
    """Let so much time pass without a fault; gives what was told all the same, in words."""
    before, began = set(made.incidents()), time.time()
    time.sleep(seconds)
    broken = [f"alert {name}" for name in _messages(made, began)]
    broken += [f"incident {one['cause']}" for one in _new(made, before)]
    return broken + [f"traffic failed: {error}" for error in made.failed[:1]]


def quiet_hour(folder: Path, *, seconds: float) -> int:
    """Let the demo run for so long with rules as they are rendered, and print what was told all the same; gives how many things."""
    with setting(folder / "quiet", hurry=False) as made:
        noise = quiet_time(made, seconds)
        paid = made.here.answers
        checks = made.checks
    print(f"\n### {seconds:.0f} s without a fault: rules as they are\n")
    answered = ", ".join(f"{count:,} {answer}" for answer, count in paid.most_common())
    print(f"The gateway answered: {answered}. `tally check` ran {checks} times.")
    print(f"Told: {', '.join(noise) or 'no alert, no incident'}.")
    return len(noise)


def _is(one: dict[str, Any], alert: str, status: str, since: float) -> bool:
    return one["arrived"] > since and (one["labels"]["alertname"], one["status"]) == (alert, status)


def _new(made: Setting, before: set[str]) -> list[dict[str, Any]]:
    return [one for name, one in made.incidents().items() if name not in before]


def _messages(made: Setting, since: float) -> Counter[str]:
    """How many messages told of each alert."""
    firing = {(one["labels"]["alertname"], one["message"]) for one in made.told(since) if one["status"] == "firing"}
    return Counter(name for name, _ in firing)


def faults_table(folder: Path, *, names: Sequence[str] = (), quiet_seconds: float) -> int:
    """Run these faults (all by default) and a quiet time before them, and print what came; gives how many promises were broken."""
    outcomes: list[tuple[Fault, Outcome]] = []
    wanted = [one for one in FAULTS if not names or one.name in names]
    noise: list[str] = []
    if wanted or quiet_seconds:
        with setting(folder / "embedded") as made:
            noise = quiet_time(made, quiet_seconds)
            outcomes += [(fault, _told(run_fault(made, fault), made)) for fault in wanted]
    for fault in STORE_FAULTS:
        if not names or fault.name in names:
            try:
                with Cluster(data=folder) as cluster, setting(folder / "opensearch", cluster=cluster) as made:
                    outcomes.append((fault, _told(run_fault(made, fault), made)))
            except pytest.skip.Exception as missing:  # there is no Java, or no Maven
                print(f"\n{fault.name}: skipped: {missing}")
    _print(outcomes, noise, quiet_seconds)
    return sum(len(outcome.broken) for _, outcome in outcomes) + len(noise)


def _told(outcome: Outcome, made: Setting) -> Outcome:
    print(f"{outcome.name}: {'; '.join(outcome.broken) or 'as promised'}", file=sys.stderr, flush=True)
    if outcome.broken and made.findings:
        print(f"the last check that found something said:\n{made.findings[-1]}", file=sys.stderr, flush=True)
    made.findings.clear()
    return outcome


def _print(outcomes: Sequence[tuple[Fault, Outcome]], noise: Sequence[str], quiet_seconds: float) -> None:
    print(f"\n### Faults, and who is told: rules {HURRY} times as fast\n")
    print("| fault | alert | fault to webhook, s | bound | messages | incident | fault to incident, s | all over after, s | broken |")  # fmt: skip
    print("|---|---|---:|---:|---|---|---:|---:|---|")
    for fault, one in outcomes:
        messages = ", ".join(f"{name} {count}" for name, count in one.alerts.items()) or "none"
        print(
            f"| {fault.made} | {fault.alert or 'none can come'} | {_seconds(one.webhook)} | {fault.bound_seconds:.0f} | {messages} "
            f"| {', '.join(one.incidents) or 'none'} | {'after it' if fault.later else _seconds(one.incident)} | {one.over:.1f} | {'; '.join(one.broken) or '—'} |"
        )
    if quiet_seconds:
        print(f"\nBefore them {quiet_seconds:.0f} s without a fault: {', '.join(noise) or 'no alert, no incident'}.")


def _seconds(value: float | None) -> str:
    return "—" if value is None else f"{value:.1f}"
