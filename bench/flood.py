"""An honest sender beside a flood: how long its acks take while others send as fast as they can."""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import msgpack

from bench.forward import send_one_by_one, write_config
from bench.process import Tally
from bench.records import chunk_message, single_message

__all__ = ["FloodResult", "bench_flood"]

_CHUNK_EVENTS = 1_000
_IN_FLIGHT = 8
_PAUSE_SECONDS = 0.02  # between two events of the honest sender: it must not keep step with the flood
_PATIENCE_SECONDS = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodResult:
    """One row: seconds to the honest sender's acks, and what the flood got taken a second meanwhile."""

    ack_p50: float
    ack_p99: float
    ack_most: float
    flood_events_a_second: float


def bench_flood(folder: Path, *, connections: int, messages: int) -> FloodResult:
    """Single events over Forward, each after the ack of the one before, beside so many connections with eight chunks of 1,000 in flight."""
    write_config(folder)
    sidecar = Tally(folder, "collector")
    spawning = multiprocessing.get_context("spawn")
    stop, begun = spawning.Event(), spawning.Event()
    counted = spawning.Value("q", 0)
    flooding = partial(_flood, sidecar.addresses["forward"], connections, stop=stop, begun=begun, counted=counted)
    flood = [spawning.Process(target=flooding, daemon=True)] if connections else []
    try:
        for one in flood:
            one.start()
        if flood and not begun.wait(_PATIENCE_SECONDS):
            raise RuntimeError("the flood did not begin")
        before = counted.value
        began = time.monotonic()
        acks = send_one_by_one(
            sidecar.addresses["forward"],
            [single_message(at, chunk=f"honest-{at}") for at in range(messages)],
            pause_seconds=_PAUSE_SECONDS,
        )
        flooded = (counted.value - before) / (time.monotonic() - began)
        return FloodResult(
            ack_p50=statistics.median(acks),
            ack_p99=statistics.quantiles(acks, n=100)[98],
            ack_most=max(acks),
            flood_events_a_second=flooded,
        )
    finally:
        stop.set()
        for one in flood:
            one.join(30)
            one.kill()
        sidecar.drain_log()
        sidecar.stop()


def _flood(address: str, connections: int, *, stop: Event, begun: Event, counted: object) -> None:
    """Send until told to stop. All chunks have the same events, packed once: what makes them must not be what is measured."""
    host, _, port = address.rpartition(":")
    tag, entries, option = msgpack.unpackb(chunk_message(0, _CHUNK_EVENTS, chunk="flood"))

    async def one(at: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        unpacker = msgpack.Unpacker()
        number = in_flight = 0
        while not stop.is_set():
            writer.write(msgpack.packb([tag, entries, {**option, "chunk": f"flood-{at}-{number}"}]))
            await writer.drain()
            number, in_flight = number + 1, in_flight + 1
            while in_flight >= _IN_FLIGHT:
                data = await reader.read(65_536)
                if not data:
                    raise ConnectionError("the sidecar closed the connection")
                unpacker.feed(data)
                acked = sum(1 for _ in unpacker)
                in_flight -= acked
                counted.value += acked * _CHUNK_EVENTS  # type: ignore[attr-defined]  # of one process alone
                begun.set()
        writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(one(at) for at in range(connections)))

    asyncio.run(all_of_them())
