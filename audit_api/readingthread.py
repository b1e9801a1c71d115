"""The thread that reads ledger, index and store for the API, and who goes first in it."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["ReadingThread"]

_Result = TypeVar("_Result")

COURTESY_SECONDS = 0.1
"""So long a step of an export lets requests go first, and no longer: it comes to its end all the same."""

_QUIET_SECONDS = 1.0
"""After so long without a request an export need not rest between its steps."""


class ReadingThread:
    """One thread: index and store are for one thread at a time, and what it does is short or done in steps. Close it in the end.

    Args:
        monotonic: seconds that only go forward.
    """

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tally-api-read")
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_asked = -_QUIET_SECONDS

    @contextmanager
    def asked(self) -> Iterator[None]:
        """A request that is under way meanwhile: exports let it go first."""
        self._under_way += 1
        self._last_asked = self._monotonic()
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run a function in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def run_last(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """As `run`, for a step of an export: requests under way go first, for up to `COURTESY_SECONDS`.

        While there are requests at all, a step is followed by a rest as long as itself: a thread that never rests is
        the last that the kernel lets run again, and requests are read in this one.
        """
        if not self._idle.is_set():
            try:
                await asyncio.wait_for(self._idle.wait(), COURTESY_SECONDS)
            except TimeoutError:
                pass
        began = self._monotonic()
        result = await self.run(function, *arguments)
        now = self._monotonic()
        if now - self._last_asked < _QUIET_SECONDS:
            await asyncio.sleep(min(now - began, COURTESY_SECONDS))
        return result

    def close(self) -> None:
        """Wait for what is under way, and let the thread go."""
        self._pool.shutdown(wait=True)
