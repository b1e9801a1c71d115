"""Our collector in a comparison: Forward in, its spool, and out to the store beside it or to another collector."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

from bench.forward import write_config
from bench.process import Tally, Usage
from bench.sink import Sink
from collector.batch import EventRef
from collector.event import decode_event
from collector.store.sqlite import SqliteStore

__all__ = ["Side", "Sidecar"]

_RELAY = """
[collector.relay]
host = "127.0.0.1"
port = {port}
tls = false
compression = "none"
"""


class Side(Protocol):
    """What is compared: something that takes Forward, acknowledges it, and ships it.

    Attributes:
        address: where it takes Forward, once it was started.
    """

    @property
    def address(self) -> str:
        """Host and port; the same or another one after each start."""

    def start(self) -> None:
        """Start it, again after a `kill`, on what it kept; return when it listens."""

    def usage(self) -> Usage:
        """What it has used since it was last started."""

    def delivered(self) -> int:
        """Records that are where it ships to."""

    def kill(self) -> None:
        """SIGKILL."""

    def stop(self) -> None:
        """Stop it, if it runs."""


class Sidecar:
    """A `Side`: `tally run collector`.

    Args:
        folder: its own.
        sink: another collector to ship to; None: the store on SQLite, in its own process.
    """

    def __init__(self, folder: Path, sink: Sink | None = None) -> None:
        write_config(folder, "" if sink is None else _RELAY.format(port=sink.port))
        self._folder = folder
        self._sink = sink
        self._tally: Tally | None = None

    @property
    def address(self) -> str:
        """See `Side`."""
        return self._running.addresses["forward"]

    @property
    def _running(self) -> Tally:
        assert self._tally is not None, "it was not started"
        return self._tally

    def start(self) -> None:
        """See `Side`."""
        self._tally = Tally(self._folder, "collector")

    def usage(self) -> Usage:
        """See `Side`."""
        return self._running.usage()

    def delivered(self) -> int:
        """See `Side`. Asks the file, not the process that is measured."""
        self._running.drain_log()
        if self._sink is not None:
            return self._sink.count
        with closing(sqlite3.connect(f"file:{self._store}?mode=ro", uri=True)) as store:
            (count,) = store.execute('SELECT coalesce(sum("count"), 0) FROM batches').fetchone()
        return int(count)

    def kill(self) -> None:
        """See `Side`."""
        self._running.kill()

    def stop(self) -> None:
        """See `Side`."""
        if self._tally is not None:
            self._tally.stop()

    def span_ids(self) -> Iterator[str]:
        """Of each event in the store the span's id, by which `bench.records` tells records apart. Call it after `stop`."""
        with closing(SqliteStore(self._store, read_only=True)) as store:
            for stream in store.streams():
                number = 0
                while found := store.batches_after({stream: number}, 50):
                    for signed in found:
                        header = signed.header
                        sequences = range(header.first, header.first + header.count)
                        refs = [EventRef(stream=stream, sequence=sequence) for sequence in sequences]
                        for data in store.events(refs):
                            yield decode_event(data).span_id or ""
                    number = found[-1].header.number

    @property
    def _store(self) -> Path:
        return self._folder / "data" / "store.sqlite"
