"""What the index keeps beside its trails' summaries so that they can be searched, compared row by row with a fresh index.

A search reads these tables and never the summaries: a row that is missing here hides a trail that is whole.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from correlator.errors import StateUnknown

__all__ = ["table_differences"]

_VIEWS = {
    "kind and tenant": "SELECT first_leaf, kind || ' ' || tenant FROM {db}.trails",
    "services": "SELECT first_leaf, (SELECT name FROM {db}.names WHERE id = service) FROM {db}.services",
    "names of events": "SELECT first_leaf, (SELECT name FROM {db}.names WHERE id = event) FROM {db}.events",
    "words": "SELECT first_leaf, (SELECT names.name FROM {db}.names WHERE id = found.name), word FROM (SELECT first_leaf, event AS name FROM {db}.events"
    " UNION ALL SELECT first_leaf, service FROM {db}.services) AS found JOIN {db}.words USING (name)",
    "texts": "SELECT first_leaf, text FROM {db}.texts",
    "keys": "SELECT first_leaf, (SELECT n.name FROM {db}.names AS n WHERE n.id = keys.name), value FROM {db}.keys",
    "currencies": "SELECT first_leaf, currency FROM {db}.amounts",
}
_COUNTS = {
    "number of links": "SELECT first_leaf, links FROM {db}.trails",
    "amounts": "SELECT first_leaf, currency, least, most FROM {db}.amounts",
    "links": "SELECT first_leaf, trail FROM {db}.links",
    # how leaves are cut into runs follows from when they came, so only runs behind a trail's last entry, or of no trail, are told apart
    "leaves": "SELECT first_leaf, position FROM {db}.runs WHERE position >="
    " coalesce((SELECT entries FROM {db}.trails AS t WHERE t.first_leaf = runs.first_leaf), 0)",
}
"""What a trail that grows changes: compared only while the index stands still. Then all rows are, else those of trails that the fresh one can have."""

_REACH = (
    "SELECT (SELECT size FROM theirs.progress),"
    " (SELECT max(coalesce(max(last_leaf), -1), coalesce(max(first_leaf), -1)) + 1 FROM theirs.trails)"
)
"""What the index says of its size, and what its rows say: written together, and read in one statement."""

_MAX_ROWID = (1 << 63) - 1


def table_differences(index: Path, fresh: Path, *, size: int) -> Iterator[tuple[str, str]]:
    """Each difference as (trail, what), over the trails that begin below leaf `size`, and while the index stands still over everything in it.

    All of it is one look at the index, which may grow meanwhile; what it has beyond the fresh one when it has more leaves by then is no difference.

    Args:
        index: the index file in question.
        fresh: one made anew from the log's first `size` leaves.
        size: leaves of the fresh one; of the index, at least.

    Raises:
        StateUnknown: a file cannot be read.
    """
    try:
        with closing(sqlite3.connect("file::memory:", uri=True, isolation_level=None)) as db:
            for name, path in (("theirs", index), ("ours", fresh)):
                db.execute(f"ATTACH ? AS {name}", (f"{path.absolute().as_uri()}?mode=ro",))
            db.execute("BEGIN")  # each file is read as it is at its first question
            told, reached = db.execute(_REACH).fetchone()
            grown = told != size
            if told != reached:
                yield "", f"it says that it has {told} leaves, and its trails reach to {reached}"
            for what, view in (_VIEWS if grown else _VIEWS | _COUNTS).items():
                for lacks, has in (("theirs", "ours"),) if grown else (("theirs", "ours"), ("ours", "theirs")):
                    yield from _lacking(db, what, view, lacks=lacks, has=has, size=size if grown else _MAX_ROWID)
    except sqlite3.Error as error:
        raise StateUnknown(f"the trail index cannot be compared: {error}") from error


def _lacking(
    db: sqlite3.Connection, what: str, view: str, *, lacks: str, has: str, size: int
) -> Iterator[tuple[str, str]]:
    sql = (
        f"SELECT first_leaf, coalesce((SELECT trail FROM ours.trails AS t WHERE t.first_leaf = found.first_leaf),"  # noqa: S608 - our own names
        f" 'leaf ' || first_leaf) FROM ({view.format(db=has)} EXCEPT {view.format(db=lacks)}) AS found"
        " WHERE first_leaf < ? GROUP BY first_leaf ORDER BY first_leaf"
    )
    for _, trail in db.execute(sql, (size,)):
        problem = "does not have all of" if lacks == "theirs" else "has more of"
        yield str(trail), f"the index {problem} its {what}"
