"""Forward → durable ack: a real sidecar under 1, 8 and 64 connections, chunks of 1,000 records and single messages."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgpack

from bench.process import Tally, Usage
from bench.records import chunk_message, single_message

__all__ = ["ForwardResult", "bench_forward", "idle_usage", "send"]

_CONFIG = """
data = "data"
[collector.http]
port = 0
[collector.forward]
port = 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardResult:
    """One row: rate in events a second, CPU of the sidecar in microseconds an event, ack latencies in seconds."""

    events_a_second: float
    cpu_us: float
    ack_p50: float
    ack_p99: float


def write_config(folder: Path, extra: str = "") -> None:
    """A configuration with free ports and its data under `folder`. `extra` goes on in its last table, ``collector.forward``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tally.toml").write_text(_CONFIG + extra)


async def send(address: str, messages: Sequence[bytes], connections: int, *, in_flight: int) -> list[float]:
    """Send the messages over so many connections, each with at most `in_flight` unacknowledged; seconds to each ack."""
    host, _, port = address.rpartition(":")
    taken: list[float] = []

    async def one(own: Sequence[bytes]) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        unpacker = msgpack.Unpacker()
        sent: list[float] = []
        acked = 0
        for message in own:
            while len(sent) - acked >= in_flight:
                acked += await _read_acks(reader, unpacker, sent, acked, taken)
            sent.append(time.perf_counter())
            writer.write(message)
            await writer.drain()
        while acked < len(own):
            acked += await _read_acks(reader, unpacker, sent, acked, taken)
        writer.close()

    await asyncio.gather(*(one(messages[at::connections]) for at in range(connections)))
    return taken


def send_one_by_one(address: str, messages: Sequence[bytes], *, pause_seconds: float = 0.0) -> list[float]:
    """Send each message after the ack of the one before, and a pause, over a blocking socket: of the sender's own time little is in it."""
    taken: list[float] = []
    with _connected(address) as connection:
        for message in messages:
            began = time.perf_counter()
            connection.sendall(message)
            if not connection.recv(4_096):  # an ack is far shorter than a segment
                raise ConnectionError("the sidecar closed the connection")
            taken.append(time.perf_counter() - began)
            time.sleep(pause_seconds)
    return taken


def _connected(address: str) -> socket.socket:
    """A connection to ``host:port``, or to a unix socket by its path."""
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


async def _read_acks(
    reader: asyncio.StreamReader, unpacker: msgpack.Unpacker, sent: list[float], acked: int, taken: list[float]
) -> int:
    data = await reader.read(65_536)
    if not data:
        raise ConnectionError("the sidecar closed the connection")
    unpacker.feed(data)
    count = 0
    now = time.perf_counter()
    for _ in unpacker:
        taken.append(now - sent[acked + count])
        count += 1
    return count


def bench_forward(
    folder: Path, *, connections: int, size: int, events: int, unix_socket: Path | None = None
) -> ForwardResult:
    """One row on a fresh sidecar, after a warm-up that is not counted. `unix_socket`: a place for one, over which a lone connection sends."""
    write_config(folder, f'unix_socket = "{unix_socket}"\n' if unix_socket else "")
    sidecar = Tally(folder, "collector")
    try:
        address = sidecar.addresses["forward"]
        warm = [chunk_message(at * 500, 500, chunk=f"warm-{at}") for at in range(4)]
        asyncio.run(send(address, warm, 1, in_flight=2))
        if size == 1:
            messages = [single_message(at, chunk=f"one-{at}") for at in range(events)]
        else:
            messages = [chunk_message(at * size, size, chunk=f"many-{at}") for at in range(events // size)]
        before, began = sidecar.usage(), time.perf_counter()
        if connections == size == 1:
            acks = send_one_by_one(str(unix_socket or address), messages)
        else:
            acks = asyncio.run(send(address, messages, connections, in_flight=1 if size == 1 else 4))
        wall = time.perf_counter() - began
        time.sleep(0.5)  # shipping of the last batch belongs to the cost, too
        cpu_seconds = sidecar.usage().cpu_seconds - before.cpu_seconds
        return ForwardResult(
            events_a_second=events / wall,
            cpu_us=cpu_seconds / events * 1e6,
            ack_p50=statistics.median(acks),
            ack_p99=statistics.quantiles(acks, n=100)[98],
        )
    finally:
        sidecar.stop()


def idle_usage(folder: Path) -> Usage:
    """A sidecar that nobody sends to, a while after its start."""
    write_config(folder)
    sidecar = Tally(folder, "collector")
    try:
        time.sleep(3.0)
        return sidecar.usage()
    finally:
        sidecar.stop()
