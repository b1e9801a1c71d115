"""A collector that consumes Pulsar is killed at random instants: every message once in the store.

`TALLY_KILLS` says how often, up to 5; `TALLY_SEED` when; the seed of a failure is in its message.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.servers.pulsar import Pulsar
from tests.support.collector_process import CollectorProcess
from tests.support.publishing import Publisher, kill_under_way
from tests.support.pulsar_topics import backlog, held, produce

KILLS = min(5, int(os.environ.get("TALLY_KILLS", "2")))
SEED = int(os.environ.get("TALLY_SEED", "7"))


@pytest.mark.pulsar
@pytest.mark.timeout(240)
def test_every_message_once(tmp_path: Path, pulsar: Pulsar) -> None:
    topic = pulsar.make_topic(partitions=3)
    settings = f"""
[[collector.pulsar]]
brokers = ["{pulsar.address}"]
topics = ["{topic}"]
batch_messages = 40
"""

    async def publish(names: Sequence[str]) -> None:
        values = [name.encode() for name in names]
        await asyncio.to_thread(produce, pulsar, topic, values, keys=list(names), together=7)

    partitions = [f"{topic}-partition-{partition}" for partition in range(3)]
    kill_under_way(
        CollectorProcess(tmp_path, further=settings),
        Publisher(publish),
        kills=KILLS,
        seed=SEED,
        held=lambda: held(pulsar, *partitions),
    )
    for partition in partitions:  # a stop acknowledges what is durable
        assert backlog(pulsar, partition, "tallystick") == 0
