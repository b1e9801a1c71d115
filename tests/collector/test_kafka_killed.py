"""A collector that consumes Kafka is killed at random instants: every message once in the store.

`TALLY_KILLS` says how often, up to 5; `TALLY_SEED` when; the seed of a failure is in its message.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.servers.kafka import Kafka
from tests.support.collector_process import CollectorProcess
from tests.support.kafka_topics import committed, make_topic, produce
from tests.support.publishing import Publisher, kill_under_way

KILLS = min(5, int(os.environ.get("TALLY_KILLS", "2")))
SEED = int(os.environ.get("TALLY_SEED", "7"))


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_every_message_once(tmp_path: Path, kafka: Kafka) -> None:
    topic = asyncio.run(make_topic(kafka.address, partitions=3))
    settings = f"""
[[collector.kafka]]
brokers = ["{kafka.address}"]
topics = ["{topic}"]
group = "{topic}"
instance = "one"
batch_messages = 40
session_timeout_seconds = 4.0
"""

    async def publish(names: Sequence[str]) -> None:
        await produce(kafka.address, topic, [(name.encode(), name.encode(), []) for name in names])

    publisher = Publisher(publish)
    kill_under_way(CollectorProcess(tmp_path, further=settings), publisher, kills=KILLS, seed=SEED)
    offsets = asyncio.run(committed(kafka.address, topic))
    assert sum(offsets.values()) == len(publisher.names)  # a stop commits what is durable
