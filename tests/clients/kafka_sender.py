"""aiokafka's producer. Run as a program: `kafka_sender.py BROKER TOPIC COUNT`. Its messages are numbered, and spread over the topic by their keys.

Prints `{"acked": [numbers]}` for what the broker has: the collector is to have it some time later.
"""

from __future__ import annotations

import asyncio
import json
import sys

from aiokafka import AIOKafkaProducer

AT_ONCE = 100


async def main(broker: str, topic: str, count: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker, acks="all", enable_idempotence=True) as producer:
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count))
            sent = [
                await producer.send(topic, json.dumps({"n": n, "message": f"event {n}"}).encode(), key=b"%d" % n)
                for n in numbers
            ]
            await asyncio.gather(*sent)
            print(json.dumps({"acked": list(numbers)}), flush=True)  # noqa: T201 - this is how it tells the test
            await asyncio.sleep(0.01)  # so that it lasts long enough to be interrupted


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
