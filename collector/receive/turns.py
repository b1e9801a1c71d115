"""The event loop's time, shared between senders: nobody's work keeps the others unheard for longer than one message, or some small ones that are one group.

A turn of the loop calls everybody who has sent something. Work is done at once while the turn is young, so who sends a little waits for nobody.
When the turn has had its time, what is left to do waits, each sender with one message; then the loop first hears whoever has sent something meanwhile, and
serves one or a few of those who wait. That is start-time fair queuing (Goyal, Vin and Cheng, 1996) of seconds, but not to the last of them: who has been served
about as much as the others is served in the order of coming, who has been served less comes first, and who has been served more waits until they have caught up. What is done at
once counts, too, and only who has been served less than all who wait may do so: else who is heard early in each turn would overtake them for ever.
What counts is the thread's own time on a core: of work that is alike, who was kept waiting by another thread in the middle has not been served more.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

from collector.sender import Sender

__all__ = ["LoopTime", "Share", "Turns"]

_TURN_SECONDS = 0.004
_CREDIT_SECONDS = 0.25
"""So much of what it did not use a quiet sender has ahead of those that are always served, and no more."""

_ALIKE_SECONDS = 0.02
"""Who is so far ahead or behind has been served alike. Were the least always first, a millisecond of chance would serve one of eight twice and let another wait for two rounds."""

_SLOTS = 256  # shares of a way in; see `collector.shares`


class LoopTime:
    """The time of one event loop.

    Args:
        turn_seconds: after so long, what is left waits for another turn.
        clock: seconds that never go back.
        worked: seconds that the calling thread has worked.
    """

    def __init__(
        self,
        *,
        turn_seconds: float = _TURN_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
        worked: Callable[[], float] = time.thread_time,
    ) -> None:
        self._turn_seconds = turn_seconds
        self._clock = clock
        self._worked = worked
        self._began: float | None = None  # this turn; None: nobody has worked in it
        self._coming = (
            False  # the end of this turn, or the serving that follows, is scheduled: once, or turns would multiply
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[tuple[float, int, float, Share, Callable[[], object]]] = []
        self._order = itertools.count()
        self._virtual_seconds = 0.0
        self._serving: Share | None = None
        self._at_once: Share | None = None  # works at once; what it does is counted at the next look
        self._since = 0.0  # by `worked`: what is being done began

    def admits(self, share: "Share") -> bool:
        """Whether there is time in this turn of the loop for who asks, before all who wait."""
        now = self._clock()
        self._count()
        if self._began is None:
            self._began = now
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            if not self._coming:
                self._coming = True
                self._loop.call_soon(self._next)
        elif now - self._began >= self._turn_seconds:
            return False
        start = self._start(share)
        if share.waiting or (self._waiting and self._place(start) >= self._waiting[0][0]):
            return False
        if share is not self._serving:
            self._virtual_seconds = max(self._virtual_seconds, start)
            share.served_seconds, self._at_once, self._since = start, share, self._worked()
        return True

    def put(self, share: "Share", work: Callable[[], object]) -> None:
        """Let it wait; `admits` was asked in this turn, so that there is a next."""
        start = self._start(share)
        heapq.heappush(self._waiting, (self._place(start), next(self._order), start, share, work))

    def _place(self, start: float) -> float:
        """Its place among those who wait; of equals, who came first. Who is served alike stands where the clock of all does, and that never goes back: so in the order of coming."""
        return min(max(self._virtual_seconds, start - _ALIKE_SECONDS), start + _ALIKE_SECONDS)

    def _start(self, share: "Share") -> float:
        """What it has been served, and no less than the credit allows."""
        served_seconds = share.served_seconds
        if share is self._serving:  # what it is doing counts already
            served_seconds += self._worked() - self._since
        return max(served_seconds, self._virtual_seconds - _CREDIT_SECONDS)

    def _count(self) -> None:
        if self._at_once is not None:
            self._at_once.served_seconds += self._worked() - self._since
            self._at_once = None

    def _next(self) -> None:
        """A turn begins. What waits is served in the one after it: first is heard who has sent something."""
        self._count()
        self._began = None
        self._coming = bool(self._waiting)
        if self._coming:
            assert self._loop is not None
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        assert self._loop is not None
        self._count()
        self._began, self._since = self._clock(), self._worked()
        self._loop.call_soon(self._next)
        while self._waiting:
            _, _, start, share, work = heapq.heappop(self._waiting)
            self._virtual_seconds = max(self._virtual_seconds, start)
            share.waiting -= 1
            share.served_seconds, self._serving = start, share
            try:
                work()
            finally:
                self._serving = None
            worked_seconds = self._worked()
            share.served_seconds = start + max(worked_seconds - self._since, share.least_seconds)
            share.least_seconds = 0.0
            if share.woken:  # a task, which works when we have returned
                share.woken = False
                return
            if self._clock() - self._began >= self._turn_seconds:
                return
            self._since = worked_seconds


class Share:
    """What one sender has of it.

    Attributes:
        served_seconds: how far its service has come, on the clock of what all have been served.
        waiting: how much of its work waits.
    """

    def __init__(self, loop_time: LoopTime, waited: Callable[[], object]) -> None:
        self._loop_time = loop_time
        self._waited = waited
        self.served_seconds = 0.0
        self.waiting = 0
        self.least_seconds = 0.0
        self.woken = False

    def may_go_on(self) -> bool:
        """Whether there is time for its next message in this turn of the loop; never before who waits and has been served less."""
        return self._loop_time.admits(self)

    def later(self, work: Callable[[], object]) -> None:
        """Have work done when it is its turn."""
        self.waiting += 1
        self._waited()
        self._loop_time.put(self, work)

    async def turn(self) -> None:
        """Return when it is its turn: at once, unless this turn of the loop has had its time, or is another's. For who works in a task."""
        if self.may_go_on():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not turn.done():  # nobody gave up
                turn.set_result(None)
                self.woken, self.least_seconds = True, _TURN_SECONDS

        self.later(wake)
        await turn


class Turns:
    """The shares of one way in. `waited` is called each time that one of its senders must wait."""

    def __init__(self, loop_time: LoopTime | None = None, waited: Callable[[], object] = lambda: None) -> None:
        self._loop_time = loop_time or LoopTime()
        self._waited = waited
        self._shares: dict[int, Share] = {}

    def of(self, sender: Sender) -> Share:
        """The share of a connection; two may have one together where there are very many."""
        slot = sender.connection % _SLOTS
        share = self._shares.get(slot)
        if share is None:
            share = self._shares[slot] = Share(self._loop_time, self._waited)
        return share
