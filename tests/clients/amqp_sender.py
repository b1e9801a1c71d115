"""aio-pika with publisher confirms. Run as a program: `amqp_sender.py PORT QUEUE COUNT`. Each message is persistent and has a `message_id`.

Prints `{"acked": [numbers]}` for what the broker has confirmed: the collector is to have it some time later.
"""

from __future__ import annotations

import asyncio
import json
import sys

import aio_pika

AT_ONCE = 100


async def main(port: int, queue: str, count: int) -> None:
    async with await aio_pika.connect(port=port) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue(queue, durable=True)

        async def publish(number: int) -> None:
            body = json.dumps({"n": number, "message": f"event {number}"}).encode()
            message = aio_pika.Message(body, message_id=f"id-{number}", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key=queue)

        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count))
            await asyncio.gather(*map(publish, numbers))
            print(json.dumps({"acked": list(numbers)}), flush=True)  # noqa: T201 - this is how it tells the test


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
