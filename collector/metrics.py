"""Every metric of the collector: its name, unit and meaning. Labels have a closed set of values, or a bound (`collector.red`).

Naming: https://prometheus.io/docs/practices/naming/
"""

import math
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from collector.batch import Clock
from collector.red import DURATION_BUCKETS, Request, RequestMetrics
from collector.standing import PipelineState

__all__ = ["DURATION_BUCKETS", "CollectorMetrics"]


class CollectorMetrics:
    """The collector's metrics in a registry of its own.

    `tally_collector_refused_total{reason}`: inputs and connections refused; reasons are the `Malformed.label`s of the code and the
    receivers' words for connections that end badly. `services` and `operations` bound the labels of `collector.red`.
    """

    def __init__(self, *, collector: str, services: int = 20, operations: int = 50, spool_limit_bytes: int = 0) -> None:
        self.registry = CollectorRegistry()
        self._services = RequestMetrics(self.registry, services=services, operations=operations)
        self._stored = Counter(
            "tally_collector_events_total", "Events made durable in the spool.", registry=self.registry
        )
        self._duplicates = Counter(
            "tally_collector_duplicates_total", "Re-sends recognised by their source id.", registry=self.registry
        )
        self._refused = Counter(
            "tally_collector_refused_total",
            "Inputs put into the dead letters, and refused connections.",
            ["reason"],
            registry=self.registry,
        )
        self._refused_inputs = Counter(
            "tally_collector_input_refused_total",
            "Groups of a way in that were told to wait: the spool, or the sender's share of it, is full.",
            ["input"],
            registry=self.registry,
        )
        self._input_waits = Counter(
            "tally_collector_input_waits_total",
            "Times that a sender of a way in had to wait for its turn because others' work was at hand.",
            ["input"],
            registry=self.registry,
        )
        self._points = Counter(
            "tally_collector_metric_points_total",
            "Data points of OTLP metrics that went by.",
            ["kind"],
            registry=self.registry,
        )
        self._exemplars = Counter(
            "tally_collector_metric_exemplars_total",
            "Exemplars of OTLP metrics: kept as events (or recognised as such), or without a trace, and not kept.",
            ["fate"],
            registry=self.registry,
        )
        self._onward = Counter(
            "tally_collector_metric_requests_total",
            "Requests to the metrics server: taken, refused, or to be sent again later.",
            ["result"],
            registry=self.registry,
        )
        self._sent_points = Counter(
            "tally_collector_metrics_sent_total",
            "Data points that the metrics server has taken, the sidecar's own and the ends of series included.",
            registry=self.registry,
        )
        self._dropped_points = Counter(
            "tally_collector_metrics_dropped_total",
            "Data points of metrics that did not go on, and never will.",
            ["reason"],
            registry=self.registry,
        )
        self.ack_seconds = Histogram(
            "tally_collector_ack_seconds",
            "From a group's arrival to its acknowledgement.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=self.registry,
        )
        gauges: dict[str, tuple[str, Callable[[PipelineState], float]]] = {
            "tally_collector_spool_bytes": ("Bytes in the spool.", lambda state: state.spool_bytes),
            "tally_collector_spool_waiting_events": (
                "Durable events the store does not have yet.",
                lambda state: state.waiting_events,
            ),
            "tally_collector_spool_age_seconds": (
                "For how long, at most, the oldest event that the store does not have has been waiting.",
                lambda state: state.waiting_seconds,
            ),
            "tally_collector_ack_waiting_groups": (
                "Groups whose senders wait for the store (ack = store).",
                lambda state: state.waiting_groups,
            ),
            "tally_collector_shipped_batch": (
                "Number of the last batch the store has.",
                lambda state: state.shipped_number,
            ),
            "tally_collector_logged_batch": (
                "Number of the last batch the log has.",
                lambda state: state.acknowledged_number,
            ),
            "tally_collector_breaker_open": (
                "1 while the store is taken to be down.",
                lambda state: state.breaker_open,
            ),
            "tally_collector_failed_rounds": (
                "Times since the start that shipping had to be tried again: the store, or the spool's disk, did not answer.",
                lambda state: state.failed_rounds,
            ),
            "tally_collector_refusing": (
                "1 while the spool refuses events of some sender or of all: it, its shared part or its disk is full, and they are told to wait.",
                lambda state: bool(state.refusing),
            ),
            "tally_collector_forks": ("Forks found since the start: the spool was cloned.", lambda state: state.forks),
            "tally_collector_resent_batches": (
                "Batches sent again since the start because the store had lost them.",
                lambda state: state.resent_batches,
            ),
            "tally_collector_damaged_spools": (
                "Spool folders set aside because they do not read back.",
                lambda state: len(state.damaged),
            ),
        }
        self._gauges = [(Gauge(name, text, registry=self.registry), get) for name, (text, get) in gauges.items()]
        self._tail = {
            name: Gauge(f"tally_collector_tail_{name}", text, ["tail"], registry=self.registry)
            for name, text in {
                "behind_bytes": "Bytes of the files of an entry of the tail that are not taken yet.",
                "open_files": "Files of an entry of the tail that are open.",
                "waiting_files": "Files of an entry of the tail that wait: too many are open, or they cannot be read.",
            }.items()
        }
        self._broker = Gauge(
            "tally_collector_broker_connected",
            "1 while the broker of an entry of Kafka, RabbitMQ or Pulsar answers.",
            ["system", "entry"],
            registry=self.registry,
        )
        self._broker_messages = Counter(
            "tally_collector_broker_messages_total",
            "Messages of an entry of Kafka, RabbitMQ or Pulsar that are durable, those recognised and dead letters included.",
            ["system", "entry"],
            registry=self.registry,
        )
        self._spool_limit = Gauge(
            "tally_collector_spool_limit_bytes",
            "What the spool may hold; beyond it senders are told to wait.",
            registry=self.registry,
        )
        self._spool_limit.set(spool_limit_bytes)
        self._clock_offset = Gauge(
            "tally_collector_clock_offset_seconds",
            "By how much this machine's clock is ahead (negative: behind), as batches say; NaN where nobody knows.",
            registry=self.registry,
        )
        self._clock_uncertainty = Gauge(
            "tally_collector_clock_uncertainty_seconds",
            "How much either way that may be wrong; NaN where nobody knows.",
            registry=self.registry,
        )
        self._reloads = Counter(
            "tally_collector_config_reloads_total",
            "Times that the configuration was read again: applied, or refused, when the one before stays in force.",
            ["outcome"],
            registry=self.registry,
        )
        self._reload_successful = Gauge(
            "tally_collector_config_last_reload_successful",
            "1 unless the configuration was refused when it was last read again.",
            registry=self.registry,
        )
        self._reload_time = Gauge(
            "tally_collector_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in Unix time.",
            registry=self.registry,
        )
        for outcome in ("applied", "refused"):
            self._reloads.labels(outcome)
        info = Gauge("tally_collector_info", "The collector's name.", ["collector"], registry=self.registry)
        info.labels(collector).set(1)

    def taken(self, *, stored: int, duplicates: int) -> None:
        """Count what became of a group."""
        self._stored.inc(stored)
        if duplicates:
            self._duplicates.inc(duplicates)

    def answered(self, requests: Iterable[Request]) -> None:
        """Count requests that services have answered."""
        for request in requests:
            self._services.count(request)

    def refused(self, reason: str) -> None:
        """Count one refusal."""
        self._refused.labels(reason).inc()

    def input_opens(self, way: str) -> None:
        """Show a way in that opens at 0: of a counter that begins with its first count, no rate sees the first."""
        self._refused_inputs.labels(way)
        self._input_waits.labels(way)

    def refused_input(self, way: str) -> None:
        """Count a group of a way in that the spool has no room for just now; there are as many ways as the configuration has."""
        self._refused_inputs.labels(way).inc()

    def input_waited(self, way: str) -> None:
        """Count that a sender of a way in has to wait for its turn."""
        self._input_waits.labels(way).inc()

    def metrics_passed(self, points: Mapping[str, int], kept: int, untraced: int) -> None:
        """Count what of a request of metrics went by: data points by their kind, exemplars kept, and exemplars without a trace."""
        for kind, count in points.items():
            self._points.labels(kind).inc(count)
        if kept:
            self._exemplars.labels("kept").inc(kept)
        if untraced:
            self._exemplars.labels("untraced").inc(untraced)

    def metric_request_answered(self, result: str) -> None:
        """Count a request to the metrics server: ``taken``, ``refused`` or ``later``."""
        self._onward.labels(result).inc()

    def metric_points_sent(self, points: int) -> None:
        """Count data points that the metrics server has taken."""
        self._sent_points.inc(points)

    def metric_points_dropped(self, reason: str, points: int) -> None:
        """Count data points that do not go on; the reasons are those of `collector.onward`."""
        self._dropped_points.labels(reason).inc(points)

    def watch_metrics_to(self, *, series: Callable[[], int], waiting_bytes: Callable[[], int]) -> None:
        """Show, at each scrape, how many series go on and what waits for the metrics server."""
        for name, text, get in (
            ("tally_collector_metrics_series", "Series of services' metrics that go on.", series),
            ("tally_collector_metrics_waiting_bytes", "What waits for the metrics server.", waiting_bytes),
        ):
            Gauge(name, text, registry=self.registry).set_function(get)

    def tail(self, label: str, behind_bytes: int, open_files: int, waiting_files: int) -> None:
        """How an entry of the tail stands; its label is one of the configuration."""
        for name, value in (
            ("behind_bytes", behind_bytes),
            ("open_files", open_files),
            ("waiting_files", waiting_files),
        ):
            self._tail[name].labels(label).set(value)

    def spool_may_hold(self, limit_bytes: int) -> None:
        """The spool's bound is another one."""
        self._spool_limit.set(limit_bytes)

    def configured(self, now_seconds: float, *, outcome: str = "") -> None:
        """The configuration was read, at the start or again: `outcome` is empty, ``applied`` or ``refused``."""
        if outcome:
            self._reloads.labels(outcome).inc()
        self._reload_successful.set(outcome != "refused")
        if outcome != "refused":
            self._reload_time.set(now_seconds)

    def broker(self, system: str, label: str, connected: int, messages: int) -> None:
        """How an entry of a broker stands, and how many messages were taken since it was last told."""
        self._broker.labels(system, label).set(connected)
        self._broker_messages.labels(system, label).inc(messages)

    def watch_clock(self, measured: Callable[[], Clock | None]) -> None:
        """Read what is known of the clock at each scrape."""

        def offset() -> float:
            known = measured()
            return math.nan if known is None else known.offset_ns / 1e9

        def uncertainty() -> float:
            known = measured()
            return math.nan if known is None else known.uncertainty_ns / 1e9

        self._clock_offset.set_function(offset)
        self._clock_uncertainty.set_function(uncertainty)

    def watch(self, state: Callable[[], PipelineState]) -> None:
        """Read the pipeline's state at each scrape."""
        for gauge, get in self._gauges:
            gauge.set_function(_reader(get, state))


def _reader(get: Callable[[PipelineState], float], state: Callable[[], PipelineState]) -> Callable[[], float]:
    return lambda: float(get(state()))
