"""The journal: what is remembered, for how long, and that it outlives its process."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from collector.errors import Overloaded
from collector.journal import Journal


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


def test_a_full_journal_is_overload_and_keeps_what_is_in_memory(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal._env.set_mapsize(64 * 1024)
    journal.add(ids(0, 5_000))
    with pytest.raises(Overloaded, match="cannot be written"):
        journal.flush()
    assert len(journal.known(ids(0, 5_000))) == 5_000
    journal._env.set_mapsize(64 * 1024 * 1024)
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
