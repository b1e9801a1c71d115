"""What every SQLite file of ours needs: write-ahead logging, a schema made once whoever comes first, and whole transactions."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

__all__ = ["set_up", "transaction", "version_of"]


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: committed when the block ends, rolled back when it or the commit raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a COMMIT that failed may have rolled back by itself
            db.execute("ROLLBACK")
        raise


def version_of(db: sqlite3.Connection) -> int:
    """The version of the file's format; 0 when nothing was made in it yet."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def set_up(
    db: sqlite3.Connection,
    *,
    schema: str,
    version: int,
    synchronous: Literal["NORMAL", "FULL"],
    busy_seconds: float,
) -> int:
    """Switch to WAL, and make the schema (statements ended by ``;`` and a line end) in a file that has none.

    Returns the version that the file now has: another one than `version` is the caller's to refuse. Raises sqlite3.Error.
    """
    _switch_to_wal(db, busy_seconds)
    db.execute(f"PRAGMA synchronous = {synchronous}")
    found = version_of(db)
    if found:
        return found
    with transaction(db):
        if version_of(db) == 0:  # another process may have made it meanwhile
            for statement in schema.split(";\n"):
                if statement.strip():
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {version}")
    return version_of(db)


def _switch_to_wal(db: sqlite3.Connection, busy_seconds: float) -> None:
    # the change does not wait for the busy timeout when two processes open a new file at once
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
