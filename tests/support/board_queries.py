"""A board's queries with its variables filled in, asked of a real Prometheus as Grafana would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.servers.prometheus import Prometheus

RATE_INTERVAL = "10s"
"""Four scrapes and more, as Grafana would choose it for a scrape a second."""


class Asked(NamedTuple):
    """One target of a panel: its row, the panel, its legend, the query that was asked, and whether it is of a moment."""

    row: str
    panel: dict[str, Any]
    legend: str
    query: str
    instant: bool


def filled(board: dict[str, Any], expr: str, rate_interval: str = RATE_INTERVAL) -> str:
    """The query with every variable at "All", as Grafana fills it in."""
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            expr = expr.replace(f"${one['name']}", one["allValue"])
    return expr.replace("$__rate_interval", rate_interval)


def asked(board: dict[str, Any], rate_interval: str = RATE_INTERVAL) -> Iterator[Asked]:
    """Every target of every panel."""
    row = ""
    for panel in board["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", ()):
            yield Asked(
                row,
                panel,
                target.get("legendFormat", ""),
                filled(board, target["expr"], rate_interval),
                bool(target.get("instant")),
            )


def answer(prometheus: Prometheus, one: Asked, start: float, end: float, step: float) -> list[dict[str, Any]]:
    """Series with their ``values``; of a moment, with ``value``. What is no number all the time is no answer."""
    if one.instant:
        found = prometheus.ask("query", query=one.query, time=str(end))["result"]
        return [series for series in found if series["value"][1] != "NaN"]
    ranged = prometheus.ask("query_range", query=one.query, start=str(start), end=str(end), step=f"{step:.3f}")[
        "result"
    ]
    return [series for series in ranged if any(value != "NaN" for _, value in series["values"])]
