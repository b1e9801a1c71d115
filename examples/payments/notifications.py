"""Notifications: takes messages into a queue, and works on them later, each in a trace of its own. Speaks OpenTelemetry."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind

from examples.payments.http_service import serve
from examples.payments.otel_telemetry import Telemetry

Message = tuple[dict[str, Any], Mapping[str, str]]


def work(messages: queue.Queue[Message | None], telemetry: Telemetry) -> None:
    """Tell each customer in turn, until None comes."""
    while (message := messages.get()) is not None:
        body, headers = message
        if body["rehearse"] == "forget":
            # The bug that this example is about: nobody notices that a customer was never told. The trail does.
            continue
        about = {"payment_id": body["payment_id"], "order_id": body["order_id"]}
        with telemetry.span("notifications process", SpanKind.CONSUMER, linked_to=headers, **about):
            telemetry.log("customer.notified", f"told {body['customer']}", outcome="success", **about)


def main() -> None:
    """Serve until SIGTERM."""
    telemetry = Telemetry("notifications")
    messages: queue.Queue[Message | None] = queue.Queue()
    worker = threading.Thread(target=work, args=(messages, telemetry))
    worker.start()

    def enqueue(body: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        messages.put((body, dict(headers)))
        return {"queued": True}

    def close() -> None:
        messages.put(None)
        worker.join()
        telemetry.close()

    serve({"/queue": enqueue}, close=close)


if __name__ == "__main__":
    main()
