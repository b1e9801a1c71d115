"""Fetching one trail with its events and proofs over the API, while the ledger holds a million events."""

from __future__ import annotations

import http.client
import json
import random
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.end_to_end import fill, wait_until_logged
from bench.forward import write_config
from bench.process import ENVIRONMENT, TALLY, Tally, Usage
from bench.records import EVENTS_A_TRANSACTION

__all__ = ["TrailFetch", "bench_trail_fetch"]

_CONFIG = """
[audit_api]
port = 0
requests_a_second = 100000
burst_requests = 1000000
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailFetch:
    """Seconds a request over a kept connection, bytes of an answer, and what the processes used at the end."""

    events: int
    requests: int
    p50: float
    p99: float
    answer_bytes: float
    api: Usage
    correlator: Usage
    collector: Usage


def bench_trail_fetch(folder: Path, *, events: int, requests: int) -> TrailFetch:
    """Fill a ledger through Forward, then fetch random trails of twenty events with all proofs, one after the other."""
    write_config(folder, _CONFIG)
    token = subprocess.run(
        [*TALLY, "--config", str(folder / "tally.toml"), "token", "add", "bench", "--role", "auditor"],
        check=True,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    ).stdout.strip()
    collector, correlator = Tally(folder, "collector"), Tally(folder, "correlator")
    api = None
    try:
        fill(collector, events)
        wait_until_logged(folder, events, collector, correlator)
        api = Tally(folder, "api")
        host, _, port = api.addresses["http"].removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port))
        dice = random.Random(7)
        taken, sizes = [], []
        for at in range(requests + 50):
            trail = f"transaction/tx-{dice.randrange(events // EVENTS_A_TRANSACTION)}"
            began = time.perf_counter()
            connection.request("GET", f"/v1/trails/{trail}?proofs=true", headers={"authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            body = answer.read()
            seconds = time.perf_counter() - began
            if answer.status != http.client.OK:
                raise RuntimeError(f"{trail}: {answer.status} {body[:300]!r}")
            if at == 0 and len(json.loads(body)["entries"]) < EVENTS_A_TRANSACTION:
                raise RuntimeError(f"{trail} lacks entries: {body[:300]!r}")
            if at >= 50:  # the first requests open files and fill caches
                taken.append(seconds)
                sizes.append(len(body))
            if at % 100 == 0:
                api.drain_log()
        return TrailFetch(
            events=events,
            requests=requests,
            p50=statistics.median(taken),
            p99=statistics.quantiles(taken, n=100)[98],
            answer_bytes=statistics.mean(sizes),
            api=api.usage(),
            correlator=correlator.usage(),
            collector=collector.usage(),
        )
    finally:
        for process in (api, correlator, collector):
            if process is not None:
                process.stop()
