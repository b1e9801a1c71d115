"""Every metric of the correlator: its name, unit and meaning. No label whose values come from outside without a bound.

Naming: https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram

from collector.errors import Malformed
from collector.event import parse_time
from correlator.checkmetrics import CheckMetrics
from correlator.flowmetrics import FlowMetrics
from correlator.streams import FREEZING

__all__ = ["CheckMetrics", "CorrelatorMetrics"]

_KINDS = ("event", "batch", "gap", "link", "verdict", "enrolment", "fork")
_REASONS = ("missing", "first_late", "silent", *sorted(FREEZING))


class CorrelatorMetrics:
    """The correlator's metrics in a registry of its own.

    ``tally_correlator_entries_total{kind}``: entries published, by kind; ``tally_correlator_gaps_total{reason}``: gap entries, by
    the reasons of docs/format.md.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.entries = Counter("tally_correlator_entries_total", "Entries published.", ["kind"], registry=self.registry)
        self.gaps = Counter("tally_correlator_gaps_total", "Gap entries.", ["reason"], registry=self.registry)
        self.publish_seconds = Histogram(
            "tally_correlator_publish_seconds",
            "One publish: staged, head swapped, tiles and checkpoint written.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=self.registry,
        )
        self.log_size = Gauge("tally_correlator_log_leaves", "Leaves published.", registry=self.registry)
        self.index_lag = Gauge(
            "tally_correlator_index_lag_leaves", "Leaves published and not yet indexed.", registry=self.registry
        )
        self.lag_batches = Gauge(
            "tally_correlator_lag_batches",
            "Batches read from the store and not yet published, of all streams.",
            registry=self.registry,
        )
        self.head_age_seconds = Gauge(
            "tally_correlator_head_age_seconds",
            "Since the newest published entry was recorded.",
            registry=self.registry,
        )
        self.role = Enum(
            "tally_correlator_role",
            "What this correlator is at; at first it opens the log.",
            states=["opening", "standby", "writer"],
            registry=self.registry,
        )
        self.epoch = Gauge(
            "tally_correlator_epoch", "Epoch of the log's head, as last written or seen.", registry=self.registry
        )
        self.head_unchanged_seconds = Gauge(
            "tally_correlator_head_unchanged_seconds",
            "On a standby: for how long the head has not changed, by its own clock; it takes over at take_over_seconds.",
            registry=self.registry,
        )
        self.streams = Gauge("tally_correlator_streams", "Streams, by state.", ["state"], registry=self.registry)
        self.missing_batches = Gauge(
            "tally_correlator_missing_batches",
            "Batches that gap entries name and that have not come.",
            registry=self.registry,
        )
        self.illegal_streams = Gauge(
            "tally_correlator_illegal_streams",
            "Names in the store's list of streams that no stream can have: passed over; the list is damaged or was changed.",
            registry=self.registry,
        )
        self.failures = Counter(
            "tally_correlator_failures_total",
            "Steps that had to be given up and tried again: the store, the log, the index or the disk did not answer.",
            registry=self.registry,
        )
        self.statement_failures = Counter(
            "tally_correlator_statement_failures_total",
            "Looks at the joint statement over all shards that failed; the next one makes up for it.",
            registry=self.registry,
        )
        self.statement_refused = Gauge(
            "tally_correlator_statement_refused_shards",
            "Shards whose log does not continue what the joint statement says of it: rolled back, forked or lost.",
            registry=self.registry,
        )
        self.flows = FlowMetrics(self.registry)
        self.late_events = Counter(
            "tally_correlator_late_events_total",
            "Events that filled a gap of their stream: they came after others that follow them.",
            registry=self.registry,
        )
        self._stitch_seconds = Histogram(
            "tally_stitch_latency_seconds",
            "From the cutting of a batch, by its collector's clock, to the publication of its events' entries, by this one's.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0),
            registry=self.registry,
        )
        for kind in _KINDS:
            self.entries.labels(kind)
        for reason in _REASONS:
            self.gaps.labels(reason)

    def published(self, recorded_ns: int, clock: Callable[[], int]) -> None:
        """The newest published entry was recorded then (Unix time in nanoseconds, as `clock` gives it): how long ago is told at each scrape.

        So its age grows while steps fail or hang, which is when somebody must hear of it.
        """
        self.head_age_seconds.set_function(lambda: max(0.0, (clock() - recorded_ns) / 1e9))

    def stitched(self, created: Iterable[str], now_ns: int) -> None:
        """Count batches whose entries are published now; `created` is when their headers say that they were cut."""
        for text in created:
            try:
                cut_ns = parse_time(text)
            except Malformed:  # the 31st of February, signed: its collector's business
                continue
            self._stitch_seconds.observe(max(0, now_ns - cut_ns) / 1e9)
