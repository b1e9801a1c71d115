"""The databases as files: whether SQLite itself finds them whole, before anything in them is compared."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from collector.errors import Overloaded

__all__ = ["file_problems"]

_MAX_PROBLEMS = 20
_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM})


def file_problems(path: Path) -> Iterator[str]:
    """What is wrong with the file: it is missing, or its pages and indexes, or its rows, do not fit together (https://www.sqlite.org/pragma.html).

    Raises:
        Overloaded: it is busy, from which no finding follows.
    """
    if not path.is_file():
        yield "it is missing"
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            for (problem,) in db.execute(f"PRAGMA integrity_check({_MAX_PROBLEMS})"):
                if problem != "ok":
                    yield f"the file is damaged: {' '.join(problem.split())}"
            for table, row, owner, _ in db.execute("PRAGMA foreign_key_check").fetchmany(_MAX_PROBLEMS):
                yield f"row {row} of {table} belongs to nothing in {owner}: it was added, or that was taken out"
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING:
            raise Overloaded(f"{path.name} does not answer: {error}", retry_after_seconds=1.0) from error
        yield f"the file is damaged: {error}"
