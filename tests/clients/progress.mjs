// How a sender tells the test what became of its events: `{"sent": n}`, `{"acked": [ids]}` and `{"failed": [ids], "why": text}`, one JSON object a line.

export const [, , address, countText] = process.argv;
export const count = Number(countText);
export const [host, port] = [address.split(":")[0], Number(address.split(":")[1])];

const acked = [];

/** The event with this number was acknowledged. Lines are written in batches, and the last one by `finished`. */
export function ack(number) {
  acked.push(number);
  if (acked.length >= 100) flush();
}

export function flush() {
  if (acked.length) process.stdout.write(JSON.stringify({ acked: acked.splice(0) }) + "\n");
}

/** The sender itself gave these up, and said why. */
export function failed(numbers, why) {
  process.stdout.write(JSON.stringify({ failed: numbers, why }) + "\n");
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Runs `send(number)` for every event, at most `width` at a time. */
export async function each(width, send) {
  let next = 0;
  const worker = async () => {
    while (next < count) await send(next++);
  };
  await Promise.all(Array.from({ length: width }, worker));
  flush();
}
