"""Both collectors killed with SIGKILL under load, started again on what they kept, and what became of what they had acknowledged."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgpack

from bench.otelcol import Otelcol
from bench.records import chunk_message, record
from bench.sidecar import Side, Sidecar
from bench.sink import Sink

__all__ = ["Account", "account_of", "bench_crash"]

_KILLS = 5
_CHUNK = 100
_SENDERS = 8
_BETWEEN_CHUNKS = 60
"""Chunks that are acknowledged from one kill to the next."""
_ANSWER_SECONDS = 10.0
_STILL_SECONDS = 8.0  # longer than any of the two waits before it sends again
_PATIENCE_SECONDS = 600.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Records: those acknowledged, those of them that never came, those that came once more than they should."""

    kills: int
    acknowledged: int
    lost: int
    doubled: int


def bench_crash(folder: Path, binary: Path) -> Mapping[str, Account]:
    """The account of each side: ours in its store, the OpenTelemetry Collector's in the sink that it ships to."""
    sidecar = Sidecar(folder / "sidecar")
    ours = _acknowledged_under_kills(sidecar)
    accounts = {"Tallystick": account_of(ours, sidecar.span_ids())}
    (folder / "other").mkdir()
    with Sink("otlp", keep=folder / "other" / "requests.bin") as sink:
        theirs = _acknowledged_under_kills(Otelcol(binary, folder / "other" / "collector", sink=sink))
        accounts["OpenTelemetry Collector"] = account_of(theirs, sink.span_ids())
    return accounts


def account_of(acknowledged: Collection[int], came: Iterable[str]) -> Account:
    """What became of the chunks that were acknowledged, given by their first record's number, when these came, by their spans' ids.

    Raises:
        RuntimeError: something came that was not sent.
    """
    told = {record(at)["span_id"] for first in acknowledged for at in range(first, first + _CHUNK)}
    sent = {record(at)["span_id"] for at in range(max(acknowledged) + _CHUNK * _SENDERS * 2)}
    counted = Counter(came)
    if strange := counted.keys() - sent:  # an id that was changed on its way would count as a loss
        raise RuntimeError(f"{len(strange)} records came that nobody sent, such as {min(strange)!r}")
    return Account(
        kills=_KILLS,
        acknowledged=len(told),
        lost=len(told - counted.keys()),
        doubled=sum(count - 1 for count in counted.values()),
    )


def _acknowledged_under_kills(side: Side) -> set[int]:
    """The first record's number of each chunk that was acknowledged; returns when nothing is shipped any more."""
    load = _Load(side)
    try:
        side.start()
        with load.running():
            for kill in range(_KILLS):
                load.wait(_BETWEEN_CHUNKS * (kill + 1))
                side.kill()
                side.start()
            load.wait(_BETWEEN_CHUNKS * (_KILLS + 1))
        _wait_still(side)
    finally:
        side.stop()
    return load.acknowledged


def _wait_still(side: Side) -> None:
    count, since = side.delivered(), time.monotonic()
    deadline = since + _PATIENCE_SECONDS
    while time.monotonic() - since < _STILL_SECONDS:
        if (now := side.delivered()) != count:
            count, since = now, time.monotonic()
        if since > deadline:
            raise RuntimeError("shipping never comes to rest")
        time.sleep(_LOOK_SECONDS)  # it happens in another process


class _Load:
    """Senders over Forward, each with one chunk under way, which it sends until it is acknowledged."""

    def __init__(self, side: Side) -> None:
        self.acknowledged: set[int] = set()
        self._side = side
        self._grown = threading.Condition()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send_for_ever, args=(at,)) for at in range(_SENDERS)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send for the length of the block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def wait(self, chunks: int) -> None:
        """Until so many are acknowledged."""
        with self._grown:
            if not self._grown.wait_for(lambda: len(self.acknowledged) >= chunks, _PATIENCE_SECONDS):
                raise RuntimeError(f"{len(self.acknowledged)} of {chunks} chunks were acknowledged")

    def _send_for_ever(self, sender: int) -> None:
        chunk = sender
        while not self._stop.is_set():
            with suppress(OSError):  # it was killed, and is started again
                host, _, port = self._side.address.rpartition(":")
                with socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS) as connection:
                    while not self._stop.is_set() and self._sent(connection, chunk):
                        with self._grown:
                            self.acknowledged.add(chunk * _CHUNK)
                            self._grown.notify_all()
                        chunk += _SENDERS
            self._stop.wait(_LOOK_SECONDS)

    def _sent(self, connection: socket.socket, chunk: int) -> bool:
        connection.sendall(chunk_message(chunk * _CHUNK, _CHUNK, chunk=f"chunk-{chunk}"))
        unpacker = msgpack.Unpacker()
        while data := connection.recv(4_096):
            unpacker.feed(data)
            for answer in unpacker:
                return bool(answer == {"ack": f"chunk-{chunk}"})
        return False
