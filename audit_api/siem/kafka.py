"""Produces to a topic of Kafka: ``acks=all`` and idempotent, so that what the brokers acknowledged is there once, and in order within a trail.

A batch that failed as a whole is produced again by a new producer: then some records are there twice, under the same id.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from audit_api.siem.record import Record
from audit_api.siem.settings import KafkaSettings
from collector.errors import Overloaded

__all__ = ["KafkaSender"]

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_ENVELOPE_BYTES = 65_536
_STOP_SECONDS = 5.0
_GOODBYE_SECONDS = 0.2


class KafkaSender:
    """A `Destination`. Its event loop runs only while something is sent.

    Args:
        settings: where it is.
        tls: None: plain text.
        password: gives the password for SASL; asked for each producer. It raises `Overloaded`.
    """

    def __init__(self, settings: KafkaSettings, *, tls: ssl.SSLContext | None, password: Callable[[], str]) -> None:
        self._settings = settings
        self._tls = tls
        self._password = password
        self._runner = asyncio.Runner()
        self._producer: Any = None

    def send(self, records: Sequence[Record]) -> None:
        """See `Destination.send`."""
        if not records:
            return
        try:
            self._runner.run(asyncio.wait_for(self._send(records), 2 * self._settings.timeout_seconds))
        except (KafkaError, OSError, TimeoutError) as error:
            self._begin_anew()
            raise Overloaded(f"{self._settings.place}: {str(error) or type(error).__name__}") from error
        except Overloaded:
            self._begin_anew()
            raise

    def close(self) -> None:
        """Let go of the connections."""
        self._runner.run(self._leave())
        self._runner.close()  # cancels what the library still tries

    def _begin_anew(self) -> None:
        self.close()
        self._runner = asyncio.Runner()

    async def _send(self, records: Sequence[Record]) -> None:
        begun = [(one, await self._begin(one)) for one in records]
        outcomes = await asyncio.gather(*(answer for _, answer in begun), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if not any(isinstance(one, _TOO_LARGE) for one in failures):
            if failures:
                raise failures[0]
            return
        # a broker refuses what the library put together as a whole, and what came behind it in the same partition with it
        for (one, _), outcome in zip(begun, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                await self._alone(one)

    async def _alone(self, record: Record) -> None:
        """Alone, and with less in it while it is too large; each time by a new producer: the old one's sequence has a hole."""
        trial: Record | None = record
        while trial is not None:
            await self._stop()
            try:
                await (await self._begin(trial))
            except _TOO_LARGE:
                trial = trial.refused()
            else:
                return
        raise Overloaded(f"it refuses {record.mark.id} with nothing of the event in it")

    async def _started(self) -> Any:
        if self._producer is None:
            producer = AIOKafkaProducer(**self._options())
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    async def _stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):  # what it still held is sent again
                await asyncio.wait_for(producer.stop(), _STOP_SECONDS)
            await producer.client.close()  # a producer that has something to send to nobody does not come so far

    async def _leave(self) -> None:
        await self._stop()
        if self._tls is not None:
            # nobody waits for the end that TLS has of its own: a loop that is closed before it leaves the socket open
            await asyncio.sleep(_GOODBYE_SECONDS)

    async def _begin(self, record: Record) -> Awaitable[Any]:
        """What becomes of it, to be awaited; the library's own refusal of what is too long, too."""
        headers = [("tally-id", record.mark.id.encode()), ("tally-leaf-hash", record.mark.leaf_hash.encode())]
        try:
            answer: Awaitable[Any] = await (await self._started()).send(
                self._settings.topic, record.data, key=record.row.entry.trail.encode(), headers=headers
            )
        except _TOO_LARGE as error:
            refusal = asyncio.get_running_loop().create_future()
            refusal.set_exception(error)
            return refusal
        return answer

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "bootstrap_servers": list(settings.brokers),
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": "gzip",
            "client_id": f"tallystick-{settings.name}",
            "max_request_size": settings.max_bytes + _ENVELOPE_BYTES,
            "request_timeout_ms": int(settings.timeout_seconds * 1_000),
            "security_protocol": ("SASL_" if settings.sasl else "") + ("SSL" if settings.tls else "PLAINTEXT"),
            "ssl_context": self._tls,
        }
        if settings.sasl:
            options |= {
                "sasl_mechanism": settings.sasl,
                "sasl_plain_username": settings.user,
                "sasl_plain_password": self._password(),
            }
        return options
