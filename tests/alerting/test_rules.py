"""Every alert fires when it should and is silent when not, as promtool says; every alert says what a person needs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from alerting.alert import Links
from alerting.metrics import declared
from alerting.rules import CLOCK_OFFSET, alerts, rules
from tests.alerting.cases import CASES, CLOCK, HEALTHY, INVENTORY, REQUESTS, SETTINGS, Case, P, climbing
from tests.servers.prometheus import need_prometheus

LINKS = Links(grafana="https://grafana.example", api="https://audit.example", runbooks="https://wiki.example/")
CASES_HERE = [*CASES, *([CLOCK] if CLOCK_OFFSET in declared() else [])]


def made() -> dict[str, Any]:
    return rules(SETTINGS, INVENTORY, LINKS, "payments.example/audit")


def alerting() -> list[dict[str, Any]]:
    return [rule for group in made()["groups"] for rule in group["rules"] if "alert" in rule]


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES_HERE} | {"TallyWatchdog"} == {rule["alert"] for rule in alerting()}


def test_every_alert_says_what_a_person_needs(repo_root: Path) -> None:
    boards = {f"tally-{name}" for name in ("overview", "transactions", "service", "pipeline", "audit", "fraud")}
    for rule in alerting():
        told, labels = rule["annotations"], rule["labels"]
        assert set(told) == {"summary", "description", "dashboard", "runbook_url", "trail"}
        assert all(told.values())
        assert labels["severity"] in ("page", "ticket", "none")
        assert labels["team"] in ("platform", "payments")
        assert labels["ledger"] == "payments.example/audit"
        assert told["dashboard"].removeprefix("https://grafana.example/d/").partition("?")[0] in boards
        assert told["runbook_url"] == f"https://wiki.example/{rule['alert']}.md"
        assert told["trail"].startswith("https://audit.example/")
        text = (repo_root / "docs" / "runbooks" / f"{rule['alert']}.md").read_text(encoding="utf-8")
        assert re.findall("^## (.+)$", text, re.MULTILINE) == ["What it means", "Look at", "Do"], rule["alert"]


def test_every_runbook_is_some_alerts(repo_root: Path) -> None:
    pages = {page.stem for page in (repo_root / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in alerting()} | {"TallyClockOffset"}


def test_labels_in_texts_are_labels_of_the_answer() -> None:
    """A `$labels.x` that the query does not keep would be empty in the middle of a sentence."""
    for alert in alerts(SETTINGS, INVENTORY):
        for label in re.findall(r"\$labels\.(\w+)", alert.summary + alert.description + alert.board + alert.api):
            kept = re.search(rf"by \([^)]*\b{label}\b[^)]*\)", alert.query) or label in ("instance", "system", "entry")
            assert kept, (alert.name, label)


@pytest.fixture(scope="module")
def rule_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yml"
    path.write_text(yaml.safe_dump(made(), sort_keys=False, allow_unicode=True))
    return path


def evaluated(rule_file: Path, name: str, blocks: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """`promtool test rules` of these blocks."""
    file = rule_file.parent / f"{name}.yml"
    test = {"rule_files": [str(rule_file)], "evaluation_interval": "1m", "tests": blocks}
    file.write_text(yaml.safe_dump(test, sort_keys=False))
    return promtool("test", "rules", str(file))


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    need_prometheus()
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=110)


@pytest.mark.prometheus
def test_promtool_takes_the_rules(rule_file: Path) -> None:
    done = promtool("check", "rules", "--lint-fatal", str(rule_file))
    assert done.returncode == 0, done.stdout + done.stderr


def told(series: dict[str, str], name: str, expected: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """A block of promtool's: so many series of each alert fire at that time."""
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items() if values],
        "promql_expr_test": [
            {
                "expr": f'count by (alertname) (ALERTS{{alertstate="firing",alertname=~"{alert}"}})',
                "eval_time": at,
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": count}] if count else [],
            }
            for alert, (at, count) in expected.items()
        ],
    }


def block(case: Case, *, near: bool) -> dict[str, Any]:
    series = {**HEALTHY, **(case.near if near else case.fault)}
    return told(
        series, f"{case.alert}{', near' if near else ''}", {case.alert: (case.after, 0 if near else case.firing)}
    )


@pytest.mark.prometheus
def test_each_alert_fires_and_is_silent(rule_file: Path) -> None:
    """Budgets are in another test: what they record month by month is nothing that the other alerts ask for, and slow."""
    alone = rule_file.parent / "alone.yml"
    alone.write_text(
        yaml.safe_dump({"groups": [group for group in made()["groups"] if group["name"] == "tally-alerts"]})
    )
    cases = [case for case in CASES_HERE if "Budget" not in case.alert]
    blocks = [block(case, near=False) for case in cases] + [block(case, near=True) for case in cases if case.near]
    done = evaluated(alone, "cases", blocks)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_budgets_burn_and_are_silent(rule_file: Path) -> None:
    cases = [case for case in CASES_HERE if "Budget" in case.alert]
    assert len(cases) == 5
    blocks = [block(case, near=False) for case in cases] + [block(case, near=True) for case in cases]
    quiet = told(dict(HEALTHY), "healthy", {})
    quiet["promql_expr_test"] = [  # nothing but the watchdog, at any time
        {
            "expr": 'count by (alertname) (ALERTS{alertstate=~"firing|pending"})',
            "eval_time": f"{at}m",
            "exp_samples": [{"labels": '{alertname="TallyWatchdog"}', "value": 1}],
        }
        for at in (1, 5, 15, 60, 130)
    ]
    done = evaluated(rule_file, "budgets", [*blocks, quiet])
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_recorded_names_its_ledger_and_is_asked_for_by_it() -> None:
    """Else two ledgers in one Prometheus record the same series, one failing rule after the other."""
    for rule in (rule for group in made()["groups"] for rule in group["rules"]):
        if "record" in rule:
            assert rule["labels"]["ledger"] == "payments.example/audit"
        for _, matchers in re.findall(r"\b(service:tally_\w+:\w+)(\{[^}]*\})?", rule["expr"]):
            assert 'ledger="payments.example/audit"' in matchers, rule["expr"]


@pytest.mark.prometheus
def test_two_ledgers_of_one_prometheus_burn_their_own_budgets(tmp_path: Path) -> None:
    """Both have a service of the same name: one whose requests succeed, one whose requests fail."""
    files = []
    for ledger in ("eu", "us"):
        settings = msgspec.structs.replace(SETTINGS, matchers=f'ledger="{ledger}"')
        groups = rules(settings, INVENTORY, LINKS, f"{ledger}.example/audit")["groups"]
        groups = [
            {**group, "name": f"{ledger}-{group['name']}"} for group in groups if group["name"] != "tally-slo-long"
        ]
        burns = [rule for rule in groups[-1]["rules"] if "ErrorBudgetBurnsFast" in rule["alert"]]
        file = tmp_path / f"{ledger}.rules.yml"
        file.write_text(yaml.safe_dump({"groups": [*groups[:-1], {**groups[-1], "rules": burns}]}))
        files.append(str(file))
    series = {
        REQUESTS % (f'ledger="{ledger}",{P}', "pay.ments", outcome): climbing(1000)
        for ledger, outcome in (("eu", "success"), ("us", "failure"))
    }
    block = told(series, "two ledgers", {"TallyErrorBudgetBurnsFast": ("90m", 1)})
    block["promql_expr_test"].append(
        {
            "expr": 'service:tally_requests:failed_ratio_rate5m{slo="availability"}',
            "eval_time": "90m",
            "exp_samples": [
                {
                    "labels": "service:tally_requests:failed_ratio_rate5m"
                    f'{{ledger="{ledger}.example/audit",promise="pay.ments",service="pay.ments",slo="availability"}}',
                    "value": value,
                }
                for ledger, value in (("eu", 0), ("us", 1))
            ],
        }
    )
    file = tmp_path / "two.yml"
    file.write_text(yaml.safe_dump({"rule_files": files, "evaluation_interval": "1m", "tests": [block]}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_a_case_that_is_wrong_is_found(rule_file: Path) -> None:
    wrong = told(dict(HEALTHY), "wrong", {"TallySequenceGap": ("3m", 1)})
    assert evaluated(rule_file, "wrong", [wrong]).returncode == 1
