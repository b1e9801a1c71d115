"""Heads, links, streams, flows and timers: hot in bounded memory, cold in `correlator.coldstate`, all derived from the log.

Nothing may be flushed before it is published: `commit` says that it is. When a publish fails, throw the State away and
`open` it again: what the cold store does not have yet is replayed from the log, which is also what a start after a crash does.
"""

import base64
import hashlib
import struct
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from collector.batch import open_header
from collector.event import decode_facts, parse_time
from correlator.coldstate import ColdState, Meta, Table
from correlator.entry import Entry, decode_entry
from correlator.errors import StateUnknown
from correlator.merkle import leaf_hash
from correlator.progress import FlowTracker
from correlator.shards import WHOLE, Shard
from correlator.stitch import Stitcher
from correlator.streams import StreamState
from correlator.trail import kind_of

__all__ = ["EntryReader", "Head", "State"]

_HEAD = struct.Struct(">QQ32sI")
_REPLAY_LEAVES = 4_096

FLUSH_LEAVES = 131_072
"""Leaves between two flushes at most: what a start after a crash replays."""

HOT_TRAILS = 32_768
"""Trails of one generation in memory; there are two."""


class EntryReader(Protocol):
    """What the state needs of the log: `correlator.reader.LogReader` is one."""

    def entries(self, start: int, end: int) -> Sequence[bytes]:
        """The entries that are the leaves `start` to `end` exclusive."""

    def leaf_hash(self, index: int) -> bytes:
        """The leaf hash of leaf `index`."""


class Head(msgspec.Struct, frozen=True, gc=False):
    """The last entry of a trail: its position, leaf index and leaf hash, and how many links the trail has."""

    position: int
    leaf: int
    hash: bytes
    links: int


def _decode_head(raw: bytes) -> Head:
    return Head(*_HEAD.unpack(raw))


def _encode_head(head: Head) -> bytes:
    return _HEAD.pack(head.position, head.leaf, head.hash, head.links)


_encode_stream = msgspec.msgpack.Encoder().encode
_decode_stream = msgspec.msgpack.Decoder(StreamState).decode


class State:
    """What stitching and chaining need to know of the log so far. For one thread; made by `open`.

    Attributes:
        shard: which of the ledger's shards the log is.
        leaves: how many leaves are applied, published or not.
        recorded_ns: recorded time of the last of them.
        streams: every stream's frontier, by stream id; change one through `stream`.
        head: the last entry of a trail, or None; put_head: the trail has a new last entry. Functions, bound here because they
            are called for every entry.
        flows: progress of the declared flows.
    """

    def __init__(
        self, cold: ColdState, flows: FlowTracker, *, hot_trails: int = HOT_TRAILS, shard: Shard = WHOLE
    ) -> None:
        self._cold = cold
        self.shard = shard
        self._cut = shard.count > 1
        self._hot_trails = hot_trails
        self.leaves = cold.meta.leaves
        self.recorded_ns = cold.meta.recorded_ns
        self._heads = Table(cold, b"h", limit=hot_trails, encode=_encode_head, decode=_decode_head)
        self._links = Table(cold, b"l", limit=hot_trails, encode=bytes, decode=bytes)
        self.head = self._heads.get
        self.put_head = self._heads.put
        self.flows = flows
        self.streams: dict[str, StreamState] = {}
        self._keys: dict[str, set[str]] = {}
        for key, value in cold.items(b"s"):
            found = self.streams[key[1:].decode()] = _decode_stream(value)
            if found.key:
                self._keys.setdefault(found.collector, set()).add(found.key)
        self._dirty_streams: set[str] = set()
        self._last_hash = bytes.fromhex(cold.meta.last_hash)
        self._identities = Stitcher().identities

    @classmethod
    def open(
        cls,
        folder: Path,
        reader: EntryReader,
        size: int,
        *,
        fingerprint: str = "",
        flows: Callable[[ColdState], FlowTracker] = FlowTracker,
        hot_trails: int = HOT_TRAILS,
        shard: Shard = WHOLE,
        progress: Callable[[int, int], None] | None = None,
    ) -> "State":
        """The state of the log's first `size` leaves: what the cold store has, and the rest replayed from the log.

        A cold store that is damaged, ahead of the log, of another log or of other settings is emptied and made anew.

        Args:
            folder: of the cold store; made when absent.
            reader: the log.
            size: leaves published.
            fingerprint: of what the state follows from beside the log: another one means to begin again.
            flows: makes the flows' tracker.
            hot_trails: trails of one generation in memory.
            shard: which of the ledger's shards the log is; the fingerprint must say so.
            progress: called with (leaves applied, `size`) now and then.

        Raises:
            VerificationError: the log's entries were changed.
            StateUnknown: the log holds entries that no correlator writes; or the disk's content is damaged.
            Overloaded: the disk.
        """
        cold = ColdState(folder)
        meta = cold.meta
        if (
            meta.fingerprint != fingerprint
            or meta.version != Meta().version
            or meta.leaves > size
            or (meta.leaves > 0 and reader.leaf_hash(meta.leaves - 1).hex() != meta.last_hash)
        ):
            cold.clear()
            cold.meta = Meta(fingerprint=fingerprint)
        state = cls(cold, flows(cold), hot_trails=hot_trails, shard=shard)
        while state.leaves < size:
            last = b""
            for data in reader.entries(state.leaves, min(size, state.leaves + _REPLAY_LEAVES)):
                last = leaf_hash(data)
                state.replay(decode_entry(data), last)
            state.commit(last)
            if progress is not None:
                progress(state.leaves, size)
        return state

    # ------------------------------------------------------------------------------------------------------ trails

    def linked(self, one: str, other: str) -> bool:
        """Whether the link between these two trails stands."""
        name = f"{one}\n{other}" if one < other else f"{other}\n{one}"
        if name in self._links.young:
            return True
        for trail in (one, other):
            if self._cut and not self.shard.holds(trail):
                continue  # its side of the link is in another log
            head = self.head(trail)
            if head is None or head.links == 0:  # spares the cold store a look for every new trail
                return False
        return self._links.get(name) is not None

    def put_link(self, one: str, other: str) -> None:
        """The link between these two trails stands now. Their heads count it (`Head.links`)."""
        self._links.put(f"{one}\n{other}" if one < other else f"{other}\n{one}", b"\x01")

    # ------------------------------------------------------------------------------------------------------ streams

    def stream(self, stream: str) -> StreamState:
        """The stream's frontier, to be changed by the caller: it is written with the next flush."""
        found = self.streams.get(stream)
        if found is None:
            found = self.streams[stream] = StreamState(stream=stream)
        self._dirty_streams.add(stream)
        return found

    def keys_of(self, collector: str) -> Collection[str]:
        """The public keys that are enrolled for streams of this collector."""
        return self._keys.get(collector, ())

    def enrol(self, detail: dict[str, Any]) -> None:
        """An enrolment entry is made."""
        stream = self.stream(detail["stream"])
        stream.on_enrolment(detail)
        self._keys.setdefault(stream.collector, set()).add(stream.key)

    # ------------------------------------------------------------------------------------------------ what the log says

    def replay(self, entry: Entry, entry_hash: bytes) -> None:
        """Apply the next leaf as it was written: the same changes as when the writer made it.

        Raises:
            StateUnknown: it does not follow from the leaves before.
        """
        leaf = self.leaves
        known = self.head(entry.trail)
        if known is not None and known.leaf >= leaf:
            # written by a flush that a crash cut off: it holds this entry already
            self._advance(entry, leaf)
            return
        expected = 0 if known is None else known.position + 1
        if entry.position != expected:
            raise StateUnknown(
                f"leaf {leaf}: position {entry.position} where {expected} follows in the trail {entry.trail}"
            )
        links = 0 if known is None else known.links
        if entry.kind == "link":
            links += 1
        self.put_head(entry.trail, Head(entry.position, leaf, entry_hash, links))
        self._advance(entry, leaf)

    def _advance(self, entry: Entry, leaf: int) -> None:
        self.leaves = leaf + 1
        self.recorded_ns = parse_time(entry.recorded)
        self._apply_kind(entry, leaf)

    def _apply_kind(self, entry: Entry, leaf: int) -> None:
        kind, detail = entry.kind, entry.detail
        if kind == "link":
            self.put_link(entry.trail, detail["to"])
        elif kind == "event":
            if self.flows.declared and kind_of(entry.trail) not in ("access", "ledger", "incident"):
                facts = decode_facts(bytes(entry.facts))
                trails = dict.fromkeys([entry.trail, *(trail for trail, _ in self._identities(facts))])
                self.flows.on_event(list(trails), facts, self.recorded_ns)
        elif kind == "verdict":
            self.flows.on_verdict(entry.trail, detail)
        elif kind == "enrolment":
            self.enrol(detail)
        elif kind == "batch":
            data = detail["header"].encode()
            signed = open_header(data, base64.b64decode(detail["signature"]))
            self.stream(signed.header.stream).on_batch(
                signed.header, hashlib.sha256(data).hexdigest(), self.recorded_ns
            )
        elif kind == "gap":
            self.stream(entry.trail.partition("/")[2]).on_gap(detail, leaf)
        elif kind == "fork":
            self.stream(entry.trail.partition("/")[2]).on_fork(detail, leaf)

    # ------------------------------------------------------------------------------------------------------ keeping

    def commit(self, last_hash: bytes) -> None:
        """All that was applied is published; `last_hash` is the last leaf's. Flushes when there is enough.

        A crash in here: the cold store has this flush whole or not at all, and either is true for some size of the log.

        Raises:
            Overloaded, StateUnknown: the disk. Nothing is lost: what is dirty stays in memory.
        """
        self._last_hash = last_hash
        if len(self._heads.dirty) >= self._hot_trails or self.leaves - self._cold.meta.leaves >= FLUSH_LEAVES:
            self.flush()

    def flush(self) -> None:
        """Write out what is dirty; only after `commit`. Raises as `commit`."""
        if self.leaves == self._cold.meta.leaves:
            return
        streams = [(b"s" + name.encode(), _encode_stream(self.streams[name])) for name in self._dirty_streams]
        meta = msgspec.structs.replace(
            self._cold.meta, leaves=self.leaves, last_hash=self._last_hash.hex(), recorded_ns=self.recorded_ns
        )
        self._cold.write(
            [*self._heads.changed(), *self._links.changed()],
            [*streams, *self.flows.changed()],
            self.flows.removed(),
            meta,
        )
        self._heads.flushed()
        self._links.flushed()
        self.flows.flushed()
        self._dirty_streams.clear()

    def discard(self) -> None:
        """Close without writing: what is applied was perhaps never published."""
        self._cold.close()

    def close(self) -> None:
        """Flush and close; only after `commit`. Raises as `commit`."""
        try:
            self.flush()
        finally:
            self._cold.close()
