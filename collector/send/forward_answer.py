"""What a Forward server says to its sender: HELO, PONG and acks; bytes in, values or `Unwelcome` out, no sockets here.

Fluent Forward Protocol v1, "Authentication" and "Response" (https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1),
seen from the sender's side (`collector.receive.forward_handshake` is the server's).
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from collector.errors import Overloaded

__all__ = ["Answers", "Credentials", "Unwelcome"]

_MAX_ANSWER_BYTES = 65_536
_MSGPACK_ERRORS = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)


class Unwelcome(Overloaded):
    """The server does not let us in, or does not speak Forward: a person must look, and until then nothing is sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, retry_after_seconds=5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we are to a server: our own hostname, the key that it shares with us, and a user's name and password where it asks for them."""

    hostname: str
    shared_key: bytes = field(repr=False)
    user: str = ""
    password: bytes = field(default=b"", repr=False)

    def ping(self, helo: Any, salt: str) -> tuple[list[Any], bytes, bool]:
        """The PING that answers a HELO; its nonce, and whether the connection may be kept.

        Raises:
            Unwelcome: not a HELO.
        """
        if type(helo) is not list or len(helo) != 2 or helo[0] != b"HELO" or type(helo[1]) is not dict:
            raise Unwelcome("the server did not greet as Forward servers with a key do")
        nonce, auth = helo[1].get(b"nonce", b""), helo[1].get(b"auth", b"")
        if type(nonce) is not bytes or not nonce or type(auth) is not bytes:
            raise Unwelcome("the server's greeting has no nonce")
        proof = _digest(auth, self.user.encode(), self.password) if auth else ""
        known = _digest(salt.encode(), self.hostname.encode(), nonce, self.shared_key)
        ping = ["PING", self.hostname, salt, known, self.user if auth else "", proof]
        return ping, nonce, helo[1].get(b"keepalive", True) is not False

    def check(self, pong: Any, *, salt: str, nonce: bytes) -> None:
        """Look whether a PONG lets us in, and shows that the server knows the key.

        Raises:
            Unwelcome: it does not.
        """
        if type(pong) is not list or len(pong) != 5 or pong[0] != b"PONG":
            raise Unwelcome("the server did not answer the handshake")
        _, good, reason, name, digest = pong
        if good is not True:
            told = reason.decode("utf-8", "replace")[:200] if type(reason) is bytes else ""
            raise Unwelcome(f"the server does not let us in: {told}")
        if type(name) is not bytes or type(digest) is not bytes:
            raise Unwelcome("the server did not answer the handshake")
        if not hmac.compare_digest(_digest(salt.encode(), name, nonce, self.shared_key).encode(), digest):
            raise Unwelcome("the server does not know the shared key")


class Answers:
    """Cuts what a server says into its messages.

    Args:
        read: the next bytes of the connection, at most as many as asked for; none when the server has left. May raise OSError.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=_MAX_ANSWER_BYTES)

    def next(self) -> Any:
        """The next message.

        Raises:
            Unwelcome: not MessagePack, or longer than 64 KiB.
            Overloaded: the server has left.
            OSError: the connection broke.
        """
        while True:
            try:
                return self._unpacker.unpack()
            except msgpack.OutOfData:
                pass
            except _MSGPACK_ERRORS as error:
                raise Unwelcome("the server does not speak Forward") from error
            data = self._read(16_384)
            if not data:
                raise Overloaded("the server closed the connection without an ack")
            try:
                self._unpacker.feed(data)
            except msgpack.BufferFull as error:
                raise Unwelcome("the server does not speak Forward") from error

    def ack(self, chunk: str) -> None:
        """Wait for the ack of a chunk. Raises as `next`, and `Unwelcome` when something else is said."""
        answer = self.next()
        if type(answer) is list and answer[:1] == [b"HELO"]:
            raise Unwelcome("the server demands a shared key")
        if type(answer) is not dict or answer.get(b"ack") != chunk.encode():
            raise Unwelcome("the server answered with something else than the ack")


def _digest(*parts: bytes) -> str:
    return hashlib.sha512(b"".join(parts)).hexdigest()
