"""Follows the logs by leaf index: payments to the engine, findings on record, then told.

    entry → facts match? → event from the store → digest as in the entry? → payment → rules → cursor → recorder → alert → cursor

What rules remember is in memory alone. After a restart the log is read again from `horizon_seconds` of recorded time before the
cursor, which brings the memory back; what rules find in what was looked at before is passed over: it was found then, or is not on record.
What waits is kept with the cursor, from before it goes on record: what is on record may be more than the rules could find again.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from alerting.detect.cursor import Cursor, Position
from alerting.detect.engine import Engine
from alerting.detect.finding_event import finding_event
from alerting.detect.logged import FollowedLog, LoggedPayments
from alerting.detect.metrics import DetectorMetrics
from alerting.detect.waiting import Told
from collector.event import Event, parse_time
from correlator.entry import decode_entry

__all__ = ["Findings", "Follower"]

_CHUNK = 2_048
"""Leaves read at a time."""

MAX_WAITING = 10_000
"""Findings that wait to be told, at most. Then no further payment is looked at: nothing that was found is let go of."""


class Findings(Protocol):
    """What a detector needs of `collector.recorder.Recorder`."""

    def record_once(self, event: Event, source_id: bytes) -> bool:
        """Durable on return, and only once for each id; raises `Overloaded` or `StateUnknown`."""


class Follower:
    """Reads one ledger's logs as they grow. For one thread.

    Args:
        logs: the only one, or one for each shard.
        payments: reads payments off the logs.
        engine: the rules.
        findings: puts findings on record.
        cursor: how far it had come, and what waits; told here before anything goes on record.
        freezes: whether requests to stop a payment go to anybody: then they wait in `to_freeze`.
        tells: whether findings are told to anybody: then they wait in `waiting` until they are taken from there.
        clock: Unix time in nanoseconds.
        beat: called before each payment is looked at, and before each finding is recorded: where the disk is slow many take long.
    """

    def __init__(
        self,
        logs: Sequence[FollowedLog],
        *,
        payments: LoggedPayments,
        engine: Engine,
        findings: Findings,
        cursor: Cursor,
        metrics: DetectorMetrics,
        tells: bool,
        freezes: bool,
        clock: Callable[[], int],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._logs = logs
        self._beat = beat
        self._payments = payments
        self._engine = engine
        self._findings = findings
        self._metrics = metrics
        self._tells = tells
        self._freezes = freezes
        self._clock = clock
        self._cursor = cursor
        known = {log.origin: cursor.positions[log.origin] for log in logs if log.origin in cursor.positions}
        # leaves below these were looked at once, by origin: what is found there again is passed over
        self._seen = {origin: position.recorded for origin, position in known.items()}
        self._next: dict[str, int] = {}  # the leaf to read next, by origin, once it is known where to begin
        self._behind: dict[str, int] = {}  # leaves not read yet, by origin
        # not on record yet: the rules have seen these payments, and must not see them again
        self._found: deque[Told] = deque(one for position in known.values() for one in position.to_record)
        self.waiting: deque[Told] = deque(one for position in known.values() if tells for one in position.to_tell)
        self.to_freeze: deque[Told] = deque(one for position in known.values() if freezes for one in position.to_freeze)

    def positions(self) -> dict[str, Position]:
        """How far it has come, and what waits, for the cursor."""
        return {
            origin: Position(
                recorded=seen,
                to_record=_of(origin, self._found),
                to_tell=_of(origin, self.waiting),
                to_freeze=_of(origin, self.to_freeze),
            )
            for origin, seen in self._seen.items()
        }

    def step(self) -> int:
        """Look at what each log has next; gives how many leaves that were.

        Raises:
            Overloaded: log, store or spool did not answer; call again later, nothing is passed over.
            VerificationError: the log or an event was changed.
            NotFound: nothing is published yet.
            StateUnknown: the spool failed, or the cursor cannot be written.
        """
        seen = 0
        for log in self._logs:
            size = log.reader.tree().size
            self._tell_behind(log.origin, size)  # before what may fail: that is when it falls behind
            self._put_on_record()
            if log.origin not in self._next:
                self._next[log.origin] = self._beginning(log, size)
            start = self._next[log.origin]
            end = min(size, start + _CHUNK)
            if start < end and max(len(self.waiting), len(self.to_freeze)) < MAX_WAITING:
                self._look(log, start, end)
                seen += end - start
            self._tell_behind(log.origin, size)
        self._put_on_record()
        self._metrics.waiting.set(len(self.waiting))
        return seen

    def _tell_behind(self, origin: str, size: int) -> None:
        self._behind[origin] = size - self._next.get(origin, self._seen.get(origin, 0))
        self._metrics.behind.set(sum(self._behind.values()))

    def _beginning(self, log: FollowedLog, size: int) -> int:
        """The first leaf whose entry was recorded within the horizon before the cursor. Entries' times never decrease along a log."""
        known = min(self._seen.get(log.origin, 0), size)
        if known == 0:
            return 0
        wanted = self._recorded_ns(log, known - 1) - int(self._engine.horizon_seconds * 1e9)
        low, high = 0, known
        while low < high:
            middle = (low + high) // 2
            if self._recorded_ns(log, middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def _recorded_ns(self, log: FollowedLog, leaf: int) -> int:
        return parse_time(decode_entry(log.reader.entry(leaf)).recorded)

    def _look(self, log: FollowedLog, start: int, end: int) -> None:
        seen = self._seen.get(log.origin, 0)
        for payment, _ in self._payments.between(log, start, end):
            self._beat()
            findings = self._engine.look(payment)
            if payment.leaf >= seen:
                self._found += (Told(origin=log.origin, finding=finding).nameless() for finding in findings)
        self._next[log.origin] = end
        self._seen[log.origin] = max(seen, end)

    def _put_on_record(self) -> None:
        """Record what was found, one after the other; an error leaves the rest for the next call."""
        if self._found:
            # the rules have seen these payments, and after a crash may not find the same of them: from here on the file knows.
            # A crash before this line: nothing of it is on record, and the payments are looked at again
            self._cursor.write(self.positions())
        while self._found:
            self._beat()
            self._record(self._found[0])
            # a crash here: it is recorded again, under the same id, and waits then
            self._keep(self._found.popleft())

    def _keep(self, one: Told) -> None:
        if self._tells:
            self.waiting.append(one)
        if self._freezes and one.finding.freeze:
            self.to_freeze.append(one)

    def _record(self, one: Told) -> None:
        finding = one.finding
        event = finding_event(finding, origin=one.origin, now_ns=self._clock())
        if not self._findings.record_once(event, finding.id_in(one.origin)):
            return  # it was on record before a crash
        self._metrics.findings.labels(finding.rule, finding.severity).inc()
        self._metrics.found_seconds.observe(max(0.0, (self._clock() - finding.payment.time_ns) / 1e9))


def _of(origin: str, waiting: deque[Told]) -> tuple[Told, ...]:
    return tuple(one for one in waiting if one.origin == origin)
