"""The floor of a single message's acknowledgement: an asyncio server that writes what it gets, syncs it and answers. Nothing is decoded, looked for or kept count of."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

from bench.forward import send_one_by_one

__all__ = ["answering_seconds"]

_PATIENCE_SECONDS = 60.0


def answering_seconds(folder: Path, messages: list[bytes]) -> list[float]:
    """Send each message after the answer to the one before, as `bench.forward` does to a sidecar; seconds to each answer.

    The server is a process of its own, and its file as long as it needs to be before the first message, as the spool's is.
    """
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    room_bytes = sum(map(len, messages))
    server = spawning.Process(target=_serve, args=(folder / "answering.bin", room_bytes, theirs), daemon=True)
    server.start()
    try:
        if not ours.poll(_PATIENCE_SECONDS):
            raise RuntimeError("the answering server did not start")
        return send_one_by_one(f"127.0.0.1:{ours.recv()}", messages)
    finally:
        server.terminate()
        server.join(_PATIENCE_SECONDS)


class _Answering(asyncio.Protocol):
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._at += os.pwrite(self._descriptor, data, self._at)
        os.fdatasync(self._descriptor)
        self._transport.write(b"ok")


def _serve(path: Path, room_bytes: int, port: Connection) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, bytes(room_bytes))
    os.fsync(descriptor)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Answering(descriptor), "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())
