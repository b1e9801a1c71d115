"""Two whole correlator processes on one data folder: the second is refused; one that was stopped and replaced writes no more."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from collector.store.sqlite import SqliteStore
from correlator.check import check_log
from correlator.checkpoint import Checkpoint
from correlator.errors import Overloaded
from correlator.index.sqlite import SqliteIndex
from correlator.run import Correlator
from correlator.storage.file import FileStorage
from deploy.keys import log_signer
from tests.support.killing import Process
from tests.support.whole_ledger import CONFIG, WholeLedger, drain, payment_events

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]
PATIENCE_SECONDS = 30.0


@pytest.fixture
def ledger(tmp_path: Path) -> WholeLedger:
    made = WholeLedger(tmp_path)
    (tmp_path / "tally.toml").write_text(CONFIG)
    made.places.make()
    made.collect("gateway", payment_events("gateway", range(40)))
    made.correlate()
    return made


def correlator(ledger: WholeLedger, processes: list[Process]) -> Process:
    process = Process(ledger.folder, "correlator")
    processes.append(process)
    return process


def full_tiles(ledger: WholeLedger) -> dict[str, str]:
    """Every full tile and bundle, hashed."""
    root = ledger.places.log / "tile"
    return {
        str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and ".p/" not in str(path)
    }


def wait_until_larger(ledger: WholeLedger, size: int) -> Checkpoint:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        checkpoint = ledger.checkpoint()
        if checkpoint.size > size:
            return checkpoint
        time.sleep(0.02)  # what is awaited happens in another process
    raise AssertionError(f"the log did not grow beyond {size} leaves")


def log_holds(ledger: WholeLedger, since: Checkpoint) -> list[str]:
    return [str(finding) for finding in check_log(FileStorage(ledger.places.log), ledger.key, since=since)]


@contextmanager
def standby(ledger: WholeLedger, folder: Path, hanging: Process) -> Iterator[Correlator]:
    """A correlator that deposes the one that hangs, with state and index of its own."""
    folder.mkdir()
    signer, _ = log_signer(ledger.places, ledger=ledger.config.ledger)
    with (
        closing(SqliteStore(ledger.places.store)) as store,
        closing(SqliteIndex(folder / "index.sqlite")) as index,
    ):
        made = None
        while made is None:
            try:
                made = Correlator.open(
                    store=store,
                    storage=FileStorage(ledger.places.log),
                    signer=signer,
                    index=index,
                    state_folder=folder / "state",
                    settings=ledger.config.correlator,
                    writer_id="standby",
                    take_over=True,
                )
            except (
                Overloaded
            ):  # it was stopped inside its swap, under the head's lock: nobody can swap until it goes on
                hanging.popen.send_signal(signal.SIGCONT)
                time.sleep(0.01)
                hanging.popen.send_signal(signal.SIGSTOP)
        try:
            yield made
        finally:
            made.close()


def test_a_second_correlator_is_refused_and_the_first_goes_on(ledger: WholeLedger, processes: list[Process]) -> None:
    before, tiles = ledger.checkpoint(), full_tiles(ledger)
    assert tiles
    first = correlator(ledger, processes)
    first.wait_ready()
    second = correlator(ledger, processes)
    assert second.popen.wait(PATIENCE_SECONDS) == 1
    assert "another process writes" in second.log()
    ledger.collect("payments", payment_events("payments", range(40)))
    wait_until_larger(ledger, before.size)
    assert first.stop() == 0
    assert ledger.check(since=before) == []
    now = full_tiles(ledger)
    assert {path: now[path] for path in tiles} == tiles


def test_a_stopped_correlator_that_wakes_up_after_a_take_over_writes_nothing(
    ledger: WholeLedger, processes: list[Process], tmp_path: Path
) -> None:
    first = correlator(ledger, processes)
    first.wait_ready()
    first.popen.send_signal(signal.SIGSTOP)
    late = correlator(ledger, processes)
    assert late.popen.wait(PATIENCE_SECONDS) == 1, "it hangs, and still keeps others out: a person decides"

    ledger.collect("payments", payment_events("payments", range(60)))
    before = ledger.checkpoint()
    with standby(ledger, tmp_path / "standby", first) as taken:
        assert drain(taken) > 0
    remembered, tiles = ledger.checkpoint(), full_tiles(ledger)
    assert remembered.size > before.size

    ledger.collect("gateway", payment_events("gateway", range(40, 60)))  # so that the first one has something to write
    first.popen.send_signal(signal.SIGCONT)
    assert first.popen.wait(PATIENCE_SECONDS) != 0
    assert "another writer has taken over this log" in first.log()
    assert ledger.checkpoint() == remembered
    assert full_tiles(ledger) == tiles
    assert log_holds(ledger, remembered) == []

    ledger.correlate()  # the next one goes on where the standby stopped
    assert ledger.checkpoint().size > remembered.size
    assert ledger.check(since=remembered) == []
    now = full_tiles(ledger)
    assert {path: now[path] for path in tiles} == tiles
