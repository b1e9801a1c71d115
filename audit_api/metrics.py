"""Every metric of the API and of what sends the log on: its name, unit and meaning. Labels have a closed set of values; principals are none of them.

Naming: https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from audit_api.problems import PROBLEMS

__all__ = ["ApiMetrics", "SiemMetrics"]


class ApiMetrics:
    """The API's metrics in a registry of its own.

    Attributes:
        registry: what ``/metrics`` shows.
        request_seconds: from the request's headers to the answer's, by route (its operation id) and status code.
        refused: refusals by reason (the problem's name).
        accesses: accesses and refusals made durable.
        record_seconds: how long that took.
        unsigned_days: days that should have been signed off, and are not.
        surplus_refusals: refusals that were counted and not recorded one by one.
        limits_shared: 1 while limits are counted together with other API processes, 0 while this one counts by itself.
        shared_limit_failures: questions about limits that Redis did not answer.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._leaves: tuple[Gauge, ...] = ()
        self.request_seconds = Histogram(
            "tally_api_request_seconds",
            "From a request to its answer, recording its access included.",
            ["route", "code"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=self.registry,
        )
        self.refused = Counter(
            "tally_api_refused_total",
            "Requests refused, and connections ended that said nothing in time.",
            ["reason"],
            registry=self.registry,
        )
        for reason in PROBLEMS:  # at 0, so that the first refusal is an increase
            self.refused.labels(reason)
        self.accesses = Counter(
            "tally_api_accesses_total", "Accesses and refusals made durable.", registry=self.registry
        )
        self.record_seconds = Histogram(
            "tally_api_record_seconds",
            "How long it took to make an access durable.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0),
            registry=self.registry,
        )
        self.surplus_refusals = Counter(
            "tally_api_surplus_refusals_total",
            "Refusals that were counted and not recorded one by one.",
            registry=self.registry,
        )

        self.limits_shared = Gauge(
            "tally_api_limits_shared",
            "1 while limits are counted together with other API processes, 0 while this one counts by itself.",
            registry=self.registry,
        )
        self.shared_limit_failures = Counter(
            "tally_api_shared_limit_failures_total",
            "Questions about limits that Redis did not answer.",
            registry=self.registry,
        )
        self.unsigned_days = Gauge(
            "tally_api_daily_reviews_unsigned",
            "Days since daily_review_since, of the last three months and over for a day, that nobody has signed off.",
            registry=self.registry,
        )

    def watch(self, *, log_size: Callable[[], float], indexed: Callable[[], float], shard: str = "") -> None:
        """Show how far a log and its index are; the functions give NaN when they cannot tell. `shard`: its number, where there are several."""
        if not self._leaves:
            labels = ["shard"] if shard else []
            self._leaves = (
                Gauge("tally_api_log_leaves", "Leaves under the log's checkpoint.", labels, registry=self.registry),
                Gauge("tally_api_indexed_leaves", "Leaves in the trail index.", labels, registry=self.registry),
            )
        for gauge, function in zip(self._leaves, (log_size, indexed), strict=True):
            (gauge.labels(shard) if shard else gauge).set_function(function)


class SiemMetrics:
    """The metrics of what sends the log on to SIEMs, in a registry of its own. Destinations are declared, so their label is closed.

    Attributes:
        registry: what ``/metrics`` shows.
        sent: records that a destination took.
        reduced: records that say less than their entry does, by why (``oversized``, ``unmappable``, ``refused``); they count as sent, too.
        missing: events that are in the log and could not be read from the store, or are not the ones in the log.
        filtered: entries that the destination's settings leave out.
        failures: times that a destination could not be sent to; it is tried again.
        log_failures: times that log or store did not answer; it is tried again.
        behind: leaves that a destination has not been sent yet.
        behind_seconds: how long ago the first of them was recorded.
    """

    def __init__(self, destinations: Iterable[str] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        by = ["destination"]
        self.sent = Counter("tally_siem_sent_total", "Records that a destination took.", by, registry=registry)
        self.reduced = Counter(
            "tally_siem_reduced_total",
            "Records made with less in them than their entry has; again when they are sent again.",
            ["destination", "reason"],
            registry=registry,
        )
        self.missing = Counter(
            "tally_siem_missing_events_total",
            "Events in the log that the store has lost or changed; their records say so.",
            by,
            registry=registry,
        )
        self.filtered = Counter(
            "tally_siem_filtered_total", "Entries that the destination's settings leave out.", by, registry=registry
        )
        self.failures = Counter(
            "tally_siem_failures_total", "Times that a destination could not be sent to.", by, registry=registry
        )
        self.log_failures = Counter(
            "tally_siem_log_failures_total", "Times that log or store did not answer.", by, registry=registry
        )
        self.behind = Gauge(
            "tally_siem_behind_leaves", "Leaves that a destination was not sent yet.", by, registry=registry
        )
        self.behind_seconds = Gauge(
            "tally_siem_behind_seconds",
            "How long ago the first leaf was recorded that a destination was not sent yet; 0 when there is none.",
            by,
            registry=registry,
        )
        for name in destinations:  # at 0, so that the first one is an increase
            for counter in (self.sent, self.missing, self.filtered, self.failures, self.log_failures):
                counter.labels(name)
            for reason in ("oversized", "unmappable", "refused"):
                self.reduced.labels(name, reason)
