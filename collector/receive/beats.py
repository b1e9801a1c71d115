"""Lumberjack over TCP, with TLS where a context is given: the way in of Beats' Logstash output, and of whatever else speaks to a beats input.

Frames are read by `lumberjack`, one connection is served by `beats_connection`. Pressure: what the intake cannot take for now is tried again
for as long as it takes; meanwhile its connection is not read, and hears that we are alive.

Ids: ``@metadata._id``, when the sender sets one; else a document that says where in a file it was read is named by itself
(`collector.receive.ecs.place_id`). The protocol has no id for a window, so other documents are stored again when they are sent again.
"""

import asyncio
import itertools
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from collector.receive import Intake
from collector.receive.beats_connection import READ_BYTES, Connection
from collector.receive.lumberjack import FrameReader, Limits
from collector.receive.room import Room
from collector.receive.turns import Turns

__all__ = ["BeatsReceiver"]


class BeatsReceiver:
    """Listens for Beats and feeds what they say to an intake.

    Args:
        intake: takes the events; what it has returned for is durable.
        clock: Unix time in nanoseconds; stamps `observed`.
        service: ``service.name`` of documents that name none.
        limits: of one frame.
        max_document_bytes: longer documents become dead letters.
        part_documents, part_bytes: when so many documents or bytes of a window have come, they are made durable and acknowledged.
        max_connections: further ones are closed at once.
        room_bytes: most bytes of all connections that are held at a time; a connection in the middle of a window is closed beyond it.
        keepalive_seconds: how often a sender that waits hears that we are alive; Beats give up after 30 s (their ``timeout``).
        stalled_seconds: a connection on which nothing comes for so long in the middle of a window is closed.
        random: gives as many random bytes as asked for.
        turns: shares of the event loop's time.
        refused: called with a reason for every connection that ends badly: ``too_many_connections``, ``framing``, ``overloaded``, ``stalled``,
            ``connection_lost``, ``cut_message``, ``intake_error``.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        clock: Callable[[], int],
        service: str = "",
        limits: Limits | None = None,
        max_document_bytes: int = 2**20,
        part_documents: int = 1_000,
        part_bytes: int = 4 * 2**20,
        max_connections: int = 512,
        room_bytes: int = 128 * 2**20,
        keepalive_seconds: float = 5.0,
        stalled_seconds: float = 60.0,
        random: Callable[[int], bytes] = os.urandom,
        turns: Turns | None = None,
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self.intake = intake
        self.clock = clock
        self.service = service
        self.max_document_bytes = max_document_bytes
        self.part_documents = part_documents
        self.part_bytes = part_bytes
        self.room = Room(room_bytes)
        self.keepalive_seconds = keepalive_seconds
        self.stalled_seconds = stalled_seconds
        self.refused = refused
        self.turns = turns or Turns()
        self._limits = limits or Limits()
        self._max_connections = max_connections
        self._random = random
        self._numbers = itertools.count()
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], Connection] = {}

    async def listen(self, host: str = "127.0.0.1", port: int = 5044, *, tls: ssl.SSLContext | None = None) -> int:
        """Accept senders on a TCP port; returns the port, which the system chose if `port` is 0. Raises OSError."""
        return await self._listen({"host": host, "port": port}, tls)

    async def listen_on(self, listener: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        """Accept senders on a socket, which is ours from now on."""
        await self._listen({"sock": listener}, tls)

    async def _listen(self, where: Mapping[str, Any], tls: ssl.SSLContext | None) -> int:
        server = await asyncio.start_server(
            self._serve, **where, limit=READ_BYTES, ssl=tls, ssl_handshake_timeout=10.0 if tls else None
        )
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self, grace_seconds: float = 5.0) -> None:
        """Stop listening and reading, finish and acknowledge what is in flight, then close; at most about `grace_seconds`."""
        for server in self._servers:
            server.close()
        for connection in self._connections.values():
            connection.stop_reading()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=grace_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            self.refused("too_many_connections")
            writer.close()
            return
        peer = writer.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a sender that vanished frees its place
        connection = Connection(
            terms=self,
            reader=reader,
            writer=writer,
            frames=FrameReader(self._limits),
            nonce=self._random(16),
            number=next(self._numbers),
        )
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = connection
        try:
            await connection.run()
        finally:
            del self._connections[task]
            writer.close()
