"""The right edge of a growing tree, kept tile by tile: all that is needed to append leaves and to know the root. Pure.

Of each level of tiles only the last, partial one is kept, so a frontier has at most 255 hashes a level (three levels at
16 million leaves). Appending works whole tiles off bottom-up: a leaf costs one node hash and 1/256 of a join.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from correlator.errors import VerificationError
from correlator.merkle import EMPTY_ROOT, HASH_BYTES, node_hash, node_levels, nodes_of_range, perfect_root
from correlator.tiles import ENTRIES, HEIGHT, WIDTH, Tile, encode_bundle

__all__ = ["Frontier", "append_to_bundles"]

_TILE_BYTES = WIDTH * HASH_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """A tree of ``size`` leaves: ``edges[level]`` is its partial tile at that level (empty bytes where it has none)."""

    size: int = 0
    edges: tuple[bytes, ...] = ()

    @classmethod
    def load(cls, size: int, read: Callable[[Tile], bytes]) -> "Frontier":
        """The frontier of a tree whose partial tiles ``read`` gives. Compare `root` before believing it.

        Raises:
            VerificationError: a tile has another length than its width says.
        """
        edges: list[bytes] = []
        while rest := size >> HEIGHT * len(edges):
            index, width = divmod(rest, WIDTH)
            tile = Tile(level=len(edges), index=index, width=width)
            data = read(tile) if width else b""
            if len(data) != width * HASH_BYTES:
                raise VerificationError(f"{tile.path} has {len(data)} bytes, not {width} hashes of {HASH_BYTES}")
            edges.append(data)
        return cls(size=size, edges=tuple(edges))

    @property
    def root(self) -> bytes:
        """The root of the tree; costs at most 255 hashes a level."""
        root = None
        for edge in self.edges:
            if edge:
                levels = node_levels(edge)
                for level, at in reversed(nodes_of_range(0, len(edge) // HASH_BYTES)):
                    left = levels[level][HASH_BYTES * at : HASH_BYTES * at + HASH_BYTES]
                    root = left if root is None else node_hash(left, root)
        return EMPTY_ROOT if root is None else root

    def extend(self, leaf_hashes: Sequence[bytes]) -> tuple["Frontier", list[tuple[Tile, bytes]]]:
        """The frontier after these leaves, and every hash tile that is new or wider with them, partial ones too."""
        if not leaf_hashes:
            return self, []
        edges = list(self.edges)
        written = []
        fresh = b"".join(leaf_hashes)  # the new hashes of the level that the loop is at
        level = 0
        while fresh:
            if level == len(edges):
                edges.append(b"")
            index = self.size >> HEIGHT * (level + 1)
            data = edges[level] + fresh if edges[level] else fresh
            whole = len(data) - len(data) % _TILE_BYTES
            roots = []
            for start in range(0, whole, _TILE_BYTES):
                tile = data[start : start + _TILE_BYTES]
                written.append((Tile(level=level, index=index), tile))
                roots.append(perfect_root(tile))
                index += 1
            edge = edges[level] = data[whole:]
            if edge:
                written.append((Tile(level=level, index=index, width=len(edge) // HASH_BYTES), edge))
            fresh = b"".join(roots)
            level += 1
        return Frontier(size=self.size + len(leaf_hashes), edges=tuple(edges)), written


def append_to_bundles(size: int, tail: bytes, entries: Sequence[bytes]) -> tuple[bytes, list[tuple[Tile, bytes]]]:
    """The entry bundles that are new or wider when ``entries`` come after ``size`` entries, and the new partial bundle.

    ``tail`` is the content of the partial bundle before (empty if ``size`` is a multiple of 256), and what comes back
    first is that content after.

    Raises:
        OverflowError: an entry has more than 65,535 bytes.
    """
    written = []
    index, width = divmod(size, WIDTH)
    at = 0
    while at < len(entries):
        taken = entries[at : at + WIDTH - width]
        at += len(taken)
        width += len(taken)
        tail += encode_bundle(taken)
        written.append((Tile(level=ENTRIES, index=index, width=width), tail))
        if width == WIDTH:
            index, width, tail = index + 1, 0, b""
    return tail, written
