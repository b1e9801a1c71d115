"""Our sidecar beside the OpenTelemetry Collector in one run: the same records, the same cores, taking turns.

Both take Fluent Forward, mask, keep what they took in a synced file, acknowledge it, and ship it to somebody who answers at once. Ours does so twice: once to
another collector, as the other one does, and once to its store, where it also numbers, hashes and signs what it ships, and syncs it a second time.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.crash import Account, bench_crash
from bench.floor import fdatasync_seconds
from bench.forward import send, send_one_by_one
from bench.otelcol import Otelcol
from bench.records import chunk_message, single_message
from bench.sidecar import Side, Sidecar
from bench.sink import Sink
from drills.matrix.programs import Programs

__all__ = ["Figures", "Load", "bench_comparison", "print_comparison"]

_TURNS = 5
_PATIENCE_SECONDS = 600.0
_LOOK_SECONDS = 0.02
_MIB = 1024 * 1024

TO_STORE, TO_COLLECTOR, OTHER = "Tallystick, to its store", "Tallystick, to a collector", "OpenTelemetry Collector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many chunks of so many records, so many of them in flight, each on a connection of its own."""

    chunk_records: int
    in_flight: int
    chunks: int

    @property
    def records(self) -> int:
        """In all."""
        return self.chunk_records * self.chunks

    def messages(self) -> list[bytes]:
        """The chunks, each with an id of its own."""
        if self.chunk_records == 1:
            return [single_message(at, chunk=f"{self.in_flight}-one-{at}") for at in range(self.chunks)]
        size = self.chunk_records
        return [chunk_message(at * size, size, chunk=f"{self.in_flight}-{at}") for at in range(self.chunks)]


@dataclass(slots=True)
class Figures:
    """What the turns of one side under one load gave; acknowledgements in seconds, of all turns."""

    records_a_second: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    acks: list[float] = field(default_factory=list)

    @property
    def ack_p99(self) -> float:
        """The 99th percentile."""
        return statistics.quantiles(self.acks, n=100)[98]


def bench_comparison(
    folder: Path, loads: Sequence[Load], *, turns: int = _TURNS
) -> tuple[Mapping[Load, Mapping[str, Figures]], Mapping[str, Account]]:
    """Each side under each load, `turns` times, each time anew and one after the other; then each under SIGKILL."""
    found: dict[Load, dict[str, Figures]] = {load: defaultdict(Figures) for load in loads}
    with tempfile.TemporaryDirectory(dir=folder) as name, Programs(Path(name)) as programs:
        binary = programs.otelcol
        made: dict[str, Callable[[Path], AbstractContextManager[Side]]] = {
            TO_STORE: _to_store,
            TO_COLLECTOR: _to_collector,
            OTHER: partial(_other, binary),
        }
        for turn in range(turns):
            for load in loads:
                for at, (title, make) in enumerate(made.items()):
                    own = folder / f"{turn}-{load.chunk_records}-{load.in_flight}-{at}"
                    with make(own) as side:
                        _measure(side, load, found[load][title])
        return found, bench_crash(folder / "crash", binary)


@contextmanager
def _to_store(folder: Path) -> Iterator[Side]:
    with _running(Sidecar(folder)) as side:
        yield side


@contextmanager
def _to_collector(folder: Path) -> Iterator[Side]:
    with Sink("forward") as sink, _running(Sidecar(folder, sink)) as side:
        yield side


@contextmanager
def _other(binary: Path, folder: Path) -> Iterator[Side]:
    with Sink("otlp") as sink, _running(Otelcol(binary, folder, sink=sink)) as side:
        yield side


@contextmanager
def _running(side: Side) -> Iterator[Side]:
    try:
        side.start()
        yield side
    finally:
        side.stop()


def _measure(side: Side, load: Load, figures: Figures) -> None:
    """One turn, after a warm-up that is not counted. What it costs to ship all of it is counted, and waited for."""
    warm = [chunk_message(at * 500, 500, chunk=f"warm-{at}") for at in range(4)]
    asyncio.run(send(side.address, warm, 1, in_flight=2))
    _wait_delivered(side, 2_000)
    messages = load.messages()
    before, began = side.usage(), time.perf_counter()
    if load.in_flight == 1:
        acks = send_one_by_one(side.address, messages)
    else:
        acks = asyncio.run(send(side.address, messages, load.in_flight, in_flight=1))
    wall = time.perf_counter() - began
    _wait_delivered(side, 2_000 + load.records)
    after = side.usage()
    figures.records_a_second.append(load.records / wall)
    figures.cpu_us.append((after.cpu_seconds - before.cpu_seconds) / load.records * 1e6)
    figures.peak_bytes.append(after.peak_bytes)
    figures.acks += acks


def _wait_delivered(side: Side, records: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (came := side.delivered()) < records:
        if time.monotonic() > deadline:
            raise RuntimeError(f"of {records} records {came} came through")
        time.sleep(_LOOK_SECONDS)  # it happens in another process


def print_comparison(folder: Path, events: int) -> None:
    """Run it with so many events in the throughput rows, and print the tables."""
    loads = [
        Load(chunk_records=1_000, in_flight=1, chunks=events // 1_000),
        Load(chunk_records=1_000, in_flight=8, chunks=events // 1_000),
        Load(chunk_records=1, in_flight=1, chunks=events // 50),
        Load(chunk_records=1, in_flight=8, chunks=events // 12),
    ]
    folder.mkdir()
    sync_p50, sync_p99 = fdatasync_seconds(folder)
    found, accounts = bench_comparison(folder, loads)
    print("\n## Beside the OpenTelemetry Collector\n")
    print(f"floor: fdatasync: p50 {sync_p50 * 1e6:.0f} µs, p99 {sync_p99 * 1e6:.0f} µs\n")
    print("| | records a chunk | in flight | records/s | CPU µs a record | ack p50 ms | ack p99 ms | peak MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for load, sides in found.items():
        for title, one in sides.items():
            print(
                f"| {title} | {load.chunk_records:,} | {load.in_flight} | {statistics.median(one.records_a_second):,.0f} |"
                f" {statistics.median(one.cpu_us):.1f} | {statistics.median(one.acks) * 1e3:.2f} |"
                f" {one.ack_p99 * 1e3:.2f} | {max(one.peak_bytes) / _MIB:.0f} |"
            )
    print("\n| ours ÷ theirs | records a chunk | in flight | CPU a record, aim ≤ 1.0 | ack p99, aim ≤ 1.0 |")
    print("|---|---:|---:|---:|---:|")
    for load, sides in found.items():
        theirs = sides[OTHER]
        for title in (TO_STORE, TO_COLLECTOR):
            cpu = statistics.median(sides[title].cpu_us) / statistics.median(theirs.cpu_us)
            p99 = sides[title].ack_p99 / theirs.ack_p99
            print(f"| {title} | {load.chunk_records:,} | {load.in_flight} | {cpu:.2f} | {p99:.2f} |")
    print("\n| killed under load | SIGKILLs | acknowledged | of them lost | came twice |")
    print("|---|---:|---:|---:|---:|")
    for title, account in accounts.items():
        print(f"| {title} | {account.kills} | {account.acknowledged:,} | {account.lost:,} | {account.doubled:,} |")
