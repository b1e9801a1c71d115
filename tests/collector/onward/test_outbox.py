"""The queue in front of the metrics server is bounded, in order, patient, and counts what it drops."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from collector.onward.endpoint import Later, Refused
from collector.onward.outbox import Outbox, Part
from collector.retry import RetryLimits

QUICK = RetryLimits(base_seconds=0.001, cap_seconds=0.01, failures_to_open=100, open_seconds=0.01)


class Tally:
    def __init__(self) -> None:
        self.sent = 0
        self.dropped: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()

    def metric_points_sent(self, points: int) -> None:
        self.sent += points

    def metric_points_dropped(self, reason: str, points: int) -> None:
        self.dropped[reason] += points

    def metric_request_answered(self, result: str) -> None:
        self.answers[result] += 1


class Named(Part):
    def __init__(self, name: str, points: int) -> None:
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "unsayable", 0)
        object.__setattr__(self, "overtaken", 0)
        object.__setattr__(self, "empty", False)
        object.__setattr__(self, "name", name)


class Way:
    """Requests are words, each of them a part of one point."""

    def __init__(self, send: Callable[[str], int]) -> None:
        self._send = send
        self.told: list[str] = []

    def parts(self, request: bytes) -> Iterator[Part]:
        for word in request.decode().split():
            if word == "broken":
                raise RuntimeError("a defect")
            without = {
                "unsayable": Part(points=0, unsayable=1, empty=True),
                "late": Part(points=0, overtaken=1, empty=True),
            }
            yield without.get(word) or Named(word, 1)

    def send(self, part: Part) -> int:
        word: str = part.name  # type: ignore[attr-defined]  # a Named
        taken = self._send(word)
        self.told.append(word)
        return taken

    def close(self) -> None:
        self.told.append("(closed)")


def outbox(way: Way, tally: Tally, **limits: object) -> Outbox:
    bounds: dict[str, object] = {"limit_bytes": 1_000, "max_age_seconds": 60.0, **limits}
    return Outbox(way, name="there", counting=tally, retry=QUICK, **bounds)  # type: ignore[arg-type]  # as given


def test_everything_is_sent_in_its_order_however_often_it_must_be() -> None:
    left = {"b": 3, "d": 1}

    def send(word: str) -> int:
        if left.get(word):
            left[word] -= 1
            raise Later("not now")
        return 1

    way, tally = Way(send), Tally()
    box = outbox(way, tally)
    for request in (b"a b c", b"d unsayable late e"):
        box.put(request, len(request.split()))
    box.close(5.0)
    assert way.told == ["a", "b", "c", "d", "e", "(closed)"]
    assert (tally.sent, tally.dropped) == (5, {"name": 1, "same_name": 1})
    assert tally.answers == {"taken": 5, "later": 4}
    assert box.waiting_bytes == 0


def test_what_is_refused_or_broken_is_counted_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def send(word: str) -> int:
        if word == "bad":
            raise Refused("HTTP 400 no")
        return 0 if word == "lost" else 1

    way, tally = Way(send), Tally()
    box = outbox(way, tally)
    with caplog.at_level("INFO"):
        box.put(b"a bad lost b", 4)
        box.put(b"c broken d", 3)
        box.put(b"e", 1)
        box.close(5.0)
    assert tally.sent == 4
    assert tally.dropped == {"refused": 1, "not_written": 1, "failed": 2}
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "metrics do not go on to there: it refuses them: HTTP 400 no",
        "metrics go on to there again",
        "metrics could not be sent: RuntimeError",
    ]


def test_when_it_is_full_the_oldest_goes() -> None:
    go, first = threading.Event(), threading.Event()

    def send(_: str) -> int:
        first.set()
        go.wait(10)
        return 1

    way, tally = Way(send), Tally()
    box = outbox(way, tally, limit_bytes=50)
    box.put(b"first", 1)
    assert first.wait(10)
    for at in range(10):
        box.put(b"%09d " % at, 1)
    box.put(b"x" * 51, 7)
    assert box.waiting_bytes <= 50
    go.set()
    box.close(5.0)
    assert way.told == ["first", "000000006", "000000007", "000000008", "000000009", "(closed)"]
    assert tally.sent == 5
    assert tally.dropped == {"queue_full": 6 + 7}


def test_what_is_too_old_goes_and_a_stop_is_bounded() -> None:
    def down(_: str) -> int:
        raise Later("no route", after_seconds=0.01)

    tally = Tally()
    box = outbox(Way(down), tally, max_age_seconds=0.05)
    box.put(b"a b", 2)
    deadline = time.monotonic() + 10
    while not tally.dropped:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert tally.dropped == {"too_old": 2}
    assert box.trouble == "no route"
    box.close(0.0)

    tally = Tally()
    box = outbox(Way(down), tally)
    box.put(b"a b", 2)
    box.put(b"c", 1)
    begun = time.monotonic()
    box.close(0.1)
    assert time.monotonic() - begun < 5
    assert tally.dropped == {"stopped": 3}
    box.put(b"d", 1)
    assert tally.dropped == {"stopped": 4}


def test_a_stop_tries_once_more_what_waits_for_its_next_turn() -> None:
    up = threading.Event()
    asked = threading.Event()

    def send(_: str) -> int:
        if not up.is_set():
            asked.set()
            raise Later("not now", after_seconds=300.0)
        return 1

    tally = Tally()
    box = outbox(Way(send), tally)
    box.put(b"a", 1)
    assert asked.wait(10)
    up.set()
    begun = time.monotonic()
    box.close(5.0)
    assert time.monotonic() - begun < 4
    assert (tally.sent, tally.dropped) == (1, {})
