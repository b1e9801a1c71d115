"""Trails with more keys than their documents on OpenSearch hold: whether each is found by all of its keys.

The others' documents are compared as they are told, and reading one checks that it tells what it is found by.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol, runtime_checkable

from correlator.index.rows import KEYS_A_PAGE

__all__ = ["PagedIndex", "page_differences"]

_KEYS_AT_ONCE = 256


@runtime_checkable
class PagedIndex(Protocol):
    """An index that keeps keys apart from their trails: `correlator.index.opensearch.index.OpenSearchIndex`, which is an extra."""

    def lacks(self, trail: str, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of these keys by which the trail is not found."""


def page_differences(index: PagedIndex, fresh: Path, *, size: int) -> Iterator[tuple[str, str]]:
    """Each difference as (trail, what), over the trails that begin below leaf `size`.

    Args:
        index: the index in question.
        fresh: one in SQLite, made anew from the log's first `size` leaves; it is given another table's index for this.
        size: leaves of `fresh`.

    Raises:
        Overloaded: the cluster does not answer.
    """
    with closing(sqlite3.connect(fresh, isolation_level=None)) as db:
        turned = db.execute(
            "SELECT first_leaf, trail FROM trails WHERE json_array_length(keys) >= ? AND first_leaf < ?",
            (KEYS_A_PAGE, size),
        ).fetchall()
        if turned:
            db.execute("CREATE INDEX IF NOT EXISTS keys_by_leaf ON keys (first_leaf)")
        for first_leaf, trail in turned:
            keys = db.execute(
                "SELECT (SELECT n.name FROM names AS n WHERE n.id = keys.name), value FROM keys WHERE first_leaf = ?",
                (first_leaf,),
            )
            while some := keys.fetchmany(_KEYS_AT_ONCE):
                if index.lacks(trail, some):
                    yield trail, "the index does not find it by all of its keys"
                    break
