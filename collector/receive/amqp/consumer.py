"""Consumes a queue of RabbitMQ: takes what has come, makes it durable, acknowledges it.

A message is acknowledged after the intake has returned for it, all of a batch in one frame. What is not acknowledged when the connection ends, the broker
delivers again. Nothing is ever sent back to the queue: under pressure a batch waits, and the broker delivers no more than `prefetch` meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, AMQPError

from collector.clienttls import client_tls
from collector.errors import Overloaded
from collector.event import format_time
from collector.receive import Intake
from collector.receive.amqp.message import Delivery, message_of_delivery
from collector.receive.amqp.properties import read_all_properties
from collector.receive.amqp.settings import AmqpSettings
from collector.receive.brokerbatch import BrokerBatch, Pressure
from collector.receive.brokermessage import Reading
from collector.receive.perseverance import Perseverance
from collector.receive.standing import BrokerReport, BrokerStanding
from collector.secretfile import read_secret

__all__ = ["AmqpConsumer"]

_QUIET_SECONDS = 10.0  # without a message: then it is asked whether the queue is still there
_ANSWER_SECONDS = 10.0


class AmqpConsumer:
    """See the module. For one event loop.

    Args:
        settings: of the entry.
        intake: takes the events; what it has returned for is durable.
        clock: Unix time in nanoseconds.
        service: of messages where neither they nor the settings name one.
        report: hears how it stands.

    Raises:
        OSError: a file of the settings cannot be read.
        Malformed: the password's file holds none.
    """

    def __init__(
        self,
        settings: AmqpSettings,
        intake: Intake,
        *,
        clock: Callable[[], int] = time.time_ns,
        service: str = "",
        report: BrokerReport = lambda *_: None,
    ) -> None:
        read_all_properties()
        self._settings = settings
        self._intake = intake
        self._clock = clock
        self._reading = Reading(
            format=settings.format,
            service=settings.service or service,
            tenant=settings.tenant,
            transaction_header=settings.transaction_header.lower(),
        )
        own = settings
        self._tls = client_tls(own.tls_ca, own.tls_certificate, own.tls_key) if own.tls else None
        self._password = read_secret(own.password_file).decode() if own.password_file else "guest"
        self._standing = BrokerStanding("rabbitmq", settings.label, report)
        self._perseverance = Perseverance(self._standing, AMQPError, OSError)
        self._stopping = self._perseverance.stopping

    async def run(self) -> None:
        """Consume until `stop`. A broker that is away, or a queue that is not there, is told and tried again."""
        await self._perseverance.run(self._consume)

    def stop(self) -> None:
        """Let `run` end: after what is in hand is durable and acknowledged; the broker delivers the rest to others."""
        self._perseverance.stop()

    async def _consume(self) -> None:
        connection = await self._connect()
        try:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=self._settings.prefetch)
            queue = await self._queue(channel)
            came: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()  # bounded by prefetch
            channel.close_callbacks.add(lambda *_: came.put_nowait(None))
            tag = await queue.consume(came.put)
            self._perseverance.connected()
            ending = asyncio.ensure_future(self._stopping.wait())
            ending.add_done_callback(lambda _: came.put_nowait(None))
            try:
                while batch := await self._next(came, channel):
                    await self._hand(batch)
                if self._stopping.is_set() and not channel.is_closed:
                    await queue.cancel(tag, timeout=_ANSWER_SECONDS)
                elif not self._stopping.is_set():
                    raise ConnectionError("the broker has closed the connection")
            finally:
                ending.cancel()
        finally:
            with contextlib.suppress(*CONNECTION_EXCEPTIONS, TimeoutError):
                await asyncio.wait_for(connection.close(), _ANSWER_SECONDS)

    async def _connect(self) -> AbstractConnection:
        own = self._settings
        return await aio_pika.connect(
            host=own.host,
            port=own.port,
            login=own.user,
            password=self._password,
            virtualhost=own.virtual_host,
            ssl=own.tls,
            ssl_context=self._tls,
            timeout=_ANSWER_SECONDS,
            client_properties={"connection_name": f"tallystick {own.label}"},
            heartbeat=own.heartbeat_seconds,
        )

    async def _queue(self, channel: AbstractChannel) -> aio_pika.abc.AbstractQueue:
        own = self._settings
        return await channel.declare_queue(
            own.queue, passive=not own.declare, durable=own.declare, timeout=_ANSWER_SECONDS
        )

    async def _next(
        self, came: asyncio.Queue[AbstractIncomingMessage | None], channel: AbstractChannel
    ) -> Sequence[AbstractIncomingMessage]:
        """What has come, at least one message; nothing when it is over: stopped, or the connection is gone."""
        while not self._stopping.is_set() and not channel.is_closed:
            try:
                first = await asyncio.wait_for(came.get(), _QUIET_SECONDS)
            except TimeoutError:
                # a broker that drops our consumer, since the queue is gone, says so to nobody who does not ask
                await channel.declare_queue(self._settings.queue, passive=True, timeout=_ANSWER_SECONDS)
                self._standing.connected()
                continue
            batch = [first] if first is not None else []
            while not came.empty():
                more = came.get_nowait()
                if more is not None:
                    batch.append(more)
            if batch and not _is_over(channel):  # else it comes again, and need not be told from itself
                return batch
        return ()

    async def _hand(self, deliveries: Sequence[AbstractIncomingMessage]) -> None:
        """Make a batch durable and acknowledge it; what cannot be taken now waits, and the broker keeps the rest."""
        batch = BrokerBatch(self._reading, observed=format_time(self._clock()))
        for one in deliveries:
            batch.add(message_of_delivery(_delivery(one, self._settings.queue)), again=bool(one.redelivered))
        pressure = Pressure()
        while True:
            try:
                await batch.store(self._intake)
                break
            except Overloaded as error:
                if self._stopping.is_set():
                    return  # not acknowledged, so it comes again
                self._standing.waits(str(error))
                await self._perseverance.pause(pressure.felt(error))
        await deliveries[-1].ack(multiple=True)  # and with it all before it, which were handed on before
        self._standing.taken(batch.count)


def _is_over(channel: AbstractChannel) -> bool:
    return channel.is_closed


def _delivery(message: AbstractIncomingMessage, queue: str) -> Delivery:
    return Delivery(
        queue=queue,
        exchange=message.exchange or "",
        routing_key=message.routing_key or "",
        body=message.body,
        headers=message.headers or {},
        message_id=message.message_id or "",
        correlation_id=message.correlation_id or "",
        app_id=message.app_id or "",
        type=message.type or "",
        time=message.timestamp,
    )
