"""What the real correlator makes, of honest streams and of broken ones, is served, exported and verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit_api.evidence import Evidence
from audit_api.export.bundle import export_bundle
from collector.event import Access, Event
from correlator.bundle import Contents
from correlator.index import TrailQuery
from correlator.reader import LogReader
from correlator.story import story
from correlator.trail import kind_of
from correlator.unbundle import parse_members, unpack_bundle
from correlator.verify import verify_bundle
from tests.support.correlating import SIGNER, Correlating
from tests.support.memory_store import MemoryStore
from tests.support.shipper import TRACE, Shipper, pay

KEY = SIGNER.verifier


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Correlating]:
    made = Correlating(folder=tmp_path)
    yield made
    made.close()


def verified(world: Correlating) -> dict[str, Contents]:
    """Every trail of the log, exported with its story, each bundle found true."""
    reader = LogReader(world.storage, KEY)
    evidence = Evidence(index=world.index, reader=reader, store=world.store)
    found = {}
    below: int | None = None
    while True:
        page = world.index.find(TrailQuery(), size=reader.tree().size, below=below, limit=10)
        for summary in page.trails:
            told = story(summary.trail, world.index.trail, world.index.is_hub)
            bundle = export_bundle(evidence, key=KEY, trails=[summary.trail, *told.traces])
            report = verify_bundle(bundle, KEY)
            assert [part.trail for part in report.trails] == [summary.trail, *told.traces]
            assert report.trails[0].entries == summary.entries
            found[summary.trail] = parse_members(unpack_bundle(bundle))
        below = page.next_below
        if below is None:
            return found


def test_every_trail_of_an_honest_log(world: Correlating) -> None:
    gateway, ledger, recorder = Shipper(), Shipper("ledger/00000000000000bb"), Shipper("api/00000000000000cc")
    for number in range(40):
        world.store.append(
            gateway.batch(
                pay(f"p{number}", trace_id=TRACE, keys={"order_id": f"o{number}", "account": "a1"}),
                pay(trace_id=f"{number + 1:032x}"),
                pay(),
                found={"transaction": "attributes.payment_id", "order_id": "rule 2"},
            )
        )
        world.store.append(
            ledger.batch(pay(f"p{number}", trace_id=f"{number + 1:032x}"), pay(keys={"order_id": "ü/ö"}))
        )
        if number % 10 == 0:
            world.store.append(recorder.batch(Event(access=Access(principal="ann", action="trail.read", trail="x/y"))))
            world.store.append(ledger.batch())
            world.run()
    world.run()
    found = verified(world)
    kinds = [kind_of(trail) for trail in found]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "transaction": 40,
        "trace": 41,
        "key": 42,
        "stream": 3,
        "access": 1,
        "ledger": 1,
    }
    assert world.index.trail("key/account/a1").hub


def test_an_event_of_a_long_stream_finds_its_batch(world: Correlating) -> None:
    """The stream's own trail holds events, too, so that a batch's entry stands far before the last event's."""
    shipper = Shipper()
    for number in range(6):
        world.store.append(shipper.batch(*[pay() for _ in range(700)], pay(f"p{number}")))
    world.run()
    found = verified(world)
    assert len(found[f"stream/{shipper.stream}"].trails[0].lines) == 6 * 701
    for number in range(6):
        (header,) = found[f"transaction/p{number}"].headers
        assert [sequence for sequence, _ in header.paths] == [number * 701 + 700]


def test_gaps_and_late_batches(world: Correlating) -> None:
    shipper = Shipper()
    batches = [shipper.batch(pay(f"p{number}"), pay()) for number in range(8)]
    for at in (0, 1, 4, 5):
        world.store.append(batches[at])
    world.run()
    verified(world)
    for at in (3, 2, 7, 6):
        world.store.append(batches[at])
        world.run()
    found = verified(world)
    lines = found[f"stream/{shipper.stream}"].trails[0].lines
    assert sum(b'"kind":"gap"' in line.entry for line in lines) >= 1
    assert sum(b'"kind":"batch"' in line.entry for line in lines) == 8
    assert all(f"transaction/p{number}" in found for number in range(8))


def test_forks_and_bad_batches(world: Correlating) -> None:
    shipper, other = Shipper(), Shipper("ledger/00000000000000bb")
    world.store.append(shipper.batch(pay("p1")))
    world.store.append(other.batch(pay("p2")))
    world.run()
    clone = shipper.clone()
    world.store.append(shipper.batch(pay("p1", event_name="a")))
    world.run()
    stray = clone.batch(pay("p1", event_name="b"))
    world.store.append(shipper.batch(pay("p1"), previous=stray.signed.digest))
    world.store.append(other.batch(pay("p2"), first=9))
    world.run()
    found = verified(world)
    assert any(b'"kind":"fork"' in line.entry for line in found[f"stream/{shipper.stream}"].trails[0].lines)


def test_a_store_that_lost_a_batch_after_the_log_took_it(world: Correlating) -> None:
    shipper = Shipper()
    world.store.append(shipper.batch(pay("p1")))
    world.run()
    assert isinstance(world.store, MemoryStore)
    world.store.batches.clear()
    reader = LogReader(world.storage, KEY)
    evidence = Evidence(index=world.index, reader=reader, store=world.store)
    (event,) = [one for one in evidence.entries(range(reader.tree().size)) if one.entry.kind == "event"]
    found, problems = evidence.events_or_problems([event])
    assert found == {}
    assert "not in the store" in problems[event.leaf]
