"""The Merkle tree of RFC 6962 / RFC 9162 as plain arithmetic: hashes, roots, proofs. No storage, no keys, no state.

The tree of ``n`` leaves, ``MTH(D[0:n])``, splits at the largest power of two smaller than ``n`` (RFC 9162 section 2.1.1).
Its *nodes* are the perfect subtrees only: node ``(level, index)`` is the root over the leaves
``D[index * 2**level : (index + 1) * 2**level]``. A node, once full, never changes as the log grows, so every tree of
every size is spelled with nodes: a range of leaves that is not a perfect subtree is folded from at most ``log2(n)``
nodes. Where nodes are kept is somebody else's question: proofs are made through a ``ReadNodes`` callable.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from correlator.errors import VerificationError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Node",
    "ReadNodes",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "leaf_hashes",
    "node_hash",
    "node_levels",
    "nodes_of_range",
    "perfect_root",
    "root_of",
    "tree_root",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES = 32

EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without leaves (RFC 9162 section 2.1.1)."""

Node = tuple[int, int]
"""``(level, index)``: the perfect subtree over the leaves ``index * 2**level`` to ``(index + 1) * 2**level`` exclusive."""

ReadNodes = Callable[[Sequence[Node]], Sequence[bytes]]
"""Gives the 32-byte hashes of the nodes asked for, in the same order. Asked once for each proof, so it may batch."""

_LEAF = b"\x00"
_NODE = b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry), 32 bytes (RFC 9162 section 2.1.1)."""
    return sha256(_LEAF + entry).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """The leaf hash of each entry, in order; the loop of `leaf_hash` without a call for each."""
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right), 32 bytes (RFC 9162 section 2.1.1)."""
    return sha256(_NODE + left + right).digest()


# ---------------------------------------------------------------------------------------------- hashes side by side


def _parents(hashes: bytes) -> bytes:
    """One level up: the hashes of neighbouring pairs, side by side. An odd last hash has no parent yet."""
    return b"".join([sha256(b"\x01" + hashes[at : at + 64]).digest() for at in range(0, len(hashes) - 32, 64)])


def perfect_root(hashes: bytes) -> bytes:
    """The root over 2**k hashes that lie side by side. Costs 2**k - 1 hashes.

    Raises:
        ValueError: the number of hashes is not a power of two.
    """
    count, rest = divmod(len(hashes), HASH_BYTES)
    if rest or count == 0 or count & (count - 1):
        raise ValueError(f"a perfect tree has 2**k hashes of {HASH_BYTES} bytes, not {len(hashes)} bytes")
    while len(hashes) > HASH_BYTES:
        hashes = _parents(hashes)
    return hashes


def node_levels(hashes: bytes) -> tuple[bytes, ...]:
    """All complete nodes over hashes that lie side by side: level 0 (they themselves), their parents, and so on.

    ``node_levels(hashes)[k][32 * i : 32 * i + 32]`` is the root over ``hashes`` ``i * 2**k`` to ``(i + 1) * 2**k``.
    """
    levels = [hashes]
    while len(hashes) > HASH_BYTES:
        hashes = _parents(hashes)
        levels.append(hashes)
    return tuple(levels)


# ------------------------------------------------------------------------------------------- ranges, spelled in nodes


def nodes_of_range(start: int, end: int) -> list[Node]:
    """The nodes that a subtree over the leaves ``start`` to ``end`` exclusive is folded from, left to right.

    ``start`` must be a multiple of the smallest power of two ≥ ``end - start``, as it is for each subtree in RFC 9162;
    the sizes of the nodes then only fall, one for each bit of ``end - start``.

    Raises:
        ValueError: the range is empty or starts where no subtree of that size does.
    """
    count = end - start
    if start < 0 or count <= 0 or start & ((1 << (count - 1).bit_length()) - 1):
        raise ValueError(f"leaves {start} to {end} are no subtree")
    nodes = []
    while count:
        level = count.bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
        count -= 1 << level
    return nodes


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root of a subtree from the hashes of `nodes_of_range`: the right ones are the smaller ones, so fold from there."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = sha256(_NODE + left + root).digest()
    return root


def _read_folded(ranges: Sequence[tuple[int, int]], read_nodes: ReadNodes) -> list[bytes]:
    """The roots over several ranges of leaves, with one call of ``read_nodes``."""
    spelled = [nodes_of_range(start, end) for start, end in ranges]
    nodes = [node for nodes in spelled for node in nodes]
    hashes = read_nodes(nodes) if nodes else []
    roots = []
    at = 0
    for nodes in spelled:
        roots.append(_fold(hashes[at : at + len(nodes)]))
        at += len(nodes)
    return roots


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, MTH(D[0:n]) of RFC 9162 section 2.1.1; `EMPTY_ROOT` for none. Costs n - 1 hashes."""
    if not hashes:
        return EMPTY_ROOT
    levels = node_levels(b"".join(hashes))
    return _fold([levels[level][32 * at : 32 * at + 32] for level, at in nodes_of_range(0, len(hashes))])


def tree_root(size: int, read_nodes: ReadNodes) -> bytes:
    """The root of the tree of the first ``size`` leaves; reads one node for each one-bit of ``size``."""
    return _read_folded([(0, size)], read_nodes)[0] if size else EMPTY_ROOT


# -------------------------------------------------------------------------------------------------------------- proofs


def inclusion_proof(index: int, size: int, read_nodes: ReadNodes) -> list[bytes]:
    """PATH(index, D[0:size]) of RFC 9162 section 2.1.3.1: the leaf's sibling first, the root's child last.

    Raises:
        ValueError: ``index`` is not in the tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    ranges = []
    start, end = 0, size
    while end - start > 1:
        split = start + (1 << (end - start - 1).bit_length() - 1)
        if index < split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    ranges.reverse()
    return _read_folded(ranges, read_nodes)


def consistency_proof(size1: int, size2: int, read_nodes: ReadNodes) -> list[bytes]:
    """PROOF(size1, D[0:size2]) of RFC 9162 section 2.1.4.1. Empty for equal sizes and for ``size1`` 0.

    Raises:
        ValueError: not 0 ≤ ``size1`` ≤ ``size2``.
    """
    if not 0 <= size1 <= size2:
        raise ValueError(f"a tree of {size1} leaves is no beginning of a tree of {size2} leaves")
    if size1 in (0, size2):
        return []
    ranges = []
    start, end = 0, size2
    while size1 != end:
        split = start + (1 << (end - start - 1).bit_length() - 1)
        if size1 <= split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    if start:  # the verifier knows MTH(D[0:size1]) itself; any other last subtree must be told
        ranges.append((start, end))
    ranges.reverse()
    return _read_folded(ranges, read_nodes)


# -------------------------------------------------------------------------------------------------------- verification


def _check_hash(what: str, value: bytes) -> None:
    if len(value) != HASH_BYTES:
        raise VerificationError(f"{what} has {len(value)} bytes, a SHA-256 hash has {HASH_BYTES}")


def _check_hashes(what: str, roots: Sequence[tuple[str, bytes]], proof: Sequence[bytes], expected: int) -> None:
    for name, root in roots:
        _check_hash(name, root)
    if len(proof) != expected:
        raise VerificationError(f"{what} proof has {len(proof)} hashes, these sizes need {expected}")
    for at, part in enumerate(proof):
        _check_hash(f"{what} proof hash {at}", part)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf`` (a leaf hash) is at ``index`` in the tree of ``size`` leaves with ``root`` (RFC 9162 2.1.3.2).

    Raises:
        VerificationError: it is not, or the proof is not exactly as long as such a proof is.
    """
    if not 0 <= index < size:
        raise VerificationError(f"leaf {index} is not in a tree of {size} leaves")
    # Below the level where the paths of this leaf and of the last leaf part, each level has a sibling. Above it the
    # leaf is on the right edge: a level has a sibling (a left one) only where the index has a one-bit.
    inner = (index ^ (size - 1)).bit_length()
    _check_hashes("inclusion", [("leaf hash", leaf), ("root", root)], proof, inner + (index >> inner).bit_count())
    node = leaf
    for level, sibling in enumerate(proof[:inner]):
        node = node_hash(sibling, node) if index >> level & 1 else node_hash(node, sibling)
    for sibling in proof[inner:]:
        node = node_hash(sibling, node)
    if node != root:
        raise VerificationError(f"leaf {index} does not lead to the root of the tree of {size} leaves")


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of ``size1`` leaves with ``root1`` is the beginning of that of ``size2`` (RFC 9162 2.1.4.2).

    The empty tree begins every tree: its proof is empty, and ``root1`` must be `EMPTY_ROOT`.

    Raises:
        VerificationError: it is not, or the proof is not exactly as long as such a proof is.
    """
    if not 0 <= size1 <= size2:
        raise VerificationError(f"a tree of {size1} leaves is no beginning of a tree of {size2} leaves")
    roots = [("first root", root1), ("second root", root2)]
    if size1 in (0, size2):
        _check_hashes("consistency", roots, proof, 0)
        if root1 != (EMPTY_ROOT if size1 == 0 else root2):
            raise VerificationError(
                "the root of the empty tree is wrong" if size1 == 0 else f"two trees of {size1} leaves have other roots"
            )
        if size2 == 0 and root2 != EMPTY_ROOT:
            raise VerificationError("the root of the empty tree is wrong")
        return
    # The walk starts at the largest perfect subtree that ends the first tree: at leaf size1 - 1, ``shift`` levels up.
    shift = (size1 & -size1).bit_length() - 1
    last = size1 - 1 >> shift
    inner = (size1 - 1 ^ size2 - 1).bit_length() - shift
    whole = size1 == 1 << shift  # that subtree is the whole first tree: its hash is root1, so the proof leaves it out
    _check_hashes("consistency", roots, proof, (0 if whole else 1) + inner + (last >> inner).bit_count())
    old = new = root1 if whole else proof[0]
    siblings = proof if whole else proof[1:]
    for level, sibling in enumerate(siblings[:inner]):
        if last >> level & 1:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    for sibling in siblings[inner:]:
        old, new = node_hash(sibling, old), node_hash(sibling, new)
    if old != root1:
        raise VerificationError(f"the consistency proof does not lead to the first root ({size1} leaves)")
    if new != root2:
        raise VerificationError(f"the consistency proof does not lead to the second root ({size2} leaves)")
