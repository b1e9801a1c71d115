"""Other people's senders, unmodified, while the collector is killed with SIGKILL and started again.

Each sends 10,000 numbered events. Whatever a sender was told is acknowledged must be stored; where an event has an id of its
own (``log.record.uid``, a span id, the same OTLP request body) it must be stored once. PyPI's fluent-logger has neither acks nor
ids: what it loses and doubles is counted and printed, and the documentation says what to use instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.collector_process import CollectorProcess

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

HERE = Path(__file__).resolve().parent
EVENTS = 10_000
KILL_AT = (1_500, 4_000, 7_000)
"""After so many acknowledged (or sent) events the collector is killed."""


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[CollectorProcess]:
    process = CollectorProcess(tmp_path)
    process.start()
    yield process
    process.close()


@dataclass
class Outcome:
    """What the sender was told, what the store holds, and how often the collector died meanwhile."""

    acked: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)
    stored: Counter[int] = field(default_factory=Counter)
    kills: int = 0

    @property
    def lost(self) -> int:
        return EVENTS - len(self.stored)

    @property
    def doubled(self) -> int:
        return sum(count - 1 for count in self.stored.values())


def send(command: list[str], address: str, collector: CollectorProcess, folder: Path) -> Outcome:
    """Run a sender to its end; kill and restart the collector under it; then read the store."""
    outcome = Outcome()
    sent = 0
    sender = subprocess.Popen(
        [*command, address, str(EVENTS)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert sender.stdout is not None
    assert sender.stderr is not None
    try:
        for line in sender.stdout:
            told = json.loads(line)
            outcome.acked.update(told.get("acked", ()))
            outcome.failed.update(told.get("failed", ()))
            outcome.reasons.update(filter(None, [told.get("why")]))
            sent = told.get("sent", sent)
            if outcome.kills < len(KILL_AT) and max(len(outcome.acked), sent) >= KILL_AT[outcome.kills]:
                collector.kill()
                outcome.kills += 1
                collector.start()
        assert sender.wait(timeout=60) == 0, sender.stderr.read()
    finally:
        if sender.poll() is None:
            sender.kill()
        sender.wait()
        sender.stdout.close()
        sender.stderr.close()
    collector.stop()
    for event in collector.stored():
        number = event.attributes["n"]
        assert f"event {number}" in (event.body, event.name)
        outcome.stored[number] += 1
    return outcome


def report(name: str, outcome: Outcome) -> None:
    print(  # noqa: T201 - the figures are what the test is run for
        f"\n{name}: {EVENTS} sent, {len(outcome.acked)} acknowledged, {len(outcome.stored)} stored, "
        f"{len(outcome.failed)} given up by the sender, {outcome.lost} lost, {outcome.doubled} doubled, "
        f"collector killed {outcome.kills} times {sorted(outcome.reasons) or ''}"
    )


@pytest.mark.parametrize("script", ["fluent_org.mjs", "fluent_logger.mjs"])
def test_npm_fluent_loggers_with_acks(script: str, packages: Path, collector: CollectorProcess) -> None:
    outcome = send(["node", script], collector.addresses["forward"], collector, packages)
    report(script, outcome)
    assert outcome.kills == len(KILL_AT)
    assert outcome.acked == set(range(EVENTS))  # they go on until each is acknowledged
    assert outcome.stored.keys() == outcome.acked
    assert outcome.doubled == 0


def test_the_opentelemetry_sdk_of_javascript(packages: Path, collector: CollectorProcess) -> None:
    outcome = send(["node", "otel.mjs"], collector.addresses["http"], collector, packages)
    judge_opentelemetry("otel.mjs", outcome)


def test_the_opentelemetry_sdk_of_python(collector: CollectorProcess) -> None:
    outcome = send([sys.executable, "otel_sender.py"], collector.addresses["http"], collector, HERE)
    judge_opentelemetry("otel_sender.py", outcome)


def judge_opentelemetry(name: str, outcome: Outcome) -> None:
    report(name, outcome)
    assert outcome.kills == len(KILL_AT)
    assert outcome.acked <= outcome.stored.keys()
    assert outcome.doubled == 0
    # some breaks of a connection the exporters do not try again; then they say what they gave up, so nothing is lost silently
    assert outcome.acked | outcome.failed == set(range(EVENTS)), outcome.reasons
    assert len(outcome.acked) > EVENTS // 2, outcome.reasons


def test_pypi_fluent_logger_has_no_acks(collector: CollectorProcess) -> None:
    outcome = send([sys.executable, "fluent_sender.py"], collector.addresses["forward"], collector, HERE)
    report("fluent_sender.py", outcome)
    assert outcome.kills == len(KILL_AT)
    assert outcome.stored.keys() <= set(range(EVENTS))
    assert EVENTS - 1 in outcome.stored  # it finds its way back after every kill
