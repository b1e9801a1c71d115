"""A publisher that goes on while a collector is killed, and the kills: for tests of what consumes a broker."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from tests.support.collector_process import CollectorProcess

__all__ = ["Publisher", "kill_under_way"]

_PATIENCE_SECONDS = 60.0


class Publisher(threading.Thread):
    """Hands names to `publish`, which returns when the broker has them, until it is ended.

    Attributes:
        names: what the broker has.
    """

    def __init__(self, publish: Callable[[Sequence[str]], Awaitable[object]], *, at_once: int = 100) -> None:
        super().__init__(daemon=True)
        self.names: list[str] = []
        self._publish = publish
        self._at_once = at_once
        self._done = threading.Event()

    def run(self) -> None:
        """See the class."""
        while not self._done.wait(0.02):
            names = [f"message {len(self.names) + at}" for at in range(self._at_once)]
            asyncio.run(self._await(names))
            self.names += names

    async def _await(self, names: Sequence[str]) -> None:
        await self._publish(names)

    def end(self) -> None:
        """Publish no more; what is being published is finished."""
        self._done.set()
        if self.is_alive():
            self.join(timeout=_PATIENCE_SECONDS)


def kill_under_way(
    collector: CollectorProcess,
    publisher: Publisher,
    *,
    kills: int,
    seed: int,
    held: Callable[[], Counter[str]] | None = None,
) -> None:
    """Kill the collector so often, each time while it takes what comes; then every name is to be stored once, and it stops.

    `held`: what the broker has, where a publisher whose connection broke may have brought some of it there twice: then that is to be stored.
    """
    instants = random.Random(seed)
    told = f"seed {seed}, {kills} kills"
    try:
        collector.start()
        publisher.start()
        for _ in range(kills):
            _wait_until_more_than(collector, len(collector.stored()), told)  # it consumes
            time.sleep(instants.expovariate(1 / 0.2))  # the instant of the kill is what is tested
            collector.kill()
            collector.start()
        publisher.end()
        _wait_until_more_than(collector, len(publisher.names) - 1, told)
        collector.stop()
    finally:
        publisher.end()
        collector.close()
    counts = Counter(str(event.body) for event in collector.stored())
    names = held() if held is not None else Counter(publisher.names)
    assert not Counter(publisher.names) - names
    assert not names - counts, f"lost: {list((names - counts).elements())[:9]}, {told}"
    assert not counts - names, f"doubled: {list((counts - names).elements())[:9]}, {told}"


def _wait_until_more_than(collector: CollectorProcess, count: int, told: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (stored := len(collector.stored())) <= count:
        assert time.monotonic() < deadline, f"{stored} are stored, more than {count} should be: {told}"
        time.sleep(0.1)
