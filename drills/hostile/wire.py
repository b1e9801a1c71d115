"""Sockets for attackers: what the other side does to them is of no interest, so no error is."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

__all__ = ["connected", "http_request", "knock", "linger", "say"]

_ANSWER_SECONDS = 10.0


def connected(address: str, *, seconds: float = _ANSWER_SECONDS) -> socket.socket | None:
    """A connection to `host:port`; None when there is none to be had."""
    host, _, port = address.rpartition(":")
    with suppress(OSError):
        return socket.create_connection((host, int(port)), timeout=seconds)
    return None


def say(address: str, pieces: Iterable[bytes], *, answer_seconds: float = 2.0) -> bytes:
    """Send the pieces until they are refused, end the sending half, and give what is answered until the other side closes or time is up."""
    heard = b""
    connection = connected(address)
    if connection is None:
        return heard
    with connection:
        with suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        end = time.monotonic() + answer_seconds
        with suppress(OSError):
            while (left := end - time.monotonic()) > 0:
                connection.settimeout(left)
                data = connection.recv(65_536)
                if not data:
                    break
                heard += data
    return heard


def knock(address: str) -> None:
    """Speak TLS without a certificate of one's own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = connected(address)
    if connection is not None:
        with connection, suppress(OSError), context.wrap_socket(connection) as secure:
            secure.sendall(b"5 hello")
            secure.recv(1)  # in TLS 1.3 the refusal comes behind the handshake


def linger(connections: Sequence[socket.socket], *, reset: bool) -> None:
    """Close them, with RST instead of FIN where asked for."""
    for one in connections:
        with suppress(OSError):
            if reset:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()


def http_request(path: str, body: bytes, *, kind: str, length: int | None = None, **headers: str) -> bytes:
    """A request; `length` is what it says of its body's, and may lie."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body) if length is None else length}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
