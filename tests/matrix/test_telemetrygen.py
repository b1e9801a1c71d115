"""OpenTelemetry's own load maker, in Go: over HTTP, where it gives up at the first refused connection, so that nobody is killed; and its metrics.

It is built from source once, some 40 s of a core, into the tests' cache. Over gRPC it is a row of the matrix (`drills.matrix.senders`).
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from drills.matrix.programs import Programs
from tests.support.collector_process import CollectorProcess

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]

WORKERS = 4


@pytest.fixture(scope="session")
def telemetrygen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Programs(tmp_path_factory.mktemp("programs")).telemetrygen


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[CollectorProcess]:
    process = CollectorProcess(tmp_path)
    process.start()
    yield process
    process.close()


def run(telemetrygen: Path, collector: CollectorProcess, transport: str, *arguments: str) -> int:
    """Run it to its end; returns its exit code."""
    command = [str(telemetrygen), *arguments, "--otlp-insecure", "--timeout", "60s"]
    command += ["--otlp-endpoint", collector.addresses[transport], *(["--otlp-http"] if transport == "http" else [])]
    # what is queued behind a request that is tried again must not be dropped: 2,048 spans are the SDK's default
    environment = os.environ | {"OTEL_BSP_MAX_QUEUE_SIZE": "200000", "OTEL_BSP_EXPORT_TIMEOUT": "60000"}
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, check=False, timeout=300
    )
    return done.returncode


@pytest.mark.parametrize("signal", ["logs", "traces"])
def test_a_hundred_thousand_over_http(telemetrygen: Path, collector: CollectorProcess, signal: str) -> None:
    # four spans are a trace, and the rate is one of spans
    amount = ["--logs", "25000"] if signal == "logs" else ["--traces", "6250", "--child-spans", "3"]
    code = run(telemetrygen, collector, "http", signal, "--workers", str(WORKERS), "--rate", "1700", *amount)
    collector.stop()
    assert code == 0
    assert Counter(event.service for event in collector.stored()) == {"telemetrygen": 100_000}


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
    assert run(telemetrygen, collector, transport, "metrics", *amount) == 1
    assert run(telemetrygen, collector, transport, "metrics", *amount, "--allow-export-failures") == 0
    collector.stop()
    events = collector.stored()
    assert events
    assert {(event.name, event.trace_id, event.span_id) for event in events} == {("metric.exemplar", trace_id, span_id)}
