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
            self._runner.run(self._send(records))
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
        """What a broker refuses as too large goes in halves, then alone, then with less in it; each has its time, so it comes on however many there are."""
        waiting = [records]
        while waiting:
            part = waiting.pop()
            refused = await asyncio.wait_for(self._together(part), 2 * self._settings.timeout_seconds)
            if not refused:
                continue
            await self._stop()  # its sequence has a hole: the next one is a new producer's
            if len(part) == 1:
                less = part[0].refused()
                if less is None:
                    raise Overloaded(f"it refuses {part[0].mark.id} with nothing of the event in it")
                waiting.append([less])
            else:
                middle = len(refused) // 2
                waiting += [half for half in (refused[middle:], refused[:middle]) if half]

    async def _together(self, records: Sequence[Record]) -> list[Record]:
        """Gives those that were refused as too large: a broker refuses what the library put together as a whole, and what came behind it in the same partition with it."""
        begun = [await self._begin(one) for one in records]
        outcomes = await asyncio.gather(*begun, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures and not any(isinstance(one, _TOO_LARGE) for one in failures):
            raise failures[0]
        return [one for one, outcome in zip(records, outcomes, strict=True) if isinstance(outcome, BaseException)]

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
