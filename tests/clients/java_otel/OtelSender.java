import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.logs.Logger;
import io.opentelemetry.api.logs.Severity;
import io.opentelemetry.api.metrics.LongCounter;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.exporter.otlp.http.logs.OtlpHttpLogRecordExporter;
import io.opentelemetry.exporter.otlp.http.metrics.OtlpHttpMetricExporter;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.common.export.RetryPolicy;
import io.opentelemetry.sdk.logs.SdkLoggerProvider;
import io.opentelemetry.sdk.logs.data.LogRecordData;
import io.opentelemetry.sdk.logs.export.BatchLogRecordProcessor;
import io.opentelemetry.sdk.logs.export.LogRecordExporter;
import io.opentelemetry.sdk.metrics.InstrumentType;
import io.opentelemetry.sdk.metrics.SdkMeterProvider;
import io.opentelemetry.sdk.metrics.data.AggregationTemporality;
import io.opentelemetry.sdk.metrics.data.LongExemplarData;
import io.opentelemetry.sdk.metrics.data.LongPointData;
import io.opentelemetry.sdk.metrics.data.MetricData;
import io.opentelemetry.sdk.metrics.export.AggregationTemporalitySelector;
import io.opentelemetry.sdk.metrics.export.MetricExporter;
import io.opentelemetry.sdk.metrics.export.PeriodicMetricReader;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/**
 * Sends numbered events with the OpenTelemetry SDK of Java over OTLP/HTTP: of three numbers one is a span, one a log record, one a
 * measurement in a trace. {@code OtelSender HOST:PORT COUNT}. It emits no more than the exporters keep up with, so that no queue of the
 * SDK drops anything, and prints {"acked": [numbers]} for what the exporters say was taken, {"failed": [numbers]} for what they gave up.
 */
public final class OtelSender {
    private static final AttributeKey<Long> N = AttributeKey.longKey("n");
    private static final int MOST_UNDER_WAY = 1_500;
    private static final Duration TIMEOUT = Duration.ofSeconds(120);
    private static final Duration OFTEN = Duration.ofMillis(50);
    /** Five attempts are the most that the SDK allows. */
    private static final RetryPolicy RETRY = RetryPolicy.builder()
            .setMaxAttempts(5).setInitialBackoff(Duration.ofSeconds(1)).setMaxBackoff(Duration.ofSeconds(40)).setBackoffMultiplier(3).build();

    private static final Semaphore ROOM = new Semaphore(MOST_UNDER_WAY);

    private static CompletableResultCode told(List<Long> numbers, CompletableResultCode result) {
        result.whenComplete(() -> {
            if (numbers.isEmpty()) {
                return;
            }
            synchronized (System.out) {
                System.out.println("{\"" + (result.isSuccess() ? "acked" : "failed") + "\": " + numbers + "}");
            }
            ROOM.release(numbers.size());
        });
        return result;
    }

    private record Spans(SpanExporter to) implements SpanExporter {
        @Override public CompletableResultCode export(Collection<SpanData> batch) {
            return told(batch.stream().map(one -> one.getAttributes().get(N)).toList(), to.export(batch));
        }
        @Override public CompletableResultCode flush() { return to.flush(); }
        @Override public CompletableResultCode shutdown() { return to.shutdown(); }
    }

    private record Records(LogRecordExporter to) implements LogRecordExporter {
        @Override public CompletableResultCode export(Collection<LogRecordData> batch) {
            return told(batch.stream().map(one -> one.getAttributes().get(N)).toList(), to.export(batch));
        }
        @Override public CompletableResultCode flush() { return to.flush(); }
        @Override public CompletableResultCode shutdown() { return to.shutdown(); }
    }

    private record Measurements(MetricExporter to) implements MetricExporter {
        @Override public CompletableResultCode export(Collection<MetricData> batch) {
            List<Long> numbers = new ArrayList<>();
            for (MetricData metric : batch) {
                for (LongPointData point : metric.getLongSumData().getPoints()) {
                    for (LongExemplarData exemplar : point.getExemplars()) {
                        numbers.add(exemplar.getValue());
                    }
                }
            }
            return told(numbers, to.export(batch));
        }
        @Override public CompletableResultCode flush() { return to.flush(); }
        @Override public CompletableResultCode shutdown() { return to.shutdown(); }
        @Override public AggregationTemporality getAggregationTemporality(InstrumentType type) { return to.getAggregationTemporality(type); }
    }

    public static void main(String[] arguments) throws InterruptedException {
        String to = "http://" + arguments[0] + "/v1/";
        int count = Integer.parseInt(arguments[1]);
        Resource shop = Resource.create(Attributes.of(AttributeKey.stringKey("service.name"), "shop"));
        SpanExporter spans = new Spans(OtlpHttpSpanExporter.builder()
                .setEndpoint(to + "traces").setTimeout(TIMEOUT).setRetryPolicy(RETRY).setCompression("gzip").build());
        LogRecordExporter records = new Records(OtlpHttpLogRecordExporter.builder()
                .setEndpoint(to + "logs").setTimeout(TIMEOUT).setRetryPolicy(RETRY).build());
        MetricExporter measurements = new Measurements(OtlpHttpMetricExporter.builder()
                .setEndpoint(to + "metrics").setTimeout(TIMEOUT).setRetryPolicy(RETRY)
                .setAggregationTemporalitySelector(AggregationTemporalitySelector.deltaPreferred()).build());
        SdkTracerProvider tracers = SdkTracerProvider.builder().setResource(shop).addSpanProcessor(BatchSpanProcessor.builder(spans)
                .setMaxExportBatchSize(256).setScheduleDelay(OFTEN).setExporterTimeout(TIMEOUT).build()).build();
        SdkLoggerProvider loggers = SdkLoggerProvider.builder().setResource(shop).addLogRecordProcessor(BatchLogRecordProcessor.builder(records)
                .setMaxExportBatchSize(256).setScheduleDelay(OFTEN).setExporterTimeout(TIMEOUT).build()).build();
        SdkMeterProvider meters = SdkMeterProvider.builder().setResource(shop)
                .registerMetricReader(PeriodicMetricReader.builder(measurements).setInterval(OFTEN).build()).build();
        Tracer tracer = tracers.get("clients");
        Logger logger = loggers.get("clients");
        LongCounter counter = meters.get("clients").counterBuilder("numbers").build();

        for (int number = 0; number < count; number++) {
            ROOM.acquire();
            Attributes attributes = Attributes.of(N, (long) number);
            if (number % 3 == 0) {
                tracer.spanBuilder("event " + number).setAllAttributes(attributes).startSpan().end();
            } else if (number % 3 == 1) {
                logger.logRecordBuilder().setBody("event " + number).setSeverity(Severity.INFO).setAllAttributes(attributes).emit();
            } else { // attributes of its own, so that the SDK keeps an exemplar of each
                SpanContext where = SpanContext.create(String.format("%032x", number), String.format("%016x", number),
                        TraceFlags.getSampled(), TraceState.getDefault());
                counter.add(number, attributes, Context.root().with(Span.wrap(where)));
            }
            if (number % 100 == 0) {
                Thread.sleep(5); // so that it lasts long enough to be interrupted
            }
        }
        ROOM.tryAcquire(MOST_UNDER_WAY, 300, TimeUnit.SECONDS); // until something is told of each
        tracers.shutdown().join(150, TimeUnit.SECONDS);
        loggers.shutdown().join(150, TimeUnit.SECONDS);
        meters.shutdown().join(150, TimeUnit.SECONDS);
    }
}
