"""The whole command with its store on a real OpenSearch: import and services in, a verified trail out, `tally check` true."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from collector.batch import StreamId
from collector.store.opensearch.store import OpenSearchStore
from collector.store.settings import StoreSettings
from tests.servers.opensearch import Cluster
from tests.support.retiring import OLD, is_told_everywhere, keep_months, retain, retire, two_months
from tests.support.shipper import Shipper, pay

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]

PATIENCE_SECONDS = 90.0


@pytest.fixture
def workshop(workshop: Workshop, opensearch_settings: StoreSettings) -> Workshop:
    """The folder's workshop, with its store on the shared node."""
    text = (
        f"[store]\nurls = {json.dumps(opensearch_settings.urls)}\nprefix = {json.dumps(opensearch_settings.prefix)}\n"
    )
    workshop.file.write_text(workshop.file.read_text() + text)
    return workshop


def row(payment: str, name: str, second: int) -> str:
    event = {"time": f"2026-01-01T00:00:{second:02d}Z", "event_name": name, "service.name": "shop"}
    return json.dumps(event | {"payment_id": payment, "message": "card 4111111111111111"}) + "\n"


def test_an_imported_file_becomes_a_verified_trail(
    workshop: Workshop, cli: Cli, opensearch: Cluster, opensearch_settings: StoreSettings, tmp_path: Path
) -> None:
    file = tmp_path / "day.jsonl"
    file.write_text("".join(row(f"p{at % 7}", name, at % 60) for at in range(70) for name in ("received", "paid")))
    for _ in range(2):
        code, out, _ = cli("import", str(file), "--json")
        assert code == 0
        assert json.loads(out)["balances"] is True
    assert not workshop.places.store.exists(), "nothing is kept in SQLite"
    story = json.loads(cli("trail", "p1", "--json")[1])
    assert story["proof"]["state"] == "verified"
    assert len(story["steps"]) == 20  # ten rows of each of two steps; no two rows are equal
    bundle = tmp_path / "p1.zip"
    assert cli("export", "p1", "-o", str(bundle))[0] == 0
    assert cli("verify", str(bundle), "--key", str(workshop.places.log_vkey))[0] == 0
    streams = json.loads(cli("status", "--json")[1])["streams"]
    assert {one["status"] for one in streams} <= {"ok", "new"}  # what reading put on record is not in the log yet
    assert any(one["stream"].startswith("import/") for one in streams)
    workshop.correlate()
    code, out, _ = cli("check")
    assert (code, "TRUE" in out) == (0, True), out
    # an administrator who deletes a month's events: found, and named
    opensearch.ask("DELETE", f"/{opensearch_settings.prefix}-events-*")
    code, out, _ = cli("check")
    assert code == 1
    assert "is not in the store" in out


def test_a_month_is_retired_and_its_trails_still_verify(
    workshop: Workshop, cli: Cli, opensearch: Cluster, opensearch_settings: StoreSettings, tmp_path: Path
) -> None:
    two_months(workshop)
    keep_months(workshop, 1)
    code, told = retain(cli)
    assert (code, told[OLD]["action"], told[OLD]["events"]) == (0, "goes", 4)
    # a run that died after it had shut the month: a hold opens it again, a run that goes on does not mind
    month = f"/{opensearch_settings.prefix}-events-{OLD}"
    opensearch.ask("PUT", f"{month}/_block/write")
    keep_months(workshop, 1, 'holds = { "2020.01" = "case 4711" }\n')
    assert retain(cli, "--apply")[1][OLD]["why"] == "held: case 4711"
    (found,) = opensearch.ask("GET", f"{month}/_settings").values()
    assert "blocks" not in found["settings"]["index"]
    opensearch.ask("PUT", f"{month}/_block/write")
    retire(workshop, cli)
    is_told_everywhere(workshop, cli, tmp_path)
    assert OLD not in retain(cli, "--apply", "--compact")[1]


def test_with_our_templates_an_index_that_came_by_itself_is_as_it_must_be(
    cli: Cli, opensearch: Cluster, opensearch_settings: StoreSettings
) -> None:
    templates = json.loads(cli("config", "--templates")[1])
    assert len(templates) == 5
    for name, body in templates.items():
        assert name.startswith(opensearch_settings.prefix)
        opensearch.ask("PUT", f"/_index_template/{name}", body)
    try:
        index = f"{opensearch_settings.prefix}-events-2031.05"
        opensearch.ask("PUT", f"/{index}/_create/1", {"attributes": {"a": 1}, "body": 1})
        opensearch.ask("PUT", f"/{opensearch_settings.prefix}-acknowledged/_doc/1", {"number": 1})
        (made,) = opensearch.ask("GET", f"/{index}").values()
        assert made["settings"]["index"]["append_only"] == {"enabled": "true"}
        assert "attributes" not in made["mappings"]["properties"]
        with closing(OpenSearchStore(opensearch_settings)) as store:
            batch = Shipper().batch(pay("T-1"), created="2031-05-01T00:00:00.000000000Z")
            store.append(batch)
            assert store.batch(StreamId(batch.signed.header.stream), 1) == batch.signed
    finally:
        for name in templates:
            opensearch.ask("DELETE", f"/_index_template/{name}")


def test_services_collector_correlator_and_api_work_over_it(
    workshop: Workshop, opensearch_settings: StoreSettings, tmp_path: Path
) -> None:
    ports = "[collector.forward]\nport = 0\n[collector.http]\nport = 0\n[audit_api]\nport = 0\n"
    workshop.file.write_text(workshop.file.read_text() + ports)
    command = [sys.executable, "-m", "deploy.cli", "--config", str(workshop.file)]
    with (tmp_path / "stderr").open("wb") as errors:
        up = subprocess.Popen([*command, "up", "--json"], stdout=subprocess.PIPE, stderr=errors)
    try:
        assert up.stdout is not None
        text = b""
        while not text.endswith(b"\n}\n"):
            line = up.stdout.readline()
            assert line, (tmp_path / "stderr").read_text()
            text += line
        address = next(one for one in json.loads(text)["ready"] if one["name"].startswith("collector"))["addresses"]
        body = "".join(row("live-1", name, at) for at, name in enumerate(("received", "checked", "paid")))
        lines = {"content-type": "application/x-ndjson"}
        answer = httpx.post(f"{address['http']}/v1/events", content=body, headers=lines, timeout=60)
        assert answer.status_code == 200, answer.text
        shown = httpx.get(f"{address['http']}/metrics", timeout=60).text
        assert 'tally_store_trouble{operation="write",reason="blocked"} 0.0' in shown
        assert 'tally_store_requests_total{operation="other",outcome="ok"}' in shown

        def told() -> Any:
            run = subprocess.run([*command, "trail", "live-1", "--json"], capture_output=True, check=False, timeout=60)
            return json.loads(run.stdout) if run.returncode == 0 else {}

        story = until(lambda: found if len((found := told()).get("steps", ())) == 3 else None)
        assert story["proof"]["state"] == "verified"
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0, (tmp_path / "stderr").read_text()
        assert up.stdout is not None
        up.stdout.close()
    run = subprocess.run([*command, "check"], capture_output=True, check=False, timeout=120)
    assert run.returncode == 0, run.stdout.decode()


def until(ask: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.2)  # another process's progress: there is no event to wait for
    pytest.fail("nothing came within the time")
