"""Importing files: each is a stream of its own, named by the file's SHA-256, so that importing it again adds nothing.

Who asks for a file once more, for rows that were refused, gets a stream named by its SHA-256 and the number of the time.
The same spool, header log and shipping as a sidecar's, stepped by one thread: append, commit, send. A row that stands in
two files, or twice in one, is recognised by its source id in a journal that all imports share. So what stands in a spool is sent before a
row of another file is looked at: else it would be a duplicate there of what no store has. What a crash means: the next import, of whatever
file, sends what the stream's spool holds; the next one of the same file finds the stream open, and takes what the stream does not have yet.
Without its spool it cannot go on: under its next numbers the store may have other batches. That file alone is refused then.

A spool keeps what the log does not hold yet. Beside a sidecar a correlator runs; beside an import there may be none, so when the spool is half
full it is asked for.

    rows = stored + duplicates + dead-lettered      for every file, always
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256 as sha256_of
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import StreamId, stream_id
from collector.deadletters import DeadLetters
from collector.disk import Disk
from collector.errors import Conflict, Malformed, Overloaded, StateUnknown
from collector.fileaccount import BrokenOff, FileAccount
from collector.headerlog import HeaderLog
from collector.heldrows import held_rows
from collector.incarnation import Incarnation, find_incarnations, mint, remove, set_aside
from collector.intake import groups_of
from collector.journal import Journal
from collector.prepare import Prepared, Preparer, raw_of
from collector.receive import Arrival
from collector.rejection import Rejection, first_of
from collector.retry import Breaker
from collector.ship import BatchLimits, Shipper
from collector.spool import Group, Spool, Spooled, SpoolLimits
from collector.store import EventStore

__all__ = ["IMPORT", "FileAccount", "Importer", "Row"]

_log = logging.getLogger(__name__)

IMPORT = "import"
"""The collector's name in the stream ids of imported files."""

_SENT_EVENTS = 1_000
"""So many wait before a batch is sent, until the file's end."""

Row = Arrival | Rejection
"""A row of a file, or its bytes and why it cannot be read."""

_MOST_TIMES = 4_096


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
        limits: of a file's spool.
        correlate: called when a spool is half full: takes what the store holds into the log, unless another process does that: then False.

    Raises:
        StateUnknown: another import is running, or a spool in `root` is damaged.
        Overloaded: the store does not answer, or does not take what earlier imports have left.
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
        limits: SpoolLimits | None = None,
        correlate: Callable[[], bool] = lambda: False,
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
        self._limits = limits or SpoolLimits()
        self._correlate = correlate
        self._correlated_elsewhere = False
        self._patience_seconds = patience_seconds
        self._sleep = sleep
        disk.make_directory(root)
        lock = disk.lock(root / "lock")
        if lock is None:
            raise StateUnknown("another import is running")
        self._lock = lock
        disk.make_directory(root / "journal")
        self._journal = Journal(root / "journal", horizon=journal_ids)
        try:
            self._known = {one.stream: one for one in find_incarnations(root, ledger=ledger, disk=disk)}
            self._recover()
        except BaseException:
            self._journal.close()
            lock.release()
            raise

    def close(self) -> None:
        """Release the lock and the journal."""
        self._journal.flush()
        self._journal.close()
        self._dead_letters.close()
        self._lock.release()

    def run(
        self,
        sha256: str,
        groups: Iterable[Sequence[Row]],
        progress: Callable[[int], None] = lambda _: None,
        *,
        again: bool = False,
    ) -> FileAccount:
        """Import the file with this SHA-256; returns when the store holds all of it and its stream is closed.

        `groups` are its rows; a group's are in memory together. `progress` is called with the number of rows taken since its last call.
        With `again` a file that was imported before is looked at once more, in its next stream: what the journal knows are duplicates.

        Raises:
            Overloaded: the store, the log or the disk did not take it for too long; importing again goes on from there.
            StateUnknown: the spool does not read back.
            Conflict: the store has batches of the file's stream that are not this spool's; nothing more of it can be taken.
            BrokenOff: `groups` raised Malformed or OSError; the store has the rows before, and the stream stays open.
        """
        account = self._next_time(sha256) if again else FileAccount(stream=_stream(sha256, 1))
        if self._is_closed(account.stream):
            account.again = True
            try:
                for group in groups:
                    self._count_again(group, account)
                    progress(len(group))
            except (Malformed, OSError) as error:
                raise BrokenOff(account, error) from error
            return account
        with self._closing(self._open(account.stream)) as opened:
            try:
                held = held_rows(self._store, account.stream, below=opened.spool.next_sequence)
                for group in groups:
                    had = [row for row in group if _number(row) in held]
                    if had:  # of a first import nothing is
                        self._count_held(had, account)
                        self._take([row for row in group if _number(row) not in held], opened, account)
                    else:
                        self._take(group, opened, account)
                    progress(len(group))
            except (Malformed, OSError) as error:
                self._ship(opened.shipper)  # who goes on with other files must not find duplicates of what is only here
                raise BrokenOff(account, error) from error
            self._ship(opened.shipper)
            opened.shipper.close_stream()
            self._ship(opened.shipper)
        self._journal.flush()
        return account

    def _take(self, rows: Sequence[Row], opened: _Open, account: FileAccount) -> None:
        account.rows += len(rows)
        prepared, rejections = self._prepared(rows)
        self._bury(rejections, account)
        account.count_marks(prepared)
        for group in groups_of(prepared, b""):  # events may be many times as long as the rows, by their columns' names
            outcome = self._append(opened, group)
            account.stored += outcome.stored
            account.duplicates += outcome.duplicates
        self._ship(opened.shipper, whole=False)
        if opened.spool.size_bytes * 2 >= self._limits.total_bytes:
            self._make_room(opened)

    def _append(self, opened: _Open, group: Group) -> Spooled:
        waited = 0.0
        while True:
            try:
                spooled = _append(opened.spool, group)
            except Overloaded as error:
                waited = self._wait(waited, error)
                self._make_room(opened)
            else:
                self._breaker.succeeded()
                return spooled

    def _make_room(self, opened: _Open) -> None:
        """Let go of what the log holds; where that is little, and nobody else sees to it, take into it what the store has."""
        self._ship(opened.shipper)
        opened.shipper.release()
        if opened.spool.size_bytes * 2 >= self._limits.total_bytes and not self._correlated_elsewhere:
            self._correlated_elsewhere = not self._correlate()
            opened.shipper.release()

    def _prepared(self, rows: Sequence[Row]) -> tuple[Prepared, list[Rejection]]:
        """What the rows become, and those that become nothing."""
        prepared = self._preparer.prepare([row for row in rows if isinstance(row, Arrival)])
        rejections = [row for row in rows if isinstance(row, Rejection)]
        for refused in prepared.refused:
            arrival = refused.arrival
            rejections.append(Rejection(raw_of(arrival), refused.error, arrival.event.origin, arrival.source_id or b""))
        return prepared, rejections

    def _count_held(self, rows: Sequence[Row], account: FileAccount) -> None:
        """Rows that the stream has, since before it was broken off: whatever is read in them now.

        The journal is told of those that it has forgotten, as if they were taken now: their like further on were, and are, duplicates.
        """
        account.rows += len(rows)
        account.duplicates += len(rows)
        prepared, _ = self._prepared(rows)
        account.count_marks(prepared)
        ids = {row.source_id for row in rows if isinstance(row, Arrival) and row.source_id}
        if forgotten := ids - self._journal.known(ids):
            self._journal.add(forgotten)
            self._journal.flush()

    def _count_again(self, rows: Sequence[Row], account: FileAccount) -> None:
        """Rows of a file that was imported before: all that can be read are duplicates, of what was stored or refused then."""
        account.rows += len(rows)
        prepared, rejections = self._prepared(rows)
        account.refuse(rejections, self._dead_letters.masked)
        account.duplicates += len(prepared.events)
        account.count_marks(prepared)

    def _bury(self, rejections: list[Rejection], account: FileAccount) -> None:
        while rejections:
            some = first_of(rejections)
            self._dead_letters.add(some)
            account.refuse(some, self._dead_letters.masked)
            del rejections[: len(some)]

    def _ship(self, shipper: Shipper, *, whole: bool = True) -> None:
        """Send what is cut; with `whole` until nothing is left, else only full batches' worth."""
        waited = 0.0
        while whole or shipper.waiting_events >= _SENT_EVENTS:
            try:
                progressed = shipper.step()
            except Overloaded as error:
                waited = self._wait(waited, error)
                continue
            except OSError as error:  # of our own disk: not to be taken for a file that cannot be read
                raise Overloaded(f"a header could not be written: {error}") from error
            self._breaker.succeeded()
            if not progressed:
                return

    def _wait(self, waited_seconds: float, error: Overloaded) -> float:
        """Sleep before the next attempt; returns the sum of such waits, raises the error when it is beyond all patience."""
        pause_seconds = self._breaker.failed(at_least_seconds=0.01)
        if waited_seconds + pause_seconds > self._patience_seconds:
            raise error
        self._sleep(pause_seconds)
        return waited_seconds + pause_seconds

    def _next_time(self, sha256: str) -> FileAccount:
        """Of the file's first stream that is not over: closed, or begun with a spool that is not here."""
        for number in range(1, _MOST_TIMES + 1):
            stream = _stream(sha256, number)
            over = self._is_closed(stream) if stream in self._known else self._in_store(stream)
            if not over:
                return FileAccount(stream=stream, number=number)
        raise Conflict(f"it was imported {_MOST_TIMES} times: no more are counted")

    def _in_store(self, stream: StreamId) -> bool:
        return bool(self._store.acknowledged(stream) or self._store.batch(stream, 1))

    def _is_closed(self, stream: StreamId) -> bool:
        known = self._known.get(stream)
        if known is not None:
            headers = HeaderLog(known.directory, disk=self._disk)
            headers.close()
            return headers.last is not None and headers.last.header.closed
        number = self._store.acknowledged(stream)
        last = self._store.batch(stream, number) if number else None
        return last is not None and last.header.closed

    def _open(self, stream: StreamId) -> _Open:
        known = self._known.get(stream)
        if known is None:
            if self._in_store(stream):
                raise Conflict(
                    "an import of it was begun, and the spool of that is not here any more: nothing can follow what the store has of it."
                    " --again imports its rows in a stream of their own; those that are stored already once more, unless their ids are still known here"
                )
            known = mint(
                self._root,
                collector=IMPORT,
                ledger=self._ledger,
                disk=self._disk,
                clock=self._clock,
                random=lambda _: b"",
                incarnation=stream.partition("/")[2],
            )
            self._known[stream] = known
        return self._open_known(known)

    def _open_known(self, incarnation: Incarnation) -> _Open:
        headers = HeaderLog(incarnation.directory, disk=self._disk)
        spool = Spool(incarnation.directory, disk=self._disk, journal=self._journal, limits=self._limits)
        shipper = Shipper(
            stream=incarnation.stream,
            ledger=self._ledger,
            spool=spool,
            headers=headers,
            store=self._store,
            key=self._key,
            clock=self._clock,
            limits=BatchLimits(heartbeat_seconds=0),
            asks=False,
        )
        return _Open(incarnation=incarnation, spool=spool, headers=headers, shipper=shipper)

    @contextmanager
    def _closing(self, opened: _Open) -> Iterator[_Open]:
        """The spool is closed behind the block; where the store has another's batches under its numbers, it is set aside for a person."""
        refused = False
        try:
            yield opened
        except Conflict:
            refused = True
            raise
        finally:
            opened.spool.close()
            opened.headers.close()
            if refused:
                self._journal.forget()  # before it goes: what is in it may be in no store, and would be a duplicate in other files
                set_aside(opened.incarnation, disk=self._disk)
                del self._known[opened.incarnation.stream]

    def _recover(self) -> None:
        """Read every spool that is still here: its ids go to the journal, and its rows to the store, before another file's are looked at."""
        for incarnation in list(self._known.values()):
            try:
                with self._closing(self._open_known(incarnation)) as opened:
                    self._ship(opened.shipper)
                    opened.shipper.release()
                    self._journal.flush()
            except Conflict as error:
                _log.warning("the spool of %s is set aside: %s", incarnation.stream, error)
                continue
            if opened.shipper.finished:
                remove(incarnation, disk=self._disk)
                del self._known[incarnation.stream]


def _stream(sha256: str, number: int) -> StreamId:
    if number > 1:
        sha256 = sha256_of(f"tallystick/import/v1\n{sha256}\n{number}".encode()).hexdigest()
    return stream_id(IMPORT, sha256)


def _number(row: Row) -> int:
    origin = row.event.origin if isinstance(row, Arrival) else row.origin
    return origin.row if origin else 0


def _append(spool: Spool, group: Group) -> Spooled:
    outcome: list[Spooled | Exception] = []
    spool.append(group, outcome.append)
    spool.commit_pending()
    result = outcome[0]
    if isinstance(result, Exception):
        raise result
    return result
