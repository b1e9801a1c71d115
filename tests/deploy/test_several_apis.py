"""Several API processes over one ledger: each a real one, with a record, exports and sessions of its own; and with a Redis one count."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from deploy.processes import running
from tests.servers.redis import RedisServer
from tests.support.apis import write_tokens

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop


@contextmanager
def api_process(ledger: Workshop, *arguments: str) -> Iterator[str]:
    """One API process, from when it listens until it has stopped; gives its address. Its log goes to ``api.log`` in the workshop."""
    with (ledger.folder / "api.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "--config", str(ledger.file), "run", "api", *arguments],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 90
        while not (mine := [one for one in running(ledger.places.run) if one.pid == process.pid]):
            assert process.poll() is None, (ledger.folder / "api.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)  # a file of another process: there is nothing portable to await
        yield mine[0].addresses["http"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@contextmanager
def apis(ledger: Workshop, more: str = "") -> Iterator[list[str]]:
    """Two of them over the filled workshop, until the end; gives their addresses."""
    ledger.file.write_text(ledger.file.read_text() + more)
    with api_process(ledger, "--port", "0") as one, api_process(ledger, "--name", "two", "--port", "0") as two:
        yield [one, two]


def test_each_has_its_own_record_exports_and_sessions(ledger: Workshop, cli: Cli) -> None:
    tokens = write_tokens(ledger.places.tokens)
    asking = {"Authorization": f"Bearer {tokens['auditor']}"}
    with apis(ledger) as urls:
        for url in urls:
            assert httpx.get(f"{url}/v1/trails", headers=asking, timeout=60).status_code == 200
        told = json.loads(cli("status", "--json")[1])
        assert {one["name"] for one in told["processes"]} == {"api", "api-two"}
        job = httpx.post(f"{urls[0]}/v1/exports", headers=asking, timeout=60).headers["Location"]
        assert httpx.get(f"{urls[0]}{job}", headers=asking, timeout=60).status_code == 200
        assert httpx.get(f"{urls[1]}{job}", headers=asking, timeout=60).status_code == 404
        with httpx.Client(timeout=60) as here:
            logged_in = here.post(f"{urls[0]}/login", data={"token": tokens["auditor"]}, headers={"Origin": urls[0]})
            assert logged_in.status_code < 400, logged_in.text
            assert here.get(f"{urls[0]}/v1/trails").status_code == 200
            assert here.get(f"{urls[1]}/v1/trails").status_code == 401, "a session is of the process that opened it"
    # a stop ships what was recorded: it is in the log, in two streams of the one recorder
    ledger.correlate()
    found = json.loads(cli("find", "--limit", "1000", "--json")[1])["trails"]
    assert len([one for one in found if one["trail"].startswith("stream/api/")]) == 2
    (read,) = [one for one in found if one["trail"].startswith("access/auditor")]
    assert read["entries"] == 7, (
        "two searches, a job begun, looked at and not found, a log-in, a search with its session"
    )


@pytest.mark.redis
def test_with_a_redis_they_count_together(ledger: Workshop, redis_server: RedisServer) -> None:
    tokens = write_tokens(ledger.places.tokens)
    asking = {"Authorization": f"Bearer {tokens['auditor']}"}
    settings: dict[str, Any] = {"requests_a_second": 0.001, "burst_requests": 5}
    more = "\n".join(f"{name} = {value}" for name, value in settings.items())
    redis = redis_server.tls_settings()
    table = (
        f'url = "{redis.url}"\nuser = "{redis.user}"\npassword_file = "{redis.password_file}"\n'
        f'ca_file = "{redis.ca_file}"\nprefix = "tally:several"\ntimeout_seconds = 10.0\n'
    )
    with apis(ledger, f"[audit_api]\n{more}\n[audit_api.redis]\n{table}") as urls:
        codes = [httpx.get(f"{urls[at % 2]}/v1/trails", headers=asking, timeout=60).status_code for at in range(8)]
        assert codes == [200] * 5 + [429] * 3
        for url in urls:
            assert "tally_api_limits_shared 1.0" in httpx.get(f"{url}/metrics", timeout=60).text
