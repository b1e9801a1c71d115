"""An `EventStore` in memory, held to the same contract suite as the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from collector.batch import Batch, EventRef, SignedHeader, StreamId
from collector.errors import Conflict, NotFound, Overloaded


class MemoryStore:
    """Batches in a dict. `down` set to a reason makes every call `Overloaded`, as a store that cannot be reached."""

    def __init__(self) -> None:
        self.batches: dict[StreamId, dict[int, Batch]] = {}
        self.logged: dict[StreamId, int] = {}
        self.down = ""
        self.appends = 0

    def _check(self) -> None:
        if self.down:
            raise Overloaded(self.down)

    def place(self, created: str) -> str:
        del created
        return ""

    def append(self, batch: Batch) -> None:
        self._check()
        self.appends += 1
        header = batch.signed.header
        numbers = self.batches.setdefault(StreamId(header.stream), {})
        known = numbers.get(header.number)
        if known is not None and known.signed.data != batch.signed.data:
            raise Conflict(f"another batch {header.number} of stream {header.stream} is stored already")
        numbers.setdefault(header.number, batch)

    def batches_after(self, frontier: Mapping[StreamId, int], limit: int) -> Sequence[SignedHeader]:
        self._check()
        found: list[SignedHeader] = []
        for stream, number in frontier.items():
            numbers = sorted(one for one in self.batches.get(stream, {}) if one > number)
            found += [self.batches[stream][one].signed for one in numbers[:limit]]
        return found

    def batch(self, stream: StreamId, number: int) -> SignedHeader | None:
        self._check()
        found = self.batches.get(stream, {}).get(number)
        return found.signed if found else None

    def events(self, refs: Sequence[EventRef]) -> Sequence[bytes]:
        self._check()
        return [self._event(ref) for ref in refs]

    def _event(self, ref: EventRef) -> bytes:
        for batch in self.batches.get(ref.stream, {}).values():
            at = ref.sequence - batch.signed.header.first
            if 0 <= at < batch.signed.header.count:
                start = sum(batch.lengths[:at])
                return batch.events[start : start + batch.lengths[at]]
        raise NotFound(f"event {ref.sequence} of stream {ref.stream} is not in the store")

    def streams(self) -> Sequence[StreamId]:
        self._check()
        return list(self.batches)

    def acknowledge(self, frontier: Mapping[StreamId, int]) -> None:
        self._check()
        for stream, number in frontier.items():
            if stream in self.batches:
                self.logged[stream] = max(self.logged.get(stream, 0), number)

    def acknowledged(self, stream: StreamId) -> int:
        self._check()
        return self.logged.get(stream, 0)

    def close(self) -> None:
        pass
