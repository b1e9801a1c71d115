"""Fluent Forward over TCP (TLS where a context is given) and unix sockets: the way in of Fluent Bit, fluentd and their loggers.

A connection is read, decoded (`forward_message`) and handed to the intake group by group, several groups in flight, so that the
groups of all connections share an fsync. ``{"ack": chunk}`` goes out after the intake has returned, in the order in which the
chunks came. A crash anywhere before that leaves the sender without its ack: it sends the chunk again, and its id shows that
it is the same one.

Pressure: while the intake is `Overloaded` the connection is not read. Groups that wait for an ack are tried again for
`patience_seconds`, then the connection is closed without an ack, so that the sender keeps them. Groups that ask for no ack have
nobody to keep them: they are held and tried again until they are taken, and meanwhile TCP itself tells the sender.

Who may send is shown by a certificate (TLS with a client CA), by the specification's "Authentication" (`forward_handshake`), or both.
"""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from collector.receive import Intake
from collector.receive.forward_connection import Connection
from collector.receive.forward_group import Limits
from collector.receive.forward_handshake import Handshake
from collector.receive.forward_heartbeat import Heartbeat
from collector.receive.forward_message import MessageReader
from collector.receive.room import Room
from collector.receive.turns import Turns

__all__ = ["ForwardReceiver", "Handshake"]


class ForwardReceiver:
    """Listens for Forward senders and feeds what they say to an intake.

    Args:
        intake: takes the events; what it has returned for is durable.
        clock: Unix time in nanoseconds.
        service: ``service.name`` of records that name none; None takes the tag's first segment.
        limits: of one message.
        handshake: what is demanded of a sender; None lets anyone send who can connect.
        in_flight: most groups of one connection that wait for the intake at a time.
        max_connections: a further one takes the place of the one that came first of those that have said nothing; it is closed at once where there is none.
        room_bytes: most bytes of all connections that are held at a time, decompressed; beyond it connections are not read, and one in the
            middle of a long message is closed.
        patience_seconds: how long a group with an ack is tried again while the intake is overloaded.
        tls_seconds: how long a sender may take for the TLS handshake.
        stalled_seconds: a connection on which too little comes for so long in the middle of a message of more than 1 MiB is closed (`collector.receive.room.is_slow`).
        turns: shares of the event loop's time.
        refused: called with a reason for every connection that ends badly: ``too_many_connections``, ``silent``, ``tls`` (somewhat later), ``handshake``,
            ``framing``, ``overloaded``, ``too_large``, ``connection_lost``, ``cut_message``, ``stalled``, ``intake_error``; and ``unacknowledged_lost`` once an event that close() had to let go.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        clock: Callable[[], int],
        service: str | None = None,
        limits: Limits | None = None,
        handshake: Handshake | None = None,
        in_flight: int = 16,
        max_connections: int = 512,
        room_bytes: int = 128 * 2**20,
        patience_seconds: float = 10.0,
        tls_seconds: float = 10.0,
        stalled_seconds: float = 60.0,
        turns: Turns | None = None,
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self.intake = intake
        self.handshake = handshake
        self.in_flight = in_flight
        self.patience_seconds = patience_seconds
        self.stalled_seconds = stalled_seconds
        self.refused = refused
        self.room = Room(room_bytes)
        self.turns = turns or Turns()
        self._clock = clock
        self._service = service
        self._limits = limits or Limits()
        self._max_connections = max_connections
        self._tls_seconds = tls_seconds
        self._servers: list[asyncio.Server] = []
        self._heartbeats: list[asyncio.DatagramTransport] = []
        self._paths: list[Path] = []
        self._connections: dict[Connection, None] = {}  # in the order in which they came
        self._numbers = itertools.count()
        self._nobody = asyncio.Event()  # there is no connection
        self._nobody.set()

    async def listen_tcp(self, host: str = "127.0.0.1", port: int = 24224, *, tls: ssl.SSLContext | None = None) -> int:
        """Accept senders on a TCP port; returns the port, which the system chose if `port` is 0. Raises OSError."""
        return await self._listen({"host": host, "port": port}, tls)

    async def listen_on(self, listener: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        """Accept senders on a socket of TCP or the unix domain, which is ours from now on."""
        await self._listen({"sock": listener}, tls)

    async def _listen(self, where: Mapping[str, Any], tls: ssl.SSLContext | None) -> int:
        made = self._connection if tls is None else self._tls_connection
        timeout_seconds = None if tls is None else self._tls_seconds
        server = await asyncio.get_running_loop().create_server(
            made, **where, ssl=tls, ssl_handshake_timeout=timeout_seconds
        )
        self._servers.append(server)
        name = server.sockets[0].getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    async def listen_unix(self, path: Path, *, mode: int = 0o660) -> None:
        """Accept senders on a unix socket; a socket left there by a process that died is replaced. Raises OSError."""
        server = await asyncio.get_running_loop().create_unix_server(self._connection, path)
        path.chmod(mode)  # noqa: ASYNC240 - one system call, before the first sender
        self._servers.append(server)
        self._paths.append(path)

    async def answer_heartbeats(
        self, host: str = "127.0.0.1", port: int = 24224, *, on: socket.socket | None = None
    ) -> int:
        """Answer UDP heartbeats on a port; returns it, which the system chose if `port` is 0. `on`: a socket instead. Raises OSError."""
        loop = asyncio.get_running_loop()
        transport, _ = await (
            loop.create_datagram_endpoint(Heartbeat, local_addr=(host, port))
            if on is None
            else loop.create_datagram_endpoint(Heartbeat, sock=on)
        )
        self._heartbeats.append(transport)
        return int(transport.get_extra_info("sockname")[1])

    async def close(self, grace_seconds: float = 5.0) -> None:
        """Stop listening and reading, finish and acknowledge what is in flight, then close; at most about `grace_seconds`."""
        for server in self._servers:
            server.close()
        for heartbeat in self._heartbeats:
            heartbeat.close()
        for connection in list(self._connections):
            connection.stop_reading()
        try:
            await asyncio.wait_for(self._nobody.wait(), grace_seconds)
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await self._nobody.wait()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def admit(self, connection: Connection) -> bool:
        """See `collector.receive.forward_connection.Terms`."""
        if len(self._connections) >= self._max_connections:
            # who has never said a word keeps nobody out
            silent = next((one for one in self._connections if not one.heard), None)
            if silent is None:
                return False
            self.refused("silent")
            del self._connections[silent]
            silent.abort()
        self._connections[connection] = None
        self._nobody.clear()
        return True

    def gone(self, connection: Connection) -> None:
        """See `collector.receive.forward_connection.Terms`."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._nobody.set()

    def _connection(self) -> Connection:
        messages = MessageReader(clock=self._clock, service=self._service, limits=self._limits)
        return Connection(terms=self, messages=messages, number=next(self._numbers))

    def _tls_connection(self) -> Connection:
        """Nobody is told of a TLS handshake that fails: so look, when it must be over, whether there was a connection."""
        connection = self._connection()
        asyncio.get_running_loop().call_later(self._tls_seconds + 0.1, self._look_at, connection)
        return connection

    def _look_at(self, connection: Connection) -> None:
        if not connection.made:
            self.refused("tls")
