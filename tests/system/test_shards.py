"""Three correlator processes on one store, each the writer of its own shard's log, killed in turn while events come in."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.disk import OsDisk
from deploy.checking.whole import check_everything
from tests.support.cut_ledger import CutLedger
from tests.support.killing import Process, stored_messages
from tests.support.whole_ledger import payment_events

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]
PATIENCE_SECONDS = 40.0
ROUNDS = 2
CHUNK = 6


def until(held: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not held():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s: {what}"
        time.sleep(0.02)  # what is awaited happens in another process


class Ingest:
    """Two services whose sidecars ship without end, until told; `payments` is how many each has sent by then."""

    def __init__(self, ledger: CutLedger) -> None:
        self._ledger = ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on)
        self.payments = 0
        self._thread.start()

    def _go_on(self) -> None:
        while not self._stop.is_set():
            some = range(self.payments, self.payments + CHUNK)
            for service in ("gateway", "payments"):
                self._ledger.collect(service, payment_events(service, some))
            self.payments = some.stop
            self._stop.wait(0.05)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_shards_are_killed_in_turn_and_resume(tmp_path: Path, processes: list[Process]) -> None:
    ledger = CutLedger(tmp_path)
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(1_000, 1_002)))
    running = {shard: Process(tmp_path, "correlator", "--shard", str(shard.number)) for shard in ledger.shards}
    processes += running.values()
    for process in running.values():
        process.wait_ready()
    ingest = Ingest(ledger)
    try:
        for _ in range(ROUNDS):
            for shard in ledger.shards:
                size, sent = ledger.size(shard), ingest.payments
                until(lambda shard=shard, size=size: ledger.size(shard) > size, "its log grows")  # type: ignore[misc]
                running[shard].kill()
                size = ledger.size(shard)
                until(lambda sent=sent: ingest.payments > sent + CHUNK, "events come in without it")  # type: ignore[misc]
                logged = ledger.logged(shard)
                assert all(number <= logged[stream] for stream, number in ledger.acknowledged().items()), (
                    "spools keep what the dead one has not taken in"
                )
                running[shard] = Process(tmp_path, "correlator", "--shard", str(shard.number))
                processes.append(running[shard])
                running[shard].wait_ready()
                until(lambda shard=shard, size=size: ledger.size(shard) > size, "it goes on")  # type: ignore[misc]
    finally:
        ingest.stop()
    until(lambda: check_everything(ledger.config, ledger.key)[1].waiting == 0, "all is taken in")
    remembered = ledger.statement()
    for process in running.values():  # all at once: the last one's statement must cover what the others published
        process.popen.send_signal(signal.SIGTERM)
    assert [process.popen.wait(PATIENCE_SECONDS) for process in running.values()] == [0, 0, 0]
    events = 3 * (2 + 2 * ingest.payments)
    assert len(list(stored_messages(ledger.places.store))) == events
    findings, account = check_everything(ledger.config, ledger.key, since=remembered)
    assert findings == []
    assert account.events == events
    ledger.assert_cut_right(events)
    statement = ledger.statement()
    statement.check_follows(remembered)
    assert [tree.size for tree in statement.trees] == [ledger.size(shard) for shard in ledger.shards], (
        "the last one covers everything"
    )


def test_a_second_correlator_of_a_shard_is_refused_and_another_shards_is_not(
    tmp_path: Path, processes: list[Process]
) -> None:
    ledger = CutLedger(tmp_path)
    ledger.begin()
    one = Process(tmp_path, "correlator", "--shard", "1")
    processes.append(one)
    one.wait_ready()
    twin = Process(tmp_path, "correlator", "--shard", "1")
    two = Process(tmp_path, "correlator", "--shard", "2")
    processes += [twin, two]
    assert twin.popen.wait(PATIENCE_SECONDS) == 1
    two.wait_ready()
    assert ledger.statement().count == 3


def test_a_standby_of_a_shard_takes_over(tmp_path: Path, processes: list[Process]) -> None:
    ledger = CutLedger(tmp_path)
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(10)))
    first = ledger.shards[0]
    one = Process(tmp_path, "correlator", "--standby", "--shard", "1")
    processes.append(one)
    one.wait_ready()
    until(lambda: OsDisk().exists(ledger.log_folder(first) / "checkpoint"), "it writes")
    until(lambda: ledger.size(first) > 10, "it has taken in what there is")
    two = Process(tmp_path, "correlator", "--standby", "--name", "spare", "--shard", "1")
    two.name = "correlator-shard-1-spare"
    processes.append(two)
    two.wait_ready()
    one.kill()
    size = ledger.size(first)
    ledger.collect("gateway", payment_events("gateway", range(10, 20)))
    until(lambda: ledger.size(first) > size, "the standby goes on")
    until(lambda: ledger.statement().trees[0].size > size, "and covers it")
    assert two.stop() == 0
