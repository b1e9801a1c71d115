"""The embedded event store: one SQLite file in WAL mode with ``synchronous=FULL``.

A batch is one row: its events lie side by side in one blob and are sliced when asked for, because a row for each event costs
several times as much as everything else done to it. Several processes (sidecars, correlator, API) open the same file;
SQLite's lock orders the writers.

What a crash means: a transaction is either whole or absent after restart (https://www.sqlite.org/wal.html), so `append`
has either stored the batch, and the shipper's repeat finds the same header, or it has not, and the repeat stores it.
"""

import sqlite3
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Literal

from collector.batch import Batch, EventRef, SignedHeader, StreamId, open_header
from collector.errors import Conflict, NotFound, Overloaded, StateUnknown, VerificationError
from collector.sqlitefile import set_up, transaction, version_of

__all__ = ["SqliteStore", "open_for_retiring", "wrapped"]

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    stream TEXT NOT NULL UNIQUE,
    acknowledged INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL REFERENCES streams (id),
    number INTEGER NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    header BLOB NOT NULL,
    signature BLOB NOT NULL,
    lengths BLOB NOT NULL,
    facts BLOB NOT NULL
);
CREATE UNIQUE INDEX batches_by_number ON batches (stream, number);
CREATE INDEX batches_by_first ON batches (stream, first) WHERE count > 0;
CREATE TABLE bodies (
    batch INTEGER PRIMARY KEY REFERENCES batches (id),
    events BLOB NOT NULL
);
"""
# the facts lie apart from the bodies so that the correlator's reading never touches a body's pages

_SHARES = """
CREATE TABLE IF NOT EXISTS shares (
    stream INTEGER NOT NULL REFERENCES streams (id),
    parts INTEGER NOT NULL,
    part INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    PRIMARY KEY (stream, parts, part)
) WITHOUT ROWID
"""
"""What each shard's log holds; made only where a ledger is cut, so that other files stay as they were."""

_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_SCHEMA,
    }
)
"""Result codes of what may pass by itself or by an operator's hand; every other one means that the file is not ours to use."""

_CHECKPOINT_PAGES = 128
"""2 MiB. Of SQLite's 1,000 such pages a checkpoint takes 20 ms and keeps the spool's syncs, on the same disk, for 5 ms and more."""

_CACHED_BATCHES = 512
_BLOBS_A_CONNECTION = 10_000
"""CPython keeps a weak reference to each blob that a connection ever opened, for as long as the connection lives: 88 bytes an event that was read."""
_HEADER_COLUMNS = (
    "number, first, count, length(CAST(lengths AS BLOB)),"
    " CAST(header AS BLOB), CAST(signature AS BLOB), CAST(facts AS BLOB)"
)
"""What `_opened` takes. Cast, because a column that was made text must fail its own batch, not the driver."""


class SqliteStore:
    """`collector.store.EventStore` on one SQLite file; made when absent.

    Args:
        path: the file; its folder must exist.
        read_only: open for reading alone (the API); the file must exist.
        busy_seconds: how long to wait for another process's write before `Overloaded`.
    """

    keeps_headers = True

    def __init__(self, path: Path, *, read_only: bool = False, busy_seconds: float = 5.0) -> None:
        self._path = path
        self._offsets: OrderedDict[int, Sequence[int]] = OrderedDict()
        self._stream_rows: dict[StreamId, int] = {}
        self._busy_seconds = busy_seconds
        self._blobs: sqlite3.Connection | None = None
        self._blobs_opened = 0
        if not read_only:
            # made here, because SQLite gives its journal and shared memory the mode that the file has when they are made
            try:
                path.touch(mode=0o600, exist_ok=False)
            except FileExistsError:
                pass
            except OSError as error:
                raise Overloaded(f"the event store {path.name} cannot be made: {error}") from error
        with wrapped(path):
            self._db = self._connect("ro" if read_only else "rw")
            try:
                if not read_only:
                    _prepare(self._db, busy_seconds)
                elif version_of(self._db) != _SCHEMA_VERSION:
                    raise NotFound(f"{path}: no event store of this version here yet")
            except BaseException:
                self._db.close()
                raise

    def _connect(self, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=self._busy_seconds,
        )

    def _blob(self, batch: int) -> sqlite3.Blob:
        """The events of a batch, on a connection that is replaced now and then (`_BLOBS_A_CONNECTION`). To be closed at once."""
        if self._blobs is not None and self._blobs_opened >= _BLOBS_A_CONNECTION:
            self._blobs.close()
            self._blobs = None
        if self._blobs is None:
            self._blobs, self._blobs_opened = self._connect("ro"), 0
        self._blobs_opened += 1
        return self._blobs.blobopen("bodies", "events", batch, readonly=True)

    def place(self, created: str) -> str:
        """One file is one place: always empty."""
        del created
        return ""

    def append(self, batch: Batch) -> None:
        """See `EventStore.append`."""
        header = batch.signed.header
        lengths = array("I", batch.lengths).tobytes()
        with wrapped(self._path), transaction(self._db):
            row = self._stream_row(StreamId(header.stream))
            known = self._db.execute(
                "SELECT header FROM batches WHERE stream = ? AND number = ?", (row, header.number)
            ).fetchone()
            if known is not None:
                if known[0] == batch.signed.data:
                    return
                raise Conflict(f"another batch {header.number} of stream {header.stream} is stored already")
            cursor = self._db.execute(
                "INSERT INTO batches (stream, number, first, count, header, signature, lengths, facts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    row,
                    header.number,
                    header.first,
                    header.count,
                    batch.signed.data,
                    batch.signed.signature,
                    lengths,
                    batch.signed.facts,
                ),
            )
            if header.count:
                self._db.execute("INSERT INTO bodies (batch, events) VALUES (?, ?)", (cursor.lastrowid, batch.events))

    def batches_after(self, frontier: Mapping[StreamId, int], limit: int) -> Sequence[SignedHeader]:
        """See `EventStore.batches_after`."""
        found: list[SignedHeader] = []
        with wrapped(self._path):
            for stream, number in frontier.items():
                rows = self._db.execute(
                    f"SELECT {_HEADER_COLUMNS} FROM batches"  # noqa: S608 - a constant
                    " WHERE stream = (SELECT id FROM streams WHERE stream = ?) AND number > ? ORDER BY number LIMIT ?",
                    (stream, number, limit),
                )
                found.extend(_opened(stream, row) for row in rows)
        return found

    def batch(self, stream: StreamId, number: int) -> SignedHeader | None:
        """See `EventStore.batch`."""
        with wrapped(self._path):
            row = self._db.execute(
                f"SELECT {_HEADER_COLUMNS} FROM batches"  # noqa: S608 - a constant
                " WHERE stream = (SELECT id FROM streams WHERE stream = ?) AND number = ?",
                (stream, number),
            ).fetchone()
        return None if row is None else _opened(stream, row)

    def events(self, refs: Sequence[EventRef]) -> Sequence[bytes]:
        """See `EventStore.events`."""
        with wrapped(self._path):
            return [self._event(ref) for ref in refs]

    def _event(self, ref: EventRef) -> bytes:
        row = self._db.execute(
            "SELECT id, first, count FROM batches WHERE stream = (SELECT id FROM streams WHERE stream = ?)"
            " AND count > 0 AND first <= ? ORDER BY first DESC LIMIT 1",
            (ref.stream, ref.sequence),
        ).fetchone()
        if row is None or ref.sequence >= row[1] + row[2]:
            raise NotFound(f"event {ref.sequence} of stream {ref.stream} is not in the store")
        batch, first, count = row
        offsets = self._batch_offsets(batch, count, ref)
        start, end = offsets[ref.sequence - first], offsets[ref.sequence - first + 1]
        try:
            with self._blob(batch) as blob:
                if len(blob) != offsets[-1]:
                    raise VerificationError(
                        f"the events beside event {ref.sequence} of stream {ref.stream} changed length"
                    )
                blob.seek(start)
                return blob.read(end - start)
        except sqlite3.OperationalError as error:
            if "no such rowid" in str(error):
                raise NotFound(f"event {ref.sequence} of stream {ref.stream} is not in the store") from error
            raise

    def _batch_offsets(self, batch: int, count: int, ref: EventRef) -> Sequence[int]:
        offsets = self._offsets.get(batch)
        if offsets is None:
            (data,) = self._db.execute("SELECT lengths FROM batches WHERE id = ?", (batch,)).fetchone()
            if len(data) != 4 * count:
                raise VerificationError(f"the lengths beside event {ref.sequence} of stream {ref.stream} are damaged")
            offsets = array("Q", accumulate(array("I", data), initial=0))  # a list would take five times as much
            self._offsets[batch] = offsets
            if len(self._offsets) > _CACHED_BATCHES:
                self._offsets.popitem(last=False)
        return offsets

    def streams(self) -> Sequence[StreamId]:
        """See `EventStore.streams`."""
        with wrapped(self._path):
            # as bytes: one damaged name that is no UTF-8 must not hide the others
            rows = self._db.execute("SELECT CAST(stream AS BLOB) FROM streams ORDER BY id")
            return [StreamId(row[0].decode("utf-8", "replace")) for row in rows]

    def acknowledge(self, frontier: Mapping[StreamId, int], *, part: int = 1, parts: int = 1) -> None:
        """See `EventStore.acknowledge`."""
        with wrapped(self._path), transaction(self._db):
            if parts > 1:
                frontier = self._least(frontier, part, parts)
            self._db.executemany(
                "UPDATE streams SET acknowledged = max(acknowledged, ?) WHERE stream = ?",
                [(number, stream) for stream, number in frontier.items()],
            )

    def _least(self, frontier: Mapping[StreamId, int], part: int, parts: int) -> dict[StreamId, int]:
        """Note one shard's word down, in the caller's transaction; gives what all of them have said by now."""
        self._db.execute(_SHARES)
        self._db.executemany(
            "INSERT INTO shares (stream, parts, part, acknowledged) SELECT id, ?, ?, ? FROM streams WHERE stream = ?"
            " ON CONFLICT DO UPDATE SET acknowledged = max(acknowledged, excluded.acknowledged)",
            [(parts, part, number, stream) for stream, number in frontier.items()],
        )
        least: dict[StreamId, int] = {}
        for stream in frontier:
            told, number = self._db.execute(
                "SELECT count(*), min(acknowledged) FROM shares"
                " WHERE stream = (SELECT id FROM streams WHERE stream = ?) AND parts = ?",
                (stream, parts),
            ).fetchone()
            if told == parts:
                least[stream] = int(number)
        return least

    def acknowledged(self, stream: StreamId) -> int:
        """See `EventStore.acknowledged`."""
        with wrapped(self._path):
            row = self._db.execute("SELECT acknowledged FROM streams WHERE stream = ?", (stream,)).fetchone()
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        """See `EventStore.close`."""
        if self._blobs is not None:
            self._blobs.close()
        self._db.close()

    def _stream_row(self, stream: StreamId) -> int:
        row = self._stream_rows.get(stream)
        if row is None:
            found = self._db.execute("SELECT id FROM streams WHERE stream = ?", (stream,)).fetchone()
            if found is not None:
                # remembered only when committed earlier: an insert of this transaction may yet roll back
                row = self._stream_rows[stream] = int(found[0])
            else:
                row = int(self._db.execute("INSERT INTO streams (stream) VALUES (?)", (stream,)).lastrowid or 0)
        return row


def _opened(stream: StreamId, row: tuple[int, int, int, int, bytes, bytes, bytes]) -> SignedHeader:
    number, first, count, lengths_bytes, header, signature, facts = row
    try:
        signed = open_header(header, signature, facts)
    except VerificationError as error:
        told = f"stream {stream}, batch {number} in the store: {error}"
        raise VerificationError(told, label=error.label) from error
    if signed.header.stream != stream or signed.header.number != number:
        raise VerificationError(
            f"stream {stream}, batch {number} in the store: the row holds batch {signed.header.number}"
            f" of stream {signed.header.stream}"
        )
    # what events are found by is not signed itself: it must say what the header says
    if (first, count, lengths_bytes) != (signed.header.first, signed.header.count, 4 * signed.header.count):
        raise VerificationError(
            f"stream {stream}, batch {number} in the store: the row says {count} events from {first} on with"
            f" {lengths_bytes} bytes of lengths, the header {signed.header.count} from {signed.header.first} on"
        )
    return signed


def _prepare(db: sqlite3.Connection, busy_seconds: float) -> None:
    db.execute("PRAGMA page_size = 16384")  # a batch is one large blob; takes effect only before the first table
    version = set_up(db, schema=_SCHEMA, version=_SCHEMA_VERSION, synchronous="FULL", busy_seconds=busy_seconds)
    db.execute("PRAGMA foreign_keys = ON")
    db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    if version != _SCHEMA_VERSION:
        raise StateUnknown(f"the event store has format {version}; this program knows {_SCHEMA_VERSION}")


def open_for_retiring(path: Path, *, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """The file of an event store, for deleting events in it: what is deleted is overwritten.

    Raises:
        Overloaded: it is not there, or cannot be opened now.
        StateUnknown: it is not an event store of this version.
    """
    with wrapped(path):
        uri = f"{path.absolute().as_uri()}?mode=rw"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=busy_seconds)
        try:
            _prepare(db, busy_seconds)
            db.execute("PRAGMA secure_delete = ON").fetchone()
        except BaseException:
            db.close()
            raise
    return db


@contextmanager
def wrapped(path: Path) -> Iterator[None]:
    """Turn the driver's errors into those that callers act on."""
    try:
        yield
    except sqlite3.Error as error:
        # the class says little: a missing table is as operational an error as a full disk (https://www.sqlite.org/rescode.html)
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _PASSING:
            raise Overloaded(
                f"the event store {path.name} does not answer: {error}", retry_after_seconds=1.0
            ) from error
        raise StateUnknown(f"the event store {path.name} is damaged or closed: {error}") from error
