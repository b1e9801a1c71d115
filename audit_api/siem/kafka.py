"""Produces to a topic of Kafka: ``acks=all`` and idempotent, so that what the brokers acknowledged is there once, and in order within a trail.

A batch that failed as a whole is produced again by a new producer: then some records are there twice, under the same id.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from audit_api.siem.record import Record
from audit_api.siem.settings import KafkaSettings
from collector.errors import Overloaded

__all__ = ["KafkaSender"]

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_ENVELOPE_BYTES = 65_536


class KafkaSender:
    """A `Destination`. Its event loop runs only while something is sent.

    Args:
        settings: where it is.
        tls: None: plain text.
        password: gives the password for SASL; asked for each producer. It raises `OSError` or `Malformed`.
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
            self._drop()
            raise Overloaded(f"{self._settings.place}: {str(error) or type(error).__name__}") from error
        except Overloaded:
            self._drop()
            raise

    def close(self) -> None:
        """Let go of the connections."""
        self._drop()
        self._runner.close()

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                self._runner.run(asyncio.wait_for(producer.stop(), self._settings.timeout_seconds))
            except (KafkaError, OSError, TimeoutError):
                pass  # what it still held is sent again by the next one

    async def _send(self, records: Sequence[Record]) -> None:
        if self._producer is None:
            producer = AIOKafkaProducer(**self._options())
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        waiting = list(records)
        while waiting:
            outcomes = [await self._begin(one) for one in waiting]
            done = await asyncio.gather(
                *(one for one in outcomes if not isinstance(one, Exception)), return_exceptions=True
            )
            answers = iter(done)
            told = [one if isinstance(one, Exception) else next(answers) for one in outcomes]
            waiting = [
                self._less(one, answer)
                for one, answer in zip(waiting, told, strict=True)
                if isinstance(answer, BaseException)
            ]

    async def _begin(self, record: Record) -> Any:
        """What becomes of it, to be awaited; or why it cannot even be sent."""
        headers = [("tally-id", record.mark.id.encode()), ("tally-leaf-hash", record.mark.leaf_hash.encode())]
        try:
            return await self._producer.send(
                self._settings.topic, record.data, key=record.row.entry.trail.encode(), headers=headers
            )
        except _TOO_LARGE as error:
            return error

    @staticmethod
    def _less(record: Record, error: BaseException) -> Record:
        if not isinstance(error, _TOO_LARGE):
            raise error
        less = record.refused()
        if less is None:
            raise Overloaded(f"it refuses {record.mark.id} with nothing of the event in it")
        return less

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
