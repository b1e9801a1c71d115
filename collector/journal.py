"""The journal: which source ids were taken lately, so that a re-send is recognised.

It outlives the spool's segments and is bounded: the newest `horizon` ids are remembered, older ones are forgotten, and a
re-send after that is stored as a new event (docs/life-of-an-event.md). Ids of segments that still lie in the spool are held in
memory and rebuilt from them on start; when a segment closes, its ids go to LMDB in one transaction, before the segment
may be deleted. So no crash forgets an id that is within the horizon.
"""

import os
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

import lmdb

from collector.errors import Overloaded

__all__ = ["Journal"]

_SEQUENCE = struct.Struct(">Q")


class Journal:
    """A bounded set of ids, newest kept.

    Args:
        path: folder of its LMDB environment; made when absent.
        horizon: how many ids are remembered.
    """

    def __init__(self, path: Path, *, horizon: int = 2_000_000) -> None:
        self._horizon = horizon
        self._recent: set[bytes] = set()
        self._lock = threading.Lock()  # the committing thread adds while the shipping thread flushes
        # an id costs some 150 bytes in both tables; the map is sparse, so the size is only a bound
        map_bytes = max(64 * 1024 * 1024, horizon * 512)
        try:
            self._env = lmdb.open(str(path), map_size=map_bytes, max_dbs=2, subdir=True, mode=0o600)
            # a page behind the file's end would end the process with SIGBUS; one of zeros is an error like any other damage
            file, end = path / "data.mdb", (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
            if file.stat().st_size < end:
                os.truncate(file, end)
            self._ids = self._env.open_db(b"ids")
            self._order = self._env.open_db(b"order")
        except lmdb.Error as error:
            raise Overloaded(f"the journal of source ids cannot be opened: {error}") from error

    def known(self, source_ids: Iterable[bytes]) -> set[bytes]:
        """Those of `source_ids` that are remembered; one read transaction for all. Raises Overloaded."""
        try:
            with self._lock, self._env.begin(db=self._ids) as transaction:
                get, recent = transaction.get, self._recent
                return {one for one in source_ids if one and (one in recent or get(one) is not None)}
        except lmdb.Error as error:
            raise Overloaded(f"the journal of source ids cannot be read: {error}") from error

    def add(self, source_ids: Iterable[bytes]) -> None:
        """Remember in memory; durable only after `flush`, until when the segment that holds them must be kept."""
        with self._lock:
            self._recent.update(source_ids)
            self._recent.discard(b"")

    def flush(self) -> None:
        """Write what is in memory to disk in one synced transaction, and forget the oldest beyond the horizon.

        Raises:
            Overloaded: the disk does not take it; memory still holds them, so keep the segments and try again later.
        """
        with self._lock:
            if self._recent:
                self._write()
                self._recent.clear()

    def forget(self) -> None:
        """Forget every id, durably: what is sent again is then taken as new. Raises Overloaded.

        For when a spool is set aside: its events may be in no store, and a re-send must not be taken for a duplicate of them.
        """
        with self._lock:
            try:
                with self._env.begin(write=True) as transaction:
                    transaction.drop(self._ids, delete=False)
                    transaction.drop(self._order, delete=False)
            except lmdb.Error as error:
                raise Overloaded(f"the journal of source ids cannot be written: {error}") from error
            self._recent.clear()

    def _write(self) -> None:
        try:
            with self._env.begin(write=True) as transaction:
                order = transaction.cursor(self._order)
                newest = _SEQUENCE.unpack(order.key())[0] if order.last() else 0
                for source_id in sorted(self._recent):
                    if transaction.put(source_id, _SEQUENCE.pack(newest + 1), db=self._ids, overwrite=False):
                        newest += 1
                        transaction.put(_SEQUENCE.pack(newest), source_id, db=self._order, append=True)
                surplus = transaction.stat(self._order)["entries"] - self._horizon
                if surplus > 0 and order.first():
                    for _ in range(surplus):
                        transaction.delete(order.value(), db=self._ids)
                        order.delete()
        except lmdb.Error as error:
            raise Overloaded(f"the journal of source ids cannot be written: {error}") from error

    def close(self) -> None:
        """Close without flushing: what is in memory is found again in the segments."""
        self._env.close()
