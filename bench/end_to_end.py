"""From the first byte a sender writes to a signed checkpoint that covers every event: sidecar and correlator together."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from bench.forward import send, write_config
from bench.process import Tally, Usage
from bench.records import EVENTS_A_TRANSACTION, chunk_message

__all__ = ["EndToEnd", "bench_end_to_end", "bench_open_trails", "fill", "log_size", "wait_until_logged"]

_CHUNK = 1_000
_PATIENCE_SECONDS = 600.0
_STILL_SECONDS = 1.5  # longer than the pause of an idle correlator, and than the time after which a short batch is cut


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEnd:
    """What a run cost: rates in events a second, CPU in microseconds an event, sizes in bytes an event or in all."""

    events: int
    events_a_second: float
    collector_us: float
    correlator_us: float
    store_bytes: float
    log_bytes: float
    index_bytes: float
    collector_peak_bytes: int
    correlator_peak_bytes: int


def log_size(folder: Path) -> int:
    """Leaves under the published checkpoint; 0 when there is none yet."""
    try:
        return int((folder / "data" / "log" / "checkpoint").read_text().splitlines()[1])
    except (FileNotFoundError, IndexError):
        return 0


def wait_until_logged(folder: Path, leaves: int, *processes: Tally) -> float:
    """Wait until the log has at least so many leaves and then grows no more; returns the `perf_counter` of its last growth.

    Every event is a leaf, but so are batches and links, a twentieth more: that there are as many leaves as events does not
    say that the last event is in. So the last growth counts that `_STILL_SECONDS` without one have followed.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    size, grown = log_size(folder), time.perf_counter()
    while size < leaves or time.perf_counter() - grown < _STILL_SECONDS:
        if time.monotonic() > deadline or any(process.process.poll() is not None for process in processes):
            raise RuntimeError(f"the log stays at {size} of {leaves} leaves")
        for process in processes:
            process.drain_log()
        time.sleep(0.01)
        if (now := log_size(folder)) != size:
            size, grown = now, time.perf_counter()
    return grown


def fill(sidecar: Tally, events: int, *, first: int = 0, a_transaction: int = EVENTS_A_TRANSACTION) -> None:
    """Send events in chunks over several connections until all are acknowledged; messages are made as they are sent."""
    block = 100_000
    for start in range(first, first + events, block):
        count = min(block, first + events - start)
        messages = [
            chunk_message(at, min(_CHUNK, start + count - at), chunk=f"fill-{at}", a_transaction=a_transaction)
            for at in range(start, start + count, _CHUNK)
        ]
        asyncio.run(send(sidecar.addresses["forward"], messages, 8, in_flight=4))
        sidecar.drain_log()


def bench_end_to_end(folder: Path, *, events: int) -> EndToEnd:
    """One run on fresh data, after a warm-up of 5,000 events that is not counted."""
    write_config(folder)
    collector = Tally(folder, "collector")
    correlator = Tally(folder, "correlator")
    try:
        fill(collector, 5_000, first=events)
        wait_until_logged(folder, 5_000, collector, correlator)
        messages = [chunk_message(at, _CHUNK, chunk=f"many-{at}") for at in range(0, events, _CHUNK)]
        before, leaves = (collector.usage(), correlator.usage()), log_size(folder)
        began = time.perf_counter()
        asyncio.run(send(collector.addresses["forward"], messages, 8, in_flight=4))
        wall = wait_until_logged(folder, leaves + events, collector, correlator) - began
        after = (collector.usage(), correlator.usage())
        return EndToEnd(
            events=events,
            events_a_second=events / wall,
            collector_us=(after[0].cpu_seconds - before[0].cpu_seconds) / events * 1e6,
            correlator_us=(after[1].cpu_seconds - before[1].cpu_seconds) / events * 1e6,
            store_bytes=_size(folder / "data", "store.sqlite") / events,
            log_bytes=_size(folder / "data", "log") / events,
            index_bytes=_size(folder / "data", "index.sqlite") / events,
            collector_peak_bytes=after[0].peak_bytes,
            correlator_peak_bytes=after[1].peak_bytes,
        )
    finally:
        collector.stop()
        correlator.stop()


def bench_open_trails(folder: Path, *, trails: int) -> tuple[Usage, Usage, float]:
    """As many transactions of one event each.

    Returns what the correlator used at half of them and at all, and its CPU microseconds an event over the second half.
    """
    write_config(folder)
    collector = Tally(folder, "collector")
    correlator = Tally(folder, "correlator")
    try:
        half = trails // 2
        fill(collector, half, a_transaction=1)
        wait_until_logged(folder, half, collector, correlator)
        middle = correlator.usage()
        fill(collector, trails - half, first=half, a_transaction=1)
        wait_until_logged(folder, trails, collector, correlator)
        end = correlator.usage()
        return middle, end, (end.cpu_seconds - middle.cpu_seconds) / (trails - half) * 1e6
    finally:
        collector.stop()
        correlator.stop()


def _size(folder: Path, prefix: str) -> int:
    """Bytes on disk of what is called so, a file with its companions or a folder."""
    paths = [path for start in folder.glob(f"{prefix}*") for path in ([start] if start.is_file() else start.rglob("*"))]
    return sum(path.stat().st_size for path in paths if path.is_file())
