"""The drill: each attack in turn on one collector, with honest senders beside it, and what was refused, how much memory it took, who waited."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from collector.errors import Overloaded
from collector.send import Forwarder, Upstream
from drills.hostile.attacks import ATTACKS, CREDENTIAL, Attack, Pressure
from drills.matrix.gauges import read_metrics
from tests.servers.certificates import Authority
from tests.support.collector_process import CollectorProcess

__all__ = ["FULL", "SHORT", "Hit", "Outcome", "hostile_drill", "print_hostile"]

FULL = Pressure(
    rounds=400,
    bomb_bytes=1024**3,
    line_bytes=100 * 1024**2,
    slow_connections=100,
    slow_seconds=70.0,
    idle_connections=10_000,
)
SHORT = Pressure(
    rounds=12,
    bomb_bytes=128 * 1024**2,
    line_bytes=100 * 1024**2,
    slow_connections=20,
    slow_seconds=1.0,
    idle_connections=1_000,
)
MEMORY_BYTES = 512 * 1024**2
"""The bound of the collector's resident memory, whatever is sent to it by whom."""
PATIENCE_SECONDS = 20.0
"""An honest sender's event is acknowledged within so long, whatever others do."""

_SETTINGS = """
[collector.elasticsearch]
port = 0
credentials_file = "{folder}/credentials"
[collector.syslog]
port = 0
udp_port = 0
tls_port = 0
tls_certificate = "{certificate}"
tls_key = "{key}"
tls_client_ca = "{ca}"
"""
_COUNTED_SECONDS = 5.0
_GROUP = 10
_PAUSE_SECONDS = 0.05


@dataclass(slots=True, kw_only=True)
class Hit:
    """What an attack did.

    Attributes:
        attack: which.
        refused: what was counted, by reason.
        memory_bytes: the most that was resident meanwhile.
        waited_seconds: the longest that an honest sender waited for an acknowledgement.
        seconds: how long it took.
    """

    attack: Attack
    refused: Counter[str] = field(default_factory=Counter)
    memory_bytes: int = 0
    waited_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of all: honest events, by number, that are acknowledged, and how often each is stored."""

    hits: Sequence[Hit]
    acknowledged: set[str]
    stored: Counter[str]
    restarts: int

    def broken(self) -> list[str]:
        """Every promise that was not kept, in words."""
        lost = self.acknowledged - self.stored.keys()
        doubled = [name for name, count in self.stored.items() if count > 1]
        told = [
            (bool(lost), f"{len(lost)} honest events lost"),
            (bool(doubled), f"{len(doubled)} honest events doubled"),
            (bool(self.restarts), "the collector ended"),
            (not self.acknowledged, "no honest event was acknowledged"),
        ]
        for hit in self.hits:
            name = hit.attack.name
            missing = sorted(hit.attack.reasons - hit.refused.keys())
            told += [
                (bool(missing), f"{name}: not counted as {', '.join(missing)}"),
                (hit.memory_bytes > MEMORY_BYTES, f"{name}: {hit.memory_bytes >> 20} MiB of memory"),
                (hit.waited_seconds > PATIENCE_SECONDS, f"{name}: an honest sender waited {hit.waited_seconds:.0f} s"),
            ]
        return [text for wrong, text in told if wrong]


class _Honest:
    """Two senders, over HTTP and Forward, that send a group, wait for its acknowledgement, and send the next."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self.acknowledged: set[str] = set()
        self._addresses = addresses
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._waited = 0.0
        self._since: dict[str, float] = {}
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._http, self._forward)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(timeout=60)

    def waited(self) -> float:
        """The longest wait since the last time this was asked, also of who waits now."""
        with self._lock:
            now = time.monotonic()
            most = max([self._waited, *(now - since for since in self._since.values())])
            self._waited = 0.0
            self._since = dict.fromkeys(self._since, now)
            return most

    def _go(self, way: str) -> Iterator[None]:
        """Yields until a group is acknowledged: each time the sender is to try (again)."""
        with self._lock:
            self._since[way] = time.monotonic()
        while not self._stop.is_set():
            yield
            self._stop.wait(_PAUSE_SECONDS)

    def _heard(self, way: str, names: Sequence[str]) -> None:
        with self._lock:
            self._waited = max(self._waited, time.monotonic() - self._since.pop(way))
            self.acknowledged.update(names)

    def _names(self, way: str) -> Iterator[list[str]]:
        at = 0
        while not self._stop.is_set():
            yield [f"honest {way} {at + more}" for more in range(_GROUP)]
            at += _GROUP

    def _http(self) -> None:
        host, _, port = self._addresses["http"].rpartition(":")
        for names in self._names("http"):
            body = "".join(json.dumps({"message": name}) + "\n" for name in names).encode()
            headers = {"content-type": "application/x-ndjson", "idempotency-key": names[0]}
            for _ in self._go("http"):
                with suppress(OSError, http.client.HTTPException, ValueError):
                    connection = http.client.HTTPConnection(host, int(port), timeout=30)
                    try:
                        connection.request("POST", "/v1/events", body, headers)
                        answer = connection.getresponse()
                        said = json.loads(answer.read())
                    finally:
                        connection.close()
                    if answer.status == http.client.OK and said["stored"] + said["duplicates"] == len(names):
                        self._heard("http", names)
                        break

    def _forward(self) -> None:
        host, _, port = self._addresses["forward"].rpartition(":")
        for names in self._names("forward"):
            entries = [(time.time_ns(), {"message": name}) for name in names]
            for _ in self._go("forward"):
                with suppress(Overloaded), Forwarder(Upstream(host=host, port=int(port))) as forwarder:
                    forwarder.send("shop", entries, chunk=names[0], patience_seconds=5.0)
                    self._heard("forward", names)
                    break


def hostile_drill(folder: Path, pressure: Pressure) -> Outcome:
    """Go through all attacks on one collector.

    Args:
        folder: an empty one.
        pressure: how hard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "credentials").write_text(f"{CREDENTIAL}\n")
    (folder / "credentials").chmod(0o600)
    authority = Authority(folder / "tls")
    certificate, key = authority.issue("server")
    settings = _SETTINGS.format(folder=folder, certificate=certificate, key=key, ca=authority.ca)
    collector = CollectorProcess(folder, further=settings)
    hits: list[Hit] = []
    try:
        collector.start()
        honest = _Honest(collector.addresses)
        with honest.running():
            hits += [_hit(attack, collector, honest, pressure) for attack in ATTACKS]
        ended = not collector.runs()
        collector.stop()
    finally:
        collector.close()
    bodies = Counter(str(event.body) for event in collector.stored())
    stored = Counter({body: count for body, count in bodies.items() if body.startswith("honest ")})
    return Outcome(hits=hits, acknowledged=honest.acknowledged, stored=stored, restarts=int(ended))


def _hit(attack: Attack, collector: CollectorProcess, honest: _Honest, pressure: Pressure) -> Hit:
    before = _refused(collector)
    honest.waited()
    began = time.monotonic()
    Path(f"/proc/{collector.pid}/clear_refs").write_text("5")  # the high-water mark of resident memory begins anew
    attack.press(collector.addresses, pressure)
    hit = Hit(attack=attack, waited_seconds=honest.waited(), seconds=time.monotonic() - began)
    hit.memory_bytes = _high_water_bytes(collector.pid)
    end = time.monotonic() + _COUNTED_SECONDS
    hit.refused = _refused(collector) - before
    while not attack.reasons <= hit.refused.keys() and time.monotonic() < end:
        time.sleep(0.1)  # it may not have seen the end of each connection yet
        hit.refused = _refused(collector) - before
    return hit


def _refused(collector: CollectorProcess) -> Counter[str]:
    name = 'tally_collector_refused_total{reason="'
    end = time.monotonic() + PATIENCE_SECONDS
    while not (said := read_metrics(collector.addresses["http"])) and time.monotonic() < end:
        time.sleep(0.1)
    return Counter({key.removeprefix(name)[:-2]: int(value) for key, value in said.items() if key.startswith(name)})


def _high_water_bytes(pid: int) -> int:
    """``VmHWM`` of proc_pid_status(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def print_hostile(outcome: Outcome) -> int:
    """Print the table as Markdown; gives how many promises were broken."""
    print("\n| attack | s | refused, by reason | memory MiB | honest senders waited s |\n|---|---|---|---|---|")
    for hit in outcome.hits:
        refused = ", ".join(f"`{reason}` {count:,}" for reason, count in hit.refused.most_common())
        print(
            f"| {hit.attack.name} | {hit.seconds:.0f} | {refused} | {hit.memory_bytes / 1024**2:.0f} |"
            f" {hit.waited_seconds:.1f} |"
        )
    print(f"\n{len(outcome.acknowledged):,} honest events acknowledged, {outcome.stored.total():,} stored.")
    broken = outcome.broken()
    for text in broken:
        print(f"\n**{text}**")
    return len(broken)
