"""Reading the log: entries and proofs, each checked against the published checkpoint before it is given out.

Readers see what is published under the C2SP paths, never the head or a staging, so they can run anywhere, next to the
writer or behind a web server. What a checkpoint covers was published before it.
"""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

from correlator.checkpoint import Checkpoint, open_checkpoint
from correlator.errors import NotFound, VerificationError
from correlator.merkle import consistency_proof, inclusion_proof, leaf_hash, tree_root
from correlator.note import Verifier
from correlator.proof import EntryProof
from correlator.storage import CHECKPOINT, LogStorage
from correlator.tiles import ENTRIES, WIDTH, HashTile, Tile, TileHashReader, entries_in_bundle

__all__ = ["LogReader"]

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

_Seen = tuple[bytes, Checkpoint, TileHashReader]
"""A checkpoint as signed, as read, and the hashes of its tree."""


class _Recent(Generic[_Key, _Value]):
    """The last ``capacity`` values asked for; for several threads."""

    __slots__ = ("_capacity", "_lock", "_values")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = Lock()
        self._values: OrderedDict[_Key, _Value] = OrderedDict()

    def get(self, key: _Key) -> _Value | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: _Key, value: _Value) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)


class LogReader:
    """Reads one log; for several threads. What it gives out belongs to the tree of the checkpoint it has seen last.

    Once it has seen a checkpoint it accepts only later ones that continue the same tree: a log that was rolled back or
    forked raises `VerificationError`.

    Args:
        storage: where the log lies.
        verifier: the log's public key. Without one the checkpoint's signature is not checked, only everything below it.
        cached_tiles: full hash tiles kept in memory, 16 KiB each.
        cached_bundles: entry bundles kept in memory, 256 entries each.
    """

    def __init__(
        self,
        storage: LogStorage,
        verifier: Verifier | None = None,
        *,
        cached_tiles: int = 2048,
        cached_bundles: int = 256,
    ) -> None:
        self._storage = storage
        self._verifier = verifier
        self._tiles: _Recent[tuple[int, int], HashTile] = _Recent(cached_tiles)
        self._bundles: _Recent[Tile, tuple[Tile, bytes]] = _Recent(cached_bundles)
        self._seen: _Seen | None = None  # replaced as a whole, so that threads see one checkpoint or another

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """The latest signed checkpoint, verbatim, after a look at the storage.

        Raises:
            NotFound: nothing is published yet.
            VerificationError: its signature is false, or its tree does not continue the one seen before.
        """
        return self._refresh()[0]

    def tree(self) -> Checkpoint:
        """The latest checkpoint's size and root; raises as `checkpoint`."""
        return self._refresh()[1]

    def _refresh(self) -> _Seen:
        signed = self._storage.get(CHECKPOINT)
        known = self._seen
        if known is not None and signed == known[0]:
            return known
        if self._verifier is None:
            checkpoint = Checkpoint.parse(signed[: signed.rfind(b"\n\n") + 1])
        else:
            checkpoint = open_checkpoint(signed, self._verifier)
        hashes = TileHashReader(size=checkpoint.size, root=checkpoint.root, fetch=self._fetch)
        if known is not None:
            seen = known[1]
            if checkpoint.size < seen.size:
                # Two threads may meet a checkpoint and its successor in either order, but the storage has only the latter.
                if self._storage.get(CHECKPOINT) != signed:
                    return self._refresh()
                raise VerificationError(
                    f"the log was rolled back: its checkpoint has {checkpoint.size} leaves, {seen.size} were seen before"
                )
            if seen.origin != checkpoint.origin or tree_root(seen.size, hashes) != seen.root:
                raise VerificationError(
                    f"the log was forked: its tree of {checkpoint.size} leaves does not continue the one of {seen.size}"
                )
        self._seen = signed, checkpoint, hashes
        return self._seen

    def _reader_of(self, size: int) -> TileHashReader:
        """Hashes of a tree of at least ``size`` leaves, without a look at the storage where what was seen is enough."""
        seen = self._seen
        if seen is None or size > seen[1].size:
            seen = self._refresh()
        if size > seen[1].size:
            raise NotFound(f"the log has {seen[1].size} leaves, not {size}")
        return seen[2]

    # Entries ----------------------------------------------------------------------------------------------------------

    def entry(self, index: int) -> bytes:
        """The entry that is leaf ``index``.

        Raises:
            NotFound: the log is not that long.
            VerificationError: the entry or a tile above it was changed; the message names it.
        """
        return self.entries(index, index + 1)[0]

    def entries(self, start: int, end: int) -> list[bytes]:
        """The entries that are the leaves ``start`` to ``end`` exclusive; raises as `entry`."""
        if not 0 <= start <= end:
            raise NotFound(f"leaves {start} to {end} are no range of the log")
        hashes = self._reader_of(end)
        found = []
        while start < end:
            stop = min(end, start - start % WIDTH + WIDTH)
            place, data = self._bundle(start // WIDTH, hashes.size)
            first = place.index * WIDTH
            leaves = hashes.tile(0, place.index)
            entries = entries_in_bundle(data, start - first, stop - first, place.path)
            for at, entry in enumerate(entries, start - first):
                if leaf_hash(entry) != leaves.node(0, at):
                    hashes.check_entry(first + at, entry)  # raises, and says which one it is
            found += entries
            start = stop
        return found

    def leaf_hash(self, index: int) -> bytes:
        """The hash of leaf ``index``; raises as `entry`."""
        return self._reader_of(index + 1).leaf(index)

    # Proofs -----------------------------------------------------------------------------------------------------------

    def root(self, size: int) -> bytes:
        """The root of the tree of the first ``size`` leaves; raises as `inclusion`."""
        return tree_root(size, self._reader_of(size))

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof that leaf ``index`` is in the tree of ``size`` leaves (RFC 9162 section 2.1.3).

        Raises:
            NotFound: the log is not that long.
            VerificationError: a tile was changed; the message names it.
        """
        if not 0 <= index < size:
            raise NotFound(f"leaf {index} is not in a tree of {size} leaves")
        return inclusion_proof(index, size, self._reader_of(size))

    def consistency(self, size1: int, size2: int) -> list[bytes]:
        """The proof that the tree of ``size1`` leaves begins that of ``size2`` (RFC 9162 section 2.1.4); raises as `inclusion`."""
        if not 0 <= size1 <= size2:
            raise NotFound(f"a tree of {size1} leaves is no beginning of a tree of {size2} leaves")
        return consistency_proof(size1, size2, self._reader_of(size2))

    def proof(self, index: int, *, extra: bytes | None = None) -> EntryProof:
        """Leaf ``index`` in the latest tree, with that tree's checkpoint: for a ``.tlog-proof`` file; raises as `inclusion`."""
        signed, checkpoint, hashes = self._refresh()
        if not 0 <= index < checkpoint.size:
            raise NotFound(f"leaf {index} is not in a tree of {checkpoint.size} leaves")
        path = tuple(inclusion_proof(index, checkpoint.size, hashes))
        return EntryProof(index=index, hashes=path, checkpoint=signed, extra=extra)

    # Tiles ------------------------------------------------------------------------------------------------------------

    def _get(self, tile: Tile) -> tuple[Tile, bytes]:
        """A tile's bytes; of the full one where it has superseded the partial one that was asked for."""
        try:
            return tile, self._storage.get(tile.path)
        except NotFound:
            try:
                return tile.full, self._storage.get(tile.full.path)
            except NotFound as error:
                raise VerificationError(f"{tile.path} is missing, and the published tree needs it") from error

    def _fetch(self, tile: Tile) -> HashTile:
        key = (tile.level, tile.index)
        if tile.width == WIDTH and (known := self._tiles.get(key)) is not None:
            return known
        place, data = self._get(tile)
        if place != tile:
            data = HashTile(place, data).data[: tile.width * 32]
        content = HashTile(tile, data)
        if tile.width == WIDTH:
            self._tiles.put(key, content)
        return content

    def _bundle(self, index: int, size: int) -> tuple[Tile, bytes]:
        tile = Tile(level=ENTRIES, index=index, width=min(size - index * WIDTH, WIDTH))
        known = self._bundles.get(tile)
        if known is None:
            known = self._get(tile)
            self._bundles.put(tile, known)
        return known
