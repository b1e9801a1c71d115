"""A sidecar whose event store does not answer: it starts, takes events, and says what it waits for."""

from __future__ import annotations

import json
import socket
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
"""


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that nobody listens on, and nobody can take."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_sidecar_starts_while_its_cluster_is_down_and_takes_events(
    tmp_path: Path, processes: list[Process], deaf_port: int
) -> None:
    (tmp_path / "tally.toml").write_text(CONFIG.format(port=deaf_port))
    for _ in range(2):  # started once, and started again with something in its spool
        sidecar = Process(tmp_path, "collector")
        processes.append(sidecar)
        address = sidecar.wait_ready()["http"]
        lines = {"content-type": "application/x-ndjson"}
        answer = httpx.post(f"{address}/v1/events", content='{"message":"kept"}\n', headers=lines, timeout=30)
        assert (answer.status_code, answer.json()["stored"]) == (200, 1)
        assert sidecar.stop() == 0
    said = [json.loads(line) for line in (tmp_path / "collector-collector.log").read_text().splitlines()]
    assert any("shipping waits" in one["message"] and "cannot be reached" in one["message"] for one in said)
    assert sum("not everything is shipped yet" in one["message"] for one in said) == 2
