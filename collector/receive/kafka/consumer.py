"""Consumes topics as a member of a group: takes a batch of each partition, makes it durable, and commits the offsets behind it.

The order keeps the promise: an offset is committed after the intake has returned for every message before it. A crash in between reads messages again,
and each is recognised by its name. What is read is taken in hand before anything else can run, and what becomes of it happens under one lock, which
the library's callback waits for when partitions are to be given back: so a batch ends whole, what is durable is committed, and of what was still in hand
nothing is done that is another member's. While a group settles the library hands out nothing and does not return: no lock is held then.

Pressure: a batch that cannot be taken waits, and its partition is paused. The others go on, and so do the signs of life; Kafka keeps the rest.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from collector.clienttls import client_tls
from collector.errors import Overloaded
from collector.event import format_time
from collector.receive import Intake
from collector.receive.brokerbatch import BrokerBatch, Pressure
from collector.receive.brokermessage import Reading
from collector.receive.kafka.message import message_of_record
from collector.receive.kafka.offsets import Offsets
from collector.receive.kafka.records import read_any_name
from collector.receive.kafka.settings import KafkaSettings
from collector.receive.perseverance import Perseverance
from collector.receive.standing import BrokerReport, BrokerStanding
from collector.secretfile import read_secret

__all__ = ["KafkaConsumer"]

_TURN_MS = 200
_QUIET_SECONDS = 10.0  # without a message: then the broker is asked for a sign of life
_ANSWER_SECONDS = 10.0
_GIVE_BACK_SECONDS = 60.0  # for the last turn, when partitions are to be given back
_FETCH_BYTES = 16 * 1024**2


@dataclass(slots=True, kw_only=True)
class _Batch:
    """Messages of one partition that are not durable yet."""

    next_offset: int
    messages: BrokerBatch


class KafkaConsumer(ConsumerRebalanceListener):  # type: ignore[misc]  # the library is not typed
    """See the module. For one event loop.

    Args:
        settings: of the entry.
        intake: takes the events; what it has returned for is durable.
        clock: Unix time in nanoseconds; `monotonic` in seconds.
        service: of messages where neither they nor the settings name one.
        report: hears how it stands.

    Raises:
        OSError: a file of the settings cannot be read.
        Malformed: the password's file holds none.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        intake: Intake,
        *,
        clock: Callable[[], int],
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
            transaction_header=settings.transaction_header.lower(),
        )
        self._security = _security(settings)
        self._standing = BrokerStanding("kafka", settings.label, report)
        self._perseverance = Perseverance(self._standing, KafkaError, OSError)
        self._stopping = self._perseverance.stopping
        self._turn_lock = asyncio.Lock()
        self._consumer: Any = None
        self._offsets: Offsets[TopicPartition] = Offsets()
        self._waiting: dict[TopicPartition, _Batch] = {}
        self._not_before_seconds = 0.0
        self._pressure = Pressure()
        self._committed_seconds = 0.0
        self._heard_seconds = 0.0
        self._broken: Exception | None = None

    async def run(self) -> None:
        """Consume until `stop`. A broker that is away, or refuses, is told and tried again."""
        await self._perseverance.run(self._consume)

    def stop(self) -> None:
        """Let `run` end: after the turn that is being taken, with what is durable committed, and the group left."""
        self._perseverance.stop()

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """The library's callback: these are to be given back."""
        async with self._turn_lock:
            await self._commit()
            self._offsets.revoked(revoked)
            for partition in revoked:
                self._waiting.pop(partition, None)

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """The library's callback: these are ours."""
        async with self._turn_lock:
            self._offsets.assigned(assigned)
            if self._settings.start == "latest" and assigned:
                try:
                    await self._begin_at_the_end(assigned)
                except (KafkaError, OSError) as error:
                    self._broken = error  # the library only logs what is raised here, and would begin at the beginning

    async def _begin_at_the_end(self, assigned: Sequence[TopicPartition]) -> None:
        """Where the group has no offset, its end is where it begins; committed with the next turn, so that it is so for good."""
        new = [one for one in assigned if await self._consumer.committed(one) is None]
        if not new:
            return
        for partition, end in (await self._consumer.end_offsets(new)).items():
            self._consumer.seek(partition, end)
            self._offsets.begins(partition, end)
        self._committed_seconds = 0.0

    async def _consume(self) -> None:
        own = self._settings
        self._offsets, self._waiting, self._broken = Offsets(), {}, None
        read_any_name()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=list(own.brokers),
            client_id="tallystick",
            group_id=own.group,
            group_instance_id=own.instance or None,
            enable_auto_commit=False,
            # `latest` is for a group without an offset alone: one whose offset is no longer there reads what is left
            auto_offset_reset="earliest",
            isolation_level="read_committed",  # what a producer has taken back did not happen
            session_timeout_ms=round(own.session_timeout_seconds * 1000),
            heartbeat_interval_ms=round(own.session_timeout_seconds * 1000 / 4),
            rebalance_timeout_ms=round(_GIVE_BACK_SECONDS * 1000),
            fetch_max_bytes=_FETCH_BYTES,
            **self._security,
        )
        self._consumer.subscribe(list(own.topics), listener=self)
        try:
            if not await self._started(self._consumer):
                return
            self._heard_seconds = self._monotonic()
            self._perseverance.connected()
            while not self._stopping.is_set():
                await self._turn()
            async with self._turn_lock:
                await self._commit()
        finally:
            # it waits for an answer that a dead broker does not give
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(self._consumer.stop(), _ANSWER_SECONDS)

    async def _started(self, consumer: Any) -> bool:
        """Connect and join the group; false when `stop` came first."""
        starting = asyncio.ensure_future(consumer.start())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return False
            starting.result()
            return True
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)

    async def _turn(self) -> None:
        """What waits is tried again, what has come is taken, and what is due is committed."""
        if self._broken is not None:
            raise self._broken
        async with self._turn_lock:
            if self._monotonic() >= self._committed_seconds + self._settings.commit_seconds:
                await self._commit()
            if self._waiting and not self._pressed:
                await self._hand_all(dict(self._waiting))
        batches = await self._read()
        async with self._turn_lock:
            still = {one: batch for one, batch in batches.items() if self._offsets.holds(one, batch.next_offset)}
            if self._pressed:
                for partition, batch in still.items():
                    self._wait(partition, batch)
            else:
                await self._hand_all(still)
        if batches:
            self._heard_seconds = self._monotonic()
        elif self._monotonic() - self._heard_seconds >= _QUIET_SECONDS:
            await self._ask()

    @property
    def _pressed(self) -> bool:
        return self._monotonic() < self._not_before_seconds

    async def _read(self) -> dict[TopicPartition, _Batch]:
        """What has come, in hand; nothing when nothing comes in a moment, or when `stop` comes first."""
        reading = asyncio.ensure_future(self._take_in_hand())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                done, _ = await asyncio.wait(
                    [reading, stopping], timeout=_QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if reading in done:
                    return reading.result()
                if not done:
                    self._standing.away("the group does not settle, or its coordinator does not answer")
            return {}
        finally:
            reading.cancel()
            stopping.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    async def _take_in_hand(self) -> dict[TopicPartition, _Batch]:
        records = await self._consumer.getmany(timeout_ms=_TURN_MS, max_records=self._settings.batch_messages)
        # Nothing awaits from here on: what was handed out is in hand before partitions can be given back.
        batches: dict[TopicPartition, _Batch] = {}
        for partition, messages in records.items():
            if not messages:
                continue
            if self._offsets.take(partition, messages[-1].offset + 1):
                batches[partition] = self._batch(messages)
            elif partition in self._consumer.assignment():
                # assigned, and the callback that says so has not come yet; or what is before it waits
                self._consumer.seek(partition, messages[0].offset)
        return batches

    def _batch(self, records: Sequence[Any]) -> _Batch:
        batch = BrokerBatch(self._reading, observed=format_time(self._clock()))
        for record in records:
            batch.add(message_of_record(record))
        return _Batch(next_offset=records[-1].offset + 1, messages=batch)

    async def _hand_all(self, batches: dict[TopicPartition, _Batch]) -> None:
        await asyncio.gather(*(self._hand(partition, batch) for partition, batch in batches.items()))
        if batches and not self._waiting:
            self._pressure.eased()

    async def _hand(self, partition: TopicPartition, batch: _Batch) -> None:
        """Make a batch durable; if that cannot be now, it waits."""
        try:
            await batch.messages.store(self._intake)
        except Overloaded as error:
            self._standing.waits(str(error))
            self._not_before_seconds = self._monotonic() + self._pressure.felt(error)
            self._wait(partition, batch)
            return
        self._offsets.done(partition)
        if self._waiting.pop(partition, None) is not None and partition in self._consumer.assignment():
            self._consumer.resume(partition)
        self._standing.taken(batch.messages.count)

    def _wait(self, partition: TopicPartition, batch: _Batch) -> None:
        self._waiting[partition] = batch
        # pausing keeps the position, and lets go of what was fetched behind it
        if partition in self._consumer.assignment():
            self._consumer.pause(partition)

    async def _commit(self) -> None:
        """Commit what is durable. What the broker does not take is committed again by the next, or read again."""
        self._committed_seconds = self._monotonic()
        assigned = self._consumer.assignment()
        offsets = {one: offset for one, offset in self._offsets.to_commit().items() if one in assigned}
        if not offsets:
            return
        try:
            await asyncio.wait_for(self._consumer.commit(offsets), _ANSWER_SECONDS)
        except (CommitFailedError, IllegalStateError):
            return  # the group has moved on without us; the library joins it again
        except (KafkaError, OSError, TimeoutError) as error:
            self._standing.away(f"offsets cannot be committed: {type(error).__name__}")
            return
        self._offsets.committed(offsets)
        self._standing.connected()

    async def _ask(self) -> None:
        """Nothing has come for a while: does the broker answer at all? The library tries again by itself if not."""
        self._heard_seconds = self._monotonic()
        partitions = self._consumer.assignment()
        if not partitions:
            return
        try:
            await asyncio.wait_for(self._consumer.end_offsets(list(partitions)), _ANSWER_SECONDS)
        except (KafkaError, OSError, TimeoutError) as error:
            self._standing.away(f"no answer: {type(error).__name__}")
        else:
            self._standing.connected()


def _security(settings: KafkaSettings) -> dict[str, Any]:
    context: ssl.SSLContext | None = None
    if settings.tls:
        context = client_tls(settings.tls_ca, settings.tls_certificate, settings.tls_key)
    protocol = ("SASL_" if settings.sasl else "") + ("SSL" if settings.tls else "PLAINTEXT")
    security: dict[str, Any] = {"security_protocol": protocol, "ssl_context": context}
    if settings.sasl:
        security |= {
            "sasl_mechanism": settings.sasl,
            "sasl_plain_username": settings.user,
            "sasl_plain_password": read_secret(settings.password_file).decode(),
        }
    return security
