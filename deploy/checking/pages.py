"""What an index on OpenSearch holds beside its trails' documents: pages of keys, and chunks of what is long.

The trails' documents are compared as they are told, and reading one checks that it tells what it is found by. Of what lies beside them everything must
follow from the log: nothing may be missing by which a trail is found, and nothing may be there that the log does not say.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from correlator.index.opensearch.documents import CHUNK_LEAVES, CHUNK_LINKS, trail_id
from correlator.index.rows import KEYS_A_PAGE

if TYPE_CHECKING:
    from correlator.index.opensearch.beside import Beside

__all__ = ["PagedIndex", "page_differences"]

_KEYS_AT_ONCE = 256
_HAS_KEY = (
    "SELECT 1 FROM keys WHERE name = (SELECT id FROM names WHERE names.name = ?) AND value = ? AND first_leaf = ?"
)


@runtime_checkable
class PagedIndex(Protocol):
    """An index that keeps keys apart from their trails: `correlator.index.opensearch.index.OpenSearchIndex`, which is an extra."""

    def lacks(self, trail: str, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of these keys by which the trail is not found."""

    def beside(self, size: int) -> "Iterator[Beside]":
        """All documents but those of trails that begin below leaf `size`, and all that were put elsewhere than their id says."""


def page_differences(
    index: PagedIndex, fresh: Path, *, size: int, reached: Callable[[], int]
) -> Iterator[tuple[str, str]]:
    """Each difference as (trail, what); the trail is empty where that is not known.

    Args:
        index: the index in question.
        fresh: one in SQLite, made anew from the log's first `size` leaves; it is given tables of its own for this.
        size: leaves of `fresh`.
        reached: how many leaves the log has by now: an index that grows meanwhile, or has not set its mark yet, holds what they say, too.

    Raises:
        Overloaded: the cluster does not answer.
    """
    with closing(sqlite3.connect(fresh, isolation_level=None)) as db:
        yield from _missing(index, db, size)
        _note_chunks(db)
        for document in index.beside(size):
            problem = _surplus(db, document)
            # asked after the document was read: it is written only when the log has what it says
            if problem and not size < document.written <= reached():
                yield document.trail, problem


def _missing(index: PagedIndex, db: sqlite3.Connection, size: int) -> Iterator[tuple[str, str]]:
    turned = "FROM trails WHERE json_array_length(keys) >= ? AND first_leaf < ?"
    if db.execute(f"SELECT EXISTS (SELECT 1 {turned})", (KEYS_A_PAGE, size)).fetchone()[0]:
        db.execute("CREATE INDEX IF NOT EXISTS keys_by_leaf ON keys (first_leaf)")
    for first_leaf, trail in db.execute(f"SELECT first_leaf, trail {turned}", (KEYS_A_PAGE, size)):
        keys = db.execute(
            "SELECT (SELECT n.name FROM names AS n WHERE n.id = keys.name), value FROM keys WHERE first_leaf = ?",
            (first_leaf,),
        )
        while some := keys.fetchmany(_KEYS_AT_ONCE):
            if index.lacks(trail, some):
                yield trail, "the index does not find it by all of its keys"
                break


def _note_chunks(db: sqlite3.Connection) -> None:
    """A table of how many chunks each trail has, by the id of its document, of those that have any."""
    db.create_function("document", 1, trail_id, deterministic=True)
    db.execute("CREATE TEMP TABLE chunked (id TEXT PRIMARY KEY, leaves INTEGER, links INTEGER) WITHOUT ROWID")
    db.execute(
        "INSERT INTO chunked SELECT document(trail), entries / :leaves, links / :links FROM trails"
        " WHERE entries >= :leaves OR links >= :links",
        {"leaves": CHUNK_LEAVES, "links": CHUNK_LINKS},
    )


def _surplus(db: sqlite3.Connection, document: "Beside") -> str:
    """What is wrong with a document beside the trails that were compared; empty if the log says it."""
    match document.kind:
        case "mark":
            return ""
        case "trail":
            return "the index knows it, and the log does not"
        case "keys":
            known = db.execute("SELECT first_leaf FROM trails WHERE trail = ?", (document.trail,)).fetchone()
            if known is None:
                return "the index finds it by keys, and the log does not know it"
            theirs = (db.execute(_HAS_KEY, (*key, *known)).fetchone() for key in document.keys)
            return "" if all(theirs) else "the index finds it by keys that it does not have"
        case "leaves" | "links":
            row = db.execute("SELECT leaves, links FROM chunked WHERE id = ?", (document.of,)).fetchone()
            if row is not None and document.at < row[0 if document.kind == "leaves" else 1]:
                return ""
    return f"it holds a document that nothing in the log accounts for: {document.id[:100]!r}"
