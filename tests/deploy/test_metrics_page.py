"""docs/metrics.md names every metric that our processes show, as they show it: no alarm is built on a name that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from alerting.detect.metrics import DetectorMetrics
from alerting.incidents.metrics import IncidentMetrics
from audit_api.metrics import ApiMetrics, SiemMetrics
from collector.metrics import CollectorMetrics
from collector.store.metrics import ClusterMetrics
from correlator.metrics import CorrelatorMetrics


def rows(registry: CollectorRegistry) -> list[str]:
    """A registry's metrics as rows of a table: name and labels, type, meaning."""
    out = []
    collectors: dict[Any, Any] = registry._collector_to_names
    for collector in collectors:
        (family,) = collector.describe()
        labels = [*collector._labelnames, *(["tally_correlator_role"] if family.type == "stateset" else [])]
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown = f"{name}{{{', '.join(labels)}}}" if labels else name
        out.append(f"| `{shown}` | {family.type} | {family.documentation.replace('|', chr(92) + '|')} |")
    return sorted(out)


def page() -> str:
    collector, api = CollectorMetrics(collector="side"), ApiMetrics()
    collector.watch_metrics_to(series=lambda: 0, waiting_bytes=lambda: 0)
    api.watch(log_size=lambda: 0.0, indexed=lambda: 0.0)
    cluster = CollectorRegistry()
    ClusterMetrics(cluster, part="store")
    parts = []
    for title, registry in (
        ("Sidecar", collector.registry),
        ("Correlator", CorrelatorMetrics().registry),
        ("API", api.registry),
        ("Detector", DetectorMetrics().registry),
        ("SIEM", SiemMetrics().registry),
        ("Incidents", IncidentMetrics().registry),
        ("OpenSearch, as sidecar and correlator hear it (`tally_index_…` for a trail index there)", cluster),
    ):
        parts.append("\n".join([f"### {title}\n", "| metric | type | meaning |", "|---|---|---|", *rows(registry)]))
    return "\n\n".join(parts)


def test_the_page_lists_what_is_shown(repo_root: Path) -> None:
    text = (repo_root / "docs" / "metrics.md").read_text(encoding="utf-8")
    _, _, told = text.partition("<!-- made from the registries; a test compares -->\n\n")
    expected = page()
    assert told.strip() == expected, f"docs/metrics.md, the list at its end, should be:\n\n{expected}\n"
