"""Alertmanagers are told, over real HTTP, whatever they answer."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from alerting.detect.engine import Finding
from alerting.detect.metrics import DetectorMetrics
from alerting.detect.settings import AlertmanagerSettings
from alerting.detect.tell import ALERT_NAME, Alertmanagers
from alerting.detect.waiting import Told
from collector.errors import Malformed
from deploy.detecting import trail_of
from tests.alerting.payments import payment
from tests.support.webhooks import NO_HTTP, mumbler, receiver


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Slow(Clock):
    """Whatever is done between two looks at it takes half a second."""

    def __call__(self) -> float:
        self.seconds += 0.5
        return self.seconds


def waiting(count: int = 1) -> deque[Told]:
    return deque(
        Told(
            origin="log.example",
            finding=Finding(
                rule="large",
                version="0123456789ab",
                severity="critical",
                reason="2000 EUR is above 1000 EUR",
                payment=payment(0, "2000", leaf=leaf, transaction="T/1", account="4711"),
            ),
        )
        for leaf in range(count)
    )


def alertmanagers(metrics: DetectorMetrics, monotonic: Clock, *urls: str, **settings: Any) -> Alertmanagers:
    return Alertmanagers(
        AlertmanagerSettings(urls=urls, **settings),
        trail_of=trail_of,
        metrics=metrics,
        clock=lambda: 1_700_000_000_000_000_000,
        monotonic=monotonic,
    )


def test_an_alert_says_what_and_where_and_names_no_account() -> None:
    with receiver(200) as (url, got):
        tell = alertmanagers(DetectorMetrics(), Clock(), url, trail_url="https://audit.example/trails/{trail}")
        left = waiting()
        assert tell.tell(left) == 1
        assert not left
    (posted,) = got
    (alert,) = posted.told
    assert posted.path == "/api/v2/alerts"
    finding = alert["labels"].pop("finding")
    assert len(finding) == 16
    assert alert["labels"] == {"alertname": ALERT_NAME, "rule": "large", "severity": "critical", "payment": "card"}
    assert alert["annotations"]["description"] == "2000 EUR is above 1000 EUR"
    assert alert["annotations"]["log"] == "log.example leaf 0"
    assert alert["annotations"]["trail"].startswith("transaction/T")
    assert alert["generatorURL"] == "https://audit.example/trails/transaction%2FT%252F1"
    assert (alert["startsAt"], alert["endsAt"]) == ("2023-11-14T22:13:20.000000000Z", "2023-11-14T23:13:20.000000000Z")
    assert "4711" not in json.dumps(alert)


def test_one_of_two_is_enough_and_both_are_told() -> None:
    with receiver(200) as (one, got), receiver(503) as (other, also):
        left = waiting(100)
        assert alertmanagers(DetectorMetrics(), Clock(), other, one).tell(left) == 100
        assert [len(posted.told) for posted in got] == [64, 36]
        assert len(also) == 2


def test_nobody_to_tell_keeps_what_waits_and_pauses_longer_each_time() -> None:
    metrics, clock = DetectorMetrics(), Clock()
    with receiver(503) as (url, got):
        tell = alertmanagers(metrics, clock, url)
        left = waiting()
        tried = []
        for second in range(12):
            clock.seconds = float(second)
            tell.tell(left)
            tried.append(len(got))
        assert tried == [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4], "after 1, 2, 4 and 8 s"
        assert len(left) == 1
    assert metrics.registry.get_sample_value("tally_detector_telling_failures_total") == 4
    assert metrics.registry.get_sample_value("tally_detector_waiting_findings") == 1


def test_a_turn_ends_however_much_waits() -> None:
    with receiver(200) as (url, got):
        left = waiting(64 * 20)
        told = alertmanagers(DetectorMetrics(), Slow(), url).tell(left)
    assert 0 < len(got) < 10
    assert len(left) == 64 * 20 - told > 0


@pytest.mark.parametrize("answer", NO_HTTP.values(), ids=NO_HTTP)
def test_who_does_not_speak_http_is_told_again_later(answer: bytes) -> None:
    with mumbler(answer) as url:
        left = waiting()
        assert alertmanagers(DetectorMetrics(), Clock(), url).tell(left) == 0
        assert len(left) == 1


def test_what_is_refused_for_good_is_counted_and_does_not_block_the_rest() -> None:
    metrics = DetectorMetrics()
    with receiver(400) as (url, _):
        left = waiting(3)
        alertmanagers(metrics, Clock(), url).tell(left)
    assert not left
    assert metrics.registry.get_sample_value("tally_detector_told_total", {"outcome": "refused"}) == 3


def test_what_is_at_fault_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    metrics, clock = DetectorMetrics(), Clock()
    with receiver(400, 200, 503, 400, 200) as (url, got):
        tell = alertmanagers(metrics, clock, url)
        left = waiting(4)
        assert tell.tell(left) == 1
        assert len(left) == 3, "away for a moment, between two"
        clock.seconds = 1.0
        assert tell.tell(left) == 3
        assert [len(posted.told) for posted in got] == [4, 1, 1, 1, 1, 1], "together, then each alone"
        left = waiting(4)
        assert tell.tell(left) == 4
        assert len(got[-1].told) == 4, "and together again"
    read = metrics.registry.get_sample_value
    assert read("tally_detector_told_total", {"outcome": "refused"}) == 1
    assert read("tally_detector_told_total", {"outcome": "taken"}) == 7
    (said,) = (record for record in caplog.records if "refused for good" in record.getMessage())
    assert (vars(said)["leaf"], vars(said)["log"]) == (1, "log.example")


def test_what_one_refuses_while_another_is_away_holds_up_no_other_and_waits_for_that_one() -> None:
    metrics, clock = DetectorMetrics(), Clock()
    with receiver(400, 400, 200, 200, 400, 200, 400) as (one, got), receiver(*[503] * 6, 400) as (other, also):
        tell = alertmanagers(metrics, clock, one, other)
        left = waiting(3)
        assert tell.tell(left) == 0
        clock.seconds = 1.0
        assert tell.tell(left) == 2
        assert [told.finding.payment.leaf for told in left] == [0]
        clock.seconds = 2.0
        left.append(waiting(4)[3])
        assert tell.tell(left) == 1
        assert [told.finding.payment.leaf for told in left] == [0], "its own pause is longer"
        clock.seconds = 3.0
        assert tell.tell(left) == 1
        assert [len(posted.told) for posted in got] == [3, 1, 1, 1, 1, 1, 1]
        assert len(also) == len(got)
    assert not left
    read = metrics.registry.get_sample_value
    assert read("tally_detector_told_total", {"outcome": "refused"}) == 1
    assert read("tally_detector_told_total", {"outcome": "taken"}) == 3
    assert read("tally_detector_telling_failures_total") == 2


def test_a_token_goes_along_and_never_to_where_a_redirect_points(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    with receiver(302) as (url, got):
        left = waiting()
        alertmanagers(DetectorMetrics(), Clock(), url, token_file=str(token)).tell(left)
        assert [posted.headers["authorization"] for posted in got] == ["Bearer secret"]
        assert len(left) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("alertmanager:9093", "no URL"),
        ("http://user:pass@host:1", "no URL"),
        ("http://alerts.example:9093", "what is secret would go to alerts.example unencrypted"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(tmp_path: Path, url: str, said: str) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    with pytest.raises(Malformed, match=said) as error:
        alertmanagers(DetectorMetrics(), Clock(), url, token_file=str(token))
    assert "pass@" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"), [(None, "No such file"), ("", "not one word"), ("two words", "not one word")]
)
def test_a_token_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    token = tmp_path / "token"
    if text is not None:
        token.write_text(text)
    with pytest.raises(Malformed, match=said):
        alertmanagers(DetectorMetrics(), Clock(), "http://127.0.0.1:1", token_file=str(token))
