"""What a collector's metrics say over its several lives: counters are summed by their growth, as Prometheus' ``increase`` does."""

from __future__ import annotations

import http.client
import math
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

__all__ = ["Gauges", "read_metrics"]

_LOOK_SECONDS = 0.1
_TAKEN = "tally_collector_events_total"
_LATER = 'tally_collector_refused_total{reason="overloaded"}'
_POINTS = "tally_collector_metric_points_total"
_WAITING = "tally_collector_spool_waiting_events"
_SHIPPED, _LOGGED = "tally_collector_shipped_batch", "tally_collector_logged_batch"


class Gauges:
    """Reads ``/metrics`` of a collector again and again; what grew between the last look and a SIGKILL is not seen.

    Attributes:
        taken: events made durable.
        refusals: requests and connections that were told "later".
        points: data points of metrics that went by.
        held_seconds: the longest time between the first event and the last one in which nothing was taken.
        last_growth: `time.monotonic` when something was last taken, or stored.
    """

    def __init__(self, address: str) -> None:
        self.taken = self.refusals = self.points = 0
        self.held_seconds = 0.0
        self.last_growth = time.monotonic()
        self._address = address
        self._waiting = self._unlogged = 0.0
        self._last_taken = self.last_growth
        self._last: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_for_ever, daemon=True)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Look for the length of the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    @property
    def quiet_seconds(self) -> float:
        """For how long nothing was taken or stored."""
        return time.monotonic() - self.last_growth

    def wait_quiet(self, quiet_seconds: float, *, seconds: float) -> None:
        """Return when everything taken is stored and in the log, and nothing was taken for so long.

        Raises:
            TimeoutError: it never came to rest.
        """
        end = time.monotonic() + seconds
        while self._waiting or self._unlogged or self.quiet_seconds < quiet_seconds:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"after {seconds:.0f} s {self._waiting:.0f} events wait for the store, {self._unlogged:.0f} batches for the log"
                )
            time.sleep(_LOOK_SECONDS)

    def _look_for_ever(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            if said := read_metrics(self._address):
                self._look(said)

    def _look(self, said: dict[str, float]) -> None:
        now = time.monotonic()
        grown: Counter[str] = Counter()
        for key, value in said.items():
            if not math.isfinite(value):  # a gauge that nobody knows yet, such as the clock's offset
                continue
            before = self._last.get(key, 0.0)
            grown[key.partition("{")[0] if key.startswith(_POINTS) else key] += int(
                value - before if value >= before else value  # one that fell was started anew
            )
        if grown[_TAKEN] or said.get(_WAITING) != self._waiting:
            if self.taken and grown[_TAKEN]:
                self.held_seconds = max(self.held_seconds, now - self._last_taken)
            if grown[_TAKEN]:
                self._last_taken = now
            self.last_growth = now
        self.taken += grown[_TAKEN]
        self.refusals += grown[_LATER]
        self.points += grown[_POINTS]
        self._waiting = said.get(_WAITING, 0.0)
        self._unlogged = said.get(_SHIPPED, 0.0) - said.get(_LOGGED, 0.0)
        self._last = said


def read_metrics(address: str) -> dict[str, float]:
    """Names with labels, and their values; empty when it does not answer."""
    found: dict[str, float] = {}
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except (OSError, ValueError, http.client.HTTPException):  # nobody listens, or it was killed in the middle
        return found
    for line in lines:
        key, _, value = line.rpartition(" ")
        if key.startswith("tally_collector_"):
            found[key] = float(value)
    return found
