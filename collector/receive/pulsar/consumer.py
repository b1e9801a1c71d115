"""Consumes topics of Pulsar by a subscription: takes what has come, makes it durable, acknowledges it.

A message is acknowledged after the intake has returned for it. What is not acknowledged when the consumer ends, the broker delivers again. Nothing is
acknowledged negatively: under pressure a batch waits and nothing more is asked for, so the brokers send no more than `prefetch` ahead.

The library blocks, so threads ask it (`collector.receive.pulsar.subscription`, `asking`), one call at a time; closing goes beside another call, which it ends.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from pulsar.exceptions import PulsarException

from collector.clienttls import client_tls
from collector.errors import Overloaded
from collector.event import format_time
from collector.receive import Intake
from collector.receive.brokerbatch import BrokerBatch, Pressure
from collector.receive.brokermessage import Reading
from collector.receive.perseverance import Perseverance
from collector.receive.pulsar.asking import asked
from collector.receive.pulsar.message import message_of_delivery
from collector.receive.pulsar.settings import PulsarSettings
from collector.receive.pulsar.subscription import Subscription, Token, Turn
from collector.receive.standing import BrokerReport, BrokerStanding

__all__ = ["PulsarConsumer"]

_LOST = "the connection is lost"
_CLOSE_SECONDS = 10.0
_LOST_SECONDS = 5.0  # the library connects again by itself, but longer and longer apart, up to a minute


class PulsarConsumer:
    """See the module. For one event loop.

    Args:
        settings: of the entry.
        intake: takes the events; what it has returned for is durable.
        clock: Unix time in nanoseconds; `monotonic` in seconds.
        service: of messages where neither they nor the settings name one.
        report: hears how it stands.

    Raises:
        OSError: a file of the settings cannot be read.
        Malformed: the token's file holds none.
    """

    def __init__(
        self,
        settings: PulsarSettings,
        intake: Intake,
        *,
        clock: Callable[[], int] = time.time_ns,
        service: str = "",
        report: BrokerReport = lambda *_: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._clock = clock
        self._monotonic = monotonic
        self._reading = Reading(
            format=settings.format,
            service=settings.service or service,
            tenant=settings.tenant,
            transaction_header=settings.transaction_property.lower(),
        )
        own = settings
        if own.tls:
            client_tls(own.tls_ca, own.tls_certificate, own.tls_key)  # the library says only that something is wrong
        self._token = Token(own.token_file) if own.token_file else None
        self._standing = BrokerStanding("pulsar", settings.label, report)
        self._perseverance = Perseverance(self._standing, PulsarException, OSError)
        self._stopping = self._perseverance.stopping
        self._heard_seconds = 0.0

    async def run(self) -> None:
        """Consume until `stop`. A broker that is away, or refuses, is told and tried again."""
        await self._perseverance.run(self._consume)

    def stop(self) -> None:
        """Let `run` end: after what is in hand is durable and acknowledged; the brokers deliver the rest to others."""
        self._perseverance.stop()

    async def _consume(self) -> None:
        subscription = Subscription(self._settings, self._token)
        try:
            if not await self._opened(asked(subscription.open)):
                return
            self._perseverance.connected()
            self._heard_seconds = self._monotonic()
            while not self._stopping.is_set():
                turn = await asked(subscription.read)
                if turn.messages and await self._store(subscription, turn):
                    await asked(subscription.acknowledge, turn.messages)
                    self._standing.taken(len(turn.messages))
                self._look(turn)
        finally:
            # it waits for an answer that a dead broker does not give
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked(subscription.close), _CLOSE_SECONDS)

    async def _opened(self, opening: asyncio.Future[None]) -> bool:
        """Whether it is open; false when `stop` came first."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        either: list[asyncio.Future[Any]] = [opening, stopping]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                return False
            opening.result()
            return True
        finally:
            for one in either:
                one.cancel()  # what the thread says later is for nobody

    async def _store(self, subscription: Subscription, turn: Turn) -> bool:
        """Make what has come durable; what cannot be taken now waits. False: stopped before, so that it is to come again."""
        batch = BrokerBatch(self._reading, observed=format_time(self._clock()))
        for message in turn.messages:
            batch.add(message_of_delivery(subscription.delivery(message)))
        pressure = Pressure()
        while True:
            try:
                await batch.store(self._intake)
            except Overloaded as error:
                if self._stopping.is_set():
                    return False
                self._standing.waits(str(error))
                await self._perseverance.pause(pressure.felt(error))
            else:
                return True

    def _look(self, turn: Turn) -> None:
        """Say whether the brokers are connected. Raises ConnectionError: not for so long that it is better to begin anew."""
        now = self._monotonic()
        if turn.connected:
            self._heard_seconds = now
            self._standing.connected()
        elif now - self._heard_seconds >= _LOST_SECONDS:
            raise ConnectionError(_LOST)
        else:
            self._standing.away(_LOST)
