"""The trail index in one SQLite file: one row a trail, which is rewritten whole; nothing here is the record.

A trail's row id is its first leaf index, so "newest first" is the order of the table and every secondary index, and a cursor
is a bound on the row id. Leaves are kept as runs: one blob for each `apply` that touched the trail. Side tables hold a
trail's keys, services, names of events, texts and links, one row each, written when they are new. A search by text is led by its
rare terms, and what that finds is decided by `Row.has_text`; a search with a condition likewise, by `Row.meets`. Of a trail that has more
keys than its row holds, the side tables are asked for what the search asks.

The writer keeps the rows that it touched lately in memory, so that an upsert needs no read. ``synchronous=NORMAL`` is enough: a
power cut may lose the last transactions, never the order of them, and `size` says from which leaf to go on.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from collector.sqlitefile import set_up, transaction, version_of
from correlator.errors import NotFound, Overloaded, StateUnknown, VerificationError
from correlator.index import IndexedLeaf, Page, TextSearch, TrailQuery, TrailSummary
from correlator.index.asked import Asked, asked_of
from correlator.index.columns import columns_of, row_of, run_column, run_of
from correlator.index.recent import Recent
from correlator.index.rows import HUB_LINKS, Row, absorb
from correlator.index.schema import SCHEMA, SCHEMA_VERSION, TABLES
from correlator.index.search import COLUMNS, key_asked, leading, narrowed, search, term_asked
from correlator.index.words import name_words, texts_of

__all__ = ["SqliteIndex"]

_KNOWN_NAMES = 65_536
_LOOKS = 50_000
"""Trails that one search by text or with a condition looks at: then it gives what it has, and others have their turn."""
_LOOKS_A_TURN = 256
_BUSY_MS = 5_000
_UPSERT = """
INSERT INTO trails VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (first_leaf) DO UPDATE SET entries = excluded.entries, last_leaf = excluded.last_leaf,
    first_time = excluded.first_time, last_time = excluded.last_time, status = excluded.status,
    links = excluded.links, services = excluded.services, events = excluded.events, keys = excluded.keys, amounts = excluded.amounts
WHERE excluded.last_leaf > trails.last_leaf
"""
_BY_TRAIL = f"SELECT {COLUMNS} FROM trails WHERE trail = ?"  # noqa: S608 - made of constants


class SqliteIndex:
    """`correlator.index.TrailIndex` on one SQLite file; made when absent. For several threads.

    Args:
        path: the file; its folder must exist.
        hub_links: a key's trail with more links than this is a hub.
        read_only: open for reading alone (the API); the file must exist.

    Raises:
        NotFound: `read_only`, and there is no index of this version.
        Overloaded: the file cannot be opened or is busy.
        StateUnknown: the file is damaged, or of another version: remove it and reindex.
    """

    def __init__(self, path: Path, *, hub_links: int = HUB_LINKS, read_only: bool = False) -> None:
        self._path = path
        self._hub_links = hub_links
        self._lock = threading.Lock()
        self._recent = Recent[Row](lambda row: len(row.keys))
        self._names: dict[str, int] = {}
        self._worded: dict[str, int] = {}
        self._known_size = -1  # other than the file's when another process wrote it: then the rows above are stale
        with _wrapped(path):
            mode = "ro" if read_only else "rwc"
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=_BUSY_MS / 1000,
            )
            try:
                if not read_only:
                    _prepare(self._db)
                    path.chmod(0o600)
                elif version_of(self._db) != SCHEMA_VERSION:
                    raise NotFound(f"{path}: no trail index of this version here yet")
                self._db.execute("PRAGMA cache_size = -16384")
            except BaseException:
                self._db.close()
                raise

    # ---------------------------------------------------------------------------------------------------------- writing

    def size(self) -> int:
        """See `TrailIndex.size`."""
        with self._lock, _wrapped(self._path):
            return self._size()

    def apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        """See `TrailIndex.apply`."""
        with self._lock, _wrapped(self._path):
            try:
                with transaction(self._db):
                    size = self._size()
                    if size != self._known_size:
                        self._forget()
                    fresh = (
                        [leaf for leaf in leaves if leaf.leaf >= size] if leaves and leaves[0].leaf < size else leaves
                    )
                    if not fresh:
                        return
                    if fresh[0].leaf != size or fresh[-1].leaf != size + len(fresh) - 1:
                        raise ValueError(
                            f"leaves {fresh[0].leaf} to {fresh[-1].leaf} do not follow: {size} are indexed"
                        )
                    self._write(absorb(fresh, self._row))
                    size += len(fresh)
                    self._db.execute("UPDATE progress SET size = ?", (size,))
                self._known_size = size
            except BaseException:
                self._forget()  # the rows in memory tell of what was rolled back
                raise
            self._recent.turn()

    def _row(self, trail: str) -> Row | None:
        row = self._recent.get(trail)
        if row is None:
            found = self._db.execute(_BY_TRAIL, (trail,)).fetchone()
            if found is None:
                return None
            row = row_of(found)
            self._recent.put(trail, row)
        return row

    def _write(self, rows: Iterable[Row]) -> None:
        trails, runs, services, events, keys, texts, amounts, links = [], [], [], [], [], [], [], []
        for row in rows:
            first = row.first_leaf
            self._recent.put(row.trail, row, new_keys=len(row.new_keys))
            trails.append(columns_of(row))
            runs.append((first, row.entries - len(row.new_leaves), run_column(row.new_leaves)))
            if row.new_services:
                services += [(self._worded_name(name), first) for name in row.new_services]
            if row.new_events:
                events += [(self._worded_name(name), first) for name in row.new_events]
            if row.new_keys or row.new_leaves[0] == first:
                texts += [(text, first) for text in texts_of(row.trail, row.new_keys)]
            if row.new_keys:
                keys += [(self._name(name), value, first) for name, value in row.new_keys]
            if row.new_amounts:
                amounts += [(first, currency, *row.amounts[currency]) for currency in row.new_amounts]
            if row.new_links:
                links += [(first, other) for other in row.new_links]
            row.written()
        trails.sort()
        many = self._db.executemany
        many(_UPSERT, trails)
        many("INSERT INTO runs VALUES (?, ?, ?)", sorted(runs))
        many("INSERT OR IGNORE INTO services VALUES (?, ?)", sorted(services))
        many("INSERT OR IGNORE INTO events VALUES (?, ?)", sorted(events))
        many("INSERT OR IGNORE INTO texts VALUES (?, ?)", sorted(texts))
        many("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", sorted(keys))
        many("INSERT OR REPLACE INTO amounts VALUES (?, ?, ?, ?)", sorted(amounts))
        many("INSERT OR IGNORE INTO links VALUES (?, ?)", sorted(links))

    def _name(self, name: str) -> int:
        number = self._names.get(name)
        if number is None:
            self._db.execute("INSERT OR IGNORE INTO names (name) VALUES (?)", (name,))
            (number,) = self._db.execute("SELECT id FROM names WHERE name = ?", (name,)).fetchone()
            if len(self._names) >= _KNOWN_NAMES:  # names of keys and events may be made of numbers
                self._names.clear()
            self._names[name] = int(number)
        return int(number)

    def _worded_name(self, name: str) -> int:
        """As `_name`, of what is found by its words."""
        number = self._worded.get(name)
        if number is None:
            number = self._name(name)
            words = [(word, number) for word in name_words(name)]
            self._db.executemany("INSERT OR IGNORE INTO words VALUES (?, ?)", words)
            if len(self._worded) >= _KNOWN_NAMES:
                self._worded.clear()
            self._worded[name] = number
        return number

    def _forget(self) -> None:
        self._recent.forget()
        self._names, self._worded, self._known_size = {}, {}, -1

    def _size(self) -> int:
        return int(self._db.execute("SELECT size FROM progress").fetchone()[0])

    def clear(self) -> None:
        """See `TrailIndex.clear`."""
        with self._lock, _wrapped(self._path):
            self._forget()
            with transaction(self._db):
                for table in TABLES:
                    self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
                self._db.execute("UPDATE progress SET size = 0")

    def close(self) -> None:
        """See `TrailIndex.close`."""
        with self._lock:
            self._db.close()

    # ---------------------------------------------------------------------------------------------------------- reading

    def find(self, query: TrailQuery, *, size: int, below: int | None = None, limit: int = 50) -> Page:
        """See `TrailIndex.find`."""
        bound = size if below is None else min(size, below)
        with self._lock, _wrapped(self._path):
            found, looked_down_to = self._found(query, bound, limit + 1)
            summaries = tuple(self._summary(row, size) for row in found[:limit])
        return Page(trails=summaries, next_below=summaries[-1].first_leaf if len(found) > limit else looked_down_to)

    def _found(self, query: TrailQuery, bound: int, limit: int) -> tuple[list[tuple[object, ...]], int | None]:
        """At most `limit` rows that match; and, when it gave up looking before there were so many, the last first leaf looked at."""
        query = narrowed(query)
        text, condition = query.text, query.condition
        if text is None and condition is None:
            return self._db.execute(*search(query, bound, limit)).fetchall(), None
        asked = asked_of(query)
        leads = leading(query, lambda sql, arguments: int(self._db.execute(sql, arguments).fetchone()[0]))
        rows = self._db.execute(*search(query, bound, _LOOKS, leads=leads)).fetchmany
        found: list[tuple[object, ...]] = []
        looked, last = 0, bound
        while some := rows(_LOOKS_A_TURN):
            trails = [row_of(row) for row in some]
            self._complete([trail for trail in trails if trail.turned], asked)
            for row, trail in zip(some, trails, strict=True):
                looked, last = looked + 1, trail.first_leaf
                if (text is None or trail.has_text(text)) and (condition is None or trail.meets(condition)):
                    found.append(row)
                    if len(found) == limit:
                        return found, None
        return found, last if looked == _LOOKS else None

    def _complete(self, turned: Sequence[Row], asked: Asked) -> None:
        """Look up what a search asks of trails whose rows do not hold all of their keys."""
        if not turned:
            return
        rows = {row.first_leaf: row for row in turned}
        for key in asked.keys:
            for (first_leaf,) in self._db.execute(*key_asked(key, list(rows))):
                row = rows[first_leaf]
                row.asked_keys = (*row.asked_keys, key)
        for term in asked.terms:
            # a prefix is looked for among all texts that begin so, of whatever trail: only where a row does not settle it
            without = [
                first for first, row in rows.items() if not (term.prefix and row.has_text(TextSearch(terms=(term,))))
            ]
            for first_leaf, text in self._db.execute(*term_asked(term, without)) if without else ():
                row = rows[first_leaf]
                row.asked_texts = (*row.asked_texts, text)

    def trail(self, trail: str) -> TrailSummary:
        """See `TrailIndex.trail`."""
        with self._lock, _wrapped(self._path):
            row = self._db.execute(_BY_TRAIL, (trail,)).fetchone()
            if row is None:
                raise NotFound(f"no trail {trail[:300]!r} in the index")
            return self._summary(row, None)

    def is_hub(self, trail: str) -> bool:
        """See `TrailIndex.is_hub`."""
        with self._lock, _wrapped(self._path):
            row = self._db.execute(_BY_TRAIL, (trail,)).fetchone()
            if row is None:
                raise NotFound(f"no trail {trail[:300]!r} in the index")
            return row_of(row).is_hub(self._hub_links)

    def all_links(self, trail: str) -> Sequence[str]:
        """See `TrailIndex.all_links`."""
        with self._lock, _wrapped(self._path):
            rows = self._db.execute(
                "SELECT trail FROM links WHERE first_leaf = (SELECT first_leaf FROM trails WHERE trail = ?) ORDER BY trail",
                (trail,),
            )
            return [link for (link,) in rows]

    def leaves(self, trail: str, *, start: int = 0, limit: int = 1_000, size: int | None = None) -> Sequence[int]:
        """See `TrailIndex.leaves`."""
        out: list[int] = []
        with self._lock, _wrapped(self._path):
            found = self._db.execute("SELECT first_leaf, entries FROM trails WHERE trail = ?", (trail,)).fetchone()
            if found is None or start >= found[1] or limit <= 0:
                return out
            # the run that holds `start` begins at or before it
            rows = self._db.execute(
                "SELECT position, leaves FROM runs WHERE first_leaf = ? AND position >= coalesce("
                "(SELECT max(position) FROM runs WHERE first_leaf = ? AND position <= ?), 0) ORDER BY position",
                (found[0], found[0], start),
            )
            for position, blob in rows:
                run = run_of(blob)
                out += run[start - position :] if position < start else run
                if len(out) >= limit:
                    break
        del out[limit:]
        if size is not None:
            while out and out[-1] >= size:  # ascending, and almost always all of them are below
                out.pop()
        return out

    def _summary(self, found: tuple[object, ...], size: int | None) -> TrailSummary:
        row = row_of(found)
        entries, last_leaf = row.entries, row.last_leaf
        if size is not None and last_leaf >= size:
            entries, last_leaf = self._within(row.first_leaf, size)
        # in the order of the table, backwards: of a hub, of which not all are told, transactions come before traces
        found_links = self._db.execute(
            "SELECT trail FROM links WHERE first_leaf = ? ORDER BY trail DESC", (row.first_leaf,)
        )
        links = (link for (link,) in found_links)
        return row.summary(entries=entries, last_leaf=last_leaf, links=links, hub_links=self._hub_links)

    def _within(self, first_leaf: int, size: int) -> tuple[int, int]:
        """How many leaves of the trail are below `size`, and the last of them."""
        rows = self._db.execute(
            "SELECT position, leaves FROM runs WHERE first_leaf = ? ORDER BY position DESC", (first_leaf,)
        )
        for position, blob in rows:
            run = [leaf for leaf in run_of(blob) if leaf < size]
            if run:
                return int(position) + len(run), run[-1]
        return 0, -1

    def explain(self, query: TrailQuery) -> str:
        """SQLite's plan for this query, for tests: no search may sort, or read what it does not need."""
        with self._lock:
            query = narrowed(query)
            leads = leading(query, lambda *_: 0)
            sql, arguments = search(query, 1 << 60, 51, leads=leads)
            return "\n".join(str(row[3]) for row in self._db.execute(f"EXPLAIN QUERY PLAN {sql}", arguments))


def _prepare(db: sqlite3.Connection) -> None:
    version = set_up(db, schema=SCHEMA, version=SCHEMA_VERSION, synchronous="NORMAL", busy_seconds=_BUSY_MS / 1000)
    if version != SCHEMA_VERSION:
        raise StateUnknown(
            f"the trail index has format {version}; this program knows {SCHEMA_VERSION}: remove it and reindex"
        )


@contextmanager
def _wrapped(path: Path) -> Iterator[None]:
    """Turn the driver's errors into those that callers act on."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) is None:  # not SQLite's own: text in the file that is none
            raise StateUnknown(f"the trail index {path.name} is damaged ({error}): remove it and reindex") from error
        raise Overloaded(f"the trail index {path.name} does not answer: {error}", retry_after_seconds=1.0) from error
    except (sqlite3.DatabaseError, msgspec.DecodeError, VerificationError) as error:
        raise StateUnknown(f"the trail index {path.name} is damaged ({error}): remove it and reindex") from error
