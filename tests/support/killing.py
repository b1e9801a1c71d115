"""A collector and a correlator as real processes under Forward load, killed with SIGKILL at random instants, and what must hold then.

acknowledged ⊆ stored, each event once; every stored event has its entry in the log; `tally check` finds nothing
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from collector.batch import EventRef
from collector.event import decode_event
from collector.store.sqlite import SqliteStore
from deploy.checking.whole import check_everything
from deploy.config import load
from deploy.keys import log_verifier
from deploy.places import Places

CONFIG = """
ledger = "test.example/drill"
data = "data"
[collector.forward]
port = 0
[collector.http]
port = 0
[collector.ship]
batch_events = 200
linger_seconds = 0.005
[collector.stitch]
transaction = ["attributes.payment_id"]
[correlator]
poll_max_seconds = 0.05
missing_poll_seconds = 0.1
"""

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
TARGETS = ("collector", "correlator", "both")


class Process:
    """One `tally run …`, to be killed."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.name = {"collector": "collector-collector"}.get(arguments[0], arguments[0])
        if arguments[-2:-1] == ("--name",):
            self.name = f"{arguments[0]}-{arguments[-1]}"
        elif arguments[-2:-1] == ("--shard",):
            self.name = f"{arguments[0]}-shard-{arguments[-1]}"
        self._folder = folder
        with (folder / f"{self.name}.log").open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "--config", str(folder / "tally.toml"), "run", *arguments],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )

    def addresses(self) -> dict[str, str]:
        """Where it listens; empty while it is not ready."""
        with suppress(OSError, msgspec.DecodeError):
            told = msgspec.json.decode((self._folder / "data" / "run" / f"{self.name}.json").read_bytes())
            if told["pid"] == self.popen.pid:
                return dict(told["addresses"])
        return {}

    def wait_ready(self) -> dict[str, str]:
        """Wait until it listens; raises when it ends instead."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self.popen.poll() is None:
            if found := self.addresses():
                return found
            time.sleep(0.005)  # what is awaited happens in another process
        raise RuntimeError(f"{self.name} did not get ready (exit code {self.popen.poll()}):\n{self.log()}")

    def log(self) -> str:
        """The end of what it logged."""
        return (self._folder / f"{self.name}.log").read_text(errors="replace")[-3_000:]

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> int:
        """SIGTERM, and wait for the end; gives the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(PATIENCE_SECONDS)


@dataclass
class Load:
    """Senders that send chunk after chunk over Forward, each again until it is acknowledged, wherever the collector listens."""

    address: str = ""
    senders: int = 3
    seed: int = 0
    acknowledged: set[str] = field(default_factory=set)
    attempts: int = 0
    chunks: int = 0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send_for_ever, args=(n,)) for n in range(self.senders)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send for the length of the block; then each sender's last chunk is either acknowledged or given up."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _send_for_ever(self, number: int) -> None:
        dice = random.Random(f"{self.seed}/{number}")
        at = 0
        while not self._stop.is_set():
            names = [f"{number}/{at + n}" for n in range(dice.randint(1, 40))]
            at += len(names)
            message = msgpack.packb(
                [
                    "shop",
                    [[1_700_000_000, {"message": name, "payment_id": f"p{name[:-1]}"}] for name in names],
                    {"chunk": names[0], "size": len(names)},
                ]
            )
            while not self._sent(message, names[0]):
                with self._lock:
                    self.attempts += 1
                if self._stop.wait(0.01):
                    return
            with self._lock:
                self.attempts += 1
                self.chunks += 1
                self.acknowledged.update(names)
            self._stop.wait(0.02)  # enough to be in flight at every kill, and little enough to check it all

    def _sent(self, message: bytes, chunk: str) -> bool:
        host, _, port = self.address.rpartition(":")
        if not port:
            return False
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(message)
            unpacker = msgpack.Unpacker()
            while data := connection.recv(4_096):
                unpacker.feed(data)
                for answer in unpacker:
                    return bool(answer == {"ack": chunk})
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a drill. The last five must be empty."""

    kills: Counter[str]
    killed_while_starting: int
    chunks: int
    resends: int
    acknowledged: int
    stored: int
    entries: int
    lost: list[str]
    doubled: list[str]
    waiting: int
    findings: list[str]
    exit_codes: list[int]


def sigkill_drill(folder: Path, *, kills: int, seed: int, least_events: int = 1) -> Outcome:
    """Kill so many times, restart after each, and look at everything in the end.

    Args:
        folder: an empty one.
        kills: how many.
        seed: of the targets and instants.
        least_events: after the kills, load goes on until so many events are acknowledged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tally.toml").write_text(CONFIG)
    dice = random.Random(seed)
    counts: Counter[str] = Counter()
    starting = 0
    load_ = Load(seed=seed)
    running = {name: Process(folder, name) for name in ("collector", "correlator")}
    try:
        load_.address = running["collector"].wait_ready()["forward"]
        running["correlator"].wait_ready()
        with load_.running():
            for _ in range(kills):
                target = dice.choice(TARGETS)
                names = ("collector", "correlator") if target == "both" else (target,)
                time.sleep(dice.random() * 0.25)  # the instant is the point; nothing is awaited
                for name in names:
                    running[name].kill()
                    running[name] = Process(folder, name)
                counts[target] += 1
                if (
                    counts.total() < kills and dice.random() < 0.25
                ):  # and again, while it starts: recovery must be killable, too
                    time.sleep(dice.random() * 1.0)
                    starting += not all(running[name].addresses() for name in names)
                    for name in names:
                        running[name].kill()
                        running[name] = Process(folder, name)
                    counts[target] += 1
                for name in names:
                    told = running[name].wait_ready()
                    load_.address = told.get("forward", load_.address)
                if counts.total() >= kills:
                    break
            deadline = time.monotonic() + PATIENCE_SECONDS
            while len(load_.acknowledged) < least_events and time.monotonic() < deadline:
                time.sleep(0.01)
        codes = [running[name].stop() for name in ("collector", "correlator")]
    finally:
        for process in running.values():
            process.kill()
    return _outcome(folder, load_, counts, starting, codes)


def _outcome(folder: Path, load_: Load, counts: Counter[str], starting: int, codes: list[int]) -> Outcome:
    config = load(folder / "tally.toml", environ={}, folder=folder)[0]
    places = Places(folder / "data")
    findings, account = check_everything(config, log_verifier(places))
    stored = Counter(stored_messages(places.store))
    return Outcome(
        kills=counts,
        killed_while_starting=starting,
        chunks=load_.chunks,
        resends=load_.attempts - load_.chunks,
        acknowledged=len(load_.acknowledged),
        stored=stored.total(),
        entries=account.events,
        lost=sorted(load_.acknowledged - set(stored)),
        doubled=sorted(name for name, count in stored.items() if count > 1),
        waiting=account.waiting,
        findings=[str(finding) for finding in findings],
        exit_codes=codes,
    )


def stored_messages(path: Path) -> Iterator[str]:
    """The body of every event in the store."""
    with closing(SqliteStore(path, read_only=True)) as store:
        for stream in store.streams():
            number = 0
            while headers := store.batches_after({stream: number}, 100):
                for signed in headers:
                    first, count = signed.header.first, signed.header.count
                    refs = [EventRef(stream=stream, sequence=at) for at in range(first, first + count)]
                    for data in store.events(refs):
                        body: Any = decode_event(data).body
                        yield str(body)
                number = headers[-1].header.number
