"""The OpenTelemetry Collector as a service would run it in a sidecar's place: Forward, masking, a queue on disk that is synced, OTLP/HTTP."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from bench.process import Usage, usage_of
from bench.sink import Sink
from tests.servers.kafka import free_ports

__all__ = ["Otelcol"]

# What is masked is what our sidecar masks by default: numbers of cards (here without their check digit), JSON Web Tokens, and secrets by the name
# of their field; ids of traces and spans are left alone. Requests are not compressed, and the queue is longer than any run, so that neither is measured.
_CONFIG = r"""
extensions:
  file_storage: {{directory: {folder}/queue, create_directory: true, fsync: true}}
receivers:
  fluent_forward: {{endpoint: "127.0.0.1:{forward}"}}
processors:
  redaction:
    allow_all_keys: true
    summary: silent
    ignored_keys: [trace_id, span_id]
    blocked_values:
      - '\b(?:\d[ -]?){{12,18}}\d\b'
      - '[\w-]{{4,}}\.eyJ[\w-]{{4,}}(?:\.[\w-]*)?'
    blocked_key_patterns:
      - '(?i)(?:cvv2?|cvc2?|password|passwd|secret|api_?key|access_?token|refresh_?token|authorization|cookie)$'
exporters:
  otlp_http:
    endpoint: http://127.0.0.1:{sink}
    compression: none
    retry_on_failure: {{enabled: true, initial_interval: 200ms, max_interval: 2s, max_elapsed_time: 0}}
    sending_queue: {{enabled: true, storage: file_storage, queue_size: 1000000, block_on_overflow: true}}
service:
  extensions: [file_storage]
  telemetry:
    logs: {{level: warn}}
    metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {metrics}}}}}}}}}]}}
  pipelines:
    logs: {{receivers: [fluent_forward], processors: [redaction], exporters: [otlp_http]}}
"""
_PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.02


class Otelcol:
    """A `bench.sidecar.Side`: one collector that ships to a sink, started as often as asked for with the same ports and the same queue.

    Args:
        binary: of `drills.matrix.programs`.
        folder: where its queue is; made.
        sink: what takes OTLP/HTTP.

    Attributes:
        address: where it takes Forward.
    """

    def __init__(self, binary: Path, folder: Path, *, sink: Sink) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        forward, metrics = free_ports(2)
        self.address = f"127.0.0.1:{forward}"
        self._settings = folder / "otelcol.yaml"
        self._settings.write_text(_CONFIG.format(folder=folder, forward=forward, metrics=metrics, sink=sink.port))
        self._binary = binary
        self._sink = sink
        self._log = folder / "otelcol.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), "--config", str(self._settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        host, _, port = self.address.rpartition(":")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection((host, int(port)), timeout=1.0):
                    return
            except OSError:
                time.sleep(_LOOK_SECONDS)  # it happens in another process
        self.stop()
        raise RuntimeError(f"the OpenTelemetry Collector did not start:\n{self._log.read_text()[-2_000:]}")

    def usage(self) -> Usage:
        """What it has used since it was last started."""
        assert self._process is not None
        return usage_of(self._process.pid)

    def delivered(self) -> int:
        """Records that the sink has."""
        return self._sink.count

    def kill(self) -> None:
        """SIGKILL, at whatever it was doing."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it as a service manager does, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
