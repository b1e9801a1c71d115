"""Batches that the store has lost: found while the spool still has them, to be sent again, so that the gap is filled.

What the log covers stays in front of the first batch that is missing, and a spool keeps everything from there on. So when
the log has not moved for a while, the store is asked for the first batch behind it. If it is there, the correlator is down or behind, and
nothing is sent. If not, a bounded number of those that follow is looked up too, and those that are missing are sent again.
Each look is twice as late as the one before, until the log moves.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from collector.batch import SignedHeader, StreamId
from collector.errors import VerificationError
from collector.store import Destination

__all__ = ["HealLimits", "LostBatches"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealLimits:
    """How long the log stands still before the first look, how far looks move apart, and how many batches one looks up."""

    after_seconds: float = 30.0
    cap_seconds: float = 600.0
    batches: int = 16


class LostBatches:
    """What one stream's shipper remembers of the log's standing still.

    Args:
        stream: the stream.
        store: is asked for single batches.
        limits: the bounds.
    """

    def __init__(self, stream: StreamId, *, store: Destination, limits: HealLimits) -> None:
        self._stream = stream
        self._store = store
        self._limits = limits
        self._covered = -1
        self._wait_seconds = 0.0
        self._next_seconds = 0.0

    def look(
        self, now_seconds: float, *, covered: int, shipped: int, after: Callable[[int], Iterable[SignedHeader]]
    ) -> list[SignedHeader]:
        """The headers of lost batches, when it is time to look; mostly none.

        Args:
            now_seconds: any clock that never goes back.
            covered: the number up to which the log has the stream.
            shipped: the number up to which the store has taken it.
            after: gives the headers kept behind a number, ascending.

        Raises:
            Overloaded: the store does not answer.
        """
        if covered != self._covered or covered >= shipped:
            self._covered = covered
            self._wait(now_seconds, self._limits.after_seconds)
            return []
        if now_seconds < self._next_seconds:
            return []
        lost: list[SignedHeader] = []
        for signed in islice(after(covered), self._limits.batches):
            if signed.header.number > shipped:
                break
            if not self._is_there(signed):
                lost.append(signed)
            elif not lost:
                break  # the first one is there: the log will come to it
        self._wait(now_seconds, min(2 * self._wait_seconds, self._limits.cap_seconds))
        return lost

    def _wait(self, now_seconds: float, seconds: float) -> None:
        self._wait_seconds = seconds
        self._next_seconds = now_seconds + seconds

    def _is_there(self, signed: SignedHeader) -> bool:
        try:
            return self._store.batch(self._stream, signed.header.number) is not None
        except VerificationError:
            return (
                True  # changed, not lost: the correlator names it, and the store takes no second one under its number
            )
