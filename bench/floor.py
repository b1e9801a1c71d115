"""The floors: what the same records cost at the least, and what one sync of the disk takes."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import statistics
import time
from pathlib import Path

import msgpack
import msgspec

from bench.records import records_packed

__all__ = ["fdatasync_seconds", "minimal_loop"]

_BATCH = 1_000
_SYNCS = 400


def minimal_loop(folder: Path, events: int) -> tuple[float, float]:
    """Decode each record, encode it as JSON, hash it, insert it into SQLite (WAL, FULL) a batch a transaction.

    Returns CPU microseconds an event and events a second.
    """
    packed = list(records_packed(events, _BATCH))
    database = sqlite3.connect(folder / "floor.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, digest BLOB, body BLOB)")
    encode = msgspec.json.Encoder(order="sorted").encode
    cpu, wall = time.process_time(), time.perf_counter()
    for batch in packed:
        rows = []
        for fields in msgpack.unpackb(batch):
            body = encode(fields)
            rows.append((hashlib.sha256(body).digest(), body))
        database.execute("BEGIN")
        database.executemany("INSERT INTO events (digest, body) VALUES (?, ?)", rows)
        database.execute("COMMIT")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    database.close()
    return cpu / events * 1e6, events / wall


def fdatasync_seconds(folder: Path) -> tuple[float, float]:
    """Median and 99th percentile of appending 600 bytes and fdatasync, in seconds."""
    descriptor = os.open(folder / "sync.bin", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    taken = []
    for _ in range(_SYNCS):
        os.write(descriptor, b"x" * 600)
        began = time.perf_counter()
        os.fdatasync(descriptor)
        taken.append(time.perf_counter() - began)
    os.close(descriptor)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]
