"""A collector's process is told to stop: once, it drains; twice, it ends at once; and nothing that was acknowledged is lost."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx

from tests.support.killing import Process, stored_messages

CONFIG = """
data = "data"
{store}
[collector.forward]
port = -1
[collector.http]
port = 0
[collector.ship]
drain_seconds = {drain_seconds}
"""
DOWN = '[store]\nurls = ["http://127.0.0.1:1"]'
LINES = {"content-type": "application/x-ndjson"}


def started(folder: Path, processes: list[Process], *, store: str, drain_seconds: float) -> tuple[Process, str]:
    (folder / "tally.toml").write_text(CONFIG.format(store=store, drain_seconds=drain_seconds))
    sidecar = Process(folder, "collector")
    processes.append(sidecar)
    return sidecar, sidecar.wait_ready()["http"]


def test_a_second_sigterm_ends_it_at_once_and_loses_nothing(tmp_path: Path, processes: list[Process]) -> None:
    sidecar, address = started(tmp_path, processes, store=DOWN, drain_seconds=600)
    assert httpx.post(f"{address}/v1/events", json={"message": "kept"}, headers=LINES).status_code == 200
    sidecar.popen.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 30
    while "draining, for 600 s at most" not in sidecar.log():
        assert time.monotonic() < deadline, sidecar.log()
        time.sleep(0.01)  # what is awaited happens in another process
    told = httpx.get(f"{address}/readyz")
    assert (told.status_code, told.json()["reasons"]) == (503, ["the collector is stopping"])
    assert sidecar.popen.poll() is None
    sidecar.popen.send_signal(signal.SIGTERM)
    assert sidecar.popen.wait(30) == 128 + signal.SIGTERM
    assert "SIGTERM again" in sidecar.log()

    again, _ = started(tmp_path, processes, store="", drain_seconds=60)
    assert again.stop() == 0
    assert list(stored_messages(tmp_path / "data" / "store.sqlite")) == ["kept"]
