"""A bound on the bytes that are held for senders at a time, whatever their number.

Limits of one message and one connection bound each sender; this bounds them all together. A way in that can make its senders wait
(Forward: by not reading) waits for room; one that cannot (HTTP) says that there is none.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from collector.errors import Overloaded

__all__ = ["Claim", "Pace", "Room", "is_slow"]

_LEAST_SHARE = 8


class Room:
    """Room for `limit_bytes`; what is larger than that has it alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used_bytes(self) -> int:
        """What is claimed just now."""
        return self._used_bytes

    def claim(self) -> "Claim":
        """A claim on no bytes yet; used as a context it gives back what it has in the end."""
        return Claim(self)

    def _fits(self, size_bytes: int) -> bool:
        return self._used_bytes == 0 or self._used_bytes + size_bytes <= self._limit_bytes

    def _take(self, size_bytes: int) -> None:
        if not self._fits(size_bytes):
            raise Overloaded("too much is being received at the moment")
        self._used_bytes += size_bytes

    def _take_at_once(self, size_bytes: int) -> bool:
        if self._waiting or not self._fits(size_bytes):
            return False
        self._used_bytes += size_bytes
        return True

    async def _wait(self, size_bytes: int) -> None:
        if self._take_at_once(size_bytes):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn had come: others may go on
                self._give_back(size_bytes)
            raise

    def _give_back(self, size_bytes: int) -> None:
        self._used_bytes -= size_bytes
        while self._waiting and (self._waiting[0][1].cancelled() or self._fits(self._waiting[0][0])):
            waiting_bytes, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._used_bytes += waiting_bytes
                turn.set_result(None)


class Claim:
    """What one sender, or one group of its events, takes of a `Room`.

    Attributes:
        held_bytes: what it has.
    """

    __slots__ = ("_room", "held_bytes")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.held_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Claim more, or less when negative. Raises `Overloaded` when there is no room; what it had it keeps."""
        if size_bytes > 0:
            self._room._take(size_bytes)  # noqa: SLF001 - the two are one
        self.held_bytes += size_bytes
        if size_bytes < 0:
            self._room._give_back(-size_bytes)  # noqa: SLF001 - the two are one

    def resize(self, size_bytes: int) -> None:
        """Claim so much in all. Raises `Overloaded` when there is no room; what it had it keeps."""
        self.add(size_bytes - self.held_bytes)

    def at_most(self, size_bytes: int) -> None:
        """Give back what is claimed beyond so much."""
        if size_bytes < self.held_bytes:
            self.resize(size_bytes)

    def at_once(self, size_bytes: int) -> bool:
        """Claim more if there is room just now and nobody waits for it; says whether it did."""
        claimed = self._room._take_at_once(size_bytes)  # noqa: SLF001 - the two are one
        if claimed:
            self.held_bytes += size_bytes
        return claimed

    async def wait(self, size_bytes: int) -> None:
        """Claim more as soon as there is room; first come, first served."""
        await self._room._wait(size_bytes)  # noqa: SLF001 - the two are one
        self.held_bytes += size_bytes

    def release(self) -> None:
        """Give everything back."""
        self.resize(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def is_slow(came_bytes: int, held_bytes: int) -> bool:
    """Whether what came in a minute is too little for what its sender holds half read: less than an eighth of it.

    A byte now and then would keep the room from everybody else for ever. At a steady rate a body or a message may take about eight minutes.
    """
    return came_bytes * _LEAST_SHARE < held_bytes


class Pace:
    """Whether a sender goes on fast enough (`is_slow`), for who hears of each piece; one that says nothing at all must be noticed otherwise.

    Args:
        seconds: how often it is looked at.
        clock: seconds that never go back.
    """

    __slots__ = ("_began", "_came_bytes", "_clock", "_seconds")

    def __init__(self, *, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._began = clock()
        self._came_bytes = 0

    def check(self, came_bytes: int, held_bytes: int) -> None:
        """So much more has come, of a sender that holds so much. Raises `Overloaded`: it is too slow."""
        self._came_bytes += came_bytes
        now = self._clock()
        if now - self._began < self._seconds:
            return
        if is_slow(self._came_bytes, held_bytes):
            raise Overloaded("what has begun to come goes on too slowly")
        self._began, self._came_bytes = now, 0
