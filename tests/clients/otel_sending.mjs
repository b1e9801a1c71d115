// The OpenTelemetry SDK of JavaScript: even numbers are spans, odd ones log records without a uid, in batches.
// What its exporters give up after their own retries is gone; they say so, and we tell it as failed. No more is emitted than the
// exporters keep up with: what their queues cannot hold, the SDK drops without telling.

import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { ack, count, failed, flush, pause } from "./progress.mjs";

const mostUnderWay = 10000;
let underWay = 0;

/** An exporter that hands everything on, and tells which numbers were taken. */
function told(exporter) {
  return {
    export(items, done) {
      exporter.export(items, (result) => {
        if (result.code === 0) for (const item of items) ack(item.attributes.n);
        else failed(items.map((item) => item.attributes.n), String(result.error));
        flush();
        underWay -= items.length;
        done(result);
      });
    },
    forceFlush: () => exporter.forceFlush(),
    shutdown: () => exporter.shutdown(),
  };
}

/** Sends everything by an exporter of spans and one of log records, and ends the program. */
export async function send(...plain) {
  const resource = resourceFromAttributes({ "service.name": "shop" });
  const batches = { maxQueueSize: 20000, maxExportBatchSize: 256, scheduledDelayMillis: 50, exportTimeoutMillis: 130000 };
  const exporters = plain.map(told);
  const spans = new BasicTracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor(exporters[0], batches)],
  });
  const records = new LoggerProvider({
    resource,
    processors: [new BatchLogRecordProcessor({ ...batches, exporter: exporters[1] })],
  });
  const tracer = spans.getTracer("clients");
  const logger = records.getLogger("clients");

  for (let number = 0; number < count; number++) {
    while (underWay >= mostUnderWay) await pause(20);
    underWay++;
    if (number % 2) logger.emit({ body: `event ${number}`, attributes: { n: number } });
    else tracer.startSpan(`event ${number}`, { attributes: { n: number } }).end();
    if (number % 100 === 0) await pause(20); // so that it lasts long enough to be interrupted
  }
  await Promise.allSettled([spans.forceFlush(), records.forceFlush()]);
  // a provider's flush hands over what is queued, but does not wait for a batch that an exporter is about to send again
  await Promise.allSettled(exporters.map((exporter) => exporter.forceFlush()));
  flush();
  process.exit(0);
}
