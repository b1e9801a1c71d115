"""A bound on the bytes that are held for senders at a time, whatever their number.

Limits of one message and one connection bound each sender; this bounds them all together. A way in that can make its senders wait
(Forward: by not reading) waits for room; one that cannot (HTTP) says that there is none.
"""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from collector.errors import Overloaded

__all__ = ["Claim", "Room"]


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
