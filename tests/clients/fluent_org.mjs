// npm @fluent-org/logger with acks. Its own retry makes a new chunk id, so each record carries log.record.uid.

import { FluentClient } from "@fluent-org/logger";
import { ack, each, host, port } from "./progress.mjs";

const client = new FluentClient("shop", {
  eventMode: "PackedForward",
  socket: { host, port, timeout: 3000, reconnect: { minDelay: 50, maxDelay: 200 } },
  ack: { ackTimeout: 1000 },
  eventRetry: { attempts: 1000, minDelay: 50, maxDelay: 200 },
  flushInterval: 5,
});

await each(200, async (number) => {
  await client.emit("fluent_org", { n: number, message: `event ${number}`, "log.record.uid": `fluent-org-${number}` });
  ack(number);
});
await client.shutdown();
process.exit(0);
