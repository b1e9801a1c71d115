"""`MonthStore` on the embedded event store: months are rows of one file.

The events' bytes are overwritten with zeros as they are deleted (https://www.sqlite.org/pragma.html#pragma_secure_delete). The file does not
shrink: its free pages are used for what comes next.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from collector.batch import BatchHeader, month_of, open_header
from collector.errors import VerificationError
from collector.sqlitefile import transaction
from collector.store.months import HeldMonth
from collector.store.sqlite import open_for_retiring, wrapped

__all__ = ["SqliteMonths"]

_BATCHES_A_TURN = 128
"""So many are deleted at once: what a sidecar waits for that stores a batch meanwhile."""


class SqliteMonths:
    """`collector.store.months.MonthStore` on one SQLite file.

    Args:
        path: the file; it must be there.

    Raises:
        Overloaded: it is not, or cannot be opened now.
        StateUnknown: it is not an event store of this version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = open_for_retiring(path)

    def close(self) -> None:
        """See `MonthStore.close`."""
        self._db.close()

    def held(self) -> Sequence[HeldMonth]:
        """See `MonthStore.held`."""
        events: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for _, header, _, size_bytes in self._batches():
            month = month_of(header)
            events[month] = events.get(month, 0) + header.count
            sizes[month] = sizes.get(month, 0) + size_bytes
        return [HeldMonth(month=month, events=events[month], size_bytes=sizes[month]) for month in sorted(events)]

    def _batches(self) -> Iterator[tuple[int, BatchHeader, str, int]]:
        """Row, header, digest and size of each batch whose events are there. One that does not hold is nobody's to let go of."""
        query = (
            "SELECT id, CAST(header AS BLOB), CAST(signature AS BLOB), length(bodies.events)"
            " FROM batches JOIN bodies ON bodies.batch = batches.id WHERE id > ? ORDER BY id LIMIT 1000"
        )
        last = -1
        while True:
            with wrapped(self._path):
                rows = self._db.execute(query, (last,)).fetchall()
            if not rows:
                return
            for row, data, signature, size_bytes in rows:
                try:
                    header = open_header(data, signature).header
                except VerificationError:
                    continue
                yield row, header, hashlib.sha256(data).hexdigest(), size_bytes
            last = rows[-1][0]

    def drop(self, month: str, headers: Collection[str], events: int) -> None:
        """See `MonthStore.drop`. What came meanwhile is not touched, so it is no conflict."""
        del events
        rows = [row for row, header, digest, _ in self._batches() if month_of(header) == month and digest in headers]
        for at in range(0, len(rows), _BATCHES_A_TURN):
            with wrapped(self._path), transaction(self._db):
                self._db.executemany(
                    "DELETE FROM bodies WHERE batch = ?", [(row,) for row in rows[at : at + _BATCHES_A_TURN]]
                )
        with wrapped(self._path):
            # the journal holds the bytes as they were, until it is emptied; where somebody reads just now, it is emptied later
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def reopen(self, month: str) -> None:
        """See `MonthStore.reopen`: nothing is ever shut here."""

    def compact(self, month: str) -> None:
        """See `MonthStore.compact`: there are no pieces here."""
