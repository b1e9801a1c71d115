"""The journal: which source ids were taken lately, so that a re-send is recognised.

It outlives the spool's segments and is bounded: the newest `horizon` ids are remembered, older ones are forgotten, and a
re-send after that is stored as a new event (docs/life-of-an-event.md). Ids of segments that still lie in the spool are held in
memory and rebuilt from them on start; when a segment closes, its ids go to LMDB in one transaction, before the segment
may be deleted. So no crash forgets an id that is within the horizon.

Ids come in no order, so at a full horizon such a transaction writes a large part of the file anew. Nobody who asks or adds waits for it:
what is being written is looked up in memory until it is on the disk.
"""

import os
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import lmdb

from collector.errors import Overloaded

__all__ = ["Journal"]

_SEQUENCE = struct.Struct(">Q")

_SURPLUS_IDS = 65_536
"""Where the horizon was lowered, so many ids at a time are forgotten beyond those that are new: a flush that takes long keeps segments."""


class Journal:
    """A bounded set of ids, newest kept.

    Args:
        path: folder of its LMDB environment; made when absent.
        horizon: how many ids are remembered.
    """

    def __init__(self, path: Path, *, horizon: int = 2_000_000) -> None:
        self._horizon = horizon
        self._recent: set[bytes] = set()
        self._leaving: set[bytes] = set()  # what a flush is writing: it changes only when none is under way
        # for the two sets, and against `set_mapsize` under a look-up: never held while the disk is waited for, but by `forget`
        self._lock = threading.RLock()
        self._writing = threading.Lock()  # one change of the tables at a time; taken before the other
        self._flusher: threading.Thread | None = None
        # address space, not memory or disk, and what `_change` begins with. An id costs some 150 bytes in both tables; but ids come in no
        # order, so that a flush writes nearly every page anew beside those that hold until it is done
        map_bytes = max(64 * 1024 * 1024, horizon * 1024)
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
                get, recent, leaving = transaction.get, self._recent, self._leaving
                return {one for one in source_ids if one and (one in recent or one in leaving or get(one) is not None)}
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
        with self._writing:
            with self._lock:
                self._recent |= self._leaving  # of a flush that failed
                self._leaving, self._recent = self._recent, set()
            if self._leaving:
                self._change(self._write)
                with self._lock:  # only now: a look-up that began before the commit does not see it
                    written, self._leaving = self._leaving, set()
                del written  # not under the lock: it takes a while

    def flush_soon(self) -> None:
        """Have a thread of the journal's own `flush`: for who must not wait. If it fails, memory still holds the ids for the next flush."""
        with self._lock, suppress(RuntimeError):  # no thread is to be had: no reason to fail the commit that asks
            if self._flusher is None or not self._flusher.is_alive():
                flusher = threading.Thread(target=self._flush_later, name="journal-flush", daemon=True)
                flusher.start()
                self._flusher = flusher

    def _flush_later(self) -> None:
        with suppress(Overloaded):
            self.flush()

    def forget(self) -> None:
        """Forget every id, durably: what is sent again is then taken as new. Raises Overloaded.

        For when a spool is set aside: its events may be in no store, and a re-send must not be taken for a duplicate of them.
        """
        with self._writing, self._lock:
            self._change(self._drop)
            self._recent.clear()
            self._leaving.clear()

    def _change(self, change: Callable[[lmdb.Transaction], None]) -> None:
        """A change in one synced transaction. Raises Overloaded.

        Where the map has no room for it, the map is made larger: what is free in it does not come back by waiting, and while a flush
        fails no segment is let go of.
        """
        try:
            while True:
                try:
                    with self._env.begin(write=True) as transaction:
                        change(transaction)
                except lmdb.MapFullError:
                    with self._lock:  # no transaction may be open meanwhile
                        self._env.set_mapsize(2 * self._env.info()["map_size"])
                else:
                    return
        except lmdb.Error as error:
            raise Overloaded(f"the journal of source ids cannot be written: {error}") from error

    def _drop(self, transaction: lmdb.Transaction) -> None:
        transaction.drop(self._ids, delete=False)
        transaction.drop(self._order, delete=False)

    def _write(self, transaction: lmdb.Transaction) -> None:
        order = transaction.cursor(self._order)
        newest = _SEQUENCE.unpack(order.key())[0] if order.last() else 0
        for source_id in sorted(self._leaving):
            if transaction.put(source_id, _SEQUENCE.pack(newest + 1), db=self._ids, overwrite=False):
                newest += 1
                transaction.put(_SEQUENCE.pack(newest), source_id, db=self._order, append=True)
        surplus = transaction.stat(self._order)["entries"] - self._horizon
        if surplus > 0 and order.first():
            for _ in range(min(surplus, len(self._leaving) + _SURPLUS_IDS)):
                transaction.delete(order.value(), db=self._ids)
                order.delete()

    def close(self) -> None:
        """Close without flushing: what is in memory is found again in the segments."""
        if self._flusher is not None:
            self._flusher.join()
        self._env.close()
