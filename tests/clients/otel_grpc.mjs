// The OpenTelemetry SDK of JavaScript over OTLP/gRPC, its requests compressed.

import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-grpc";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-grpc";
import { send } from "./otel_sending.mjs";
import { address } from "./progress.mjs";

const to = { url: `http://${address}`, timeoutMillis: 120000, compression: "gzip" };
await send(new OTLPTraceExporter(to), new OTLPLogExporter(to));
