"""Tiles: how the tree and its entries lie in storage, as C2SP ``tlog-tiles`` lays them out. Pure.

A hash tile is 256 hashes side by side: tile ``(level, index)`` holds the roots over each 256**level leaves from leaf
``index * 256**(level + 1)`` on, so that the hash of a full tile is one hash of the tile above. An entry bundle holds the
256 entries under a tile of level 0, each after its length as two big-endian bytes. The last tile of a level may be
*partial*, its width in its path (``tile/0/x001/234.p/17``); it never feeds a tile above.

Specification: https://c2sp.org/tlog-tiles
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from correlator.checkpoint import MAX_SIZE
from correlator.errors import VerificationError
from correlator.merkle import HASH_BYTES, Node, leaf_hash, node_hash, node_levels, nodes_of_range

__all__ = [
    "ENTRIES",
    "MAX_ENTRY_BYTES",
    "WIDTH",
    "HashTile",
    "Tile",
    "TileHashReader",
    "encode_bundle",
    "entries_in_bundle",
    "parse_bundle",
    "tiles_of_size",
]

HEIGHT = 8
WIDTH = 1 << HEIGHT
"""Hashes in a full tile, and entries in a full bundle."""

ENTRIES = -1
"""The level of entry bundles."""

MAX_LEVEL = 63
MAX_ENTRY_BYTES = 65_535
"""What the two bytes of length before an entry can say."""

_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The place of a hash tile, or of an entry bundle (level `ENTRIES`): its coordinates and its width, 1 to 256."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Where it lies under the log's prefix: ``tile/<level>/<index>[.p/<width>]``."""
        rest, last = divmod(self.index, 1000)
        parts = f"{last:03d}"
        while rest:
            rest, part = divmod(rest, 1000)
            parts = f"x{part:03d}/{parts}"
        level = "entries" if self.level == ENTRIES else self.level
        return f"tile/{level}/{parts}" if self.width == WIDTH else f"tile/{level}/{parts}.p/{self.width}"

    @classmethod
    def parse(cls, path: str) -> "Tile":
        """Read a path in its one canonical spelling.

        Raises:
            VerificationError: it is not the path of a tile.
        """
        found = _PATH.fullmatch(path)
        if found is None:
            raise VerificationError(f"{path[:100]!r} is not the path of a tile")
        level, index, width = found.groups()
        tile = cls(
            level=ENTRIES if level == "entries" else int(level),
            index=int(index.replace("x", "").replace("/", "")),
            width=WIDTH if width is None else int(width),
        )
        # Too wide, too high, zeros in front, or ".p/256" for a full tile.
        if tile.width > WIDTH or tile.level > MAX_LEVEL or tile.index > MAX_SIZE or tile.path != path:
            raise VerificationError(f"{path[:100]!r} is not the canonical path of a tile")
        return tile

    @property
    def full(self) -> "Tile":
        """The full tile that this one is, or begins."""
        return self if self.width == WIDTH else Tile(level=self.level, index=self.index)

    @property
    def first_leaf(self) -> int:
        """The leaf index at which it starts."""
        return self.index << HEIGHT * (max(self.level, 0) + 1)


def tiles_of_size(size: int) -> Iterator[Tile]:
    """Every tile and bundle of a tree of ``size`` leaves: bundles first, then level by level, each left to right."""
    level = ENTRIES
    while True:
        full, width = divmod(size >> HEIGHT * max(level, 0), WIDTH)
        if not full and not width:
            return
        for index in range(full):
            yield Tile(level=level, index=index)
        if width:
            yield Tile(level=level, index=full, width=width)
        level += 1


# ------------------------------------------------------------------------------------------------------ entry bundles


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries side by side, each after its length as two big-endian bytes.

    Raises:
        OverflowError: an entry has more than `MAX_ENTRY_BYTES`.
    """
    return b"".join([part for entry in entries for part in (len(entry).to_bytes(2, "big"), entry)])


def parse_bundle(data: bytes, count: int, where: str) -> list[bytes]:
    """The ``count`` entries of a bundle, no fewer, no more, no byte left over. ``where`` names the bundle in errors.

    Raises:
        VerificationError: it is not exactly that.
    """
    entries = []
    at = 0
    end = len(data)
    for number in range(count):
        start = at + 2
        if start > end:
            raise VerificationError(f"{where} ends after {number} entries; it must have {count}")
        at = start + (data[start - 2] << 8 | data[start - 1])
        if at > end:
            raise VerificationError(f"{where} ends inside its entry {number}")
        entries.append(data[start:at])
    if at != end:
        raise VerificationError(f"{where} has {end - at} bytes after its {count} entries")
    return entries


def entries_in_bundle(data: bytes, start: int, stop: int, where: str) -> list[bytes]:
    """The entries ``start`` to ``stop`` exclusive, without a look at those behind: for who checks each by its leaf hash.

    Raises:
        VerificationError: the bundle ends before.
    """
    at = 0
    for _ in range(start):
        at += 2 + int.from_bytes(data[at : at + 2], "big")
    entries = []
    for number in range(start, stop):
        begin = at + 2
        at = begin + int.from_bytes(data[at:begin], "big")
        if max(at, begin) > len(data):
            raise VerificationError(f"{where} ends before or inside its entry {number}")
        entries.append(data[begin:at])
    return entries


# ----------------------------------------------------------------------------------------------------------- hash tiles


class HashTile:
    """The content of a hash tile, with the nodes inside it worked out once: ``levels[k]`` are the roots over each 2**k.

    Raises:
        VerificationError: ``data`` is not exactly as long as ``tile`` is wide.
    """

    __slots__ = ("levels",)

    def __init__(self, tile: Tile, data: bytes) -> None:
        if len(data) != tile.width * HASH_BYTES:
            raise VerificationError(f"{tile.path} has {len(data)} bytes, not {tile.width} hashes of {HASH_BYTES}")
        self.levels = node_levels(data)

    def node(self, level: int, index: int) -> bytes:
        """The root over the tile's hashes ``index * 2**level`` to ``(index + 1) * 2**level``, exclusive."""
        return self.levels[level][HASH_BYTES * index : HASH_BYTES * index + HASH_BYTES]

    @property
    def data(self) -> bytes:
        """The tile as it is stored."""
        return self.levels[0]


class TileHashReader:
    """Nodes of one tree, read from tiles, each checked against the tree's root before it is believed.

    As in ``tlog.TileHashReader``: the tiles of the right edge must fold to the root, and every other tile must hash to
    what the tile above it says. So a proof made from changed tiles is refused where it is made, and the tile is named.

    Args:
        size: number of leaves of the tree.
        root: its root, from a checkpoint whose signature was checked.
        fetch: gives the content of a tile of this tree; it may cache (content of full tiles never changes).
    """

    def __init__(self, *, size: int, root: bytes, fetch: Callable[[Tile], HashTile]) -> None:
        self.size = size
        self.root = root
        self._fetch = fetch
        self._edges: dict[int, HashTile] | None = None

    def __call__(self, nodes: Sequence[Node]) -> list[bytes]:
        """A `ReadNodes`.

        Raises:
            VerificationError: a tile is not that of this tree; the message names its path.
        """
        hashes = []
        checked: dict[tuple[int, int], HashTile] = {}  # a proof takes most of its nodes from two or three tiles
        for level, index in nodes:
            if (index + 1) << level > self.size:
                raise ValueError(f"node {(level, index)} is not complete in a tree of {self.size} leaves")
            tile_level, inner = divmod(level, HEIGHT)
            tile_index, at = divmod(index, WIDTH >> inner)
            tile = checked.get((tile_level, tile_index))
            if tile is None:
                tile = checked[tile_level, tile_index] = self.tile(tile_level, tile_index)
            hashes.append(tile.node(inner, at))
        return hashes

    def leaf(self, index: int) -> bytes:
        """The leaf hash of the leaf ``index``; raises as `__call__`."""
        return self.tile(0, index >> HEIGHT).node(0, index % WIDTH)

    def check_entry(self, index: int, entry: bytes) -> None:
        """Check that ``entry`` is the leaf ``index`` of this tree; raises as `__call__`, naming the bundle and the leaf."""
        if leaf_hash(entry) != self.leaf(index):
            bundle, at = divmod(index, WIDTH)
            width = min(self.size - bundle * WIDTH, WIDTH)
            path = Tile(level=ENTRIES, index=bundle, width=width).path
            raise VerificationError(f"{path}: entry {at} (leaf {index}) is not the one in the tree: it was changed")

    def tile(self, level: int, index: int) -> HashTile:
        """A tile of this tree, checked; raises as `__call__`."""
        if self._edges is None:
            self._edges = self._read_edges()
        if index == self.size >> HEIGHT * (level + 1):
            return self._edges[level]
        place = Tile(level=level, index=index)
        tile = self._fetch(place)
        above = self.tile(level + 1, index >> HEIGHT)
        if tile.node(HEIGHT, 0) != above.node(0, index % WIDTH):
            raise VerificationError(f"{place.path} is not a tile of the tree of {self.size} leaves: it was changed")
        return tile

    def _read_edges(self) -> dict[int, HashTile]:
        """The partial tile of each level that has one. Together they hold all that the root is folded from."""
        edges = {}
        paths = []
        root = None
        level = 0
        while rest := self.size >> HEIGHT * level:
            index, width = divmod(rest, WIDTH)
            if width:
                place = Tile(level=level, index=index, width=width)
                paths.append(place.path)
                tile = edges[level] = self._fetch(place)
                for node in reversed(nodes_of_range(0, width)):
                    left = tile.node(*node)
                    root = left if root is None else node_hash(left, root)
            level += 1
        if root is not None and root != self.root:
            what = " or ".join(paths)
            raise VerificationError(f"{what} does not lead to the root of the tree of {self.size} leaves")
        return edges
