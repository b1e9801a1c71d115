"""A ledger cut into shards: which trail is whose, and that all shards' logs together say what one log would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.batch import Batch, StreamId
from collector.event import Access
from correlator.entry import Entry
from correlator.flow import Flow, FlowMatch, FlowStep
from correlator.note import Signer, Verifier
from correlator.settings import CorrelatorSettings
from correlator.shards import MAX_SHARDS, WHOLE, Shard, key_of_log, shard_of, split_origin
from tests.support.correlating import SIGNER, Correlating, stitched
from tests.support.memory_store import MemoryStore
from tests.support.shipper import LEDGER, Shipper, key_of, pay

CONTROL = ("batch", "gap", "fork", "enrolment")
FLOW = Flow(
    name="f", steps=(FlowStep(name="a", match=FlowMatch(name="a")), FlowStep(name="b", match=FlowMatch(name="b")))
)


def cut(folder: Path, store: MemoryStore, count: int, rules: CorrelatorSettings) -> list[Correlating]:
    """A correlator for each shard, over one store."""
    return [
        Correlating(folder=folder / str(number), store=store, settings=rules, shard=Shard(number=number, count=count))
        for number in range(1, count + 1)
    ]


def control(entries: Sequence[Entry]) -> Counter[tuple[str, str, str]]:
    return Counter(
        (one.kind, one.trail, msgspec.json.encode(one.detail).decode()) for one in entries if one.kind in CONTROL
    )


# -- names


def test_where_a_trail_belongs_is_written_down() -> None:
    """Values that another implementation must find, too (docs/format.md)."""
    trails = ("transaction/p1", f"trace/{'0' * 32}", "key/order_id/o1", "access/ann")
    assert [shard_of(trail, 3) for trail in trails] == [2, 1, 1, 2]
    assert shard_of("anything", 1) == 1


def test_an_origin_says_which_shard_it_is() -> None:
    for count in range(2, MAX_SHARDS + 1):
        for number in range(1, count + 1):
            shard = Shard(number=number, count=count)
            assert split_origin(shard.origin(LEDGER)) == (LEDGER, shard)
    assert WHOLE.origin(LEDGER) == LEDGER


@pytest.mark.parametrize(
    "origin",
    [
        LEDGER,
        "shard-1-of-3",
        f"{LEDGER}/shard-0-of-3",
        f"{LEDGER}/shard-4-of-3",
        f"{LEDGER}/shard-1-of-1",
        f"{LEDGER}/shard-01-of-3",
        f"{LEDGER}/shard-1-of-65",
        f"{LEDGER}/shard-1-of-3/",
        f"{LEDGER}/shard-1-of-3\n",
        f"{LEDGER}/shard-١-of-3",
    ],
)
def test_any_other_origin_is_a_ledger_of_its_own(origin: str) -> None:
    assert split_origin(origin) == (origin, WHOLE)


@pytest.mark.parametrize(("number", "count"), [(0, 1), (2, 1), (1, 0), (4, 3), (1, MAX_SHARDS + 1)])
def test_there_is_no_such_shard(number: int, count: int) -> None:
    with pytest.raises(ValueError, match="there is no shard"):
        Shard(number=number, count=count)


@given(st.text(max_size=40))
def test_every_trail_is_in_exactly_one_shard(trail: str) -> None:
    trail = trail.encode("utf-8", "replace").decode()
    for count in (1, 2, 3, 7, MAX_SHARDS):
        assert sum(Shard(number=number, count=count).holds(trail) for number in range(1, count + 1)) == 1


def test_trails_are_spread_evenly() -> None:
    spread = Counter(shard_of(f"transaction/{number}", 4) for number in range(4_000))
    assert all(850 < count < 1_150 for count in spread.values())


def test_what_tells_of_streams_may_stand_in_each_log_and_nothing_else() -> None:
    shards = [Shard(number=number, count=3) for number in (1, 2, 3)]
    stream = "stream/gateway/0123456789abcdef"
    for kind in ("batch", "gap", "fork"):
        assert all(shard.may_hold(stream, kind) for shard in shards)
    assert all(shard.may_hold("ledger/enrolments", "enrolment") for shard in shards)
    for trail, kind in (
        (stream, "event"),
        ("transaction/p1", "link"),
        ("transaction/p1", "verdict"),
        ("transaction/p1", "gap"),
    ):
        assert sum(shard.may_hold(trail, kind) for shard in shards) == 1


def test_what_names_its_shard_stands_in_that_one_alone() -> None:
    shards = [Shard(number=number, count=3) for number in (1, 2, 3)]
    for meant in (1, 2, 3):
        assert [shard.number for shard in shards if shard.takes("ledger/retirements", meant)] == [meant]
        assert [shard.number for shard in shards if shard.may_hold("ledger/retirements", "event", meant)] == [meant]
    for nobody in (-1, 0, 4):  # then its trail decides, as it does where the ledger is not cut
        (one,) = [shard for shard in shards if shard.takes("ledger/retirements", nobody)]
        assert one.holds("ledger/retirements")
    assert Shard().takes("ledger/retirements", 2)


def test_the_ledgers_key_signs_each_shards_log_under_its_origin() -> None:
    origin = Shard(number=2, count=3).origin(LEDGER)
    ledger, shard = SIGNER.verifier, SIGNER.named(origin).verifier
    assert key_of_log(ledger, origin) == shard
    assert (shard.public_key, shard.name) == (ledger.public_key, origin)
    assert shard.key_id != ledger.key_id
    assert key_of_log(ledger, LEDGER) == ledger
    assert key_of_log(ledger, "other.example/shard-2-of-3") == ledger, "which then is refused, for its name"
    assert isinstance(key_of_log(shard, origin), Verifier)
    assert key_of_log(shard, origin) == shard


# -- logs


@given(data=st.data())
@settings(max_examples=20)
def test_all_shards_together_say_what_one_log_says(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any interleaving, any splitting into steps, restarts: the same trails, and both sides of each link."""
    traces = [f"{n:032x}" for n in range(1, 5)]
    event = st.builds(
        pay,
        st.sampled_from(["", "", "p1", "p2", "p3"]),
        trace_id=st.sampled_from(["", *traces]),
        keys=st.dictionaries(st.sampled_from(["order", "user"]), st.sampled_from(["1", "2"])),
        event_name=st.sampled_from(["a", "b", "c"]),
    )
    batches: list[Batch] = []
    for number in range(data.draw(st.integers(1, 3))):
        shipper = Shipper(f"s{number}/0123456789abcdef")
        groups = data.draw(st.lists(st.lists(event, max_size=5), min_size=1, max_size=4))
        batches += [
            shipper.batch(*(msgspec.structs.replace(e, body=f"{number} {at} {n}") for n, e in enumerate(group)))
            for at, group in enumerate(groups)
        ]
    folder = tmp_path_factory.mktemp("cut")
    rules = CorrelatorSettings(key_order=("order",), missing_poll_seconds=3_600, step_entries=8, flows=(FLOW,))
    whole = Correlating(folder=folder / "whole", settings=rules)
    for batch in batches:
        whole.store.append(batch)
    whole.run()
    expected = whole.entries()
    store = MemoryStore()
    shards = cut(folder, store, data.draw(st.integers(2, 3)), rules)
    for batch in batches:
        store.append(batch)
        for one in shards:
            if data.draw(st.booleans()):
                one.run()
                ends: list[Callable[[], None]] = [one.kill, one.close, lambda: None]
                data.draw(st.sampled_from(ends))()
    found: list[Entry] = []
    for one in shards:
        one.run()
        one.kill()  # what stands in memory was perhaps not kept: the log alone must say what has happened
        one.run()
        entries = one.entries()
        assert control(entries) == control(expected)
        assert all(one.shard.may_hold(entry.trail, entry.kind) for entry in entries)
        found += [entry for entry in entries if entry.kind not in CONTROL]
        one.close()
    assert stitched(found) == stitched(expected)
    assert verdicts(found) == verdicts(expected)
    for name in store.streams():
        assert store.acknowledged(name) == whole.store.acknowledged(name)
    whole.close()


def verdicts(entries: Sequence[Entry]) -> Mapping[str, str]:
    """The newest verdict of each trail."""
    return {entry.trail: str(entry.detail["verdict"]) for entry in entries if entry.kind == "verdict"}


def test_a_shard_that_has_not_started_holds_the_acknowledgement_back(tmp_path: Path) -> None:
    store = MemoryStore()
    shipper = Shipper()
    store.append(shipper.batch(pay("p1"), pay("p2"), pay("p3")))
    shards = cut(tmp_path, store, 3, CorrelatorSettings())
    for one in shards[:2]:
        one.run()
    assert store.acknowledged(StreamId(shipper.stream)) == 0
    shards[2].run()
    assert store.acknowledged(StreamId(shipper.stream)) == 1
    for one in shards:
        one.close()


def test_each_shard_tells_of_all_that_is_missing(tmp_path: Path) -> None:
    """So whoever adds up what shards tell counts each missing batch several times."""
    store, shipper = MemoryStore(), Shipper()
    store.append(shipper.batch(pay("p1")))
    shipper.batch(pay("p2"))  # lost
    store.append(shipper.batch(pay("p3")))
    for one in cut(tmp_path, store, 3, CorrelatorSettings()):
        correlator = one.open()
        one.run()
        read = correlator.metrics.registry.get_sample_value
        assert read("tally_correlator_missing_batches") == 1
        assert read("tally_correlator_streams", {"state": "open"}) == 1
        one.close()


def test_accesses_of_our_recorders_are_cut_by_principal(tmp_path: Path) -> None:
    store = MemoryStore()
    recorder = Shipper("api/0123456789abcdef")
    people = [f"person-{number}" for number in range(12)]
    store.append(
        recorder.batch(
            *(
                pay("p1", access=Access(principal=one, action="trail.read", trail="transaction/p1", head=1))
                for one in people
            )
        )
    )
    shards = cut(tmp_path, store, 2, CorrelatorSettings())
    found = []
    for one in shards:
        one.run()
        trails = {entry.trail for entry in one.entries() if entry.kind == "event"}
        assert trails, "twelve people are not all of one shard"
        assert all(one.shard.holds(trail) for trail in trails)
        found += sorted(trails)
        one.close()
    assert sorted(found) == sorted(f"access/{one}" for one in people)


def test_a_state_of_another_shard_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    store = MemoryStore()
    store.append(Shipper().batch(*(pay(f"p{number}") for number in range(20))))
    one = Correlating(folder=tmp_path, store=store, shard=Shard(number=1, count=2))
    one.run()
    one.close()
    other = Correlating(folder=tmp_path, store=store, shard=Shard(number=2, count=2))
    other.run()
    assert {entry.trail for entry in other.entries() if entry.kind == "event"} == {
        f"transaction/p{number}" for number in range(20) if shard_of(f"transaction/p{number}", 2) == 2
    }
    other.close()


def test_a_key_under_another_name_signs_as_that_name() -> None:
    signer = Signer(name="a", private_key=key_of(3)).named("b")
    assert signer.name == "b"
    assert signer.sign(b"text\n") == Signer(name="a", private_key=key_of(3)).sign(b"text\n")
