"""An event store in dictionaries: for tests, under the same contract suite as the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from collector.batch import Batch, EventRef, SignedHeader, StreamId, open_header
from collector.errors import Conflict, NotFound, Overloaded, VerificationError


class MemoryStore:
    """`collector.store.EventStore` in memory.

    `batches` is open to tests that tamper; `down` set to a reason makes every call `Overloaded`, as a store that cannot be
    reached; `appends` and `reads` count calls of `append` and `events`.
    """

    keeps_headers = True

    def __init__(self) -> None:
        self.batches: dict[StreamId, dict[int, Batch]] = {}
        self.frontier: dict[StreamId, int] = {}
        self.shares: dict[tuple[StreamId, int], dict[int, int]] = {}
        self.down = ""
        self.appends = 0
        self.reads = 0

    def _reach(self) -> None:
        if self.down:
            raise Overloaded(self.down)

    def place(self, created: str) -> str:
        del created
        return ""

    def append(self, batch: Batch) -> None:
        self._reach()
        self.appends += 1
        header = batch.signed.header
        stored = self.batches.setdefault(StreamId(header.stream), {})
        known = stored.get(header.number)
        if known is None:
            stored[header.number] = batch
        elif known.signed.data != batch.signed.data:
            raise Conflict(f"another batch {header.number} of stream {header.stream} is stored already")

    def batches_after(self, frontier: Mapping[StreamId, int], limit: int) -> Sequence[SignedHeader]:
        self._reach()
        found = []
        for stream, number in frontier.items():
            numbers = sorted(n for n in self.batches.get(stream, {}) if n > number)[:limit]
            found += [self._opened(stream, n) for n in numbers]
        return found

    def batch(self, stream: StreamId, number: int) -> SignedHeader | None:
        self._reach()
        return self._opened(stream, number) if number in self.batches.get(stream, {}) else None

    def _opened(self, stream: StreamId, number: int) -> SignedHeader:
        signed = self.batches[stream][number].signed
        try:
            opened = open_header(signed.data, signed.signature, signed.facts)
        except VerificationError as error:
            told = f"stream {stream}, batch {number} in the store: {error}"
            raise VerificationError(told, label=error.label) from error
        if (opened.header.stream, opened.header.number) != (stream, number):
            raise VerificationError(f"stream {stream}, batch {number} in the store: it is another batch")
        return opened

    def events(self, refs: Sequence[EventRef]) -> Sequence[bytes]:
        self._reach()
        self.reads += 1
        return [self._event(ref) for ref in refs]

    def _event(self, ref: EventRef) -> bytes:
        for batch in self.batches.get(ref.stream, {}).values():
            header = batch.signed.header
            at = ref.sequence - header.first
            if 0 <= at < header.count:
                offsets = list(accumulate(batch.lengths, initial=0))
                return batch.events[offsets[at] : offsets[at + 1]]
        raise NotFound(f"event {ref.sequence} of stream {ref.stream} is not in the store")

    def streams(self) -> Sequence[StreamId]:
        self._reach()
        return list(self.batches)

    def acknowledge(self, frontier: Mapping[StreamId, int], *, part: int = 1, parts: int = 1) -> None:
        self._reach()
        if parts > 1:
            for stream, number in frontier.items():
                told = self.shares.setdefault((stream, parts), dict.fromkeys(range(1, parts + 1), 0))
                told[part] = max(told[part], number)
            frontier = {stream: min(self.shares[stream, parts].values()) for stream in frontier}
        for stream, number in frontier.items():
            if stream in self.batches:
                self.frontier[stream] = max(self.frontier.get(stream, 0), number)

    def acknowledged(self, stream: StreamId) -> int:
        self._reach()
        return self.frontier.get(stream, 0)

    def close(self) -> None:
        pass
