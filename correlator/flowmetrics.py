"""Business transactions on the metrics: the verdicts on declared flows, and how many trails stand where.

Flows are those of the configuration and verdicts are four words; currencies come from outside, so there is a bound on them.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from correlator.progress import OPEN, SEVERAL

__all__ = ["FlowMetrics", "ToldVerdict"]

_MAX_CURRENCIES = 32
_VERDICTS = ("complete", "incomplete", "compensated", "failed")


class ToldVerdict(NamedTuple):
    """A verdict entry: `currency` as `Progress.currency` has it; `revised`: there was another one before it."""

    flow: str
    verdict: str
    currency: str
    revised: bool


class FlowMetrics:
    """``tally_flow_verdicts_total{flow,verdict,currency}``, ``tally_flow_revised_verdicts_total{flow}``, ``tally_flow_trails{flow,state}``.

    `currency` is ISO 4217's (``EUR``; ``XXX`` for an amount without one), ``several`` or ``none``, and ``other`` after the first 32.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._currencies: set[str] = set()
        self._verdicts = Counter(
            "tally_flow_verdicts_total",
            "Verdicts on declared flows that were put on record; one that replaces another is counted as well.",
            ["flow", "verdict", "currency"],
            registry=registry,
        )
        self._revised = Counter(
            "tally_flow_revised_verdicts_total",
            "Verdicts that replaced another one, because of what came late.",
            ["flow"],
            registry=registry,
        )
        self._trails = Gauge(
            "tally_flow_trails",
            "Trails in which a declared flow has begun, by its newest verdict; open: there is none yet.",
            ["flow", "state"],
            registry=registry,
        )

    def count(self, verdicts: Iterable[ToldVerdict]) -> None:
        """Count verdicts that are published."""
        for told in verdicts:
            self._verdicts.labels(told.flow, told.verdict, self._bounded(told.currency)).inc()
            if told.revised:
                self._revised.labels(told.flow).inc()

    def _bounded(self, currency: str) -> str:
        if currency in ("", SEVERAL):
            return currency or "none"
        if currency not in self._currencies:
            if len(self._currencies) >= _MAX_CURRENCIES:
                return "other"
            self._currencies.add(currency)
        return currency.upper()

    def show(self, flows: Iterable[str], standing: Mapping[str, Mapping[str, int]]) -> None:
        """Show how trails stand (`FlowTracker.standing`), each declared flow with all its states."""
        for flow in flows:
            counts = standing.get(flow, {})
            for state in (OPEN, *_VERDICTS):
                self._trails.labels(flow, state).set(counts.get(state, 0))
            self._revised.labels(flow)
            for verdict in _VERDICTS:
                self._verdicts.labels(flow, verdict, "none")
