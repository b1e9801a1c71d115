"""The writer's sign of life: a head that nothing is written to is renewed, so that who stands by does not take over."""

from collections.abc import Callable

from correlator.errors import Overloaded
from correlator.log import AuditLog

__all__ = ["Heartbeat"]

Progress = Callable[[int, int], None]


class Heartbeat:
    """Renews the head of an open log when it has not changed for a while, by this process's monotonic clock alone.

    It beats in the thread that does the work, not in one of its own: a correlator that hangs must look like one.

    Args:
        log: open for writing.
        every_seconds: how old the head may become.
        monotonic_ns: a clock that never goes back, in nanoseconds.
    """

    def __init__(self, log: AuditLog, *, every_seconds: float, monotonic_ns: Callable[[], int]) -> None:
        self._log = log
        self._every_ns = int(every_seconds * 1e9)
        self._monotonic_ns = monotonic_ns
        self._swaps = log.swaps
        self._since_ns = monotonic_ns()

    def beat(self) -> None:
        """Renew the head if it is due. To be called between any two pieces of work; costs nothing when it is not due.

        Raises:
            Overloaded: the head could not be written; the next beat tries again.
            StateUnknown: another writer has taken over, or the storage failed.
        """
        now_ns = self._monotonic_ns()
        if self._log.swaps == self._swaps and now_ns - self._since_ns >= self._every_ns:
            self._log.renew()
        self._log.reclaim()
        if self._log.swaps != self._swaps:
            self._swaps = self._log.swaps
            self._since_ns = now_ns

    def during(self, progress: Progress | None) -> Progress:
        """A `progress` for long work (a replay of the log, a new index) that beats each time it is told something."""

        def told(done: int, total: int) -> None:
            try:
                self.beat()
            except Overloaded:
                pass  # not written this time; what can only be told from inside long work is tried again at its next turn
            if progress is not None:
                progress(done, total)

        return told
