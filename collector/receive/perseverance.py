"""Tries again until it is stopped: the life of a way in that connects to a broker, whatever the broker."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable

from collector.receive.standing import BrokerStanding
from collector.retry import Breaker, RetryLimits

__all__ = ["Perseverance"]

_LIMITS = RetryLimits(cap_seconds=5.0, open_seconds=5.0)
_LASTING_SECONDS = 10.0
"""An attempt that ends sooner after `connected` is one more failure in a row: what ended it may be what comes first each time."""


class Perseverance:
    """Of one entry. For one event loop.

    Args:
        standing: hears what ended an attempt.
        known: errors whose text may be said. That of others may hold what was in a message, so they are said by their type.
        monotonic: seconds that never go back.
        limits: how far apart attempts are.
    """

    def __init__(
        self,
        standing: BrokerStanding,
        *known: type[Exception],
        monotonic: Callable[[], float] = time.monotonic,
        limits: RetryLimits = _LIMITS,
    ) -> None:
        self._standing = standing
        self._known = known
        self._breaker = Breaker(limits, uniform=random.uniform)
        self._monotonic = monotonic
        self._connected_seconds = math.inf  # of this attempt: not yet
        self.stopping = asyncio.Event()

    async def run(self, attempt: Callable[[], Awaitable[object]]) -> None:
        """Make attempts until `stop`, a little longer apart from failure to failure. `attempt` connects, says `connected`, and consumes."""
        while not self.stopping.is_set():
            self._connected_seconds = math.inf
            try:
                await attempt()
            except Exception as error:  # noqa: BLE001 - whatever the library makes of a broker's bytes, the other ways in go on
                self._standing.away((str(error) if isinstance(error, self._known) else "") or type(error).__name__)
                if self._monotonic() - self._connected_seconds >= _LASTING_SECONDS:
                    self._breaker.succeeded()
                await self.pause(self._breaker.failed())

    def connected(self) -> None:
        """The attempt has succeeded so far: the broker answers."""
        self._standing.connected()
        self._connected_seconds = self._monotonic()

    def stop(self) -> None:
        """Let `run` end, after the attempt that is being made; it looks at `stopping`."""
        self.stopping.set()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until `stop`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
