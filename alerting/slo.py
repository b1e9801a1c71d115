"""Objectives of services: recorded ratios, and alerts on how fast the error budget burns.

Multi-window, multi-burn-rate: Google, The Site Reliability Workbook, chapter 5, table 5-8 (https://sre.google/workbook/alerting-on-slos/).
A page at 14.4× over an hour (2 % of a month's budget) or 6× over six hours (5 %); a ticket at 3× over a day or 1× over three days
(10 %). Each also over a twelfth of its window, so that it ends soon after the trouble does.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from alerting.alert import Alert
from alerting.metrics import WINDOWS, literal, promql
from alerting.settings import Slo

__all__ = ["BURNS", "burn_alerts", "recordings"]

MONTH = "30d"


class Burn(NamedTuple):
    """A burn rate, the windows over which it counts, and how loud it is."""

    factor: float
    long: str
    short: str
    severity: Literal["page", "ticket"]


BURNS = (
    Burn(14.4, "1h", "5m", "page"),
    Burn(6.0, "6h", "30m", "page"),
    Burn(3.0, "1d", "2h", "ticket"),
    Burn(1.0, "3d", "6h", "ticket"),
)


_GONE = {
    "page": "The month's budget burns at 6 times the rate that it allows or faster: it is gone in five days at most.",
    "ticket": "The month's budget burns faster than it allows: it is gone before the month is over.",
}


def _service(slo: Slo, others: Sequence[str]) -> str:
    """The matcher of a service, or of those without an objective of their own (``*``)."""
    if slo.service != "*":
        return f"service={literal(slo.service)}"
    pattern = "|".join(re.sub(r"([.*+?^${}()|[\]\\])", r"\\\1", name) for name in others)
    return f"service!~{literal(pattern)}" if others else 'service=~".+"'


def _failed(slo: Slo, service: str, window: str) -> str:
    all_of = f'sum by (service) (rate(tally_service_requests_total{{{service},kind="{slo.kind}"}}[{window}]))'
    failed = f'sum by (service) (rate(tally_service_requests_total{{{service},kind="{slo.kind}",outcome="failure"}}[{window}]))'
    return f"({failed} or {all_of} * 0) / ({all_of} > 0)"  # a service that never failed has no series of failures


def _slow(slo: Slo, service: str, window: str) -> str:
    bound = repr(slo.latency_seconds)
    bounds = (
        f"{bound}|{bound.removesuffix('.0')}" if bound.endswith(".0") else bound
    )  # either is how a scraper writes it
    name = "tally_service_request_duration_seconds"
    quick = f'sum by (service) (rate({name}_bucket{{{service},kind="{slo.kind}",le=~"{bounds}"}}[{window}]))'
    all_of = f'sum by (service) (rate({name}_count{{{service},kind="{slo.kind}"}}[{window}]))'
    return f"1 - {quick} / ({all_of} > 0)"


def recordings(slos: Sequence[Slo], matchers: str, ledger: str) -> list[dict[str, Any]]:
    """Groups of recording rules: the ratios over each window, and what is left of a month's budget. Each series names the ledger: another's are not its own."""
    named = [slo.service for slo in slos if slo.service != "*"]
    quick: list[dict[str, Any]] = []
    slow_ones: list[dict[str, Any]] = []
    for slo in slos:
        service = _service(slo, named)
        objectives: list[tuple[str, str, float, Any]] = [("availability", "failed", slo.objective, _failed)]
        if slo.latency_seconds:
            objectives.append(("latency", "slow", slo.latency_objective, _slow))
        for kind, ratio, objective, query in objectives:
            labels = {"ledger": ledger, "slo": kind, "promise": slo.service}
            for window in WINDOWS:
                group = quick if window in ("5m", "30m", "1h") else slow_ones
                group.append(
                    _record(
                        f"service:tally_requests:{ratio}_ratio_rate{window}",
                        query(slo, service, window),
                        labels,
                        matchers,
                    )
                )
            known = f'group by (service) (tally_service_requests_total{{{service},kind="{slo.kind}"}})'
            quick.append(_record("service:tally_slo_objective:ratio", f"{known} * {objective!r}", labels, matchers))
            left = f"1 - ({query(slo, service, MONTH)}) / {_budget(objective)!r}"
            slow_ones.append(_record("service:tally_slo_budget:remaining_ratio", left, labels, matchers))
    groups = [
        {"name": "tally-slo-short", "interval": "30s", "rules": quick},
        {"name": "tally-slo-long", "interval": "2m", "rules": slow_ones},
    ]
    return [group for group in groups if group["rules"]]


def _record(name: str, query: str, labels: dict[str, str], matchers: str) -> dict[str, Any]:
    return {"record": name, "expr": promql(query, matchers), "labels": labels}


def _budget(objective: float) -> float:
    return round(1 - objective, 9)


def burn_alerts(slos: Sequence[Slo], team: str) -> list[Alert]:
    """The alerts of all objectives: for each a page and a ticket."""
    named = [slo.service for slo in slos if slo.service != "*"]
    alerts = []
    for slo in slos:
        service = _service(slo, named)
        alerts += _burn(slo, service, "failed", slo.objective, team)
        if slo.latency_seconds:
            alerts += _burn(slo, service, "slow", slo.latency_objective, team)
    return alerts


def _burn(slo: Slo, service: str, ratio: Literal["failed", "slow"], objective: float, team: str) -> list[Alert]:
    budget = _budget(objective)
    requests = f'tally_service_requests_total{{{service},kind="{slo.kind}"}}'
    promise = f"{objective:.4%}".rstrip("%").rstrip("0").rstrip(".") + " %"
    what = "fail" if ratio == "failed" else f"take longer than {slo.latency_seconds:g} s"
    alerts = []
    for severity in ("page", "ticket"):
        parts = [
            f"(service:tally_requests:{ratio}_ratio_rate{burn.short}{{{service}}} > {burn.factor * budget:.6g}"
            f" and on (service) service:tally_requests:{ratio}_ratio_rate{burn.long}{{{service}}} > {burn.factor * budget:.6g}"
            f" and on (service) sum by (service) (increase({requests}[{burn.long}])) >= {slo.least_requests})"
            for burn in BURNS
            if burn.severity == severity
        ]
        name = "TallyErrorBudget" if ratio == "failed" else "TallyLatencyBudget"
        alerts.append(
            Alert(
                name=f"{name}{'BurnsFast' if severity == 'page' else 'Burns'}",
                query=" or ".join(parts),
                hold="2m" if severity == "page" else "15m",
                severity=severity,
                team=slo.team or team,
                summary=f"{{{{ $labels.service }}}}: {{{{ $value | humanizePercentage }}}} of requests {what}",
                description=f"Promised are {promise} in 30 days. {_GONE[severity]}",
                board="tally-service?var-service={{ $labels.service }}",
                api="/v1/trails?service={{ $labels.service }}&status=error",
                labels={"slo": "availability" if ratio == "failed" else "latency", "promise": slo.service},
            )
        )
    return alerts
