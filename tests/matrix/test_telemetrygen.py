"""OpenTelemetry's own load maker, in Go, over gRPC and HTTP, while the collector is killed: the account is exact at the end.

It is built from source once, some 40 s of a core, into a cache outside the tree. It does not tell what was acknowledged. Over gRPC its exporters try again until they hear
yes, so all must be there in the end. Over HTTP they give up at the first refused connection, so there nobody is killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.collector_process import CollectorProcess
from tests.support.need import need

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]

VERSION = "v0.161.0"
WORKERS = 4
KILLS = 3
KILLED_EVERY_SECONDS = 4.0


@pytest.fixture(scope="session")
def telemetrygen() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tallystick" / f"telemetrygen-{VERSION}"
    binary = cache / "telemetrygen"
    if not binary.is_file():
        need(shutil.which("go"), "telemetrygen is built from source: install Go")
        package = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen"
        subprocess.run(["go", "install", f"{package}@{VERSION}"], check=True, env=os.environ | {"GOBIN": str(cache)})
    return binary


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[CollectorProcess]:
    process = CollectorProcess(tmp_path)
    process.start()
    yield process
    process.close()


def run(telemetrygen: Path, collector: CollectorProcess, transport: str, *arguments: str, kills: int) -> int:
    """Run it to its end, with so many kills under way; returns its exit code."""
    command = [str(telemetrygen), *arguments, "--otlp-insecure", "--timeout", "60s"]
    command += ["--otlp-endpoint", collector.addresses[transport], *(["--otlp-http"] if transport == "http" else [])]
    # what is queued behind a request that is tried again must not be dropped: 2,048 spans are the SDK's default
    environment = os.environ | {"OTEL_BSP_MAX_QUEUE_SIZE": "200000", "OTEL_BSP_EXPORT_TIMEOUT": "60000"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as sender:
        for _ in range(kills):
            with pytest.raises(
                subprocess.TimeoutExpired
            ):  # else it was done before the collector was killed often enough
                sender.wait(KILLED_EVERY_SECONDS)
            collector.kill()
            collector.start()
        return sender.wait(300)


@pytest.mark.parametrize(("transport", "kills"), [("grpc", KILLS), ("http", 0)])
@pytest.mark.parametrize("signal", ["logs", "traces"])
def test_a_hundred_thousand(
    telemetrygen: Path, collector: CollectorProcess, transport: str, kills: int, signal: str
) -> None:
    # four spans are a trace, and the rate is one of spans
    amount = ["--logs", "25000"] if signal == "logs" else ["--traces", "6250", "--child-spans", "3"]
    code = run(
        telemetrygen, collector, transport, signal, "--workers", str(WORKERS), "--rate", "1700", *amount, kills=kills
    )
    collector.stop()
    stored = Counter(event.service for event in collector.stored())
    print(f"\ntelemetrygen {signal} over {transport}: ended with {code}, {dict(stored)} stored, {kills} kills")  # noqa: T201 - the figures are what the test is run for
    assert code == 0
    assert stored == {"telemetrygen": 100_000}


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_its_metrics_are_told_and_their_exemplars_kept(
    telemetrygen: Path, collector: CollectorProcess, transport: str
) -> None:
    trace_id, span_id = "ae87dadd90e9935a4bc9660628efd569", "5828fa4960140870"
    amount = [
        "--metrics",
        "300",
        "--rate",
        "0",
        "--metric-type",
        "Histogram",
        "--trace-id",
        trace_id,
        "--span-id",
        span_id,
    ]
    # Go's exporter takes partial success for an error
    assert run(telemetrygen, collector, transport, "metrics", *amount, kills=0) == 1
    assert run(telemetrygen, collector, transport, "metrics", *amount, "--allow-export-failures", kills=0) == 0
    collector.stop()
    events = collector.stored()
    assert events
    assert {(event.name, event.trace_id, event.span_id) for event in events} == {("metric.exemplar", trace_id, span_id)}
