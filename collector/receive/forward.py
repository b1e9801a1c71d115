"""Fluent Forward over TCP (TLS where a context is given) and unix sockets: the way in of Fluent Bit, fluentd and their loggers.

A connection is read, decoded (`forward_message`) and handed to the intake group by group, several groups in flight, so that the
groups of all connections share an fsync. ``{"ack": chunk}`` goes out after the intake has returned, in the order in which the
chunks came. A crash anywhere before that leaves the sender without its ack: it sends the chunk again, and its id shows that
it is the same one.

Pressure: while the intake is `Overloaded` the connection is not read. Groups that wait for an ack are tried again for
`patience_seconds`, then the connection is closed without an ack, so that the sender keeps them. Groups that ask for no ack have
nobody to keep them: they are held and tried again until they are taken, and meanwhile TCP itself tells the sender.

The optional handshake is the specification's "Authentication" with a shared key (SHA-512, compared in constant time); user names and the UDP
heartbeat of protocol v0 are not offered: senders of v1 use the connection itself.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgpack
import msgspec

from collector.errors import Malformed, Overloaded
from collector.event import Origin
from collector.receive import Intake
from collector.receive.forward_message import Group, Limits, MessageReader
from collector.receive.room import Claim, Room

__all__ = ["ForwardReceiver", "Handshake"]

_log = logging.getLogger(__name__)
_READ_BYTES = 262_144
_UNCLAIMED_BYTES = 1_048_576  # of a message half read: connections times this is bounded anyway
_MAX_PING_BYTES = 4_096
_MAX_BACKOFF_SECONDS = 5.0
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What the shared-key handshake needs: the key, our own name in it, and how long a sender may take to answer.

    `random` gives the nonce: as many random bytes as asked for.
    """

    shared_key: bytes = field(repr=False)
    hostname: str = "tallystick"
    timeout_seconds: float = 10.0
    random: Callable[[int], bytes] = os.urandom


class ForwardReceiver:
    """Listens for Forward senders and feeds what they say to an intake.

    Args:
        intake: takes the events; what it has returned for is durable.
        clock: Unix time in nanoseconds.
        service: ``service.name`` of records that name none; None takes the tag's first segment.
        limits: of one message.
        handshake: demand the shared-key handshake; None lets anyone send who can connect.
        in_flight: most groups of one connection that wait for the intake at a time.
        max_connections: further ones are closed at once.
        room_bytes: most bytes of all connections that are held at a time, decompressed; beyond it connections are not read, and one in the
            middle of a long message is closed.
        patience_seconds: how long a group with an ack is tried again while the intake is overloaded.
        refused: called with a reason for every connection that ends badly: ``too_many_connections``, ``handshake``,
            ``framing``, ``overloaded``, ``connection_lost``, ``cut_message``, ``intake_error``; and ``unacknowledged_lost`` once an event that close() had to let go.
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
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self.intake = intake
        self.handshake = handshake
        self.in_flight = in_flight
        self.patience_seconds = patience_seconds
        self.refused = refused
        self.room = Room(room_bytes)
        self._clock = clock
        self._service = service
        self._limits = limits or Limits()
        self._max_connections = max_connections
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._connections: dict[asyncio.Task[None], _Connection] = {}

    async def listen_tcp(self, host: str = "127.0.0.1", port: int = 24224, *, tls: ssl.SSLContext | None = None) -> int:
        """Accept senders on a TCP port; returns the port, which the system chose if `port` is 0. Raises OSError."""
        server = await asyncio.start_server(
            self._serve, host, port, limit=_READ_BYTES, ssl=tls, ssl_handshake_timeout=10.0 if tls else None
        )
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def listen_unix(self, path: Path, *, mode: int = 0o660) -> None:
        """Accept senders on a unix socket; a socket left there by a process that died is replaced. Raises OSError."""
        server = await asyncio.start_unix_server(self._serve, path, limit=_READ_BYTES)
        path.chmod(mode)  # noqa: ASYNC240 - one system call, before the first sender
        self._servers.append(server)
        self._paths.append(path)

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
        for path in self._paths:
            path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            self.refused("too_many_connections")
            writer.close()
            return
        peer = writer.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a sender that vanished frees its place
        messages = MessageReader(clock=self._clock, service=self._service, limits=self._limits)
        connection = _Connection(receiver=self, reader=reader, writer=writer, messages=messages)
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = connection
        try:
            await connection.run()
        finally:
            del self._connections[task]
            writer.close()


class _Connection:
    """One sender: reads and decodes, keeps a bounded number of groups in flight, acknowledges in order."""

    def __init__(
        self,
        *,
        receiver: ForwardReceiver,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        messages: MessageReader,
    ) -> None:
        self._receiver = receiver
        self._reader = reader
        self._writer = writer
        self._messages = messages
        self._groups: asyncio.Queue[tuple[str | None, asyncio.Task[None]] | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(receiver.in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._given_up = False
        self._flows = asyncio.Event()  # cleared while the intake is overloaded
        self._flows.set()

    def stop_reading(self) -> None:
        """Take nothing more from the sender: what has arrived here is read to its end, and what is in flight is finished."""
        peer = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it has left already
            peer.shutdown(socket.SHUT_RD)

    async def run(self) -> None:
        """Serve the sender until it leaves, breaks the protocol, or the receiver closes."""
        acks = asyncio.create_task(self._acknowledge())
        self._tasks.add(acks)
        try:
            try:
                await self._read()
            finally:
                self._groups.put_nowait(None)
            await acks
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self) -> None:
        refused = self._receiver.refused
        try:
            if self._receiver.handshake is not None and not await self._greet(self._receiver.handshake):
                refused("handshake")
                return
            with self._receiver.room.claim() as buffered:
                while not self._given_up and (data := await self._reader.read(_READ_BYTES)):
                    for group in self._messages.groups(data):
                        await self._start(group)
                    await self._flows.wait()
                    pending_bytes = self._messages.pending_bytes
                    buffered.resize(pending_bytes if pending_bytes > _UNCLAIMED_BYTES else 0)
            if self._messages.pending_bytes:
                refused(
                    "cut_message"
                )  # the sender left in the middle of a message: it knows that this one was not taken
        except Malformed as error:
            refused("framing")
            await self._start(Group(origin=Origin(receiver="forward"), refused=[(self._messages.take(), error)]))
        except Overloaded:
            self._give_up("overloaded")  # waiting for room with a message half read could be waiting for one another
        except TimeoutError:
            refused("handshake")
        except OSError:
            refused("connection_lost")

    async def _start(self, group: Group) -> None:
        claim = self._receiver.room.claim()
        try:
            await self._slots.acquire()
            await claim.wait(group.size_bytes)
        except asyncio.CancelledError:
            self._let_go(group)
            raise
        task = asyncio.create_task(self._take(group, claim))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._groups.put_nowait((group.chunk, task))

    async def _acknowledge(self) -> None:
        """Ack the groups in their order. After one that was given up none is acknowledged: the sender comes again with them all."""
        while (item := await self._groups.get()) is not None:
            chunk, task = item
            try:
                await task
            except Overloaded:
                self._give_up("overloaded")
            except Exception as error:  # noqa: BLE001 - whatever broke, the sender must not get its ack, and others go on
                self._give_up("intake_error")
                _log.error("a group could not be taken: %s: %s", type(error).__name__, error)
            if chunk is not None and not self._given_up:
                try:
                    self._writer.write(msgpack.packb({"ack": chunk}, unicode_errors="surrogateescape"))
                    await self._writer.drain()
                except OSError:
                    self._give_up("connection_lost")
            self._slots.release()

    def _give_up(self, reason: str) -> None:
        if not self._given_up:
            self._given_up = True
            self._receiver.refused(reason)
            self.stop_reading()

    async def _take(self, group: Group, claim: Claim) -> None:
        """Make a group durable: its dead letters, then its events.

        Raises:
            Overloaded: a group with an ack, after `patience_seconds`.
        """
        intake = self._receiver.intake
        try:
            for raw, error in group.refused:
                await self._patiently(partial(intake.reject, raw, error, group.origin), group)
            if group.arrivals:
                await self._patiently(partial(intake.accept, group.arrivals, group_id=group.group_id), group)
        except asyncio.CancelledError:
            self._let_go(group)
            raise
        finally:
            claim.release()

    def _let_go(self, group: Group) -> None:
        """The receiver closes before a group was taken. Who asked for an ack comes again; of the others it is told."""
        if group.chunk is None:
            for _ in group.arrivals:
                self._receiver.refused("unacknowledged_lost")

    async def _patiently(self, take: Callable[[], Awaitable[object]], group: Group) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._receiver.patience_seconds
        wait_seconds = 0.0
        while True:
            try:
                await take()
            except Overloaded as error:
                wait_seconds = min(max(error.retry_after_seconds, wait_seconds * 2), _MAX_BACKOFF_SECONDS)
                if group.chunk is not None and loop.time() + wait_seconds > give_up:
                    raise
                self._flows.clear()
                await asyncio.sleep(wait_seconds)
            else:
                self._flows.set()
                return

    async def _greet(self, handshake: Handshake) -> bool:
        """HELO, PING, PONG; False when the sender does not know the key, or says something else."""
        nonce = handshake.random(16)
        self._writer.write(_encode(["HELO", {"nonce": nonce, "auth": "", "keepalive": True}]))
        messages: list[bytes] = []
        async with asyncio.timeout(handshake.timeout_seconds):
            while not messages:
                data = await self._reader.read(_MAX_PING_BYTES)
                messages = list(self._messages.messages(data))
                if not data or self._messages.pending_bytes > _MAX_PING_BYTES:
                    return False
        answer = pong(messages[0], nonce=nonce, handshake=handshake)
        self._writer.write(_encode(answer))
        await self._writer.drain()
        return answer[1] is True and len(messages) == 1  # more before the PONG is against the protocol


def pong(ping: bytes, *, nonce: bytes, handshake: Handshake) -> list[object]:
    """The answer to a PING message: PONG with true and our own digest, or with false and the reason."""
    try:
        parts = msgpack.unpackb(ping, raw=True)
        _, hostname, salt, digest = parts[:4]
        if parts[0] != b"PING" or not isinstance(parts, list) or len(parts) != 6:
            raise ValueError("no PING")
        known = hashlib.sha512(salt + hostname + nonce + handshake.shared_key).hexdigest()
        if not hmac.compare_digest(known.encode(), digest):
            return ["PONG", False, "shared key mismatch", "", ""]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException):
        return ["PONG", False, "invalid ping message", "", ""]
    name = handshake.hostname
    return ["PONG", True, "", name, hashlib.sha512(salt + name.encode() + nonce + handshake.shared_key).hexdigest()]
