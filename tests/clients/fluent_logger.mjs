// npm fluent-logger with acks. It tells a lost ack as an error and leaves the retry to us: the same record, hence the same uid.

import fluent from "fluent-logger";
import { ack, each, host, pause, port } from "./progress.mjs";

const sender = fluent.createFluentSender("shop", {
  host,
  port,
  eventMode: "PackedForward",
  flushInterval: 5,
  requireAckResponse: true,
  ackResponseTimeout: 1000,
  reconnectInterval: 100,
  internalLogger: { info() {}, error() {} },
});

const emit = (record) => new Promise((resolve) => sender.emit("fluent_logger", record, (error) => resolve(!error)));

await each(200, async (number) => {
  const record = { n: number, message: `event ${number}`, "log.record.uid": `fluent-logger-${number}` };
  while (!(await emit(record))) await pause(50);
  ack(number);
});
process.exit(0);
