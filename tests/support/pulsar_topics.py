"""Producers for a Pulsar under test, and what its subscriptions are told of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pulsar

from collector.receive.pulsar.librarylog import library_log
from tests.servers.pulsar import Pulsar

__all__ = ["backlog", "client", "held", "produce", "subscription"]

_PATIENCE_SECONDS = 90.0


@contextmanager
def client(server: Pulsar) -> Iterator[pulsar.Client]:
    """A client, closed in the end."""
    # the logger of the first client is the whole process's: it must be that of the product
    made = pulsar.Client(f"pulsar://{server.address}", logger=library_log().logger)
    try:
        yield made
    finally:
        made.close()


def produce(
    server: Pulsar, topic: str, values: Sequence[bytes], *, keys: Sequence[str] = (), together: int = 1, **further: Any
) -> None:
    """Send them, in order, and return when the broker has them all. `together`: so many are an entry."""
    with client(server) as made:
        producer = _producer(
            made,
            topic,
            batching_enabled=together > 1,
            batching_max_messages=max(together, 2),
            batching_max_publish_delay_ms=1_000,
            block_if_queue_full=True,
        )
        refused: list[pulsar.Result] = []

        def sent(result: pulsar.Result, _: Any) -> None:
            if result != pulsar.Result.Ok:
                refused.append(result)

        for at, value in enumerate(values):
            key = {"partition_key": keys[at % len(keys)]} if keys else {}
            producer.send_async(value, sent, **key, **further)
        producer.flush()
        assert not refused


def _producer(made: pulsar.Client, topic: str, **options: Any) -> pulsar.Producer:
    """A broker that was just started, on a machine that has much to do, may not have its topic yet."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return made.create_producer(topic, **options)
        except (pulsar.Timeout, pulsar.ConnectError):
            if time.monotonic() > deadline:
                raise


def held(server: Pulsar, *topics: str) -> Counter[str]:
    """How often each value is in these topics, none of which has partitions: a producer that connected anew may have sent some of them twice."""
    found: Counter[str] = Counter()
    with client(server) as made:
        for topic in topics:
            reader = made.create_reader(topic, pulsar.MessageId.earliest)
            while reader.has_message_available():
                found[reader.read_next(30_000).data().decode()] += 1
            reader.close()
    return found


def subscription(server: Pulsar, topic: str, name: str) -> Mapping[str, Any]:
    """What the broker says of a subscription of a topic without partitions; empty when there is none."""
    stats = server.ask("GET", f"/admin/v2/persistent/public/default/{topic}/stats?getPreciseBacklog=true")
    found: Mapping[str, Any] = stats["subscriptions"].get(name, {})
    return found


def backlog(server: Pulsar, topic: str, name: str) -> int:
    """How many messages the subscription has not acknowledged; −1: there is no such subscription."""
    found: int = subscription(server, topic, name).get("msgBacklog", -1)
    return found
