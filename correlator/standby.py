"""Standing by for a log that another process writes: following it, and telling when it is one's turn to write.

Three things say so, and none of them compares two machines' clocks:

    | the head has no writer   | the writer has closed the log (`AuditLog.close`)                                             |
    | its claim is free        | the writer's process has ended: the system let go of its lock (only where claims exclude),   |
    |                          | and the head was not renewed once. One that has just taken over may not have the claim yet   |
    | the head stands still    | for `take_over_seconds` of this process's monotonic clock, while a live writer renews it     |
    |                          | every `renew_seconds`: it is dead, hangs, or is cut off from the log                         |

The last two can be wrong: a writer that was only slow is alive. The log's safety does not rest on it: opening the log raises the
epoch in its head, and the next swap of the other is refused (`correlator.log`).

A standby is warm: its state, and its index where it has one of its own, follow what is published, so that taking over
replays little. What it writes follows from the log; a crash of it at any line costs the time to follow again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from correlator.derived import open_state
from correlator.entry import decode_entry
from correlator.errors import Conflict, NotFound, Overloaded, VerificationError
from correlator.head import Head, decode_head
from correlator.index import TrailIndex
from correlator.merkle import leaf_hash
from correlator.metrics import CorrelatorMetrics
from correlator.note import Verifier
from correlator.reader import LogReader
from correlator.reindex import catch_up
from correlator.settings import CorrelatorSettings
from correlator.state import State
from correlator.storage import LogStorage

__all__ = ["HeadWatch", "Standby", "Turn", "wait_for_silence"]

LOOK_SECONDS = 0.5
"""Pause between two looks at the head."""

_LONGEST_GAP_NS = 2_000_000_000
"""What the time between two looks counts at most: a machine that slept must not take its own sleep for the writer's silence."""

_MISSED_BEATS = 1.5
"""Renewals that a writer whose claim is free must have missed."""

_DOUBTED_HEADS = 3
"""Different heads under which what is published does not hold: then it is damage, and no power cut's."""

_TURN_LEAVES = 4_096
"""Leaves followed between two looks."""

_FLUSH_LEAVES = 32_768
"""Leaves followed between two flushes of the state."""


class HeadWatch:
    """How long the head has stood still, from its bytes and a monotonic clock. Starts from nothing: it trusts no time in the head."""

    def __init__(self) -> None:
        self._head: bytes | None = None
        self._looked_ns: int | None = None
        self._still_ns = 0

    def look(self, head: bytes | None, now_ns: int) -> float:
        """Take a look's result; gives the seconds for which the head has not changed, as far as looks bear witness.

        Args:
            head: its bytes now, None when there is none.
            now_ns: the monotonic clock from *before* it was read: what happened in between must not count as silence.
        """
        if self._looked_ns is None or head != self._head:
            self._still_ns = 0
        else:
            self._still_ns += min(max(now_ns - self._looked_ns, 0), _LONGEST_GAP_NS)
        self._head, self._looked_ns = head, now_ns
        return self._still_ns / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """It is the standby's turn: why, for people, and whether the writer is to be deposed without its claim."""

    reason: str
    take_over: bool


def wait_for_silence(
    storage: LogStorage,
    *,
    seconds: float,
    monotonic_ns: Callable[[], int] = time.monotonic_ns,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Make sure that nobody writes a log whose claim cannot exclude anybody; returns at once where it can, or the log is closed.

    Raises:
        Conflict: the head changed meanwhile: another process writes this log.
        VerificationError: the head is malformed.
        Overloaded, StateUnknown: the storage does not answer.
    """
    if storage.claim_excludes:
        return
    watch = HeadWatch()
    first = None
    while True:
        now_ns = monotonic_ns()
        raw = storage.read_head()
        if raw is None or not decode_head(raw).writer:
            return
        first = first or raw
        if raw != first:
            raise Conflict(f"another process writes this log ({decode_head(raw).writer})")
        if watch.look(raw, now_ns) >= seconds:
            return
        pause(min(LOOK_SECONDS, seconds / 4))


class Standby:
    """Follows one log until it is its turn to write it. For one thread; `alive`, `ready` from any.

    Args:
        storage: where the log lies.
        verifier: the log's public key; its name is the ledger's.
        index: of the trails. One that the writer keeps, too, is left to it while it does.
        state_folder: of this process's own derived state.
        settings: see there.
        metrics: where to count.
        monotonic_ns: a clock that never goes back, in nanoseconds.
    """

    def __init__(
        self,
        *,
        storage: LogStorage,
        verifier: Verifier,
        index: TrailIndex,
        state_folder: Path,
        settings: CorrelatorSettings,
        metrics: CorrelatorMetrics | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.metrics = metrics or CorrelatorMetrics()
        self.metrics.role.state("standby")
        self._storage = storage
        self._origin = verifier.name
        self._reader = LogReader(storage, verifier, cached_tiles=64, cached_bundles=16)
        self._index = index
        self._state_folder = state_folder
        self._settings = settings
        self._monotonic_ns = monotonic_ns
        self._watch = HeadWatch()
        self._state: State | None = None
        self._flushed = 0
        self._published = 0
        self._behind = True
        self._more = False
        self._doubted: list[bytes | None] = []
        self._looked_ns = monotonic_ns()

    def alive(self, within_seconds: float = 60.0) -> bool:
        """Whether it looked at the head so recently, be it in vain."""
        return self._monotonic_ns() - self._looked_ns < within_seconds * 1_000_000_000

    def ready(self) -> bool:
        """Whether its last look reached the log, and its state had all that was published."""
        return not self._behind and self.alive()

    def wait(self, stop: threading.Event) -> Turn | None:
        """Stand by until it is this process's turn; None when `stop` was set first.

        Raises:
            VerificationError: the log was changed.
            StateUnknown: the state or the index is damaged: close, and begin again.
        """
        while not stop.is_set():
            try:
                turn = self.look()
            except Overloaded:
                self.metrics.failures.inc()  # a head that cannot be read is not one that stands still
                self._behind, self._more = True, False
                turn = None
            self._looked_ns = self._monotonic_ns()
            if turn is not None:
                return turn
            if not self._more:
                stop.wait(min(LOOK_SECONDS, self._settings.take_over_seconds / 4))
        return None

    def look(self) -> Turn | None:
        """Look at the head once, and follow the log a little; raises as `wait`, and `Overloaded` when the log cannot be read."""
        now_ns = self._monotonic_ns()
        raw = self._storage.read_head()
        head = decode_head(raw) if raw is not None else None
        still_seconds = self._watch.look(raw, now_ns)
        self.metrics.head_unchanged_seconds.set(still_seconds)
        self.metrics.epoch.set(head.epoch if head else 0)
        turn = self._turn(head, still_seconds)
        if turn is None:
            try:
                self._follow()
            except VerificationError:
                if self._is_damage(raw):
                    raise
                self.metrics.failures.inc()
                self._behind, self._more = True, False
            else:
                self._doubted.clear()
        return turn

    def _is_damage(self, head: bytes | None) -> bool:
        """Whether what is published and does not hold was changed, as far as can be told under this head.

        A power cut may have left it torn, or an older checkpoint in its place, until somebody opens the log, who restores it. That
        one writes the head before the checkpoint, hence two other heads: by the second all is published that the first one names.
        """
        if head not in self._doubted:
            self._doubted.append(head)
        return len(self._doubted) >= _DOUBTED_HEADS

    def _turn(self, head: Head | None, still_seconds: float) -> Turn | None:
        if head is None or not head.writer:
            return Turn(reason="nobody has the log open", take_over=False) if self._claim_is_free() else None
        if still_seconds < _MISSED_BEATS * self._settings.renew_seconds:
            return None  # and its claim is not tried: who takes one, if only for a moment, clears up after dead writers
        free = self._claim_is_free()
        if free and self._storage.claim_excludes:
            return Turn(reason=f"{head.writer} has ended", take_over=False)
        if still_seconds >= self._settings.take_over_seconds:
            reason = f"{head.writer} has not renewed the head for {still_seconds:.1f} s"
            return Turn(reason=reason, take_over=not free)
        return None

    def _claim_is_free(self) -> bool:
        try:
            self._storage.claim().release()  # opening the log takes it again; who is faster meanwhile may have it
        except Conflict:
            return False
        return True

    def _follow(self) -> None:
        try:
            size = self._reader.tree().size
        except NotFound:
            self._behind = self._more = False  # nothing is published yet
            return
        if self._state is None:
            self._state = open_state(
                self._state_folder, self._reader, size, origin=self._origin, settings=self._settings
            )
            self._flushed = self._state.leaves
        state = self._state
        if size < state.leaves:
            raise VerificationError(
                f"the log was rolled back: it has {size} leaves, {state.leaves} were published before"
            )
        if state.leaves < size:
            last = b""
            for data in self._reader.entries(state.leaves, min(size, state.leaves + _TURN_LEAVES)):
                last = leaf_hash(data)
                state.replay(decode_entry(data), last)
            state.commit(last)
            if state.leaves - self._flushed >= _FLUSH_LEAVES:
                state.flush()
                self._flushed = state.leaves
        indexed = self._index.size()
        if indexed < self._published:
            # Only what was published a look ago: a writer with whom the index is shared has indexed it long since.
            end = min(self._published, indexed + _TURN_LEAVES)
            catch_up(self._index, self._reader, end, published=lambda: self._reader.tree().size)
            indexed = self._index.size()
        self._behind = state.leaves < size
        self._more = self._behind or indexed < self._published
        self._published = size
        self.metrics.log_size.set(size)
        self.metrics.index_lag.set(max(size - indexed, 0))

    def close(self) -> None:
        """Write the state out, which the next `Correlator.open` begins with."""
        if self._state is not None:
            state, self._state = self._state, None
            state.close()
