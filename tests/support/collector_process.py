"""A collector as a process of its own, that can be killed with SIGKILL and started again on the same ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import msgspec

from collector.batch import EventRef
from collector.event import Event
from collector.store.sqlite import SqliteStore

_USES = ("forward", "http", "grpc", "elasticsearch", "beats")


class CollectorProcess:
    """`tally run collector` over a folder of its own; ports are chosen at the first start and kept.

    `further` is TOML behind the tables with the ports; a table of a way in that it has itself is left to it.

    What it logs, in all its lives, stands in `collector.log` of the folder.

    Attributes:
        addresses: `forward`, `http` and what else listens to host:port, once it has been started.
    """

    def __init__(self, folder: Path, *, further: str = "") -> None:
        self.folder = folder
        self._further = further
        self.addresses: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._reading: threading.Thread | None = None
        self._log: deque[str] = deque(maxlen=50)

    def start(self, *, tries: int = 60) -> None:
        """Start it, and return when it listens; while another socket has its port, so many tries, a second apart."""
        ports = {use: address.rpartition(":")[2] for use, address in self.addresses.items()}
        own = [use for use in _USES if f"[collector.{use}]" not in self._further]
        settings = "".join(f"[collector.{use}]\nport = {ports.get(use, 0)}\n" for use in own)
        (self.folder / "tally.toml").write_text(settings + self._further, encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "--config", str(self.folder / "tally.toml"), "run", "collector"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._keep(line)
            if "ready: " in line:
                self.addresses = dict(re.findall(rf"({'|'.join(_USES)}|syslog\w*) (?:http://)?([\d.]+:\d+)", line))
                break
        else:
            self._process.stderr.close()
            self._process.wait()
            if tries > 1 and "Address already in use" in self._log[-1]:
                time.sleep(1.0)  # while it was dead, something else got its port for a connection
                self.start(tries=tries - 1)
                return
            raise AssertionError("the collector did not start: " + "".join(self._log))
        self._reading = threading.Thread(target=self._keep_all, args=(self._process.stderr,), daemon=True)
        self._reading.start()

    def _keep(self, line: str) -> None:
        self._log.append(line)
        with (self.folder / "collector.log").open("a", encoding="utf-8") as file:
            file.write(line)

    def _keep_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._keep(line)

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last."""
        assert self._process is not None
        return self._process.pid

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, at whatever it was doing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        self._close_pipe()

    def stop(self) -> None:
        """SIGTERM: it finishes, ships everything and ends with 0."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGTERM)
        code = self._process.wait(timeout=30)
        self._close_pipe()
        assert code == 0, "".join(self._log)

    def _close_pipe(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        if self._reading is not None:
            self._reading.join(timeout=10)
        self._process.stderr.close()

    def close(self) -> None:
        """Make sure that it is gone."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def stored(self) -> list[Event]:
        """Every event in the store, stream by stream. Call it after `stop`."""
        store = SqliteStore(self.folder / "tally-data" / "store.sqlite", read_only=True)
        try:
            refs = [
                EventRef(stream=stream, sequence=sequence)
                for stream in store.streams()
                for signed in store.batches_after({stream: 0}, 1_000_000)
                if signed.header.stream == stream
                for sequence in range(signed.header.first, signed.header.first + signed.header.count)
            ]
            return [msgspec.json.decode(data, type=Event) for data in store.events(refs)]
        finally:
            store.close()
