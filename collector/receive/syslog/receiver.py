"""Listens for syslog on TCP, TLS and UDP.

A sender hears nothing but how fast it is read: what one reading of a connection has brought is made durable before the connection is read again, and
while the intake is overloaded it is not read. So at most a reading of each connection, what the event loop has read ahead for the next (twice as much at
most), and what the kernel holds, is lost with the process.
Datagrams wait in a bounded queue; what does not fit is dropped, and counted.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any

from collector.errors import Malformed, Overloaded
from collector.event import Origin
from collector.receive import Arrival, Intake
from collector.receive.portions import Portions
from collector.receive.syslog.events import RECEIVER, arrival_of_syslog
from collector.receive.syslog.framing import Frame, FrameReader
from collector.receive.syslog.message import parse_message
from collector.receive.turns import Turns
from collector.rejection import Rejection
from collector.sender import Sender

__all__ = ["SyslogReceiver"]

_log = logging.getLogger(__name__)

_DATAGRAMS = Sender()  # of whoever sends them: a sender's address proves nothing
_READ_BYTES = 64 * 1024
_MAX_BACKOFF_SECONDS = 5.0
_UDP_MESSAGES = 1_000  # taken together
_UDP_QUEUED_BYTES = 8 * 1024 * 1024
_UNTERMINATED = "unterminated"


class SyslogReceiver:
    """See the module.

    Args:
        intake: takes the events.
        clock: Unix time in nanoseconds, for the year of times without one.
        zone: of times without one.
        service: ``service.name`` of messages without app name.
        max_message_bytes: a longer one is a dead letter; max_connections: further ones are closed at once.
        turns: shares of the event loop's time.
        refused: called with a reason for what is lost or turned away: ``too_many_connections``, ``connection_lost``, ``datagram_dropped``, and
            ``unacknowledged_lost`` once a message that close() had to let go.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        clock: Callable[[], int],
        zone: tzinfo = UTC,
        service: str = "",
        max_message_bytes: int = 64 * 1024,
        max_connections: int = 256,
        turns: Turns | None = None,
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._zone = zone
        self._service = service
        self._max_message_bytes = max_message_bytes
        self._max_connections = max_connections
        self._refused = refused
        self._turns = turns or Turns()
        self._numbers = itertools.count(1)
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._datagrams: list[tuple[asyncio.DatagramTransport, _Datagrams, asyncio.Task[None]]] = []

    async def listen_tcp(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Accept senders on a TCP port; returns the port, which the system chose if `port` is 0. Raises OSError."""
        return await self._listen({"host": host, "port": port}, tls)

    async def listen_on(self, listener: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        """Accept senders on a socket, which is ours from now on."""
        await self._listen({"sock": listener}, tls)

    async def _listen(self, where: Mapping[str, Any], tls: ssl.SSLContext | None) -> int:
        server = await asyncio.start_server(
            self._serve, **where, limit=_READ_BYTES, ssl=tls, ssl_handshake_timeout=10.0 if tls else None
        )
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def listen_udp(self, host: str, port: int, *, on: socket.socket | None = None) -> int:
        """Take datagrams on a UDP port; returns the port. `on`: a socket instead, which is ours from now on. Raises OSError."""
        loop = asyncio.get_running_loop()
        where: dict[str, Any] = {"local_addr": (host, port)} if on is None else {"sock": on}
        transport, queue = await loop.create_datagram_endpoint(lambda: _Datagrams(self._refused), **where)
        self._datagrams.append((transport, queue, asyncio.create_task(self._take_datagrams(queue))))
        return int(transport.get_extra_info("sockname")[1])

    async def close(self, grace_seconds: float = 5.0) -> None:
        """Stop listening and reading, make durable what has been read, then close; at most about `grace_seconds`."""
        for server in self._servers:
            server.close()
        for transport, queue, _ in self._datagrams:
            transport.close()
            queue.end()
        for writer in self._connections.values():
            peer = writer.get_extra_info("socket")
            if peer is None:
                continue  # over TLS: it has left already, and its task reads the end of what it said
            with contextlib.suppress(OSError):  # it has left already
                peer.shutdown(socket.SHUT_RD)
        tasks = [*self._connections, *(task for _, _, task in self._datagrams)]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            self._refused("too_many_connections")
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        if (connected := writer.get_extra_info("socket")) is not None:  # over TLS it may have left already
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        frames = FrameReader(max_bytes=self._max_message_bytes)
        sender = Sender(connection=next(self._numbers))
        try:
            try:
                while data := await reader.read(_READ_BYTES):
                    await self._take(frames.feed(data), peer, sender)
            except OSError:
                self._refused("connection_lost")
            await self._take(frames.end(), peer, sender)
        except asyncio.CancelledError:
            pass  # `close` has waited long enough, and what was lost is counted
        finally:
            del self._connections[task]
            writer.close()

    async def _take_datagrams(self, queue: "_Datagrams") -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while batch := await queue.take(_UDP_MESSAGES):
                for peer in dict.fromkeys(peer for _, peer in batch):
                    frames = [Frame(data=data, size=len(data)) for data, sender in batch if sender == peer]
                    await self._take(frames, peer, _DATAGRAMS)

    async def _take(self, frames: Sequence[Frame], peer: str, sender: Sender) -> None:
        """Make messages durable, however long it takes: nobody else keeps them."""
        arrivals: list[Arrival] = []
        refusals: list[Rejection] = []
        now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self._clock() // 1_000)
        for frame in frames:
            data = frame.data.rstrip(b"\r\n\0")
            if not data:
                continue
            try:
                if frame.size > self._max_message_bytes:
                    raise Malformed(
                        f"a message of {frame.size} bytes; at most {self._max_message_bytes}", label="too_large"
                    )
                message = parse_message(data, now=now, zone=self._zone)
            except Malformed as error:
                refusals.append(Rejection(data, error, Origin(receiver=RECEIVER)))
                continue
            marks = () if frame.ended else (_UNTERMINATED,)
            arrivals.append(arrival_of_syslog(message, service=self._service, peer=peer, marks=marks))
        try:
            await self._turns.of(sender).turn()
            await self._patiently(partial(self._intake.reject, refusals))
            await self._patiently(partial(Portions(arrivals, heard=False, sender=sender).hand_over, self._intake))
        finally:
            for _ in range(len(refusals) + len(arrivals)):
                self._refused("unacknowledged_lost")

    async def _patiently(self, take: Callable[[], Awaitable[object]]) -> None:
        wait_seconds = 0.0
        while True:
            try:
                await take()
            except Overloaded as error:
                wait_seconds = min(max(error.retry_after_seconds, 2 * wait_seconds), _MAX_BACKOFF_SECONDS)
                await asyncio.sleep(wait_seconds)
            else:
                return


class _Datagrams(asyncio.DatagramProtocol):
    """Datagrams that wait, bounded by their bytes."""

    def __init__(self, refused: Callable[[str], object]) -> None:
        self._refused = refused
        self._queue: deque[tuple[bytes, str]] = deque()
        self._queued_bytes = 0
        self._ended = False
        self._news = asyncio.Event()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """One message (RFC 5426, section 3.1)."""
        if self._ended or self._queued_bytes + len(data) > _UDP_QUEUED_BYTES:
            self._refused("datagram_dropped")
            return
        self._queue.append((data, str(addr[0])))
        self._queued_bytes += len(data) + 64
        self._news.set()

    def end(self) -> None:
        """Take no more."""
        self._ended = True
        self._news.set()

    async def take(self, count: int) -> list[tuple[bytes, str]]:
        """The next datagrams with their senders' addresses, at most so many; empty at the end."""
        while not self._queue and not self._ended:
            self._news.clear()
            await self._news.wait()
        taken = [self._queue.popleft() for _ in range(min(count, len(self._queue)))]
        self._queued_bytes -= sum(len(data) + 64 for data, _ in taken)
        return taken
