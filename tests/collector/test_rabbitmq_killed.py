"""A collector that consumes a queue is killed at random instants: every message once in the store, for each has an id.

`TALLY_KILLS` says how often, up to 5; `TALLY_SEED` when; the seed of a failure is in its message.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import aio_pika
import pytest

from tests.collector.test_tail_killed import wait_until_stored
from tests.servers.rabbitmq import RabbitMq
from tests.support.collector_process import CollectorProcess

KILLS = min(5, int(os.environ.get("TALLY_KILLS", "2")))
SEED = int(os.environ.get("TALLY_SEED", "7"))
MESSAGES = 3_000


async def publish(server: RabbitMq, names: list[str]) -> None:
    async with await aio_pika.connect(port=server.port) as connection:
        channel = await connection.channel()
        for name in names:
            message = aio_pika.Message(name.encode(), message_id=name, delivery_mode=2)
            await channel.default_exchange.publish(message, routing_key="killed")


@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
def test_every_message_once(tmp_path: Path, rabbitmq: RabbitMq) -> None:
    collector = CollectorProcess(
        tmp_path,
        further=f"""
[[collector.amqp]]
queue = "killed"
port = {rabbitmq.port}
declare = true
prefetch = 50
""",
    )
    instants = random.Random(SEED)
    names = [f"message {number}" for number in range(MESSAGES)]
    publisher = threading.Thread(target=lambda: asyncio.run(publish(rabbitmq, names)), daemon=True)
    try:
        collector.start()
        publisher.start()
        for _ in range(KILLS):
            time.sleep(instants.expovariate(1 / 0.3))  # the instant of the kill is what is tested
            collector.kill()
            collector.start()
        publisher.join(timeout=60)
        wait_until_stored(collector, MESSAGES)
        collector.stop()
    finally:
        collector.close()
    counts = Counter(str(event.body) for event in collector.stored())
    lost, doubled = Counter(names) - counts, counts - Counter(names)
    assert not lost + doubled, f"seed {SEED}, {KILLS} kills: lost {list(lost)[:5]}, doubled {list(doubled)[:5]}"
