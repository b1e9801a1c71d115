"""The collector killed at random instants under load: what was acknowledged is stored, nothing twice, and every stream's chain holds.

`TALLY_KILLS` says how often (default 25), `TALLY_SEED` when; the seed of a failure is in its message.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest

from collector.store.sqlite import SqliteStore
from tests.support.collector_process import CollectorProcess

KILLS = int(os.environ.get("TALLY_KILLS", "25"))
SEED = int(os.environ.get("TALLY_SEED", "7"))
SENDERS = 3


class Sender(threading.Thread):
    """Sends chunk after chunk over Forward, each until it is acknowledged."""

    def __init__(self, number: int, collector: CollectorProcess) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.acknowledged: list[str] = []
        self.attempts = 0
        self.done = threading.Event()
        self._collector = collector
        self._random = random.Random(f"{SEED}/{number}")

    def run(self) -> None:
        while not self.done.is_set():
            names = [f"{self.number}/{len(self.acknowledged) + at}" for at in range(self._random.randint(1, 20))]
            while not self._send(names):
                if self.done.wait(0.005):
                    return
            self.acknowledged += names

    def _send(self, names: list[str]) -> bool:
        self.attempts += 1
        chunk = names[0]
        message = ["shop", [[1, {"message": name}] for name in names], {"chunk": chunk, "size": len(names)}]
        host, _, port = self._collector.addresses["forward"].partition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(msgpack.packb(message))
            unpacker = msgpack.Unpacker()
            while data := connection.recv(4096):
                unpacker.feed(data)
                for answer in unpacker:
                    return bool(answer == {"ack": chunk})
        return False


@pytest.mark.crash
@pytest.mark.timeout(60 + 5 * KILLS)
def test_killed_at_random_instants_under_load(tmp_path: Path) -> None:
    instants = random.Random(SEED)
    collector = CollectorProcess(tmp_path)
    collector.start()
    senders = [Sender(number, collector) for number in range(SENDERS)]
    try:
        for sender in senders:
            sender.start()
        for _ in range(KILLS):
            time.sleep(instants.expovariate(1 / 0.15))  # the instant of the kill is what is tested
            collector.kill()
            collector.start()
        before = sum(len(sender.acknowledged) for sender in senders)
        deadline = time.monotonic() + 30
        while sum(len(sender.acknowledged) for sender in senders) == before:
            assert time.monotonic() < deadline, "after the last restart nothing is acknowledged any more"
            time.sleep(0.01)
        for sender in senders:
            sender.done.set()
        for sender in senders:
            sender.join(timeout=30)
        collector.stop()
    finally:
        for sender in senders:
            sender.done.set()
        collector.close()
    told = f"seed {SEED}, {KILLS} kills"
    counts = Counter(str(event.body) for event in collector.stored())
    acknowledged = {name for sender in senders for name in sender.acknowledged}
    assert len(acknowledged) > KILLS, told
    assert not acknowledged - counts.keys(), f"acknowledged, but not stored: {told}"
    assert not [name for name, times in counts.items() if times > 1], f"stored twice: {told}"
    assert len(counts) - len(acknowledged) <= SENDERS * 20, told  # at most the chunks in flight at the end
    check_chains(tmp_path / "tally-data" / "store.sqlite")


def check_chains(path: Path) -> None:
    """Every stream's numbers, sequences, chain and signatures (reading opens each header)."""
    store = SqliteStore(path, read_only=True)
    try:
        for stream in store.streams():
            previous, sequence = "", 0
            for expected, signed in enumerate(store.batches_after({stream: 0}, 1_000_000), start=1):
                header = signed.header
                assert (header.number, header.first, header.previous) == (expected, sequence, previous), stream
                previous, sequence = signed.digest, sequence + header.count
    finally:
        store.close()
