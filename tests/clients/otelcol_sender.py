"""The OpenTelemetry Collector as a relay: it follows a file of numbered lines, keeps what it read in a queue on disk, and sends it on over OTLP/HTTP.

Run as a program: `otelcol_sender.py BINARY HOST:PORT COUNT`. Works in the current folder. Ends when the collector's own counter of sent records says that
all are, and its queue is empty.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

CONFIG = """
extensions:
  file_storage: {{directory: {folder}/queue, create_directory: true, fsync: true}}
receivers:
  file_log:
    include: [{folder}/shop.log]
    start_at: beginning
    storage: file_storage
    operators: [{{type: json_parser}}]
exporters:
  otlp_http:
    endpoint: http://{address}
    retry_on_failure: {{enabled: true, initial_interval: 200ms, max_interval: 2s, max_elapsed_time: 0}}
    sending_queue: {{enabled: true, storage: file_storage, queue_size: 1000000, block_on_overflow: true}}
service:
  extensions: [file_storage]
  telemetry:
    logs: {{level: warn}}
    metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]}}
  pipelines:
    logs: {{receivers: [file_log], exporters: [otlp_http]}}
"""
AT_ONCE = 100


def sent(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return 0
    found = re.findall(r"^otelcol_exporter_sent_log_records\S* (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


def main(binary: str, address: str, count: int) -> None:
    folder = Path.cwd()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    (folder / "otelcol.yaml").write_text(CONFIG.format(folder=folder, address=address, port=port))
    log = folder / "shop.log"
    log.touch()
    with subprocess.Popen([binary, "--config", str(folder / "otelcol.yaml")]) as process:
        try:
            for first in range(0, count, AT_ONCE):
                with log.open("a") as file:
                    for number in range(first, min(first + AT_ONCE, count)):
                        file.write(json.dumps({"n": number, "message": f"event {number}"}) + "\n")
                time.sleep(0.02)  # so that it lasts long enough to be interrupted
            while sent(port) < count:
                assert process.poll() is None, "the OpenTelemetry Collector ended"
                time.sleep(0.5)  # it tells nobody
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
