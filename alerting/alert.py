"""One alert: what is asked of Prometheus, and what a person who is woken by it is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from alerting.metrics import of_ledger, promql

__all__ = ["Alert", "Links"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Where an alert's links lead: bases of Grafana and of the audit API without a slash at the end, and of the runbooks with one.

    An empty one leaves the path, so that the alert still says which board, which page and which question are meant.
    """

    grafana: str = ""
    api: str = ""
    runbooks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alerting rule.

    Attributes:
        name: ``Tally…``; also its runbook's name.
        query: PromQL, by `alerting.metrics.promql`'s rules; fires for each series of the answer.
        hold: how long it must be so (Prometheus' ``for``): ``2m``.
        severity: ``page``: a person, now; ``ticket``: in working hours; ``none``: the watchdog.
        summary: one line; description: what it means and what to do first. Both may hold Prometheus' templates.
        board: uid of the board to look at, with variables where there are.
        api: path of the audit API that shows the trails concerned.
        labels: beside severity and team.
    """

    name: str
    query: str
    hold: str = ""
    severity: Literal["page", "ticket", "none"]
    team: str
    summary: str
    description: str
    board: str
    api: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def rule(self, links: Links, matchers: str, ledger: str) -> dict[str, Any]:
        """The rule as Prometheus reads it. Raises `UnknownMetric`."""
        page = f"{self.name}.md"
        return {
            "alert": self.name,
            "expr": promql(self.query, matchers, of_ledger(ledger)),
            **({"for": self.hold} if self.hold else {}),
            "labels": {"severity": self.severity, "team": self.team, "ledger": ledger, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "dashboard": f"{links.grafana}/d/{self.board}",
                "runbook_url": f"{links.runbooks}{page}" if links.runbooks else f"docs/runbooks/{page}",
                "trail": f"{links.api}{self.api}",
            },
        }
