"""The OpenTelemetry SDK of Python: even numbers are spans, odd ones log records without a uid, in batches over OTLP/HTTP.

Run as a program: `otel_sender.py HOST:PORT COUNT`. Prints `{"acked": [numbers]}` lines for what its exporters say was taken, `{"failed": …}` for
what they say they gave up. It emits no more than the exporters keep up with: what their queues cannot hold, the SDK drops without telling.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

MOST_UNDER_WAY = 10_000
TIMEOUT_SECONDS = 120  # for all attempts together

_printing = threading.Lock()
_room = threading.Semaphore(MOST_UNDER_WAY)


def tell(numbers: list[Any], *, taken: bool) -> None:
    with _printing:
        print(json.dumps({"acked" if taken else "failed": numbers}), flush=True)  # noqa: T201 - this is how it tells the test
    if numbers:
        _room.release(len(numbers))


class ToldSpans(OTLPSpanExporter):
    """Hands everything on, and tells which numbers were taken."""

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        result = super().export(spans)
        tell([span.attributes["n"] for span in spans], taken=result is SpanExportResult.SUCCESS)
        return result


class ToldLogs(OTLPLogExporter):
    """Hands everything on, and tells which numbers were taken."""

    def export(self, batch: Sequence[Any]) -> LogRecordExportResult:
        result = super().export(batch)
        numbers = [record.log_record.attributes["n"] for record in batch]
        tell(numbers, taken=result is LogRecordExportResult.SUCCESS)
        return result


def main(address: str, count: int) -> None:
    resource = Resource({"service.name": "shop"})
    spans, records = TracerProvider(resource=resource), LoggerProvider(resource=resource)
    spans.add_span_processor(
        BatchSpanProcessor(
            ToldSpans(endpoint=f"http://{address}/v1/traces", timeout=TIMEOUT_SECONDS),
            max_queue_size=20_000,
            max_export_batch_size=256,
            schedule_delay_millis=50,
        )
    )
    records.add_log_record_processor(
        BatchLogRecordProcessor(
            ToldLogs(endpoint=f"http://{address}/v1/logs", timeout=TIMEOUT_SECONDS),
            max_queue_size=20_000,
            max_export_batch_size=256,
            schedule_delay_millis=50,
        )
    )
    tracer, logger = spans.get_tracer("clients"), records.get_logger("clients")
    for number in range(count):
        _room.acquire()
        if number % 2:
            logger.emit(
                LogRecord(body=f"event {number}", severity_number=SeverityNumber.INFO, attributes={"n": number})
            )
        else:
            tracer.start_span(f"event {number}", attributes={"n": number}).end()
        if number % 100 == 0:
            time.sleep(0.02)  # so that it lasts long enough to be interrupted
    spans.shutdown()
    records.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
