"""The handshake of Fluent Forward: HELO, PING, PONG; bytes in, bytes out, no sockets here.

Fluent Forward Protocol v1, "Authentication" (https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1): both ends show
that they know a key without sending it, each with SHA-512 over a salt, its own name, the server's nonce and the key. A client
may have a key of its own, named by the hostname that it states; users show in the same way that they know their password.
What is not known costs as much as what is: the digests are always computed, and compared in constant time.
"""

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgpack
import msgspec

from collector.receive.forward_framing import Framing

__all__ = ["MAX_PING_BYTES", "Greeting", "Handshake"]

MAX_PING_BYTES = 4_096
"""Longest PING."""

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What is demanded of a sender before it may send.

    Attributes:
        shared_key: of clients that have none of their own; None: there are no others.
        client_keys: a client's hostname to its own key; the shared one does not open for it.
        passwords: a user's name to the password; when there are any, a user is demanded as well.
        hostname: our own name.
        timeout_seconds: how long a sender may take.
        random: so many random bytes as asked for: the nonce, and the salt of passwords.
    """

    shared_key: bytes | None = field(default=None, repr=False)
    client_keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    passwords: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    hostname: str = "tallystick"
    timeout_seconds: float = 10.0
    random: Callable[[int], bytes] = os.urandom


class Greeting:
    """The handshake with one sender.

    Attributes:
        helo: what is said first.
        over: nothing more is to be heard.
        silent: the sender has left without a word, as fluentd's heartbeats over TCP do.
        welcome: whether the sender has shown that it knows what it must; it may send once `over`.
        peer: who it is, as far as that was shown and is not shared with others: ``user:NAME`` or ``client:HOSTNAME``, else empty.
    """

    def __init__(self, handshake: Handshake, framing: Framing) -> None:
        self._handshake = handshake
        self._framing = framing
        self._nonce = handshake.random(16)
        self._auth = handshake.random(16) if handshake.passwords else b""
        self.helo = _encode(["HELO", {"nonce": self._nonce, "auth": self._auth or "", "keepalive": True}])
        self.over = False
        self.silent = False
        self.welcome = False
        self.peer = ""

    def hear(self, data: bytes) -> bytes:
        """What is to be answered to the sender's next bytes (none: it has left); empty while its PING is not whole.

        Raises:
            Malformed: not MessagePack.
        """
        self._framing.feed(data)
        messages = list(iter(self._framing.next_message, None))
        self.over = bool(messages) or not data or self._framing.pending_bytes > MAX_PING_BYTES
        self.silent = not data and not self._framing.pending_bytes
        if not messages:
            return b""
        answer = self._pong(messages[0])
        # more before the PONG is against the protocol
        self.welcome = answer[1] is True and len(messages) == 1
        return _encode(answer)

    def _pong(self, ping: bytes) -> list[object]:
        """The answer to a PING message: PONG with true and our own digest, or with false and the reason."""
        try:
            parts = msgpack.unpackb(ping, raw=True) if len(ping) <= MAX_PING_BYTES else None
        except (ValueError, TypeError, KeyError, RecursionError, msgpack.UnpackException):
            parts = None
        if not (type(parts) is list and len(parts) == 6 and all(type(part) is bytes for part in parts)):
            return _refusal("invalid ping message")
        word, hostname, salt, digest, user, password_digest = parts
        if word != b"PING":
            return _refusal("invalid ping message")
        key, own = self._key_of(hostname)
        if not self._shown(digest, salt, hostname, self._nonce, secret=key):
            return _refusal("shared key mismatch")
        if self._handshake.passwords and not self._shown(
            password_digest, self._auth, user, secret=self._handshake.passwords.get(_text(user))
        ):
            return _refusal("username/password mismatch")
        if self._handshake.passwords:
            self.peer = f"user:{_ascii(user)}"
        elif own:
            self.peer = f"client:{_ascii(hostname)}"
        assert key is not None
        name = self._handshake.hostname
        return ["PONG", True, "", name, hashlib.sha512(salt + name.encode() + self._nonce + key).hexdigest()]

    def _key_of(self, hostname: bytes) -> tuple[bytes | None, bool]:
        own = self._handshake.client_keys.get(_text(hostname))
        return (self._handshake.shared_key, False) if own is None else (own, True)

    def _shown(self, digest: bytes, *parts: bytes, secret: bytes | None) -> bool:
        """Whether the digest is that of the parts and the secret. Where there is no secret as much is done in vain."""
        decoy = self._handshake.random(32)
        expected = hashlib.sha512(b"".join(parts) + (decoy if secret is None else secret))
        return hmac.compare_digest(expected.hexdigest().encode(), digest) and secret is not None


def _refusal(reason: str) -> list[object]:
    return ["PONG", False, reason, "", ""]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _ascii(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
