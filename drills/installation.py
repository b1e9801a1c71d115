"""A ledger of several sidecars and a correlator, all real processes, with its store and its index on an OpenSearch cluster."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.config import Config, load
from deploy.places import Places
from tests.support.killing import Process

__all__ = ["Installation", "Watch", "until"]

_CONFIG = """
ledger = "test.example/drill"
data = "data"
[store]
urls = {urls}
prefix = "{prefix}"
replicas = {replicas}
timeout_seconds = {timeout_seconds}
[index]
urls = {urls}
prefix = "{prefix}"
replicas = {replicas}
timeout_seconds = {timeout_seconds}
[collector.forward]
port = 0
[collector.http]
port = 0
[collector.spool]
max_bytes = {spool_bytes}
keep_free_bytes = {keep_free_bytes}
[collector.ship]
batch_events = 500
[collector.stitch]
transaction = ["attributes.payment_id"]
[correlator]
poll_max_seconds = 0.1
missing_poll_seconds = 0.2
{sidecars}
"""

_TROUBLE = ("the oldest for", "no events are taken", "cannot", "did not answer")
PATIENCE_SECONDS = 180.0
_LOOK_SECONDS = 0.1


def until(what: str, ask: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask until the answer is true, and return it. What is awaited happens in another process: there is no event to wait for.

    Raises:
        TimeoutError: it never was; says what was awaited.
    """
    end = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(_LOOK_SECONDS)
    return answer


class Installation:
    """See the module. Used as a context it starts everything, and kills in the end what still runs.

    Args:
        folder: an empty one, or none yet.
        urls: of the cluster's nodes.
        sidecars: their names.
        prefix: of the names of its indexes.
        replicas: of each shard, beside the primary.
        spool_bytes: bound of each sidecar's spool; `keep_free_bytes`: what is to stay free on its disk.
        timeout_seconds: how long the cluster may take to answer.
    """

    def __init__(
        self,
        folder: Path,
        *,
        urls: Sequence[str],
        sidecars: Sequence[str] = ("orders", "payments"),
        prefix: str = "drill",
        replicas: int = 0,
        spool_bytes: int = 1024**3,
        keep_free_bytes: int = 1024**2,
        timeout_seconds: float = 10.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.sidecars = tuple(sidecars)
        self.prefix = prefix
        text = _CONFIG.format(
            urls=json.dumps(list(urls)),
            prefix=prefix,
            replicas=replicas,
            timeout_seconds=timeout_seconds,
            spool_bytes=spool_bytes,
            keep_free_bytes=keep_free_bytes,
            sidecars="\n".join(f"[sidecars.{name}]" for name in sidecars),
        )
        (folder / "tally.toml").write_text(text)
        self.config: Config = load(folder / "tally.toml", environ={}, folder=folder)[0]
        self.places = Places(folder / "data")
        self.processes: dict[str, Process] = {}

    def __enter__(self) -> Self:
        try:
            for name in (*self.sidecars, "correlator"):
                self.start(name)
            for process in self.processes.values():
                process.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, name: str) -> Process:
        """Start a sidecar by its name, or the correlator; does not wait until it is ready."""
        arguments = ("correlator",) if name == "correlator" else ("collector", "--name", name)
        process = Process(self.folder, *arguments)
        self.processes[name] = process
        return process

    def stop(self) -> list[int]:
        """Stop the sidecars, then the correlator, as a service manager does; gives their exit codes."""
        return [self.processes[name].stop() for name in (*self.sidecars, "correlator")]

    def kill(self) -> None:
        """SIGKILL for whatever runs."""
        for process in self.processes.values():
            process.kill()

    def address(self, name: str, use: str) -> str:
        """Where a process listens for Forward or HTTP; empty while it does not."""
        return self.processes[name].addresses().get(use, "")

    def metrics(self, name: str) -> dict[str, float]:
        """What a process's /metrics says, labels and all in the key; empty when it does not answer."""
        address = self.address(name, "http")
        found: dict[str, float] = {}
        try:
            with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:  # noqa: S310 - our own process
                lines = answer.read().decode().splitlines()
        except (
            OSError,
            ValueError,
            http.client.HTTPException,
        ):  # it is not there, or was killed in the middle of its answer
            return found
        for line in lines:
            key, _, value = line.rpartition(" ")
            if key and not key.startswith("#"):
                found[key] = float(value)
        return found

    def logged(self, name: str) -> list[str]:
        """The warnings and errors that a process has logged, oldest first."""
        found = []
        path = self.folder / f"{self.processes[name].name}.log"
        for line in path.read_text(errors="replace").splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                found.append(line)  # not from our logger: an interpreter's last words
                continue
            if said.get("level") in {"warning", "error"}:
                found.append(" ".join(str(said[key]) for key in ("message", "reason", "error") if key in said))
        return found

    def said(self, name: str, text: str, *, after: int = 0) -> str:
        """The first such line that holds `text`, of those behind the first `after`; empty when there is none."""
        return next((line for line in self.logged(name)[after:] if text in line), "")

    def trouble(self) -> str:
        """What `tally status` says is not well: why events are not shipped or not taken, and what could not be read."""
        _, text = self.tally("status")
        lines = [line.strip() for line in text.splitlines() if not line.startswith("stream ")]
        return "; ".join(line for line in lines if any(word in line for word in _TROUBLE))

    def tally(self, *arguments: str) -> tuple[int, str]:
        """Run the command; gives its exit code and what it printed."""
        command = [sys.executable, "-m", "deploy.cli", "--config", str(self.folder / "tally.toml"), *arguments]
        run = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=600
        )
        return run.returncode, run.stdout + run.stderr

    def waiting(self) -> float:
        """How many events the sidecars have that the store does not have yet; infinite when one does not say."""
        key = "tally_collector_spool_waiting_events"
        return sum(self.metrics(name).get(key, float("inf")) for name in self.sidecars)

    def settle(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the store has all that the sidecars hold, and the log all that the store has."""
        until("everything is in the store", lambda: self.waiting() == 0, seconds=seconds)

        def logged() -> bool:
            batches = [self.metrics(name) for name in self.sidecars]
            return all(
                one and one["tally_collector_logged_batch"] >= one["tally_collector_shipped_batch"] for one in batches
            )

        until("everything is in the log", logged, seconds=seconds)


class Watch:
    """Reads the metrics of all processes again and again, as Prometheus would, and remembers what they said when."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._seen: list[tuple[float, str, dict[str, float]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_for_ever)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Watch for the length of the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def most(self, metric: str, *, begin: float = 0.0, end: float = float("inf")) -> float:
        """The largest value that any process had between two moments of `time.monotonic`; 0 when none was seen."""
        return max((said[metric] for at, _, said in self._seen if begin <= at <= end and metric in said), default=0.0)

    def grown(self, metric: str, *, begin: float, end: float = float("inf")) -> float:
        """By how much a counter grew between two moments, over all processes, as Prometheus' increase: one that fell was started anew."""
        last: dict[tuple[str, str], float] = {}
        grown = 0.0
        for at, name, said in list(self._seen):
            if at > end:
                break
            for key, value in said.items():
                if key == metric or key.startswith(f"{metric}{{"):
                    before = last.get((name, key), 0.0)
                    if at >= begin:
                        grown += value - before if value >= before else value
                    last[name, key] = value
        return grown

    def _look_for_ever(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            for name in list(self._installation.processes):
                said = self._installation.metrics(name)
                if said:
                    self._seen.append((time.monotonic(), name, said))
