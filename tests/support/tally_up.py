"""`tally up` as a test has it: every process of a `tally.toml`, until the block ends; and a trail as `tally trail` tells it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """What `tally up` said when everything was ready: of each process, by its name, the URL, all addresses by the way in, and the process id."""

    urls: dict[str, str]
    addresses: dict[str, dict[str, str]]
    pids: dict[str, int]


@contextmanager
def supervised(folder: Path, config: str) -> Iterator[Up]:
    """Run it in a folder. At the end of the block it is asked to stop, and must say that it stopped cleanly."""
    file = folder / "tally.toml"
    file.write_text(config)
    command = [sys.executable, "-m", "deploy.cli", "--config", str(file), "up", "--json"]
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    assert process.stdout is not None
    try:
        text = b""
        while not text.endswith(b"\n}\n"):
            line = process.stdout.readline()
            assert line, (folder / "stderr").read_text()
            text += line
        ready = json.loads(text)["ready"]
        yield Up(
            urls={one["name"]: one["addresses"]["http"] for one in ready},
            addresses={one["name"]: one["addresses"] for one in ready},
            pids={one["name"]: one["pid"] for one in ready},
        )
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_PATIENCE_SECONDS)
        finally:
            process.kill()
            process.stdout.close()
    assert process.returncode == 0, (folder / "stderr").read_text()


@contextmanager
def tally_up(folder: Path, config: str) -> Iterator[dict[str, str]]:
    """The same for who needs no process ids: yields the URL of each process by its name."""
    with supervised(folder, config) as up:
        yield up.urls


def trail_until(folder: Path, trail: str, words: str) -> None:
    """Wait until a trail is in the log and its story says these words: the correlator is behind what is acknowledged."""
    command = [sys.executable, "-m", "deploy.cli", "--config", str(folder / "tally.toml"), "trail", trail]
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0 and words in done.stdout:
            return
        assert time.monotonic() < deadline, (done.stdout, done.stderr)
        time.sleep(0.2)  # another process: there is nothing to await
