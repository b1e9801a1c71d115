"""The shipping thread: when the next round is due. Lingering lets a batch grow, backoff spares a store that is down, a stop drains.

What a round does is `Ship`'s, which `collector.pipeline` is; this owns its pauses, its circuit breaker, and the last error.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from collector.errors import Overloaded, StateUnknown
from collector.retry import Breaker, RetryLimits

__all__ = ["Rounds", "Ship"]

_log = logging.getLogger(__name__)

_HEARTBEAT_CHECK_SECONDS = 1.0
_LEAST_PAUSE_SECONDS = 0.01
_MOST_PAUSE_STOPPING_SECONDS = 1.0
"""Of a drain: what is left of its time is short, so a store that comes back is not waited for as long as otherwise."""


class Ship(Protocol):
    """What is done in rounds. Every method may raise `Overloaded`, `StateUnknown` and `OSError`: the round is tried again.

    `stored_events`: how many events the store has taken since the start.
    """

    stored_events: int

    def waiting_events(self) -> int:
        """Durable events that the store does not have yet."""

    def ship_once(self) -> bool:
        """Send what there is; whether there was anything."""

    def release_once(self) -> None:
        """Let go of what the log holds."""

    def drained(self) -> bool:
        """Whether there is nothing left to do before a stop."""


class Rounds:
    """See the module.

    Args:
        ship: what is done.
        retry: how long failures make it wait.
        linger_seconds: how long events wait for more; may be changed.
        release_seconds: how often `release_once` is called.
        enough_events: may be changed; so many waiting events are sent without a pause: else every few would cost a signature and three syncs.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        ship: Ship,
        *,
        retry: RetryLimits,
        linger_seconds: float,
        release_seconds: float,
        enough_events: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ship = ship
        self._monotonic = monotonic
        self.breaker = Breaker(retry, uniform=random.uniform)
        self.linger_seconds = linger_seconds
        self._release_seconds = release_seconds
        self.enough_events = enough_events
        self.last_error = ""
        self.failed = 0
        """Rounds that failed, since the start."""
        self._waiting_since: float | None = None
        self._mark = (0.0, 0)  # a moment, and how many events were stored when all that was durable then was
        self._next_release = 0.0
        self._wake = threading.Event()
        self._enough = threading.Event()
        self._lingering = False
        self._stopping = threading.Event()
        self._stop_deadline = 0.0
        self._done = False
        self._thread: threading.Thread | None = None
        self._said_stopping = ""  # the last failure of a drain that is in the log

    @property
    def waiting_seconds(self) -> float:
        """For how long, at most, the oldest event that the store does not have has been waiting; 0 when there is none."""
        since = self._waiting_since
        return self._monotonic() - since if since is not None else 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._for_ever, name="ship", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to ship; as soon as it is enough, it waits no longer for more."""
        if not self._wake.is_set():  # looked at first: setting it takes a lock, and this comes with every commit
            self._wake.set()
        if self._lingering and self._ship.waiting_events() >= self.enough_events:
            self._lingering = False
            self._enough.set()

    def stop(self, drain_seconds: float, *, overrun_seconds: float | None = None) -> bool:
        """Return when everything is drained, or when the time is up and the round that runs has ended.

        True when the thread has ended; False when its last round, which waits for a store, has not even `overrun_seconds` after the
        time was up. None waits for it.
        """
        self._stop_deadline = time.monotonic() + drain_seconds
        self._stopping.set()
        self._wake.set()
        self._enough.set()
        if self._thread is not None:
            self._thread.join(None if overrun_seconds is None else drain_seconds + overrun_seconds)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def _for_ever(self) -> None:
        while not (self._stopping.is_set() and time.monotonic() > self._stop_deadline):
            pause_seconds = self._round()
            if self._done:
                return
            if pause_seconds == 0.0:
                continue
            if self._stopping.is_set():
                left_seconds = self._stop_deadline - time.monotonic()
                time.sleep(max(0.0, min(pause_seconds, _MOST_PAUSE_STOPPING_SECONDS, left_seconds)))
                continue
            if self.breaker.failures == 0:
                self._wake.wait(timeout=_HEARTBEAT_CHECK_SECONDS)
                self._wake.clear()
                self._linger(pause_seconds)
            else:  # the backoff
                self._stopping.wait(pause_seconds)

    def _linger(self, most_seconds: float) -> None:
        """Let the batch grow, but no further than is enough: more would be shipped in one go, and who wants an ack in that moment waits for the interpreter."""
        self._enough.clear()
        self._lingering = True  # from here on `wake` looks; what was there before is seen here
        if self._ship.waiting_events() < self.enough_events and not self._stopping.is_set():
            self._enough.wait(most_seconds)
        self._lingering = False

    def _see_age(self) -> None:
        """Under steady load something waits at every look, so what counts is when the last of what waited then was stored."""
        now, waiting, stored = self._monotonic(), self._ship.waiting_events(), self._ship.stored_events
        if not waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
            self._mark = (now, stored + waiting)
        elif stored >= self._mark[1]:
            self._waiting_since = self._mark[0]
            self._mark = (now, stored + waiting)

    def _round(self) -> float:
        """Send and release; returns the seconds to pause, 0 when there is more to do."""
        self._see_age()
        try:
            if self._stopping.is_set() and self._ship.drained():
                self._done = True
                return 0.0
            progressed = self._ship.ship_once()
            self.breaker.succeeded()
            if time.monotonic() >= self._next_release:
                self._next_release = time.monotonic() + self._release_seconds
                self._ship.release_once()
        except Overloaded as error:
            pause_seconds = self.breaker.failed(at_least_seconds=_LEAST_PAUSE_SECONDS)
            self._failed(str(error))
            self._say(logging.WARNING, pause_seconds, str(error))
            return pause_seconds
        except (OSError, StateUnknown) as error:
            pause_seconds = self.breaker.failed(at_least_seconds=1.0)
            self._failed(str(error))
            self._say(logging.ERROR, pause_seconds, str(error))
            return pause_seconds
        except Exception as error:  # noqa: BLE001 - a defect, or a driver's own error: shipping must not end in silence
            pause_seconds = self.breaker.failed(at_least_seconds=1.0)
            self._failed(f"{type(error).__name__}: {error}")
            _log.exception("shipping waits %.1f s", pause_seconds)
            return pause_seconds
        if progressed:
            if self._ship.waiting_events() >= self.enough_events:
                return 0.0
            self._wake.set()  # what it left behind, as a batch that was cut by its bytes does, lingers, and no longer
        return max(self.linger_seconds, _LEAST_PAUSE_SECONDS)

    def _say(self, level: int, pause_seconds: float, error: str) -> None:
        """In the log: each failure, whose pauses grow; of a drain, whose trials follow each other closely, only what is new."""
        if not self._stopping.is_set():
            _log.log(level, "shipping waits %.1f s: %s", pause_seconds, error)
        elif error != self._said_stopping:
            self._said_stopping = error
            _log.log(level, "draining, and the store does not take it: %s", error)

    def _failed(self, error: str) -> None:
        self.failed += 1
        self.last_error = error
