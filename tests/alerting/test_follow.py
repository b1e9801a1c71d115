"""The follower over a real log and store: what it finds goes on record once, whatever happens in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from alerting.detect.amounts import AmountRule, VelocityRule
from alerting.detect.cursor import Cursor, Position, read_cursor, write_cursor
from alerting.detect.engine import Engine
from alerting.detect.finding_event import EVENT_NAME, SERVICE
from alerting.detect.follow import Follower
from alerting.detect.habits import NewRule
from alerting.detect.logged import LoggedPayments
from alerting.detect.metrics import DetectorMetrics
from alerting.detect.rule import Rule
from audit_api.evidence import Evidence
from audit_api.logs import ServedLog
from collector.batch import StreamId
from collector.errors import Overloaded, StateUnknown, VerificationError
from collector.event import Event, encode_event
from correlator.index.sqlite import SqliteIndex
from correlator.retired import MonthAccount
from correlator.trail import RETIREMENTS
from deploy.detecting import followed, trail_of
from tests.alerting.payments import BEGIN_NS, DAY, HOUR, event, reader
from tests.support.ledgers import LEDGER, SIGNER, SmallLedger
from tests.support.memory_store import MemoryStore

RULES: tuple[Rule, ...] = (
    AmountRule(name="large", above=Decimal(1_000), severity="critical", freeze=True),
    VelocityRule(name="fast", within_seconds=HOUR, count=3),
)


@dataclass
class Kept:
    """Records in memory, by id as a recorder does; `down` for as many calls as it says, once it took `down_after`."""

    events: dict[bytes, Event] = field(default_factory=dict)
    down: int = 0
    down_after: int = -1

    def record_once(self, event: Event, source_id: bytes) -> bool:
        if self.down_after == 0:
            self.down += 1
        self.down_after -= 1
        if self.down:
            self.down -= 1
            raise Overloaded("the spool is full")
        new = source_id not in self.events
        self.events.setdefault(source_id, event)
        return new


class CountingIndex(SqliteIndex):
    """Counts how often it was asked for retirements."""

    asked = 0

    def leaves(self, trail: str, *, start: int = 0, limit: int = 1_000, size: int | None = None) -> Sequence[int]:
        self.asked += trail == RETIREMENTS
        return super().leaves(trail, start=start, limit=limit, size=size)


@dataclass
class Desk:
    """A ledger with a follower, which may be started anew."""

    folder: Path
    kept: Kept = field(default_factory=Kept)
    tells: bool = True
    beats: list[int] = field(default_factory=list)
    at_work: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.index = CountingIndex(self.folder / "index.sqlite", hub_links=20)
        self.ledger = SmallLedger(store=self.store, index=self.index)
        self.evidence = Evidence(index=self.index, reader=self.ledger.reader, store=self.store)
        self.start()

    @property
    def cursor(self) -> Path:
        return self.folder / "detector.json"

    def start(self, rules: Sequence[Rule] = RULES) -> None:
        """From what the cursor says, which is what a crash leaves."""
        self.metrics = DetectorMetrics()
        self.follower = Follower(
            [followed(ServedLog(evidence=self.evidence, storage=self.ledger.storage, key=SIGNER.verifier))],
            payments=LoggedPayments(
                self.store, [reader()], self.metrics, beat=lambda: self.beats.append(self.store.reads)
            ),
            engine=Engine(rules),
            findings=self.kept,
            cursor=Cursor(self.cursor),
            metrics=self.metrics,
            tells=self.tells,
            freezes=True,
            clock=lambda: 1_700_000_100_000_000_000,
            beat=lambda: self.at_work.append(len(self.kept.events)),
        )

    def restart(self, rules: Sequence[Rule] = RULES) -> None:
        """A crash after the cursor was written, and all that there is read again."""
        write_cursor(self.cursor, self.follower.positions())
        self.start(rules)
        self.run()

    def add(self, *events: Event) -> None:
        self.ledger.ship("payments/00000000000000aa", events)
        self.ledger.publish()

    def run(self) -> None:
        while self.follower.step():
            pass

    @property
    def found(self) -> list[str]:
        return [str(one.attributes["detection.rule"]) for one in self.kept.events.values()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_what_is_found_is_on_record_in_the_payment_s_trail(desk: Desk) -> None:
    desk.add(event(0, 5), event(1, "2000.50", transaction="T-9"), event(2, 7), Event(event_name="unlike"))
    desk.run()
    large, fast = desk.kept.events.values()
    assert (large.event_name, large.service, large.transaction) == (EVENT_NAME, SERVICE, "T-9")
    assert large.body == "2000.50 EUR is above 1000"
    assert large.attributes["detection.severity"] == "critical"
    assert desk.ledger.reader.entry(int(large.attributes["detection.leaf"])).count(b'"T-9"')
    assert fast.attributes["detection.rule"] == "fast"
    assert [told.finding.rule for told in desk.follower.waiting] == ["large", "fast"]
    assert desk.metrics.registry.get_sample_value("tally_detector_payments_total", {"payment": "card"}) == 3
    assert desk.metrics.registry.get_sample_value("tally_detector_behind_leaves") == 0


def test_a_recorder_that_is_full_loses_and_doubles_nothing(desk: Desk) -> None:
    desk.add(*(event(at, 2_000) for at in range(3)))
    desk.kept.down = 2
    for _ in range(2):
        with pytest.raises(Overloaded):
            desk.follower.step()
        assert len(desk.follower.positions()[LEDGER].to_record) == 4
    desk.run()
    assert desk.found == ["large", "large", "large", "fast"], "each payment was shown to the rules once"


def test_it_is_felt_to_live_while_much_goes_on_record(desk: Desk) -> None:
    desk.add(*(event(at, 2_000) for at in range(3)))
    desk.follower.step()
    assert len(desk.kept.events) == 4
    assert {0, 1, 2, 3} <= set(desk.at_work), "before each of them"


def test_a_store_that_is_away_is_asked_again(desk: Desk) -> None:
    desk.add(event(0, 2_000))
    desk.store.down = "away"
    with pytest.raises(Overloaded):
        desk.follower.step()
    desk.store.down = ""
    desk.run()
    assert desk.found == ["large"]


@pytest.mark.parametrize("away", ["store", "spool"])
def test_what_is_not_read_counts_while_steps_fail(desk: Desk, away: str) -> None:
    """That is when TallyDetectorBehind has to fire: it was caught up before, as it always is."""
    desk.add(event(0, 5))
    desk.run()
    if away == "spool":
        desk.kept.down = 99
    read = desk.ledger.log.next_leaf_index
    for at in range(1, 4):
        desk.store.down = ""
        desk.add(event(at, 2_000))
        desk.store.down = "away" if away == "store" else ""
        with pytest.raises(Overloaded):
            desk.follower.step()
        if away == "spool" and at == 1:
            read = desk.ledger.log.next_leaf_index  # its finding waits for the spool, and the rest for that
    size = desk.ledger.log.next_leaf_index
    assert desk.metrics.registry.get_sample_value("tally_detector_behind_leaves") == size - read > 0
    desk.store.down, desk.kept.down = "", 0
    desk.run()
    assert desk.metrics.registry.get_sample_value("tally_detector_behind_leaves") == 0


def test_after_a_restart_rules_remember_and_nothing_is_recorded_or_told_twice(desk: Desk) -> None:
    desk.add(event(0, 2_000), event(1, 5))
    desk.run()
    desk.follower.waiting.clear()  # told
    positions = desk.follower.positions()
    assert (positions[LEDGER].recorded, positions[LEDGER].to_tell) == (desk.ledger.log.next_leaf_index, ())
    write_cursor(desk.cursor, positions)
    desk.start()
    desk.add(event(2, 6))
    desk.run()
    assert desk.found == ["large", "fast"], "the third within the hour, of which it saw two before it was restarted"
    assert [told.finding.rule for told in desk.follower.waiting] == ["fast"]


def test_what_was_not_told_before_a_crash_is_told_after_it(desk: Desk) -> None:
    desk.add(event(0, 2_000), event(1, 3_000, card="B"))
    desk.run()
    desk.follower.waiting.popleft()
    desk.restart()
    assert desk.found == ["large", "large"]
    assert [told.finding.reason for told in desk.follower.waiting] == ["3000 EUR is above 1000"]


@pytest.mark.parametrize("above", [5_000, 100])
def test_what_waits_is_told_as_it_was_found_whatever_the_rules_are_by_then(desk: Desk, above: int) -> None:
    desk.add(event(0, 2_000), event(1, 300, card="B"))
    desk.run()
    waited = list(desk.follower.waiting)
    assert len(waited) == 1
    desk.restart((AmountRule(name="large", above=Decimal(above), freeze=True),))
    assert list(desk.follower.waiting) == list(desk.follower.to_freeze) == waited, "and nothing that is not on record"
    assert desk.found == ["large"]
    desk.add(event(2, 6_000, card="C"))
    desk.run()
    assert desk.found == ["large", "large"]
    assert len(desk.follower.waiting) == len(desk.follower.to_freeze) == 2


def test_what_waits_is_told_though_its_rule_remembers_less_than_it_knew(desk: Desk) -> None:
    rules = (NewRule(name="new", field="device", known_payments=3, remember_seconds=90 * DAY, freeze=True),)
    desk.start(rules)
    desk.add(*(event(at, 5, device="phone") for at in range(3)))
    desk.ledger.clock.now_ns += 120 * DAY * 1_000_000_000
    desk.add(event(120 * DAY, 500, device="other"))
    desk.run()
    desk.restart(rules)
    assert [told.finding.rule for told in desk.follower.waiting] == ["new"]
    assert [told.finding.rule for told in desk.follower.to_freeze] == ["new"]


@pytest.mark.parametrize("crash", ["before it is on record", "before the turn is over"])
def test_what_was_found_is_recorded_and_told_though_a_crash_comes_and_nobody_finds_it_again(
    desk: Desk, crash: str
) -> None:
    rules = (NewRule(name="new", field="device", known_payments=3, remember_seconds=90 * DAY, freeze=True),)
    desk.start(rules)
    desk.add(*(event(at, 5, device="phone") for at in range(3)))
    desk.run()
    desk.ledger.clock.now_ns += 120 * DAY * 1_000_000_000
    desk.add(event(120 * DAY, 500, card="B"))
    desk.run()
    write_cursor(desk.cursor, desk.follower.positions())
    desk.add(event(120 * DAY, 500, device="other", card="A"))
    if crash == "before it is on record":
        desk.kept.down = 1
        with pytest.raises(Overloaded):
            desk.follower.step()
    else:
        desk.follower.step()
    desk.start(rules)
    desk.run()
    assert desk.found == ["new"]
    assert [told.finding.rule for told in desk.follower.waiting] == ["new"]
    assert [told.finding.rule for told in desk.follower.to_freeze] == ["new"]


def test_nothing_goes_on_record_that_a_crash_could_keep_from_being_told(desk: Desk) -> None:
    desk.add(event(0, 2_000))
    desk.cursor.with_suffix(".new").mkdir()  # in its way
    with pytest.raises(StateUnknown, match="cannot be written"):
        desk.follower.step()
    assert desk.found == []


def test_a_crash_in_the_midst_of_recording_loses_and_doubles_nothing(desk: Desk) -> None:
    desk.add(event(0, 2_000), event(1, 3_000, card="B"))
    desk.run()
    desk.restart()
    desk.add(event(2, 4_000, card="C"), event(3, 5_000, card="D"))
    desk.kept.down_after = 1
    with pytest.raises(Overloaded):
        desk.follower.step()
    assert len(desk.follower.waiting) == 3
    desk.restart()
    assert desk.found == ["large"] * 4
    assert len({told.finding.payment.leaf for told in desk.follower.waiting}) == len(desk.follower.waiting) == 4


def test_a_crash_before_the_cursor_was_written_records_nothing_twice(desk: Desk) -> None:
    desk.add(event(0, 2_000))
    desk.run()
    desk.cursor.unlink()
    desk.start()
    desk.run()
    assert desk.found == ["large"]
    assert desk.metrics.registry.get_sample_value("tally_detector_found_seconds_count") == 0


def test_a_freeze_that_was_not_asked_for_before_a_crash_is_asked_for_after_it(desk: Desk) -> None:
    desk.add(event(0, 2_000), event(1, 3_000, card="B"), event(2, 4_000, card="C"))
    desk.run()
    desk.follower.waiting.clear()
    desk.follower.to_freeze.rotate(-1)  # the first failed, and went behind the others
    desk.follower.to_freeze.popleft()
    desk.restart()
    reasons = [told.finding.reason for told in desk.follower.to_freeze]
    assert reasons == ["4000 EUR is above 1000", "2000 EUR is above 1000"]
    assert not desk.follower.waiting


def test_with_nobody_to_tell_nothing_waits(tmp_path: Path) -> None:
    desk = Desk(tmp_path, tells=False)
    desk.add(event(0, 2_000))
    desk.run()
    assert not desk.follower.waiting
    assert desk.follower.positions()[LEDGER].recorded > 0


def test_what_cannot_be_read_is_counted_and_the_rest_goes_on(desk: Desk) -> None:
    desk.add(event(0, "much"), event(1, 2_000))
    desk.run()
    assert desk.found == ["large"]
    assert desk.metrics.registry.get_sample_value("tally_detector_unreadable_total", {"payment": "card"}) == 1


def test_a_payment_dated_in_the_future_blinds_no_rule_for_its_account(desk: Desk) -> None:
    now = (desk.ledger.clock.now_ns - BEGIN_NS) // 1_000_000_000
    desk.add(event(now + 30 * DAY, 5), event(now + 1, 6), event(now + 2, 7))
    desk.run()
    assert desk.found == ["fast"]
    assert desk.metrics.registry.get_sample_value("tally_detector_future_total", {"payment": "card"}) == 1


@pytest.mark.parametrize(
    "foreign", [b"\xff\x00", b'{"attributes":{"amount":9999,"card":"A"},"newer":1}'], ids=["bytes", "a newer version's"]
)
def test_what_was_signed_and_is_no_event_of_this_version_is_counted_and_the_rest_goes_on(
    desk: Desk, foreign: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It stands in the log for good: a detector that ends here ends after each start."""
    desk.ledger.ship("payments/00000000000000aa", [event(0, 2_000), event(1, 3_000)], foreign={0: foreign})
    desk.ledger.publish()
    desk.run()
    assert desk.found == ["large"]
    assert desk.metrics.registry.get_sample_value("tally_detector_unreadable_total", {"payment": "card"}) == 1
    (said,) = (record for record in caplog.records if "no payment can be read" in record.getMessage())
    assert b'"sequence":0' in desk.ledger.reader.entry(vars(said)["leaf"])


def test_a_finding_goes_where_the_log_has_its_payment_whatever_its_event_says(desk: Desk) -> None:
    """An event of another transaction than its facts is signed as easily, and one of a megabyte could never go on record."""
    stated = msgspec.structs.replace(event(0, 2_000), transaction="t" * 1_100_000, tenant="evil", trace_id="none")
    desk.ledger.ship(
        "payments/00000000000000aa",
        [event(0, 2_000, transaction="order-1")],
        foreign={0: encode_event(stated, exact=True)[0]},
    )
    desk.ledger.publish()
    desk.run()
    (found,) = desk.kept.events.values()
    assert (found.transaction, found.tenant, found.trace_id) == ("order-1", "", "")


def test_a_trace_id_that_is_none_names_no_trail(desk: Desk) -> None:
    desk.add(msgspec.structs.replace(event(0, 2_000), trace_id="zz"))
    desk.run()
    (told,) = desk.follower.waiting
    assert trail_of(told.finding.payment) == f"key/leaf/{told.finding.payment.leaf}"


def test_a_month_that_was_let_go_of_is_passed_over_in_a_few_requests(desk: Desk) -> None:
    desk.add(*(event(at, 5) for at in range(200)))
    account = MonthAccount()
    batch = desk.evidence.batch_of(desk.evidence.entries([desk.ledger.log.size - 1])[0])
    account.add(batch.leaf, batch.signed.header, batch.signed.digest)
    retirement = account.retirement("2026.01", desk.ledger.log.size)
    desk.ledger.ship("api/00000000000000cc", [Event(actor="ann", retirement=retirement)], role="recorder")
    desk.store.batches.clear()
    desk.add(event(0, 2_000, card="B"))
    asked = desk.index.asked
    desk.run()
    assert desk.found == ["large"]
    assert desk.metrics.registry.get_sample_value("tally_detector_unreadable_total", {"payment": "card"}) == 200
    assert desk.store.reads == len(desk.beats) == 2
    assert desk.index.asked - asked <= 2, "for retirements"


def test_one_event_that_is_lost_costs_few_requests(desk: Desk) -> None:
    desk.ledger.ship("payments/00000000000000bb", [event(0, 3_000)])
    desk.add(*(event(at, 5) for at in range(0, 200 * HOUR, HOUR)))
    desk.ledger.ship("payments/00000000000000bb", [event(0, 2_000, card="B")])
    desk.ledger.publish()
    del desk.store.batches[StreamId("payments/00000000000000bb")][1]
    desk.run()
    assert desk.found == ["large"], "of the other"
    assert desk.store.reads == len(desk.beats) < 20


def test_an_event_that_was_changed_is_told_apart(desk: Desk) -> None:
    desk.add(event(0, 2_000))
    (batches,) = desk.store.batches.values()
    batches[1] = type(batches[1])(
        signed=batches[1].signed,
        events=batches[1].events.replace(b"2000", b"1000"),
        lengths=batches[1].lengths,
    )
    with pytest.raises(VerificationError, match="is not the one in the log"):
        desk.follower.step()


def test_its_own_findings_are_no_payments(desk: Desk) -> None:
    everything = event(0, 2_000)
    own = Event(
        time=everything.time,
        event_name="paid",
        resource={"service.name": SERVICE},
        attributes=everything.attributes,
    )
    desk.add(own)
    desk.run()
    assert desk.found == []


def test_the_cursor_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "detector.json"
    assert read_cursor(path) == {}
    write_cursor(path, {"log": Position(recorded=7)})
    assert read_cursor(path) == {"log": Position(recorded=7)}
    path.write_bytes(b'{"log":{"recorded":"x"}}')
    with pytest.raises(StateUnknown, match="remove it to look at the whole log again"):
        read_cursor(path)


def test_what_waits_in_the_cursor_names_no_account(desk: Desk) -> None:
    desk.add(event(0, 2_000, card="4711", transaction="T-1"))
    desk.run()
    positions = desk.follower.positions()
    path = desk.cursor
    write_cursor(path, positions)
    assert read_cursor(path) == positions
    assert (len(positions[LEDGER].to_tell), len(positions[LEDGER].to_freeze)) == (1, 1)
    assert (b"T-1" in path.read_bytes(), b"4711" in path.read_bytes()) == (True, False)


def test_a_cursor_of_an_older_version_finds_again_what_waited(desk: Desk) -> None:
    desk.add(event(0, 2_000), event(1, 3_000, card="B"))
    desk.run()
    recorded = desk.follower.positions()[LEDGER].recorded
    path = desk.cursor
    path.write_text(f'{{"{LEDGER}":{{"recorded":{recorded},"told":{recorded},"frozen":{recorded - 1}}}}}')
    assert read_cursor(path) == {LEDGER: Position(recorded=recorded - 1)}
    desk.start()
    desk.run()
    assert [told.finding.reason for told in desk.follower.to_freeze] == ["3000 EUR is above 1000"]
    assert desk.found == ["large", "large"]
