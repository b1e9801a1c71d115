"""What a check by `tally check` leaves for Prometheus, in a file that a node exporter's textfile collector reads.

A check is a command, not a process that could be scraped: https://github.com/prometheus/node_exporter#textfile-collector.
"""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

__all__ = ["CheckMetrics"]


class CheckMetrics:
    """The metrics of one check, in a registry of its own. Each says which ledger's it is: an exporter puts the files of a host together."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._findings = Gauge(
            "tally_check_findings",
            "What the last check of the ledger found to be wrong, but for what the log itself says is missing.",
            ["log"],
            registry=self.registry,
        )
        self._gaps = Gauge(
            "tally_check_gaps",
            "Gaps and silent streams that the last check of the ledger found, which the log itself tells.",
            ["log"],
            registry=self.registry,
        )
        self._leaves = Gauge(
            "tally_check_leaves", "Leaves of the log that the last check looked at.", ["log"], registry=self.registry
        )
        self._at = Gauge(
            "tally_check_timestamp_seconds",
            "When the ledger was last checked to the end, in Unix time.",
            ["log"],
            registry=self.registry,
        )

    def write(self, file: Path, *, ledger: str, findings: int, gaps: int, leaves: int, now_seconds: float) -> None:
        """Put a check of `ledger` that came to its end into `file`, at once: a reader sees the old text or the new one, never half of it.

        Raises:
            OSError: the file cannot be written. What stood there before is left.
        """
        self._findings.labels(ledger).set(findings)
        self._gaps.labels(ledger).set(gaps)
        self._leaves.labels(ledger).set(leaves)
        self._at.labels(ledger).set(now_seconds)
        beside = file.with_name(f"{file.name}.{os.getpid()}.tmp")  # the exporter reads *.prom alone
        try:
            beside.write_bytes(generate_latest(self.registry))
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
