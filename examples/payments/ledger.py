"""The ledger: reserves, captures and releases money. Speaks Fluent Forward."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from examples.payments.fluent_telemetry import Telemetry
from examples.payments.http_service import Refused, serve


class Ledger:
    """What is reserved, by payment. Requests come in threads: one at a time may touch the books."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._reserved: dict[str, str] = {}
        self._refused_once: set[str] = set()

    def reserve(self, order: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """Set the amount aside."""
        payment = order["payment_id"]
        with self._lock:
            if order["rehearse"] == "retry" and payment not in self._refused_once:
                self._refused_once.add(payment)
                self._log("ledger.busy", "too busy to reserve", order, headers, failed=True)
                raise Refused(503, "ledger is busy")
            self._reserved[payment] = order["amount"]
            self._log("funds.reserved", f"reserved {order['amount']} {order['currency']}", order, headers)
        # A line that knows its trace and nothing else, as most lines of real services do.
        self._telemetry.log("journal.synced", "journal page written", headers, now_ns=time.time_ns())
        return {"reserved": order["amount"]}

    def capture(self, order: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """Take what was reserved."""
        with self._lock:
            if order["rehearse"] == "compensation":
                self._log("capture.failed", "account was closed after the reservation", order, headers, failed=True)
                raise Refused(409, "account closed")
            amount = self._reserved.pop(order["payment_id"])
            self._log("funds.captured", f"captured {amount} {order['currency']}", order, headers, outcome="success")
        return {"captured": amount}

    def release(self, order: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """Give back what was reserved."""
        with self._lock:
            amount = self._reserved.pop(order["payment_id"], "nothing")
            self._log("funds.released", f"released {amount} {order['currency']}", order, headers)
        return {"released": amount}

    def _log(
        self, event: str, message: str, order: dict[str, Any], headers: Mapping[str, str], **more: str | bool
    ) -> None:
        about = {"payment_id": order["payment_id"], "order_id": order["order_id"], "amount": order["amount"]}
        failed = bool(more.pop("failed", False))
        self._telemetry.log(event, message, headers, now_ns=time.time_ns(), failed=failed, **about, **more)


def main() -> None:
    """Serve until SIGTERM."""
    telemetry = Telemetry("ledger")
    ledger = Ledger(telemetry)
    routes = {"/reserve": ledger.reserve, "/capture": ledger.capture, "/release": ledger.release}
    serve(routes, close=telemetry.close)


if __name__ == "__main__":
    main()
