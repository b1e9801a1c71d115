"""PyPI fluent-logger, which knows neither acks nor ids. Run as a program: `fluent_sender.py HOST:PORT COUNT`.

Prints `{"sent": number}` now and then, for the test to know how far it is.
"""

from __future__ import annotations

import json
import sys
import time

from fluent.sender import FluentSender


def main(address: str, count: int) -> None:
    host, _, port = address.partition(":")
    sender = FluentSender("shop", host=host, port=int(port), nanosecond_precision=True)
    for number in range(count):
        sender.emit("fluent_sender", {"n": number, "message": f"event {number}"})
        if number % 50 == 49:
            print(json.dumps({"sent": number + 1}), flush=True)  # noqa: T201 - this is how it tells the test
            time.sleep(0.02)  # so that it lasts long enough to be interrupted
    sender.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
