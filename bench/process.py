"""Tallystick's own processes, started as a user starts them, and what the kernel says they used."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

__all__ = ["ENVIRONMENT", "TALLY", "Tally", "Usage", "cpu_seconds", "load_average", "usage_of"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_SECONDS = 60.0

TALLY = (sys.executable, "-m", "deploy.cli")
"""The command `tally` of this checkout."""

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
"""What it is run with."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user and system, all threads), resident bytes now and at the most, and those now that are no file's pages.

    Pages of a memory-mapped file (the correlator's state) count as resident until the kernel wants them for something else.
    """

    cpu_seconds: float
    resident_bytes: int
    peak_bytes: int
    anonymous_bytes: int


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used since it started, user and system, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def usage_of(pid: int) -> Usage:
    """What a process and all that descend from it have used; of those that have ended, nothing."""
    tree = list(_tree(pid))
    sizes: Counter[str] = Counter()
    for one in tree:
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM", "RssAnon"):
                sizes[name] += int(value.split()[0]) * 1024
    return Usage(
        cpu_seconds=sum(map(cpu_seconds, tree)),
        resident_bytes=sizes["VmRSS"],
        peak_bytes=sizes["VmHWM"],
        anonymous_bytes=sizes["RssAnon"],
    )


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))


class Tally:
    """One `tally run …` process in a data folder of the bench's own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*TALLY, "--config", str(folder / "tally.toml"), "run", *arguments],
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        self.addresses = self._wait_ready(folder, arguments)

    def _wait_ready(self, folder: Path, arguments: tuple[str, ...]) -> dict[str, str]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            for path in (folder / "data" / "run").glob("*.json"):
                found = msgspec.json.decode(path.read_bytes())
                if found["pid"] == self.process.pid:
                    return dict(found["addresses"])
            time.sleep(0.02)
        self.process.kill()
        errors = self.process.stderr.read().decode(errors="replace") if self.process.stderr else ""
        self.stop()
        raise RuntimeError(f"tally run {' '.join(arguments)} did not get ready:\n{errors[-2000:]}")

    def usage(self) -> Usage:
        """What the process and those that it started have used since it started."""
        return usage_of(self.process.pid)

    def drain_log(self) -> None:
        """Read away what it logs, so that a full pipe never stops it."""
        stderr = self.process.stderr
        if stderr is None or stderr.closed:
            return
        while select.select([stderr], [], [], 0)[0] and os.read(stderr.fileno(), 65_536):
            pass

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self._wait_ended()

    def stop(self) -> None:
        """Stop it as a service manager does, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self._wait_ended()

    def _wait_ended(self) -> None:
        try:
            self.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


def load_average() -> str:
    """The kernel's load averages over 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())
