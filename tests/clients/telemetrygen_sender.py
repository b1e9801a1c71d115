"""OpenTelemetry's load maker: log records or spans in batches over OTLP/gRPC. A batch that its exporter gives up it says in its log, and goes on with the next.

Run as a program: `telemetrygen_sender.py BINARY HOST:PORT logs|traces COUNT`. Prints how many it gave up: they have no numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

BATCH = 100
WORKERS = 4
GAVE_UP = {"logs": "exporter failed, continuing", "traces": "traces export: "}


def main(binary: str, address: str, signal: str, count: int) -> int:
    each = count // WORKERS
    assert each % BATCH == 0, "a last batch may be smaller than the others: nobody could tell how many it had"
    # four spans are a trace, and the rate is one of spans
    amount = ["--logs", str(each)] if signal == "logs" else ["--traces", str(each // 4), "--child-spans", "3"]
    command = [
        *(
            binary,
            signal,
            "--otlp-insecure",
            "--otlp-endpoint",
            address,
            "--timeout",
            "120s",
            "--allow-export-failures",
        ),
        *("--workers", str(WORKERS), "--batch-size", str(BATCH), "--rate", "1700", *amount),
    ]
    # what is queued behind a request that is tried again must not be dropped: 2,048 spans are the SDK's default
    queue = {"OTEL_BSP_MAX_QUEUE_SIZE": "200000", "OTEL_BSP_EXPORT_TIMEOUT": "120000"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | queue) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            _, said, why = line.partition(GAVE_UP[signal])
            if said:
                print(json.dumps({"given_up": BATCH, "why": why.strip()}), flush=True)  # noqa: T201 - this is how it tells the test
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
