"""The correlator's steps, from store to log to index: what it makes of batches, whatever order, gap, fork or failure."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.batch import Batch, Fork, SignedHeader, StreamId
from collector.event import Access, Event
from collector.store.sqlite import SqliteStore
from correlator.entry import Entry, encode_entry
from correlator.errors import Overloaded, StateUnknown
from correlator.index import IndexedLeaf, TrailQuery
from correlator.index.memory import MemoryIndex
from correlator.index.sqlite import SqliteIndex
from correlator.log import AuditLog
from correlator.settings import CorrelatorSettings
from correlator.storage.memory import MemoryStorage
from tests.support.correlating import Correlating, stitched
from tests.support.memory_store import MemoryStore
from tests.support.shipper import START_NS, TRACE, Shipper, key_of, pay

SECOND = 1_000_000_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Correlating]:
    made = Correlating(folder=tmp_path)
    yield made
    made.close()


def renumbered(shipper: Shipper, *, number: int, sequence: int) -> Shipper:
    """Let the next batch follow another one than it would; whatever is before it, it names nothing that is."""
    shipper.number, shipper.sequence, shipper.previous = number, sequence, "ab" * 32
    return shipper


def stream_of(shipper: Shipper) -> str:
    return f"stream/{shipper.stream}"


# ----------------------------------------------------------------------------------------------------------- the way


def test_from_store_to_log_to_index(world: Correlating) -> None:
    shipper = Shipper()
    world.store.append(
        shipper.batch(
            pay("p1", trace_id=TRACE, keys={"order_id": "o1"}),
            pay("p1", event_name="charged", service="ledger"),
            pay(trace_id=TRACE),
            pay(),
            found={"transaction": "attributes.payment_id", "order_id": "rule 2"},
        )
    )
    world.run()
    entries = world.entries()
    assert [(entry.kind, entry.trail) for entry in entries] == [
        ("enrolment", "ledger/enrolments"),
        ("batch", stream_of(shipper)),
        ("event", "transaction/p1"),
        ("link", "transaction/p1"),
        ("link", "key/order_id/o1"),
        ("link", "transaction/p1"),
        ("link", f"trace/{TRACE}"),
        ("event", "transaction/p1"),
        ("event", f"trace/{TRACE}"),
        ("event", stream_of(shipper)),
    ]
    assert entries[0].detail == {
        "stream": shipper.stream,
        "key": shipper.public,
        "how": "first use",
        "role": "collector",
    }
    assert [entry.why for entry in entries if entry.kind == "event"] == [
        "transaction: attributes.payment_id",
        "transaction: attributes.payment_id",
        "trace",
        "stream",
    ]
    assert entries[4].detail == {"to": "transaction/p1"}
    assert entries[4].why == f"key order_id: rule 2 (event 0 of {shipper.stream})"
    assert world.index.size() == len(entries)
    summary = world.index.trail("transaction/p1")
    assert summary.services == ("gateway", "ledger")
    assert summary.links == ("key/order_id/o1", f"trace/{TRACE}")
    assert world.store.acknowledged(StreamId(shipper.stream)) == 1
    assert world.run() == 0


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_many_batches_of_many_streams_in_bounded_steps(world: Correlating, kind: str) -> None:
    if kind == "sqlite":
        world.store = SqliteStore(world.folder / "store.sqlite")
    world.settings = CorrelatorSettings(step_entries=50, streams_a_step=3)
    shippers = [Shipper(f"s{number}/0123456789abcdef") for number in range(7)]
    for at in range(20):
        for number, shipper in enumerate(shippers):
            world.store.append(shipper.batch(*(pay(f"t{(at + n) % 5}", body=f"{number} {at} {n}") for n in range(9))))
    correlator = world.open()
    sizes = []
    while made := correlator.step():
        sizes.append(made)
    world.run()
    assert max(sizes) <= 50 + 2 * 9 + 4
    entries = world.entries()
    assert sum(entry.kind == "event" for entry in entries) == 7 * 20 * 9
    for shipper in shippers:
        told = [(entry.stream, entry.sequence) for entry in entries if entry.stream == shipper.stream]
        assert told == [(shipper.stream, sequence) for sequence in range(180)]
        assert world.store.acknowledged(StreamId(shipper.stream)) == 20
    world.close()
    world.store.close()


def test_accesses_count_only_from_enrolled_recorders(world: Correlating) -> None:
    recorder, other = Shipper("api/0123456789abcdef"), Shipper()
    access = Event(access=Access(principal="ann", action="read", trail="transaction/p1"), transaction="p1")
    for shipper in (recorder, other):
        world.store.append(shipper.batch(access))
    world.run()
    assert [entry.stream for entry in world.of("access/ann")] == [recorder.stream]
    assert [entry.stream for entry in world.of("transaction/p1")] == [other.stream]
    assert world.details("enrolment")[0]["role"] == "recorder"
    assert world.details("link") == []


@given(data=st.data())
@settings(max_examples=40)
def test_any_order_of_arrival_gives_the_same_trails(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any interleaving of streams, any splitting into steps, restarts in between, late batches: the same trails and links."""
    traces = [f"{n:032x}" for n in range(1, 4)]
    event = st.builds(
        pay,
        st.sampled_from(["", "", "p1", "p2"]),
        trace_id=st.sampled_from(["", *traces]),
        keys=st.dictionaries(st.sampled_from(["order", "user"]), st.sampled_from(["1", "2"])),
        body=st.integers(0, 10**9),
    )
    batches: list[list[Batch]] = []
    for number in range(data.draw(st.integers(1, 3))):
        shipper = Shipper(f"s{number}/0123456789abcdef")
        groups = data.draw(st.lists(st.lists(event, max_size=4), min_size=1, max_size=4))
        batches.append(
            [
                shipper.batch(*(msgspec.structs.replace(e, body=f"{number} {at} {n}") for n, e in enumerate(group)))
                for at, group in enumerate(groups)
            ]
        )
    results = []
    for turn in range(2):
        world = Correlating(folder=tmp_path_factory.mktemp("any"))
        world.settings = CorrelatorSettings(key_order=("order",), missing_poll_seconds=3_600, step_entries=8)
        everything = [batch for stream in batches for batch in stream]
        if turn:
            everything = data.draw(st.permutations(everything))
        for batch in everything:
            world.store.append(batch)
            if turn and data.draw(st.booleans()):
                world.run()
                if data.draw(st.booleans()):
                    world.kill()
        world.run()
        results.append(stitched(world.entries()))
        missing = [gap for stream in world.correlator._state.streams.values() for gap in stream.missing]  # type: ignore[union-attr]
        assert missing == []
        world.close()
    assert results[0] == results[1]


# -------------------------------------------------------------------------------------------------- gaps, forks, keys


def test_a_deleted_batch_is_named_and_the_rest_goes_on(world: Correlating) -> None:
    shipper, other = Shipper(), Shipper("ledger/0123456789abcdef")
    kept, _lost, after = (shipper.batch(pay("p1"), pay("p1")) for _ in range(3))
    for batch in (kept, after, other.batch(pay("p2"))):
        world.store.append(batch)
    world.run()
    (gap,) = [entry for entry in world.of(stream_of(shipper)) if entry.kind == "gap"]
    assert gap.detail == {
        "reason": "missing",
        "first_number": 2,
        "last_number": 2,
        "first_sequence": 2,
        "last_sequence": 3,
    }
    assert [entry.sequence for entry in world.of("transaction/p1")] == [0, 1, 4, 5]
    assert len(world.of("transaction/p2")) == 1
    assert world.index.trail(stream_of(shipper)).status == "gap"
    assert world.store.acknowledged(StreamId(shipper.stream)) == 1, "the spool keeps what the log does not have"
    assert world.run() == 0, "a gap is told once"


def test_late_batches_fill_their_gap_in_any_order(world: Correlating) -> None:
    shipper = Shipper()
    batches = [shipper.batch(pay("p1", body=number)) for number in range(6)]
    for at in (0, 5):
        world.store.append(batches[at])
    world.run()
    (leaf,) = [at for at, entry in enumerate(world.entries()) if entry.kind == "gap"]
    for at in (3, 1, 4, 2):
        world.store.append(batches[at])
        world.run()
        if at == 1:
            world.kill()  # what is still missing is known again from the log
    late = [entry.why for entry in world.of(stream_of(shipper)) if entry.kind == "batch"][2:]
    assert late == [f"late: fills the gap at leaf {leaf}"] * 4
    assert sorted(entry.sequence for entry in world.of("transaction/p1")) == list(range(6))
    assert world.store.acknowledged(StreamId(shipper.stream)) == 6


def test_late_batches_of_a_large_gap_are_found_though_its_first_ones_are_lost(world: Correlating) -> None:
    shipper = Shipper()
    batches = [shipper.batch(pay("p1")) for _ in range(300)]
    for at in (0, 199, 299):
        world.store.append(batches[at])
    world.run()
    for at in range(150, 250):  # numbers 151 to 250; 2 to 150 and 251 to 299 are lost for good
        if at != 199:
            world.store.append(batches[at])
    for _ in range(5):  # 297 numbers, 64 a turn
        world.run()
    correlator = world.correlator
    assert correlator is not None
    gaps = correlator._state.streams[shipper.stream].missing
    assert [(gap.first, gap.last) for gap in gaps] == [(2, 150), (251, 299)]
    world.store.append(batches[1])
    for _ in range(4):  # round again
        world.run()
    assert [(gap.first, gap.last) for gap in gaps] == [(3, 150), (251, 299)]
    assert len(world.of("transaction/p1")) == 103


def test_a_stream_that_does_not_begin_with_its_first_batch(world: Correlating) -> None:
    shipper = Shipper()
    first, second = shipper.batch(pay("p1")), shipper.batch(pay("p1"))
    world.store.append(second)
    world.run()
    assert world.details("gap")[0] == {
        "reason": "first_late",
        "first_number": 1,
        "last_number": 1,
        "first_sequence": 0,
        "last_sequence": 0,
    }
    world.store.append(first)
    world.run()
    assert len(world.of("transaction/p1")) == 2


def test_a_late_batch_that_does_not_fit_is_a_fork(world: Correlating) -> None:
    shipper = Shipper()
    world.store.append(shipper.batch(pay("p1")))
    clone = shipper.clone()
    shipper.batch(pay("p1"))
    forged = clone.batch(pay("forged"))
    after = shipper.batch(pay("p1"))
    world.store.append(after)
    world.run()
    world.store.append(forged)
    world.run()
    assert world.details("fork") == [
        {"number": 2, "logged": after.signed.header.previous, "found": forged.signed.digest}
    ]
    assert world.of("transaction/forged") == []
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    assert len(world.of("transaction/p1")) == 3, "the stream goes on"
    assert world.run() == 0, "told once"
    world.kill()
    assert world.run() == 0, "even after a restart"


def test_a_late_batch_that_chains_to_another_is_a_fork_and_told_once(world: Correlating) -> None:
    shipper = Shipper()
    world.store.append(shipper.batch(pay("p1")))
    other = Shipper(shipper.stream)
    other.batch(pay("another"))
    forged = other.batch(pay("forged"))
    shipper.batch(pay("p1"))
    shipper.batch(pay("p1"))
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    world.store.append(forged)
    world.run()
    (fork,) = world.details("fork")
    assert (fork["number"], fork["found"], fork.get("frozen")) == (1, forged.signed.header.previous, None)
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    assert len(world.of("transaction/p1")) == 3
    world.kill()
    assert world.run() == 0


@pytest.mark.parametrize(
    ("forger", "reason"),
    [
        (Shipper(key=key_of(7)), "not_enrolled"),
        (Shipper(ledger="ledger.example/other"), "not_enrolled"),
        (None, "bad_chain"),
    ],
)
def test_a_late_batch_that_does_not_fit_is_told_once_and_stops_nothing(
    world: Correlating, forger: Shipper | None, reason: str
) -> None:
    assert isinstance(world.store, MemoryStore)
    shipper = Shipper()
    batches = [shipper.batch(pay("p1")) for _ in range(12)]
    for at in (0, 5):
        world.store.append(batches[at])
    world.run()
    forger = renumbered(forger or shipper.clone(), number=2, sequence=2 if forger else 0)
    forged = forger.batch(pay("forged"))
    world.store.append(forged)
    for at in range(6, 10):
        world.store.append(batches[at])
        world.run()
    assert [gap["reason"] for gap in world.details("gap")] == ["missing", reason]
    world.kill()
    world.store.append(batches[10])
    world.run()
    world.store.append(batches[2 - 1])  # its neighbour fills a part of the gap
    world.run()
    assert [gap["reason"] for gap in world.details("gap")] == ["missing", reason], "told once, even after a restart"
    assert world.of("transaction/forged") == []
    del world.store.batches[StreamId(shipper.stream)][3]
    for at in (2, 3, 4, 11):
        world.store.append(batches[at])
    world.run()
    assert len(world.of("transaction/p1")) == 12, "what was missing is taken in the forged one's place"
    world.close()
    assert world.run() == 0


def test_a_late_batch_says_nothing_of_how_its_stream_goes_on(world: Correlating) -> None:
    shipper, quiet = Shipper(), Shipper("cron/0123456789abcdef")
    late = []
    for one in (shipper, quiet):
        world.store.append(one.batch(pay("p1")))
        late.append(one.batch(pay("p1")))
        world.store.append(one.batch(pay("p1")))
    world.run()
    world.store.append(shipper.clone().batch(pay("bad"), ledger="ledger.example/other"))
    world.now_ns += 200 * SECOND
    world.run()
    told = [gap["reason"] for gap in world.details("gap")]
    assert sorted(told) == ["missing", "missing", "not_enrolled", "silent"]
    for batch in late:
        world.store.append(batch)
    world.now_ns += 200 * SECOND
    world.run()
    assert len(world.of("transaction/p1")) == 6
    correlator = world.correlator
    assert correlator is not None
    for state in ("stopped", "silent"):
        sample = correlator.metrics.registry.get_sample_value("tally_correlator_streams", {"state": state})
        assert sample == 1, state
    assert [gap["reason"] for gap in world.details("gap")] == told
    world.kill()
    world.run()
    assert [gap["reason"] for gap in world.details("gap")] == told


def test_a_cloned_spool_is_named_with_both_hashes_and_the_rest_goes_on(world: Correlating) -> None:
    shipper, other = Shipper(), Shipper("ledger/0123456789abcdef")
    world.store.append(shipper.batch(pay("p1")))
    clone = shipper.clone()
    mine = shipper.batch(pay("mine"))
    clone.batch(pay("cloned"))
    after = clone.batch(pay("cloned"))  # chains to the clone's batch 2, while the store holds mine
    for batch in (mine, after, other.batch(pay("p2"))):
        world.store.append(batch)
    world.run()
    (fork,) = [entry for entry in world.of(stream_of(shipper)) if entry.kind == "fork"]
    assert fork.detail == {
        "number": 2,
        "logged": mine.signed.digest,
        "found": after.signed.header.previous,
        "frozen": True,
    }
    assert world.of("transaction/cloned") == []
    assert len(world.of("transaction/p2")) == 1
    world.store.append(clone.batch(pay("cloned")))
    assert world.run() == 0, "nothing more of it is accepted, and it is told once"


def test_a_new_stream_tells_of_the_fork_that_it_left(world: Correlating) -> None:
    old = Shipper("gateway/0123456789abcdef")
    world.store.append(old.batch(pay("p1")))
    clone = old.clone()
    stored = old.batch(pay("p1"))
    world.store.append(stored)
    refused = clone.batch(pay("p2"))
    new = Shipper("gateway/fedcba9876543210")
    fork = Fork(stream=old.stream, number=2, digest=refused.signed.digest)
    world.store.append(new.batch(pay("p2"), fork=fork))
    stranger = Shipper("stranger/fedcba9876543210", key=key_of(7))
    world.store.append(stranger.batch(fork=fork))
    world.run()
    (told,) = world.details("fork")
    assert told == {"number": 2, "logged": stored.signed.digest, "found": refused.signed.digest}
    world.store.append(old.batch(pay("p3")))
    world.run()
    assert len(world.of("transaction/p3")) == 1, "the stream that the store knows goes on"


@pytest.mark.parametrize("what", ["key", "ledger", "first", "silently shifted"])
def test_a_batch_that_does_not_follow_stops_its_stream_alone(world: Correlating, what: str) -> None:
    shipper, other = Shipper(), Shipper("ledger/0123456789abcdef")
    world.store.append(shipper.batch(pay("p1")))
    if what == "key":
        bad = Shipper(shipper.stream, key=key_of(9))
        bad.number, bad.sequence, bad.previous = shipper.number, shipper.sequence, shipper.previous
        batch, reason = bad.batch(pay("bad")), "not_enrolled"
    elif what == "ledger":
        batch, reason = shipper.batch(pay("bad"), ledger="ledger.example/other"), "not_enrolled"
    else:
        batch, reason = shipper.batch(pay("bad"), first=7 if what == "first" else 0), "bad_chain"
    world.store.append(batch)
    world.store.append(other.batch(pay("p2")))
    world.run()
    (gap,) = world.details("gap")
    assert (gap["reason"], gap["first_number"]) == (reason, 2)
    assert world.of("transaction/bad") == []
    assert len(world.of("transaction/p2")) == 1
    world.kill()
    assert world.run() == 0, "told once, even after a restart"


@pytest.mark.parametrize(
    "changed", [{"heartbeat_seconds": 2**64}, {"first": 2**64, "number": 7, "previous": "ab" * 32}]
)
def test_a_signed_number_that_nothing_has_room_for_stops_its_stream_alone(
    world: Correlating, changed: dict[str, Any]
) -> None:
    bad, other = Shipper(), Shipper("ledger/0123456789abcdef")
    world.store.append(bad.batch(pay("p1"), **changed))
    world.store.append(other.batch(pay("p2")))
    world.run()
    assert world.of("transaction/p1") == []
    assert len(world.of("transaction/p2")) == 1
    world.close()  # writes the state out
    assert world.run() == 0


@pytest.mark.parametrize("collector", ["gateway", "artifacts"])  # a name may have any word in it
@pytest.mark.parametrize("what", ["signature", "facts", "header"])
def test_a_damaged_batch_stops_its_stream_until_it_is_mended(world: Correlating, what: str, collector: str) -> None:
    assert isinstance(world.store, MemoryStore)
    shipper, other = Shipper(f"{collector}/0123456789abcdef"), Shipper("ledger/0123456789abcdef")
    good = [shipper.batch(pay("p1", body=number)) for number in range(4)]
    for batch in (*good, other.batch(pay("p2"))):
        world.store.append(batch)
    signed = good[2].signed
    damaged = {
        "signature": replace(signed, signature=bytes(64)),
        "facts": replace(signed, facts=signed.facts.replace(b"p1", b"pX")),
        "header": replace(signed, data=signed.data.replace(b'"count":1', b'"count":2')),
    }[what]
    world.store.batches[StreamId(shipper.stream)][3] = replace(good[2], signed=damaged)
    world.run()
    (gap,) = world.details("gap")
    assert (gap["reason"], gap["first_number"]) == ("bad_facts" if what == "facts" else "bad_signature", 3)
    assert len(world.of("transaction/p1")) == 2
    assert len(world.of("transaction/p2")) == 1
    assert world.run() == 0
    world.store.batches[StreamId(shipper.stream)][3] = good[2]
    world.run()
    assert len(world.of("transaction/p1")) == 4, "the right batch is back, and what follows it is believed again"


def test_facts_that_no_collector_writes_never_reach_the_log(world: Correlating) -> None:
    from collector.batch import facts_root, sign_header

    shipper = Shipper()
    batch = shipper.batch(pay("p1"))
    for line in (
        b'{"digest": "00"}',
        b'{"digest":"00","unknown":1}',
        b"[]",
        b'{"digest":"' + b"0" * 64 + b'","service":"' + b"x" * 16_300 + b'"}',
    ):
        header = msgspec.structs.replace(batch.signed.header, facts_root=facts_root([line]))
        signed = sign_header(header, key_of(1), line + b"\n")
        world.store = MemoryStore()
        world.storage = MemoryStorage()
        world.index = MemoryIndex()
        world.store.append(replace(batch, signed=signed))
        world.run()
        assert [entry.detail["reason"] for entry in world.entries() if entry.kind == "gap"] == ["bad_facts"]
        world.close()


@pytest.mark.parametrize(
    "name", [b"shoP/00000000000000aa", b"sh/op/00000000000000aa", b"\xffhop/00000000000000aa", b""]
)
def test_a_damaged_name_in_the_stores_list_of_streams_stops_nobody_else(world: Correlating, name: bytes) -> None:
    path = world.folder / "store.sqlite"
    world.store = SqliteStore(path)
    world.index = SqliteIndex(world.folder / "index.sqlite")
    good, bad = Shipper(), Shipper("shop/00000000000000aa")
    world.store.append(good.batch(pay("p1")))
    world.store.append(bad.batch(pay("p2")))

    def rename(old: bytes, new: bytes) -> None:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE streams SET stream = CAST(? AS TEXT) WHERE stream = CAST(? AS TEXT)", (new, old))

    rename(bad.stream.encode(), name)
    correlator = world.open()
    world.run()
    assert world.details("gap") == []
    assert len(world.of("transaction/p1")) == 1
    assert correlator.metrics.registry.get_sample_value("tally_correlator_illegal_streams") == 1
    rename(name, bad.stream.encode())
    world.run()
    assert len(world.of("transaction/p2")) == 1
    assert correlator.metrics.registry.get_sample_value("tally_correlator_illegal_streams") == 0
    world.close()
    world.index.close()
    world.store.close()


def test_a_name_of_any_length_in_the_stores_list_is_passed_over(
    world: Correlating, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(world.store, MemoryStore)
    batch = Shipper().batch(pay("p1"))
    for name in ("x" * 70_000, "y" * 70_000):
        world.store.batches[StreamId(name)] = {1: batch}
    world.store.append(batch)
    world.run()
    world.run()
    assert [entry.kind for entry in world.entries()] == ["enrolment", "batch", "event"]
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert (record.__dict__["count"], record.__dict__["streams"]) == (2, ["x" * 100, "y" * 100])


def test_a_log_that_holds_a_trail_that_cannot_be_goes_on(world: Correlating) -> None:
    """Written by an earlier version, of a name in the store's list of streams that nobody had looked at."""
    shipper = Shipper()
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    world.close()
    detail = {"reason": "bad_signature", "first_number": 1, "last_number": 1, "first_sequence": 0, "last_sequence": -1}
    recorded = world.entries()[-1].recorded
    gap = Entry(v=1, trail="stream/shoP/00000000000000aa", position=0, kind="gap", recorded=recorded, detail=detail)
    with AuditLog.open(world.storage, world.signer, clock=world.clock, writer_id="old") as log:
        log.append([encode_entry(gap)])
        log.publish()
    world.index = SqliteIndex(world.folder / "index.sqlite")
    world.store.append(shipper.batch(pay("p2")))
    world.run()
    assert world.index.size() == len(world.entries())
    assert len(world.of("transaction/p2")) == 1
    world.close()
    world.index.close()


def test_silence_is_told_once_and_ends(world: Correlating) -> None:
    shipper, quiet = Shipper(heartbeat_seconds=60), Shipper("cron/0123456789abcdef", heartbeat_seconds=0)
    world.store.append(shipper.batch(pay("p1")))
    world.store.append(quiet.batch(pay("p1")))
    world.run()
    world.now_ns += 179 * SECOND
    assert world.run() == 0
    world.now_ns += 2 * SECOND
    world.run()
    (gap,) = world.details("gap")
    assert gap == {
        "reason": "silent",
        "first_number": 2,
        "last_number": -1,
        "first_sequence": 1,
        "last_sequence": -1,
    }
    world.now_ns += 1_000 * SECOND
    assert world.run() == 0
    world.store.append(shipper.batch())
    world.run()
    world.now_ns += 181 * SECOND
    world.run()
    assert [detail["first_number"] for detail in world.details("gap")] == [2, 3]


@pytest.mark.parametrize("what", ["the store was away", "the machine slept"])
def test_nobody_is_called_silent_for_a_time_in_which_nobody_was_asked(world: Correlating, what: str) -> None:
    assert isinstance(world.store, MemoryStore)
    world.settings = CorrelatorSettings(streams_a_step=2, missing_poll_seconds=3_600)
    shippers = [Shipper(f"s{number}/0123456789abcdef", heartbeat_seconds=60) for number in range(6)]
    for shipper in shippers:
        world.store.append(shipper.batch(pay("p1")))
    world.run()
    for _ in range(4):
        world.now_ns += 60 * SECOND
        if what == "the store was away":
            world.store.down = "away"
            with pytest.raises(Overloaded):
                world.run()
    world.store.down = ""
    *speaking, silent = shippers
    for shipper in speaking:
        world.store.append(shipper.batch())
    world.run()
    assert [entry.trail for entry in world.entries() if entry.kind == "gap"] == [stream_of(silent)]


def test_a_closed_stream_is_not_silent_and_a_restart_gives_time_to_speak(world: Correlating) -> None:
    closed, open_ = Shipper(), Shipper("ledger/0123456789abcdef")
    world.store.append(closed.batch(pay("p1"), closed=True))
    world.store.append(open_.batch(pay("p1")))
    world.run()
    world.close()
    world.now_ns += 3_600 * SECOND
    assert world.run() == 0
    world.now_ns += 181 * SECOND
    world.run()
    assert [entry.trail for entry in world.entries() if entry.kind == "gap"] == [stream_of(open_)]


def test_listed_keys_alone_may_sign_where_keys_are_listed(world: Correlating) -> None:
    listed, wrong, unlisted = (
        Shipper(),
        Shipper("gateway/1111111111111111", key=key_of(8)),
        Shipper("x/0123456789abcdef"),
    )
    world.settings = CorrelatorSettings(
        enrolled={"gateway": (listed.public,)}, enrol_on_first_use=False, missing_poll_seconds=3_600
    )
    for shipper in (listed, wrong, unlisted):
        world.store.append(shipper.batch(pay("p1")))
    world.run()
    assert [detail["how"] for detail in world.details("enrolment")] == ["configured"]
    assert [detail["reason"] for detail in world.details("gap")] == ["not_enrolled"] * 2
    assert [entry.stream for entry in world.of("transaction/p1")] == [listed.stream]


def test_on_first_use_a_second_key_of_the_same_collector_is_refused_even_after_a_restart(world: Correlating) -> None:
    world.store.append(Shipper("gateway/1111111111111111").batch(pay("p1")))
    world.run()
    world.close()
    world.store.append(Shipper("gateway/2222222222222222").batch(pay("p1")))
    world.store.append(Shipper("gateway/3333333333333333", key=key_of(8)).batch(pay("p1")))
    world.run()
    assert [detail["stream"][-1] for detail in world.details("enrolment")] == ["1", "2"]
    assert world.details("gap")[0]["reason"] == "not_enrolled"


# --------------------------------------------------------------------------------------------------------- failures


def test_a_clock_that_steps_back_is_flagged_and_time_does_not_go_back(world: Correlating) -> None:
    shipper = Shipper()
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    world.now_ns -= 3_600 * SECOND
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    world.now_ns = START_NS + SECOND
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    events = world.of("transaction/p1")
    assert [entry.clock_stepped for entry in events] == [False, True, False]
    assert events[0].recorded == events[1].recorded < events[2].recorded


class Refusing(MemoryStorage):
    """A log storage that fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fail_stage: Exception | None = None
        self.fail_swap: Exception | None = None

    def stage(self, name: str, data: bytes) -> None:
        if self.fail_stage is not None:
            raise self.fail_stage
        super().stage(name, data)

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        if self.fail_swap is not None:
            raise self.fail_swap
        super().swap_head(old, new)


def test_an_overloaded_log_loses_and_doubles_nothing(world: Correlating) -> None:
    storage = world.storage = Refusing()
    shipper = Shipper()
    world.store.append(shipper.batch(pay("p1")))
    correlator = world.open()
    storage.fail_stage = Overloaded("the disk is full")
    for _ in range(3):
        with pytest.raises(Overloaded):
            correlator.step()
    assert world.store.acknowledged(StreamId(shipper.stream)) == 0
    storage.fail_stage = None
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    assert [entry.sequence for entry in world.of("transaction/p1")] == [0, 1]
    assert world.index.size() == len(world.entries())


@pytest.mark.parametrize("where", ["fail_stage", "fail_swap"])
def test_a_failed_publish_stops_it_and_opening_again_goes_on(world: Correlating, where: str) -> None:
    storage = world.storage = Refusing()
    shipper = Shipper()
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    world.store.append(shipper.batch(pay("p1")))
    setattr(storage, where, OSError("gone"))
    correlator = world.correlator
    assert correlator is not None
    for _ in range(2):
        with pytest.raises(StateUnknown):
            correlator.step()
    assert not correlator.alive()
    setattr(storage, where, None)
    world.close()
    world.run()
    assert [entry.sequence for entry in world.of("transaction/p1")] == [0, 1]


class Forgetful(MemoryStore):
    """A store that gives what is next, and does not answer for single batches while it is told not to."""

    busy = False

    def batch(self, stream: StreamId, number: int) -> SignedHeader | None:
        if self.busy:
            raise Overloaded("busy")
        return super().batch(stream, number)


def test_a_store_that_does_not_answer_for_a_fork_loses_nothing(world: Correlating) -> None:
    store = world.store = Forgetful()
    world.settings = CorrelatorSettings(missing_poll_seconds=3_600, step_entries=2)
    old, heir = Shipper("gateway/0123456789abcdef"), Shipper("gateway/fedcba9876543210")
    other = Shipper("ledger/0123456789abcdef")
    store.append(old.batch(pay("p1")))
    world.run()
    store.append(other.batch(pay("p2")))
    for number in range(3):
        told = Fork(stream=old.stream, number=2, digest="ab" * 32) if number == 0 else None
        store.append(heir.batch(pay("p3", body=number), fork=told))
    store.busy = True
    for _ in range(3):
        with pytest.raises(Overloaded):
            world.run()
    store.busy = False
    world.run()
    assert world.details("gap") == []
    assert len(world.details("fork")) == 1
    assert [entry.sequence for entry in world.of("transaction/p3")] == [0, 1, 2]
    assert len(world.of("transaction/p2")) == 1


class LazyIndex(MemoryIndex):
    """An index that does not answer while it is told not to."""

    busy = False

    def apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        if self.busy:
            raise Overloaded("busy")
        super().apply(leaves)


def test_an_index_that_did_not_answer_catches_up_from_the_log(world: Correlating) -> None:
    index = world.index = LazyIndex()
    shipper = Shipper()
    correlator = world.open()
    index.busy = True
    for _ in range(3):
        world.store.append(shipper.batch(pay("p1")))
        with pytest.raises(Overloaded):
            correlator.step()
    assert index.size() == 0
    index.busy = False
    world.run()
    assert index.size() == len(world.entries())
    assert index.trail("transaction/p1").entries == 3


def test_an_index_that_is_behind_or_of_another_log_is_mended_at_the_start(world: Correlating) -> None:
    shipper = Shipper()
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    world.kill()
    world.index = MemoryIndex()
    world.open()
    assert world.index.size() == len(world.entries())
    page = world.index.find(TrailQuery(transaction="p1"), size=100)
    assert [trail.trail for trail in page.trails] == ["transaction/p1"]
    world.close()
    world.storage, world.store = MemoryStorage(), MemoryStore()
    world.open()
    assert world.index.size() == 0


class Flaky(MemoryStore):
    """A store that does not answer when told so, and tells when it was asked and when it was acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = True
        self.failed = threading.Event()
        self.acknowledgement = threading.Event()

    def batches_after(self, frontier: Mapping[StreamId, int], limit: int) -> Sequence[SignedHeader]:
        if not self.answers:
            self.failed.set()
            raise Overloaded("the store does not answer", retry_after_seconds=0.01)
        return super().batches_after(frontier, limit)

    def acknowledge(self, frontier: Mapping[StreamId, int], *, part: int = 1, parts: int = 1) -> None:
        super().acknowledge(frontier, part=part, parts=parts)
        self.acknowledgement.set()


def test_the_loop_goes_on_through_a_store_that_does_not_answer_and_stops_when_told(world: Correlating) -> None:
    store = world.store = Flaky()
    world.settings = CorrelatorSettings(poll_min_seconds=0.001, poll_max_seconds=0.002)
    shipper = Shipper()
    store.append(shipper.batch(pay("p1")))
    correlator = world.open()
    store.answers = False
    stop = threading.Event()
    thread = threading.Thread(target=correlator.run, args=(stop,))
    thread.start()
    assert store.failed.wait(10)
    assert correlator.alive()
    assert not correlator.ready()
    store.answers = True
    assert store.acknowledgement.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert correlator.ready()
    assert len(world.of("transaction/p1")) == 1


def test_a_step_that_finds_nothing_has_asked_every_stream(world: Correlating) -> None:
    world.settings = CorrelatorSettings(streams_a_step=1, missing_poll_seconds=3_600)
    shippers = [Shipper(f"s{number}/0123456789abcdef") for number in range(5)]
    for shipper in shippers:
        world.store.append(shipper.batch(pay("p1")))
    correlator = world.open()
    assert correlator.step() > 0  # the first stream; the round goes on with the others
    for shipper in shippers:
        world.store.append(shipper.batch(pay("p1")))
    while correlator.step():
        pass
    assert sum(entry.kind == "event" for entry in world.entries()) == 10
