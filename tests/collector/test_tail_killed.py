"""A collector that follows files is killed at random instants while services write and rotate them: every line once.

`TALLY_KILLS` says how often, up to 5; `TALLY_SEED` when; the seed of a failure is in its message. The lines between a rotator's copy and its
truncation, which nobody can keep, are not there: the writer rests meanwhile.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.collector_process import CollectorProcess
from tests.support.need import need
from tests.support.tailing import copytruncate

KILLS = min(5, int(os.environ.get("TALLY_KILLS", "3")))
SEED = int(os.environ.get("TALLY_SEED", "7"))
PATIENCE_SECONDS = 60.0

Rotate = Callable[[Path], None]


def renamed(log: Path) -> None:
    for number in range(98, 0, -1):
        old = log.with_name(f"{log.name}.{number}")
        if old.exists():
            old.rename(log.with_name(f"{log.name}.{number + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))


def copied(log: Path) -> None:
    for number in range(98, 0, -1):
        old = log.with_name(f"{log.name}.{number}")
        if old.exists():
            old.rename(log.with_name(f"{log.name}.{number + 1}"))
    copytruncate(log, log.with_name(f"{log.name}.1"))


def by_logrotate(how: str) -> Rotate:
    """Debian's logrotate, forced to rotate now."""

    def rotate(log: Path) -> None:
        config = log.with_suffix(".conf")
        config.write_text(f"{log} {{\n  rotate 99\n  nocompress\n  {how}\n}}\n")
        subprocess.run(
            ["/usr/sbin/logrotate", "--force", "--state", str(log.with_suffix(".state")), str(config)], check=True
        )

    return rotate


class Service(threading.Thread):
    """Writes numbered lines, some of them over several lines, and rotates its file now and then."""

    def __init__(self, log: Path, rotate: Rotate) -> None:
        super().__init__(daemon=True)
        self.log = log
        self.written: list[str] = []
        self.rotations = 0
        self.done = threading.Event()
        self._rotate = rotate
        self._random = random.Random(f"{SEED}/{log.name}")

    def run(self) -> None:
        while not self.done.wait(0.005):
            with self.log.open("ab") as file:
                for _ in range(self._random.randint(1, 12)):
                    name = f"{self.log.stem} {len(self.written)}"
                    more = "\n  more" * self._random.randint(0, 2)
                    file.write(f"{name}{more}\n".encode())
                    self.written.append(name + more)
            if self._random.random() < 0.03:
                self._rotate(self.log)
                self.rotations += 1


@pytest.mark.crash
@pytest.mark.timeout(180)
@pytest.mark.parametrize("by", ["hand", "logrotate"])
def test_every_line_once(tmp_path: Path, by: str) -> None:
    if by == "logrotate":
        need(shutil.which("logrotate", path="/usr/sbin:/usr/bin"), "logrotate: apt-get install logrotate")
    ways: dict[str, Rotate] = (
        {"renamed": renamed, "copied": copied}
        if by == "hand"
        else {"renamed": by_logrotate("create"), "copied": by_logrotate("copytruncate")}
    )
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    settings = f"""
[[collector.tail]]
paths = ["{logs}/*.log*"]
poll_seconds = 0.05
[collector.tail.multiline]
indented = true
timeout_seconds = 0.3
"""
    instants = random.Random(SEED)
    collector = CollectorProcess(tmp_path, further=settings)
    services = [Service(logs / f"{name}.log", rotate) for name, rotate in ways.items()]
    try:
        collector.start()
        for service in services:
            service.start()
        for _ in range(KILLS):
            time.sleep(0.2 + instants.expovariate(1 / 0.3))  # the instant of the kill is what is tested
            collector.kill()
            collector.start()
        for service in services:
            service.done.set()
        for service in services:
            service.join(timeout=30)
        expected = Counter(line for service in services for line in service.written)
        wait_until_stored(collector, sum(expected.values()))
        collector.stop()
    finally:
        for service in services:
            service.done.set()
        collector.close()
    told = f"seed {SEED}, {KILLS} kills, {sum(expected.values())} events, {[service.rotations for service in services]} rotations"
    counts = Counter(str(event.body) for event in collector.stored())
    print(told)  # noqa: T201 - what a failure, or a reader, wants to know
    assert not expected - counts, f"lost: {list((expected - counts).elements())[:9]}, {told}"
    assert not counts - expected, f"doubled or cut: {list((counts - expected).elements())[:9]}, {told}"
    assert min(service.rotations for service in services) > 1, told


def wait_until_stored(collector: CollectorProcess, count: int) -> None:
    """Until the store has so many events, or patience ends; then what is missing is counted."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and len(collector.stored()) < count:
        time.sleep(0.5)
    time.sleep(0.5)  # more than there should be would come now
