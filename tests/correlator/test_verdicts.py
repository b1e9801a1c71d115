"""Verdict entries: when they are made, re-issued, and what a restart or a late fact does to them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from collector.event import Event, parse_time
from correlator import state as state_module
from correlator.coldstate import ColdState
from correlator.entry import Entry
from correlator.flow import Flow, FlowMatch, FlowStep
from correlator.flowmetrics import FlowMetrics, ToldVerdict
from correlator.settings import CorrelatorSettings
from tests.support.correlating import Correlating
from tests.support.shipper import TRACE, Shipper, pay

SECOND = 1_000_000_000


def flow(name: str = "payment", trail: str = "transaction", **fields: object) -> Flow:
    steps = (
        FlowStep(name="received", match=FlowMatch(name="received")),
        FlowStep(name="charged", match=FlowMatch(name="charged"), after=("received",), compensated_by="refunded"),
        FlowStep(name="notified", match=FlowMatch(name="notified"), after=("charged",)),
        FlowStep(name="failed", match=FlowMatch(name="failed"), role="failure"),
        FlowStep(name="refunded", match=FlowMatch(name="refunded"), role="compensation"),
    )
    return Flow(name=name, trail=trail, deadline_seconds=30, steps=steps, **fields)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Correlating]:
    made = Correlating(folder=tmp_path, settings=CorrelatorSettings(flows=(flow(),), missing_poll_seconds=3_600))
    yield made
    made.close()


def did(name: str, transaction: str = "p1", **fields: object) -> Event:
    return pay(transaction, event_name=name, **fields)


def verdicts(world: Correlating, trail: str = "transaction/p1") -> list[tuple[str, list[str]]]:
    return [(e.detail["verdict"], e.detail["missing"]) for e in world.of(trail) if e.kind == "verdict"]


def test_complete_at_once_and_with_its_last_step_in_one_publish(world: Correlating) -> None:
    shipper = Shipper(heartbeat_seconds=0)
    world.store.append(shipper.batch(did("received"), did("charged")))
    world.run()
    assert verdicts(world) == []
    world.store.append(shipper.batch(did("notified")))
    world.run()
    assert verdicts(world) == [("complete", [])]
    assert world.index.trail("transaction/p1").status == "complete"
    world.now_ns += 3_600 * SECOND
    assert world.run() == 0, "the deadline says nothing new"


def test_incomplete_after_its_deadline_and_complete_when_the_late_step_comes(world: Correlating) -> None:
    shipper = Shipper(heartbeat_seconds=0)
    world.store.append(shipper.batch(did("received"), did("charged")))
    world.run()
    world.now_ns += 29 * SECOND
    assert world.run() == 0
    world.now_ns += 1 * SECOND
    world.run()
    assert verdicts(world) == [("incomplete", ["notified"])]
    world.store.append(shipper.batch(did("other")))
    world.run()
    world.store.append(shipper.batch(did("notified")))
    world.run()
    assert verdicts(world) == [("incomplete", ["notified"]), ("complete", [])]
    entry = next(e for e in world.of("transaction/p1") if e.kind == "verdict")
    assert entry.detail == {
        "flow": "payment",
        "verdict": "incomplete",
        "missing": ["notified"],
        "reason": "not within 30 s of the first step",
    }


def test_a_verdict_changes_with_every_fact_that_changes_it(world: Correlating) -> None:
    shipper = Shipper(heartbeat_seconds=0)
    for name in ("received", "failed", "charged", "refunded", "notified"):
        world.store.append(shipper.batch(did(name)))
        world.run()
    # failed with nothing to undo; then a charge that came late to light is owed a refund; then it was refunded
    assert verdicts(world) == [("failed", []), ("compensated", [])]


@pytest.mark.parametrize("clean", [True, False])
def test_a_deadline_that_passed_while_it_was_down_is_told_at_the_start_and_once(
    world: Correlating,
    clean: bool,
) -> None:
    shipper = Shipper(heartbeat_seconds=0)
    for number in range(5):
        world.store.append(shipper.batch(did("received", f"p{number}")))
    world.run()
    for passed in (60, 60):
        if clean:
            world.close()
        else:
            world.kill()
        world.now_ns += passed * SECOND
        world.run()
        for number in range(5):
            assert verdicts(world, f"transaction/p{number}") == [("incomplete", ["charged"])]


def test_a_flow_on_a_key_sees_events_of_transactions_that_carry_it(world: Correlating) -> None:
    world.settings = CorrelatorSettings(flows=(flow(trail="order"),), missing_poll_seconds=3_600)
    shipper = Shipper(heartbeat_seconds=0)
    keys = {"order": "o1"}
    world.store.append(
        shipper.batch(
            did("received", keys=keys), did("charged", "p2", keys=keys), pay(event_name="notified", keys=keys)
        )
    )
    world.run()
    assert verdicts(world, "key/order/o1") == [("complete", [])]
    assert verdicts(world) == []


def test_at_most_one_verdict_a_trail_a_publish(world: Correlating) -> None:
    world.settings = CorrelatorSettings(flows=(flow("one"), flow("two")), missing_poll_seconds=3_600)
    shipper = Shipper(heartbeat_seconds=0)
    world.store.append(shipper.batch(did("received"), did("charged"), did("notified")))
    correlator = world.open()
    correlator.step()
    assert [e.detail["flow"] for e in world.of("transaction/p1") if e.kind == "verdict"] == ["one"]
    assert correlator.step() == 1
    assert [e.detail["flow"] for e in world.of("transaction/p1") if e.kind == "verdict"] == ["one", "two"]
    assert correlator.step() == 0


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("passed", [0, 1])
def test_a_verdict_that_was_put_off_outlives_a_stop(world: Correlating, passed: int, clean: bool) -> None:
    names = ("one", "two", "three")
    world.settings = CorrelatorSettings(flows=tuple(flow(name) for name in names), missing_poll_seconds=3_600)
    world.store.append(Shipper(heartbeat_seconds=0).batch(did("received")))
    world.run()
    world.close()
    world.now_ns += 30 * SECOND
    for told in range(1, 4):  # all are due at once: the last is put off twice, where no time passed to the same moment
        assert world.open().step() == 1
        assert [e.detail["flow"] for e in world.of("transaction/p1") if e.kind == "verdict"] == list(names[:told])
        if clean:
            world.close()
        else:
            world.kill()
        world.now_ns += passed
    assert world.run() == 0


def test_a_verdict_put_off_without_a_deadline_outlives_a_stop(world: Correlating) -> None:
    flows = tuple(msgspec.structs.replace(flow(name), deadline_seconds=0) for name in ("one", "two"))
    world.settings = CorrelatorSettings(flows=flows, missing_poll_seconds=3_600)
    world.store.append(Shipper(heartbeat_seconds=0).batch(did("received"), did("charged"), did("notified")))
    world.open().step()
    assert verdicts(world) == [("complete", [])]
    world.close()
    world.run()
    assert verdicts(world) == [("complete", []), ("complete", [])]


def test_changed_flows_are_counted_from_the_beginning_of_the_log(world: Correlating) -> None:
    world.settings = CorrelatorSettings(missing_poll_seconds=3_600)
    shipper = Shipper(heartbeat_seconds=0)
    world.store.append(shipper.batch(did("received"), did("charged")))
    world.run()
    world.close()
    world.settings = CorrelatorSettings(flows=(flow(),), missing_poll_seconds=3_600)
    world.store.append(shipper.batch(did("notified")))
    world.run()
    assert verdicts(world) == [("complete", [])]
    world.close()
    stricter = msgspec.structs.replace(
        flow(), steps=(*flow().steps, FlowStep(name="audited", match=FlowMatch(name="audited")))
    )
    world.settings = CorrelatorSettings(flows=(stricter,), missing_poll_seconds=3_600)
    world.now_ns += 60 * SECOND
    world.run()
    assert verdicts(world) == [("complete", []), ("incomplete", ["audited"])]


@pytest.mark.parametrize("deadline_seconds", [0, 30])
@pytest.mark.parametrize("clean", [True, False])
def test_what_was_read_of_the_log_and_not_judged_yet_outlives_a_stop(
    world: Correlating, monkeypatch: pytest.MonkeyPatch, deadline_seconds: float, clean: bool
) -> None:
    """The first start with a new flow reads the log, and ends before its first step."""
    world.settings = CorrelatorSettings(missing_poll_seconds=3_600)
    world.store.append(Shipper(heartbeat_seconds=0).batch(did("received"), did("charged"), did("notified")))
    world.run()
    world.close()
    rules = (msgspec.structs.replace(flow(), deadline_seconds=deadline_seconds),)
    world.settings = CorrelatorSettings(flows=rules, missing_poll_seconds=3_600)
    monkeypatch.setattr(state_module, "FLUSH_LEAVES", 1)
    world.open()
    if clean:
        world.close()
    else:
        world.kill()
    world.run()
    assert verdicts(world) == [("complete", [])]


def test_any_order_ends_in_the_same_verdict(tmp_path: Path) -> None:
    names = ["received", "charged", "notified", "refunded", "failed"]
    last: set[tuple[str, tuple[str, ...]]] = set()
    for turn in range(len(names)):
        world = Correlating(folder=tmp_path / str(turn))
        world.settings = CorrelatorSettings(flows=(flow(),), missing_poll_seconds=3_600)
        shipper = Shipper(heartbeat_seconds=0)
        for name in names[turn:] + names[:turn]:
            world.store.append(shipper.batch(did(name, trace_id=TRACE)))
            world.run()
            world.now_ns += 20 * SECOND
        world.run()
        found: Entry = [e for e in world.of("transaction/p1") if e.kind == "verdict"][-1]
        last.add((found.detail["verdict"], tuple(found.detail["missing"])))
        world.close()
    assert last == {("compensated", ())}


# -- what of it stands on the metrics


def sample(world: Correlating, name: str, **labels: str) -> float | None:
    assert world.correlator is not None
    return world.correlator.metrics.registry.get_sample_value(name, labels)


def counted(world: Correlating, verdict: str, currency: str = "none") -> float | None:
    return sample(world, "tally_flow_verdicts_total", flow="payment", verdict=verdict, currency=currency)


def standing(world: Correlating) -> dict[str, float | None]:
    states = ("open", "complete", "incomplete", "compensated", "failed")
    found = {state: sample(world, "tally_flow_trails", flow="payment", state=state) for state in states}
    return {state: count for state, count in found.items() if count != 0}


def test_metrics_tell_verdicts_by_currency_and_how_trails_stand(world: Correlating) -> None:
    shipper = Shipper(heartbeat_seconds=0)
    euro, yen = {"amount.eur": "12.5"}, {"amount.jpy": "100"}
    world.store.append(
        shipper.batch(did("received", keys=euro), did("received", "p2"), did("received", "p3", keys=yen))
    )
    world.run()
    assert standing(world) == {"open": 3}
    assert counted(world, "complete") == 0
    world.store.append(
        shipper.batch(did("charged"), did("notified"), did("failed", "p2"), did("charged", "p3", keys=euro))
    )
    world.run()
    assert standing(world) == {"open": 1, "complete": 1, "failed": 1}
    assert (counted(world, "complete", "EUR"), counted(world, "failed")) == (1, 1)
    world.now_ns += 60 * SECOND
    world.run()
    assert standing(world) == {"incomplete": 1, "complete": 1, "failed": 1}
    assert counted(world, "incomplete", "several") == 1
    world.store.append(shipper.batch(did("notified", "p3")))
    world.run()
    assert standing(world) == {"complete": 2, "failed": 1}
    assert counted(world, "complete", "several") == 1
    assert sample(world, "tally_flow_revised_verdicts_total", flow="payment") == 1


@pytest.mark.parametrize("how", ["stopped", "killed", "state lost", "state of an older version"])
def test_after_a_restart_counters_begin_and_gauges_go_on(world: Correlating, how: str) -> None:
    shipper = Shipper(heartbeat_seconds=0)
    steps = [did(name, key, keys={"amount.eur": "1"}) for key in ("p1", "p2") for name in ("received", "charged")]
    world.store.append(shipper.batch(*steps, did("notified")))
    world.run()
    assert standing(world) == {"open": 1, "complete": 1}
    if how == "killed":
        world.kill()
    else:
        world.close()
    if how == "state lost":
        shutil.rmtree(world.folder / "state")
    elif how == "state of an older version":
        cold = ColdState(world.folder / "state")
        assert cold.get(b"n") is not None
        cold.write([], removed=[b"n"])
        cold.close()
    world.open()
    assert standing(world) == {"open": 1, "complete": 1}
    assert counted(world, "complete", "EUR") is None
    world.store.append(shipper.batch(did("notified", "p2")))
    world.run()
    assert standing(world) == {"complete": 2}
    assert counted(world, "complete", "EUR") == 1, "the currency is kept"


def test_currencies_on_the_metrics_are_bounded() -> None:
    registry = CollectorRegistry()
    metrics = FlowMetrics(registry)
    codes = [f"{a}{b}x" for a in "abcdefgh" for b in "abcdefgh"]
    metrics.count(ToldVerdict("payment", "complete", code, revised=False) for code in codes)
    (family,) = [one for one in registry.collect() if one.name == "tally_flow_verdicts"]
    values = {one.labels["currency"]: one.value for one in family.samples if one.name.endswith("_total")}
    assert len(values) == 33
    assert values["other"] == 32
    assert "AAX" in values


def test_late_events_and_the_time_that_stitching_takes_are_counted(world: Correlating) -> None:
    shipper = Shipper(heartbeat_seconds=0)
    world.store.append(shipper.batch(did("received")))
    late = shipper.batch(did("charged"), did("notified"))
    world.store.append(shipper.batch(did("received", "p2")))
    world.run()
    assert sample(world, "tally_correlator_late_events_total") == 0
    assert sample(world, "tally_stitch_latency_seconds_count") == 2
    cut_ns = parse_time(late.signed.header.created)
    world.now_ns = max(world.now_ns, cut_ns) + 3_600 * SECOND
    before = sample(world, "tally_stitch_latency_seconds_sum")
    assert before is not None
    world.store.append(late)
    world.run()
    assert sample(world, "tally_correlator_late_events_total") == 2
    assert sample(world, "tally_stitch_latency_seconds_count") == 3
    after = sample(world, "tally_stitch_latency_seconds_sum")
    assert after is not None
    assert after - before == pytest.approx((world.now_ns - cut_ns) / SECOND)
    assert world.correlator is not None
    world.correlator.metrics.stitched(
        ["2026-02-31T00:00:00.000000000Z", "2999-01-01T00:00:00.000000000Z"], world.now_ns
    )
    assert sample(world, "tally_stitch_latency_seconds_count") == 4
    assert sample(world, "tally_stitch_latency_seconds_sum") == after
