"""What a Forward connection gives to the intake at a time, and how much of it.

A `Group` is what its sender has one answer for: the events of one message, or of several that ask for none.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field

from collector.errors import Malformed
from collector.event import Origin
from collector.receive import Arrival
from collector.receive.room import Claim

__all__ = ["Group", "Limits", "Taking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one Forward connection may ask for.

    Attributes:
        max_message_bytes: longest message on the wire, hence the most that a connection buffers.
        max_inflated_bytes: longest content of a compressed message.
        max_records: most records in one message.
        max_joined: most messages without a chunk that are handed on as one group; none is added to so many records either.
    """

    max_message_bytes: int = 16 * 2**20
    max_inflated_bytes: int = 64 * 2**20
    max_records: int = 131_072
    max_joined: int = 1_000


@dataclass(slots=True, kw_only=True)
class Group:
    """The events of one message, or of several messages in a row that ask for no ack.

    `chunk` is the ack that the sender waits for; `refused` is what could not be decoded, with the reason; `size_bytes` is how
    long it was, decompressed. `digest`: SHA-256 of a message that may come again and that no chunk names: it is not known whether it has one, or others have the same.
    """

    origin: Origin
    arrivals: list[Arrival] = field(default_factory=list)
    refused: list[tuple[bytes, Malformed]] = field(default_factory=list)
    chunk: str | None = None
    size_bytes: int = 0
    digest: bytes = b""

    @property
    def alone(self) -> bool:
        """Whether it has a name, and so is of one message."""
        return self.chunk is not None or bool(self.digest)

    @property
    def group_id(self) -> bytes | None:
        """Names the group for the intake: the same chunk of the same tag, sent again by the same peer, is the same group."""
        peer = self.origin.peer.encode()
        named = b"%d\0%b\0" % (len(peer), peer) if peer else b""
        if self.digest:
            return hashlib.sha256(b"forward message\0%b%b" % (named, self.digest)).digest()
        if self.chunk is None:
            return None
        tag = self.origin.tag.encode()
        chunk = self.chunk.encode("utf-8", "surrogateescape")
        return hashlib.sha256(b"forward\0%b%d\0%b\0%b" % (named, len(tag), tag, chunk)).digest()


@dataclass(slots=True, kw_only=True, eq=False)
class Taking:
    """A group on its way into the intake; `patient` once it has a task that tries again."""

    group: Group
    claim: Claim
    future: asyncio.Future[object]
    patient: bool
