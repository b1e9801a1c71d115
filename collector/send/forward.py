"""A sender of Fluent Forward that hears what became of its events: acks, shared key and users, TLS both ways, gzip and zstd.

Blocking, for one thread at a time. A chunk is durable with the server when `Forwarder.send` returns: it returns after the server's ack
and not before. A crash anywhere earlier, of either side, leaves the sender not knowing; it sends the chunk again under the same id, and
a server that remembers ids (ours does) takes it once. Nothing is buffered here: what is not acknowledged is the caller's to keep.
"""

import base64
import contextlib
import gzip
import os
import random
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from msgspec.msgpack import Ext

from collector.errors import Overloaded
from collector.retry import Breaker, RetryLimits
from collector.send.forward_answer import Answers, Credentials

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Compression", "Forwarder", "Upstream", "event_time", "new_chunk"]

Compression = Literal["none", "gzip", "zstd"]

_SALT_BYTES = 16
_CHUNK_BYTES = 16
_encode = msgspec.msgpack.Encoder().encode
_event_time = struct.Struct(">II").pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A server, and as whom it is spoken to.

    Attributes:
        host, port: where it listens; ignored with `unix_path`.
        unix_path: path of its unix socket; empty: TCP.
        tls: `client_tls`; None: in clear.
        server_name: the name that its certificate must have; empty: `host`.
        credentials: for the handshake; None: there is none.
        compression: of chunks; zstd needs a server that knows it (fluentd since 1.19, ours).
        connect_seconds: how long connecting and the handshake may take.
        answer_seconds: how long sending a chunk and waiting for its ack may take; longer than a busy server of ours makes a chunk wait.
    """

    host: str = "127.0.0.1"
    port: int = 24224
    unix_path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    credentials: Credentials | None = None
    compression: Compression = "none"
    connect_seconds: float = 10.0
    answer_seconds: float = 30.0


class Forwarder:
    """Sends chunks to one server, over one connection that is opened when needed and kept. A context: `close` at its end.

    Args:
        upstream: the server.
        random_bytes: so many unpredictable bytes as asked for.
        sleep: waits so many seconds between trials.
        retry: how long the waits are.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
        sleep: Callable[[float], object] = time.sleep,
        retry: RetryLimits | None = None,
    ) -> None:
        self._upstream = upstream
        self._random_bytes = random_bytes
        self._sleep = sleep
        self._retry = retry or RetryLimits()
        self._connection: _Connection | None = None

    def send(
        self,
        tag: str,
        entries: Sequence[tuple[int, Mapping[str, Any]]],
        *,
        chunk: str = "",
        patience_seconds: float = 60.0,
    ) -> str:
        """Send records with their times in Unix nanoseconds, and try again until they are durable; returns the chunk's id.

        Args:
            tag: Fluent's tag.
            entries: time and record each; at most what the server takes in one message (ours: 131,072 records, 16 MiB).
            chunk: an id that was sent before and not acknowledged; empty: a new one.
            patience_seconds: how long to go on trying.

        Raises:
            Overloaded: nobody knows whether the server has them. Who gave a `chunk` of its own can send them again later as the same.
            TypeError, OverflowError: a record that MessagePack cannot hold.
        """
        packed = b"".join(_encode((event_time(time_ns), record)) for time_ns, record in entries)
        chunk = chunk or new_chunk(self._random_bytes)
        breaker = Breaker(self._retry, uniform=random.uniform)
        until = time.monotonic() + patience_seconds
        while True:
            try:
                self.send_packed(tag, packed, count=len(entries), chunk=chunk)
            except Overloaded as error:
                wait_seconds = breaker.failed(at_least_seconds=min(error.retry_after_seconds, self._retry.cap_seconds))
                if time.monotonic() + wait_seconds > until:
                    raise
                self._sleep(wait_seconds)
            else:
                return chunk

    def send_packed(
        self, tag: str, packed: bytes, *, count: int, chunk: str, option: Mapping[str, Any] | None = None
    ) -> None:
        """Send a chunk once, in PackedForward mode: MessagePack of ``[time, record]`` one after the other. Durable on return.

        `option` is sent beside ``chunk``, ``size`` and ``compressed``.

        Raises:
            Overloaded: there is no ack, for the reason that it names. The server may have the chunk: send it again under the same id.
        """
        options: dict[str, Any] = {"chunk": chunk, "size": count, **(option or {})}
        if self._upstream.compression != "none":
            options["compressed"] = self._upstream.compression
        if self._upstream.compression == "gzip":
            packed = gzip.compress(packed, 6, mtime=0)
        elif self._upstream.compression == "zstd":
            packed = zstd.compress(packed, 3)
        message = _encode((tag, packed, options))
        used_before = self._connection is not None
        try:
            self._once(message, chunk)
        except Overloaded as error:
            if not used_before or isinstance(error.__cause__, TimeoutError):
                raise
            self._once(message, chunk)  # a connection that has rested may be long gone: that says nothing of the server

    def _once(self, message: bytes, chunk: str) -> None:
        try:
            if self._connection is None:
                self._connection = _Connection(self._upstream, self._random_bytes)
            self._connection.deliver(message, chunk)
        except OSError as error:  # a time-out, a refused connection, a certificate that does not hold
            self.close()
            raise Overloaded(f"{_where(self._upstream)}: {error}") from error
        except Overloaded as error:
            self.close()
            reason = f"{_where(self._upstream)}: {error}"
            raise Overloaded(reason, retry_after_seconds=error.retry_after_seconds) from error
        if not self._connection.keeps:
            self.close()

    def close(self) -> None:
        """Close the connection, if there is one; the next chunk opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Connection:
    """An open connection on which the server has let us in. `keeps`: it may be used for more than one chunk."""

    def __init__(self, upstream: Upstream, random_bytes: Callable[[int], bytes]) -> None:
        self._upstream = upstream
        self._until = time.monotonic() + upstream.connect_seconds
        self._socket = _connected(upstream)
        self._answers = Answers(self._read)
        self.keeps = True
        try:
            if upstream.credentials is not None:
                salt = random_bytes(_SALT_BYTES).hex()
                ping, nonce, self.keeps = upstream.credentials.ping(self._answers.next(), salt)
                self._write(_encode(ping))
                upstream.credentials.check(self._answers.next(), salt=salt, nonce=nonce)
        except BaseException:
            self.close()
            raise

    def deliver(self, message: bytes, chunk: str) -> None:
        self._until = time.monotonic() + self._upstream.answer_seconds
        self._write(message)
        self._answers.ack(chunk)

    def _write(self, data: bytes) -> None:
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def _read(self, count: int) -> bytes:
        self._socket.settimeout(self._left())
        return self._socket.recv(count)

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


def _connected(upstream: Upstream) -> socket.socket:
    if upstream.unix_path:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(upstream.connect_seconds)
        try:
            made.connect(upstream.unix_path)
        except BaseException:
            made.close()
            raise
        return made
    made = socket.create_connection((upstream.host, upstream.port), upstream.connect_seconds)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if upstream.tls is None:
        return made
    try:
        return upstream.tls.wrap_socket(made, server_hostname=upstream.server_name or upstream.host)
    except BaseException:
        made.close()
        raise


def _where(upstream: Upstream) -> str:
    return upstream.unix_path or f"{upstream.host}:{upstream.port}"


def event_time(unix_ns: int) -> Ext | float:
    """Forward's EventTime of Unix nanoseconds; a number of seconds where its 32 bits do not reach (before 1970, from 2106 on)."""
    seconds, fraction_ns = divmod(unix_ns, 1_000_000_000)
    if 0 <= seconds < 2**32:
        return Ext(0, _event_time(seconds, fraction_ns))
    return unix_ns / 1e9


def new_chunk(random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """A chunk id as the specification advises: 128 random bits in base64."""
    return base64.b64encode(random_bytes(_CHUNK_BYTES)).decode()
