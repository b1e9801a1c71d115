"""The writer and its readers: growth in steps, recovery, deposition, and a crash at every write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator import log as log_module
from correlator import merkle
from correlator.check import check_log
from correlator.checkpoint import open_checkpoint
from correlator.errors import Conflict, NotFound, Overloaded, StateUnknown, VerificationError
from correlator.head import decode_head
from correlator.log import AuditLog, LogReader
from correlator.note import Signer
from correlator.storage import CHECKPOINT, Claim, LogStorage
from correlator.storage.file import FileStorage
from correlator.storage.memory import MemoryStorage
from tests.support.logs import SIGNER, CountingClock, entries_of, grow, open_log


def findings(storage: LogStorage) -> list[str]:
    return [str(finding) for finding in check_log(storage, SIGNER.verifier)]


def assert_log(storage: LogStorage, size: int) -> None:
    """The log in `storage` is exactly the one of `size` leaves, by its reader, its proofs and a whole check."""
    assert findings(storage) == []
    reader = LogReader(storage, SIGNER.verifier)
    assert reader.tree().size == size
    assert reader.entries(0, size) == entries_of(0, size)
    assert reader.root(size) == merkle.root_of(merkle.leaf_hashes(entries_of(0, size)))


@pytest.fixture(params=["memory", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> LogStorage:
    return FileStorage(tmp_path / "log") if request.param == "file" else MemoryStorage()


# --------------------------------------------------------------------------------------------------------------- growth


def test_a_new_log_is_empty_and_signed(storage: LogStorage) -> None:
    with open_log(storage) as log:
        assert (log.size, log.root, log.epoch) == (0, merkle.EMPTY_ROOT, 1)
        assert log.publish() == log.checkpoint
    assert_log(storage, 0)


def test_a_log_grows_and_is_opened_again(storage: LogStorage) -> None:
    sizes = [1, 2, 255, 256, 257, 600, 1100]
    for epoch, size in enumerate(sizes, 1):
        with open_log(storage) as log:
            assert log.epoch == epoch
            grow(log, [size])
            assert open_checkpoint(log.signed_checkpoint, SIGNER.verifier) == log.checkpoint
            assert log.root == merkle.root_of(merkle.leaf_hashes(entries_of(0, size)))
        assert_log(storage, size)
        assert list(storage.stages()) == []


@given(st.lists(st.integers(1, 400), min_size=1, max_size=25))
def test_any_steps_settled_or_not_give_the_same_log(steps: list[int]) -> None:
    storage = MemoryStorage()
    log = open_log(storage)
    size = 0
    for step in steps:
        size += step
        grow(log, [size])
        assert len(storage.staged) <= log_module.MAX_STAGINGS
    log.close()
    assert_log(storage, size)


def test_published_objects_never_change_and_partials_only_go_when_full(storage: LogStorage) -> None:
    seen: dict[str, bytes] = {}
    with open_log(storage) as log:
        for size in range(0, 1400, 37):
            grow(log, [size])
            now = {path: storage.get(path) for path in storage.paths()}
            for path, data in seen.items():
                if path in now:
                    assert now[path] == data
                else:
                    assert path.rpartition(".p/")[0] in now
            seen |= now
    assert not [path for path in storage.paths() if ".p/" in path and path.rpartition(".p/")[0] in set(storage.paths())]


def test_leaf_hashes_of_the_caller_are_used(storage: LogStorage) -> None:
    with open_log(storage) as log:
        entries = entries_of(0, 300)
        log.append(entries, merkle.leaf_hashes(entries))
        assert (log.size, log.next_leaf_index) == (0, 300)
        log.publish()
        with pytest.raises(ValueError, match="1 leaf hashes for 2 entries"):
            log.append([b"a", b"b"], [bytes(32)])
        with pytest.raises(ValueError, match="entry 1 has 65536 bytes"):
            log.append([b"a", bytes(65_536)])
        assert log.next_leaf_index == 300
    assert_log(storage, 300)


def test_many_staged_bytes_settle_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_STAGED_BYTES", 1)
    storage = MemoryStorage()
    log = open_log(storage)
    grow(log, range(0, 2000, 100))
    assert len(storage.staged) == 1
    log.close()
    assert_log(storage, 1900)


def test_a_log_of_another_key_or_name_is_not_opened(storage: LogStorage) -> None:
    open_log(storage).close()
    for stranger in (Signer.generate(SIGNER.name), Signer.generate("another.example")):
        with pytest.raises(VerificationError, match="not signed by"):
            AuditLog.open(storage, stranger, clock=CountingClock(), writer_id="x")
    open_log(storage).close()  # and the refused ones hold no claim


# -------------------------------------------------------------------------------------------------------------- readers


def test_proofs_of_a_growing_log(storage: LogStorage) -> None:
    with open_log(storage) as log:
        grow(log, [300])
        reader = LogReader(storage, SIGNER.verifier)
        first = reader.tree()
        grow(log, [1000])
        assert reader.checkpoint() == log.signed_checkpoint
        tree = reader.tree()
        merkle.verify_consistency(300, first.root, 1000, tree.root, reader.consistency(300, 1000))
        for index in (0, 255, 299, 300, 999):
            leaf = merkle.leaf_hash(entries_of(index, index + 1)[0])
            assert reader.leaf_hash(index) == leaf
            merkle.verify_inclusion(leaf, index, 1000, reader.inclusion(index, 1000), tree.root)
            assert reader.proof(index).verify_leaf(leaf, SIGNER.verifier) == tree
            if index < 300:
                merkle.verify_inclusion(leaf, index, 300, reader.inclusion(index, 300), first.root)


def test_a_reader_of_an_older_checkpoint_reads_on_while_partials_go(storage: LogStorage) -> None:
    with open_log(storage) as log:
        grow(log, [300])
        reader = LogReader(storage, SIGNER.verifier)
        tree = reader.tree()
        grow(log, [700])
    assert reader.entries(250, 300) == entries_of(250, 300)
    merkle.verify_inclusion(merkle.leaf_hash(b'{"leaf":299}'), 299, 300, reader.inclusion(299, 300), tree.root)


def test_what_is_not_there_is_not_found(storage: LogStorage) -> None:
    reader = LogReader(storage, SIGNER.verifier)
    with pytest.raises(NotFound):
        reader.checkpoint()
    with open_log(storage) as log:
        grow(log, [10])
    for ask in (
        lambda: reader.entry(10),
        lambda: reader.entry(-1),
        lambda: reader.entries(5, 4),
        lambda: reader.inclusion(10, 10),
        lambda: reader.inclusion(3, 11),
        lambda: reader.consistency(5, 11),
        lambda: reader.consistency(6, 5),
        lambda: reader.root(11),
        lambda: reader.proof(10),
    ):
        with pytest.raises(NotFound):
            ask()


def test_a_reader_refuses_a_log_rolled_back_or_forked() -> None:
    storage, other = MemoryStorage(), MemoryStorage()
    log = open_log(storage)
    grow(log, [300])
    old = dict(storage.objects)
    grow(log, [400])
    fork = open_log(other)
    fork.append([b"another", *entries_of(1, 500)])
    fork.publish()
    reader = LogReader(storage, SIGNER.verifier)
    assert reader.tree().size == 400
    storage.objects = old
    with pytest.raises(VerificationError, match="rolled back"):
        reader.tree()
    storage.objects = other.objects
    with pytest.raises(VerificationError, match="forked"):
        reader.tree()


def test_a_reader_gives_out_no_changed_entry(storage: LogStorage, tmp_path: Path) -> None:
    with open_log(storage) as log:
        grow(log, [300])
    data = storage.get("tile/entries/000").replace(b'{"leaf":7}', b'{"leaf":8}')
    if isinstance(storage, MemoryStorage):
        storage.objects["tile/entries/000"] = data
    else:
        (tmp_path / "log" / "tile" / "entries" / "000").write_bytes(data)
    reader = LogReader(storage, SIGNER.verifier)
    assert reader.entry(8) == b'{"leaf":8}'
    for start, end in ((7, 8), (0, 300)):
        with pytest.raises(VerificationError, match=r"tile/entries/000: entry 7 \(leaf 7\)"):
            reader.entries(start, end)


def test_a_reader_names_a_missing_object(storage: LogStorage, tmp_path: Path) -> None:
    with open_log(storage) as log:
        grow(log, [600])
    for path, ask in (("tile/entries/000", "entry"), ("tile/0/000", "leaf_hash")):
        if isinstance(storage, MemoryStorage):
            del storage.objects[path]
        else:
            (tmp_path / "log" / path).unlink()
        with pytest.raises(VerificationError, match=f"{path} is missing"):
            getattr(LogReader(storage, SIGNER.verifier), ask)(3)
        assert LogReader(storage, SIGNER.verifier).entry(300) == b'{"leaf":300}'


def test_a_reader_without_a_key_checks_all_but_the_signature(storage: LogStorage) -> None:
    with open_log(storage) as log:
        grow(log, [300])
    assert LogReader(storage).entries(0, 300) == entries_of(0, 300)
    with pytest.raises(VerificationError, match="not signed by"):
        LogReader(storage, Signer.generate(SIGNER.name).verifier).tree()


# ---------------------------------------------------------------------------------------------------------- two writers


def test_a_second_writer_is_refused_while_the_first_lives(storage: LogStorage) -> None:
    log = open_log(storage)
    with pytest.raises(Conflict):
        open_log(storage, "second")
    grow(log, [5])
    log.close()
    with pytest.raises(StateUnknown, match="closed"):
        log.append([b"x"])
    with open_log(storage, "second") as second:
        grow(second, [9])
    assert_log(storage, 9)


def state(storage: LogStorage) -> tuple[object, ...]:
    objects = {path: storage.get(path) for path in [*storage.paths(), CHECKPOINT]}
    return objects, storage.read_head(), {name: storage.read_stage(name) for name in storage.stages()}


def test_a_deposed_writer_is_refused_and_changes_nothing(storage: LogStorage) -> None:
    first = open_log(storage, "first")
    grow(first, [300])
    second = open_log(storage, "second", take_over=True)
    grow(second, [310])
    before = state(storage)
    first.append([b"a fork"])
    with pytest.raises(StateUnknown, match="another writer has taken over"):
        first.publish()
    after = state(storage)
    assert after[:2] == before[:2]  # a staging that nobody names is all it left
    with pytest.raises(StateUnknown, match="has stopped"):
        first.publish()
    first.close()
    grow(second, [1000])
    second.close()
    assert_log(storage, 1000)


def append_and_publish(log: AuditLog, entry: bytes) -> None:
    log.append([entry])
    log.publish()


class Pausing(MemoryStorage):
    """Runs something between two steps of a writer, as if the writer had been stopped there and continued."""

    def __init__(self) -> None:
        super().__init__()
        self.between: dict[str, Callable[[], None]] = {}

    def _pause(self, step: str) -> None:
        if (run := self.between.pop(step, None)) is not None:
            run()

    def stage(self, name: str, data: bytes) -> None:
        self._pause("stage")
        super().stage(name, data)

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        self._pause("swap_head")
        super().swap_head(old, new)

    def put_once(self, path: str, data: bytes) -> None:
        self._pause("put_once")
        super().put_once(path, data)

    def replace_checkpoint(self, signed: bytes, *, head: bytes) -> None:
        self._pause("replace_checkpoint")
        super().replace_checkpoint(signed, head=head)

    def drop_partials(self, path: str) -> None:
        self._pause("drop_partials")
        super().drop_partials(path)

    def sync(self) -> None:
        self._pause("sync")
        super().sync()

    def drop_stage(self, name: str) -> None:
        self._pause("drop_stage")
        super().drop_stage(name)


@pytest.mark.parametrize(
    "step", ["stage", "swap_head", "put_once", "replace_checkpoint", "drop_partials", "sync", "drop_stage"]
)
@pytest.mark.parametrize("same", [True, False])
def test_a_writer_paused_at_any_step_while_another_takes_over(step: str, same: bool) -> None:
    """The other one goes on, with the same entries or with others, before the first one is continued."""
    storage = Pausing()
    first = open_log(storage, "first")
    grow(first, range(100, 100 * (log_module.MAX_STAGINGS + 1), 100))
    size = first.size
    lost: list[str] = []
    seen: dict[str, bytes] = {}

    def take_over() -> None:
        with open_log(storage, "second", take_over=True) as second:
            if same:
                grow(second, [second.size + 50])
            else:
                second.append([b"of the second"])
                second.publish()
            grow(second, [])
        seen.update(storage.objects)
        lost.append(f"{second.size}")

    storage.between[step] = take_over
    first.append(entries_of(size, size + 50))
    try:
        first.publish()
        refused = False
    except StateUnknown:
        refused = True
    assert lost, f"no {step} in a publish that settles"
    assert refused or step == "drop_stage"
    assert {path: data for path, data in storage.objects.items() if path in seen} == {
        path: data for path, data in seen.items() if path in storage.objects
    }
    assert storage.objects[CHECKPOINT] == seen[CHECKPOINT]
    assert findings(storage) == []
    with pytest.raises(StateUnknown):
        append_and_publish(first, b"x")
    with open_log(storage, "third", take_over=True) as third:
        assert third.size == int(lost[0])
    assert findings(storage) == []


# ----------------------------------------------------------------------------------- a storage that fails at each write


class Crash(BaseException):
    """The process dies here. No `Exception`, so that no handler of ours sees it."""


class Faulty(MemoryStorage):
    """Fails at the n-th write: before it is done (not persisted) or after (persisted)."""

    def __init__(self, fail_at: int, *, persisted: bool, error: Callable[[], BaseException] = Crash) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.fail_at = fail_at
        self.fail_on = ""
        self._persisted = persisted
        self._error = error

    def _write(self, what: str, write: Callable[[], None]) -> None:
        self.writes.append(what)
        now = len(self.writes) == self.fail_at or (bool(self.fail_on) and what.startswith(self.fail_on))
        if now:
            self.fail_on = ""
        if now and not self._persisted:
            raise self._error()
        write()
        if now:
            raise self._error()

    def put_once(self, path: str, data: bytes) -> None:
        self._write(f"put {path}", lambda: super(Faulty, self).put_once(path, data))

    def restore(self, path: str, data: bytes) -> None:
        self._write(f"restore {path}", lambda: MemoryStorage.put_once(self, path, data))

    def drop_partials(self, path: str) -> None:
        self._write(f"drop {path}.p", lambda: super(Faulty, self).drop_partials(path))

    def sync(self) -> None:
        self._write("sync", lambda: None)

    def replace_checkpoint(self, signed: bytes, *, head: bytes) -> None:
        self._write("checkpoint", lambda: super(Faulty, self).replace_checkpoint(signed, head=head))

    def stage(self, name: str, data: bytes) -> None:
        self._write(f"stage {name}", lambda: super(Faulty, self).stage(name, data))

    def drop_stage(self, name: str) -> None:
        self._write(f"drop {name}", lambda: super(Faulty, self).drop_stage(name))

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        self._write("head", lambda: super(Faulty, self).swap_head(old, new))

    def claim(self) -> Claim:
        self.claimed_by = None  # who held it is dead
        return super().claim()


SIZES = [3, 250, 257, 258, 600, 601]


def story(storage: LogStorage, published: list[int]) -> None:
    """Two writers' lives, one after the other, with settles in between; notes each size that `publish` returned."""
    for sizes in (SIZES[:4], SIZES[4:]):
        log = open_log(storage)
        for size in sizes:
            if log.next_leaf_index < size:
                grow(log, [size])
            published.append(log.size)
        log.close()


def every_write() -> Iterator[int]:
    storage = Faulty(0, persisted=True)
    story(storage, [])
    return iter(range(1, len(storage.writes) + 1))


@pytest.fixture
def small_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_STAGINGS", 2)


@pytest.mark.parametrize("persisted", [False, True])
@pytest.mark.usefixtures("small_settles")
def test_a_crash_at_every_write_loses_nothing(persisted: bool) -> None:
    writes = list(every_write())
    assert len(writes) > 50
    for fail_at in writes:
        storage = Faulty(fail_at, persisted=persisted)
        published: list[int] = []
        with pytest.raises(Crash):
            story(storage, published)
        crashed_in = storage.writes[-1]
        log = open_log(storage)
        assert log.size in {
            *published[-1:],
            *(size for size in [0, *SIZES] if not published or size > published[-1]),
        }, crashed_in
        assert log.size >= max(published, default=0), crashed_in
        assert findings(storage) == [], crashed_in
        grow(log, [log.size + 300])
        log.close()
        assert_log(storage, log.size)
        assert storage.staged == {}, crashed_in


@pytest.mark.parametrize("persisted", [False, True])
@pytest.mark.usefixtures("small_settles")
def test_a_second_crash_in_the_recovery_from_every_crash(persisted: bool) -> None:
    for first in list(every_write())[::3]:
        for second in range(1, 60, 4):
            storage = Faulty(first, persisted=persisted)
            published: list[int] = []
            with pytest.raises(Crash):
                story(storage, published)
            storage.fail_at = first + second
            try:
                story(storage, published)
            except Crash:
                pass
            storage.fail_at = 0
            log = open_log(storage)
            assert log.size >= max(published, default=0)
            log.close()
            assert_log(storage, log.size)


@pytest.mark.parametrize("persisted", [False, True])
@pytest.mark.usefixtures("small_settles")
def test_an_overloaded_storage_stops_nothing_before_the_swap(persisted: bool) -> None:
    """Whatever write says `Overloaded`: the entries are published by the same call again, or after opening again."""
    for fail_at in every_write():
        storage = Faulty(fail_at, persisted=persisted, error=lambda: Overloaded("full"))
        published: list[int] = []
        for _ in range(2):
            try:
                story(storage, published)
                break
            except (Overloaded, StateUnknown):
                continue
        assert_log(storage, SIZES[-1])


@pytest.mark.usefixtures("small_settles")
@pytest.mark.parametrize("what", ["drop tile", "sync", "stage ", "head"])
def test_publish_again_after_overloaded(what: str) -> None:
    storage = Faulty(0, persisted=False, error=lambda: Overloaded("full"))
    log = open_log(storage)
    grow(log, [20, 300])
    storage.fail_on = what
    log.append(entries_of(300, 400))
    with pytest.raises(Overloaded):
        log.publish()
    assert (log.size, log.next_leaf_index) == (300, 400)
    log.append(entries_of(400, 500))
    assert log.publish().size == 500
    log.close()
    assert_log(storage, 500)


# ----------------------------------------------------------------------------------------------------- damage at opening


def damaged(change: Callable[[MemoryStorage], None]) -> MemoryStorage:
    storage = MemoryStorage()
    log = open_log(storage)
    grow(log, [300, 700])
    storage.claimed_by = None  # died without closing
    change(storage)
    return storage


def first_stage(storage: MemoryStorage) -> str:
    return min(storage.staged)


def swap(data: dict[str, bytes], key: str, value: bytes | None) -> None:
    if value is None:
        del data[key]
    else:
        data[key] = value


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda storage: setattr(storage, "head", b"{}"), "head"),
        (lambda storage: setattr(storage, "head", storage.head.replace(b'"size":700', b'"size":300')), "head"),
        (lambda storage: swap(storage.staged, first_stage(storage), None), "staging/300-"),
        (lambda storage: swap(storage.staged, first_stage(storage), b"x"), "staging/300-"),
        (lambda storage: swap(storage.objects, "tile/0/002.p/188", b"x" * 188 * 32), r"tile/0/002\.p/188"),
        (lambda storage: swap(storage.objects, "tile/entries/000", b"x"), "tile/entries/000"),
    ],
)
def test_what_was_changed_is_named_and_nothing_is_written(change: Callable[[MemoryStorage], None], named: str) -> None:
    storage = damaged(change)
    before = storage.head, dict(storage.staged), storage.objects["checkpoint"]
    with pytest.raises((VerificationError, StateUnknown), match=named):
        open_log(storage)
    assert (storage.head, storage.staged, storage.objects["checkpoint"]) == before
    assert storage.claimed_by is None


@pytest.mark.parametrize("path", ["tile/0/002.p/188", "tile/1/000.p/2", "tile/entries/002.p/188"])
@pytest.mark.parametrize("value", [None, b"short", "flip"])
def test_a_changed_edge_of_a_settled_log_is_named(path: str, value: bytes | str | None) -> None:
    storage = MemoryStorage()
    with open_log(storage) as log:
        grow(log, [700])
    data = storage.objects[path]
    swap(storage.objects, path, bytes([data[0], data[1], data[2] ^ 1]) + data[3:] if isinstance(value, str) else value)
    with pytest.raises(VerificationError, match=r"tile/entries|partial tiles of the tree of 700|tile/./00"):
        open_log(storage)


def test_the_head_says_who_and_when() -> None:
    storage = MemoryStorage()
    with open_log(storage, "correlator-1") as log:
        grow(log, [5])
        assert storage.head is not None
        head = decode_head(storage.head)
        assert (head.v, head.epoch, head.writer, head.size) == (1, 1, "correlator-1", 5)
        assert head.written_ns == 1_767_225_601_000_000_000
        assert [ref.name for ref in head.stagings] == [f"5-{log.root.hex()}.1"]


@given(st.binary() | st.sampled_from([b"{}", b"[]", b"\xff"]))
def test_the_head_parser_raises_only_its_own_error(data: bytes) -> None:
    try:
        decode_head(data)
    except VerificationError:
        pass
