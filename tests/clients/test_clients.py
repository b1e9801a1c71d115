"""Other people's senders, unmodified, while the collector is killed with SIGKILL and started again.

Each sends thousands of numbered events. Whatever a sender was told is acknowledged must be stored; where an event has an id of its
own (``log.record.uid``, a span id, the same OTLP request body) it must be stored once. PyPI's fluent-logger has neither acks nor
ids: what it loses and doubles is counted and printed, and the documentation says what to use instead.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.collector_process import CollectorProcess
from tests.support.need import need

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

    sent: int = EVENTS

    @property
    def lost(self) -> int:
        return self.sent - len(self.stored)

    @property
    def doubled(self) -> int:
        return sum(count - 1 for count in self.stored.values())


def send(
    command: list[str],
    address: str,
    collector: CollectorProcess,
    folder: Path,
    *,
    events: int = EVENTS,
    kill_at: Sequence[int] = KILL_AT,
) -> Outcome:
    """Run a sender to its end; kill and restart the collector under it; then read the store."""
    outcome = Outcome(sent=events)
    sent = 0
    sender = subprocess.Popen(
        [*command, address, str(events)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
            if outcome.kills < len(kill_at) and max(len(outcome.acked), sent) >= kill_at[outcome.kills]:
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
        if event.name == "metric.exemplar":
            assert event.body["value"] == number
            assert event.trace_id
        else:
            assert f"event {number}" in (event.body, event.name)
        outcome.stored[number] += 1
    return outcome


def report(name: str, outcome: Outcome) -> None:
    print(  # noqa: T201 - the figures are what the test is run for
        f"\n{name}: {outcome.sent} sent, {len(outcome.acked)} acknowledged, {len(outcome.stored)} stored, "
        f"{len(outcome.failed)} given up by the sender, {outcome.lost} lost, {outcome.doubled} doubled, "
        f"collector killed {outcome.kills} times {sorted(outcome.reasons) or ''}"
    )


@pytest.mark.parametrize("script", ["fluent_org.mjs", "fluent_logger.mjs"])
def test_npm_fluent_loggers_with_acks(script: str, packages: Path, collector: CollectorProcess) -> None:
    outcome = send(["node", script], collector.addresses["forward"], collector, packages)
    report(script, outcome)
    judge_once_each(outcome)


def test_the_opentelemetry_sdk_of_javascript(packages: Path, collector: CollectorProcess) -> None:
    outcome = send(["node", "otel.mjs"], collector.addresses["http"], collector, packages)
    judge_opentelemetry("otel.mjs", outcome)


def test_the_opentelemetry_sdk_of_python(collector: CollectorProcess) -> None:
    outcome = send([sys.executable, "otel_sender.py"], collector.addresses["http"], collector, HERE)
    judge_opentelemetry("otel_sender.py", outcome)


def test_the_opentelemetry_sdk_of_python_over_grpc(collector: CollectorProcess) -> None:
    address = collector.addresses["grpc"]
    outcome = send(
        [sys.executable, "otel_grpc_sender.py"], address, collector, HERE, events=3_000, kill_at=(600, 1_800)
    )
    judge_opentelemetry("otel_grpc_sender.py", outcome, kills=2)


def test_the_opentelemetry_sdk_of_javascript_over_grpc_gives_up_at_once(
    packages: Path, collector: CollectorProcess
) -> None:
    address = collector.addresses["grpc"]
    outcome = send(["node", "otel_grpc.mjs"], address, collector, packages, events=2_000, kill_at=(600,))
    report("otel_grpc.mjs", outcome)
    assert outcome.kills == 1
    # its exporter knows no second attempt; what it gives up it says, so nothing is lost silently. docs/ways-in.md: use HTTP
    assert outcome.acked <= outcome.stored.keys()
    assert outcome.acked | outcome.failed == set(range(outcome.sent))
    assert outcome.doubled == 0


def judge_opentelemetry(name: str, outcome: Outcome, *, kills: int = len(KILL_AT)) -> None:
    report(name, outcome)
    assert outcome.kills == kills
    assert outcome.acked <= outcome.stored.keys()
    assert outcome.doubled == 0
    # some breaks of a connection the exporters do not try again; then they say what they gave up, so nothing is lost silently
    assert outcome.acked | outcome.failed == set(range(outcome.sent)), outcome.reasons
    assert len(outcome.acked) > outcome.sent // 2, outcome.reasons


@pytest.mark.parametrize("package", ["opensearchpy", "elasticsearch"])
def test_the_bulk_helpers_of_python(package: str, collector: CollectorProcess) -> None:
    command = [sys.executable, "bulk_sender.py", package]
    outcome = send(command, collector.addresses["elasticsearch"], collector, HERE)
    report(f"bulk_sender.py {package}", outcome)
    judge_once_each(outcome)


def test_elastics_own_lumberjack_client(tmp_path: Path, collector: CollectorProcess) -> None:
    go = shutil.which("go")
    need(go, "no Go toolchain: install Go 1.25 or newer")
    assert go is not None
    program = tmp_path / "golumber"
    built = subprocess.run(
        [go, "build", "-mod=readonly", "-o", str(program), "."],
        cwd=HERE / "go_lumber",
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    outcome = send([str(program)], collector.addresses["beats"], collector, HERE)
    report("go-lumber", outcome)
    judge_once_each(outcome)


def judge_once_each(outcome: Outcome) -> None:
    """For senders that go on until each event is acknowledged, and give each an id."""
    assert outcome.kills == len(KILL_AT)
    assert outcome.acked == set(range(EVENTS))
    assert outcome.stored.keys() == outcome.acked
    assert outcome.doubled == 0


def test_pypi_fluent_logger_has_no_acks(collector: CollectorProcess) -> None:
    outcome = send([sys.executable, "fluent_sender.py"], collector.addresses["forward"], collector, HERE)
    report("fluent_sender.py", outcome)
    assert outcome.kills == len(KILL_AT)
    assert outcome.stored.keys() <= set(range(EVENTS))
    assert EVENTS - 1 in outcome.stored  # it finds its way back after every kill
