"""The events of one spool, taken over by another that is in use."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from collector.batch import StreamId
from collector.disk import AppendFile, OsDisk
from collector.spool import Spool, SpoolLimits
from collector.takeover import renumber
from tests.collector.test_spool import Ids, Told, events, group, put


class SlowDisk(OsDisk):
    """A sync takes 5 ms."""

    def append_to(self, path: Path, *, reserve_bytes: int = 0) -> AppendFile:
        file = super().append_to(path, reserve_bytes=reserve_bytes)

        class File:
            write, size, close = file.write, file.size, file.close

            def sync(self) -> None:
                time.sleep(0.005)

        return File()


class CountingDisk(OsDisk):
    """Counts the bytes that are read, and the syncs."""

    def __init__(self) -> None:
        self.read_bytes = self.syncs = 0

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        data = super().read(path, offset, length)
        self.read_bytes += len(data)
        return data

    def append_to(self, path: Path, *, reserve_bytes: int = 0) -> AppendFile:
        file = super().append_to(path, reserve_bytes=reserve_bytes)
        disk = self

        class File:
            write, size, close = file.write, file.size, file.close

            def sync(self) -> None:
                disk.syncs += 1
                file.sync()

        return File()


def test_a_takeover_reads_and_syncs_by_the_mebibyte_and_not_by_the_frame(tmp_path: Path) -> None:
    disk = CountingDisk()
    limits = SpoolLimits(segment_bytes=2_000_000)
    old = Spool(tmp_path / "old", disk=disk, journal=Ids(), limits=limits)
    put(old, *[group("x" * 2_000 + str(at)) for at in range(1_500)])
    disk.read_bytes = disk.syncs = 0
    new = Spool(tmp_path / "new", disk=disk, journal=Ids(), limits=limits)
    renumber(old, StreamId("payments/00000000000000aa"), 0, into=new)
    assert disk.read_bytes <= 1.5 * old.size_bytes
    assert disk.syncs <= old.size_bytes / 1_000_000 + 8
    assert events(new) == events(old)


def test_a_takeover_waits_for_what_it_has_queued_itself(tmp_path: Path) -> None:
    old = Spool(tmp_path / "old", disk=OsDisk(), journal=Ids())
    put(old, *[group(str(at)) for at in range(50)])
    new = Spool(tmp_path / "new", disk=OsDisk(), journal=Ids(), limits=SpoolLimits(queued_bytes=300))
    renumber(old, StreamId("payments/00000000000000aa"), 3, into=new)
    assert events(new) == events(old)[2:]  # the frame that holds the event comes whole
    new.limits = SpoolLimits(total_bytes=new.size_bytes, queued_bytes=300)
    renumber(
        old, StreamId("payments/00000000000000bb"), 0, into=new
    )  # it is on this disk already: no bound holds it up
    assert events(new)[-len(events(old)) :] == events(old)


def test_a_takeover_is_held_to_no_bound_that_was_lowered_since(tmp_path: Path) -> None:
    old = Spool(tmp_path / "old", disk=OsDisk(), journal=Ids())
    put(old, group("a"), group("b" * 5_000), group("c"))
    new = Spool(tmp_path / "new", disk=OsDisk(), journal=Ids(), limits=SpoolLimits(total_bytes=3_000))
    renumber(old, StreamId("payments/00000000000000aa"), 0, into=new)
    assert events(new) == events(old)


def test_a_takeover_does_not_wait_for_a_pause_of_the_senders(tmp_path: Path) -> None:
    old = Spool(tmp_path / "old", disk=OsDisk(), journal=Ids())
    for at in range(20):
        old.append(group(f"old {at}"), Told())
        old.commit_pending()
    new = Spool(tmp_path / "new", disk=SlowDisk(), journal=Ids())
    new.start_committing()
    over = threading.Event()

    def send() -> None:
        at = 0
        while not over.wait(0.0005):
            new.append(group(f"new {at}"), Told())
            at += 1

    sender = threading.Thread(target=send)
    sender.start()
    try:
        began = time.monotonic()
        renumber(old, StreamId("payments/00000000000000aa"), 0, into=new)
        assert time.monotonic() - began < 10.0, "twenty groups, two syncs each at the most"
    finally:
        over.set()
        sender.join()
    new.close()
    again = Spool(tmp_path / "new", disk=OsDisk(), journal=Ids())
    assert sum(b"old" in one for one in events(again)) == 40
    again.close()
    old.close()
