"""Every metric of incidents: its name, unit and meaning.

Naming: https://prometheus.io/docs/practices/naming/
"""

from prometheus_client import CollectorRegistry, Counter, Gauge

from collector.event import parse_time
from correlator.incidents import CAUSES, Incidents

__all__ = ["IncidentMetrics"]


class IncidentMetrics:
    """The metrics of the process that keeps incidents, in a registry of its own.

    Attributes:
        registry: what ``/metrics`` shows.
        steps: incidents opened and closed by this process, by cause and state.
        failures: times that the log, the index or our own spool did not answer; it is tried again.
        behind: leaves of the logs that it has not read yet.
        probes: answers to what was asked, by cause and whether it works (``works``, ``fails``).
        heartbeats: what came of telling the dead man's switch that we live (``taken``, ``failed``).
        gathered: whether all incidents that the log tells of are known. Until then nothing is said of the oldest: another may be older.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.gathered = False
        self._open = Gauge(
            "tally_incidents_open", "Incidents that are not over, by cause.", ["cause"], registry=registry
        )
        self._unsigned = Gauge(
            "tally_incidents_unsigned", "Incidents that nobody has signed off, by cause.", ["cause"], registry=registry
        )
        self._oldest = Gauge(
            "tally_incidents_oldest_unsigned_timestamp_seconds",
            "When the oldest incident began that nobody has signed off, in Unix time, by cause; 0: there is none. Told once the log was read.",
            ["cause"],
            registry=registry,
        )
        self.steps = Counter(
            "tally_incidents_recorded_total",
            "Incidents that this process put on record, by cause and state.",
            ["cause", "state"],
            registry=registry,
        )
        self.failures = Counter(
            "tally_incidents_failures_total", "Times that log, index or spool did not answer.", registry=registry
        )
        self.behind = Gauge("tally_incidents_behind_leaves", "Leaves of the logs not read yet.", registry=registry)
        self.probes = Counter(
            "tally_incidents_probes_total", "Answers to what was asked.", ["cause", "outcome"], registry=registry
        )
        self.heartbeats = Counter(
            "tally_incidents_heartbeats_total",
            "What came of telling the dead man's switch outside that we live.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("taken", "failed"):
            self.heartbeats.labels(outcome)
        for cause in CAUSES:
            self._open.labels(cause)
            self._unsigned.labels(cause)
            for state in ("opened", "closed"):
                self.steps.labels(cause, state)

    def show(self, incidents: Incidents) -> None:
        """Set the gauges to what there is."""
        for cause in CAUSES:
            mine = [one for one in incidents.all() if one.cause == cause]
            self._open.labels(cause).set(sum(one.open for one in mine))
            self._unsigned.labels(cause).set(sum(not one.signed for one in mine))
            if self.gathered:
                oldest = min((one.began for one in mine if not one.signed and one.began), default="")
                self._oldest.labels(cause).set(parse_time(oldest) / 1e9 if oldest else 0)
