// npm @fluent-org/logger's server, as somebody else's upstream. Its settings are one JSON object, argument 1. It says its port, then
// each event that it was given, one JSON object a line; it ends when its input does.

import { readFileSync } from "node:fs";
import { FluentServer } from "@fluent-org/logger";

const { security, tls } = JSON.parse(process.argv[2]);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

const server = new FluentServer({
  listenOptions: { host: "127.0.0.1", port: 0 },
  security,
  tlsOptions: tls && {
    cert: readFileSync(tls.cert),
    key: readFileSync(tls.key),
    ca: readFileSync(tls.ca),
    requestCert: true,
    rejectUnauthorized: true,
  },
});
server.on("entry", (tag, time, record) => say({ tag, time: `${time.epoch ?? time}.${time.nano ?? 0}`, record }));
await server.listen();
say({ port: server.port });
process.stdin.resume().on("end", () => process.exit(0));
