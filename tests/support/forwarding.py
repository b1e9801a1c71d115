"""A Forward receiver on a port of its own, and senders that say exactly what a test wants said."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, Self

import msgpack
import pytest

from collector.receive.forward import ForwardReceiver
from tests.support.memory_intake import MemoryIntake

NOW_NS = 1_700_000_000_000_000_000


class Sender:
    """A sender that says exactly what a test wants said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.unpacker = msgpack.Unpacker()

    def say(self, *messages: Any) -> None:
        for message in messages:
            self.writer.write(message if isinstance(message, bytes) else msgpack.packb(message))

    async def hear(self) -> Any:
        """The next message from the receiver; raises EOFError when it has closed."""
        while True:
            try:
                return self.unpacker.unpack()
            except msgpack.OutOfData:
                data = await self.reader.read(4096)
                if not data:
                    raise EOFError from None
                self.unpacker.feed(data)

    async def hear_the_end(self) -> None:
        with pytest.raises((EOFError, ConnectionError)):
            await self.hear()


def run(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story

    asyncio.run(bounded())


class Setting:
    """A receiver on a port of its own, its intake, the reasons it counted, and senders; closed at the end."""

    def __init__(self, intake: MemoryIntake | None = None, **options: Any) -> None:
        self.intake = intake or MemoryIntake()
        self.reasons: list[str] = []
        self.refusal = asyncio.Event()
        self._tls: ssl.SSLContext | None = options.pop("tls", None)
        self.receiver = ForwardReceiver(
            self.intake, clock=lambda: NOW_NS, refused=self._refused, patience_seconds=0.05, **options
        )
        self._stack = AsyncExitStack()

    def _refused(self, reason: str) -> None:
        self.reasons.append(reason)
        self.refusal.set()

    async def __aenter__(self) -> Self:
        self.port = await self.receiver.listen_tcp(port=0, tls=self._tls)
        self._stack.push_async_callback(self.receiver.close, 2.0)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def sender(self, tls: ssl.SSLContext | None = None) -> Sender:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
        self._stack.callback(writer.close)
        return Sender(reader, writer)


def shared_key_digest(salt: bytes, host: bytes, nonce: bytes, key: bytes) -> str:
    """The specification's ``sha512_hex(salt + hostname + nonce + shared_key)``."""
    return hashlib.sha512(salt + host + nonce + key).hexdigest()
