"""Every metric that a rule or a board may ask for: what the processes declare, and what our recording rules add.

Names come from the metric objects themselves. `promql` refuses a query that names a metric or a label that nothing declares, so a
metric that is renamed in code breaks the rules and boards that ask for it where they are made, not at night.
Selectors: https://prometheus.io/docs/prometheus/latest/querying/basics/.
"""

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import CollectorRegistry

from alerting.detect.metrics import DetectorMetrics
from alerting.incidents.metrics import IncidentMetrics
from audit_api.metrics import ApiMetrics, SiemMetrics
from collector.metrics import CollectorMetrics
from collector.store.metrics import ClusterMetrics
from correlator.metrics import CheckMetrics, CorrelatorMetrics

__all__ = [
    "RECORDED",
    "WINDOWS",
    "Family",
    "UnknownMetric",
    "declared",
    "literal",
    "of_ledger",
    "promql",
    "promql_names",
]

_TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus gives to whatever it scrapes."""

_PROMISED = frozenset({"ledger", "service", "slo", "promise"})
"""Whose rule it is, the service, `availability` or `latency`, and the objective that it comes under: its own or ``*``."""

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
RECORDED = {
    **{f"service:tally_requests:failed_ratio_rate{window}": _PROMISED for window in WINDOWS},
    **{f"service:tally_requests:slow_ratio_rate{window}": _PROMISED for window in WINDOWS},
    "service:tally_slo_objective:ratio": _PROMISED,
    "service:tally_slo_budget:remaining_ratio": _PROMISED,
}
"""Series of our recording rules (`alerting.slo`): name to labels. ``level:metric:operations``, as Prometheus advises."""


class UnknownMetric(ValueError):
    """A query asks for a metric, or for a label of it, that nothing declares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One sample's name as a scrape shows it: the kind of its metric (``counter``, ``gauge``, ``histogram``), its labels, its meaning."""

    name: str
    kind: str
    labels: frozenset[str]
    text: str


@lru_cache(maxsize=1)
def declared() -> dict[str, Family]:
    """All samples' names of all processes, histograms by ``_bucket``, ``_sum`` and ``_count``; and what is recorded."""
    registries = [
        CollectorMetrics(collector="").registry,
        CorrelatorMetrics().registry,
        ApiMetrics().registry,
        CheckMetrics().registry,
        DetectorMetrics().registry,
        SiemMetrics().registry,
        IncidentMetrics().registry,
    ]
    for part in ("store", "index"):
        registry = CollectorRegistry()
        ClusterMetrics(registry, part=part)
        registries.append(registry)
    api = ApiMetrics()  # its gauges are made when there is a log to watch
    api.watch(log_size=lambda: 0.0, indexed=lambda: 0.0)
    registries.append(api.registry)
    found: dict[str, Family] = {}
    for registry in registries:
        # the registry's public face shows no labels of a family that counted nothing yet
        for name, metric in registry._names_to_collectors.items():  # noqa: SLF001 - see above
            kind, text = metric._type, metric._documentation  # type: ignore[attr-defined]  # noqa: SLF001 - as above
            labels = frozenset(metric._labelnames)  # type: ignore[attr-defined]  # noqa: SLF001 - as above
            if kind == "stateset":
                kind, labels = "gauge", labels | {name}
            bare = kind in ("counter", "histogram") and not name.endswith(("_total", "_bucket", "_sum", "_count"))
            if not bare and not name.endswith(("_created", "_info_")):
                extra = frozenset({"le"}) if name.endswith("_bucket") else frozenset()
                found[name] = Family(name=name, kind=kind, labels=labels | extra, text=text)
    for name, labels in RECORDED.items():
        found[name] = Family(name=name, kind="gauge", labels=labels, text="recorded by our rules")
    return found


_TOKENS = re.compile(
    r"(?P<text>\"(?:[^\"\\]|\\.)*\")"
    r"|\b(?P<clause>by|without|on|ignoring|group_left|group_right)\s*\((?P<list>[^)]*)\)"
    r"|(?P<name>(?:\b[a-z]+:)?\btally_[a-z0-9_:]+)(?:\{(?P<matchers>(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})?"
)
_MATCHER = re.compile(r'\s*([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"\s*(?:,|$)')


def promql_names(query: str) -> list[str]:
    """The names of our metrics in a query, in order."""
    return [found["name"] for found in _TOKENS.finditer(query) if found["name"]]


def literal(text: str) -> str:
    """A text as PromQL writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def of_ledger(ledger: str) -> str:
    """The matcher of what the rules of this ledger record."""
    return f"ledger={literal(ledger)}"


def promql(query: str, matchers: str = "", recorded: str = "") -> str:
    """`query` with `matchers` (``job=~"$job"``) added to each selector of a metric of ours that a process serves.

    Recorded series get `recorded` instead: they were made from selectors that had the matchers, and are told apart by their ledger.

    Raises:
        UnknownMetric: a name or a label is nobody's, or a selector cannot be read.
    """
    families = declared()
    known = set(_TARGET)
    for name in promql_names(query):
        if name not in families:
            near = difflib.get_close_matches(name, families, n=1)
            raise UnknownMetric(f"no process has a metric {name}{f': did you mean {near[0]}?' if near else ''}")
        known |= families[name].labels

    def checked(found: re.Match[str]) -> str:
        if found["text"]:
            return found[0]
        if found["clause"]:
            for label in filter(None, (one.strip() for one in found["list"].split(","))):
                if label not in known:
                    raise UnknownMetric(f"no metric of this query has a label {label}: {query}")
            return found[0]
        name, inside = found["name"], found["matchers"] or ""
        labels = _MATCHER.findall(inside)
        if _MATCHER.sub("", inside).strip():
            raise UnknownMetric(f"cannot read the matchers {{{inside}}}: {query}")
        for label in labels:
            if label not in families[name].labels | _TARGET:
                raise UnknownMetric(f"{name} has no label {label}: {query}")
        both = ",".join(filter(None, (inside.strip(), recorded if name in RECORDED else matchers)))
        return f"{name}{{{both}}}" if both else name

    return _TOKENS.sub(checked, query)
