"""Requests to stop a payment: signed, asked until there is an outcome, and that outcome on record."""

from __future__ import annotations

import base64
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from alerting.detect.freeze import Freezer, signature_of
from alerting.detect.metrics import DetectorMetrics
from alerting.detect.settings import FreezeSettings
from collector.errors import Malformed, Overloaded
from collector.event import Event
from deploy.detecting import trail_of
from tests.alerting.test_tell import Clock, Slow, waiting
from tests.support.webhooks import receiver

SECRET = base64.b64encode(bytes(range(32))).decode()


class Kept:
    """Records in memory; `down` for as many calls as it says."""

    def __init__(self) -> None:
        self.events: dict[bytes, Event] = {}
        self.down = 0

    def record_once(self, event: Event, source_id: bytes) -> bool:
        if self.down:
            self.down -= 1
            raise Overloaded("the spool is full")
        new = source_id not in self.events
        self.events.setdefault(source_id, event)
        return new


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"whsec_{SECRET}\n")
    return file


def freezer(
    url: str, secret: Path, kept: Kept, clock: Clock, metrics: DetectorMetrics | None = None, **settings: Any
) -> Freezer:
    return Freezer(
        FreezeSettings(url=url, secret_file=str(secret), **settings),
        findings=kept,
        trail_of=trail_of,
        metrics=metrics or DetectorMetrics(),
        clock=lambda: 1_700_000_000_123_456_789,
        monotonic=clock,
    )


def test_the_signature_is_that_of_the_specification() -> None:
    """The vector that Standard Webhooks' own libraries are tested with."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature_of(
        secret, id_="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1_614_265_330, body=b'{"test": 2432232314}'
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_is_accepted_is_on_record(secret: Path) -> None:
    kept, metrics = Kept(), DetectorMetrics()
    left = waiting()
    with receiver(202) as (url, got):
        assert freezer(url, secret, kept, Clock(), metrics).ask(left) == 1
    (posted,) = got
    headers, body, told = posted.headers, posted.body, posted.told
    assert not left
    assert posted.path == "/"
    assert told["type"] == "payment.freeze"
    assert (told["data"]["transaction"], told["data"]["rule"], told["data"]["leaf"]) == ("T/1", "large", 0)
    assert "4711" not in body.decode(), "the account stays here"
    assert headers["webhook-id"] == headers["idempotency-key"] == told["data"]["finding"]
    assert headers["webhook-timestamp"] == "1700000000"
    expected = signature_of(bytes(range(32)), id_=headers["webhook-id"], timestamp=1_700_000_000, body=body)
    assert headers["webhook-signature"] == expected
    (event,) = kept.events.values()
    assert (event.event_name, event.outcome, event.transaction) == ("detection.freeze", "success", "T/1")
    assert event.attributes["http.response.status_code"] == 202
    assert metrics.registry.get_sample_value("tally_detector_freezes_total", {"outcome": "accepted"}) == 1


def test_a_definite_no_is_an_outcome_too(secret: Path) -> None:
    kept = Kept()
    with receiver(404) as (url, _):
        freezer(url, secret, kept, Clock()).ask(waiting())
    (event,) = kept.events.values()
    assert event.outcome == "failure"
    assert event.body == "asked for the payment to be frozen: the answer was 404"


def test_what_may_pass_is_asked_again_under_the_same_id(secret: Path) -> None:
    kept, clock = Kept(), Clock()
    left = waiting()
    with receiver(503, 429, 302, 200) as (url, got):
        asks = freezer(url, secret, kept, clock)
        for second in range(16):
            clock.seconds = float(second)
            asks.ask(left)
        assert len({posted.headers["webhook-id"] for posted in got}) == 1
        assert len(got) == 4
    assert [event.outcome for event in kept.events.values()] == ["success"]


def test_when_nobody_ever_answers_that_is_put_on_record(secret: Path) -> None:
    kept, clock, metrics = Kept(), Clock(), DetectorMetrics()
    left = waiting(2)
    asks = freezer("http://127.0.0.1:9/", secret, kept, clock, metrics, give_up_seconds=10)
    for second in range(40):
        clock.seconds = float(second)
        asks.ask(left)
    assert not left
    assert [event.body for event in kept.events.values()] == ["asked for the payment to be frozen: nobody answered"] * 2
    assert metrics.registry.get_sample_value("tally_detector_freezes_total", {"outcome": "given_up"}) == 2


def test_one_that_fails_holds_up_no_other(secret: Path) -> None:
    kept, clock = Kept(), Clock()
    left = waiting(3)
    with receiver(500, 202, 202, 500, 500, 202) as (url, got):
        asks = freezer(url, secret, kept, clock)
        for second in range(8):
            clock.seconds = float(second)
            if second == 5:
                left.append(waiting(4).pop())  # the receiver answers, so it does not wait for the pause of the old one
            asks.ask(left)
    assert [posted.told["data"]["leaf"] for posted in got] == [0, 1, 2, 0, 0, 3, 0]
    assert not left


def test_all_that_wait_are_given_up_together(secret: Path) -> None:
    kept, clock = Kept(), Clock()
    left = waiting(5)
    asks = freezer("http://127.0.0.1:9/", secret, kept, clock, give_up_seconds=10)
    for second in range(16):
        clock.seconds = float(second)
        asks.ask(left)
    assert not left, "after 1, 3, 7 and 15 s: each waited as long as the first"
    assert len(kept.events) == 5


def test_a_turn_ends_however_much_waits(secret: Path) -> None:
    left = waiting(100)
    with receiver(202) as (url, got):
        asked = freezer(url, secret, Kept(), Slow()).ask(left)
    assert 0 < asked == len(got) < 10
    assert len(left) == 100 - asked


def test_an_outcome_that_cannot_be_recorded_is_asked_for_again(secret: Path) -> None:
    kept = Kept()
    kept.down = 1
    left = waiting()
    with receiver(200) as (url, got):
        asks = freezer(url, secret, kept, Clock())
        with pytest.raises(Overloaded):
            asks.ask(left)
        assert len(left) == 1
        asks.ask(left)
        assert len({posted.headers["webhook-id"] for posted in got}) == 1
    assert (len(got), len(kept.events), len(left)) == (2, 1, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("", "not one word"), ("?" * 40, "not base64"), ("c2hvcnQ=", "24 to 64 bytes")],
)
def test_a_secret_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "secret"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Malformed, match=said):
        freezer("http://127.0.0.1:1", file, Kept(), Clock())


def test_what_is_signed_goes_nowhere_unencrypted(secret: Path) -> None:
    with pytest.raises(Malformed, match=r"bank\.example unencrypted"):
        freezer("http://bank.example/freeze", secret, Kept(), Clock())


def test_settings_that_nobody_could_trust_are_refused() -> None:
    with pytest.raises(ValueError, match="secret_file is missing"):
        FreezeSettings(url="https://bank.example/freeze")


def test_nothing_waits_for_ever_in_an_empty_queue(secret: Path) -> None:
    assert freezer("http://127.0.0.1:9/", secret, Kept(), Clock()).ask(deque()) == 0
