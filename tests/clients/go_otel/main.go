// Command gootel sends numbered events with the OpenTelemetry SDK of Go over OTLP/gRPC: of three numbers one is a span, one a log
// record, one a measurement in a trace. It emits no more than the exporters keep up with, so that no queue of the SDK drops anything.
//
//	gootel ADDRESS COUNT
//
// It prints {"acked": [numbers]} for what the exporters say was taken, {"failed": [numbers], "why": text} for what they gave up.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	mostUnderWay = 1500
	batchSize    = 256
	timeout      = 120 * time.Second
)

// told prints what became of numbers, and holds the loop back while too many have not been told of.
type told struct {
	lock     sync.Mutex
	changed  *sync.Cond
	underWay int
}

func (t *told) begin() {
	t.lock.Lock()
	for t.underWay >= mostUnderWay {
		t.changed.Wait()
	}
	t.underWay++
	t.lock.Unlock()
}

func (t *told) wait() {
	t.lock.Lock()
	for t.underWay > 0 {
		t.changed.Wait()
	}
	t.lock.Unlock()
}

func (t *told) end(numbers []int64, err error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	line := map[string]any{"acked": numbers}
	if err != nil {
		line = map[string]any{"failed": numbers, "why": err.Error()}
	}
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
	t.underWay -= len(numbers)
	t.changed.Broadcast()
}

type spans struct {
	sdktrace.SpanExporter
	told *told
}

func (e spans) ExportSpans(ctx context.Context, batch []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, batch)
	numbers := make([]int64, 0, len(batch))
	for _, span := range batch {
		numbers = append(numbers, span.Attributes()[0].Value.AsInt64())
	}
	e.told.end(numbers, err)
	return err
}

type records struct {
	sdklog.Exporter
	told *told
}

func (e records) Export(ctx context.Context, batch []sdklog.Record) error {
	err := e.Exporter.Export(ctx, batch)
	numbers := make([]int64, 0, len(batch))
	for _, record := range batch {
		record.WalkAttributes(func(one attribute.KeyValue) bool {
			numbers = append(numbers, one.Value.AsInt64())
			return false
		})
	}
	e.told.end(numbers, err)
	return err
}

type measurements struct {
	sdkmetric.Exporter
	told *told
}

func (e measurements) Export(ctx context.Context, data *metricdata.ResourceMetrics) error {
	var numbers []int64
	for _, scope := range data.ScopeMetrics {
		for _, one := range scope.Metrics {
			for _, point := range one.Data.(metricdata.Sum[int64]).DataPoints {
				for _, exemplar := range point.Exemplars {
					numbers = append(numbers, exemplar.Value)
				}
			}
		}
	}
	err := e.Exporter.Export(ctx, data)
	// data points are not kept, and a partial success says so, which this exporter takes for an error; the exemplars were taken
	if err != nil && strings.Contains(err.Error(), "partial success") {
		err = nil
	}
	if len(numbers) > 0 {
		e.told.end(numbers, err)
	}
	return err
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	address := os.Args[1]
	count := must(strconv.Atoi(os.Args[2]))
	ctx := context.Background()
	told := &told{}
	told.changed = sync.NewCond(&told.lock)
	shop := must(resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "shop"))))

	spanExporter := must(otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure(),
		otlptracegrpc.WithTimeout(timeout), otlptracegrpc.WithCompressor("gzip"),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: 200 * time.Millisecond,
			MaxInterval: 2 * time.Second, MaxElapsedTime: timeout})))
	recordExporter := must(otlploggrpc.New(ctx, otlploggrpc.WithEndpoint(address), otlploggrpc.WithInsecure(),
		otlploggrpc.WithTimeout(timeout),
		otlploggrpc.WithRetry(otlploggrpc.RetryConfig{Enabled: true, InitialInterval: 200 * time.Millisecond,
			MaxInterval: 2 * time.Second, MaxElapsedTime: timeout})))
	delta := func(sdkmetric.InstrumentKind) metricdata.Temporality { return metricdata.DeltaTemporality }
	metricExporter := must(otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpoint(address), otlpmetricgrpc.WithInsecure(),
		otlpmetricgrpc.WithTimeout(timeout), otlpmetricgrpc.WithTemporalitySelector(delta),
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: true, InitialInterval: 200 * time.Millisecond,
			MaxInterval: 2 * time.Second, MaxElapsedTime: timeout})))

	tracers := sdktrace.NewTracerProvider(sdktrace.WithResource(shop), sdktrace.WithBatcher(spans{spanExporter, told},
		sdktrace.WithMaxExportBatchSize(batchSize), sdktrace.WithBatchTimeout(50*time.Millisecond), sdktrace.WithExportTimeout(timeout)))
	loggers := sdklog.NewLoggerProvider(sdklog.WithResource(shop), sdklog.WithProcessor(sdklog.NewBatchProcessor(records{recordExporter, told},
		sdklog.WithExportMaxBatchSize(batchSize), sdklog.WithExportInterval(50*time.Millisecond), sdklog.WithExportTimeout(timeout))))
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithResource(shop), sdkmetric.WithReader(sdkmetric.NewPeriodicReader(
		measurements{metricExporter, told}, sdkmetric.WithInterval(50*time.Millisecond), sdkmetric.WithTimeout(timeout))))
	tracer, logger := tracers.Tracer("clients"), loggers.Logger("clients")
	counter := must(meters.Meter("clients").Int64Counter("numbers"))

	for number := 0; number < count; number++ {
		told.begin()
		switch number % 3 {
		case 0:
			_, span := tracer.Start(ctx, fmt.Sprintf("event %d", number), trace.WithAttributes(attribute.Int("n", number)))
			span.End()
		case 1:
			var record log.Record
			record.SetBody(attribute.StringValue(fmt.Sprintf("event %d", number)))
			record.SetSeverity(log.SeverityInfo)
			record.AddAttributes(attribute.Int("n", number))
			logger.Emit(ctx, record)
		default: // attributes of its own, so that the SDK keeps an exemplar of each
			var traceID trace.TraceID
			var spanID trace.SpanID
			binary.BigEndian.PutUint64(traceID[8:], uint64(number))
			binary.BigEndian.PutUint64(spanID[:], uint64(number))
			where := trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled})
			counter.Add(trace.ContextWithSpanContext(ctx, where), int64(number), metric.WithAttributes(attribute.Int("n", number)))
		}
		if number%100 == 0 {
			time.Sleep(5 * time.Millisecond) // so that it lasts long enough to be interrupted
		}
	}
	told.wait() // a shutdown would end what is being tried again
	tracers.Shutdown(ctx)
	loggers.Shutdown(ctx)
	meters.Shutdown(ctx)
}
