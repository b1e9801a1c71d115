"""A process that dies by SIGKILL around the commit of a batch: ``python -m tests.support.kill_append <store> before|after``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from collector.store.sqlite import SqliteStore
from tests.support.shipper import Shipper, pay


class _Dying:
    """A connection that kills its process just before or just after COMMIT."""

    def __init__(self, connection: object, when: str) -> None:
        self._connection = connection
        self._when = when

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, statement: str, *parameters: object) -> object:
        if statement == "COMMIT" and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = self._connection.execute(statement, *parameters)  # type: ignore[attr-defined]  # a sqlite3.Connection
        if statement == "COMMIT":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def main() -> None:
    """Append the stream's first batch, and die."""
    store = SqliteStore(Path(sys.argv[1]))
    store._db = _Dying(store._db, sys.argv[2])  # type: ignore[assignment]  # stands in for the connection
    store.append(Shipper().batch(pay("T-1"), pay("T-2")))


if __name__ == "__main__":
    main()
