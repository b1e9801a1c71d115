// The OpenTelemetry SDK of JavaScript over OTLP/HTTP.

import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-proto";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { send } from "./otel_sending.mjs";
import { address } from "./progress.mjs";

const to = (signal) => ({ url: `http://${address}/v1/${signal}`, timeoutMillis: 120000 });
await send(new OTLPTraceExporter(to("traces")), new OTLPLogExporter(to("logs")));
