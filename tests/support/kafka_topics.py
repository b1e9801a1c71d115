"""Topics of a Kafka under test, and producers for them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

__all__ = ["Message", "committed", "make_topic", "produce"]

Message = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Key, value and headers."""


async def make_topic(address: str, *, partitions: int = 1, name: str = "") -> str:
    """A topic that no other test has; returns its name when the broker knows it."""
    name = name or f"t-{secrets.token_hex(6)}"
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1)])
        while name not in await admin.list_topics():  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(0.05)
    finally:
        await admin.close()
    return name


async def produce(
    address: str,
    topic: str,
    messages: Sequence[Message],
    *,
    partition: int | None = None,
    compression: str | None = None,
) -> None:
    """Send them, in order, and return when the broker has them all."""
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", compression_type=compression)
    await producer.start()
    try:
        sent = [
            await producer.send(topic, value, key=key, headers=headers, partition=partition)
            for key, value, headers in messages
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def committed(address: str, group: str) -> dict[int, int]:
    """The group's offsets of its topic, by partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        return {one.partition: at.offset for one, at in (await admin.list_consumer_group_offsets(group)).items()}
    finally:
        await admin.close()
