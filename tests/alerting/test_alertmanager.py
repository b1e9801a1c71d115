"""Who hears of what: routes as amtool reads them, what an outage silences in a real Alertmanager, and no secret in the file."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from alerting.alertmanager import OUTAGE_SILENCES, configuration
from alerting.incidents.told import ALERTS
from alerting.rules import alerts
from alerting.settings import AlertingSettings, Receiver, Route, Smtp
from tests.alerting.cases import INVENTORY, SETTINGS
from tests.servers.alertmanager import Alertmanager, amtool

ALL_WAYS = AlertingSettings(
    receivers={
        "pager": Receiver(pagerduty_key_file="/run/secrets/pagerduty"),
        "payments": Receiver(slack_url_file="slack-url", slack_channel="#payments"),
        "office": Receiver(email_to=("ops@bank.example", "audit@bank.example")),
        "deadman": Receiver(webhook_url="https://deadman.example/tally", webhook_token_file="deadman-token"),
    },
    routes=(
        Route(receiver="payments", team="payments", severity="ticket"),
        Route(receiver="pager", severity="page"),
        Route(receiver="office", severity="ticket"),
    ),
    default_receiver="office",
    watchdog_receiver="deadman",
    smtp=Smtp(smarthost="mail.example:587", sender="tally@bank.example", user="tally", password_file="smtp-password"),
)


def written(folder: Path, settings: AlertingSettings) -> Path:
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(configuration(settings), sort_keys=False))
    return file


def test_no_secret_is_in_it_but_files_names() -> None:
    text = json.dumps(configuration(ALL_WAYS))
    for field in ("routing_key", "api_url", "smtp_auth_password", "credentials", "bearer_token"):
        assert f'"{field}"' not in text
    for field in ("routing_key_file", "api_url_file", "smtp_auth_password_file", "credentials_file"):
        assert f'"{field}"' in text


def test_the_watchdog_comes_every_minute() -> None:
    """As Alertmanager's DedupStage has it: at a look, what was sent longer ago than `repeat_interval`, by when that was done."""
    route = configuration(ALL_WAYS)["route"]["routes"][0]
    every, repeat = (int(route[key].removesuffix("s")) for key in ("group_interval", "repeat_interval"))
    sent = [0.0]
    for look in range(every, 601, every):
        if sent[-1] < look - repeat:
            sent.append(look + 0.2)  # it takes a moment
    assert [round(one) for one in sent] == [*range(0, 601, 60)]


def test_an_outage_silences_what_there_is() -> None:
    names = {alert.name for alert in alerts(SETTINGS, INVENTORY)}
    assert set(OUTAGE_SILENCES) < names
    for rule in configuration(ALL_WAYS)["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            assert set(matcher.partition('"')[2].rstrip('"').split("|")) <= names, matcher
    assert not set(OUTAGE_SILENCES) & {"TallySequenceGap", "TallyVerificationFailed", "TallyRefusing", "TallyWatchdog"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"receivers": {"a": {}}}, "a receiver needs"),
        ({"receivers": {"a": {"webhook_url": "https://u:p@x.example/"}}}, "webhook_url is no http"),
        ({"receivers": {"a": {"webhook_url": "https://x.example/?key=1"}}}, "webhook_url is no http"),
        ({"receivers": {"a": {"slack_url_file": "x"}}}, "go together"),
        ({"receivers": {"a": {"email_to": ["a@b"]}}, "default_receiver": "a"}, "needs \\[alerting.smtp\\]"),
        ({"receivers": {"a": {"pagerduty_key_file": "x"}}}, "default_receiver is needed"),
        ({"routes": [{"receiver": "b"}]}, "there is no receiver b"),
        ({"watchdog_receiver": "b"}, "there is no receiver b"),
        ({"incidents_receiver": "b"}, "there is no receiver b"),
        ({"receivers": {"nobody": {"pagerduty_key_file": "x"}}, "default_receiver": "nobody"}, "is taken"),
        ({"matchers": 'a="b"} or up{'}, "matchers are written like"),
        ({"slos": [{"service": "a", "latency_seconds": 0.3}]}, "none of the histogram's bounds"),
        ({"slos": [{"service": "a"}, {"service": "a"}]}, "has one entry"),
        ({"objective": 0.5}, "14.4 times"),
    ],
)
def test_what_cannot_be_used_is_refused(fields: dict[str, Any], message: str) -> None:
    import msgspec

    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(fields, AlertingSettings)


@pytest.mark.alertmanager
@pytest.mark.parametrize("settings", [AlertingSettings(), ALL_WAYS], ids=["nobody", "all ways"])
def test_amtool_takes_it(tmp_path: Path, settings: AlertingSettings) -> None:
    done = amtool("check-config", str(written(tmp_path, settings)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.alertmanager
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=TallyNoWriter", "severity=page", "team=platform"], "pager"),
        (["alertname=TallyErrorBudgetBurnsFast", "severity=page", "team=payments"], "pager"),
        (["alertname=TallyErrorBudgetBurns", "severity=ticket", "team=payments"], "payments"),
        (["alertname=TallyDeadLetters", "severity=ticket", "team=platform"], "office"),
        (["alertname=TallyWatchdog", "severity=none", "team=platform"], "deadman"),
        (["alertname=SomethingElse"], "office"),
    ],
)
def test_each_alert_finds_its_people(tmp_path: Path, labels: list[str], receiver: str) -> None:
    config = f"--config.file={written(tmp_path, ALL_WAYS)}"
    done = amtool("config", "routes", "test", config, f"--verify.receivers={receiver}", *labels)
    assert done.returncode == 0, done.stdout + done.stderr
    other = "office" if receiver != "office" else "pager"
    assert amtool("config", "routes", "test", config, f"--verify.receivers={other}", *labels).returncode == 1


@pytest.mark.alertmanager
@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (["alertname=TallyVerificationFailed", "severity=page"], "keeper,pager"),
        (["alertname=TallyDeadLetters", "severity=ticket"], "keeper,office"),
        (["alertname=TallyClockOffset", "severity=ticket"], "keeper,office"),
        (["alertname=TallyNoWriter", "severity=page"], "pager"),
        (["alertname=TallyBrokerLost", "severity=ticket"], "office"),
        (["alertname=TallyWatchdog", "severity=none"], "nobody"),
    ],
)
def test_the_keeper_hears_beside_people_and_not_in_their_place(
    tmp_path: Path, labels: list[str], receivers: str
) -> None:
    settings = AlertingSettings(
        receivers={
            "pager": Receiver(pagerduty_key_file="/run/secrets/pagerduty"),
            "office": Receiver(webhook_url="https://office.example/"),
            "keeper": Receiver(webhook_url="http://127.0.0.1:9466/alerts", webhook_token_file="alerts.token"),
        },
        routes=(Route(receiver="pager", severity="page"),),
        default_receiver="office",
        incidents_receiver="keeper",
    )
    assert set(ALERTS) <= {alert.name for alert in alerts(SETTINGS, INVENTORY)} | {"TallyClockOffset"}
    config = f"--config.file={written(tmp_path, settings)}"
    done = amtool("config", "routes", "test", config, f"--verify.receivers={receivers}", *labels)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.alertmanager
def test_a_greater_trouble_silences_what_follows_from_it(tmp_path: Path) -> None:
    def alert(name: str, ledger: str = "a", **labels: str) -> dict[str, Any]:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
        return {"labels": {"alertname": name, "ledger": ledger, **labels}, "endsAt": until.isoformat()}

    with Alertmanager(tmp_path / "alertmanager", written(tmp_path, AlertingSettings())) as alertmanager:
        told = [
            alert("TallyStoreUnavailable"),
            *(alert(name) for name in OUTAGE_SILENCES),
            alert("TallyStitchSlow", ledger="b"),
            alert("TallySequenceGap"),
            alert("TallyCollectorMissing", collector="risk"),
            alert("TallyTransactionsIncomplete", flow="payment"),
            alert("TallyTransactionsIncomplete", ledger="b", flow="payment"),
            alert("TallyErrorBudgetBurnsFast", service="payments", slo="availability"),
            alert("TallyErrorBudgetBurns", service="payments", slo="availability"),
            alert("TallyErrorBudgetBurns", service="risk", slo="availability"),
        ]
        httpx.post(f"http://{alertmanager.address}/api/v2/alerts", json=told, timeout=10).raise_for_status()
        # which alerts are silenced is worked out while an answer is made, so one look is enough
        state = {
            (one["labels"]["alertname"], one["labels"]["ledger"], one["labels"].get("service", "")): bool(
                one["status"]["inhibitedBy"]
            )
            for one in alertmanager.alerts()
        }
    silenced = {key for key, inhibited in state.items() if inhibited}
    assert len(state) == len(told)
    assert silenced == {
        *((name, "a", "") for name in OUTAGE_SILENCES),
        ("TallyTransactionsIncomplete", "a", ""),
        ("TallyErrorBudgetBurns", "a", "payments"),
    }
