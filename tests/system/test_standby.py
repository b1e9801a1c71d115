"""Two whole correlator processes, one of which stands by: it takes over when the other is killed, stopped or ends."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from collector.disk import OsDisk
from correlator.head import Head, decode_head
from correlator.reader import LogReader
from deploy.logstorage import log_storage
from tests.support.killing import Process, stored_messages
from tests.support.whole_ledger import CONFIG, WholeLedger, payment_events

pytestmark = pytest.mark.timeout(180)
PATIENCE_SECONDS = 40.0
TAKE_OVER_SECONDS = 15.0
"""What is promised from the death of a writer to its successor."""


@pytest.fixture(
    params=[pytest.param("folder", marks=pytest.mark.crash), pytest.param("s3", marks=pytest.mark.objectstore)]
)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> WholeLedger:
    """A small ledger whose log lies in its data folder, or on an S3 server."""
    made = WholeLedger(tmp_path)
    where = ""
    if request.param == "s3":
        url, endpoint = request.getfixturevalue("s3_url"), request.getfixturevalue("s3").endpoint
        where = f'log = "{url}"\nlog_endpoint = "{endpoint}"\n'
    (tmp_path / "tally.toml").write_text(where + CONFIG)
    made.places.make()
    made.collect("gateway", payment_events("gateway", range(20)))
    made.correlate()
    return made


def correlator(ledger: WholeLedger, processes: list[Process], name: str) -> Process:
    process = Process(ledger.folder, "correlator", "--standby", "--name", name)
    processes.append(process)
    process.wait_ready()
    return process


def until(held: Callable[[], bool], what: str, within_seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + within_seconds
    while not held():
        assert time.monotonic() < deadline, f"not within {within_seconds:g} s: {what}"
        time.sleep(0.02)  # what is awaited happens in another process


def role(ledger: WholeLedger, process: Process) -> str:
    path = ledger.places.run / f"{process.name}.json"
    return str(json.loads(path.read_text())["role"])


def readyz(process: Process) -> tuple[int, str]:
    answer = httpx.get(f"{process.addresses()['http']}/readyz")
    return answer.status_code, answer.text


def head(ledger: WholeLedger) -> Head:
    raw = log_storage(ledger.config).read_head()
    assert raw is not None
    return decode_head(raw)


def writes(ledger: WholeLedger, process: Process) -> Callable[[], bool]:
    return lambda: process.popen.poll() is None and role(ledger, process) == "writer"


def pair(ledger: WholeLedger, processes: list[Process]) -> tuple[Process, Process]:
    """One that writes, and one that stands by and has caught up."""
    one = correlator(ledger, processes, "one")
    until(writes(ledger, one), "the first one writes")
    two = correlator(ledger, processes, "two")
    assert role(ledger, two) == "standby"
    until(lambda: readyz(two) == (200, "standing by\n"), "the standby has caught up")
    assert readyz(one) == (200, "ok\n")
    return one, two


def assert_whole(ledger: WholeLedger, payments: dict[str, int]) -> None:
    """Nothing is lost and nothing doubled: each event that was sent is stored once, and the log holds each once."""
    assert ledger.check() == []
    sent = Counter(str(event.body) for name, count in payments.items() for event in payment_events(name, range(count)))
    assert Counter(stored_messages(ledger.places.store)) == sent
    reader = LogReader(log_storage(ledger.config), ledger.key)
    entries = [json.loads(data) for data in reader.entries(0, reader.tree().size)]
    events = [(entry["stream"], entry["sequence"]) for entry in entries if entry["kind"] == "event"]
    assert len(events) == len(set(events)) == sent.total()


def test_a_standby_takes_over_from_a_killed_writer_and_goes_on(ledger: WholeLedger, processes: list[Process]) -> None:
    one, two = pair(ledger, processes)
    ledger.collect("payments", payment_events("payments", range(30)))
    size = ledger.checkpoint().size
    one.kill()
    until(writes(ledger, two), "the standby writes", TAKE_OVER_SECONDS)
    ledger.collect("risk", payment_events("risk", range(30)))
    until(lambda: ledger.checkpoint().size > size + 90, "it goes on")
    assert readyz(two) == (200, "ok\n")
    assert two.stop() == 0
    assert head(ledger).writer == ""
    assert_whole(ledger, {"gateway": 20, "payments": 30, "risk": 30})


def test_a_standby_takes_over_at_once_from_a_writer_that_ends(ledger: WholeLedger, processes: list[Process]) -> None:
    one, two = pair(ledger, processes)
    epoch = head(ledger).epoch
    assert one.stop() == 0
    until(writes(ledger, two), "the standby writes", 5)
    assert head(ledger).epoch == epoch + 1
    again = correlator(ledger, processes, "one")
    assert role(ledger, again) == "standby", "who comes back stands by"
    assert again.stop() == 0
    assert two.stop() == 0
    assert_whole(ledger, {"gateway": 20})


def test_a_writer_that_hung_is_refused_when_it_wakes_up(ledger: WholeLedger, processes: list[Process]) -> None:
    one, two = pair(ledger, processes)
    before = head(ledger)
    until(lambda: head(ledger) != before, "an idle head is renewed", 5)
    time.sleep(
        0.3
    )  # it has let go of the head's lock, and renews the head in 2.7 s: stopped here it is outside of its swap
    one.popen.send_signal(signal.SIGSTOP)
    ledger.collect("payments", payment_events("payments", range(30)))
    until(writes(ledger, two), "the standby writes", TAKE_OVER_SECONDS)
    until(lambda: ledger.check() == [], "it has taken in what was sent")
    ledger.collect("risk", payment_events("risk", range(30)))  # so that both have something to write
    remembered = ledger.checkpoint()
    one.popen.send_signal(signal.SIGCONT)
    assert one.popen.wait(PATIENCE_SECONDS) == 1
    assert "another writer has taken over this log" in one.log()
    until(lambda: ledger.checkpoint().size > remembered.size, "the standby goes on")
    again = correlator(ledger, processes, "one")
    assert role(ledger, again) == "standby"
    for process in (again, two):
        assert process.stop() == 0
    assert ledger.check(since=remembered) == []
    assert_whole(ledger, {"gateway": 20, "payments": 30, "risk": 30})


@pytest.mark.parametrize("ledger", [pytest.param("folder", marks=pytest.mark.crash)], indirect=True)
def test_a_standby_that_cannot_swap_the_head_goes_on_standing_by(ledger: WholeLedger, processes: list[Process]) -> None:
    one, two = pair(ledger, processes)
    lock = OsDisk().lock(ledger.places.log / "head.lock")  # as a writer does that is stopped in the middle of its swap
    while lock is None:
        lock = OsDisk().lock(ledger.places.log / "head.lock")
    one.kill()
    until(lambda: "not taken over: another process is swapping the head" in two.log(), "it says why it does not write")
    assert two.popen.poll() is None
    lock.release()
    until(writes(ledger, two), "the standby writes")
    assert two.stop() == 0
    assert_whole(ledger, {"gateway": 20})


def test_two_of_one_name_do_not_share_a_state(ledger: WholeLedger, processes: list[Process]) -> None:
    one, _ = pair(ledger, processes)
    twin = Process(ledger.folder, "correlator", "--standby", "--name", "one")
    processes.append(twin)
    assert twin.popen.wait(PATIENCE_SECONDS) == 1
    assert "needs a name of its own" in twin.log()
    assert one.stop() == 0
