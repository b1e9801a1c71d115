"""One destination's stream: reads the ledger's logs by leaf index, sends what is wanted, and moves the cursor when it is taken.

    entries → wanted? → events from the store → record → destination took it → cursor, durable

In the order of each log. A crash anywhere sends again what came after the last move of the cursor, under the same ids: at least once.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from audit_api.evidence import LoggedEntry, SignedTree
from audit_api.export.walk import Row
from audit_api.logs import ServedLog
from audit_api.metrics import SiemMetrics
from audit_api.siem.choice import Choice
from audit_api.siem.cursor import Cursor, Position
from audit_api.siem.destination import Destination
from audit_api.siem.forms import FORMS
from audit_api.siem.record import Record, Shaper
from audit_api.siem.settings import AnyDestination
from collector.errors import NotFound, Overloaded, VerificationError
from collector.event import parse_time
from correlator.entry import decode_entry

__all__ = ["Pauses", "Stream"]

_log = logging.getLogger("tally.siem")

_GROUP = 25
_BATCH_BYTES = 8 << 20
"""A batch ends with the group of events that passes so many bytes: memory does not depend on how large events are."""


class Pauses(Protocol):
    """How long to wait after failures in a row, with jitter."""

    def failed(self, *, at_least_seconds: float = 0.0) -> float:
        """Count a failure; the seconds to wait before the next trial."""

    def succeeded(self) -> None:
        """It went well."""


class Stream:
    """Sends one destination what it is to have. For one thread.

    Args:
        settings: of the destination.
        logs: the ledger's only one, or one for each shard; no other thread may use them.
        destination: takes the records.
        cursor: how far it has come.
        overhead_bytes: what the destination puts around a record, of `max_bytes`.
        pauses: how long to wait for a destination that is away.
        clock: Unix time in nanoseconds.
    """

    def __init__(
        self,
        settings: AnyDestination,
        *,
        logs: Sequence[ServedLog],
        destination: Destination,
        cursor: Cursor,
        metrics: SiemMetrics,
        pauses: Pauses,
        clock: Callable[[], int],
        overhead_bytes: int = 0,
    ) -> None:
        self._settings = settings
        self._name = settings.name
        self._logs = logs
        self._destination = destination
        self._cursor = cursor
        self._metrics = metrics
        self._pauses = pauses
        self._clock = clock
        self._choice = Choice(settings)
        self._shaper = Shaper(
            FORMS[settings.format](),
            max_bytes=settings.max_bytes - overhead_bytes,
            reduced=lambda why: metrics.reduced.labels(settings.name, why).inc(),
        )
        self._checked: set[str] = set()
        self._unsent: dict[str, tuple[int, int]] = {}  # by origin: leaves, and when the first was recorded
        self.away = ""
        """Why the destination could not be sent to the last time; empty: it could."""

    def step(self) -> tuple[int, float]:
        """Send what each log has next; gives how many leaves were dealt with, and how many seconds to wait before the next step.

        Raises:
            VerificationError: a log was changed, or does not continue what was sent before.
            StateUnknown: the cursor cannot be written.
        """
        done, wait = 0, 0.0
        for log in self._logs:
            try:
                if (tree := _published(log)) is None:
                    continue
                position = self._position(log, tree)
                rows, end = self._read(log, tree, position.next)
            except Overloaded as error:
                self._metrics.log_failures.labels(self._name).inc()
                _log.warning("looked in vain, tried again later", extra={"to": self._name, "reason": str(error)})
                wait = max(wait, min(error.retry_after_seconds, 5.0))
                continue
            if end == position.next:
                continue
            pause = self._send([self._shaper.record(row, tree) for row in rows])
            if pause is not None:  # the other logs' records go to the same place: they wait, too
                self.measure()
                return done, max(wait, pause)
            root = tree.checkpoint.root.hex()
            self._cursor.move(log.key.name, Position(next=end, size=tree.size, root=root))
            self._metrics.sent.labels(self._name).inc(len(rows))
            self._metrics.filtered.labels(self._name).inc(end - position.next - len(rows))
            done += end - position.next
        self.measure()
        return done, max(wait, 0.0 if done else self._settings.linger_seconds)

    def measure(self) -> None:
        """Tell how far behind the destination is: for a log that does not answer, by what was last read of it, which goes on growing old."""
        now_ns = self._clock()
        for log in self._logs:
            origin = log.key.name
            try:
                tree = _published(log)
                position = self._cursor.of(origin)
                if tree is None or position is None or position.next >= tree.size:
                    self._unsent.pop(origin, None)
                    continue
                recorded = decode_entry(log.evidence.reader.entry(position.next)).recorded
                self._unsent[origin] = tree.size - position.next, parse_time(recorded)
            except Overloaded:
                continue  # counted where it is read to be sent
        leaves = sum(unsent for unsent, _ in self._unsent.values())
        oldest_ns = max((now_ns - recorded_ns for _, recorded_ns in self._unsent.values()), default=0)
        self._metrics.behind.labels(self._name).set(leaves)
        self._metrics.behind_seconds.labels(self._name).set(max(0, oldest_ns) / 1e9)

    def _position(self, log: ServedLog, tree: SignedTree) -> Position:
        """Where it goes on in this log; at the first look after a start the log must continue what was sent before."""
        origin = log.key.name
        position = self._cursor.of(origin)
        if position is None:
            root = tree.checkpoint.root.hex()
            start = tree.size if self._settings.start == "end" else 0
            position = Position(next=start, size=tree.size, root=root)
            self._cursor.move(origin, position)  # before anything is sent: a crash must not begin at a later end
        elif origin not in self._checked and not _continues(log, tree, position):
            raise VerificationError(
                f"the log {origin} with {tree.size} leaves does not continue the one of {position.size} that {self._name} was sent:"
                " it was rolled back or forked"
            )
        self._checked.add(origin)
        return position

    def _send(self, records: Sequence[Record]) -> float | None:
        """None when they are taken; else the seconds to wait before they are sent again."""
        if not records:
            return None
        try:
            self._destination.send(records)
        except Overloaded as error:
            self.away = str(error)
            self._metrics.failures.labels(self._name).inc()
            pause = self._pauses.failed(at_least_seconds=error.retry_after_seconds)
            _log.warning(
                "the destination is away, tried again later",
                extra={"to": self._name, "reason": self.away, "seconds": round(pause, 1)},
            )
            return pause
        if self.away:
            _log.info("the destination is back", extra={"to": self._name})
        self.away = ""
        self._pauses.succeeded()
        return None

    def _read(self, log: ServedLog, tree: SignedTree, start: int) -> tuple[list[Row], int]:
        """The wanted rows from this leaf on, and the leaf behind the last that was looked at."""
        # no further than the index: that is where retirements are found, and an event that was let go of is not missing
        size = min(tree.size, log.evidence.index.size())
        end = min(size, start + self._settings.batch_records)
        rows: list[Row] = []
        held = 0
        at = start
        while at < end and held < _BATCH_BYTES:
            below = min(end, at + _GROUP)
            for row in self._rows(log, at, below):
                held += len(row.data) + len(row.raw or b"")
                rows.append(row)
            at = below
        return rows, at

    def _rows(self, log: ServedLog, start: int, end: int) -> Iterator[Row]:
        evidence, origin = log.evidence, log.key.name
        wanted = []
        for leaf, data in enumerate(evidence.reader.entries(start, end), start):
            entry = decode_entry(data)
            if self._choice.takes(entry, leaf):
                wanted.append(LoggedEntry(leaf=leaf, data=data, entry=entry))
        events, problems = evidence.events_or_problems(wanted) if wanted else ({}, {})
        for one in wanted:
            raw, problem, retired = events.get(one.leaf), problems.get(one.leaf, ""), ""
            if problem:
                self._metrics.missing.labels(self._name).inc()
            elif raw is None and one.entry.kind == "event":
                month = evidence.retired(one)
                retired = month.retirement.month if month is not None else ""
            yield Row(
                log=origin, leaf=one.leaf, entry=one.entry, data=one.data, raw=raw, problem=problem, retired=retired
            )


def _continues(log: ServedLog, tree: SignedTree, position: Position) -> bool:
    """Whether the log begins with the tree that it was when something was sent last."""
    if position.size == 0:
        return True
    return position.size <= tree.size and log.evidence.reader.root(position.size).hex() == position.root


def _published(log: ServedLog) -> SignedTree | None:
    """The log as it is now; None while nothing is published."""
    try:
        return log.evidence.tree()
    except NotFound:
        return None
