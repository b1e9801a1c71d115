"""The handshake of Fluent Forward: HELO, PING, PONG; bytes in, bytes out, no sockets here.

Fluent Forward Protocol v1, "Authentication" (https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1): both ends show
that they know a key without sending it, each with SHA-512 over a salt, its own name, the server's nonce and the key.
"""

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import msgpack
import msgspec

from collector.receive.forward_message import MessageReader

__all__ = ["MAX_PING_BYTES", "Greeting", "Handshake", "pong"]

MAX_PING_BYTES = 4_096
"""Longest PING."""

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


class Greeting:
    """The handshake with one sender.

    Attributes:
        helo: what is said first.
        over: nothing more is to be heard.
        welcome: whether the sender has shown that it knows the key; it may send once `over`.
    """

    def __init__(self, handshake: Handshake, messages: MessageReader) -> None:
        self._handshake = handshake
        self._messages = messages
        self._nonce = handshake.random(16)
        self.helo = _encode(["HELO", {"nonce": self._nonce, "auth": "", "keepalive": True}])
        self.over = False
        self.welcome = False

    def hear(self, data: bytes) -> bytes:
        """What is to be answered to the sender's next bytes (none: it has left); empty while its PING is not whole.

        Raises:
            Malformed: not MessagePack.
        """
        messages = list(self._messages.messages(data))
        self.over = bool(messages) or not data or self._messages.pending_bytes > MAX_PING_BYTES
        if not messages:
            return b""
        answer = pong(messages[0], nonce=self._nonce, handshake=self._handshake)
        # more before the PONG is against the protocol
        self.welcome = answer[1] is True and len(messages) == 1
        return _encode(answer)


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
