"""The whole check: silent on a good log, and it names whatever one thing was changed."""

import random
from collections.abc import Sequence

import pytest

from correlator import merkle
from correlator.check import Finding, check_log
from correlator.checkpoint import Checkpoint, sign
from correlator.head import decode_head, encode_head
from correlator.log import LogReader
from correlator.note import Signer
from correlator.storage import CHECKPOINT
from correlator.storage.memory import MemoryStorage
from correlator.tiles import ENTRIES, Tile, encode_bundle, parse_bundle, tiles_of_size
from tests.support.logs import SIGNER, entries_of, grow, open_log

SIZE = 65_536 + 700


def make(sizes: Sequence[int], *, close: bool = True) -> MemoryStorage:
    storage = MemoryStorage()
    log = open_log(storage)
    grow(log, sizes)
    if close:
        log.close()
    return storage


GOOD = make([300, 40_000, 65_000, 65_536 + 400, SIZE], close=False)
SMALL = make([300, 600, 700], close=False)


def copy(storage: MemoryStorage = GOOD) -> MemoryStorage:
    other = MemoryStorage()
    other.objects, other.staged, other.head = dict(storage.objects), dict(storage.staged), storage.head
    return other


def check(storage: MemoryStorage, since: Checkpoint | None = None) -> list[Finding]:
    return list(check_log(storage, SIGNER.verifier, since=since, pause=lambda _: None))


@pytest.mark.parametrize("sizes", [[], [1], [256], [300], [255, 256, 257, 1000], [65_536]])
@pytest.mark.parametrize("close", [False, True])
def test_a_good_log_has_no_findings(sizes: list[int], close: bool) -> None:
    assert check(make(sizes, close=close)) == []


def test_progress_and_visits_cover_every_leaf() -> None:
    seen: list[bytes] = []
    told: list[tuple[int, int]] = []

    def visit(first: int, entries: Sequence[bytes]) -> None:
        assert first == len(seen)
        seen.extend(entries)

    findings = list(check_log(GOOD, SIGNER.verifier, visit=visit, progress=lambda done, of: told.append((done, of))))
    assert findings == []
    assert seen == entries_of(0, SIZE)
    assert told[0] == (0, SIZE)
    assert told[-1] == (SIZE, SIZE)
    assert told == sorted(told)


def changes(data: bytes, dice: random.Random) -> list[bytes | None]:
    """Flipped, cut, lengthened, emptied, deleted."""
    at = dice.randrange(len(data))
    return [data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :], data[:-1], data + b"x", b"", None]


def interesting(path: str) -> bool:
    tile = Tile.parse(path)
    return tile.width < 256 or tile.level > 0 or tile.index in (0, 1, 100, 255, 256)


@pytest.mark.parametrize("path", sorted(path for path in GOOD.objects if path == CHECKPOINT or interesting(path)))
def test_any_object_changed_is_named(path: str) -> None:
    dice = random.Random(path)
    needed = {tile.path for tile in tiles_of_size(SIZE)} | {CHECKPOINT}
    for value in changes(GOOD.objects[path], dice):
        storage = copy()
        if value is None:
            del storage.objects[path]
        else:
            storage.objects[path] = value
        findings = check(storage)
        if value is None and path not in needed:
            assert findings == []  # a partial tile of an earlier size may go once the full one is there
        else:
            assert path in {finding.path for finding in findings}, (path, value)
            assert {finding.path for finding in findings} <= {path, CHECKPOINT}, findings


@pytest.mark.parametrize("leaf", [0, 255, 256, 65_535, 65_536, SIZE - 1])
def test_a_changed_entry_is_named_with_its_leaf(leaf: int) -> None:
    index, at = divmod(leaf, 256)
    place = Tile(level=ENTRIES, index=index, width=min(256, SIZE - index * 256))
    storage = copy()
    entries = parse_bundle(storage.objects[place.path], place.width, "b")
    entries[at] = b'{"leaf":-1}'
    storage.objects[place.path] = encode_bundle(entries)
    findings = check(storage)
    assert [(finding.path, finding.leaf) for finding in findings] == [(place.path, leaf)]
    assert str(leaf) in str(findings[0])


def test_an_entry_and_its_tile_changed_together_are_named() -> None:
    storage = copy()
    entries = parse_bundle(storage.objects["tile/entries/100"], 256, "b")
    entries[7] = b"forged"
    storage.objects["tile/entries/100"] = encode_bundle(entries)
    storage.objects["tile/0/100"] = b"".join(merkle.leaf_hashes(entries))
    assert "tile/0/100" in {finding.path for finding in check(storage)}


def test_exchanged_objects_are_named() -> None:
    for one, two in (("tile/0/003", "tile/0/004"), ("tile/entries/003", "tile/entries/004")):
        storage = copy()
        storage.objects[one], storage.objects[two] = storage.objects[two], storage.objects[one]
        assert {finding.path for finding in check(storage)} == {one, two}


def test_smuggled_objects_are_named() -> None:
    storage = copy()
    storage.objects["tile/0/999"] = bytes(8192)
    storage.objects["tile/entries/x001/000.p/3"] = b""
    storage.objects["tile/9/000.p/1"] = bytes(32)
    storage.objects["tile/0/x000/001"] = bytes(32)
    assert {finding.path for finding in check(storage)} == {
        "tile/0/999",
        "tile/entries/x001/000.p/3",
        "tile/9/000.p/1",
        "tile/0/x000/001",
    }


def test_a_changed_head_is_named() -> None:
    assert SMALL.head is not None
    head = decode_head(SMALL.head)
    dice = random.Random(3)
    for at in dice.sample(range(len(SMALL.head)), 200):
        storage = copy(SMALL)
        storage.head = SMALL.head[:at] + bytes([SMALL.head[at] ^ 1 << dice.randrange(7)]) + SMALL.head[at + 1 :]
        try:
            changed = decode_head(storage.head)
        except Exception:  # noqa: BLE001 - any: the point is which fields a readable head may differ in
            changed = None
        findings = {finding.path for finding in check(storage)}
        if changed is None or (changed.size, changed.root, changed.checkpoint) != (
            head.size,
            head.root,
            head.checkpoint,
        ):
            assert "head" in findings
        elif changed.stagings != head.stagings:
            assert any(path.startswith("staging/") for path in findings)
        else:  # v has one value; epoch, writer and time are for people and for the next swap
            assert encode_head(changed) == storage.head
    storage = copy(SMALL)
    storage.head = None
    assert [finding.path for finding in check(storage)] == ["head"]


def test_a_changed_or_missing_staging_is_named() -> None:
    for name, data in SMALL.staged.items():
        for value in changes(data, random.Random(1)):
            storage = copy(SMALL)
            if value is None:
                del storage.staged[name]
            else:
                storage.staged[name] = value
            assert [finding.path for finding in check(storage)] == [f"staging/{name}"]
    storage = copy(SMALL)
    storage.staged["9-garbage.1"] = b"of a publish that never happened"
    assert check(storage) == []


def test_a_log_rolled_back_or_forked_against_a_remembered_checkpoint_is_named() -> None:
    remembered = LogReader(GOOD, SIGNER.verifier).tree()
    shorter = make([300, 40_000])
    assert [str(finding) for finding in check(shorter, remembered)] == [
        f"checkpoint: it has 40000 leaves: rolled back behind the remembered checkpoint of {SIZE} leaves"
    ]
    earlier = LogReader(shorter, SIGNER.verifier).tree()
    assert check(copy(), earlier) == []
    assert check(copy(), remembered) == []
    fork = MemoryStorage()
    with open_log(fork) as log:
        log.append([b"another"])
        grow(log, [SIZE + 5])
    for known in (remembered, earlier):
        assert ["fork" in str(finding) for finding in check(fork, known)] == [True]
    other = Checkpoint(origin="another.example", size=1, root=bytes(32))
    assert "another log" in str(check(copy(), other)[0])


def test_a_checkpoint_rolled_back_alone_is_named() -> None:
    storage = copy()
    storage.objects[CHECKPOINT] = make([300]).objects[CHECKPOINT]
    findings = check(storage)
    assert [finding.path for finding in findings] == [CHECKPOINT]
    assert "rolled back" in findings[0].problem


@pytest.mark.parametrize("before", [[], [300]])
def test_a_publish_under_way_is_waited_for(before: list[int]) -> None:
    """Its head is swapped, its checkpoint is not replaced yet, or, the first time, not there."""
    storage = make([*before, 700], close=False)
    published = storage.objects.pop(CHECKPOINT)
    storage.objects |= {CHECKPOINT: make(before).objects[CHECKPOINT]} if before else {}
    waited: list[float] = []

    def publish(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 4:
            storage.objects[CHECKPOINT] = published

    assert list(check_log(storage, SIGNER.verifier, pause=publish)) == []
    assert len(waited) == 4


@pytest.mark.parametrize(("before", "said"), [([], "is not there"), ([300], "rolled back, or a writer died")])
def test_what_nobody_publishes_is_named_in_the_end(before: list[int], said: str) -> None:
    for closed, at_most in ((False, 20.0), (True, 0.0)):
        storage = make([*before, 700], close=closed)
        del storage.objects[CHECKPOINT]
        storage.objects |= {CHECKPOINT: make(before).objects[CHECKPOINT]} if before else {}
        waited: list[float] = []
        findings = list(check_log(storage, SIGNER.verifier, pause=waited.append))
        assert [finding.path for finding in findings] == [CHECKPOINT]
        assert said in findings[0].problem
        assert (sum(waited) > 5.0, sum(waited) <= at_most) == (not closed, True)


def test_a_head_rolled_back_alone_is_named() -> None:
    storage = copy()
    storage.head = make([300]).head
    assert [(finding.path, finding.problem) for finding in check(storage)] == [
        ("head", f"it has 300 leaves, the published checkpoint {SIZE}: rolled back")
    ]


def test_a_checkpoint_of_another_tree_of_the_same_size_is_named() -> None:
    storage = copy()
    forged = sign(Checkpoint(origin=SIGNER.name, size=SIZE, root=bytes(32)), SIGNER)
    storage.objects[CHECKPOINT] = forged
    assert CHECKPOINT in {finding.path for finding in check(storage)}


def test_nothing_holds_under_another_key() -> None:
    stranger = Signer.generate(SIGNER.name)
    findings = list(check_log(GOOD, stranger.verifier))
    assert {finding.path for finding in findings} == {"head", CHECKPOINT}


def test_a_log_that_goes_on_while_it_is_checked() -> None:
    storage = MemoryStorage()
    with open_log(storage) as log:
        grow(log, [5000])
        started = log.size

        def go_on(_: int, __: object) -> None:
            grow(log, [log.size + 100])

        assert list(check_log(storage, SIGNER.verifier, progress=go_on, visit=go_on)) == []
        assert log.size > started
    assert check(storage) == []
