"""HTTP/1.1 as uvicorn speaks it with h11, and two bounds that it lacks: on a request's head that does not come, and on who holds a connection in silence.

uvicorn answers 503 while it has `limit_concurrency` connections, and waits for ever for a first request: so many silent connections would keep
everybody out (slow-loris). Here a head must be complete some seconds after its connection, or its first byte; and where the connections are at their
bound, one more takes the place of the one that has been silent longest and never made a request.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["BoundedProtocol"]


class BoundedProtocol(H11Protocol):
    """One connection. uvicorn makes it; see the module.

    Args:
        refused: called with ``slow_head`` when a head was not complete in time, ``silent`` when a connection gave its place to another.
        head_seconds: how long a request's head may take.
        rest: what uvicorn hands to its protocols.
    """

    def __init__(self, *, refused: Callable[[str], None], head_seconds: float, **rest: Any) -> None:
        super().__init__(**rest)
        self._refused = refused
        self._head_seconds = head_seconds
        self._head: asyncio.TimerHandle | None = None
        self._since = time.monotonic()
        self._has_asked = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself narrows it
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._await_head()
        limit = self.limit_concurrency
        while limit is not None and len(self.connections) >= limit and (silent := self._most_silent()) is not None:
            silent.give_place()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._has_asked = True
            self._end_awaiting()
        elif self._head is None and self.conn.trailing_data[0]:
            self._await_head()  # of the next request, of which something is there

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._end_awaiting()
        super().connection_lost(exc)

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

    def _too_slow(self) -> None:
        self._head = None
        self._refused("slow_head")
        self.transport.abort()
