"""Merkle arithmetic against published vectors, against the definition, and against every flipped bit."""

import base64
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator import merkle
from correlator.errors import VerificationError

LARGEST_SMALL_TREE = 40


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH(D[0:n]) word for word as in RFC 9162 section 2.1.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + mth(leaves[:split]) + mth(leaves[split:])).digest()


def entries_of(size: int) -> list[bytes]:
    return [b"entry %d" % at for at in range(size)]


def reader(leaves: Sequence[bytes]) -> merkle.ReadNodes:
    """Nodes from their definition."""

    def read(nodes: Sequence[merkle.Node]) -> list[bytes]:
        for level, index in nodes:
            assert (index + 1) << level <= len(leaves), "only complete nodes may be asked for"
        return [mth(leaves[index << level : (index + 1) << level]) for level, index in nodes]

    return read


LEAVES = entries_of(LARGEST_SMALL_TREE)
READ = reader(LEAVES)
ROOTS = [mth(LEAVES[:size]) for size in range(LARGEST_SMALL_TREE + 1)]


# ------------------------------------------------------------------------------------------------------------- vectors


def vectors(data_dir: Path, kind: str) -> list[tuple[str, dict[str, Any]]]:
    folder = data_dir / "vectors" / "merkle" / kind
    return [(str(path.relative_to(folder)), json.loads(path.read_bytes())) for path in sorted(folder.rglob("*.json"))]


def unbase64(text: str | None) -> bytes:
    return base64.b64decode(text or "", validate=True)


def refused(*check: Any) -> bool:
    function, *arguments = check
    try:
        function(*arguments)
    except VerificationError:
        return True
    return False


def test_inclusion_agrees_with_every_published_vector(data_dir: Path) -> None:
    found = vectors(data_dir, "inclusion")
    assert len(found) == 49
    wrong = [
        name
        for name, case in found
        if refused(
            merkle.verify_inclusion,
            unbase64(case["leafHash"]),
            case["leafIdx"],
            case["treeSize"],
            [unbase64(part) for part in case["proof"] or []],
            unbase64(case["root"]),
        )
        is not case["wantErr"]
    ]
    assert wrong == []


def test_consistency_agrees_with_every_published_vector(data_dir: Path) -> None:
    found = vectors(data_dir, "consistency")
    assert len(found) == 43
    wrong = [
        name
        for name, case in found
        if refused(
            merkle.verify_consistency,
            case["size1"],
            unbase64(case["root1"]),
            case["size2"],
            unbase64(case["root2"]),
            [unbase64(part) for part in case["proof"] or []],
        )
        is not case["wantErr"]
    ]
    assert wrong == []


# ---------------------------------------------------------------------------------------------------------- definition


@pytest.mark.parametrize("size", range(LARGEST_SMALL_TREE + 1))
def test_roots_are_those_of_the_definition(size: int) -> None:
    assert merkle.root_of(merkle.leaf_hashes(LEAVES[:size])) == ROOTS[size]
    assert merkle.tree_root(size, READ) == ROOTS[size]


@given(st.lists(st.binary(max_size=80), max_size=300))
def test_any_root_is_that_of_the_definition(leaves: list[bytes]) -> None:
    assert merkle.root_of([merkle.leaf_hash(leaf) for leaf in leaves]) == mth(leaves)


@pytest.mark.parametrize("height", range(9))
def test_perfect_root_and_levels(height: int) -> None:
    leaves = entries_of(1 << height)
    hashes = b"".join(merkle.leaf_hashes(leaves))
    assert merkle.perfect_root(hashes) == mth(leaves)
    levels = merkle.node_levels(hashes)
    assert [len(level) for level in levels] == [32 << height - up for up in range(height + 1)]
    assert levels[-1] == mth(leaves)


@pytest.mark.parametrize("length", [0, 31, 33, 96, 32 * 255])
def test_perfect_root_refuses_what_is_not_perfect(length: int) -> None:
    with pytest.raises(ValueError, match="perfect"):
        merkle.perfect_root(bytes(length))


def test_levels_leave_out_nodes_that_are_not_complete() -> None:
    levels = merkle.node_levels(b"".join(merkle.leaf_hashes(LEAVES[:7])))
    assert [len(level) // 32 for level in levels] == [7, 3, 1]
    assert levels[2] == mth(LEAVES[:4])


@given(st.integers(0, 2**40), st.integers(1, 2**40))
def test_a_range_is_spelled_in_falling_nodes_side_by_side(start: int, count: int) -> None:
    align = 1 << (count - 1).bit_length()
    start -= start % align
    at = start
    levels = []
    for level, index in merkle.nodes_of_range(start, start + count):
        assert index << level == at
        at += 1 << level
        levels.append(level)
    assert at == start + count
    assert levels == sorted(set(levels), reverse=True)


@pytest.mark.parametrize("bounds", [(0, 0), (3, 2), (-1, 1), (1, 3), (2, 5), (4, 9)])
def test_a_range_that_is_no_subtree_is_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no subtree"):
        merkle.nodes_of_range(*bounds)


# -------------------------------------------------------------------------------------------------------------- proofs


def flips(value: bytes) -> list[bytes]:
    """One flipped bit in the first, a middle and the last byte."""
    return [
        value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1 :]
        for at, bit in ((0, 7), (len(value) // 2, 3), (len(value) - 1, 0))
    ]


@pytest.mark.parametrize("size", range(1, LARGEST_SMALL_TREE + 1))
def test_inclusion_of_every_leaf_and_no_flipped_bit(size: int) -> None:
    for index in range(size):
        leaf = merkle.leaf_hash(LEAVES[index])
        proof = merkle.inclusion_proof(index, size, READ)
        merkle.verify_inclusion(leaf, index, size, proof, ROOTS[size])
        assert all(refused(merkle.verify_inclusion, bad, index, size, proof, ROOTS[size]) for bad in flips(leaf))
        assert all(refused(merkle.verify_inclusion, leaf, index, size, proof, bad) for bad in flips(ROOTS[size]))
        for at, part in enumerate(proof):
            for bad in flips(part):
                changed = [*proof[:at], bad, *proof[at + 1 :]]
                assert refused(merkle.verify_inclusion, leaf, index, size, changed, ROOTS[size]), (size, index, at)
            without = proof[:at] + proof[at + 1 :]
            assert refused(merkle.verify_inclusion, leaf, index, size, without, ROOTS[size])
        assert refused(merkle.verify_inclusion, leaf, index, size, [*proof, proof[-1] if proof else leaf], ROOTS[size])
        for other in {*range(-1, size + 2)} - {index}:
            assert refused(merkle.verify_inclusion, leaf, other, size, proof, ROOTS[size])


@pytest.mark.parametrize("size2", range(LARGEST_SMALL_TREE + 1))
def test_consistency_of_every_pair_and_no_flipped_bit(size2: int) -> None:
    for size1 in range(size2 + 1):
        roots = ROOTS[size1], ROOTS[size2]
        proof = merkle.consistency_proof(size1, size2, READ)
        merkle.verify_consistency(size1, roots[0], size2, roots[1], proof)
        assert all(refused(merkle.verify_consistency, size1, bad, size2, roots[1], proof) for bad in flips(roots[0]))
        if size1:  # nothing binds a root to the empty tree: every tree is consistent with it
            assert all(
                refused(merkle.verify_consistency, size1, roots[0], size2, bad, proof) for bad in flips(roots[1])
            )
        for at, part in enumerate(proof):
            for bad in flips(part):
                changed = [*proof[:at], bad, *proof[at + 1 :]]
                assert refused(merkle.verify_consistency, size1, roots[0], size2, roots[1], changed), (size1, size2, at)
            without = proof[:at] + proof[at + 1 :]
            assert refused(merkle.verify_consistency, size1, roots[0], size2, roots[1], without)
        assert refused(merkle.verify_consistency, size1, roots[0], size2, roots[1], [*proof, ROOTS[1]])


def test_hashes_of_other_lengths_are_refused() -> None:
    proof = merkle.inclusion_proof(2, 5, READ)
    leaf = merkle.leaf_hash(LEAVES[2])
    for bad in (b"", proof[0][:31], proof[0] + b"\x00"):
        assert refused(merkle.verify_inclusion, leaf, 2, 5, [bad, *proof[1:]], ROOTS[5])
        assert refused(merkle.verify_inclusion, bad, 2, 5, proof, ROOTS[5])
        assert refused(merkle.verify_inclusion, leaf, 2, 5, proof, bad)
        assert refused(merkle.verify_consistency, 2, bad, 5, ROOTS[5], merkle.consistency_proof(2, 5, READ))


def test_the_empty_tree_begins_every_tree_but_has_one_root() -> None:
    merkle.verify_consistency(0, merkle.EMPTY_ROOT, 5, ROOTS[5], [])
    merkle.verify_consistency(0, merkle.EMPTY_ROOT, 0, merkle.EMPTY_ROOT, [])
    assert refused(merkle.verify_consistency, 0, ROOTS[1], 5, ROOTS[5], [])
    assert refused(merkle.verify_consistency, 0, ROOTS[1], 0, ROOTS[1], [])


def test_proofs_of_what_is_not_there_are_a_callers_mistake() -> None:
    for index, size in ((0, 0), (5, 5), (-1, 3)):
        with pytest.raises(ValueError, match="not in a tree"):
            merkle.inclusion_proof(index, size, READ)
    for sizes in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no beginning"):
            merkle.consistency_proof(*sizes, READ)


def test_one_read_for_each_proof() -> None:
    calls: list[int] = []

    def read(nodes: Sequence[merkle.Node]) -> Sequence[bytes]:
        calls.append(len(nodes))
        return READ(nodes)

    merkle.inclusion_proof(0, 39, read)
    merkle.consistency_proof(11, 39, read)
    assert len(calls) == 2


@given(
    st.integers(0, 2**62), st.integers(0, 2**62), st.lists(st.binary(max_size=40), max_size=70), st.binary(max_size=40)
)
def test_verifiers_raise_only_their_own_error(first: int, second: int, proof: list[bytes], root: bytes) -> None:
    refused(merkle.verify_inclusion, root, first, second, proof, root)
    refused(merkle.verify_consistency, first, root, second, root, proof)
