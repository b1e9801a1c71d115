"""A real RabbitMQ: what a message becomes, when it is acknowledged, what is recognised, a broker that goes away."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from pamqp import commands as spec

from collector.receive.amqp.consumer import AmqpConsumer
from collector.receive.amqp.settings import AmqpSettings
from tests.servers.certificates import Authority
from tests.servers.rabbitmq import RabbitMq
from tests.support.consumption import Consumption
from tests.support.memory_intake import MemoryIntake

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def consuming(intake: MemoryIntake, server: RabbitMq, queue: str, **further: Any) -> Consumption:
    own: dict[str, Any] = {"port": server.port} | further
    settings = AmqpSettings(queue=queue, **own)
    return Consumption(lambda report: AmqpConsumer(settings, intake, report=report))


async def publish(server: RabbitMq, queue: str, messages: Sequence[aio_pika.Message]) -> None:
    """Into a queue that is made if it is not there; returns when the broker has them."""
    async with await aio_pika.connect(port=server.port) as connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True)
        for message in messages:
            await channel.default_exchange.publish(message, routing_key=queue)


async def left(server: RabbitMq, queue: str) -> int:
    """Messages that are ready in the queue."""
    async with await aio_pika.connect(port=server.port) as connection:
        channel = await connection.channel()
        return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0


def message(body: bytes, **properties: Any) -> aio_pika.Message:
    return aio_pika.Message(body, delivery_mode=2, **properties)


class Nameless(spec.Basic.Properties):
    """Properties without a message id: our publisher's library gives each message one."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "message_id" or value is None:
            super().__setattr__(name, value)


class NamelessMessage(aio_pika.Message):
    @property
    def properties(self) -> spec.Basic.Properties:
        return Nameless(delivery_mode=2)


def a_queue() -> str:
    return f"t-{secrets.token_hex(6)}"


def test_what_a_message_becomes_and_what_is_recognised(rabbitmq: RabbitMq) -> None:
    async def story() -> None:
        intake, queue = MemoryIntake(), a_queue()
        properties: dict[str, Any] = {
            "headers": {"traceparent": TRACEPARENT, "Saga": "saga-7", "tries": 3},
            "message_id": "m-1",
            "correlation_id": "c-1",
            "app_id": "orders",
            "type": "OrderPlaced",
            "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
        }
        first = message(b'{"event_name": "OrderPlaced", "amount": 5}', **properties)
        await publish(rabbitmq, queue, [first, first, message(b"{no json"), message(b'{"message": "last"}')])
        settings: dict[str, Any] = {"transaction_header": "saga", "service": "orders", "format": "json"}
        async with consuming(intake, rabbitmq, queue, **settings) as consumption:
            await consumption.until(lambda: sum(told[3] for told in consumption.reports) == 4)
        placed, last = intake.events
        assert (placed.event_name, placed.transaction, last.body) == ("OrderPlaced", "saga-7", "last")
        assert (placed.trace_id, placed.time) == (TRACEPARENT[3:35], "2026-01-01T00:00:00.000000000Z")
        assert placed.attributes == {
            "amount": 5,
            "messaging.system": "rabbitmq",
            "messaging.destination.name": queue,
            "messaging.destination.subscription.name": queue,
            "messaging.rabbitmq.destination.routing_key": queue,
            "messaging.message.id": "m-1",
            "messaging.message.conversation_id": "c-1",
            "messaging.rabbitmq.message.type": "OrderPlaced",
            "messaging.rabbitmq.message.app_id": "orders",
            "messaging.message.header.traceparent": TRACEPARENT,
            "messaging.message.header.Saga": "saga-7",
            "messaging.message.header.tries": "3",
        }
        assert [(raw, origin.tag) for raw, _, origin in intake.dead] == [(b"{no json", queue)]
        assert await left(rabbitmq, queue) == 0

    asyncio.run(story())


class Microseconds(spec.Basic.Properties):
    """Properties with a time that is no time in seconds, which our publisher's library would not write."""

    def encode_property(self, name: str, value: Any) -> bytes:
        if name == "timestamp":
            return (1_700_000_000_000_000).to_bytes(8)
        return super().encode_property(name, value)


class MicrosecondsMessage(aio_pika.Message):
    @property
    def properties(self) -> spec.Basic.Properties:
        return Microseconds(delivery_mode=2, timestamp=datetime.now(UTC))


def test_a_time_that_the_library_cannot_read_stops_nothing(rabbitmq: RabbitMq) -> None:
    async def story() -> None:
        intake, queue = MemoryIntake(), a_queue()
        await publish(rabbitmq, queue, [message(b"one"), MicrosecondsMessage(b"two"), message(b"three")])
        async with consuming(intake, rabbitmq, queue) as consumption:
            await consumption.until(lambda: len(intake.events) == 3)
        assert [(event.body, event.time[:4]) for event in intake.events][1] == ("two", "2023")
        assert await left(rabbitmq, queue) == 0

    asyncio.run(story())


def test_nothing_is_acknowledged_before_it_is_durable(rabbitmq: RabbitMq) -> None:
    async def story() -> None:
        intake, queue = MemoryIntake(overloaded=2), a_queue()
        await publish(rabbitmq, queue, [NamelessMessage(b"%d" % number) for number in range(20)])
        intake.hold = asyncio.Event()
        consumption = consuming(intake, rabbitmq, queue, prefetch=5)
        async with consumption:
            await consumption.until(lambda: intake.overloaded == 0)
            await asyncio.sleep(0.2)
            assert await left(rabbitmq, queue) == 15  # no more than prefetch is in hand
            assert all(told[3] == 0 for told in consumption.reports)
            consumption._task.cancel()  # as a crash: nothing is told to the broker
            await asyncio.gather(consumption._task, return_exceptions=True)
            consumption._task = asyncio.create_task(asyncio.sleep(0))
        deadline = time.monotonic() + 20
        while await left(rabbitmq, queue) < 20:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        intake.hold = None
        async with consuming(intake, rabbitmq, queue, prefetch=5) as again:
            await again.until(lambda: len(intake.events) >= 20)
        assert sorted(int(str(event.body)) for event in intake.events) == list(range(20))
        again_delivered = [event for event in intake.events if "redelivered" in event.marks]
        assert sorted(int(str(event.body)) for event in again_delivered) == list(range(5))
        assert await left(rabbitmq, queue) == 0

    asyncio.run(story())


def test_tls_with_a_certificate(rabbitmq: RabbitMq, tmp_path: Path) -> None:
    async def story() -> None:
        intake, queue = MemoryIntake(), a_queue()
        await publish(rabbitmq, queue, [message(b"one")])
        certificate, key = rabbitmq.authority.issue("collector")
        password = tmp_path / "password"
        password.write_text("guest\n")
        secure: dict[str, Any] = {
            "port": rabbitmq.tls_port,
            "tls": True,
            "tls_ca": str(rabbitmq.authority.ca),
            "password_file": str(password),
        }
        shown = {"tls_certificate": str(certificate), "tls_key": str(key)}
        strange = secure | shown | {"tls_ca": str(Authority(tmp_path).ca)}
        for refused in (secure, strange):
            async with consuming(MemoryIntake(), rabbitmq, queue, **refused) as consumption:
                await asyncio.sleep(0.5)
                assert {told[2] for told in consumption.reports} == {0}
        async with consuming(intake, rabbitmq, queue, **secure, **shown) as consumption:
            await consumption.until(lambda: len(intake.events) == 1)

    asyncio.run(story())


def test_a_queue_that_is_not_there_and_a_broker_that_goes_away(rabbitmq: RabbitMq) -> None:
    async def story() -> None:
        intake, queue = MemoryIntake(), a_queue()
        async with consuming(intake, rabbitmq, queue) as consumption:
            await asyncio.sleep(0.3)
            assert {told[2] for told in consumption.reports} == {0}
            await publish(rabbitmq, queue, [message(b"one", message_id="1")])
            await consumption.until(lambda: len(intake.events) == 1)
            rabbitmq.kill()
            await consumption.until(lambda: consumption.reports[-1][2] == 0)
            await asyncio.to_thread(rabbitmq.start)
            await publish(rabbitmq, queue, [message(b"two", message_id="2")])
            await consumption.until(lambda: len(intake.events) == 2)
            assert consumption.reports[-1][2] == 1

    asyncio.run(story())
