"""HTTP/1.1 as uvicorn speaks it with h11, and bounds that it lacks: on a request whose head or body does not come, and on who holds a connection in silence.

uvicorn answers 503 while it has `limit_concurrency` connections, and waits for ever for a first request, and for the rest of one: so many silent connections would keep
everybody out (slow-loris), and hosts that vanish in the middle of a request would add up to as many. Here a head must be complete some seconds after its connection, or
its first byte; of a body something must come every so many seconds; and where the connections are at their bound, one more takes the place of the one that has been silent
longest and never made a request. Whether the process lives and can take events is answered whatever the bound: whoever supervises it would end it else.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["BoundedProtocol"]

_ALWAYS_ANSWERED = ("/livez", "/readyz")


class BoundedProtocol(H11Protocol):
    """One connection. uvicorn makes it; see the module.

    Args:
        refused: called with ``slow_head`` when a head was not complete in time, ``stalled`` when nothing more came of a body, ``silent`` when a connection gave
            its place to another.
        head_seconds: how long a request's head may take.
        stalled_seconds: a connection on which nothing comes for so long in the middle of a body is closed.
        rest: what uvicorn hands to its protocols.
    """

    def __init__(
        self, *, refused: Callable[[str], None], head_seconds: float, stalled_seconds: float, **rest: Any
    ) -> None:
        super().__init__(**rest)
        self._refused = refused
        self._stalled_seconds = stalled_seconds
        self._body: asyncio.TimerHandle | None = None
        self._reads = 0
        self._head_seconds = head_seconds
        self._head: asyncio.TimerHandle | None = None
        self._since = time.monotonic()
        self._has_asked = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself narrows it
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a sender that vanished frees its place
        self._await_head()
        limit = self._limit
        while limit is not None and len(self.connections) >= limit and (silent := self._most_silent()) is not None:
            silent.give_place()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        self._reads += 1
        if self.conn.their_state is not h11.IDLE:
            self._has_asked = True
            self._end_awaiting()
            if self._body is None and self.conn.their_state is h11.SEND_BODY:
                self._await_body()
        elif self._head is None and self.conn.trailing_data[0]:
            self._await_head()  # of the next request, of which something is there

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._end_awaiting()
        if self._body is not None:
            self._body.cancel()
        super().connection_lost(exc)

    @property
    def limit_concurrency(self) -> int | None:
        """Where uvicorn answers 503, of the request whose head has come; None: it does not."""
        return None if self.scope["path"] in _ALWAYS_ANSWERED else self._limit

    @limit_concurrency.setter
    def limit_concurrency(self, limit: int | None) -> None:
        self._limit = limit

    @property
    def silent_since(self) -> float | None:
        """`time.monotonic` of its beginning, while it has made no request; else None."""
        return None if self._has_asked else self._since

    def give_place(self) -> None:
        """End at once, in favour of another."""
        self._refused("silent")
        self.connections.discard(self)
        self.transport.abort()

    def _most_silent(self) -> "BoundedProtocol | None":
        silent = [
            (one.silent_since, at, one)
            for at, one in enumerate(self.connections)
            if isinstance(one, BoundedProtocol) and one is not self and one.silent_since is not None
        ]
        return min(silent)[2] if silent else None

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self._head_seconds, self._too_slow)

    def _end_awaiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _await_body(self) -> None:
        # one timer for all of a body's reads, and for the bodies that follow
        self._body = self.loop.call_later(self._stalled_seconds, self._see_whether_more_came, self._reads)

    def _see_whether_more_came(self, reads_before: int) -> None:
        self._body = None
        if self.conn.their_state is not h11.SEND_BODY:
            return
        if self._reads == reads_before and not self.flow.read_paused:  # who waits for us is not read
            self._refused("stalled")
            self.transport.abort()
        else:
            self._await_body()

    def _too_slow(self) -> None:
        self._head = None
        self._refused("slow_head")
        self.transport.abort()
