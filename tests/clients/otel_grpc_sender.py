"""The OpenTelemetry SDK of Python over OTLP/gRPC: of three numbers one is a span, one a log record, one a measurement in a trace.

Run as a program: `otel_grpc_sender.py HOST:PORT COUNT`. Prints `{"acked": [numbers]}` lines for what its exporters say was taken, `{"failed": …}`
for what they say they gave up. It emits no more than the exporters keep up with: what their queues cannot hold, the SDK drops without telling. Each measurement has attributes of its own, so that the SDK keeps an exemplar of each.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from grpc import Compression
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

MOST_UNDER_WAY = 5_000
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


class ToldMetrics(OTLPMetricExporter):
    """Hands everything on, and tells the numbers of the exemplars that were taken."""

    def export(self, metrics_data: MetricsData, *args: Any, **options: Any) -> MetricExportResult:
        result = super().export(metrics_data, *args, **options)
        numbers = [
            exemplar.value
            for group in metrics_data.resource_metrics
            for scoped in group.scope_metrics
            for metric in scoped.metrics
            for point in metric.data.data_points
            for exemplar in point.exemplars
        ]
        tell(numbers, taken=result is MetricExportResult.SUCCESS)
        return result


def main(address: str, count: int) -> None:
    options: dict[str, Any] = {"endpoint": f"http://{address}", "insecure": True, "timeout": TIMEOUT_SECONDS}
    batches: dict[str, Any] = {"max_queue_size": 20_000, "max_export_batch_size": 100, "schedule_delay_millis": 50}
    spans, records = TracerProvider(), LoggerProvider()
    spans.add_span_processor(BatchSpanProcessor(ToldSpans(**options, compression=Compression.Gzip), **batches))
    records.add_log_record_processor(BatchLogRecordProcessor(ToldLogs(**options), **batches))
    delta: dict[type, Any] = {Counter: AggregationTemporality.DELTA}
    reader = PeriodicExportingMetricReader(
        ToldMetrics(**options, preferred_temporality=delta),
        export_interval_millis=100,
        export_timeout_millis=TIMEOUT_SECONDS * 1_000,
    )
    meters = MeterProvider([reader])
    tracer, logger = spans.get_tracer("clients"), records.get_logger("clients")
    counter = meters.get_meter("clients").create_counter("numbers")
    for number in range(count):
        _room.acquire()
        if number % 3 == 0:
            tracer.start_span(f"event {number}", attributes={"n": number}).end()
        elif number % 3 == 1:
            logger.emit(
                LogRecord(body=f"event {number}", severity_number=SeverityNumber.INFO, attributes={"n": number})
            )
        else:
            where = trace.SpanContext(number, number, is_remote=False, trace_flags=trace.TraceFlags(1))
            counter.add(number, {"n": number}, context=trace.set_span_in_context(trace.NonRecordingSpan(where)))
        if number % 100 == 0:
            time.sleep(0.05)  # so that it lasts long enough to be interrupted
    for provider in (spans, records, meters):
        provider.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
