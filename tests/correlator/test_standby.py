"""Standing by with clocks that the test moves: what counts as silence, whose turn it is, and that a standby is warm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from collector.batch import StreamId
from correlator import standby as standby_module
from correlator.errors import Conflict, Overloaded, StateUnknown, VerificationError
from correlator.head import decode_head
from correlator.heartbeat import Heartbeat
from correlator.index.memory import MemoryIndex
from correlator.index.sqlite import SqliteIndex
from correlator.log import AuditLog
from correlator.run import Correlator
from correlator.settings import CorrelatorSettings
from correlator.standby import HeadWatch, Standby, Turn, wait_for_silence
from correlator.storage import CHECKPOINT
from correlator.storage.memory import MemoryStorage
from tests.support.correlating import SIGNER, Correlating
from tests.support.logs import grow, open_log
from tests.support.shipper import Shipper, pay

SECOND_NS = 1_000_000_000


@dataclass
class Monotonic:
    now_ns: int = 0

    def __call__(self) -> int:
        return self.now_ns

    def pass_(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)


class LocklessStorage(MemoryStorage):
    """Memory that is like object storage in that nobody's claim excludes anybody."""

    claim_excludes = False

    def claim(self) -> Free:
        return Free()


class Free:
    def release(self) -> None:
        """Nothing was taken."""


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


# ---------------------------------------------------------------------------------------------------------------- renewal


def test_renewing_changes_the_time_in_the_head_and_nothing_else() -> None:
    storage = MemoryStorage()
    with open_log(storage) as log:
        grow(log, [300])
        before = storage.read_head()
        objects, staged = dict(storage.objects), dict(storage.staged)
        log.renew()
        after = storage.read_head()
        assert before is not None
        assert after is not None
        old, new = decode_head(before), decode_head(after)
        assert new.written_ns > old.written_ns
        assert (new.epoch, new.writer, new.size, new.root, new.checkpoint, new.stagings) == (
            old.epoch, old.writer, old.size, old.root, old.checkpoint, old.stagings,
        )  # fmt: skip
        assert (storage.objects, storage.staged) == (objects, staged)
        grow(log, [301])


def test_two_renewals_differ_even_when_the_clock_stands_still() -> None:
    storage = MemoryStorage()
    log = open_log(storage)
    log._clock = lambda: 5
    seen = set()
    for _ in range(4):
        log.renew()
        seen.add(storage.read_head())
    assert len(seen) == 4


def test_a_closed_log_has_no_writer_and_a_killed_one_has() -> None:
    storage = MemoryStorage()
    log = open_log(storage, "first")
    raw = storage.read_head()
    assert raw is not None
    assert decode_head(raw).writer == "first"
    log.close()
    raw = storage.read_head()
    assert raw is not None
    assert decode_head(raw).writer == ""


def test_a_deposed_writer_is_refused_at_its_next_renewal_and_changes_nothing() -> None:
    storage = MemoryStorage()
    first = open_log(storage, "first")
    grow(first, [10])
    second = open_log(storage, "second", take_over=True)
    held = storage.read_head(), dict(storage.objects), dict(storage.staged)
    with pytest.raises(StateUnknown, match="another writer has taken over"):
        first.renew()
    with pytest.raises(StateUnknown, match="has stopped"):
        first.renew()
    first.close()
    assert (storage.read_head(), storage.objects, storage.staged) == held
    second.renew()
    second.reclaim()  # which the first has let go of
    with pytest.raises(Conflict):
        storage.claim()
    second.close()
    storage.claim().release()


def test_a_heartbeat_renews_only_a_head_that_is_old(clock: Monotonic) -> None:
    storage = MemoryStorage()
    with open_log(storage) as log:
        heartbeat = Heartbeat(log, every_seconds=3, monotonic_ns=clock)
        swaps = log.swaps
        clock.pass_(2.9)
        heartbeat.beat()
        assert log.swaps == swaps
        clock.pass_(0.1)
        heartbeat.beat()
        assert log.swaps == swaps + 1
        clock.pass_(2.5)
        grow(log, [5])
        heartbeat.beat()  # what was published shows as much
        clock.pass_(2.5)
        heartbeat.beat()
        assert log.swaps == swaps + 2
        clock.pass_(0.5)
        heartbeat.beat()
        assert log.swaps == swaps + 3


def test_long_work_beats_and_passes_its_progress_on(clock: Monotonic) -> None:
    with open_log(MemoryStorage()) as log:
        told: list[tuple[int, int]] = []
        progress = Heartbeat(log, every_seconds=3, monotonic_ns=clock).during(
            lambda done, total: told.append((done, total))
        )
        swaps = log.swaps
        for done in range(4):
            clock.pass_(3)
            progress(done, 4)
        assert log.swaps == swaps + 4
        assert told == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_a_correlator_with_nothing_to_do_for_long_renews_its_head_all_the_while(tmp_path: Path) -> None:
    settings = CorrelatorSettings(poll_min_seconds=60, poll_max_seconds=60, renew_seconds=0.05, take_over_seconds=0.2)
    world = Correlating(tmp_path, settings=settings)
    correlator = world.open()
    stop, renewed = threading.Event(), threading.Event()
    heads: set[bytes | None] = set()
    swap_head = world.storage.swap_head

    def counted(old: bytes | None, new: bytes) -> None:
        swap_head(old, new)
        heads.add(new)
        if len(heads) == 5:
            renewed.set()

    world.storage.swap_head = counted  # type: ignore[method-assign]  # to await what is written
    running = threading.Thread(target=correlator.run, args=(stop,))
    running.start()
    assert renewed.wait(30)
    stop.set()
    running.join(30)
    assert not running.is_alive()
    world.close()


# ----------------------------------------------------------------------------------------------------------------- silence


def test_silence_is_counted_between_looks_and_ends_with_a_change() -> None:
    watch = HeadWatch()
    assert watch.look(b"1", 0) == 0
    assert watch.look(b"1", 1 * SECOND_NS) == 1
    assert watch.look(b"1", 2 * SECOND_NS) == 2
    assert watch.look(b"2", 3 * SECOND_NS) == 0
    assert watch.look(b"2", 4 * SECOND_NS) == 1
    assert watch.look(None, 5 * SECOND_NS) == 0


def test_a_standby_that_slept_does_not_take_its_own_sleep_for_silence() -> None:
    watch = HeadWatch()
    watch.look(b"1", 0)
    assert watch.look(b"1", 3_600 * SECOND_NS) == 2
    assert watch.look(b"1", 3_599 * SECOND_NS) == 2, "nor does a clock that goes back take anything away"


def test_where_claims_do_not_exclude_a_changing_head_does(clock: Monotonic) -> None:
    storage = LocklessStorage()
    wait_for_silence(storage, seconds=10, monotonic_ns=clock, pause=clock.pass_)  # there is no log yet
    log = open_log(storage, "first")
    wait_for_silence(storage, seconds=10, monotonic_ns=clock, pause=clock.pass_)
    assert 10 <= clock.now_ns / 1e9 < 12

    def pause(seconds: float) -> None:
        clock.pass_(seconds)
        log.renew()

    with pytest.raises(Conflict, match=r"another process writes this log \(first\)"):
        wait_for_silence(storage, seconds=10, monotonic_ns=clock, pause=pause)
    log.close()
    before = clock.now_ns
    wait_for_silence(storage, seconds=10, monotonic_ns=clock, pause=clock.pass_)
    assert clock.now_ns == before, "a log that was closed is nobody's"


# -------------------------------------------------------------------------------------------------------------------- turns


@dataclass
class Pair:
    """A writer and a standby of one log, whose clocks the test moves."""

    folder: Path
    clock: Monotonic
    storage: MemoryStorage
    shipper: Shipper = field(default_factory=Shipper)
    settings: CorrelatorSettings = field(default_factory=lambda: CorrelatorSettings(missing_poll_seconds=3_600))

    def __post_init__(self) -> None:
        self.writer = Correlating(self.folder / "writer", storage=self.storage, settings=self.settings)
        self.index = MemoryIndex()
        self.writer.open(monotonic_ns=self.clock, writer_id="first")
        self.standby = self.new_standby()

    def new_standby(self) -> Standby:
        return Standby(
            storage=self.storage,
            verifier=SIGNER.verifier,
            index=self.index,
            state_folder=self.folder / "standby",
            settings=self.settings,
            monotonic_ns=self.clock,
        )

    def publish_to_store(self, events: int) -> None:
        self.writer.store.append(self.shipper.batch(*(pay(f"p{at % 7}") for at in range(events))))

    def publish(self, events: int) -> int:
        self.publish_to_store(events)
        return self.writer.run()

    def look_for(self, seconds: float, *, renew: bool) -> Turn | None:
        for _ in range(int(seconds * 2)):
            self.clock.pass_(0.5)
            if renew:
                assert self.writer.correlator is not None
                self.writer.correlator.renew()
            turn = self.standby.look()
            if turn is not None:
                return turn
        return None

    def close(self) -> None:
        self.standby.close()
        if self.writer.correlator is not None:
            self.writer.correlator._state.discard()


def drained(index: MemoryIndex) -> set[str]:
    return {index.trail(f"transaction/p{at}").trail for at in range(7)}


@pytest.fixture
def locked(tmp_path: Path, clock: Monotonic) -> Iterator[Pair]:
    pair = Pair(tmp_path, clock, MemoryStorage())
    yield pair
    pair.close()


@pytest.fixture
def lockless(tmp_path: Path, clock: Monotonic) -> Iterator[Pair]:
    pair = Pair(tmp_path, clock, LocklessStorage())
    yield pair
    pair.close()


def test_a_standby_waits_while_the_writer_renews_its_head(locked: Pair, lockless: Pair) -> None:
    for pair in (locked, lockless):
        assert pair.look_for(60, renew=True) is None
        assert pair.standby.metrics.head_unchanged_seconds._value.get() <= 3
        assert pair.standby.metrics.epoch._value.get() == 1


def test_a_writer_that_hangs_is_deposed_after_ten_seconds(locked: Pair, clock: Monotonic) -> None:
    locked.look_for(5, renew=True)
    begun = clock.now_ns
    turn = locked.look_for(60, renew=False)
    assert turn is not None
    assert turn.take_over, "its process still holds the claim"
    assert "first has not renewed the head" in turn.reason
    assert 7 <= (clock.now_ns - begun) / 1e9 <= 10.5


def test_a_killed_writer_lets_go_of_its_claim_and_is_followed_within_five_seconds(
    locked: Pair, clock: Monotonic
) -> None:
    locked.look_for(5, renew=True)
    locked.writer.kill()
    begun = clock.now_ns
    assert locked.look_for(60, renew=False) == Turn(reason="first has ended", take_over=False)
    assert 1.5 <= (clock.now_ns - begun) / 1e9 <= 5


def test_a_writer_that_took_over_and_has_no_claim_yet_is_left_alone(locked: Pair, clock: Monotonic) -> None:
    locked.writer.correlator._audit_log._claim.release()  # type: ignore[union-attr]  # it is open, and has it
    locked.writer.correlator._audit_log._claim = None  # type: ignore[union-attr]  # as above
    log = locked.writer.correlator._audit_log  # type: ignore[union-attr]  # as above
    for _ in range(20):
        clock.pass_(1)
        log.renew()
        assert locked.standby.look() is None
    locked.writer.correlator.renew()  # type: ignore[union-attr]  # as above
    with pytest.raises(Conflict):
        locked.storage.claim()


def test_without_claims_a_closed_log_is_a_turn_at_once_and_a_killed_writer_after_ten_seconds(lockless: Pair) -> None:
    lockless.look_for(5, renew=True)
    lockless.writer.kill()
    assert lockless.standby.look() is None
    turn = lockless.look_for(11, renew=False)
    assert turn is not None
    assert "first has not renewed the head for 10.0 s" in turn.reason
    lockless.writer.open().close()
    assert lockless.standby.look() == Turn(reason="nobody has the log open", take_over=False)


def test_a_head_that_cannot_be_read_is_not_one_that_stands_still(lockless: Pair, clock: Monotonic) -> None:
    stop = threading.Event()
    read_head, looks = lockless.storage.read_head, []

    def failing() -> bytes | None:
        looks.append(clock.now_ns)
        clock.pass_(2)
        if len(looks) > 20:
            stop.set()
        if len(looks) % 2:
            raise Overloaded("no answer")
        lockless.writer.correlator.renew()  # type: ignore[union-attr]  # it is open
        return read_head()

    lockless.storage.read_head = failing  # type: ignore[method-assign]  # a storage that answers every other time
    lockless.standby._settings = CorrelatorSettings(
        take_over_seconds=0.2, renew_seconds=0.05
    )  # looks in quick succession
    assert lockless.standby.wait(stop) is None
    assert lockless.standby.metrics.failures._value.get() >= 10
    assert not lockless.standby.ready()


# --------------------------------------------------------------------------------------------------------------- following


def test_a_standby_follows_with_state_and_index_and_takes_over_where_the_log_ends(lockless: Pair) -> None:
    for _ in range(3):
        lockless.publish(20)
        lockless.look_for(1, renew=True)
    lockless.look_for(1, renew=True)
    assert lockless.standby.ready()
    size = lockless.writer.correlator.size  # type: ignore[union-attr]  # it is open
    assert lockless.index.size() == size
    assert drained(lockless.index) == drained(lockless.writer.index)  # type: ignore[arg-type]  # both are in memory
    deposed = lockless.writer.correlator
    assert deposed is not None

    replayed: list[tuple[int, int]] = []
    lockless.standby.close()
    taken = Correlating(lockless.folder, store=lockless.writer.store, storage=lockless.storage, index=lockless.index)
    correlator = Correlator.open(
        store=taken.store,
        storage=taken.storage,
        signer=SIGNER,
        index=taken.index,
        state_folder=lockless.folder / "standby",
        settings=lockless.settings,
        clock=taken.clock,
        take_over=True,
        progress=lambda done, total: replayed.append((done, total)),
    )
    taken.correlator = correlator
    assert replayed == [], "it is warm: nothing is left to replay or to index"
    stream = StreamId(lockless.shipper.stream)
    assert taken.store.acknowledged(stream) == 3
    lockless.publish_to_store(30)
    held = dict(lockless.storage.objects), lockless.storage.head, dict(lockless.storage.staged)
    with pytest.raises(StateUnknown, match="another writer has taken over"):
        deposed.step()
    # what the deposed one has staged is garbage, which no head names
    assert (lockless.storage.objects, lockless.storage.head) == held[:2]
    assert taken.store.acknowledged(stream) == 3
    assert not deposed.alive()
    assert taken.run() > 30
    entries = taken.entries()
    assert sum(entry.kind == "event" for entry in entries) == 90
    taken.close()


def test_an_index_that_the_writer_keeps_too_is_neither_emptied_nor_doubled(tmp_path: Path, clock: Monotonic) -> None:
    storage = MemoryStorage()
    pair = Pair(tmp_path, clock, storage)
    shared = tmp_path / "index.sqlite"
    pair.writer.index, pair.standby._index = SqliteIndex(shared), SqliteIndex(shared)
    assert pair.writer.correlator is not None
    pair.writer.correlator._index = pair.writer.index
    for _ in range(4):
        pair.publish(10)
        pair.look_for(1, renew=True)
        assert pair.standby._index.size() == pair.writer.correlator.size
    behind = pair.writer.correlator  # as if it had been stopped before it indexed, and others had gone on
    pair.writer.correlator = None
    pair.writer.folder = tmp_path / "next"
    pair.writer.open(take_over=True)
    pair.publish(10)
    size = pair.writer.index.size()
    behind._catch_up_index(None)
    assert pair.writer.index.size() == size
    behind._state.discard()
    pair.close()
    for index in (pair.writer.index, pair.standby._index):
        index.close()


def test_a_standby_that_is_far_behind_follows_in_turns_between_which_it_looks(
    lockless: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockless.publish(5)
    lockless.look_for(1, renew=True)
    monkeypatch.setattr(standby_module, "_TURN_LEAVES", 16)
    lockless.publish(200)
    size = lockless.writer.correlator.size  # type: ignore[union-attr]  # it is open
    sizes: list[int] = []
    while not sizes or sizes[-1] < size or lockless.index.size() < size:
        before = lockless.index.size()
        assert lockless.standby.look() is None
        assert lockless.index.size() - before <= 16
        assert lockless.standby._state is not None
        sizes.append(lockless.standby._state.leaves)
        assert lockless.standby.ready() == (sizes[-1] == size)
        assert len(sizes) < 40
    assert all(0 <= after - before <= 16 for before, after in pairwise(sizes))
    assert not lockless.standby._more


def test_a_log_that_was_rolled_back_is_told_when_its_writer_has_lived_on(lockless: Pair) -> None:
    lockless.publish(20)
    old = lockless.storage.objects[CHECKPOINT]
    lockless.publish(20)
    lockless.look_for(1, renew=True)
    lockless.storage.objects[CHECKPOINT] = old
    with pytest.raises(VerificationError, match="rolled back"):
        lockless.look_for(10, renew=True)
    assert not lockless.standby.ready()


@pytest.mark.parametrize("torn", [b"", b"\0" * 200])
@pytest.mark.parametrize("warm", [False, True])
def test_what_a_power_cut_has_torn_is_restored_by_the_standby_whose_turn_it_is(
    locked: Pair, torn: bytes, warm: bool
) -> None:
    """The checkpoint is not synced before the log is opened again, and nobody else may be there to open it."""
    locked.publish(20)
    if warm:
        locked.look_for(1, renew=True)
    whole = locked.storage.objects[CHECKPOINT]
    locked.writer.kill()
    locked.storage.objects[CHECKPOINT] = torn
    turn = locked.look_for(60, renew=False)
    assert turn == Turn(reason="first has ended", take_over=False)
    locked.standby.close()
    with open_log_of(locked) as successor:
        assert locked.storage.objects[CHECKPOINT] == whole
        assert successor.size == 22


def open_log_of(pair: Pair) -> AuditLog:
    return AuditLog.open(pair.storage, SIGNER, clock=lambda: 1, writer_id="second")


def test_a_standby_must_be_more_patient_than_a_writer() -> None:
    with pytest.raises(ValueError, match="at least twice renew_seconds"):
        CorrelatorSettings(renew_seconds=6)
