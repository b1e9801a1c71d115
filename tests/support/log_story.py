"""Two writers' lives in one log, to be cut off anywhere, and what must hold then: for crash tests of every storage."""

from __future__ import annotations

from collections.abc import Callable

from correlator import merkle
from correlator.check import check_log
from correlator.errors import Overloaded
from correlator.log import LogReader
from correlator.storage import LogStorage
from tests.support.logs import SIGNER, entries_of, grow, open_log

LIVES = ((3, 250, 257), (258, 600))
"""Sizes published by two writers, one after the other: a bundle filled up, a settle and a renewal in between, a clean close."""

Reopen = Callable[[], LogStorage]
"""Gives the storage each time it is called, as a new process would open it."""


def story(reopen: Reopen, published: list[int]) -> None:
    """Live both lives; notes each size that `publish` has returned. What is refused for now is published again once."""
    for sizes in LIVES:
        log = open_log(reopen())
        published.append(log.size)
        for size in sizes:
            if log.next_leaf_index < size:
                log.append(entries_of(log.next_leaf_index, size))
                try:
                    log.publish()
                except Overloaded:
                    log.publish()
                published.append(log.size)
        log.renew()
        log.close()


def findings(storage: LogStorage) -> list[str]:
    """What a whole check finds."""
    return [str(finding) for finding in check_log(storage, SIGNER.verifier)]


def assert_recovers(reopen: Reopen, published: list[int], what: str) -> None:
    """A writer opens what the crash left, nothing published is missing, everything checks, and it goes on."""
    log = open_log(reopen())
    assert log.size >= max(published, default=0), what
    assert log.size in {0, *LIVES[0], *LIVES[1]}, what
    assert findings(reopen()) == [], what
    grow(log, [log.size + 260])
    log.close()
    assert findings(reopen()) == [], what
    assert reopen().stages() == [], what
    reader = LogReader(reopen(), SIGNER.verifier)
    size = reader.tree().size
    assert reader.entries(0, size) == entries_of(0, size), what
    assert reader.root(size) == merkle.root_of(merkle.leaf_hashes(entries_of(0, size))), what
