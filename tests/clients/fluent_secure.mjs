// npm @fluent-org/logger over TLS with a certificate of its own, a key and a user; compressed, with acks.

import { readFileSync } from "node:fs";
import { FluentClient } from "@fluent-org/logger";

const { host, port, count, tls, security } = JSON.parse(process.argv[2]);

const client = new FluentClient("shop", {
  eventMode: "CompressedPackedForward",
  socket: {
    host,
    port,
    timeout: 3000,
    tls: { ca: readFileSync(tls.ca), cert: readFileSync(tls.cert), key: readFileSync(tls.key), servername: "localhost" },
  },
  security,
  ack: { ackTimeout: 5000 },
  flushInterval: 5,
});

await Promise.all(Array.from({ length: count }, (_, n) => client.emit("secure", { n, message: `event ${n}` })));
await client.shutdown();
process.stdout.write(JSON.stringify({ acked: count }) + "\n");
process.exit(0);
