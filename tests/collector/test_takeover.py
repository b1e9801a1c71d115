"""The events of one spool, taken over by another that is in use."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from collector.batch import StreamId
from collector.disk import AppendFile, OsDisk
from collector.spool import Spool
from collector.takeover import renumber
from tests.collector.test_spool import Ids, Told, events, group


class SlowDisk(OsDisk):
    """A sync takes 5 ms."""

    def append_to(self, path: Path, *, reserve_bytes: int = 0) -> AppendFile:
        file = super().append_to(path, reserve_bytes=reserve_bytes)

        class File:
            write, size, close = file.write, file.size, file.close

            def sync(self) -> None:
                time.sleep(0.005)

        return File()


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
