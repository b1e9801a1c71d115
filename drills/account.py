"""What became of the events: those acknowledged against those stored, their order, and what `tally check` says of all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from collector.batch import EventRef, StreamId
from collector.event import decode_event
from collector.store import EventStore
from deploy.checking.whole import check_everything
from deploy.keys import log_verifier
from deploy.storing import open_store
from drills.installation import Installation

__all__ = ["Account", "account_of"]

_BATCHES_AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Counts, and what must be empty: all but the first four.

    Attributes:
        acknowledged, stored, entries: events that senders were told of, that are in the store, that are in the log.
        streams: how many streams they came in.
        lost: acknowledged and not stored.
        doubled: stored more than once.
        disordered: stored behind one that the same sender sent after it.
        holes: streams whose sequences or batch numbers are not dense.
        waiting: batches in the store and not in the log.
        findings: of `tally check`.
    """

    acknowledged: int
    stored: int
    entries: int
    streams: int
    lost: list[str]
    doubled: list[str]
    disordered: list[str]
    holes: list[str]
    waiting: int
    findings: list[str]

    def broken(self) -> dict[str, int]:
        """How often each promise was broken."""
        return {
            "acknowledged and not stored": len(self.lost),
            "stored twice": len(self.doubled),
            "out of the order in which they were sent": len(self.disordered),
            "holes in a stream's sequences": len(self.holes),
            "stored without an entry in the log, or the other way round": abs(self.stored - self.entries),
            "batches that still wait": self.waiting,
            "findings of `tally check`": len(self.findings),
        }


def account_of(installation: Installation, acknowledged: Collection[str]) -> Account:
    """Read the whole store, and check everything. The installation may run, but nobody may send."""
    findings, checked = check_everything(installation.config, log_verifier(installation.places))
    holes: list[str] = []
    seen: Counter[str] = Counter()
    disordered: list[str] = []
    streams = 0
    with closing(open_store(installation.config, installation.places, read_only=True)) as store:
        for stream in store.streams():
            streams += 1
            names = list(_stored(store, stream, holes))
            seen.update(names)
            disordered += _disordered(names)
    return Account(
        acknowledged=len(acknowledged),
        stored=seen.total(),
        entries=checked.events,
        streams=streams,
        lost=sorted(set(acknowledged) - set(seen)),
        doubled=sorted(name for name, count in seen.items() if count > 1),
        disordered=disordered,
        holes=holes,
        waiting=checked.waiting,
        findings=[str(finding) for finding in findings],
    )


def _stored(store: EventStore, stream: StreamId, holes: list[str]) -> Iterator[str]:
    """The body of each event of a stream, by sequence; holes are added to the list."""
    number = sequence = 0
    while found := store.batches_after({stream: number}, _BATCHES_AT_ONCE):
        for signed in found:
            header = signed.header
            if (header.number, header.first) != (number + 1, sequence):
                holes.append(
                    f"{stream}: batch {header.number} from {header.first} on follows batch {number} up to {sequence}"
                )
            number, sequence = header.number, header.first + header.count
            refs = [EventRef(stream=stream, sequence=at) for at in range(header.first, sequence)]
            for data in store.events(refs):
                body: Any = decode_event(data).body
                yield str(body)


def _disordered(names: Collection[str]) -> list[str]:
    """Names, ``sender/number``, behind which a smaller number of the same sender stands."""
    numbered = sorted(
        ((sender, at, int(number)) for at, (sender, _, number) in enumerate(name.rpartition("/") for name in names))
    )
    found: list[str] = []
    for sender, group in groupby(numbered, key=lambda one: one[0]):
        most = -1
        for _, _, number in group:
            if number < most:
                found.append(f"{sender}/{number}")
            most = max(most, number)
    return found
