"""A consumer of a broker that runs while a block does: for tests of the ways in that fetch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self

from collector.receive.standing import BrokerReport
from collector.way import Running

__all__ = ["Consumption"]


class Consumption:
    """`make` gives the consumer, which tells its standing to what it is given.

    Attributes:
        reports: what it has told: system, entry, 1 if the broker answers, and how many messages were taken.
    """

    def __init__(self, make: Callable[[BrokerReport], Running]) -> None:
        self.reports: list[tuple[str, str, int, int]] = []
        self._consumer = make(lambda *told: self.reports.append(told))

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._consumer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._consumer.stop()
        await asyncio.wait_for(asyncio.wait([self._task]), 30)
        if not self._task.cancelled():
            self._task.result()

    async def crash(self) -> None:
        """End it in the middle of what it does."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until `condition` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self._task.done(), self._task
            assert time.monotonic() < deadline, "what was waited for did not come"
            await asyncio.sleep(0.02)
