"""The crash table of spool, header log and shipping: every change of the disk × before or after it × what became of unsynced bytes.

The process dies there; the next one recovers, every group is sent again as a sender without its acknowledgement does, and then all of
it must be in the store: what was acknowledged is there, nothing is there twice, numbers and chain have no hole.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import Batch, StreamId, facts_root, open_header
from collector.pipeline import Pipeline, PipelineLimits
from collector.ship import BatchLimits
from collector.spool import Group, Spooled, SpoolLimits
from tests.support.faulty_disk import Crashed, Fate, FaultyDisk
from tests.support.memory_store import MemoryStore

ROOT = Path("spool")
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
GROUPS = 7
LIMITS = PipelineLimits(
    spool=SpoolLimits(segment_bytes=400, reserve_bytes=500),  # several segments in this little work
    batch=BatchLimits(events=4, heartbeat_seconds=0),
)


class CrashingJournal:
    """Ids in memory, and those that a flush made durable: only they live through a crash."""

    def __init__(self, durable: set[bytes]) -> None:
        self.durable = durable
        self.recent: set[bytes] = set()

    def known(self, source_ids: Iterable[bytes]) -> set[bytes]:
        return {one for one in source_ids if one and (one in self.recent or one in self.durable)}

    def add(self, source_ids: Iterable[bytes]) -> None:
        self.recent.update(one for one in source_ids if one)

    def flush(self) -> None:
        self.durable |= self.recent

    def flush_soon(self) -> None:
        self.flush()

    def forget(self) -> None:
        self.durable.clear()
        self.recent.clear()


class CrashingStore(MemoryStore):
    """Dies in its n-th append, before it is durable or after."""

    def __init__(self) -> None:
        super().__init__()
        self.crash_at: int | None = None
        self.after = False

    def append(self, batch: Batch) -> None:
        dying = self.appends + 1 == self.crash_at
        if dying and not self.after:
            raise Crashed("in the store, before its commit")
        super().append(batch)
        if dying:
            self.crash_at = None
            raise Crashed("in the store, after its commit")


class World:
    """What outlives a process: disk, store, journal, and what senders were told."""

    def __init__(self, disk: FaultyDisk, *, ack: str = "spool") -> None:
        self.disk = disk
        self.ack = ack
        self.store = CrashingStore()
        self.durable_ids: set[bytes] = set()
        self.acknowledged: set[int] = set()
        self.clock_ns = 1_700_000_000_000_000_000
        self.lives = 0

    def clock(self) -> int:
        self.clock_ns += 1_000_000_000
        return self.clock_ns

    def pipeline(self) -> Pipeline:
        self.lives += 1
        return Pipeline(
            ROOT,
            collector="payments",
            ledger="test/ledger",
            store=self.store,
            key=KEY,
            limits=LIMITS,
            disk=self.disk,
            journal=CrashingJournal(self.durable_ids),
            clock=self.clock,
            random_bytes=lambda count: bytes([self.lives]) * count,
        )


def group(number: int) -> Group:
    """A group of three events: the middle one with an id of its own, so that both kinds of recognition are used."""
    events = [b'{"body":"%d.%d"}' % (number, at) for at in range(3)]
    return Group(
        group_id=b"group %d" % number,
        source_ids=[b"", b"uid %d" % number, b""],
        events=events,
        facts=[b'{"digest":"%d.%d"}' % (number, at) for at in range(3)],
    )


def send(world: World, pipeline: Pipeline, number: int) -> None:
    def done(outcome: Spooled | Exception) -> None:
        assert isinstance(outcome, Spooled), outcome
        assert outcome.stored + outcome.duplicates == 3
        world.acknowledged.add(number)

    if world.ack == "store":
        pipeline.append(group(number), lambda _: None, stored=done)
    else:
        pipeline.append(group(number), done)


def work(world: World) -> None:
    """Everything a sidecar does in its life: groups alone and two in one commit, batches, releases, a clean end."""
    pipeline = world.pipeline()
    for number in range(GROUPS):
        send(world, pipeline, number)
        if number != 2:  # 2 and 3 share a commit
            pipeline.commit_once()
        if number in (1, 4):
            pipeline.ship_once()
        if number == 4:
            world.store.acknowledge({pipeline.stream: 1})
            pipeline.release_once()
    finish(world, pipeline)


def finish(world: World, pipeline: Pipeline) -> None:
    pipeline.commit_once()
    while pipeline.ship_once():
        pass
    for stream, batches in world.store.batches.items():
        world.store.acknowledge({stream: max(batches)})
    pipeline.release_once()
    pipeline.stop(drain_seconds=0.0, close_stream=False)


def recover_and_check(world: World) -> None:
    told = set(world.acknowledged)
    pipeline = world.pipeline()
    for number in range(GROUPS):
        send(world, pipeline, number)
        pipeline.commit_once()
    finish(world, pipeline)
    stored = [event for stream in world.store.batches for event in check_stream(world.store, stream)]
    expected = [event for number in range(GROUPS) for event in group(number).events]
    missing = [number for number in told if not set(group(number).events) <= set(stored)]
    assert not missing, f"acknowledged, but not stored: {missing}"
    assert sorted(stored) == sorted(expected)


def check_stream(store: MemoryStore, stream: StreamId) -> list[bytes]:
    """The stream's events, after checking numbers, chain, signatures, roots and sequences."""
    events: list[bytes] = []
    previous = ""
    for expected, number in enumerate(sorted(store.batches[stream]), start=1):
        batch = store.batches[stream][number]
        signed = open_header(batch.signed.data, batch.signed.signature, batch.signed.facts)
        header = signed.header
        assert (header.number, header.previous, header.first) == (expected, previous, len(events))
        assert facts_root(signed.facts_lines()) == header.facts_root
        at = 0
        for length in batch.lengths:
            events.append(batch.events[at : at + length])
            at += length
        previous = signed.digest
    return events


def changes_in_a_whole_life() -> list[str]:
    world = World(FaultyDisk())
    work(world)
    assert world.acknowledged == set(range(GROUPS))
    return world.disk.changes


def test_the_work_is_a_whole_life() -> None:
    changes = changes_in_a_whole_life()
    assert {"create", "write", "sync", "sync_directory", "rename", "remove", "make_directory"} <= set(changes)


@pytest.mark.parametrize("fate", list(Fate), ids=lambda fate: fate.value)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_every_change_of_the_disk(fate: Fate, after: bool) -> None:
    for crash_at in range(1, len(changes_in_a_whole_life()) + 1):
        world = World(FaultyDisk(crash_at=crash_at, after=after))
        with pytest.raises(Crashed):
            work(world)
        world.disk = world.disk.after_crash(fate)
        recover_and_check(world)


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.TORN], ids=lambda fate: fate.value)
@pytest.mark.parametrize("second", range(1, 12))
def test_a_second_crash_while_recovering_from_the_first(fate: Fate, second: int) -> None:
    for crash_at in range(3, len(changes_in_a_whole_life()) + 1, 3):
        world = World(FaultyDisk(crash_at=crash_at))
        with pytest.raises(Crashed):
            work(world)
        world.disk = world.disk.after_crash(fate, crash_at=second)
        try:
            recover_and_check(world)
        except Crashed:
            world.disk = world.disk.after_crash(fate)
            recover_and_check(world)


@pytest.mark.parametrize("fate", list(Fate), ids=lambda fate: fate.value)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("append", [1, 2, 3, 4])
def test_a_crash_in_the_store_on_either_side_of_its_commit(append: int, after: bool, fate: Fate) -> None:
    world = World(FaultyDisk())
    world.store.crash_at, world.store.after = append, after
    with pytest.raises(Crashed):
        work(world)
    world.store.crash_at = None
    world.disk = world.disk.after_crash(fate)
    recover_and_check(world)


# -- a copy of the spool, whose numbers the log holds as the other copy filled them


def cloned_world(crash_at: int | None, *, after: bool = False) -> tuple[World, Pipeline]:
    """Two copies of a spool: the one has shipped another batch under the next number, and the log holds it; the other may crash."""
    world = World(FaultyDisk())
    pipeline = world.pipeline()
    for number in range(2):
        send(world, pipeline, number)
        pipeline.commit_once()
    while pipeline.ship_once():
        pass
    clone = World(world.disk.after_crash(Fate.KEPT))
    clone.store, clone.durable_ids, clone.acknowledged = world.store, set(world.durable_ids), world.acknowledged
    clone.lives = 100
    send(world, pipeline, 2)
    finish(world, pipeline)
    late = clone.pipeline()
    send(clone, late, 3)
    late.commit_once()
    clone.disk.after = after
    clone.disk.crash_at = crash_at and len(clone.disk.changes) + crash_at
    return clone, late


def work_of_the_clone(clone: World, late: Pipeline) -> None:
    late.ship_once()
    for number in range(4, GROUPS):
        send(clone, late, number)
        late.commit_once()
    finish(clone, late)


@pytest.mark.parametrize("fate", list(Fate), ids=lambda fate: fate.value)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_every_change_of_a_cloned_spool(fate: Fate, after: bool) -> None:
    whole, late = cloned_world(None)
    before = len(whole.disk.changes)
    work_of_the_clone(whole, late)
    for crash_at in range(1, len(whole.disk.changes) - before + 1):
        clone, late = cloned_world(crash_at, after=after)
        with pytest.raises(Crashed):
            work_of_the_clone(clone, late)
        clone.disk = clone.disk.after_crash(fate)
        again = clone.pipeline()
        for number in range(4, GROUPS):  # 3 was acknowledged: nobody sends it again
            send(clone, again, number)
            again.commit_once()
        finish(clone, again)
        expected = [event for number in range(GROUPS) for event in group(number).events]
        assert sorted(events_of(clone)) == sorted(expected), crash_at


# -- ack = "store": what was acknowledged is in the store, whatever becomes of the sidecar's disk


def events_of(world: World) -> list[bytes]:
    return [event for stream in world.store.batches for event in check_stream(world.store, stream)]


def lose_the_disk_and_check(world: World) -> None:
    stored = set(events_of(world))
    missing = [number for number in world.acknowledged if not set(group(number).events) <= stored]
    assert not missing, f"acknowledged, but not in the store: {missing}"
    # a new sidecar on an empty disk: who heard no acknowledgement comes again, and then all of it is there
    told = set(world.acknowledged)
    world.disk, world.durable_ids = FaultyDisk(), set()
    pipeline = world.pipeline()
    for number in set(range(GROUPS)) - told:
        send(world, pipeline, number)
    finish(world, pipeline)
    assert world.acknowledged == set(range(GROUPS))
    assert set(events_of(world)) == {event for number in range(GROUPS) for event in group(number).events}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_what_the_store_acknowledged_outlives_the_sidecars_disk(after: bool) -> None:
    whole = World(FaultyDisk(), ack="store")
    work(whole)
    assert whole.acknowledged == set(range(GROUPS))
    unacknowledged = 0
    for crash_at in range(1, len(whole.disk.changes) + 1):
        world = World(FaultyDisk(crash_at=crash_at, after=after), ack="store")
        with pytest.raises(Crashed):
            work(world)
        unacknowledged += GROUPS - len(world.acknowledged)
        lose_the_disk_and_check(world)
    assert unacknowledged > GROUPS


def test_what_the_spool_acknowledged_does_not_outlive_it_before_it_is_shipped() -> None:
    """What the mode is for: with ``ack = "spool"`` the same loss of the disk loses acknowledged events."""
    lost = 0
    for crash_at in range(1, len(changes_in_a_whole_life()) + 1):
        world = World(FaultyDisk(crash_at=crash_at))
        with pytest.raises(Crashed):
            work(world)
        stored = set(events_of(world))
        lost += sum(not set(group(number).events) <= stored for number in world.acknowledged)
    assert lost


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("append", [1, 2, 3, 4])
def test_a_crash_in_the_store_and_the_loss_of_the_disk(append: int, after: bool) -> None:
    world = World(FaultyDisk(), ack="store")
    world.store.crash_at, world.store.after = append, after
    with pytest.raises(Crashed):
        work(world)
    world.store.crash_at = None
    lose_the_disk_and_check(world)


@pytest.mark.parametrize("fate", list(Fate), ids=lambda fate: fate.value)
def test_store_acks_across_a_restart_on_the_same_disk(fate: Fate) -> None:
    for crash_at in range(1, len(changes_in_a_whole_life()) + 1):
        world = World(FaultyDisk(crash_at=crash_at), ack="store")
        with pytest.raises(Crashed):
            work(world)
        world.disk = world.disk.after_crash(fate)
        recover_and_check(world)
        assert world.acknowledged == set(range(GROUPS))  # who came again was told, as duplicate or as new
