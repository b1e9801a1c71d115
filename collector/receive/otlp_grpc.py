"""OTLP/gRPC: the way in that most OpenTelemetry SDKs and collectors take by default, on a port of its own.

https://opentelemetry.io/docs/specs/otlp/#otlpgrpc, over grpcio's asyncio server, which is the extra ``tallystick[grpc]``: only a sidecar with
``[collector.grpc] port`` imports this module. Messages are taken as bytes and decoded where those of HTTP are.

What is held for senders is bounded before it is read: a call waits until there is room for the longest message allowed, and HTTP/2's flow control
keeps its bytes at the sender meanwhile. Compressed messages are inflated here, not in the library, so that their limit after decompression
is ours, and what breaks it is counted.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio

from collector.errors import Malformed, Overloaded, TooLarge
from collector.receive import otlp_answer
from collector.receive.inflate import gunzip, unzlib
from collector.receive.otlp_export import LOGS, METRICS, TRACES, OtlpExports, Signal
from collector.receive.room import Claim, Room
from collector.sender import Sender

__all__ = ["GrpcLimits", "OtlpGrpcServer", "server_credentials"]

_INFLATE = {b"\x1f": gunzip, b"\x78": unzlib}
"""How gzip (RFC 1952) and zlib (RFC 1950, gRPC's "deflate") begin. No request does: its first field is 1, hence 0x0A."""


_STATUS = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcLimits:
    """Bounds of a gRPC server.

    Attributes:
        message_bytes: longest message as sent.
        inflated_bytes: longest message after decompression.
        reading: messages that are read at a time; further calls wait for their turn.
        waiting: calls at a time; further ones hear "later".
        connections: further ones are closed at once.
        streams: calls at a time on one connection.
        patience_seconds: how long a call waits for its turn before it hears "later".
        read_seconds: how long a sender may take for its message once it is its turn.
    """

    message_bytes: int = 4 * 2**20
    inflated_bytes: int = 16 * 2**20
    reading: int = 32
    waiting: int = 512
    connections: int = 256
    streams: int = 32
    patience_seconds: float = 4.0
    read_seconds: float = 10.0


class _Refusal(NamedTuple):
    """How a call ends that is not answered."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, bytes], ...] = ()


def server_credentials(certificate: Path, key: Path, client_ca: Path | None = None) -> grpc.ServerCredentials:
    """TLS with these PEM files; with `client_ca`, only for senders whose certificate it has signed. Raises OSError: one cannot be read."""
    pair = (key.read_bytes(), certificate.read_bytes())
    authorities = client_ca.read_bytes() if client_ca else None
    return grpc.ssl_server_credentials([pair], root_certificates=authorities, require_client_auth=bool(authorities))


class OtlpGrpcServer:
    """The three services' method ``Export``, served on a port.

    Args:
        exports: takes the requests.
        host: address to bind.
        port: 0 lets the system choose.
        limits: see there.
        credentials: of TLS; None: none.
        refused: called with a reason for each refused call that leaves no dead letter, which would be counted itself: ``too_large``,
            ``bad_gzip``, ``bad_zlib``, ``bad_otlp`` (of a call with several messages), ``overloaded``,
            ``too_slow``; ``no_message`` or ``connection_lost`` when the sender left or its message is longer than `message_bytes`, which
            the library tells the sender alone.
    """

    def __init__(
        self,
        exports: OtlpExports,
        *,
        host: str = "127.0.0.1",
        port: int = 4317,
        limits: GrpcLimits | None = None,
        credentials: grpc.ServerCredentials | None = None,
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self._exports = exports
        self._address = (host, port)
        self._limits = limits or GrpcLimits()
        self._credentials = credentials
        self._refused = refused
        self._room = Room(self._limits.reading * self._limits.message_bytes)
        self._calls = 0
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listen; returns the port. Raises OSError when the address cannot be bound."""
        server = grpc.aio.server(options=_options(self._limits))
        for signal in (LOGS, TRACES, METRICS):
            # as a stream, whose first message is read when there is room for it; on the wire a single request is just that
            handler = grpc.stream_unary_rpc_method_handler(self._handler(signal))
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(signal.service, {"Export": handler}),)
            )
        host, port = self._address
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(
                f"gRPC cannot listen on {address}: is it in use, or are certificate and key no pair?"
            ) from error
        await server.start()
        self._server = server
        return int(port)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Take no more calls, finish those that there are, for at most `grace_seconds`, then close."""
        if self._server is not None:
            await self._server.stop(grace_seconds)
            self._server = None

    def _handler(self, signal: Signal) -> Callable[[Any, Any], Any]:
        async def export(_: Any, context: Any) -> bytes:
            try:
                return await self._export(signal, context)
            except asyncio.CancelledError:
                self._refused("connection_lost")
                raise

        return export

    async def _export(self, signal: Signal, context: Any) -> bytes:
        self._calls += 1
        try:
            answer = await self._answer(signal, context)
        finally:
            self._calls -= 1
        if isinstance(answer, bytes):
            return answer
        # here, where no frame that `abort`'s error passes holds the message: the library keeps that error in a cycle, until a collection
        await context.abort(answer.code, answer.message, trailing_metadata=answer.trailers)
        raise AssertionError("abort raises")

    async def _answer(self, signal: Signal, context: Any) -> "bytes | _Refusal":
        try:
            with self._room.claim() as claim:
                try:
                    body = await self._read(context, claim)
                except Malformed as error:
                    self._refused(error.label)
                    raise
                taken = await self._exports.take(body, signal, json=False, sender=_sender_of(context))
                return otlp_answer.success_protobuf(taken)
        except Overloaded as error:
            self._refused("overloaded")
            return _later(error)
        except Malformed as error:
            if isinstance(error, TooLarge):  # the others are counted, as dead letters or above
                self._refused(error.label)
            message = str(error)
            status = otlp_answer.status_protobuf(otlp_answer.INVALID_ARGUMENT, message)
            return _Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, ((_STATUS, status),))
        except TimeoutError:
            self._refused("too_slow")
            return _Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "the message did not arrive in time")

    async def _read(self, context: Any, claim: Claim) -> bytes:
        """The call's one message, decompressed; `claim` holds room for it.

        Raises:
            Malformed: none or more than one, no gzip, or too large.
            Overloaded: its turn did not come, or there is no room for what is in it.
            TimeoutError: it did not arrive in time.
        """
        limits = self._limits
        if self._calls > limits.waiting:
            raise Overloaded("too many calls at the moment")
        try:
            async with asyncio.timeout(limits.patience_seconds):
                await claim.wait(limits.message_bytes)
        except TimeoutError as error:
            raise Overloaded("too much is being received at the moment") from error
        async with asyncio.timeout(limits.read_seconds):
            message = await context.read()
            end = await context.read()
        if message is grpc.aio.EOF:
            raise Malformed(f"no message, or one of more than {limits.message_bytes} bytes", label="no_message")
        if end is not grpc.aio.EOF:
            raise Malformed("a call with several messages", label="bad_otlp")
        claim.resize(len(message))
        inflate = _INFLATE.get(message[:1])
        if inflate is not None:
            content = inflate(message, max_bytes=limits.inflated_bytes)
            claim.add(len(content))
            return content
        return bytes(message)


def _sender_of(context: Any) -> Sender:
    """The connection that a call came on."""
    return Sender(connection=hash(context.peer()))


def _later(error: Overloaded) -> _Refusal:
    """RESOURCE_EXHAUSTED with a RetryInfo, without which senders would give up (OTLP, "OTLP/gRPC Throttling")."""
    seconds = error.retry_after_seconds
    status = otlp_answer.status_protobuf(otlp_answer.RESOURCE_EXHAUSTED, str(error), retry_after_seconds=seconds)
    return _Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        str(error),
        (
            (_STATUS, status),
            ("google.rpc.retryinfo-bin", otlp_answer.retry_info(seconds)),
        ),  # the SDK of Python looks there
    )


def _options(limits: GrpcLimits) -> list[tuple[str, int]]:
    """Arguments of gRPC's core (grpc/impl/channel_arg_names.h). Times are in milliseconds."""
    return [
        (
            "grpc.so_reuseport",
            0,
        ),  # else a second sidecar on the same port would take half of the connections in silence
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.per_message_decompression", 0),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.http2.bdp_probe", 0),  # the flow control window stays at 64 KiB, whatever nobody has begun to read
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", 120_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]
