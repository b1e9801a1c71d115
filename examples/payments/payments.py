"""The payments service: runs each payment as a saga, and undoes what it did when a later step fails. Speaks OpenTelemetry."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind

from examples.payments.http_service import Refused, call, serve
from examples.payments.otel_telemetry import Telemetry

ATTEMPTS = 3
CARD_NETWORK_SECONDS = 0.5


class Saga:
    """One payment's steps. Each is told by the service that does it; here stands which comes when, and what undoes it."""

    def __init__(self, telemetry: Telemetry, order: dict[str, Any]) -> None:
        self.telemetry = telemetry
        self.order = order
        self.about = {"payment_id": order["payment_id"], "order_id": order["order_id"]}

    def run(self) -> dict[str, Any]:
        """Risk, reserve, charge, capture, notify; raises `Refused` with the reason that the customer is told."""
        if not self._ask("RISK_URL", "/assess")["approved"]:
            self.telemetry.log("payment.declined", "declined by risk", outcome="failure", **self.about)
            raise Refused(402, "declined")
        self._reserve()
        charged = False
        try:
            self._charge()
            charged = True
            self._ask("LEDGER_URL", "/capture")
        except (Refused, TimeoutError) as error:
            self.telemetry.log("payment.failed", f"undoing what was done: {error}", failed=True, **self.about)
            if charged:
                self.telemetry.log("card.refunded", f"gave {self.order['amount']} back to the card", **self.about)
            self._ask("LEDGER_URL", "/release")
            raise Refused(502, "failed, nothing was taken") from error
        self.telemetry.log("payment.completed", "paid", outcome="success", **self.about)
        self._notify()
        return {"status": "paid", "payment_id": self.order["payment_id"]}

    def _ask(self, service: str, path: str) -> dict[str, Any]:
        with self.telemetry.span(f"POST {path}", SpanKind.CLIENT, **self.about):
            return call(os.environ[service] + path, self.order, self.telemetry.headers())

    def _reserve(self) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._ask("LEDGER_URL", "/reserve")
                return
            except Refused as error:
                if error.status != 503 or attempt == ATTEMPTS:
                    raise
                self.telemetry.log("ledger.retried", f"attempt {attempt}: {error}; trying again", **self.about)
                time.sleep(0.02 * attempt)

    def _charge(self) -> None:
        # Stands for the card network, which is nobody's microservice: it answers, or it does not.
        with self.telemetry.span("charge card", SpanKind.CLIENT, **self.about):
            if self.order["rehearse"] == "timeout":
                time.sleep(CARD_NETWORK_SECONDS)
                raise TimeoutError(f"no answer from the card network within {CARD_NETWORK_SECONDS:g} s")
            self.telemetry.log("card.charged", f"the card network took {self.order['amount']}", **self.about)

    def _notify(self) -> None:
        # The message carries the context of this span, but is worked on later, in a trace of its own.
        with self.telemetry.span("notifications publish", SpanKind.PRODUCER, **self.about):
            message = {"customer": self.order["customer"], "rehearse": self.order["rehearse"], **self.about}
            call(f"{os.environ['NOTIFICATIONS_URL']}/queue", message, self.telemetry.headers())


def main() -> None:
    """Serve until SIGTERM."""
    telemetry = Telemetry("payments")

    def pay(order: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        about = {"payment_id": order["payment_id"], "order_id": order["order_id"]}
        with telemetry.span("POST /pay", SpanKind.SERVER, headers=headers, **about):
            return Saga(telemetry, order).run()

    serve({"/pay": pay}, close=telemetry.close)


if __name__ == "__main__":
    main()
