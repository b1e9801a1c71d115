"""The keeper over a real log: each cause opens one incident and no more, it ends when the control works, and a restart knows it."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from alerting.incidents import outside, probes
from alerting.incidents.condition import Condition, Patience
from alerting.incidents.follow import LogFollower, WatchedLog
from alerting.incidents.keeper import Keeper
from alerting.incidents.metrics import IncidentMetrics
from alerting.incidents.outside import Outside
from alerting.incidents.probes import AlertmanagerProbe, CheckProbe, PagesProbe, StoreProbe
from alerting.incidents.told import Inbox, Watchdog, conditions_of
from alerting.incidents.watch import LogWatch, _is_access
from collector.errors import Malformed, Overloaded
from collector.event import Access, Event
from correlator.entry import decode_entry
from correlator.incidents import Incidents, LoggedIncident, signed_event
from correlator.index.sqlite import SqliteIndex
from correlator.log import LogReader
from correlator.metrics import CheckMetrics
from correlator.trail import stream_trail
from deploy.lacking import Lacking
from tests.support.ledgers import START_NS, SmallLedger
from tests.support.memory_store import MemoryStore
from tests.support.webhooks import NO_HTTP, dribbler, mumbler, receiver

SHOP, BANK = "shop/00000000000000aa", "bank/00000000000000bb"
SECOND = 1_000_000_000


@dataclass
class Kept:
    """Records in memory, by id as a recorder does; `down` for as many calls as it says."""

    events: dict[bytes, Event] = field(default_factory=dict)
    down: int = 0

    def record_once(self, event: Event, source_id: bytes) -> bool:
        if self.down:
            self.down -= 1
            raise Overloaded("the spool is full")
        new = source_id not in self.events
        self.events.setdefault(source_id, event)
        return new

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [
            (one.incident.cause, one.incident.subject, one.incident.state)
            for one in self.events.values()
            if one.incident
        ]


@dataclass
class Desk:
    """A ledger with a keeper, which may be started anew."""

    folder: Path
    lost_seconds: float = 100.0
    review_hours: float = 0.0

    def __post_init__(self) -> None:
        self.kept = Kept()
        self.index = SqliteIndex(self.folder / "index.sqlite", hub_links=20)
        self.ledger = SmallLedger(store=MemoryStore(), index=self.index)
        self.lacking: set[str] = set()
        self.shipped = 0
        self.start({})

    def start(self, positions: dict[str, int]) -> None:
        self.metrics = IncidentMetrics()
        self.incidents = Incidents()
        self.keeper = Keeper(self.kept, ledger="l", incidents=self.incidents, metrics=self.metrics)
        self.watch = LogWatch(expected=["shop"], lost_seconds=self.lost_seconds, review_hours=self.review_hours)
        self.follower = LogFollower(
            [WatchedLog(origin="log", reader=self.ledger.reader, index=self.index)],
            keeper=self.keeper,
            watch=self.watch,
            positions=positions,
            lacks=lambda stream: stream in self.lacking,
            metrics=self.metrics,
        )
        self.begun = False

    def run(self) -> None:
        self.ledger.publish()
        if not self.begun:
            self.follower.begin(remember_ns=0)
            self.begun = True
        while self.follower.step():
            pass

    def into_the_log(self) -> None:
        """What was recorded comes into the log, as a correlator would have it."""
        fresh = list(self.kept.events.values())[self.shipped :]
        self.shipped += len(fresh)
        self.ledger.ship("api/00000000000000cc", fresh, role="recorder")

    def gap(self, reason: str = "absent", stream: str = SHOP) -> None:
        detail: dict[str, Any] = {"reason": reason, "first_number": 2, "last_number": 3}
        detail |= {"first_sequence": 5, "last_sequence": 9}
        self.ledger._add(trail=stream_trail(stream), kind="gap", detail=detail, why="they did not come")

    def fork(self) -> None:
        detail = {"number": 4, "logged": "a", "found": "b"}
        self.ledger._add(trail=stream_trail(SHOP), kind="fork", detail=detail, why="two histories")

    def alive(self, stream: str, *seconds: int) -> None:
        """The stream has a batch after each of these seconds."""
        for one in seconds:
            self.ledger.clock.now_ns += one * SECOND
            self.ledger.ship(stream, [])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_gap_is_one_incident_until_nothing_is_missing(desk: Desk) -> None:
    desk.alive(SHOP, 1)
    desk.lacking.add(SHOP)
    desk.gap()
    desk.gap()
    desk.run()
    assert desk.kept.told == [("gap", SHOP, "opened")]
    (opened,) = desk.kept.events.values()
    assert opened.incident is not None
    assert (opened.incident.first, opened.incident.last) == (5, 9)
    assert "batches 2 to 3" in str(opened.body)
    desk.alive(SHOP, 1)
    desk.run()
    assert len(desk.kept.told) == 1, "something is missing still"
    desk.lacking.clear()
    desk.alive(SHOP, 1)
    desk.run()
    assert desk.kept.told == [("gap", SHOP, "opened"), ("gap", SHOP, "closed")]
    closed = list(desk.kept.events.values())[1]
    assert 2.0 <= closed.attributes["incident.duration_seconds"] < 3.0
    read = desk.metrics.registry.get_sample_value
    assert read("tally_incidents_open", {"cause": "gap"}) == 0
    assert read("tally_incidents_unsigned", {"cause": "gap"}) == 1
    assert read("tally_incidents_recorded_total", {"cause": "gap", "state": "opened"}) == 1


@pytest.mark.parametrize("logged", [True, False])
def test_a_restart_doubles_nothing(desk: Desk, logged: bool) -> None:
    desk.fork()
    desk.run()
    positions = desk.follower.positions()
    if logged:
        desk.into_the_log()
    for known in (positions, {}):  # the cursor was written before the crash, or not
        desk.start(dict(known))
        desk.run()
        assert desk.kept.told == [("fork", SHOP, "opened")]
    if logged:
        assert desk.incidents.open_of("fork", SHOP) is not None


def test_what_a_full_spool_refuses_is_tried_again(desk: Desk) -> None:
    desk.fork()
    desk.ledger.publish()
    desk.follower.begin(remember_ns=0)
    desk.begun = True
    desk.kept.down = 2
    for _ in range(2):
        with pytest.raises(Overloaded):
            desk.follower.step()
        assert desk.follower.positions().get("log", 0) == 0, "the cursor stays before what is not on record"
    desk.run()
    assert desk.kept.told == [("fork", SHOP, "opened")]


def test_a_collector_is_lost_when_the_log_goes_on_without_it(desk: Desk) -> None:
    desk.alive(SHOP, 1)
    desk.alive(BANK, 30, 30)
    desk.run()
    assert desk.kept.told == []
    desk.alive(BANK, 30, 30)
    desk.run()
    assert desk.kept.told == [("collector_lost", "shop", "opened")]
    desk.alive(SHOP, 10)
    desk.run()
    assert desk.kept.told[1:] == [("collector_lost", "shop", "closed")]


def test_a_log_that_stands_still_blames_no_collector(desk: Desk) -> None:
    desk.alive(SHOP, 1)
    desk.alive(BANK, 36_000)
    desk.run()
    assert desk.kept.told == [], "the log was away for hours, and so were they all"


def test_silence_of_a_stream_is_its_collector_s_unless_that_speaks_in_another(desk: Desk) -> None:
    desk.alive(BANK, 1)
    desk.gap("silent", BANK)
    desk.run()
    assert desk.kept.told == [("collector_lost", "bank", "opened")]
    desk.alive("bank/00000000000000b2", 1)
    desk.gap("silent", BANK)
    desk.run()
    assert desk.kept.told == [("collector_lost", "bank", "opened"), ("collector_lost", "bank", "closed")]


def test_silence_that_ends_at_once_is_no_loss(desk: Desk) -> None:
    """As after an outage of the store: the correlator looks before the collectors have shipped what waited."""
    desk.watch = LogWatch(expected=[], lost_seconds=1_000.0, review_hours=0.0, patience_seconds=20.0)
    seen: list[tuple[str, bool]] = []
    read = 0

    def look() -> list[tuple[str, bool]]:
        nonlocal read
        desk.ledger.publish()
        for leaf in range(read, desk.ledger.reader.tree().size):
            found = desk.watch.look(decode_entry(desk.ledger.reader.entry(leaf)), leaf, "log")
            seen.extend((one.subject, one.fails) for one in found)
        read = desk.ledger.reader.tree().size
        return [one for one in seen if one[1]]

    desk.alive(SHOP, 1)
    desk.alive(BANK, 1)
    desk.gap("silent", BANK)
    silent = desk.ledger.log.next_leaf_index - 1
    assert look() == []
    assert [desk.watch.held] == [silent], "after a restart it is read again"
    desk.alive(SHOP, 10)
    desk.alive(BANK, 5)
    desk.alive(SHOP, 30)
    assert look() == []
    assert [desk.watch.held] == [None]
    desk.gap("silent", BANK)
    desk.alive(SHOP, 15, 15)
    assert look() == [("bank", True)]


@pytest.mark.parametrize(
    ("trail", "is_one"), [("access/a", True), ("tenant/t/access/a", True), ("key/access/a", False)]
)
def test_what_is_an_access(trail: str, is_one: bool) -> None:
    assert _is_access(trail) == is_one


@pytest.mark.parametrize("done", ["reviews.list", "review.sign", "review.days", "review.day"])
def test_a_review_that_is_not_done(tmp_path: Path, done: str) -> None:
    desk = Desk(tmp_path, review_hours=1.0)
    desk.alive(SHOP, 1)
    desk.run()
    hour = 3_600 * SECOND

    def look(later_ns: int) -> None:
        for one in desk.watch.due(desk.ledger.clock.now_ns + later_ns):
            desk.keeper.observe(one)

    look(hour // 2)
    assert desk.kept.told == []
    look(hour + SECOND)
    look(hour + 2 * SECOND)
    assert desk.kept.told == [("review_missed", "", "opened")]
    for action, states in (("trails.search", ["opened"]), (done, ["opened", "closed"])):
        access = Access(principal="ann", action=action)
        desk.ledger.ship("api/00000000000000cc", [Event(actor="ann", access=access)], role="recorder")
        desk.run()
        assert [state for _, _, state in desk.kept.told] == states


def test_a_restart_does_not_excuse_a_review(tmp_path: Path) -> None:
    desk = Desk(tmp_path, review_hours=1.0)
    desk.alive(SHOP, 1, 7_200)
    desk.run()
    leaf = desk.follower.positions()["log"] - 1
    desk.start({"log": leaf + 1})
    desk.ledger.publish()
    desk.follower.begin(remember_ns=desk.ledger.clock.now_ns - 3_600 * SECOND)
    desk.begun = True
    desk.run()
    assert desk.follower.caught_up
    assert len(desk.watch.due(desk.ledger.clock.now_ns + SECOND)) == 1


def test_nobody_is_missed_in_what_was_before(desk: Desk) -> None:
    desk.watch = LogWatch(expected=["late"], lost_seconds=100.0, review_hours=0, since_ns=START_NS + 601 * SECOND)
    seen: list[str] = []

    def look() -> None:
        desk.ledger.publish()
        for leaf in range(len(seen), desk.ledger.reader.tree().size):
            found = desk.watch.look(decode_entry(desk.ledger.reader.entry(leaf)), leaf, "log")
            seen.append(next((one.subject for one in found if one.fails), ""))

    desk.alive(SHOP, *[60] * 10)
    look()
    assert set(seen) == {""}, "it may not have been expected then"
    desk.alive(SHOP, *[60] * 5)
    look()
    assert "late" in seen


def test_a_command_s_batch_does_not_say_that_the_api_lives(desk: Desk) -> None:
    desk.alive("api/00000000000000a1", 1)
    desk.ledger.heartbeat_seconds = 0
    desk.alive("api/00000000000000a2", 1)
    desk.gap("silent", "api/00000000000000a1")
    desk.alive("api/00000000000000a2", 1)
    desk.run()
    assert desk.kept.told == [("collector_lost", "api", "opened")]


def test_nor_does_it_after_a_restart_of_the_keeper(desk: Desk) -> None:
    desk.alive("api/00000000000000a1", 1)
    desk.gap("silent", "api/00000000000000a1")
    desk.run()
    desk.start(desk.follower.positions())
    desk.ledger.heartbeat_seconds = 0
    desk.into_the_log()  # the keeper signs as api, too
    desk.ledger.publish()
    desk.follower.begin(remember_ns=desk.ledger.clock.now_ns)
    desk.begun = True
    desk.alive("api/00000000000000a2", 1)
    desk.run()
    assert desk.kept.told == [("collector_lost", "api", "opened")]
    desk.ledger.heartbeat_seconds = 60
    desk.alive("api/00000000000000a3", 1)
    desk.run()
    assert desk.kept.told == [("collector_lost", "api", "opened"), ("collector_lost", "api", "closed")]


def test_whoever_signs_an_open_one_off_ends_it(desk: Desk) -> None:
    desk.fork()
    desk.run()
    desk.into_the_log()
    desk.run()
    one = desk.incidents.open_of("fork", SHOP)
    assert isinstance(one, LoggedIncident)
    words = {"root_cause": "copied", "remediation": "removed", "comment": ""}
    said = signed_event(one, now_ns=START_NS + 3_600 * SECOND, by="ann", roles="admin", **words)
    desk.ledger.ship("api/00000000000000cc", [said], role="recorder")
    desk.run()
    assert [state for _, _, state in desk.kept.told] == ["opened", "closed"]
    assert "ann says" in str(list(desk.kept.events.values())[1].body)
    desk.into_the_log()
    desk.start({})
    desk.run()
    assert len(desk.kept.told) == 2
    (one,) = desk.incidents.all()
    assert (one.state, one.open) == ("signed_off", False)
    assert desk.metrics.registry.get_sample_value("tally_incidents_unsigned", {"cause": "fork"}) == 0


def test_the_oldest_that_nobody_signed_is_told_when_all_are_known(desk: Desk) -> None:
    """It is what TallyIncidentUnsigned counts from: neither a restart nor the next incident may begin it anew."""

    def oldest() -> float | None:
        name = "tally_incidents_oldest_unsigned_timestamp_seconds"
        return desk.metrics.registry.get_sample_value(name, {"cause": "store_outage"})

    assert oldest() is None, "the log was not read yet"
    desk.run()
    assert oldest() == 0
    for at, fails in enumerate((True, False, True)):
        desk.keeper.observe(Condition(cause="store_outage", fails=fails, time_ns=START_NS + at * SECOND, detail="it"))
    assert oldest() == START_NS / 1e9
    desk.into_the_log()
    desk.ledger.publish()
    desk.start({})
    desk.keeper.observe(Condition(cause="verification_failed", fails=True, time_ns=START_NS, detail="it", mark="m"))
    assert oldest() is None, "what there was before is not known yet"
    desk.run()
    assert oldest() == START_NS / 1e9
    words = {"root_cause": "it was away", "remediation": "it is back", "comment": ""}
    for seconds in (2, 0):
        unsigned = [one for one in desk.incidents.all() if one.cause == "store_outage" and not one.signed]
        first = unsigned[-1]  # those that began last come first
        said = signed_event(first, now_ns=START_NS + 9 * SECOND, by="ann", roles="admin", **words)
        desk.ledger.ship("api/00000000000000cc", [said], role="recorder")
        desk.run()
        assert oldest() == ((START_NS + seconds * SECOND) / 1e9 if seconds else 0)


def test_one_after_the_other_for_the_same_cause(desk: Desk) -> None:
    for at, fails in enumerate((True, True, False, False, True)):
        desk.keeper.observe(Condition(cause="store_outage", fails=fails, time_ns=START_NS + at, detail="it"))
    assert [state for _, _, state in desk.kept.told] == ["opened", "closed", "opened"]
    assert len(desk.incidents) == 2


def test_an_outage_that_outlasts_our_restart_is_one_incident(desk: Desk) -> None:
    away = Condition(cause="store_outage", fails=True, time_ns=START_NS, detail="it")
    desk.keeper.observe(away)
    desk.start({})  # nothing of it can be in the log: the store is away
    desk.keeper.observe(away)
    assert desk.kept.told == [("store_outage", "", "opened")]


def test_patience() -> None:
    patience = Patience(10)

    def look(second: int, state: str) -> tuple[bool, int] | None:
        found = patience.look(Condition(cause="c", fails=state == "fails", time_ns=second * SECOND, detail=""))
        return None if found is None else (found.fails, found.time_ns // SECOND)

    assert [look(0, "fails"), look(9, "fails")] == [None, None]
    assert look(10, "fails") == (True, 0)
    assert [look(11, "works"), look(12, "fails"), look(21, "fails")] == [None, None, None]
    assert look(22, "fails") == (True, 12)
    assert [look(30, "works"), look(40, "works")] == [None, (False, 30)]


@pytest.mark.parametrize(("reason", "lacks"), [("absent", True), ("bad_chain", True), ("silent", False)])
def test_what_a_stream_lacks_is_read_off_its_trail(desk: Desk, reason: str, lacks: bool) -> None:
    desk.gap(reason)
    desk.ledger.publish()
    assert Lacking(desk.index, desk.ledger.reader)(SHOP) == lacks


def test_a_gap_that_stays_makes_nobody_read_its_stream_from_the_beginning_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    entry = LogReader.entry

    def counted(reader: LogReader, leaf: int) -> bytes:
        read.append(leaf)
        return entry(reader, leaf)

    monkeypatch.setattr(LogReader, "entry", counted)
    lacking = Lacking(desk.index, desk.ledger.reader)
    desk.gap()
    desk.ledger.publish()
    for _ in range(3):
        assert lacking(SHOP)
    assert len(read) == len(set(read))
    desk.gap("silent")
    desk.ledger.publish()
    assert lacking(SHOP)
    assert len(read) == len(set(read)) == len(desk.index.leaves(stream_trail(SHOP)))


def test_the_store_is_asked(tmp_path: Path) -> None:
    class Away(MemoryStore):
        def acknowledged(self, stream: Any) -> int:
            raise Overloaded(f"no node answers about {stream}")

    assert [one.fails for one in StoreProbe(MemoryStore()).look(1)] == [False]
    (one,) = StoreProbe(Away()).look(1)
    assert (one.fails, one.cause) == (True, "store_outage")
    assert "no node answers" in one.detail


def test_pages_of_metrics() -> None:
    page = {"text": ""}
    probe = PagesProbe(lambda: {"shop": "u"}, fetch=lambda _: page["text"], clock_seconds=0.5, quiet_seconds=10)

    def see(offset: float, refused: int, second: int) -> list[tuple[str, bool]]:
        page["text"] = (
            f"tally_collector_clock_offset_seconds {offset}\n"
            f'tally_collector_refused_total{{reason="a"}} {refused - 1}\ntally_collector_refused_total{{reason="b"}} 1\n'
        )
        found = [*probe.clocks(second * SECOND), *probe.refusals(second * SECOND)]
        return [(one.cause, one.fails) for one in found]

    assert see(0.1, 3, 0) == [("clock_off", False)], "what was refused before is not told"
    assert see(-0.7, 3, 1) == [("clock_off", True)]
    assert see(float("nan"), 4, 2) == [("dead_letters", True)]
    assert see(float("nan"), 4, 11) == []
    assert see(float("nan"), 4, 12) == [("dead_letters", False)]
    assert see(float("nan"), 2, 13) == [("dead_letters", True)], "it was started again, and refused two"
    page["text"] = "{"
    assert [*probe.clocks(0), *probe.refusals(0)] == []


def test_the_last_check(tmp_path: Path) -> None:
    file = tmp_path / "tally.prom"
    probe = CheckProbe(file)
    assert [*probe.look(1)] == []
    for findings in (2, 0):
        CheckMetrics().write(file, ledger="log.example", findings=findings, gaps=2, leaves=9, now_seconds=1.0)
        (one,) = probe.look(1)
        assert (one.cause, one.fails) == ("verification_failed", findings > 0)


def test_alertmanager_is_asked() -> None:
    failed = {"count": 1, "reached": True}

    def fetch(url: str) -> str:
        if not failed["reached"]:
            raise OSError("refused")
        return (
            f'alertmanager_notifications_failed_total{{integration="email"}} {failed["count"]}\n'
            if "metrics" in url
            else ""
        )

    probe = AlertmanagerProbe(["http://a/"], fetch=fetch)
    assert [(one.subject, one.fails) for one in probe.look(1)] == [("http://a", False), ("alertmanager", False)]
    failed["count"] = 2
    assert [(one.subject, one.fails) for one in probe.look(2)] == [("http://a", True), ("alertmanager", False)]
    failed["reached"] = False
    assert [(one.subject, one.fails) for one in probe.look(3)] == [("alertmanager", True)]


BROKEN_OFF = {
    "a chunk broken off": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nalertman",
    "half of what was announced": b"HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\nup 1\n",
}


@pytest.mark.parametrize("answer", [*NO_HTTP.values(), *BROKEN_OFF.values()], ids=[*NO_HTTP, *BROKEN_OFF])
def test_what_is_no_answer_in_http_ends_no_probe(answer: bytes) -> None:
    with mumbler(answer) as url:
        assert [(one.subject, one.fails) for one in AlertmanagerProbe([url]).look(1)] == [("alertmanager", True)]
        assert [*PagesProbe(lambda: {"shop": url}, clock_seconds=1.0, quiet_seconds=1.0).clocks(1)] == []


@pytest.mark.parametrize("answer", NO_HTTP.values(), ids=NO_HTTP)
def test_a_switch_that_does_not_speak_http_was_not_told(tmp_path: Path, answer: bytes) -> None:
    with mumbler(answer) as url:
        (tmp_path / "url").write_text(f"{url}/ping/s3cret\n")
        outside = Outside(str(tmp_path / "url"), seconds=60, metrics=IncidentMetrics(), monotonic=lambda: 0.0)
        heard = outside.tell(1)
    assert heard is not None
    assert heard.fails
    assert "s3cret" not in heard.detail


@pytest.mark.parametrize("body", [False, True])
def test_who_answers_byte_by_byte_keeps_no_probe(body: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(outside, "_TIMEOUT_SECONDS", 0.3)
    with dribbler(seconds=0.1, bytes_=100, body=body) as url:
        began = time.monotonic()
        assert [one.fails for one in AlertmanagerProbe([url]).look(1)] == [True]
        (tmp_path / "url").write_text(url)
        switch = Outside(str(tmp_path / "url"), seconds=60, metrics=IncidentMetrics(), monotonic=lambda: 0.0)
        heard = switch.tell(1)
        assert time.monotonic() - began < 5.0
    assert heard is not None
    assert heard.fails != body, "what it says beside its status is not read"


def test_a_switch_that_sends_one_elsewhere_was_not_told(tmp_path: Path) -> None:
    with mumbler(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") as page:
        moved = f"HTTP/1.1 302 Found\r\nlocation: {page}/\r\ncontent-length: 0\r\n\r\n"
        with mumbler(moved.encode()) as url:
            (tmp_path / "url").write_text(f"{url}/ping/s3cret\n")
            outside = Outside(str(tmp_path / "url"), seconds=60, metrics=IncidentMetrics(), monotonic=lambda: 0.0)
            heard = outside.tell(1)
    assert heard is not None
    assert (heard.fails, heard.detail) == (True, "the dead man's switch outside was not told: the answer was 302")


def test_notifications_that_fail_every_five_minutes_are_one_incident() -> None:
    """Alertmanager's counter grows once for each try of a group, and we look every 15 seconds."""
    failed = 0

    def fetch(url: str) -> str:
        return f'alertmanager_notifications_failed_total{{integration="email"}} {failed}\n' if "metrics" in url else ""

    probe, patience, lasting = AlertmanagerProbe(["http://a"], fetch=fetch), Patience(60.0), list[bool]()
    for seconds in range(0, 7_200, 15):
        failed += seconds % 300 == 0 and 600 <= seconds < 3_600
        for seen in probe.look(seconds * SECOND):
            if seen.subject == "http://a" and (one := patience.look(seen)) is not None:
                lasting.append(one.fails)
    assert lasting.index(True) < len(lasting) - 1 - lasting[::-1].index(True)
    began = lasting.index(True)
    ended = lasting.index(False, began)
    assert True not in lasting[ended:], "once, from the first failure that lasted until ten minutes after the last"


MESSAGE = b"""{"version":"4","alerts":[
{"status":"firing","labels":{"alertname":"TallyVerificationFailed","instance":"h:1"},"startsAt":"1970-01-01T00:00:00.000000003Z","annotations":{"summary":"no"}},
{"status":"resolved","labels":{"alertname":"TallyClockOffset","instance":"h:2"}},
{"status":"firing","labels":{"alertname":"TallySequenceGap"}},
{"status":"firing","labels":{"alertname":"TallyWatchdog"}}]}"""


def test_what_alertmanager_posts() -> None:
    found, watchdog = conditions_of(MESSAGE, now_ns=5)
    assert watchdog
    assert [(one.cause, one.subject, one.fails) for one in found] == [
        ("verification_failed", "h:1", True),
        ("clock_off", "h:2", False),
    ], "the log tells of gaps itself"
    assert [one.time_ns for one in found] == [3, 5]
    assert found[0].detail == "TallyVerificationFailed firing: no"


@pytest.mark.parametrize("order", [("firing", "resolved"), ("resolved", "firing")])
def test_one_reason_that_is_over_ends_nothing_while_another_fires(order: tuple[str, str]) -> None:
    alerts = [
        {"status": status, "labels": {"alertname": "TallyDeadLetters", "instance": "h:1", "reason": status}}
        for status in order
    ]
    found, _ = conditions_of(json.dumps({"version": "4", "alerts": alerts}).encode(), now_ns=5)
    assert [one.fails for one in found] == [True]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"version":"3","alerts":[]}', b"\xff", b"[" * 100_000])
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(Malformed):
        conditions_of(body, now_ns=0)


def test_what_was_posted_in_vain_does_not_pile_up() -> None:
    inbox, got = Inbox(), list[bytes]()
    assert not inbox.post(b"nobody takes it", seconds=0)
    inbox.take(got.append)
    assert got == [], "whoever posted it was told so, and sends it again"


def test_what_is_posted_waits_until_it_is_on_record() -> None:
    inbox, got, answers = Inbox(), list[bytes](), list[bool]()
    refused = threading.Event()

    def record(body: bytes) -> None:
        if not refused.is_set():
            refused.set()
            raise Overloaded("the spool is full")
        got.append(body)

    poster = threading.Thread(target=lambda: answers.append(inbox.post(b"it", seconds=60)))
    poster.start()
    while poster.is_alive():
        try:
            inbox.take(record)
        except Overloaded:
            assert not answers
    assert (got, answers) == ([b"it"], [True])


def test_the_watchdog_s_silence() -> None:
    dog = Watchdog()
    assert dog.look(500 * SECOND, seconds=10) == [], "it may come to somebody else"
    dog.heard(501 * SECOND)
    (well,) = dog.look(511 * SECOND, seconds=10)
    assert not well.fails
    (late,) = dog.look(512 * SECOND, seconds=10)
    assert (late.fails, late.subject, late.time_ns) == (True, "watchdog", 501 * SECOND)
    dog.heard(513 * SECOND)
    (well,) = dog.look(514 * SECOND, seconds=10)
    assert not well.fails


def test_somebody_outside_hears_that_we_live(tmp_path: Path) -> None:
    file, now, metrics = tmp_path / "url", [0.0], IncidentMetrics()
    with receiver(200, 503) as (url, got):
        file.write_text(f"{url}/ping/s3cret\n")
        outside = Outside(str(file), seconds=60, metrics=metrics, monotonic=lambda: now[0])
        heard = outside.tell(1)
        assert heard is not None
        assert (heard.fails, [one.path for one in got]) == (False, ["/ping/s3cret"])
        assert outside.tell(2) is None, "it is not time"
        now[0] = 60.0
        refused = outside.tell(3)
    now[0] = 120.0
    for heard, said in ((refused, "503"), (outside.tell(4), "not told")):
        assert heard is not None
        assert heard.fails
        assert said in heard.detail
        assert "s3cret" not in heard.detail
    read = metrics.registry.get_sample_value
    assert read("tally_incidents_heartbeats_total", {"outcome": "failed"}) == 2
    assert read("tally_incidents_heartbeats_total", {"outcome": "taken"}) == 1


@pytest.mark.parametrize("text", ["", "two words", "ftp://x/s3cret", "http://switch.example/s3cret"])
def test_what_is_no_url_of_a_switch(tmp_path: Path, text: str) -> None:
    file = tmp_path / "url"
    file.write_text(text)
    with pytest.raises(Malformed) as caught:
        Outside(str(file), seconds=1, metrics=IncidentMetrics(), monotonic=lambda: 0.0)
    assert "s3cret" not in str(caught.value)
