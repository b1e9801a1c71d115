"""The published rules of Grafana's dashboard linter that concern us, as functions over a dashboard's JSON.

https://github.com/grafana/dashboard-linter/tree/main/docs: written from its descriptions; the linter itself was not available.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from alerting.metrics import RECORDED, declared, promql_names

UNITS = frozenset({"none", "short", "percentunit", "percent", "s", "ms", "bytes", "Bps", "ops", "reqps", "rps"})
"""Those of Grafana's that we use, or might: https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts"""

Board = dict[str, Any]


def panels(board: Board) -> Iterator[dict[str, Any]]:
    return (panel for panel in board["panels"] if panel["type"] != "row")


def targets(board: Board) -> Iterator[tuple[str, str]]:
    """Panel's title and query."""
    return ((panel["title"], target["expr"]) for panel in panels(board) for target in panel.get("targets", ()))


def _variable(board: Board, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next((one for one in board["templating"]["list"] if one["name"] == name), {})
    return found


def template_datasource(board: Board) -> list[str]:
    one = _variable(board, "datasource")
    good = one.get("type") == "datasource" and one.get("query") == "prometheus" and one.get("label") == "Data source"
    return [] if good else ["no templated data source"]


def template_job_and_instance(board: Board) -> list[str]:
    wrong = []
    for name in ("job", "instance"):
        one = _variable(board, name)
        good = (
            one.get("type") == "query"
            and one["datasource"]["uid"] == "${datasource}"
            and one["label"] == name.capitalize()
            and one["multi"]
            and one["includeAll"]
            and one["allValue"] == ".+"
        )
        wrong += [] if good else [f"{name} is no template as it must be"]
    return wrong


def template_label_promql(board: Board) -> list[str]:
    wrong = []
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), ([a-z]+)\)", one["query"])
            if found is None or found[2] != one["name"] or not _known(found[1]):
                wrong.append(f"{one['name']}: {one['query']}")
    return wrong


def _known(selector: str) -> bool:
    return selector.startswith("{__name__") or all(name in declared() for name in promql_names(selector))


def template_on_time_change_reload(board: Board) -> list[str]:
    return [one["name"] for one in board["templating"]["list"] if one["type"] == "query" and one["refresh"] != 2]


def panel_datasource(board: Board) -> list[str]:
    return [panel["title"] for panel in panels(board) if panel["datasource"].get("uid") != "${datasource}"]


def panel_title_description(board: Board) -> list[str]:
    return [str(panel) for panel in panels(board) if not panel.get("title") or len(panel.get("description", "")) < 10]


def panel_units(board: Board) -> list[str]:
    wrong = [panel["title"] for panel in panels(board) if panel["fieldConfig"]["defaults"].get("unit") not in UNITS]
    for panel in panels(board):
        for override in panel["fieldConfig"]["overrides"]:
            wrong += [
                panel["title"] for one in override["properties"] if one["id"] == "unit" and one["value"] not in UNITS
            ]
    return wrong


def panel_no_targets(board: Board) -> list[str]:
    return [panel["title"] for panel in panels(board) if not panel.get("targets")]


def target_job_and_instance(board: Board) -> list[str]:
    """Exempt: recorded series, which are made over all jobs and instances."""
    wrong = []
    for title, query in targets(board):
        for name, matchers in re.findall(r"((?:[a-z]+:)?tally_[a-z0-9_:]+)(\{(?:[^\"}]|\"[^\"]*\")*\})?", _bare(query)):
            if name in RECORDED or (name == "tally_correlator_role" and not matchers):
                continue
            if 'job=~"$job"' not in matchers or 'instance=~"$instance"' not in matchers:
                wrong.append(f"{title}: {name}{matchers}")
    return wrong


def _bare(query: str) -> str:
    return re.sub(r"\b(by|on|without|ignoring|group_left)\s*\([^)]*\)", "", query)


def target_rate_interval(board: Board) -> list[str]:
    wrong = []
    for title, query in targets(board):
        for function, interval in re.findall(r"\b(rate|irate|increase)\([^()\[]*\[([^\]]+)\]", query):
            if function != "increase" and interval != "$__rate_interval":
                wrong.append(f"{title}: {query}")
    return wrong


def target_counter_agg(board: Board) -> list[str]:
    """Each counter stands in rate, irate or increase."""
    return [
        f"{title}: {query}"
        for title, query in targets(board)
        for found in re.finditer(r"\btally_[a-z0-9_]+_total\b", query)
        if not re.search(r"\b(rate|irate|increase)\($", query[: found.start()])
    ]


def target_histogram(board: Board) -> list[str]:
    return [title for title, query in targets(board) if "_bucket" in query and "histogram_quantile(" not in query]


def uneditable(board: Board) -> list[str]:
    return [] if board["editable"] is False else ["it may be changed by hand"]


RULES = (
    template_datasource,
    template_job_and_instance,
    template_label_promql,
    template_on_time_change_reload,
    panel_datasource,
    panel_title_description,
    panel_units,
    panel_no_targets,
    target_job_and_instance,
    target_rate_interval,
    target_counter_agg,
    target_histogram,
    uneditable,
)
