"""Risk: says whether a payment may go on. Speaks Fluent Forward."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from examples.payments.fluent_telemetry import Telemetry
from examples.payments.http_service import serve


def main() -> None:
    """Serve until SIGTERM."""
    telemetry = Telemetry("risk")

    def assess(order: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        declined = order["rehearse"] == "decline"
        score = 91 if declined else 12
        telemetry.log("model.loaded", "risk model 2026-11 in use", headers, now_ns=time.time_ns())
        telemetry.log(
            "risk.assessed",
            f"score {score} of 100: {'declined' if declined else 'approved'}",
            headers,
            now_ns=time.time_ns(),
            payment_id=order["payment_id"],
            order_id=order["order_id"],
            actor="risk-model-2026-11",
            outcome="failure" if declined else "success",
        )
        return {"approved": not declined}

    serve({"/assess": assess}, close=telemetry.close)


if __name__ == "__main__":
    main()
