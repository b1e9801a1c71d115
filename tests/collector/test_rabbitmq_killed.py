"""A collector that consumes a queue is killed at random instants: every message once in the store, for each has an id.

`TALLY_KILLS` says how often, up to 5; `TALLY_SEED` when; the seed of a failure is in its message.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import aio_pika
import pytest

from tests.servers.rabbitmq import RabbitMq
from tests.support.collector_process import CollectorProcess
from tests.support.publishing import Publisher, kill_under_way

KILLS = min(5, int(os.environ.get("TALLY_KILLS", "2")))
SEED = int(os.environ.get("TALLY_SEED", "7"))


@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
def test_every_message_once(tmp_path: Path, rabbitmq: RabbitMq) -> None:
    settings = f"""
[[collector.amqp]]
queue = "killed"
port = {rabbitmq.port}
declare = true
prefetch = 50
"""

    async def publish(names: Sequence[str]) -> None:
        async with await aio_pika.connect(port=rabbitmq.port) as connection:
            channel = await connection.channel()
            await channel.declare_queue("killed", durable=True)
            for name in names:
                message = aio_pika.Message(name.encode(), message_id=name, delivery_mode=2)
                await channel.default_exchange.publish(message, routing_key="killed")

    collector = CollectorProcess(tmp_path, further=settings)
    kill_under_way(collector, Publisher(publish), kills=KILLS, seed=SEED)
