"""How ledger and risk tell what they do: the `fluent-logger` package as it comes, Fluent Forward to the sidecar.

No tracing library here: the trace context is taken from the caller's `traceparent` header (W3C) and written into each record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from fluent.sender import EventTime, FluentSender

__all__ = ["Telemetry"]

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Telemetry:
    """Log records of one service, sent to the Forward endpoint that `SIDECAR_FORWARD` (host:port) names."""

    def __init__(self, service: str) -> None:
        host, _, port = os.environ["SIDECAR_FORWARD"].rpartition(":")
        self._sender = FluentSender(service, host=host, port=int(port))
        self._service = service

    def log(
        self,
        event: str,
        message: str,
        headers: Mapping[str, str],
        *,
        now_ns: int,
        failed: bool = False,
        **attributes: str | float | bool,
    ) -> None:
        """One record under the tag `<service>.<event>`; the sender connects again by itself and keeps what it could not send."""
        context = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
        record: dict[str, object] = {
            "service": self._service,
            "event_name": event,
            "message": message,
            "level": "error" if failed else "info",
            **attributes,
        }
        if context:
            record |= {"trace_id": context[1], "span_id": context[2]}
        self._sender.emit_with_time(event, EventTime.from_unix_nano(now_ns), record)

    def close(self) -> None:
        """Send what is left."""
        self._sender.close()
