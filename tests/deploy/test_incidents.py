"""`tally up` keeps incidents: found, on record once though their keeper is killed, signed off, told by Alertmanager; and somebody outside hears that it lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.tally_up import tally_up
from tests.support.webhooks import Posted, receiver

CONFIG = """
[collector]
[collector.forward]
port = -1
[collector.http]
port = 0
[collector.ship]
heartbeat_seconds = 1
[audit_api]
port = 0
[alerting]
expected_collectors = ["elsewhere"]
[incidents]
poll_seconds = 0.05
probe_seconds = 0.2
patience_seconds = 0.2
quiet_seconds = 2.0
lost_seconds = 3.0
heartbeat_url_file = "switch.url"
heartbeat_seconds = 0.2
"""
PATIENCE_SECONDS = 90.0


def until(ask: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_SECONDS
    while not (answer := ask()):
        assert time.monotonic() < end
        time.sleep(0.1)  # what is awaited happens in another process
    return answer


@dataclass
class Up:
    """An installation that runs, and who hears that it lives."""

    folder: Path
    urls: dict[str, str]
    heard: list[Posted]
    token: str

    def tally(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deploy.cli", "--config", str(self.folder / "tally.toml"), *arguments]
        asks = {"TALLY_API": self.urls["api"], "TALLY_TOKEN": self.token} if arguments[0] == "incidents" else {}
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=120, env={**os.environ, **asks}
        )

    def incidents(self) -> dict[str, dict[str, Any]]:
        """Those that the log has, by cause; of each cause there is one."""
        told = httpx.get(
            f"{self.urls['api']}/v1/incidents", headers={"Authorization": f"Bearer {self.token}"}, timeout=30
        )
        rows = told.raise_for_status().json()["incidents"]
        assert len({one["cause"] for one in rows}) == len(rows), rows
        return {one["cause"]: one for one in rows}

    def process(self) -> dict[str, Any]:
        """What the keeper announces of itself; nothing while it is away."""
        try:
            found = json.loads((self.folder / "tally-data" / "run" / "incidents.json").read_text())
        except (OSError, ValueError):
            return {}
        assert isinstance(found, dict)
        return found

    def send(self, text: str) -> None:
        url = f"{self.urls['collector-collector']}/v1/events"
        httpx.post(url, content=text, headers={"content-type": "application/x-ndjson"}, timeout=30).raise_for_status()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with receiver(200) as (url, heard):
        (tmp_path / "switch.url").write_text(f"{url}/ping/s3cret")
        with tally_up(tmp_path, CONFIG) as urls:
            made = Up(tmp_path, urls, heard, "")
            made.token = made.tally("token", "add", "ann", "--role", "auditor").stdout.strip()
            yield made
        so_far = len(heard)
        assert so_far, "somebody outside heard that it lived"
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{urls['incidents']}/livez", timeout=5)
        assert len(heard) == so_far, "whoever is dead says nothing"


def test_an_incident_from_its_opening_to_the_sign_off(up: Up) -> None:
    until(lambda: up.heard)
    assert {one.path for one in up.heard} == {"/ping/s3cret"}
    up.send("not json\n")
    found = until(lambda: (all_ := up.incidents()) and len(all_) == 2 and all_)
    assert (found["dead_letters"]["subject"], found["collector_lost"]["subject"]) == ("collector", "elsewhere")

    was = up.process()["pid"]
    os.kill(was, signal.SIGKILL)
    until(lambda: up.process().get("pid", was) != was)
    page = f"{up.process()['addresses']['http']}/metrics"
    until(lambda: 'tally_incidents_open{cause="collector_lost"} 1.0' in httpx.get(page, timeout=30).text)
    closed = until(lambda: (one := up.incidents()["dead_letters"]) and not one["open"] and one)
    assert closed["id"] == found["dead_letters"]["id"]
    assert closed["duration_seconds"] >= 0

    words = ("--root-cause", "a sender of text", "--remediation", "it sends JSON now")
    signed = up.tally("incidents", "sign", closed["id"], *words)
    assert signed.returncode == 0, signed.stderr
    assert "signed off by ann" in signed.stdout
    lost = found["collector_lost"]["id"]
    refused = up.tally("incidents", "sign", lost, *words)
    assert (refused.returncode, "still-open" in refused.stderr) == (1, True)
    until(lambda: up.incidents()["dead_letters"]["state"] == "signed_off")
    # what was recorded counts at once, and is a step when the log has it
    until(lambda: "root cause:  a sender of text" in up.tally("incidents", "show", closed["id"]).stdout)
    listed = up.tally("incidents", "list").stdout
    assert (lost in listed, closed["id"] in listed) == (True, False)
    told = up.tally("trail", f"incident/{closed['id']}").stdout
    assert [word for word in ("incident.opened", "incident.closed", "incident.signed_off") if word not in told] == []
    assert "verified: 3 entries" in told
    assert "s3cret" not in (up.folder / "stderr").read_text()
    checked = up.tally("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alertmanager_may_post(tmp_path: Path) -> None:
    token = tmp_path / "alerts.token"
    token.write_text("t0ken\n")
    settings = f'\n[audit_api]\nport = 0\n[incidents]\nprobe_seconds = 0.2\nwebhook_token_file = "{token}"\n'
    alert = {"status": "firing", "labels": {"alertname": "TallyVerificationFailed", "instance": "host:1"}}
    with tally_up(tmp_path, "[collector.forward]\nport = -1\n[collector.http]\nport = 0\n" + settings) as urls:

        def post(body: Any, bearer: str = "t0ken", path: str = "/alerts") -> int:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            url, headers = f"{urls['incidents']}{path}", {"authorization": f"Bearer {bearer}"}
            return httpx.post(url, content=content, headers=headers, timeout=60).status_code

        message = {"version": "4", "alerts": [alert]}
        assert post(message, bearer="other") == 401
        assert post(message, path="/elsewhere") == 404
        assert post(b"{}") == 400
        assert post(b"x" * (2**20 + 1)) == 413
        metrics = f"{urls['incidents']}/metrics"
        assert 'tally_incidents_open{cause="verification_failed"} 0.0' in httpx.get(metrics, timeout=30).text
        assert [post(message), post(message)] == [200, 200]
        text = httpx.get(metrics, timeout=30).text
        assert 'tally_incidents_open{cause="verification_failed"} 1.0' in text, "it is on record when it is answered"
        assert 'tally_incidents_recorded_total{cause="verification_failed",state="opened"} 1.0' in text
        assert post({"version": "4", "alerts": [alert | {"status": "resolved"}]}) == 200
        assert 'tally_incidents_open{cause="verification_failed"} 0.0' in httpx.get(metrics, timeout=30).text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('heartbeat_url_file = "nowhere"', "nowhere: No such file"),
        ('webhook_token_file = "nowhere"', "nowhere: No such file"),
        ('alertmanagers = ["http://ann:pw@host"]', "without credentials"),
        ('check_file = "a"\nwebhook_token_file = "b"', "check_file goes without"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, settings: str, said: str) -> None:
    file = tmp_path / "tally.toml"
    file.write_text(f"[incidents]\n{settings}\n")
    command = [sys.executable, "-m", "deploy.cli", "--config", str(file), "run", "incidents"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "pw" not in done.stderr
