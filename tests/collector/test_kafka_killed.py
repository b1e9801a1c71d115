"""A collector that consumes Kafka is killed at random instants: every message once in the store.

`TALLY_KILLS` says how often, up to 5; `TALLY_SEED` when; the seed of a failure is in its message.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.collector.test_tail_killed import wait_until_stored
from tests.servers.kafka import Kafka
from tests.support.collector_process import CollectorProcess
from tests.support.kafka_topics import committed, make_topic, produce

KILLS = min(5, int(os.environ.get("TALLY_KILLS", "2")))
SEED = int(os.environ.get("TALLY_SEED", "7"))
MESSAGES = 6_000


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_every_message_once(tmp_path: Path, kafka: Kafka) -> None:
    topic = asyncio.run(make_topic(kafka.address, partitions=3))
    collector = CollectorProcess(
        tmp_path,
        further=f"""
[[collector.kafka]]
brokers = ["{kafka.address}"]
topics = ["{topic}"]
group = "{topic}"
instance = "one"
batch_messages = 40
session_timeout_seconds = 2.0
""",
    )
    instants = random.Random(SEED)
    names = [f"message {number}" for number in range(MESSAGES)]
    try:
        collector.start()
        for part in range(KILLS + 1):
            share = names[part :: KILLS + 1]
            asyncio.run(produce(kafka.address, topic, [(name.encode(), name.encode(), []) for name in share]))
            time.sleep(instants.expovariate(1 / 0.2))  # the instant of the kill is what is tested
            if part < KILLS:
                collector.kill()
                collector.start()
        wait_until_stored(collector, MESSAGES)
        collector.stop()
    finally:
        collector.close()
    told = f"seed {SEED}, {KILLS} kills"
    counts = Counter(str(event.body) for event in collector.stored())
    assert counts == Counter(names), (
        f"{told}: {list((Counter(names) - counts).elements())[:5]} lost, {list((counts - Counter(names)).elements())[:5]} doubled"
    )
    offsets = asyncio.run(committed(kafka.address, topic))
    assert sum(offsets.values()) == MESSAGES, told  # a stop commits what is durable
