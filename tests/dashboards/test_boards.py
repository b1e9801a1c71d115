"""Boards keep the published rules, fit their grid, and name what processes declare: each rule is shown something broken first."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alerting import metrics
from alerting.alert import Alert
from alerting.metrics import UnknownMetric, declared, promql, promql_names
from alerting.rules import alerts, rules
from alerting.settings import AlertingSettings
from dashboards.board import Links
from dashboards.boards import boards
from tests.alerting.cases import INVENTORY, SETTINGS
from tests.dashboards import rules as lint

LINKS = Links(api="https://audit.example", runbooks="https://wiki.example/")


@pytest.fixture(scope="module")
def made() -> list[dict[str, Any]]:
    return [board.build(LINKS) for board in boards()]


@pytest.mark.parametrize("rule", lint.RULES, ids=lambda rule: rule.__name__)
def test_the_boards_keep_the_rule(made: list[dict[str, Any]], rule: Callable[[dict[str, Any]], list[str]]) -> None:
    assert {board["title"]: rule(board) for board in made} == {board["title"]: [] for board in made}


def _first(board: dict[str, Any]) -> dict[str, Any]:
    return next(lint.panels(board))


def _query(text: str) -> Callable[[dict[str, Any]], None]:
    return lambda board: _first(board)["targets"][0].update(expr=text)


BROKEN: list[tuple[Any, Callable[[dict[str, Any]], Any]]] = [
    (lint.template_datasource, lambda board: board["templating"]["list"].pop(0)),
    (lint.template_job_and_instance, lambda board: board["templating"]["list"][1].update(multi=False)),
    (
        lint.template_label_promql,
        lambda board: board["templating"]["list"][2].update(query="label_values(tally_gone, x)"),
    ),
    (lint.template_on_time_change_reload, lambda board: board["templating"]["list"][2].update(refresh=1)),
    (lint.panel_datasource, lambda board: _first(board)["datasource"].update(uid="mine")),
    (lint.panel_title_description, lambda board: _first(board).update(description="")),
    (lint.panel_units, lambda board: _first(board)["fieldConfig"]["defaults"].update(unit="apples")),
    (lint.panel_no_targets, lambda board: _first(board).update(targets=[])),
    (lint.target_job_and_instance, _query("sum(tally_collector_info)")),
    (lint.target_rate_interval, _query("sum(rate(tally_collector_events_total[5m]))")),
    (lint.target_counter_agg, _query("sum(tally_collector_events_total)")),
    (lint.target_histogram, _query("sum(rate(tally_collector_ack_seconds_bucket[$__rate_interval]))")),
    (lint.uneditable, lambda board: board.update(editable=True)),
]


def test_every_rule_is_shown_something_broken() -> None:
    assert [rule for rule, _ in BROKEN] == list(lint.RULES)


@pytest.mark.parametrize(("rule", "harm"), BROKEN, ids=lambda one: getattr(one, "__name__", ""))
def test_a_broken_board_is_found(made: list[dict[str, Any]], rule: Any, harm: Callable[[dict[str, Any]], Any]) -> None:
    board = copy.deepcopy(made[0])
    harm(board)
    assert rule(board) != []


BESIDE = {
    "tally_collector_info": "whose a series is",
    "tally_collector_config_last_reload_success_timestamp_seconds": "since when it counts",
    "tally_stitch_latency_seconds": "on the overview, from which the alert leads on to where it comes from",
}
"""What alerts ask for that their boards need not show, and why."""


@pytest.mark.parametrize("alert", alerts(SETTINGS, INVENTORY), ids=lambda alert: alert.name)
def test_the_board_of_an_alert_shows_what_the_alert_asks_for(alert: Alert) -> None:
    (board,) = (board for board in boards() if board.uid == alert.board.partition("?")[0])
    queries = [query.expr for row in board.rows for panel in row.panels for query in panel.queries]
    assert _asked(alert.query) <= _asked(*queries) | BESIDE.keys()


def _asked(*queries: str) -> set[str]:
    """The metrics of these queries; of a histogram without its ``_bucket``."""
    return {name.removesuffix("_bucket").removesuffix("_count") for query in queries for name in promql_names(query)}


def test_panels_fill_the_grid_and_do_not_overlap(made: list[dict[str, Any]]) -> None:
    for board in made:
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, panel["title"]
            taken |= cells
        bottom = max(y for _, y in taken) + 1
        assert taken == {(x, y) for x in range(24) for y in range(bottom)}, board["title"]
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)


def test_links_lead_to_runbooks_and_trails(made: list[dict[str, Any]], repo_root: Path) -> None:
    runbooks, trails = set(), set()
    for board in made:
        for panel in lint.panels(board):
            runbooks |= {link["url"] for link in panel.get("links", ())}
            trails |= {link["url"] for link in panel["fieldConfig"]["defaults"].get("links", ())}
    assert len(runbooks) > 12
    for url in runbooks:
        assert (repo_root / "docs" / "runbooks" / url.removeprefix("https://wiki.example/")).is_file(), url
    assert "https://audit.example/v1/trails?service=${__field.labels.service}&status=error" in trails
    assert all(url.startswith("https://audit.example/v1/") for url in trails)
    without = json.dumps([board.build(Links()) for board in boards()])
    assert "wiki.example" not in without
    assert "/v1/trails" not in without


@pytest.mark.parametrize(
    "alert",
    [
        "TallyClockOffset",
        "TallyMetricsDropped",
        "TallyRefusing",
        "TallyReloadRefused",
        "TallySpoolDamaged",
        "TallySpoolFilling",
    ],
)
def test_what_an_alert_says_of_a_collector_is_seen_on_the_board_that_it_leads_to(
    made: list[dict[str, Any]], alert: str
) -> None:
    said = [one for group in rules(SETTINGS, INVENTORY, lint_links(), "x")["groups"] for one in group["rules"]]
    (wanted,) = [set(promql_names(one["expr"])) for one in said if one.get("alert") == alert]
    (pipeline,) = [board for board in made if board["uid"] == "tally-pipeline"]
    linked = [
        panel
        for panel in lint.panels(pipeline)
        if any(link["url"].endswith(f"/{alert}.md") for link in panel.get("links", ()))
    ]
    asked = {name for panel in linked for target in panel["targets"] for name in promql_names(target["expr"])}
    assert wanted & asked


def test_what_a_table_counts_is_whole(made: list[dict[str, Any]]) -> None:
    (fraud,) = [board for board in made if board["uid"] == "tally-fraud"]
    (table,) = [panel for panel in fraud["panels"] if panel["type"] == "table"]
    told = {one["matcher"]["options"]: one["properties"] for one in table["fieldConfig"]["overrides"]}
    assert told == {severity: [{"id": "decimals", "value": 0}] for severity in ("critical", "warning")}


def test_what_rules_record_is_asked_for_by_the_ledger_that_is_chosen(made: list[dict[str, Any]]) -> None:
    asking = 0
    for board in made:
        for panel, query in lint.targets(board):
            recorded = re.findall(r"service:tally_\w+:\w+(?:\{[^}]*\})?", query)
            asking += len(recorded)
            assert all('ledger=~"$ledger"' in one for one in recorded), (board["title"], panel)
            assert not recorded or "ledger" in [one["name"] for one in board["templating"]["list"]], board["title"]
    assert asking >= 10


def test_every_process_can_be_chosen(made: list[dict[str, Any]]) -> None:
    """Each board's panels ask by job and instance: of a process that is not offered, nothing is shown."""
    ours = ("collector", "correlator", "api", "check", "detector", "siem", "incidents")
    for board in made:
        for choice in board["templating"]["list"][1:3]:
            offered = set(re.findall(r"\btally_([a-z]+)_", choice["query"]))
            assert offered == set(ours), (board["title"], choice["name"])


def test_what_each_shard_tells_of_all_streams_is_not_added_up(made: list[dict[str, Any]]) -> None:
    """What is of streams stands in each shard's log (docs/format.md)."""
    asked = [
        query
        for board in made
        for _, query in lint.targets(board)
        if re.search("tally_correlator_(missing_batches|streams)", query) and "by (instance)" not in query
    ]
    assert len(asked) == 2
    assert all(query.startswith("max") for query in asked), asked


def test_exemplars_are_asked_for(made: list[dict[str, Any]]) -> None:
    asking = [
        target
        for board in made
        for panel in lint.panels(board)
        for target in panel["targets"]
        if target.get("exemplar")
    ]
    assert len(asking) >= 3
    assert all("tally_service_request_duration_seconds_bucket" in target["expr"] for target in asking)


def test_a_metric_that_is_renamed_breaks_boards_and_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each declared name that a board or a rule asks for, taken away, is missed where boards and rules are made."""
    text = json.dumps([board.build(Links()) for board in boards()]) + json.dumps(
        rules(SETTINGS, INVENTORY, lint_links(), "x")
    )
    everything = declared()
    asked_for = {name for name in everything if name in text}
    assert len(asked_for) > 45
    for name in (
        "tally_correlator_missing_batches",
        "tally_flow_trails",
        "tally_service_request_duration_seconds_bucket",
    ):
        fewer = {key: value for key, value in everything.items() if key != name}
        monkeypatch.setattr(metrics, "declared", lambda fewer=fewer: fewer)
        with pytest.raises(UnknownMetric, match=name):
            [board.build(Links()) for board in boards()]
        with pytest.raises(UnknownMetric, match=name):
            rules(SETTINGS, INVENTORY, lint_links(), "x")


def lint_links() -> Any:
    from alerting.alert import Links as AlertLinks

    return AlertLinks()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "rate(tally_collector_event_total[5m])",
            "no process has a metric tally_collector_event_total: did you mean tally_collector_events",
        ),
        ('tally_flow_trails{verdict="x"}', "tally_flow_trails has no label verdict"),
        ("sum by (flow) (tally_collector_info)", "no metric of this query has a label flow"),
        ("tally_flow_trails{flow}", "cannot read the matchers"),
    ],
)
def test_a_query_that_nothing_can_answer_is_refused(query: str, message: str) -> None:
    with pytest.raises(UnknownMetric, match=message):
        promql(query)


def test_matchers_go_to_every_selector_and_to_nothing_else() -> None:
    query = 'sum by (flow) (tally_flow_trails{state="a}b"}) / on (flow) group_left () sum by (flow) (tally_flow_trails)'
    assert promql(query, 'ledger="x"').count('ledger="x"') == 2
    assert promql("service:tally_slo_objective:ratio", 'ledger="x"') == "service:tally_slo_objective:ratio"
    assert promql("service:tally_slo_objective:ratio", 'job="x"', 'ledger="x"').endswith('{ledger="x"}')
    ours = rules(AlertingSettings(matchers='ledger="x"'), INVENTORY, lint_links(), "x")
    for group in ours["groups"]:
        for rule in group["rules"]:
            names = [name for name in metrics.promql_names(rule["expr"]) if name not in metrics.RECORDED]
            assert rule["expr"].count('ledger="x"') >= len(names) - rule["expr"].count("by (tally_"), rule["expr"]
