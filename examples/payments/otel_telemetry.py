"""How gateway, payments and notifications tell what they do: the OpenTelemetry SDK as it comes, OTLP/HTTP to the sidecar."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import baggage, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

__all__ = ["Telemetry"]

Value = str | int | float | bool


class Telemetry:
    """Spans and log records of one service, sent to the OTLP endpoint that `SIDECAR_OTLP` names."""

    def __init__(self, service: str) -> None:
        endpoint = os.environ["SIDECAR_OTLP"]
        resource = Resource.create({"service.name": service, "service.version": "1.0.0"})
        self._spans = TracerProvider(resource=resource)
        self._spans.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces"), schedule_delay_millis=200)
        )
        self._records = LoggerProvider(resource=resource)
        self._records.add_log_record_processor(
            BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{endpoint}/v1/logs"), schedule_delay_millis=200)
        )
        self._tracer = self._spans.get_tracer("payments-example")
        self._logger = self._records.get_logger("payments-example")

    @contextmanager
    def span(
        self,
        name: str,
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        headers: Mapping[str, str] | None = None,
        linked_to: Mapping[str, str] | None = None,
        **attributes: Value,
    ) -> Iterator[Span]:
        """A span around the block. `headers` continue the caller's trace; `linked_to` starts a trace that points back at it.

        The payment's id travels as W3C baggage beside the trace context, so that each service can say which payment it means.
        """
        parent = get_current() if headers is None and linked_to is None else extract(headers) if headers else Context()
        links = [Link(trace.get_current_span(extract(linked_to)).get_span_context())] if linked_to else []
        if "payment_id" in attributes:
            parent = baggage.set_baggage("payment_id", str(attributes["payment_id"]), parent)
        token = attach(parent)
        try:
            with self._tracer.start_as_current_span(
                name,
                kind=kind,
                attributes=attributes,
                links=links,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    yield span
                except Exception as error:
                    span.set_status(Status(StatusCode.ERROR, str(error)))
                    raise
        finally:
            detach(token)

    def headers(self) -> dict[str, str]:
        """What goes out with a call: `traceparent` and `baggage`."""
        carrier: dict[str, str] = {}
        inject(carrier)
        return carrier

    def log(self, event: str, message: str, *, failed: bool = False, **attributes: Value) -> None:
        """One log record with an event name, in the current span."""
        level = SeverityNumber.ERROR if failed else SeverityNumber.INFO
        self._logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                context=get_current(),
                severity_number=level,
                severity_text=level.name,
                event_name=event,
                body=message,
                attributes=attributes,
            )
        )

    def close(self) -> None:
        """Send what is left."""
        self._spans.shutdown()
        self._records.shutdown()
