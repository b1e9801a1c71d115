"""The gateway: takes a customer's payment in, and answers what became of it. Speaks OpenTelemetry."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind

from examples.payments.http_service import Refused, call, serve
from examples.payments.otel_telemetry import Telemetry


def main() -> None:
    """Serve until SIGTERM."""
    telemetry = Telemetry("gateway")
    payments = os.environ["PAYMENTS_URL"]

    def pay(body: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        about = {"payment_id": body["payment_id"], "order_id": body["order_id"], "enduser.id": body["customer"]}
        with telemetry.span("POST /payments", SpanKind.SERVER, headers=headers, **about):
            telemetry.log(
                "payment.received",
                # What should never be in a log, and always is. The sidecar masks it before anything is written.
                f"{body['customer']} pays {body['amount']} {body['currency']} with card {body['card']}",
                **about,
            )
            order = {key: value for key, value in body.items() if key != "card"}
            try:
                answer = call(f"{payments}/pay", order, telemetry.headers())
            except Refused as error:
                telemetry.log("payment.answered", f"answered: {error.reason}", failed=True, outcome="failure", **about)
                raise
            telemetry.log("payment.answered", f"answered: {answer['status']}", outcome="success", **about)
            return answer

    serve({"/payments": pay}, close=telemetry.close)


if __name__ == "__main__":
    main()
