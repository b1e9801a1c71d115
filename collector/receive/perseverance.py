"""Tries again until it is stopped: the life of a way in that connects to a broker, whatever the broker."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from collector.receive.standing import BrokerStanding
from collector.retry import Breaker, RetryLimits

__all__ = ["Perseverance"]

_LIMITS = RetryLimits(cap_seconds=5.0, open_seconds=5.0)


class Perseverance:
    """Of one entry. For one event loop.

    Args:
        standing: hears what ended an attempt.
        known: errors whose text may be said. That of others may hold what was in a message, so they are said by their type.
    """

    def __init__(self, standing: BrokerStanding, *known: type[Exception]) -> None:
        self._standing = standing
        self._known = known
        self._breaker = Breaker(_LIMITS, uniform=random.uniform)
        self.stopping = asyncio.Event()

    async def run(self, attempt: Callable[[], Awaitable[object]]) -> None:
        """Make attempts until `stop`, a little longer apart from failure to failure. `attempt` connects, says `connected`, and consumes."""
        while not self.stopping.is_set():
            try:
                await attempt()
            except Exception as error:  # noqa: BLE001 - whatever the library makes of a broker's bytes, the other ways in go on
                self._standing.away((str(error) if isinstance(error, self._known) else "") or type(error).__name__)
                await self.pause(self._breaker.failed())

    def connected(self) -> None:
        """The attempt has succeeded so far: the broker answers."""
        self._standing.connected()
        self._breaker.succeeded()

    def stop(self) -> None:
        """Let `run` end, after the attempt that is being made; it looks at `stopping`."""
        self.stopping.set()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until `stop`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
