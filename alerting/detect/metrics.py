"""Every metric of the detector: its name, unit and meaning. Labels have a closed set of values: rules are declared.

Naming: https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from alerting.detect.rule import Rule

__all__ = ["DetectorMetrics"]


class DetectorMetrics:
    """The detector's metrics in a registry of its own, for these rules.

    Attributes:
        registry: what ``/metrics`` shows.
        payments: payments looked at, by their kind.
        unreadable: events that should be payments and cannot be read as one, or are not in the store, by kind.
        future: payments dated so much later than they were recorded that their time is not believed, by kind.
        findings: findings put on record, by rule and severity.
        found_seconds: from the time at which a payment was made until its finding was on record.
        told: findings that an Alertmanager took, and those that it refused for good, by outcome (``taken``, ``refused``).
        telling_failures: times that no Alertmanager could be told; it is tried again.
        waiting: findings that are on record and wait to be told.
        freezes: requests to stop a payment whose outcome is on record, by outcome (``accepted``, ``refused``, ``given_up``).
        freeze_failures: times that nobody could be asked; it is tried again.
        freezes_waiting: requests that wait.
        behind: leaves of the logs that it has not read yet.
        failures: times that log, store or spool did not answer; it is tried again.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        self.payments = Counter("tally_detector_payments_total", "Payments looked at.", ["payment"], registry=registry)
        self.unreadable = Counter(
            "tally_detector_unreadable_total",
            "Events that should be payments and cannot be read as one, or are not in the store.",
            ["payment"],
            registry=registry,
        )
        self.future = Counter(
            "tally_detector_future_total",
            "Payments dated later than they were recorded, by so much that their time is not believed.",
            ["payment"],
            registry=registry,
        )
        self.findings = Counter(
            "tally_detector_findings_total", "Findings put on record.", ["rule", "severity"], registry=registry
        )
        for rule in rules:  # at 0, so that the first finding is an increase
            self.findings.labels(rule.name, rule.severity)
        self.found_seconds = Histogram(
            "tally_detector_found_seconds",
            "From the time at which a payment was made until its finding was on record.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 600.0, 3600.0),
            registry=registry,
        )
        self.told = Counter(
            "tally_detector_told_total",
            "Findings that an Alertmanager took or refused.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("taken", "refused"):
            self.told.labels(outcome)
        self.telling_failures = Counter(
            "tally_detector_telling_failures_total", "Times that no Alertmanager could be told.", registry=registry
        )
        self.waiting = Gauge(
            "tally_detector_waiting_findings", "Findings on record that wait to be told.", registry=registry
        )
        self.freezes = Counter(
            "tally_detector_freezes_total",
            "Requests to stop a payment whose outcome is on record.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("accepted", "refused", "given_up"):  # so that the first one that fails is an increase
            self.freezes.labels(outcome)
        self.freeze_failures = Counter(
            "tally_detector_freeze_failures_total",
            "Times that nobody could be asked to stop a payment.",
            registry=registry,
        )
        self.freezes_waiting = Gauge(
            "tally_detector_waiting_freezes", "Requests to stop a payment that wait.", registry=registry
        )
        self.behind = Gauge("tally_detector_behind_leaves", "Leaves of the logs not read yet.", registry=registry)
        self.failures = Counter(
            "tally_detector_failures_total", "Times that log, store or spool did not answer.", registry=registry
        )
