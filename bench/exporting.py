"""Exports as data of a whole ledger through `tally export`, of a tenth of the events and of all: what it costs, and that memory does not grow."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.end_to_end import fill, wait_until_logged
from bench.forward import write_config
from bench.process import ENVIRONMENT, TALLY, Tally

__all__ = ["FORMATS", "Exported", "bench_export"]

FORMATS = ("ndjson", "csv", "parquet", "ecs", "ocsf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One export: of so many events in so many rows, seconds from start to end of the process, its CPU seconds and peak memory, the file's bytes."""

    form: str
    events: int
    rows: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    file_bytes: int


def bench_export(folder: Path, *, events: int) -> Iterator[Exported]:
    """Fill a ledger through Forward with a tenth of the events, export it in each format; then the rest, and again."""
    write_config(folder)
    collector, correlator = Tally(folder, "collector"), Tally(folder, "correlator")
    stored = 0
    try:
        for until in (events // 10, events):
            fill(collector, until - stored, first=stored)
            stored = until
            wait_until_logged(folder, stored, collector, correlator)
            for form in FORMATS:
                yield _export(folder, form)
    finally:
        correlator.stop()
        collector.stop()


def _export(folder: Path, form: str) -> Exported:
    file = folder / f"out.{form}"
    began = time.perf_counter()
    process = subprocess.Popen(
        [*TALLY, "--config", str(folder / "tally.toml"), "export", "--format", form, "-o", str(file), "--force"],
        stdout=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"tally export --format {form} ended with {process.returncode}")
    manifest = json.loads(file.with_name(f"{file.name}.manifest.json").read_bytes())
    if not manifest["complete"]:
        raise RuntimeError(f"the export as {form} is not complete")
    size = file.stat().st_size
    file.unlink()
    return Exported(
        form=form,
        events=manifest["counts"]["events"],
        rows=manifest["counts"]["rows"],
        wall_seconds=wall,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
        file_bytes=size,
    )
