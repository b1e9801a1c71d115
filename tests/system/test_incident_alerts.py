"""A real Alertmanager tells the keeper of incidents what failed, and is missed when it is gone."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.servers.alertmanager import Alertmanager, need_alertmanager
from tests.support.tally_up import tally_up

pytestmark = pytest.mark.alertmanager

CONFIG = """
[collector.forward]
port = -1
[collector.http]
port = 0
[audit_api]
port = 0
[incidents]
probe_seconds = 0.3
patience_seconds = 1.0
metrics_port = {port}
webhook_token_file = "alerts.token"
alertmanagers = ["http://{alertmanager}"]
[alerting]
default_receiver = "incidents"
watchdog_receiver = "incidents"
[alerting.receivers.incidents]
webhook_url = "http://127.0.0.1:{port}/alerts"
webhook_token_file = "alerts.token"
"""
PATIENCE_SECONDS = 90.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.mark.timeout(240)
def test_what_alertmanager_tells_and_that_it_is_gone(tmp_path: Path) -> None:
    need_alertmanager()
    port = free_port()
    (tmp_path / "alerts.token").write_text("t0ken\n")
    text = CONFIG.format(port=port, alertmanager="127.0.0.1:9")
    (tmp_path / "tally.toml").write_text(text)

    command = [sys.executable, "-m", "deploy.cli", "--config", str(tmp_path / "tally.toml")]
    command += ["render", "-o", str(tmp_path / "out"), "--only", "alerts"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    config = tmp_path / "out" / "alertmanager" / "alertmanager.yml"
    config.write_text(re.sub(r"(group_wait|group_interval): .+", r"\1: 1s", config.read_text()))
    (config.parent / "alerts.token").write_text("t0ken\n")
    with Alertmanager(tmp_path / "alertmanager", config) as alertmanager:
        here = alertmanager.address
        with tally_up(tmp_path, CONFIG.format(port=port, alertmanager=here)) as urls:

            def until(sample: str) -> None:
                deadline = time.monotonic() + PATIENCE_SECONDS
                while sample not in (told := httpx.get(f"{urls['incidents']}/metrics", timeout=30).text):
                    assert time.monotonic() < deadline, told
                    time.sleep(0.2)  # another process: there is nothing to await

            def tell(**more: str) -> None:
                labels = {"alertname": "TallyVerificationFailed", "instance": "host:1", "severity": "page"}
                httpx.post(
                    f"http://{here}/api/v2/alerts", json=[{"labels": labels, **more}], timeout=10
                ).raise_for_status()

            tell()
            until('tally_incidents_open{cause="verification_failed"} 1.0')
            tell(endsAt="2026-01-01T00:00:00Z", startsAt="2025-12-31T00:00:00Z")
            until('tally_incidents_recorded_total{cause="verification_failed",state="closed"} 1.0')
            until('tally_incidents_open{cause="alert_path_broken"} 0.0')
            alertmanager.close()
            until('tally_incidents_open{cause="alert_path_broken"} 1.0')
