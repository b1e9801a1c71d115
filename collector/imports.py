"""Importing files: each is a stream of its own, named by the file's SHA-256, so that importing it again adds nothing.

The same spool, header log and shipping as a sidecar's, stepped by one thread: append, commit, send. A row that stands in
two files, or twice in one, is recognised by its source id in a journal that all imports share. What a crash means: the next import
finds the stream open, recognises the rows that are in it, and goes on behind them.

    rows = stored + duplicates + dead-lettered      for every file, always
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import StreamId, stream_id
from collector.deadletters import DeadLetters
from collector.disk import Disk
from collector.errors import Overloaded, StateUnknown
from collector.headerlog import HeaderLog
from collector.incarnation import Incarnation, find_incarnations, mint, remove
from collector.journal import Journal
from collector.prepare import Preparer, raw_of
from collector.receive import Arrival
from collector.rejection import Rejection, first_of
from collector.retry import Breaker
from collector.ship import BatchLimits, Shipper
from collector.spool import Group, Spool, Spooled
from collector.store import EventStore

__all__ = ["IMPORT", "FileAccount", "Importer", "Row"]

IMPORT = "import"
"""The collector's name in the stream ids of imported files."""

_GROUP_ROWS = 1_000


Row = Arrival | Rejection
"""A row of a file, or its bytes and why it cannot be read."""


@dataclass(slots=True, kw_only=True)
class FileAccount:
    """What became of a file's rows: `rows` is the sum of `stored`, `duplicates` and `dead_lettered`.

    Attributes:
        reasons: label of the refusal → how many rows.
        marks: mark → how many stored or repeated rows carry it.
        again: true when the whole file had been imported before.
    """

    stream: StreamId
    rows: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    again: bool = False


@dataclass(slots=True, kw_only=True)
class _Open:
    incarnation: Incarnation
    spool: Spool
    headers: HeaderLog
    shipper: Shipper


class Importer:
    """Imports files one after the other. Not thread-safe.

    Args:
        root: folder of the imports' spools.
        ledger, store, key, breaker: as a pipeline's. The breaker's waits are slept here.
        preparer: with no clock, so that a row's bytes do not depend on when it is imported.
        dead_letters: where rows go that cannot be taken.

    Raises:
        StateUnknown: another import is running, or a spool in `root` is damaged.
        Overloaded: the store does not answer.
    """

    def __init__(
        self,
        root: Path,
        *,
        ledger: str,
        store: EventStore,
        key: Ed25519PrivateKey,
        preparer: Preparer,
        dead_letters: DeadLetters,
        disk: Disk,
        clock: Callable[[], int],
        breaker: Breaker,
        journal_ids: int,
        patience_seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = root
        self._ledger = ledger
        self._store = store
        self._key = key
        self._preparer = preparer
        self._dead_letters = dead_letters
        self._disk = disk
        self._clock = clock
        self._breaker = breaker
        self._patience_seconds = patience_seconds
        self._sleep = sleep
        disk.make_directory(root)
        lock = disk.lock(root / "lock")
        if lock is None:
            raise StateUnknown("another import is running")
        self._lock = lock
        disk.make_directory(root / "journal")
        self._journal = Journal(root / "journal", horizon=journal_ids)
        self._known = {one.stream: one for one in find_incarnations(root, ledger=ledger, disk=disk)}
        self._recover()

    def close(self) -> None:
        """Release the lock and the journal."""
        self._journal.flush()
        self._journal.close()
        self._dead_letters.close()
        self._lock.release()

    def run(self, sha256: str, rows: Iterable[Row], progress: Callable[[int], None] = lambda _: None) -> FileAccount:
        """Import the file with this SHA-256; returns when the store holds all of it and its stream is closed.

        `progress` is called with the number of rows taken since its last call.

        Raises:
            Overloaded: the store or the disk did not take it for too long; importing again goes on from there.
            StateUnknown: the spool does not read back.
        """
        account = FileAccount(stream=stream_id(IMPORT, sha256))
        if self._is_closed(account.stream):
            account.again = True
            for group in _groups(rows):
                self._count_again(group, account)
                progress(len(group))
            return account
        opened = self._open(account.stream, sha256)
        try:
            for group in _groups(rows):
                self._take(group, opened, account)
                progress(len(group))
            self._ship(opened.shipper)
            opened.shipper.close_stream()
            self._ship(opened.shipper)
        finally:
            opened.spool.close()
            opened.headers.close()
        self._journal.flush()
        return account

    def _take(self, rows: list[Row], opened: _Open, account: FileAccount) -> None:
        account.rows += len(rows)
        arrivals = [row for row in rows if isinstance(row, Arrival)]
        prepared = self._preparer.prepare(arrivals)
        rejections = [row for row in rows if isinstance(row, Rejection)]
        for refused in prepared.refused:
            arrival = refused.arrival
            rejections.append(Rejection(raw_of(arrival), refused.error, arrival.event.origin, arrival.source_id or b""))
        self._bury(rejections, account)
        for arrival in arrivals:
            account.marks.update(arrival.event.marks)
        if prepared.events:
            group = Group(source_ids=prepared.source_ids, events=prepared.events, facts=prepared.facts)
            outcome = _append(opened.spool, group)
            account.stored += outcome.stored
            account.duplicates += outcome.duplicates
        self._ship(opened.shipper, whole=False)

    def _count_again(self, rows: list[Row], account: FileAccount) -> None:
        """Rows of a file whose stream is closed: what was stored is a duplicate now, what was refused is refused again."""
        account.rows += len(rows)
        for row in rows:
            if isinstance(row, Rejection):
                account.dead_lettered += 1
                account.reasons[row.error.label] += 1
        arrivals = [row for row in rows if isinstance(row, Arrival)]
        refused = self._preparer.prepare(arrivals).refused
        for one in refused:
            account.dead_lettered += 1
            account.reasons[one.error.label] += 1
        account.duplicates += len(arrivals) - len(refused)

    def _bury(self, rejections: list[Rejection], account: FileAccount) -> None:
        while rejections:
            some = first_of(rejections)
            self._dead_letters.add(some)
            account.dead_lettered += len(some)
            account.reasons.update(one.error.label for one in some)
            del rejections[: len(some)]

    def _ship(self, shipper: Shipper, *, whole: bool = True) -> None:
        """Send what is cut; with `whole` until nothing is left, else only full batches' worth."""
        waited = 0.0
        while whole or shipper.waiting_events >= _GROUP_ROWS:
            try:
                progressed = shipper.step()
            except Overloaded:
                pause_seconds = self._breaker.failed(at_least_seconds=0.01)
                waited += pause_seconds
                if waited > self._patience_seconds:
                    raise
                self._sleep(pause_seconds)
                continue
            self._breaker.succeeded()
            if not progressed:
                return

    def _is_closed(self, stream: StreamId) -> bool:
        known = self._known.get(stream)
        if known is not None:
            headers = HeaderLog(known.directory, disk=self._disk)
            headers.close()
            return headers.last is not None and headers.last.header.closed
        number = self._store.acknowledged(stream)
        last = self._store.batch(stream, number) if number else None
        return last is not None and last.header.closed

    def _open(self, stream: StreamId, sha256: str) -> _Open:
        known = self._known.get(stream)
        if known is None:
            known = mint(
                self._root,
                collector=IMPORT,
                ledger=self._ledger,
                disk=self._disk,
                clock=self._clock,
                random=lambda _: b"",
                incarnation=sha256,
            )
            self._known[stream] = known
        return self._open_known(known)

    def _open_known(self, incarnation: Incarnation) -> _Open:
        headers = HeaderLog(incarnation.directory, disk=self._disk)
        spool = Spool(incarnation.directory, disk=self._disk, journal=self._journal)
        shipper = Shipper(
            stream=incarnation.stream,
            ledger=self._ledger,
            spool=spool,
            headers=headers,
            store=self._store,
            key=self._key,
            clock=self._clock,
            limits=BatchLimits(heartbeat_seconds=0),
        )
        return _Open(incarnation=incarnation, spool=spool, headers=headers, shipper=shipper)

    def _recover(self) -> None:
        """Read every spool that is still here: its ids go to the journal before another file's rows are looked at."""
        for incarnation in list(self._known.values()):
            opened = self._open_known(incarnation)
            if opened.shipper.closed:
                self._ship(opened.shipper)
                opened.shipper.release()
            self._journal.flush()
            opened.spool.close()
            opened.headers.close()
            if opened.shipper.finished:
                remove(incarnation, disk=self._disk)
                del self._known[incarnation.stream]


def _append(spool: Spool, group: Group) -> Spooled:
    outcome: list[Spooled | Exception] = []
    spool.append(group, outcome.append)
    spool.commit_pending()
    result = outcome[0]
    if isinstance(result, Exception):
        raise result
    return result


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) >= _GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group
