"""`tally up` with a detector: a suspicious payment becomes an entry of its own trail, and an alert. And the rules, tried on history."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.conftest import Cli, Workshop, event
from tests.support.tally_up import tally_up, trail_until
from tests.support.webhooks import receiver

DETECTOR = """
[detector]
poll_seconds = 0.05
[[detector.payments]]
name = "card"
event = "paid"
amount = "attributes.amount"
default_currency = "EUR"
account = "attributes.card"
[[detector.rules]]
kind = "amount"
name = "large"
above = "1000"
severity = "critical"
"""


def until(ask: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < end
        time.sleep(0.05)  # what is awaited happens in another process
    return answer


def test_from_a_payment_to_an_alert_and_to_its_trail(tmp_path: Path) -> None:
    with receiver(200) as (url, got):
        config = (
            "[collector]\n[collector.forward]\nport = -1\n[collector.http]\nport = 0\n[audit_api]\nport = 0\n"
            + DETECTOR
            + '[[detector.rules]]\nkind = "amount"\nname = "huge"\nabove = "1000000"\n'
            + f'[detector.alertmanager]\nurls = ["{url}"]\n'
        )
        with tally_up(tmp_path, config) as addresses:
            lines = [
                {"service": "shop", "event_name": "paid", "transaction_id": name, "amount": amount, "card": "A-1"}
                for name, amount in (("T-1", 12.5), ("T-2", 2000))
            ]
            sent = httpx.post(
                f"{addresses['collector-collector']}/v1/events",
                content="\n".join(map(json.dumps, lines)),
                headers={"content-type": "application/x-ndjson"},
                timeout=10,
            )
            assert sent.status_code == 200
            (posted,) = until(lambda: list(got))
            (alert,) = posted.told
            assert alert["annotations"]["trail"] == "transaction/T-2"
            trail_until(tmp_path, "T-2", "2000 EUR is above 1000")
            metrics = httpx.get(f"{addresses['detector']}/metrics", timeout=10).text
            assert 'tally_detector_findings_total{rule="large",severity="critical"} 1.0' in metrics
            huge = 'tally_detector_findings_total{rule="huge",severity="warning"} 0.0'
            assert huge in metrics, "so that the boards see its first finding as one more"
            assert 'tally_detector_payments_total{payment="card"} 2.0' in metrics


@pytest.fixture
def history(workshop: Workshop) -> Workshop:
    workshop.file.write_text(workshop.file.read_text() + DETECTOR)
    rows = [("12", False), ("5000", True), ("2000", False), ("900", True)]
    made = [event("paid", f"p{at}", second=at) for at in range(len(rows))]
    for one, (amount, fraud) in zip(made, rows, strict=True):
        one.attributes.update(amount=amount, card="A", fraud=fraud)
    workshop.collect(made)
    workshop.correlate()
    return workshop


def test_rules_are_tried_on_what_has_happened(history: Workshop, cli: Cli) -> None:
    code, out, _ = cli("rules", "backtest", "--label", "attributes.fraud", "--json")
    assert code == 0
    found = json.loads(out)
    (large,) = found["rules"]
    assert (found["payments"], found["fraud"]) == (4, 2)
    assert (large["told"], large["precision"], large["recall"]) == (2, 0.5, 0.5)
    assert large["examples"][0]["reason"] == "5000 EUR is above 1000"

    code, out, _ = cli("rules", "backtest", "--since", "2023-11-14T22:13:22Z")
    assert code == 0
    assert out.splitlines()[0] == "2 payments"
    assert "told       1 (50.000%)" in out
    _, out, _ = cli("find", "--kind", "access")
    history.correlate()
    _, out, _ = cli("find", "--kind", "access")
    assert "access" in out, "that somebody asked is on record"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--since", "yesterday"), "RFC 3339"), (("--label", "fraud"), "a path starts with")],
)
def test_what_cannot_be_asked(history: Workshop, cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = cli("rules", "backtest", *arguments)
    assert code == 2
    assert said in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there are none"),
        (DETECTOR.replace('"attributes.card"', '"card"'), "a path starts with"),
        (DETECTOR + '[[detector.rules]]\nkind="listed"\nname="l"\nfile="nowhere"\n', "nowhere: No such file"),
        (DETECTOR + '[[detector.rules]]\nkind="amount"\nname="large"\nabove=1\n', "two rules have the same name"),
        (DETECTOR + '[[detector.rules]]\nkind="amount"\nname="l"\nabove=1\npayments=["wire"]\n', "called wire"),
        (DETECTOR + '[[detector.rules]]\nkind="novelty"\nname="l"\n', "novelty"),
    ],
)
def test_a_detector_that_cannot_run_says_why(workshop: Workshop, cli: Cli, text: str, said: str) -> None:
    workshop.file.write_text(workshop.file.read_text() + text)
    code, _, err = cli("rules", "backtest")
    assert code == 2
    assert said in err
