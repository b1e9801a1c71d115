"""The whole ledger checked against itself: log, store, index and spools. Owns `Finding`: a thing that is not as it must be.

`correlator.check` looks at the log as a log; what is here looks at what its entries say, and whether everything else agrees.
"""

from dataclasses import dataclass

from collector.errors import NotFound, StateUnknown, VerificationError

__all__ = ["DAMAGE", "Account", "Finding"]

DAMAGE = (NotFound, VerificationError, StateUnknown, TypeError, ValueError)
"""What reading a row raises that somebody has changed: our own errors, and Python's where a column holds another type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it must be: where (a path, a stream, a trail), what, and the leaf index where there is one (−1).

    `logged`: the log says so itself, by a gap entry: batches that are missing, or a stream that fell silent. Whoever watches hears of it already.
    """

    where: str
    problem: str
    leaf: int = -1
    logged: bool = False

    def __str__(self) -> str:
        return f"{self.where}, leaf {self.leaf}: {self.problem}" if self.leaf >= 0 else f"{self.where}: {self.problem}"


@dataclass(slots=True, kw_only=True)
class Account:
    """What a check has looked at. `waiting`: batches in the store that the log does not hold yet, which is no finding.

    `retired`: those of the events that were let go of by policy, and say so in the log.
    """

    leaves: int = 0
    trails: int = 0
    streams: int = 0
    batches: int = 0
    events: int = 0
    retired: int = 0
    waiting: int = 0
    spooled_frames: int = 0

    def add(self, other: "Account") -> None:
        """Take in what was looked at in another log of the same ledger: it tells of the same streams and batches, and of other events."""
        self.leaves += other.leaves
        self.trails += other.trails
        self.events += other.events
        self.spooled_frames += other.spooled_frames
        self.streams = max(self.streams, other.streams)
        self.batches = max(self.batches, other.batches)
        self.retired = max(self.retired, other.retired)  # whole batches go, and each log has all of them
        self.waiting = max(self.waiting, other.waiting)
