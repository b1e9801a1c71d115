"""A sidecar whose event store does not answer, or whose spool is full: it starts, takes what it can, and says what it waits for."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.killing import Process

CONFIG = """
data = "data"
[store]
urls = ["http://127.0.0.1:{port}"]
[collector.forward]
port = -1
[collector.http]
port = 0
[collector.ship]
drain_seconds = 0.1
[collector.spool]
{spool}
"""
LINES = {"content-type": "application/x-ndjson"}
PATIENCE_SECONDS = 30.0


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that nobody listens on, and nobody can take."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def post(address: str, message: str) -> httpx.Response:
    return httpx.post(f"{address}/v1/events", json={"message": message}, headers=LINES, timeout=30)


def status(file: Path, wanted: str) -> str:
    """What `tally status` says once it says what is wanted."""
    command = [sys.executable, "-m", "deploy.cli", "--config", str(file), "status"]
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        if wanted in said:
            return said
        assert time.monotonic() < end, said
        time.sleep(0.1)  # another process's progress


def logged(folder: Path) -> list[str]:
    lines = (folder / "collector-collector.log").read_text().splitlines()
    return [json.loads(line)["message"] for line in lines]


def test_a_sidecar_starts_while_its_cluster_is_down_and_takes_events(
    tmp_path: Path, processes: list[Process], deaf_port: int
) -> None:
    file = tmp_path / "tally.toml"
    file.write_text(CONFIG.format(port=deaf_port, spool=""))
    for turn in (1, 2):  # started once, and started again with something in its spool
        sidecar = Process(tmp_path, "collector")
        processes.append(sidecar)
        address = sidecar.wait_ready()["http"]
        answer = post(address, "kept")
        assert (answer.status_code, answer.json()["stored"]) == (200, 1)
        told = status(file, ("1 event waits" if turn == 1 else "2 events wait") + ", the oldest for ")
        assert f"127.0.0.1:{deaf_port} cannot be reached: Failed to establish a new connection" in told
        assert httpx.get(f"{address}/readyz").status_code == 200, "it takes events"
        assert sidecar.stop() == 0
    assert any("shipping waits" in line and "cannot be reached" in line for line in logged(tmp_path))
    for left in (1, 2):
        assert any(
            f"events that stay in the spool, to be shipped after the next start: {left} (" in line
            for line in logged(tmp_path)
        )


@pytest.mark.parametrize(
    ("spool", "said"),
    [
        ("max_bytes = 4000", "the spool is full: shipping does not keep up"),
        ("keep_free_bytes = 1_000_000_000_000_000", "the spool's disk is full but for "),
    ],
)
def test_a_full_spool_and_a_full_disk_are_told_to_all(
    tmp_path: Path, processes: list[Process], deaf_port: int, spool: str, said: str
) -> None:
    file = tmp_path / "tally.toml"
    file.write_text(CONFIG.format(port=deaf_port, spool=spool))
    sidecar = Process(tmp_path, "collector")
    processes.append(sidecar)
    address = sidecar.wait_ready()["http"]
    answer = post(address, "x" * 300)
    while answer.status_code == 200:
        answer = post(address, "x" * 300)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert said in answer.json()["detail"]
    assert f"no events are taken: {said}" in status(file, "no events are taken")
    assert "tally_collector_refusing 1.0" in httpx.get(f"{address}/metrics").text
    assert sum(f"no events are taken: {said}" in line for line in logged(tmp_path)) == 1
