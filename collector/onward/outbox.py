"""What waits for the metrics server: a queue in memory with a bound, and the thread that sends it, in order.

One request at a time, so that the samples of a series arrive in their order. When the queue is full its oldest goes, since the newest says most; what has
waited too long goes, since Prometheus would refuse it. Everything that goes is counted.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from collector.onward.endpoint import Later, Refused
from collector.retry import Breaker, RetryLimits

__all__ = ["Counting", "Outbox", "Part", "Way"]

_log = logging.getLogger(__name__)

_LAST_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is sent in one go: so many data points, and whatever else a way needs.

    `unsayable`: so many that the way has no words for; `overtaken`: so many that are no newer than what another series of the same name has sent;
    `empty`: there is nothing to send.
    """

    points: int
    unsayable: int = 0
    overtaken: int = 0
    empty: bool = False


class Way(Protocol):
    """A protocol to send by."""

    def parts(self, request: bytes) -> Iterator[Part]:
        """A serialised ExportMetricsServiceRequest as what is sent, in this order; each is made when the one before is done with."""

    def send(self, part: Part) -> int:
        """Send it; returns how many data points were taken. Raises `Later` and `Refused`."""

    def close(self) -> None:
        """Nothing more is sent."""


class Counting(Protocol):
    """What is counted of it. Called from several threads."""

    def metric_points_sent(self, points: int) -> None:
        """So many data points were taken by the server."""

    def metric_points_dropped(self, reason: str, points: int) -> None:
        """So many were not, and will not be."""

    def metric_request_answered(self, result: str) -> None:
        """A request was ``taken``, ``refused``, or is to come again ``later``."""


class _Waiting(NamedTuple):
    request: bytes
    points: int
    since: float


class Outbox:
    """Takes requests, and sends them in a thread of its own.

    Args:
        way: how.
        name: of the server, for the log.
        counting: hears what becomes of them.
        limit_bytes: what waits at most.
        max_age_seconds: and for how long.
        retry: how long is waited after failures.
        monotonic: seconds that only rise.
    """

    def __init__(
        self,
        way: Way,
        *,
        name: str,
        counting: Counting,
        limit_bytes: int,
        max_age_seconds: float,
        retry: RetryLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._way = way
        self._name = name
        self._counting = counting
        self._limit_bytes = limit_bytes
        self._max_age_seconds = max_age_seconds
        self._breaker = Breaker(retry or RetryLimits(cap_seconds=30.0, open_seconds=30.0), uniform=random.uniform)
        self._monotonic = monotonic
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stop_at: float | None = None
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="metrics-onward", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """What waits, and what is being sent."""
        return self._bytes

    @property
    def trouble(self) -> str:
        """Why nothing goes on at present; empty when it does."""
        return self._trouble

    def put(self, request: bytes, points: int) -> None:
        """Let a request with so many points wait; the oldest go where there is no room."""
        gone = 0
        with self._changed:
            if self._stop_at is not None or len(request) > self._limit_bytes:
                self._counting.metric_points_dropped("queue_full" if self._stop_at is None else "stopped", points)
                return
            while self._queue and self._bytes + len(request) > self._limit_bytes:
                oldest = self._queue.popleft()
                self._bytes -= len(oldest.request)
                gone += oldest.points
            self._queue.append(_Waiting(request, points, self._monotonic()))
            self._bytes += len(request)
            self._changed.notify()
        if gone:
            self._counting.metric_points_dropped("queue_full", gone)

    def close(self, flush_seconds: float) -> None:
        """Take no more, and wait until everything is sent, for so long at most; what is not is dropped."""
        with self._changed:
            self._stop_at = self._monotonic() + flush_seconds
            self._changed.notify()
        self._thread.join(flush_seconds + 1.0)  # a request that hangs is left to its time-out
        with self._changed:
            left = sum(one.points for one in self._queue)
            self._queue.clear()
        if left:
            self._counting.metric_points_dropped("stopped", left)
            _log.warning(
                "%d data points of metrics were not sent to %s any more: %s",
                left,
                self._name,
                self._trouble or "no time",
            )

    def _run(self) -> None:
        while (waiting := self._next()) is not None:
            self._send(waiting)
            with self._changed:
                self._bytes -= len(waiting.request)
        self._way.close()

    def _next(self) -> _Waiting | None:
        """The oldest, as soon as there is one; None when it is time to end."""
        with self._changed:
            while not self._queue and self._stop_at is None:
                self._changed.wait()
            return None if not self._queue or self._over() else self._queue.popleft()

    def _send(self, waiting: _Waiting) -> None:
        left = waiting.points
        reason = ""
        try:
            for part in self._way.parts(waiting.request):
                for why, points in (("name", part.unsayable), ("same_name", part.overtaken)):
                    if points:
                        self._counting.metric_points_dropped(why, points)
                        left -= points
                reason = "" if part.empty else self._send_part(part, waiting.since)
                if reason:
                    break
                left -= part.points
        except Exception as error:  # noqa: BLE001 - the thread goes on with the next, whatever this one held
            _log.error("metrics could not be sent: %s", type(error).__name__)
            reason = "failed"
        if reason and left:
            self._counting.metric_points_dropped(reason, left)

    def _send_part(self, part: Part, since: float) -> str:
        """Send it, however often that takes; returns why no more is to be sent of its request, empty when the next part may follow."""
        while True:
            if self._monotonic() - since > self._max_age_seconds:
                return "too_old"
            if self._over():
                return "stopped"
            try:
                taken = self._way.send(part)
            except Refused as error:
                self._counting.metric_request_answered("refused")
                self._counting.metric_points_sent(error.taken)
                self._counting.metric_points_dropped("refused", part.points - error.taken)
                self._breaker.succeeded()  # it is there
                self._say(f"it refuses them: {error}")
                return ""
            except Later as error:
                self._counting.metric_request_answered("later")
                self._say(str(error))
                self._wait(self._breaker.failed(at_least_seconds=error.after_seconds))
            else:
                self._counting.metric_request_answered("taken")
                self._counting.metric_points_sent(taken)
                if taken < part.points:
                    self._counting.metric_points_dropped("not_written", part.points - taken)
                self._breaker.succeeded()
                self._say("")
                return ""

    def _over(self) -> bool:
        return self._stop_at is not None and self._monotonic() >= self._stop_at

    def _wait(self, seconds: float) -> None:
        """As long, or until a stop begins; from then on what is left is tried again soon, whatever the server asks for: there is no later."""
        with self._changed:
            if self._stop_at is None:
                self._changed.wait_for(lambda: self._stop_at is not None, timeout=seconds)
            else:
                left = self._stop_at - self._monotonic()
                self._changed.wait_for(lambda: False, timeout=max(min(seconds, _LAST_WAIT_SECONDS, left), 0.0))

    def _say(self, trouble: str) -> None:
        """Into the log, once for each change between trouble and none."""
        if trouble and not self._trouble:
            _log.warning("metrics do not go on to %s: %s", self._name, trouble)
        elif self._trouble and not trouble:
            _log.info("metrics go on to %s again", self._name)
        self._trouble = trouble
