"""A stream over a destination in memory: in order, nothing missing, doubles recognisable, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_api.metrics import SiemMetrics
from audit_api.siem.account import account_event, declared
from audit_api.siem.cursor import Cursor, Position
from audit_api.siem.settings import HttpSettings
from audit_api.siem.stream import Stream
from collector.errors import Overloaded, StateUnknown, VerificationError
from collector.event import encode_event
from collector.retry import Breaker, RetryLimits
from collector.store.sqlite import SqliteStore
from correlator.index.memory import MemoryIndex
from tests.support.exports import logs_of
from tests.support.ledgers import SIGNER, START_NS, SmallLedger, payment, small_story
from tests.support.siems import MemoryDestination

DAY_NS = 86_400_000_000_000


class Stage:
    """A ledger, a destination in memory, and streams to it that begin again from the cursor's file as a new process does."""

    def __init__(self, ledger: SmallLedger, folder: Path, **settings: Any) -> None:
        self.ledger = ledger
        self.path = folder / "siem" / "desk.json"
        self.settings = HttpSettings(name="desk", url="https://desk.example/", format="json", **settings)
        self.destination = MemoryDestination()
        self.metrics = SiemMetrics(["desk"])
        self.now_ns = START_NS + DAY_NS
        self.stream = self.begun()

    def begun(self) -> Stream:
        return Stream(
            self.settings,
            logs=logs_of(self.ledger).all,
            destination=self.destination,
            cursor=Cursor(self.path),
            metrics=self.metrics,
            pauses=Breaker(RetryLimits(), uniform=lambda least, _: least),
            clock=lambda: self.now_ns,
        )

    def run(self) -> None:
        while self.stream.step()[0]:
            pass

    def leaves(self) -> list[int]:
        return [json.loads(one)["leaf"] for one in self.destination.got]

    def value(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(name, {"destination": "desk", **labels})
        assert found is not None, name
        return found


@pytest.fixture
def stage(ledger: SmallLedger, tmp_path: Path) -> Callable[..., Stage]:
    return lambda **settings: Stage(ledger, tmp_path, **settings)


def test_everything_comes_in_the_order_of_the_log(stage: Callable[..., Stage], ledger: SmallLedger) -> None:
    one = stage(batch_records=7)
    one.run()
    size = ledger.log.next_leaf_index
    assert one.leaves() == list(range(size))
    assert one.value("tally_siem_sent_total") == size
    assert one.value("tally_siem_behind_leaves") == one.value("tally_siem_behind_seconds") == 0
    ledger.ship("gateway/00000000000000aa", [payment(9, 0, "gateway", "more")])
    ledger.publish()
    one.stream = one.begun()
    one.run()
    assert one.leaves() == list(range(ledger.log.next_leaf_index))
    assert one.stream.step() == (0, one.settings.linger_seconds)


def test_who_begins_at_the_end_is_sent_what_comes(stage: Callable[..., Stage], ledger: SmallLedger) -> None:
    before = ledger.log.next_leaf_index
    one = stage(start="end")
    one.run()
    assert one.leaves() == []
    ledger.add_verdict("transaction/PAY-0", "failed")
    ledger.publish()
    one.stream = one.begun()  # a crash meanwhile begins at no later end
    one.run()
    assert one.leaves() == [before]


@pytest.mark.parametrize("taken", [0, 3])
def test_a_destination_that_is_away_is_waited_for(stage: Callable[..., Stage], ledger: SmallLedger, taken: int) -> None:
    one = stage(batch_records=5)
    one.destination.away, one.destination.breaks_after = 2, taken
    done, seconds = one.stream.step()
    assert (done, one.stream.away) == (0, "away, as told")
    assert seconds == 0.5, "as it was asked to"
    size = ledger.log.next_leaf_index
    assert one.value("tally_siem_behind_leaves") == size
    assert one.value("tally_siem_behind_seconds") == pytest.approx(DAY_NS / 1e9, rel=0.01)
    one.stream = one.begun()  # as if the process had been killed: what was taken is not known
    one.stream.step()
    one.run()
    assert one.stream.away == ""
    assert one.value("tally_siem_failures_total") == 2
    assert one.leaves() == [*range(taken), *range(taken), *range(size)]
    ids = [json.loads(line)["id"] for line in one.destination.got]
    assert len(set(ids)) == size, "a double has the id of the first"
    assert len(set(one.destination.got)) == size, "and says the same"


def test_what_is_refused_is_sent_with_less_and_nothing_is_passed_over(
    stage: Callable[..., Stage], ledger: SmallLedger
) -> None:
    one = stage()
    one.destination.refuses = lambda data: b"http.request" in data
    one.run()
    assert one.leaves() == list(range(ledger.log.next_leaf_index))
    cut = [json.loads(line) for line in one.destination.got if b'"cut"' in line]
    assert [line["cut"]["why"] for line in cut] == ["refused"] * 3
    assert all("entry" not in line for line in cut), "the name stands in the facts as well"
    assert one.value("tally_siem_reduced_total", reason="refused") == 6


def test_a_destination_that_takes_nothing_is_away(stage: Callable[..., Stage]) -> None:
    one = stage()
    one.destination.refuses = lambda _: True
    assert one.stream.step()[0] == 0
    assert "with nothing of the event in it" in one.stream.away
    assert one.destination.got == []


def test_what_is_left_out_is_counted(stage: Callable[..., Stage], ledger: SmallLedger) -> None:
    one = stage(entries=("verdict",), batch_records=4)
    one.run()
    kinds = [json.loads(line)["entry"]["kind"] for line in one.destination.got]
    assert set(kinds) == {"verdict"}
    assert one.value("tally_siem_filtered_total") == ledger.log.next_leaf_index - len(kinds)


class _Losing:
    """A store that has lost one event, and has another one in the place of a second."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def events(self, refs: Any) -> Any:
        from collector.errors import NotFound

        if any(str(ref.stream).startswith("gateway") and ref.sequence == 0 for ref in refs):
            raise NotFound("event 0 is lost")
        found = list(self._store.events(refs))
        for at, ref in enumerate(refs):
            if str(ref.stream).startswith("gateway") and ref.sequence == 1:
                found[at] = encode_event(payment(0, 0, "mallory", "paid"), exact=True)[0]
        return found


def test_a_damaged_event_is_told_as_such(stage: Callable[..., Stage], ledger: SmallLedger) -> None:
    store, ledger.store = ledger.store, _Losing(ledger.store)
    one = stage()
    one.run()
    ledger.store = store
    assert one.leaves() == list(range(ledger.log.next_leaf_index))
    problems = [json.loads(line)["problem"] for line in one.destination.got if b'"problem"' in line]
    assert len(problems) == one.value("tally_siem_missing_events_total") == 2
    assert problems[0] == "event 0 is lost"
    assert "its digest differs" in problems[1]
    assert not any(b"mallory" in line for line in one.destination.got)


class _Away:
    def events(self, _: Any) -> Any:
        raise Overloaded("store away", retry_after_seconds=2.0)


def test_a_store_that_is_away_is_no_empty_event(stage: Callable[..., Stage], ledger: SmallLedger) -> None:
    store, ledger.store = ledger.store, _Away()  # type: ignore[assignment]  # that one method
    one = stage()
    assert one.stream.step() == (0, 2.0)
    assert one.value("tally_siem_log_failures_total") == 1
    ledger.store = store
    one.stream = one.begun()
    one.run()
    assert one.leaves() == list(range(ledger.log.next_leaf_index))


def test_a_log_that_is_away_makes_no_destination_current(stage: Callable[..., Stage], ledger: SmallLedger) -> None:
    one = stage()
    one.run()
    ledger.ship("gateway/00000000000000aa", [payment(9, 0, "gateway", "more")])
    ledger.publish()
    one.destination.away = 1
    one.stream.step()
    leaves, seconds = (one.value(f"tally_siem_behind_{unit}") for unit in ("leaves", "seconds"))
    assert leaves > 0

    def away(path: str) -> bytes:
        raise Overloaded(f"{path}: log away")

    get, ledger.storage.get = ledger.storage.get, away  # type: ignore[method-assign]  # that one method
    one.now_ns += 600_000_000_000
    one.stream.step()
    assert one.value("tally_siem_log_failures_total") == 1
    assert one.value("tally_siem_behind_leaves") == leaves
    assert one.value("tally_siem_behind_seconds") == seconds + 600, "what was not sent goes on growing old"
    ledger.storage.get = get  # type: ignore[method-assign]  # as above
    one.run()
    assert one.value("tally_siem_behind_leaves") == one.value("tally_siem_behind_seconds") == 0


def test_a_log_that_was_exchanged_is_noticed(tmp_path: Path, stage: Callable[..., Stage], ledger: SmallLedger) -> None:
    one = stage()
    one.run()
    size = ledger.log.next_leaf_index
    other = SmallLedger(store=SqliteStore(tmp_path / "other.sqlite"), index=MemoryIndex())
    for payments, said in ((1, f"does not continue the one of {size}"), (9, "rolled back or forked")):
        small_story(other, payments=payments)
        one.ledger = other
        one.stream = one.begun()
        with pytest.raises(VerificationError, match=said):
            one.stream.step()
    other.store.close()


def test_a_cursor_that_does_not_read_stops_everything(tmp_path: Path) -> None:
    path = tmp_path / "desk.json"
    path.write_text('{"declared": "x", "positions": {"log": {"next": 1, "size')
    with pytest.raises(StateUnknown, match="does not read"):
        Cursor(path)
    path.unlink()
    cursor = Cursor(path)
    cursor.declare("digest")
    cursor.move("log", Position(next=4, size=9, root="ab"))
    again = Cursor(path)
    assert (again.declared, again.of("log"), again.of("other")) == ("digest", Position(next=4, size=9, root="ab"), None)
    (tmp_path / "desk.new").mkdir()
    with pytest.raises(StateUnknown, match="cannot be written"):
        cursor.move("log", Position(next=5))
    assert cursor.of("log") == Position(next=4, size=9, root="ab")


def test_a_start_is_put_on_record_without_a_secret() -> None:
    settings = HttpSettings(
        name="desk", url="https://desk.example/in", token_file="/etc/desk.token", filter="service = a"
    )
    event = account_event("start", settings, {SIGNER.name: Position(next=7)}, changed=True, now_ns=START_NS)
    assert event.access is not None
    assert (event.access.principal, event.access.action) == ("siem:desk", "siem.start")
    assert event.attributes["siem.next_leaves"] == {SIGNER.name: 7}
    assert event.attributes["siem.place"] == "https://desk.example/in"
    assert event.attributes["siem.filter"] == "service = a"
    assert event.attributes["siem.settings"] == declared(settings)
    assert "token" not in str(event)
