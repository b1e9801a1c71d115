"""The UDP heartbeat of Forward protocol v0: a packet in, a packet back (fluentd's ``heartbeat_type udp``).

fluentd's out_forward takes a server for dead that does not answer. The answer is one zero byte, never longer than the question.
"""

import asyncio
from typing import Any, cast

__all__ = ["Heartbeat"]

_ANSWER = b"\0"


class Heartbeat(asyncio.DatagramProtocol):
    """Answers each packet; an empty one is let pass, since the answer to it would be longer than itself."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: the socket is there."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Called by asyncio: a packet has come."""
        if data and self._transport is not None and not self._full:
            self._transport.sendto(_ANSWER, addr)

    def pause_writing(self) -> None:
        """Called by asyncio: the system takes no packets. Answers are not queued: the sender asks again."""
        self._full = True

    def resume_writing(self) -> None:
        """Called by asyncio: the system takes packets again."""
        self._full = False
