"""The intake: prepared, spooled, told; split groups, dead letters, pressure; and the intake in memory held to the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.deadletters import DeadLetters, read_dead_letters
from collector.disk import AppendFile, OsDisk
from collector.errors import Malformed, Overloaded
from collector.event import Event, Origin, Span
from collector.extract import Extractor, StitchSettings
from collector.group import MAX_GROUP_EVENTS
from collector.intake import SpoolIntake, groups_of
from collector.mapping.intake import MappedIntake
from collector.mapping.language import read_mappings
from collector.mapping.mapper import Mapper
from collector.metrics import CollectorMetrics
from collector.pipeline import Pipeline, PipelineLimits
from collector.prepare import Prepared, Preparer, Refused
from collector.protect import Protector
from collector.receive import Arrival, Intake, Receipt
from collector.receive.record import arrival_of_record
from collector.recorder import Recorder
from collector.rejection import Rejection, place_in
from collector.spool import Done, Spooled, SpoolLimits, deliver_here
from tests.support.memory_intake import MemoryIntake
from tests.support.memory_store import MemoryStore

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PROTECTOR = Protector(token_key=b"t" * 32)


def preparer(*, requests: bool = False, max_event_bytes: int = 1024**2) -> Preparer:
    return Preparer(
        extractor=Extractor(StitchSettings()),
        protector=PROTECTOR,
        clock=lambda: 1_700_000_000 * 10**9,
        max_event_bytes=max_event_bytes,
        requests=requests,
    )


class Sidecar:
    """The parts of a sidecar behind its receivers, in the running event loop."""

    def __init__(
        self,
        root: Path,
        *,
        total_bytes: int = 10**8,
        dead_bytes: int = 10**6,
        store_patience_seconds: float | None = None,
        disk: OsDisk | None = None,
        queued_bytes: int = 64 * 1024**2,
        monotonic: Callable[[], float] = time.monotonic,
        breath_seconds: float = 0.05,
    ) -> None:
        loop, loop_thread = asyncio.get_running_loop(), threading.get_ident()

        def deliver(outcomes: Sequence[tuple[Done, Spooled | Exception]]) -> None:
            if threading.get_ident() == loop_thread:
                deliver_here(outcomes)
            else:
                loop.call_soon_threadsafe(deliver_here, outcomes)

        self.root = root
        self.store = MemoryStore()
        self.pipeline = Pipeline(
            root,
            collector="payments",
            ledger="test/ledger",
            store=self.store,
            key=KEY,
            limits=PipelineLimits(
                spool=SpoolLimits(total_bytes=total_bytes, queued_bytes=queued_bytes), linger_seconds=0.0
            ),
            deliver=deliver,
            disk=disk,
            monotonic=monotonic,
        )
        self.dead = DeadLetters(
            root / "dead", disk=OsDisk(), protector=PROTECTOR, clock=lambda: 0, total_bytes=dead_bytes
        )
        self.metrics = CollectorMetrics(collector="payments")
        self.metrics.watch(self.pipeline.state)
        self.intake = SpoolIntake(
            preparer=preparer(requests=True),
            pipeline=self.pipeline,
            dead_letters=self.dead,
            metrics=self.metrics,
            store_patience_seconds=store_patience_seconds,
            breath_seconds=breath_seconds,
        )

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def bodies(self) -> list[str]:
        assert self.pipeline.stop(drain_seconds=20)
        found = []
        for batches in self.store.batches.values():
            for batch in batches.values():
                at = 0
                for length in batch.lengths:
                    found.append(batch.events[at : at + length].decode().split('"')[3])
                    at += length
        return found


def run(root: Path, story: Callable[[Sidecar], Awaitable[None]], **limits: Any) -> None:
    async def told() -> None:
        async with asyncio.timeout(60):
            sidecar = Sidecar(root, **limits)
            sidecar.pipeline.start()
            try:
                await story(sidecar)
            finally:
                await asyncio.to_thread(sidecar.pipeline.stop, drain_seconds=0.0)
                sidecar.dead.close()

    asyncio.run(told())


def arrivals(*bodies: str, ids: bool = False) -> list[Arrival]:
    return [Arrival(event=Event(body=body), source_id=body.encode() if ids else None) for body in bodies]


BAD = Arrival(event=Event(body={1: "a", "1": "b"}, origin=Origin(receiver="forward", tag="shop")))


async def contract(intake: Intake) -> None:
    """What receivers rely on, whichever intake it is."""
    assert await intake.accept(arrivals("a", "b"), group_id=b"g1") == Receipt(stored=2)
    assert await intake.accept(arrivals("a", "b"), group_id=b"g1") == Receipt(duplicates=2)
    assert await intake.accept(arrivals("c", "d", ids=True)) == Receipt(stored=2)
    assert await intake.accept(arrivals("d", "e", ids=True), group_id=b"g2") == Receipt(stored=1, duplicates=1)
    told = await intake.accept([*arrivals("f"), BAD, *arrivals("g")])
    assert told == Receipt(stored=2, dead_lettered=1, refused=((1, "two keys of one map become the same text"),))
    assert await intake.accept(arrivals("h")) == Receipt(stored=1)
    assert await intake.accept(arrivals("h")) == Receipt(stored=1)  # without ids nothing is taken for a re-send
    assert await intake.accept([]) == Receipt()
    await intake.reject([])
    nameless = Rejection(b"\xff", Malformed("no MessagePack", label="framing"), Origin(receiver="forward"))
    named = Rejection(b"?", Malformed("no JSON", label="bad_json"), Origin(receiver="tail"), b"place")
    rejections = [nameless, named, named]
    await intake.reject(rejections)
    assert not rejections
    await intake.reject([named])  # read again after a crash


@pytest.mark.parametrize("breath_seconds", [0.05, 0.0], ids=["", "slowly"])
@pytest.mark.parametrize("store_patience_seconds", [None, 30.0], ids=["spool", "store"])
def test_the_intake_keeps_the_contract(
    tmp_path: Path, store_patience_seconds: float | None, breath_seconds: float
) -> None:
    async def story(sidecar: Sidecar) -> None:
        await contract(sidecar.intake)
        bodies = await asyncio.to_thread(sidecar.bodies)
        assert bodies == ["a", "b", "c", "d", "e", "f", "g", "h", "h"]
        assert [letter.label for letter in read_dead_letters(sidecar.root / "dead", disk=OsDisk())] == [
            "duplicate_key",
            "framing",
            "bad_json",
        ]
        assert sidecar.sample("tally_collector_events_total") == 9
        assert sidecar.sample("tally_collector_duplicates_total") == 3
        assert sidecar.sample("tally_collector_refused_total", reason="framing") == 1
        assert sidecar.sample("tally_collector_spool_waiting_events") == 0
        assert sidecar.sample("tally_collector_ack_waiting_groups") == 0

    run(tmp_path, story, store_patience_seconds=store_patience_seconds, breath_seconds=breath_seconds)


def test_a_group_that_takes_long_to_prepare_lets_others_have_their_turns(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        turns = 0
        seen: list[int] = []

        class Group(list[Arrival]):
            def __iter__(self) -> Iterator[Arrival]:
                for one in super().__iter__():
                    seen.append(turns)
                    yield one

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        assert await sidecar.intake.accept(Group(arrivals(*map(str, range(100))))) == Receipt(stored=100)
        other.cancel()
        # one for the others after each event, where none is quick enough
        assert seen == [0, *range(1, 100)]

    run(tmp_path, story, breath_seconds=0.0)


def test_the_intake_in_memory_keeps_the_contract() -> None:
    intake = MemoryIntake()
    asyncio.run(contract(intake))
    assert [event.body for event in intake.events] == ["a", "b", "c", "d", "e", "f", "g", "h", "h"]
    assert len(intake.dead) == 3


def test_an_intake_behind_mappings_keeps_the_contract() -> None:
    intake = MemoryIntake()
    rules = '[[mapping]]\nname = "m"\ntake = { event_name = "message" }\n'
    asyncio.run(contract(MappedIntake(intake, Mapper(read_mappings(rules, "test")))))
    assert [event.event_name for event in intake.events] == ["a", "b", "c", "d", "e", "f", "g", "h", "h"]
    assert len(intake.dead) == 3


def test_a_large_group_is_cut_and_recognised_when_it_comes_again(tmp_path: Path) -> None:
    bodies = [f"event {at}" for at in range(20_000)]

    async def story(sidecar: Sidecar) -> None:
        assert await sidecar.intake.accept(arrivals(*bodies), group_id=b"large") == Receipt(stored=20_000)
        assert await sidecar.intake.accept(arrivals(*bodies), group_id=b"large") == Receipt(duplicates=20_000)
        assert await asyncio.to_thread(sidecar.bodies) == bodies

    run(tmp_path, story)


def test_a_group_taken_in_part_is_stored_whole_though_a_setting_refuses_more_of_it_when_it_comes_again(
    tmp_path: Path,
) -> None:
    bodies = [f"event {at} {'x' * (2_000 if at == 5 else 100)}" for at in range(12_000)]
    size = sum(map(len, preparer().prepare(arrivals(*bodies)).events))

    async def story(sidecar: Sidecar) -> None:
        sidecar.store.down = "no route"
        await sidecar.intake.accept(arrivals(*bodies[:6_000]), group_id=b"another")
        with pytest.raises(Overloaded):
            await sidecar.intake.accept(arrivals(*bodies), group_id=b"large")
        assert 6_000 < sidecar.pipeline.next_sequence < 18_000, "a part of it is on disk"
        sidecar.pipeline._live.spool.limits = SpoolLimits()
        sidecar.store.down = ""
        intake = SpoolIntake(
            preparer=preparer(max_event_bytes=1_024),
            pipeline=sidecar.pipeline,
            dead_letters=sidecar.dead,
            metrics=sidecar.metrics,
        )
        assert (await intake.accept(arrivals(*bodies), group_id=b"large")).dead_lettered == 1
        assert sorted((await asyncio.to_thread(sidecar.bodies))[6_000:]) == sorted(bodies)

    run(tmp_path, story, total_bytes=2 * size)


def test_the_name_of_a_part_stands_for_the_same_arrivals_whatever_is_refused() -> None:
    def taken(refused: set[int], length: int) -> dict[bytes, set[bytes]]:
        kept = [b"%d" % at for at in range(20_000) if at not in refused]
        errors = [Refused(at=at, arrival=BAD, error=Malformed("no")) for at in sorted(refused)]
        empty = [b"" for _ in kept]
        prepared = Prepared(source_ids=empty, events=[at.ljust(length) for at in kept], facts=empty, refused=errors)
        return {group.group_id: {event.strip() for event in group.events} for group in groups_of(prepared, b"g")}

    every = {b"%d" % at for at in range(20_000)}
    settings = [(set[int](), 8), ({0, 7, 8_192}, 8), (set(range(9_000, 19_000)), 8), ({19_999}, 4_000)]
    sent = [({b"%d" % at for at in refused}, taken(refused, length)) for refused, length in settings]
    for dead, first in sent:
        assert set().union(*first.values()) | dead == every
        for _, again in sent:
            for name in first.keys() & again.keys():  # what is answered as taken was taken, or has a dead letter
                assert again[name] - first[name] <= dead


def test_a_group_that_is_longer_than_the_queue_is_taken_part_by_part(tmp_path: Path) -> None:
    bodies = [f"event {at} {'x' * 100}" for at in range(4 * MAX_GROUP_EVENTS)]

    async def story(sidecar: Sidecar) -> None:
        assert await sidecar.intake.accept(arrivals(*bodies), group_id=b"long") == Receipt(stored=len(bodies))

    run(tmp_path, story, queued_bytes=8 * 1024**2)


def test_every_cut_fits_into_a_frame_whatever_is_large() -> None:
    for events, facts, count in (
        (b"e" * 100, b"f" * 16_000, 5_000),
        (b"e" * 9 * 1024**2, b"f", 3),
        (b"e", b"f", 9_000),
    ):
        prepared = Prepared(source_ids=[b""] * count, events=[events] * count, facts=[facts] * count, refused=[])
        groups = list(groups_of(prepared, b"g"))
        assert sum(len(group.events) for group in groups) == count
        assert len({group.group_id for group in groups}) == len(groups) > 1
        for group in groups:
            assert len(group.events) <= MAX_GROUP_EVENTS
            assert sum(map(len, group.events)) + sum(map(len, group.facts)) <= 32 * 1024**2


def test_a_full_spool_is_overload_and_a_re_send_gives_no_doubles(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        intake = sidecar.intake
        await intake.accept(arrivals("x" * 900), group_id=b"first")
        with pytest.raises(Overloaded):
            await intake.accept([*arrivals("y" * 1_500), BAD], group_id=b"second")
        assert sidecar.pipeline.next_sequence == 1
        sidecar.pipeline._live.spool.limits = SpoolLimits()
        assert (await intake.accept([*arrivals("y" * 1_500), BAD], group_id=b"second")).stored == 1
        assert len(read_dead_letters(sidecar.root / "dead", disk=OsDisk())) == 1

    run(tmp_path, story, total_bytes=2_000)


def test_full_dead_letters_are_overload_and_nothing_of_the_group_is_taken(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        with pytest.raises(Overloaded, match="dead letters"):
            await sidecar.intake.accept([*arrivals("a"), BAD])
        with pytest.raises(Overloaded, match="dead letters"):
            await sidecar.intake.reject([Rejection(b"x", Malformed("bad"), Origin())])
        assert sidecar.pipeline.next_sequence == 0

    run(tmp_path, story, dead_bytes=50)


def test_many_dead_letters_share_syncs_and_what_was_kept_is_not_repeated(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        rejections = [Rejection(b"%d" % at, Malformed("bad", label="bad"), Origin()) for at in range(1_500)]
        with pytest.raises(Overloaded, match="dead letters"):
            await sidecar.intake.reject(rejections)
        assert len(rejections) == 1_500 - 2 * 512
        assert sidecar.sample("tally_collector_refused_total", reason="bad") == 2 * 512
        sidecar.dead.limit(10**6)
        await sidecar.intake.reject(rejections)
        assert rejections == []
        letters = read_dead_letters(sidecar.root / "dead", disk=OsDisk())
        assert [int(letter.text) for letter in letters] == list(range(1_500))
        assert sidecar.sample("tally_collector_refused_total", reason="bad") == 1_500

    run(tmp_path, story, dead_bytes=150_000)


def test_what_is_refused_before_and_behind_decoding_has_a_letter_each(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        undecoded = Rejection(b"?", Malformed("bad", label="bad"), Origin(), place_in(b"g", 0))
        for _ in range(2):
            await sidecar.intake.reject([undecoded])
            assert (await sidecar.intake.accept([BAD], group_id=b"g")).dead_lettered == 1
        assert len(read_dead_letters(sidecar.root / "dead", disk=OsDisk())) == 2

    run(tmp_path, story)


def test_a_card_number_in_the_id_of_a_record_is_on_no_disk(tmp_path: Path) -> None:
    card = b"4111111111111111"
    origin = Origin(receiver="ndjson")

    def arrival(**more: Any) -> Arrival:
        return arrival_of_record({"log.record.uid": f"auth-{card.decode()}-7", **more}, origin=origin)

    async def story(sidecar: Sidecar) -> None:
        assert await sidecar.intake.accept([arrival()]) == Receipt(stored=1)
        assert await sidecar.intake.accept([arrival()]) == Receipt(duplicates=1)
        for _ in range(2):
            assert (await sidecar.intake.accept([arrival(body=BAD.event.body)])).dead_lettered == 1
        assert len(read_dead_letters(sidecar.root / "dead", disk=OsDisk())) == 1
        sidecar.pipeline._journal.flush()

    run(tmp_path, story)
    written = [(path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()]
    assert {".seg", ".mdb", ".jsonl"} <= {path.suffix for path, _ in written}
    for path, data in written:
        assert card not in data, path
        assert card.hex().encode() not in data, path


def test_a_sender_that_goes_away_harms_nobody(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        gone = asyncio.ensure_future(sidecar.intake.accept(arrivals("a"), group_id=b"a"))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert (await sidecar.intake.accept(arrivals("b"))).stored == 1
        assert (await sidecar.intake.accept(arrivals("a"), group_id=b"a")) == Receipt(duplicates=1)

    run(tmp_path, story)


# -- ack = "store"


async def until_there_wait(sidecar: Sidecar, groups: int) -> None:
    while sidecar.sample("tally_collector_ack_waiting_groups") != groups:  # noqa: ASYNC110 - what operators see is not awaitable
        await asyncio.sleep(0.001)


def test_a_receipt_comes_when_the_store_has_every_event_of_the_group(tmp_path: Path) -> None:
    bodies = [f"event {at}" for at in range(20_000)]

    async def story(sidecar: Sidecar) -> None:
        receipt = await sidecar.intake.accept([*arrivals(*bodies), BAD], group_id=b"large")
        assert (receipt.stored, receipt.dead_lettered, [at for at, _ in receipt.refused]) == (20_000, 1, [20_000])
        assert sum(batch.signed.header.count for batch in next(iter(sidecar.store.batches.values())).values()) == 20_000

    run(tmp_path, story, store_patience_seconds=30.0)


def test_a_store_that_is_down_is_overload_in_time_and_the_re_send_waits_for_it_too(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        sidecar.store.down = "no route"
        for _ in range(3):  # the first copy and its re-sends: none of them may say yes
            with pytest.raises(Overloaded, match=r"kept, but the store has not taken it within 0\.05 s"):
                await sidecar.intake.accept(arrivals("a", "b"), group_id=b"g")
        assert sidecar.pipeline.next_sequence == 2  # kept, once
        assert sidecar.sample("tally_collector_events_total") == 2
        await until_there_wait(sidecar, 0)  # who was told waits no more
        sidecar.store.down = ""
        while True:  # the pipeline tries the store again after its own backoff
            try:
                receipt = await sidecar.intake.accept(arrivals("a", "b"), group_id=b"g")
                break
            except Overloaded:
                continue
        assert receipt == Receipt(duplicates=2)
        assert await asyncio.to_thread(sidecar.bodies) == ["a", "b"]

    run(tmp_path, story, store_patience_seconds=0.05)


def test_a_group_that_nobody_waits_for_does_not_wait_for_the_store(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        sidecar.store.down = "no route"
        assert await sidecar.intake.accept(arrivals("a"), heard=False) == Receipt(stored=1)

    run(tmp_path, story, store_patience_seconds=60.0)


def test_a_sender_that_goes_away_while_it_waits_for_the_store_is_forgotten(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        sidecar.store.down = "no route"
        gone = asyncio.ensure_future(sidecar.intake.accept(arrivals("a"), group_id=b"a"))
        await until_there_wait(sidecar, 1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await until_there_wait(sidecar, 0)

    run(tmp_path, story, store_patience_seconds=60.0)


# -- the recorder stands on the same parts


def test_what_the_recorder_returned_for_is_durable_and_shipped_under_its_ref(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        recorder = Recorder(pipeline=sidecar.pipeline, preparer=preparer())
        made = await asyncio.gather(
            *(asyncio.to_thread(recorder.record, Event(body=f"access {at}")) for at in range(20))
        )
        assert sorted(ref.sequence for ref in made) == list(range(20))
        bodies = await asyncio.to_thread(sidecar.bodies)
        assert [bodies[ref.sequence] for ref in made] == [f"access {at}" for at in range(20)]
        assert {ref.stream for ref in made} == set(sidecar.store.batches)
        with pytest.raises(Overloaded):
            recorder.record(Event(body="too late"))

    run(tmp_path, story)


def test_the_recorder_refuses_what_it_cannot_take(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        recorder = Recorder(pipeline=sidecar.pipeline, preparer=preparer())
        with pytest.raises(Malformed):
            await asyncio.to_thread(recorder.record, BAD.event)
        assert sidecar.pipeline.next_sequence == 0

    run(tmp_path, story)


class QuickDisk(OsDisk):
    """Counts the syncs of segments, and makes none."""

    syncs = 0

    def append_to(self, path: Path, *, reserve_bytes: int = 0) -> AppendFile:
        disk, file = self, super().append_to(path, reserve_bytes=reserve_bytes)

        class File:
            write, size, close = file.write, file.size, file.close

            def sync(self) -> None:
                disk.syncs += path.suffix == ".seg"

        return File()


def test_a_sender_alone_is_committed_at_once_and_many_of_a_turn_share_a_sync(tmp_path: Path) -> None:
    async def story(at: Sidecar) -> None:
        for name in map(str, range(1_000)):  # until the committing thread, which knew the disk first, is at rest
            alone = asyncio.ensure_future(at.intake.accept(arrivals(name)))
            if alone.done():
                break  # in the very turn in which it came
            await alone
            await asyncio.sleep(0.001)
        else:
            raise AssertionError("a sender alone was never committed in its turn")
        await asyncio.sleep(0)  # the turn is over
        before = disk.syncs
        turn = [asyncio.ensure_future(at.intake.accept(arrivals(str(n)))) for n in range(5)]
        assert [future.done() for future in turn] == [True, False, False, False, False]
        await asyncio.gather(*turn)
        assert disk.syncs - before == 2
        before = disk.syncs
        turn = [asyncio.ensure_future(at.intake.accept(arrivals(str(n)))) for n in range(5)]
        assert not any(future.done() for future in turn)  # they were many before, so they share
        await asyncio.gather(*turn)
        assert disk.syncs - before == 1

    disk = QuickDisk()
    run(tmp_path, story, disk=disk, monotonic=lambda: 0.0)


def test_a_request_is_counted_when_it_is_stored_and_once(tmp_path: Path) -> None:
    """A re-send is no second request, not even one that brings something new along."""

    def spans(*names: str) -> list[Arrival]:
        made = [Event(span=Span(name=name, kind="SERVER"), resource={"service.name": "shop"}) for name in names]
        return [Arrival(event=event, source_id=b"span" + event.name.encode()) for event in made]

    async def story(sidecar: Sidecar) -> None:
        def counted(name: str) -> float | None:
            labels = {"service": "shop", "operation": name, "kind": "server", "outcome": "success"}
            return sidecar.sample("tally_service_requests_total", **labels)

        await sidecar.intake.accept(spans("a", "b"), group_id=b"g1")
        await sidecar.intake.accept(spans("a", "b"), group_id=b"g1")
        await sidecar.intake.accept([*arrivals("log"), *spans("b", "c"), BAD, *spans("d", "a", "d")], group_id=b"g2")
        assert [counted(name) for name in "abcd"] == [1, 1, 1, 1]
        many = [Arrival(event=Event(span=Span(name="e", kind="SERVER"), resource={"service.name": "shop"}))] * 20_000
        await sidecar.intake.accept(many, group_id=b"g3")
        await sidecar.intake.accept(many, group_id=b"g3")
        assert counted("e") == 20_000

    run(tmp_path, story)
