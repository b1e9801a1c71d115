"""Processes that answer, do not, or are of another version: real ones as far as HTTP goes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from prometheus_client import CollectorRegistry

from deploy.examining.probing import examine_processes
from deploy.health import health_server
from deploy.processes import Running, announce, own_version, running
from tests.support.charts import only, outcomes, troubles


def process(address: str, version: str = "1.0") -> Running:
    return Running(name="correlator", pid=os.getpid(), addresses={"http": address}, version=version)


def test_nothing_runs() -> None:
    assert troubles(examine_processes([])) == []


def test_one_that_is_ready_and_one_that_is_not() -> None:
    state = {"ready": True}
    with health_server(
        CollectorRegistry(), port=0, alive=lambda: True, ready=lambda: state["ready"], word=lambda: "standing by"
    ) as address:
        chart = examine_processes([process(f"http://{address}")], release="1.0")
        assert troubles(chart) == []
        assert "standing by" in chart.checks[0].found
        state["ready"] = False
        check = only(examine_processes([process(f"http://{address}")], release="1.0"))
        assert (check.outcome, check.found) == ("failed", "not ready: not standing by")
        state["ready"] = True
        assert only(examine_processes([process(f"http://{address}")], release="2.0")).outcome == "warning"
    assert only(examine_processes([process(f"http://{address}")], release="1.0")).outcome == "failed", "it is gone"


def test_one_that_hangs_up_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert outcomes(examine_processes([process(f"http://127.0.0.1:{port}")], release="1.0")) == {"correlator": "failed"}


def test_a_process_announces_its_version(tmp_path: Path) -> None:
    announce(tmp_path, "api", {})
    assert running(tmp_path)[0].version == own_version()
