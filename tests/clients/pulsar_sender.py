"""pulsar-client's producer. Run as a program: `pulsar_sender.py BROKER TOPIC COUNT`. Its messages are numbered, and spread over partitions by their keys.

Prints `{"acked": [numbers]}` for what the broker has: the collector is to have it some time later.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import pulsar

AT_ONCE = 100
PATIENCE_SECONDS = 300.0


def main(broker: str, topic: str, count: int) -> None:
    client = pulsar.Client(f"pulsar://{broker}", logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, "/dev/null"))
    # batches as the library makes them, several keys in an entry; without a limit of time a send goes on until it succeeds
    producer = client.create_producer(topic, batching_enabled=True, send_timeout_millis=0, block_if_queue_full=True)
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))
        told: dict[int, pulsar.Result] = {}
        all_told = threading.Event()

        def tell(
            number: int,
            result: pulsar.Result,
            told: dict[int, pulsar.Result] = told,
            all_told: threading.Event = all_told,
            wanted: int = len(numbers),
        ) -> None:
            told[number] = result
            if len(told) == wanted:
                all_told.set()

        for n in numbers:
            body = json.dumps({"n": n, "message": f"event {n}"}).encode()
            producer.send_async(body, lambda result, _, n=n, tell=tell: tell(n, result), partition_key=str(n))
        all_told.wait(PATIENCE_SECONDS)
        report(told)
        time.sleep(0.01)  # so that it lasts long enough to be interrupted
    client.close()


def report(told: dict[int, Any]) -> None:
    """Say what became of them; what was not told is not acknowledged."""
    acked = [n for n, result in told.items() if result == pulsar.Result.Ok]
    failed = [n for n, result in told.items() if result != pulsar.Result.Ok]
    print(json.dumps({"acked": acked}), flush=True)  # noqa: T201 - this is how it tells the test
    if failed:
        print(json.dumps({"failed": failed, "why": str(told[failed[0]])}), flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
