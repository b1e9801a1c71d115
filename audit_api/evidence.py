"""Puts together what stands apart: an entry from the log, its event from the store, the signed header that commits to it.

`Evidence` reads; it decides nothing about who may see what. One thread at a time (the index and the store demand it).
"""

import base64
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from collector.batch import EventRef, SignedHeader, StreamId, month_of, open_header
from collector.errors import Malformed, NotFound, VerificationError
from collector.event import Facts, decode_facts
from collector.store import EventStore
from correlator.bundle import BundleHeader
from correlator.checkpoint import Checkpoint
from correlator.entry import Entry, decode_entry
from correlator.index import TrailIndex
from correlator.log import LogReader
from correlator.merkle import Node, inclusion_proof, leaf_hashes, node_levels
from correlator.retired import RetiredMonth, Retirements, retirement_of
from correlator.trail import ENROLMENTS, RETIREMENTS, stream_trail

__all__ = ["Evidence", "LoggedBatch", "LoggedEntry", "SignedTree"]

_CACHED_FACTS = 64
_CACHED_BATCHES = 65_536
_CACHED_SIGNED = 4
_WINDOW = 64
_BATCH_MARK = b'"kind":"batch"'
_CHUNK = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTree:
    """A checkpoint as it was signed, and what it says."""

    signed: bytes = field(repr=False)
    checkpoint: Checkpoint

    @property
    def size(self) -> int:
        """Leaves of the tree."""
        return self.checkpoint.size


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEntry:
    """An entry with its leaf index, as bytes and opened."""

    leaf: int
    data: bytes
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedBatch:
    """A batch's entry in the log, and the signed header in it (its `facts` are empty)."""

    leaf: int
    data: bytes = field(repr=False)
    signed: SignedHeader


class Evidence:
    """Reads one ledger.

    Args:
        index: where trails are found.
        reader: the log; what it gives is checked against the checkpoint.
        store: the events' bytes; what it gives is checked against the entries' digests by whoever verifies.
    """

    def __init__(self, *, index: TrailIndex, reader: LogReader, store: EventStore) -> None:
        self.index = index
        self.reader = reader
        self.store = store
        self._signed: OrderedDict[bytes, SignedTree] = OrderedDict()
        self._facts: OrderedDict[tuple[str, int], tuple[bytes, ...]] = OrderedDict()
        self._batches: dict[str, list[tuple[int, int, int]]] = {}  # stream -> ascending (first, count, leaf)
        self._batches_known = 0
        self._enrolments: dict[tuple[str, str], int] = {}
        self._enrolments_read = 0
        self._retirements = Retirements()
        self._retirements_read = 0

    # The log ----------------------------------------------------------------------------------------------------------

    def tree(self) -> SignedTree:
        """The latest checkpoint; raises `NotFound` before the first publish, `VerificationError` if it does not hold."""
        signed = self.reader.checkpoint()
        known = self._signed.get(signed)
        if known is None:
            checkpoint = Checkpoint.parse(signed[: signed.rindex(b"\n\n") + 1])
            known = self._signed[signed] = SignedTree(signed=signed, checkpoint=checkpoint)
            if len(self._signed) > _CACHED_SIGNED:
                self._signed.popitem(last=False)
        return known

    def entries(self, leaves: Sequence[int]) -> list[LoggedEntry]:
        """The entries at these leaves, in this order; raises as `LogReader.entry`."""
        found = []
        for leaf in leaves:
            data = self.reader.entry(leaf)
            found.append(LoggedEntry(leaf=leaf, data=data, entry=decode_entry(data)))
        return found

    def events(self, entries: Sequence[LoggedEntry]) -> dict[int, bytes]:
        """Of those that record an event, the event's bytes by leaf; those that were retired by policy are left out.

        Raises:
            NotFound: the store has lost one.
            VerificationError: the store has other bytes than those that the entry names.
        """
        wanted = [one for one in entries if one.entry.kind == "event"]
        try:
            stored = self.store.events([_ref(one) for one in wanted])
        except NotFound:
            kept = self.kept(wanted)
            if len(kept) == len(wanted):
                raise
            wanted, stored = kept, self.store.events([_ref(one) for one in kept])
        found = {}
        for one, data in zip(wanted, stored, strict=True):
            if sha256(data).hexdigest() != _digest(one):
                raise VerificationError(
                    f"event {one.entry.sequence} of stream {one.entry.stream} in the store is not the one in the log"
                    f" (leaf {one.leaf}): its digest differs"
                )
            found[one.leaf] = data
        return found

    def events_or_problems(self, entries: Sequence[LoggedEntry]) -> tuple[dict[int, bytes], dict[int, str]]:
        """As `events`, for who wants to see the rest of a damaged trail: events by leaf, and what is wrong by leaf."""
        try:
            return self.events(entries), {}
        except (NotFound, VerificationError):
            pass  # find out which, one by one
        found: dict[int, bytes] = {}
        problems: dict[int, str] = {}
        for one in entries:
            try:
                found |= self.events([one])
            except (NotFound, VerificationError) as error:
                problems[one.leaf] = str(error)
        return found, problems

    def retired(self, one: LoggedEntry) -> RetiredMonth | None:
        """The retirement that lets go of the event of this entry; None: it must be in the store. Raises as `batch_of`."""
        return self._covering(one) if self.retirements() else None

    def kept(self, entries: Sequence[LoggedEntry]) -> list[LoggedEntry]:
        """Those of these whose events no retirement lets go of; asks the index for retirements once. Raises as `batch_of`."""
        return [one for one in entries if self._covering(one) is None] if self.retirements() else list(entries)

    def _covering(self, one: LoggedEntry) -> RetiredMonth | None:
        if one.entry.kind != "event":
            return None
        batch = self.batch_of(one)
        return self._retirements.covers(month_of(batch.signed.header), batch.leaf)

    def retirements(self) -> Retirements:
        """All that is on record, as of now."""
        while leaves := self.index.leaves(RETIREMENTS, start=self._retirements_read, limit=_CHUNK):
            for one in self.entries(leaves):
                found = retirement_of(one.entry, one.leaf)
                if found is not None:
                    self._retirements.add(found)
            self._retirements_read += len(leaves)
        return self._retirements

    # Signed headers ---------------------------------------------------------------------------------------------------

    def batch_of(self, event: LoggedEntry) -> LoggedBatch:
        """The batch that holds this event: the correlator logs a batch's entry before those of its events.

        Raises:
            NotFound: the log has no entry of such a batch before the event's.
        """
        return self.batch_with(event.entry.stream, event.entry.sequence, below=event.leaf)

    def batch_with(self, stream: str, sequence: int, *, below: int) -> LoggedBatch:
        """The batch that holds this event, of those whose entries are below this leaf; raises as `batch_of`."""
        known = self._batches.get(stream, [])
        at = bisect_right(known, (sequence, 1 << 62, 0)) - 1
        if at >= 0 and sequence < known[at][0] + known[at][1]:
            return self.open_batch(known[at][2])
        trail = stream_trail(stream)
        end = self._positions_below(trail, below)
        window = _WINDOW
        while end > 0:
            start = max(0, end - window)
            for leaf in reversed(self.index.leaves(trail, start=start, limit=end - start)):
                data = self.reader.entry(leaf)
                if _BATCH_MARK not in data:
                    continue
                found = self.open_batch(leaf)
                header = found.signed.header
                if header.first <= sequence < header.first + header.count:
                    self._remember(stream, (header.first, header.count, leaf))
                    return found
            end, window = start, min(2 * window, _CHUNK)
        raise NotFound(f"the log has no batch entry for event {sequence} of stream {stream}")

    def leaves_about(self, ref: EventRef, trail: str, *, size: int) -> Iterator[int]:
        """The leaves of a trail, below `size`, among which an event's is, if the trail has it.

        In a stream without gaps entries stand in the order of sequences, so they are those between its trail's last entry that tells of no
        later event and the next one. What fills a gap comes late: of a stream that ever had one, they are all of the trail.
        """
        own = stream_trail(ref.stream)
        try:
            ordered = self.index.trail(own).status in ("ok", "error")
        except NotFound:
            return  # of an event the log has the batch first
        start, end = 0, size
        if ordered:
            low, high = 0, self._positions_below(own, size)
            while low < high:
                middle = (low + high) // 2
                if self._tells(own, middle) <= ref.sequence:
                    low = middle + 1
                else:
                    high = middle
            if low == 0:
                return
            first, *following = self.index.leaves(own, start=low - 1, limit=2, size=size)
            start, end = self._positions_below(trail, first), min([*following, size])
        while leaves := self.index.leaves(trail, start=start, limit=_CHUNK, size=end):
            yield from leaves
            start += len(leaves)

    def _tells(self, trail: str, position: int) -> int:
        """Which sequence the entry at this position of the trail of a stream without gaps tells of: its event's, or its batch's first."""
        (one,) = self.entries(self.index.leaves(trail, start=position, limit=1))
        return self.open_batch(one.leaf).signed.header.first if one.entry.kind == "batch" else one.entry.sequence

    def _positions_below(self, trail: str, leaf: int) -> int:
        """How many entries of the trail are below this leaf; a few dozen look-ups at most."""
        low, step = 0, 1
        while self.index.leaves(trail, start=low + step - 1, limit=1, size=leaf):
            low, step = low + step, 2 * step
        high = low + step - 1
        while low < high:
            middle = (low + high) // 2
            if self.index.leaves(trail, start=middle, limit=1, size=leaf):
                low = middle + 1
            else:
                high = middle
        return low

    def _remember(self, stream: str, batch: tuple[int, int, int]) -> None:
        if self._batches_known >= _CACHED_BATCHES:
            self._batches.clear()
            self._batches_known = 0
        insort(self._batches.setdefault(stream, []), batch)
        self._batches_known += 1

    def open_batch(self, leaf: int) -> LoggedBatch:
        """The batch whose entry is this leaf; raises `VerificationError`, also when it is another kind of entry."""
        data = self.reader.entry(leaf)
        entry = decode_entry(data)
        if entry.kind != "batch":
            raise VerificationError(f"leaf {leaf} is an entry of kind {entry.kind}, a batch was expected")
        try:
            signature = base64.b64decode(str(entry.detail.get("signature")), validate=True)
        except ValueError as error:
            raise VerificationError(f"leaf {leaf}: the batch's signature is not base64") from error
        signed = open_header(str(entry.detail.get("header")).encode("utf-8"), signature)
        return LoggedBatch(leaf=leaf, data=data, signed=signed)

    def facts_path(self, batch: LoggedBatch, sequence: int) -> tuple[bytes, ...]:
        """The inclusion path of an event's facts line under the batch's `facts_root`.

        Raises:
            NotFound: the store has lost the batch.
            VerificationError: the store's facts are not those that were signed, or the event is not of this batch.
        """
        header = batch.signed.header
        name = (header.stream, header.number)
        levels = self._facts.get(name)
        if levels is None:
            stored = self.store.batch(StreamId(header.stream), header.number)
            if stored is None:
                raise NotFound(f"batch {header.number} of stream {header.stream} is in the log, but not in the store")
            if stored.data != batch.signed.data:
                raise VerificationError(
                    f"batch {header.number} of stream {header.stream}: the store has another header than the log"
                )
            levels = self._facts[name] = node_levels(b"".join(leaf_hashes(stored.facts_lines())))
            if len(self._facts) > _CACHED_FACTS:
                self._facts.popitem(last=False)
        else:
            self._facts.move_to_end(name)
        if not header.first <= sequence < header.first + header.count:
            raise VerificationError(f"event {sequence} is not in batch {header.number} of stream {header.stream}")

        def read(nodes: Sequence[Node]) -> list[bytes]:
            return [levels[level][32 * at : 32 * at + 32] for level, at in nodes]

        return tuple(inclusion_proof(sequence - header.first, header.count, read))

    def retired_facts(self, ref: EventRef) -> Facts:
        """The facts of an event that was retired: they stay in the store. Raises `NotFound` when it was not retired."""
        batch = self.batch_with(ref.stream, ref.sequence, below=self.tree().size)
        header = batch.signed.header
        if self.retirements().covers(month_of(header), batch.leaf) is None:
            raise NotFound(f"event {ref.sequence} of stream {ref.stream} is not in the store")
        stored = self.store.batch(ref.stream, header.number)
        if stored is None:
            raise NotFound(f"batch {header.number} of stream {header.stream} is in the log, but not in the store")
        try:
            return decode_facts(stored.facts_lines()[ref.sequence - header.first])
        except Malformed as error:
            raise VerificationError(f"event {ref.sequence} of stream {ref.stream}: {error}") from error

    def headers(self, events: Sequence[LoggedEntry]) -> list[BundleHeader]:
        """The batches of these events, by leaf, each with the facts paths of those events."""
        found: dict[int, tuple[LoggedBatch, list[int]]] = {}
        for event in events:
            batch = self.batch_of(event)
            found.setdefault(batch.leaf, (batch, []))[1].append(event.entry.sequence)
        return [
            BundleHeader(
                leaf=leaf,
                entry=found[leaf][0].data,
                paths=tuple(
                    (sequence, self.facts_path(found[leaf][0], sequence)) for sequence in sorted(found[leaf][1])
                ),
            )
            for leaf in sorted(found)
        ]

    # Enrolments -------------------------------------------------------------------------------------------------------

    def enrolment(self, stream: str, key: str) -> LoggedEntry:
        """The entry that enrolled this key for this stream; raises `NotFound`."""
        while (stream, key) not in self._enrolments:
            leaves = self.index.leaves(ENROLMENTS, start=self._enrolments_read, limit=_CHUNK)
            for one in self.entries(leaves):
                detail = one.entry.detail
                if one.entry.kind == "enrolment":
                    self._enrolments.setdefault((str(detail.get("stream")), str(detail.get("key"))), one.leaf)
            self._enrolments_read += len(leaves)
            if not leaves:
                raise NotFound(f"the log has no enrolment of the key {key} for stream {stream}")
        return self.entries([self._enrolments[stream, key]])[0]


def _ref(one: LoggedEntry) -> EventRef:
    return EventRef(stream=StreamId(one.entry.stream), sequence=one.entry.sequence)


def _digest(one: LoggedEntry) -> str:
    try:
        return decode_facts(bytes(one.entry.facts)).digest
    except Malformed as error:
        raise VerificationError(f"leaf {one.leaf}: {error}") from error
