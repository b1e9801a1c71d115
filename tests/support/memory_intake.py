"""An intake that keeps everything in memory and answers as the real one: `Intake` for tests of the ways in.

It tells duplicates by group and by source id, puts into the dead letters what normalising refuses, and can be told to be
overloaded. The contract suite in tests/collector holds it to the same behaviour as the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from collector.canonical import Normaliser
from collector.errors import Malformed, Overloaded, TooLarge
from collector.event import Event, Origin, encode_event
from collector.receive import Arrival, Receipt
from collector.rejection import Rejection
from collector.sender import OURSELVES, Sender


@dataclass(slots=True)
class MemoryIntake:
    """What was accepted (normalised), in order, and what was refused, with its reason.

    Attributes:
        overloaded: how many of the next calls answer `Overloaded`.
        largest_group: a group of more arrivals is `TooLarge`; 0: none is.
        hold: while it is set and not done, `accept` waits: the instant before the fsync.
    """

    events: list[Event] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    dead: list[tuple[bytes, Malformed, Origin]] = field(default_factory=list)
    senders: list[Sender] = field(default_factory=list)
    groups: list[bytes | None] = field(default_factory=list)
    overloaded: int = 0
    retry_after_seconds: float = 0.01
    largest_group: int = 0
    hold: asyncio.Event | None = None
    called: asyncio.Event = field(default_factory=asyncio.Event)
    _seen_groups: set[bytes] = field(default_factory=set)
    _seen_sources: set[bytes] = field(default_factory=set)
    _letters: set[bytes] = field(default_factory=set)

    async def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
    ) -> Receipt:
        del heard  # what is in this memory is in its store
        self.senders.append(sender)
        self.called.set()
        self._press()
        if 0 < self.largest_group < len(arrivals):
            raise TooLarge(f"a group of {len(arrivals)}")
        if self.hold is not None:
            await self.hold.wait()
        if group_id is not None:
            assert len(group_id) <= 64
            if group_id in self._seen_groups:
                return Receipt(duplicates=len(arrivals))
            self._seen_groups.add(group_id)
        self.groups.append(group_id)
        stored = duplicates = 0
        refused: list[tuple[int, str]] = []
        for at, arrival in enumerate(arrivals):
            assert arrival.source_id is None or len(arrival.source_id) <= 64
            if arrival.source_id in self._seen_sources:
                duplicates += 1
                continue
            try:
                event, size = normalised(arrival.event)
            except Malformed as error:
                self.dead.append(
                    (repr(arrival.event).encode("utf-8", "replace"), error, arrival.event.origin or Origin())
                )
                refused.append((at, str(error)))
                continue
            if arrival.source_id is not None:
                self._seen_sources.add(arrival.source_id)
            self.events.append(event)
            self.sizes.append(size)
            stored += 1
        return Receipt(stored=stored, duplicates=duplicates, dead_lettered=len(refused), refused=tuple(refused))

    async def reject(self, rejections: list[Rejection]) -> None:
        while rejections:
            one = rejections[0]
            self._press()
            assert type(one.raw) is bytes
            assert len(one.source_id) <= 64
            if not one.source_id or one.source_id not in self._letters:
                self._letters.add(one.source_id)
                self.dead.append((one.raw, one.error, one.origin or Origin()))
            del rejections[0]

    def _press(self) -> None:
        if self.overloaded > 0:
            self.overloaded -= 1
            raise Overloaded("told to be", retry_after_seconds=self.retry_after_seconds)


def normalised(event: Event) -> tuple[Event, int]:
    """The event as it is stored, and the length of its canonical bytes; raises `Malformed`."""
    walk = Normaliser()
    plain = walk.value(msgspec.to_builtins(event, builtin_types=(bytes, bytearray, memoryview)))
    stored = msgspec.convert(plain, Event)
    data, _ = encode_event(stored, exact=walk.exact)
    return stored, len(data)
