"""Tiles and bundles against the specification's examples, the tree's definition, and against whoever changes one byte."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator import merkle
from correlator.errors import VerificationError
from correlator.frontier import Frontier, append_to_bundles
from correlator.tiles import (
    ENTRIES,
    MAX_ENTRY_BYTES,
    HashTile,
    Tile,
    TileHashReader,
    encode_bundle,
    entries_in_bundle,
    parse_bundle,
    tiles_of_size,
)

# ----------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/x001/x234/067", Tile(level=0, index=1234067)),
        ("tile/0/000", Tile(level=0, index=0)),
        ("tile/1/x001/000.p/17", Tile(level=1, index=1000, width=17)),
        ("tile/63/999.p/255", Tile(level=63, index=999, width=255)),
        ("tile/entries/x273/112.p/1", Tile(level=ENTRIES, index=273112, width=1)),
    ],
)
def test_paths_as_specified(path: str, tile: Tile) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/data/000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/300",
        "tile/0/000.p",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/000\n",
        "tile/0/../000",
        "tile/0/٠٠٠",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ],
)
def test_other_spellings_are_refused(path: str) -> None:
    with pytest.raises(VerificationError):
        Tile.parse(path)


@given(st.integers(ENTRIES, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_any_path_round_trips(level: int, index: int, width: int) -> None:
    tile = Tile(level=level, index=index, width=width)
    assert Tile.parse(tile.path) == tile


@given(st.text() | st.from_regex(r"tile/(entries|\d+)/(x\d+/)*\d+(\.p/\d+)?"))
def test_the_path_parser_raises_only_its_own_error(path: str) -> None:
    try:
        assert Tile.parse(path).path == path
    except VerificationError:
        pass


def test_tiles_of_the_specifications_tree_of_70000() -> None:
    tiles = [tile for tile in tiles_of_size(70_000) if tile.level >= 0]
    by_level = [[tile.width for tile in tiles if tile.level == level] for level in range(4)]
    assert by_level == [[256] * 273 + [112], [256, 17], [1], []]
    assert [tile.path for tile in tiles_of_size(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert list(tiles_of_size(0)) == []


# --------------------------------------------------------------------------------------------------------------- bundles


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_any_bundle_round_trips_and_only_with_its_count(entries: list[bytes]) -> None:
    data = encode_bundle(entries)
    assert parse_bundle(data, len(entries), "b") == entries
    for count in (len(entries) - 1, len(entries) + 1):
        if count >= 0:
            with pytest.raises(VerificationError, match="b "):
                parse_bundle(data, count, "b")


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_some_entries_of_a_bundle(entries: list[bytes], start: int, stop: int) -> None:
    data = encode_bundle(entries)
    if start >= stop or stop <= len(entries):
        assert entries_in_bundle(data, start, stop, "b") == entries[start:stop]
    else:
        with pytest.raises(VerificationError, match="b ends before or inside its entry"):
            entries_in_bundle(data, start, stop, "b")


def test_a_smuggled_entry_or_byte_is_refused() -> None:
    data = encode_bundle([b"one", b"two"])
    for extra in (b"\x00", b"\x00\x00", b"\x00\x03two"):
        with pytest.raises(VerificationError, match=r"tile/x has \d bytes after its 2 entries"):
            parse_bundle(data + extra, 2, "tile/x")
    for end in range(len(data)):
        with pytest.raises(VerificationError, match=r"tile/x ends"):
            parse_bundle(data[:end], 2, "tile/x")


def test_the_largest_entry() -> None:
    assert parse_bundle(encode_bundle([b"x" * MAX_ENTRY_BYTES]), 1, "b") == [b"x" * MAX_ENTRY_BYTES]
    with pytest.raises(OverflowError):
        encode_bundle([b"x" * (MAX_ENTRY_BYTES + 1)])


@given(st.binary(max_size=100), st.integers(0, 256))
def test_the_bundle_parser_raises_only_its_own_error(data: bytes, count: int) -> None:
    try:
        entries = entries_in_bundle(data, 0, count, "b")
        assert data.startswith(encode_bundle(entries))
        assert encode_bundle(parse_bundle(data, count, "b")) == data
    except VerificationError:
        pass


# -------------------------------------------------------------------------------------------------------- a growing tree


def entries_of(size: int) -> list[bytes]:
    return [b"entry %d" % at for at in range(size)]


def grow(entries: Sequence[bytes], steps: Sequence[int]) -> tuple[Frontier, dict[str, bytes]]:
    """Append in steps; the stored objects, of which none may change."""
    frontier, tail, at = Frontier(), b"", 0
    stored: dict[str, bytes] = {}
    for step in [*steps, len(entries)]:
        fresh = entries[at : at + step]
        tail, bundles = append_to_bundles(at, tail, fresh)
        frontier, tiles = frontier.extend(merkle.leaf_hashes(fresh))
        at += len(fresh)
        for tile, data in bundles + tiles:
            assert stored.setdefault(tile.path, data) == data
        assert frontier.size == at
        assert frontier.root == merkle.root_of(merkle.leaf_hashes(entries[:at]))
        assert {tile.path for tile in tiles_of_size(at)} <= stored.keys()
        assert Frontier.load(at, lambda tile: stored[tile.path]) == frontier
    return frontier, stored


@given(st.lists(st.integers(0, 700), max_size=6))
def test_any_steps_give_the_same_tree(steps: list[int]) -> None:
    entries = entries_of(sum(steps))
    frontier, stored = grow(entries, steps)
    _, at_once = grow(entries, [])
    assert at_once.items() <= stored.items()
    for path, data in stored.items():
        tile = Tile.parse(path)
        if tile.level == ENTRIES:
            assert parse_bundle(data, tile.width, path) == entries[tile.first_leaf : tile.first_leaf + tile.width]
        elif tile.level == 0:
            assert data == b"".join(merkle.leaf_hashes(entries[tile.first_leaf : tile.first_leaf + tile.width]))
    assert frontier.extend([]) == (frontier, [])


def test_a_tree_of_three_levels_of_tiles() -> None:
    size = 65_536 + 300
    frontier, stored = grow(entries_of(size), [65_535, 1, 299])
    assert stored["tile/2/000.p/1"] == merkle.root_of(merkle.leaf_hashes(entries_of(65_536)))
    assert frontier.size == size


def test_a_frontier_of_tiles_of_other_lengths_is_refused() -> None:
    with pytest.raises(VerificationError, match=r"tile/0/001\.p/44 has 3 bytes"):
        Frontier.load(300, lambda _: b"abc")


# ------------------------------------------------------------------------------------------------- reading, with a check

SIZE = 65_536 + 256 * 3 + 77
FRONTIER, STORED = grow(entries_of(SIZE), [])
LEAVES = merkle.leaf_hashes(entries_of(SIZE))


def reader(stored: dict[str, bytes], size: int = SIZE, root: bytes = FRONTIER.root) -> TileHashReader:
    return TileHashReader(size=size, root=root, fetch=lambda tile: HashTile(tile, stored[tile.path]))


def test_proofs_from_tiles_verify() -> None:
    read = reader(STORED)
    for index in (0, 255, 256, 65_535, 65_536, SIZE - 78, SIZE - 1):
        proof = merkle.inclusion_proof(index, SIZE, read)
        merkle.verify_inclusion(LEAVES[index], index, SIZE, proof, FRONTIER.root)
        assert read.leaf(index) == LEAVES[index]
        read.check_entry(index, b"entry %d" % index)
    for size in (0, 1, 255, 256, 257, 65_536, 65_537, SIZE):
        root = merkle.root_of(LEAVES[:size])
        assert merkle.tree_root(size, read) == root
        merkle.verify_consistency(size, root, SIZE, FRONTIER.root, merkle.consistency_proof(size, SIZE, read))


def test_a_node_beyond_the_tree_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="not complete"):
        reader(STORED)([(0, SIZE)])
    with pytest.raises(ValueError, match="not complete"):
        reader(STORED)([(17, 0)])


def test_any_changed_tile_is_named_when_it_is_read() -> None:
    dice = random.Random(7)
    for path, data in STORED.items():
        tile = Tile.parse(path)
        if tile.level == ENTRIES or (tile.level == 0 and tile.index % 16 not in (0, 15)):
            continue
        at = dice.randrange(len(data))
        changed = {**STORED, path: data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]}
        with pytest.raises(VerificationError) as refusal:
            merkle.inclusion_proof(min(tile.first_leaf, SIZE - 1), SIZE, reader(changed))
        assert path in str(refusal.value)


@pytest.mark.parametrize("path", ["tile/0/000", "tile/1/001.p/3"])
@pytest.mark.parametrize("change", [-32, -1, 1, 32])
def test_a_tile_of_another_length_is_refused(path: str, change: int) -> None:
    data = STORED[path][:change] if change < 0 else STORED[path] + bytes(change)
    with pytest.raises(VerificationError, match=path):
        reader({**STORED, path: data}).leaf(0)


def test_two_tiles_exchanged_are_refused() -> None:
    changed = {**STORED, "tile/0/001": STORED["tile/0/002"], "tile/0/002": STORED["tile/0/001"]}
    with pytest.raises(VerificationError, match="tile/0/001 is not a tile of the tree"):
        reader(changed).leaf(256)


def test_a_changed_entry_is_named() -> None:
    with pytest.raises(VerificationError, match=r"tile/entries/259\.p/77: entry 0 \(leaf 66304\)"):
        reader(STORED).check_entry(66_304, b"another")
    with pytest.raises(VerificationError, match=r"tile/entries/001: entry 2 \(leaf 258\)"):
        reader(STORED).check_entry(258, b"entry 259")
