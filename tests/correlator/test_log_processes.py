"""Writers as real processes: killed at random instants, or stopped while another takes over."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from correlator.check import check_log
from correlator.checkpoint import Checkpoint
from correlator.errors import Conflict, Overloaded
from correlator.log import LogReader
from correlator.storage.file import FileStorage
from tests.support.logs import SIGNER, entries_of, grow, open_log

Writer = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def start_writer(repo_root: Path) -> Iterator[Writer]:
    """Starts `tests/support/log_writer.py` on a folder; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> "subprocess.Popen[str]":
        program = [sys.executable, "-m", "tests.support.log_writer", str(folder)]
        process = subprocess.Popen(program, cwd=repo_root, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def next_size(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline().split()[1])


def kill_and_check(start: Writer, folder: Path, times: int, seed: int) -> None:
    dice = random.Random(seed)
    since: Checkpoint | None = None
    for _ in range(times):
        process = start(folder)
        size = next_size(process)
        assert since is None or size >= since.size
        time.sleep(dice.random() * 0.05)  # the instant is the point; nothing is awaited
        process.kill()
        told, _ = process.communicate()
        published = [int(line.split()[1]) for line in told.splitlines() if line.endswith(tuple("0123456789"))]
        # A last line may be cut short by the kill: then it names a smaller number, which holds as well.
        with open_log(FileStorage(folder)) as log:
            assert log.size >= max(published, default=size)
        storage = FileStorage(folder)
        assert [str(finding) for finding in check_log(storage, SIGNER.verifier, since=since)] == []
        since = LogReader(storage, SIGNER.verifier).tree()
    reader = LogReader(FileStorage(folder), SIGNER.verifier)
    size = reader.tree().size
    assert size > 0
    assert reader.entries(0, size) == entries_of(0, size)


def test_killed_at_random_instants_nothing_published_is_lost(start_writer: Writer, tmp_path: Path) -> None:
    kill_and_check(start_writer, tmp_path, times=5, seed=1)


@pytest.mark.crash
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 4))])
def test_killed_fifty_times(start_writer: Writer, tmp_path: Path, seed: int) -> None:
    kill_and_check(start_writer, tmp_path, times=50, seed=seed)


def test_a_stopped_writer_keeps_others_out_and_is_refused_after_a_take_over(
    start_writer: Writer, tmp_path: Path
) -> None:
    process = start_writer(tmp_path)
    storage = FileStorage(tmp_path)
    log = None
    while log is None:
        next_size(process)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(Conflict, match="another process writes"):
            open_log(storage)
        try:
            log = open_log(storage, "standby", take_over=True)
        except Overloaded:  # it was stopped inside its swap, under the head's lock: nobody can swap until it goes on
            process.send_signal(signal.SIGCONT)
    with log:
        taken_at = log.size
        grow(log, [taken_at + 1000])
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=60) == 3
        grow(log, [taken_at + 2000])
    published = {path: storage.get(path) for path in storage.paths()}
    assert [str(finding) for finding in check_log(storage, SIGNER.verifier)] == []
    reader = LogReader(storage, SIGNER.verifier)
    assert reader.entries(0, taken_at + 2000) == entries_of(0, taken_at + 2000)
    with open_log(storage) as log:  # the stopped one has let go of its claim by its end
        grow(log, [taken_at + 2001])
    assert all(storage.get(path) == data for path, data in published.items() if path in set(storage.paths()))
