"""The rounds of shipping: how old what waits is told to be."""

from __future__ import annotations

import threading

import pytest

from collector.errors import Overloaded
from collector.retry import RetryLimits
from collector.rounds import Rounds


class Store:
    """Something to ship to: takes all that waits, a second later as much waits again; or it is down."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waiting = 5
        self.stored_events = 0
        self.down = False
        self.at_once = 1_000

    def waiting_events(self) -> int:
        return self.waiting

    def ship_once(self) -> bool:
        self.now += 1.0
        if self.down:
            raise Overloaded("down")
        taken = min(self.waiting, self.at_once)
        self.stored_events += taken
        self.waiting += 5 - taken
        return True

    def release_once(self) -> None:
        pass

    def drained(self) -> bool:
        return False


def rounds_of(store: Store, *, linger_seconds: float = 0.0, enough_events: int = 1) -> Rounds:
    return Rounds(
        store,
        retry=RetryLimits(),
        linger_seconds=linger_seconds,
        release_seconds=1.0,
        enough_events=enough_events,
        monotonic=lambda: store.now,
    )


def test_under_steady_load_nothing_grows_old_while_the_store_keeps_up() -> None:
    store = Store()
    rounds = rounds_of(store)
    for _ in range(60):
        rounds._round()
        assert store.waiting, "or this would prove nothing"
        assert rounds.waiting_seconds <= 2.0
    store.waiting = 0
    rounds._round()
    assert rounds.waiting_seconds == 0.0


def test_what_a_store_that_is_down_does_not_take_grows_old() -> None:
    store = Store()
    rounds = rounds_of(store)
    for _ in range(3):
        rounds._round()
    store.down = True
    for _ in range(60):
        rounds._round()
    assert rounds.waiting_seconds == pytest.approx(61.0, abs=1.0)
    store.down = False
    for _ in range(3):
        rounds._round()
    assert rounds.waiting_seconds <= 2.0


def test_a_backlog_that_is_taken_piece_by_piece_is_as_old_as_its_rest() -> None:
    store = Store()
    store.waiting, store.at_once = 100, 10
    rounds = rounds_of(store)
    for _ in range(9):
        rounds._round()
    assert rounds.waiting_seconds == 9.0
    for _ in range(30):
        rounds._round()
    assert rounds.waiting_seconds < 12.0


def test_a_drain_that_a_store_does_not_take_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.down = True
    rounds = rounds_of(store)
    rounds.start()
    with caplog.at_level("WARNING", logger="collector.rounds"):
        assert rounds.stop(0.5)
        before = sum("draining" in record.message for record in caplog.records)
    assert rounds.failed >= 2, "or this would prove nothing"
    assert before == 1


def test_a_drain_ends_by_its_deadline_though_a_store_hangs() -> None:
    store = Store()
    entered, go_on = threading.Event(), threading.Event()

    def hang() -> bool:
        entered.set()
        go_on.wait(20.0)
        return True

    store.ship_once = hang  # type: ignore[method-assign]
    rounds = rounds_of(store)
    rounds.start()
    assert entered.wait(10.0)
    assert not rounds.stop(0.0, overrun_seconds=0.05)
    go_on.set()
    assert rounds.stop(0.0), "who waits for it sees it end"


def test_lingering_ends_as_soon_as_a_batch_is_whole_and_not_before() -> None:
    class Told(Store):
        def __init__(self) -> None:
            super().__init__()
            self.waiting = 0
            self.shipped = threading.Semaphore(0)

        def ship_once(self) -> bool:
            taken, self.waiting = self.waiting, 0
            self.shipped.release()
            return taken > 0

        def drained(self) -> bool:
            return True

    store = Told()
    rounds = rounds_of(store, linger_seconds=600.0, enough_events=10)
    rounds.start()
    assert store.shipped.acquire(timeout=10.0), "the first look"
    store.waiting = 9
    rounds.wake()
    assert not store.shipped.acquire(timeout=0.2), "it waits for the tenth"
    store.waiting = 10
    rounds.wake()
    assert store.shipped.acquire(timeout=10.0)
    store.waiting = 1
    rounds.wake()
    assert not store.shipped.acquire(timeout=0.2)
    assert rounds.stop(5.0), "a stop does not linger"


def test_what_a_batch_left_behind_is_shipped_though_nothing_more_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a batch is cut by its bytes, long before it has enough events."""

    class Cut(Store):
        def __init__(self) -> None:
            super().__init__()
            self.waiting = 600
            self.shipped = threading.Semaphore(0)

        def ship_once(self) -> bool:
            if not self.waiting:
                return False
            self.waiting -= 200
            self.shipped.release()
            return True

    monkeypatch.setattr("collector.rounds._HEARTBEAT_CHECK_SECONDS", 600.0)
    store = Cut()
    rounds = rounds_of(store, linger_seconds=0.0, enough_events=1_000)
    rounds.wake()
    rounds.start()
    for _ in range(3):
        assert store.shipped.acquire(timeout=10.0)
    rounds.stop(0.0)


def test_what_has_come_before_it_lingers_counts() -> None:
    class Growing(Store):
        rounds_seen = 0

        def ship_once(self) -> bool:
            self.rounds_seen += 1
            return False  # and as much waits as before: 5

    store = Growing()
    rounds = rounds_of(store, linger_seconds=600.0, enough_events=5)
    rounds.start()
    for _ in range(3):
        rounds.wake()
        seen = store.rounds_seen
        for _ in range(1_000):
            if store.rounds_seen > seen:
                break
            threading.Event().wait(0.01)
        assert store.rounds_seen > seen, "a wake-up for enough is no reason to linger"
    rounds.stop(0.0)
