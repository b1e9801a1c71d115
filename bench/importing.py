"""From a file of JSON lines to a signed checkpoint over every row: `tally import`, start of the program included."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.end_to_end import log_size
from bench.forward import write_config
from bench.process import ENVIRONMENT, TALLY
from bench.records import record

__all__ = ["Import", "bench_import"]

_START_NS = 1_700_000_000 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """Rate in events a second, CPU in microseconds an event of the command with all its processes, its peak memory."""

    events_a_second: float
    cpu_us: float
    peak_bytes: int


def bench_import(folder: Path, *, events: int) -> Import:
    """Import a file of so many events into a fresh ledger."""
    write_config(folder)
    file = folder / "events.jsonl"
    encode = msgspec.json.encode
    with file.open("wb") as stream:
        for at in range(events):
            stream.write(encode({"time": _START_NS + at * 1_000_000, **record(at)}) + b"\n")
    began = time.perf_counter()
    command = [*TALLY, "--config", str(folder / "tally.toml"), "import", str(file)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    if process.returncode or log_size(folder) < events:
        raise RuntimeError(f"the import failed:\n{errors.decode(errors='replace')[-2000:]}")
    return Import(
        events_a_second=events / wall,
        cpu_us=(used.ru_utime + used.ru_stime) / events * 1e6,
        peak_bytes=used.ru_maxrss * 1024,
    )
