"""The journal: what is remembered, for how long, and that it outlives its process."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import lmdb
import pytest

from collector.disk import OsDisk
from collector.errors import Overloaded
from collector.journal import Journal
from collector.spool import Group, Spool, Spooled, SpoolLimits
from tests.collector.test_disk import largest_file


def ids(start: int, end: int) -> list[bytes]:
    return [b"id %06d" % at for at in range(start, end)]


def test_ids_are_known_at_once_and_durable_after_a_flush(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add([b"flushed", b""])
    journal.flush()
    journal.add([b"in memory"])
    assert journal.known([b"flushed", b"in memory", b"new", b""]) == {b"flushed", b"in memory"}
    journal.close()
    again = Journal(tmp_path / "journal")
    assert again.known([b"flushed", b"in memory"]) == {b"flushed"}
    again.close()


def test_what_is_forgotten_is_unknown_also_to_the_next_process_and_can_be_learnt_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", horizon=100)
    journal.add(ids(0, 50))
    journal.flush()
    journal.add(ids(50, 60))
    journal.forget()
    assert journal.known(ids(0, 60)) == set()
    journal.close()
    again = Journal(tmp_path / "journal", horizon=100)
    assert again.known(ids(0, 60)) == set()
    again.add(ids(0, 150))
    again.flush()
    assert len(again.known(ids(0, 150))) == 100
    again.close()


def test_the_oldest_are_forgotten_beyond_the_horizon(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", horizon=100)
    for start in range(0, 300, 50):
        journal.add(ids(start, start + 50))
        journal.flush()
    assert journal.known(ids(0, 300)) == set(ids(200, 300))
    journal.add(ids(250, 300))  # known already: they push nothing out
    journal.flush()
    assert journal.known(ids(0, 300)) == set(ids(200, 300))
    journal.add(ids(300, 550))  # more than the horizon at once
    journal.flush()
    assert len(journal.known(ids(0, 550))) == 100
    journal.close()
    again = Journal(tmp_path / "journal", horizon=100)
    again.add(ids(900, 901))
    again.flush()
    assert len(again.known(ids(0, 901))) == 100
    again.close()


def test_the_committing_and_the_shipping_thread_use_it_together(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal._env.set_mapsize(64 * 1024)  # it is made larger meanwhile
    forgotten: set[bytes] = set()

    def add(start: int) -> None:
        for at in range(start, start + 2_000, 20):
            journal.add(ids(at, at + 20))
            forgotten.update(set(ids(start, at + 20)) - journal.known(ids(start, at + 20)))

    threads = [threading.Thread(target=add, args=(start,)) for start in (0, 10_000)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        journal.flush()
    assert not forgotten
    journal.flush()
    assert len(journal.known([*ids(0, 2_000), *ids(10_000, 12_000)])) == 4_000
    journal.close()


class HeldUp(Journal):
    """Its flush stands still before its commit until it may go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written, self.go_on, self.fails = threading.Event(), threading.Event(), False

    def _write(self, transaction: lmdb.Transaction) -> None:
        super()._write(transaction)
        self.written.set()
        if not self.go_on.wait(timeout=10):
            raise TimeoutError
        if self.fails:
            raise lmdb.DiskError("disk I/O error")


def test_nobody_who_asks_or_adds_waits_for_a_flush(tmp_path: Path) -> None:
    journal = HeldUp(tmp_path / "journal")
    journal.add(ids(0, 10))
    flush = threading.Thread(target=journal.flush)
    flush.start()
    assert journal.written.wait(timeout=10)
    assert journal.known(ids(0, 20)) == set(ids(0, 10))
    journal.add(ids(10, 15))
    assert journal.known(ids(0, 20)) == set(ids(0, 15))
    assert flush.is_alive()
    journal.go_on.set()
    flush.join()
    assert journal.known(ids(0, 20)) == set(ids(0, 15))
    journal.close()
    again = Journal(tmp_path / "journal")
    assert again.known(ids(0, 20)) == set(ids(0, 10))  # what came meanwhile is for the next flush
    again.close()


def test_a_commit_that_begins_a_segment_waits_for_no_flush(tmp_path: Path) -> None:
    journal = HeldUp(tmp_path / "journal")
    spool = Spool(tmp_path / "spool", disk=OsDisk(), journal=journal, limits=SpoolLimits(segment_bytes=1))
    told: list[Spooled | Exception] = []
    for one in ids(0, 3):  # each a segment
        spool.append(Group(source_ids=[one], events=[b"{}"], facts=[b"{}"]), told.append)
        spool.commit_pending()
    assert [one for one in told if isinstance(one, Spooled) and one.stored == 1] == told
    assert journal.written.wait(timeout=10)
    journal.go_on.set()
    spool.release(spool.next_sequence)  # the ids are durable before their segments go
    spool.close()
    journal.close()
    again = Journal(tmp_path / "journal")
    assert again.known(ids(0, 3)) >= set(ids(0, 2))
    again.close()


def test_what_a_flush_could_not_write_is_in_the_next(tmp_path: Path) -> None:
    journal = HeldUp(tmp_path / "journal")
    journal.go_on.set()
    journal.fails = True
    journal.add(ids(0, 10))
    with pytest.raises(Overloaded, match="cannot be written"):
        journal.flush()
    journal.add(ids(10, 20))
    assert journal.known(ids(0, 30)) == set(ids(0, 20))
    journal.fails = False
    journal.flush_soon()
    journal.close()  # waits for it
    again = Journal(tmp_path / "journal")
    assert again.known(ids(0, 30)) == set(ids(0, 20))
    again.close()


def test_a_map_that_is_full_is_made_larger(tmp_path: Path) -> None:
    # while a flush fails nothing is let go of, and no waiting would make room in it
    journal = Journal(tmp_path / "journal", horizon=10_000)
    for start in range(0, 20_000, 5_000):
        journal._env.set_mapsize(max(64 * 1024, (tmp_path / "journal" / "data.mdb").stat().st_size))
        journal.add(ids(start, start + 5_000))
        journal.flush()
    assert journal.known(ids(0, 20_000)) == set(ids(10_000, 20_000))
    journal._env.set_mapsize((tmp_path / "journal" / "data.mdb").stat().st_size)
    journal.forget()
    assert journal.known(ids(0, 20_000)) == set()
    journal.close()


def test_a_lower_horizon_is_in_force_after_a_few_flushes(tmp_path: Path) -> None:
    many = [hashlib.sha256(b"%d" % at).digest() for at in range(200_000)]
    journal = Journal(tmp_path / "journal", horizon=len(many))
    journal.add(many)
    journal.flush()
    journal.close()
    size = (tmp_path / "journal" / "data.mdb").stat().st_size
    again = Journal(tmp_path / "journal", horizon=10)
    again._env.set_mapsize(size)  # all of it is in use
    for at in range(4):
        again.add(ids(at, at + 1))
        again.flush()
    assert len(again.known([*many, *ids(0, 4)])) == 10
    assert len(again.known(ids(0, 4))) == 4
    again.close()


def test_a_full_disk_is_overload_and_keeps_what_is_in_memory(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add(ids(0, 5_000))
    with largest_file(64 * 1024), pytest.raises(Overloaded, match="cannot be written"):
        journal.flush()
    assert len(journal.known(ids(0, 5_000))) == 5_000
    journal.flush()
    journal.close()
    again = Journal(tmp_path / "journal")
    assert len(again.known(ids(0, 5_000))) == 5_000
    again.close()


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"")
    with pytest.raises(Overloaded, match="cannot be opened"):
        Journal(tmp_path / "journal")


@pytest.mark.parametrize("kept_bytes", [8_192, 12_288, 20_480])
def test_a_file_that_was_cut_short_is_told_and_ends_no_process(tmp_path: Path, kept_bytes: int) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add(ids(0, 5_000))
    journal.flush()
    journal.close()
    os.truncate(tmp_path / "journal" / "data.mdb", kept_bytes)
    with pytest.raises(Overloaded, match="the journal of source ids cannot be"):  # noqa: PT012  (at once, or at the first look)
        again = Journal(tmp_path / "journal")
        again.known(ids(0, 5_000))
