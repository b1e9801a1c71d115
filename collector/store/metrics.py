"""What is heard from an OpenSearch cluster, as metrics: every name, unit and meaning. Labels have a closed set of values.

Naming: https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["OPERATIONS", "OUTCOMES", "TROUBLES", "ClusterMetrics"]

OPERATIONS = ("read", "write", "other")
"""Reading and searching; bulk writing; making and looking at indexes, refreshing."""

TROUBLES = (
    "blocked",
    "no_shard",
    "no_manager",
    "too_much",
    "unavailable",
    "denied",
    "timeout",
    "unreachable",
    "no_tls",
)
"""What may pass: writes are blocked (a full disk, an administrator); no copy of a shard, or too few (red); no cluster manager; 429; any
other 5xx; 401 and 403; no answer in time; no answer; no secure connection."""

OUTCOMES = ("ok", "not_found", "refused", "unreadable", *TROUBLES)
"""Of a request: done; 404; another definite no; an answer that is not OpenSearch's; or a trouble."""

_WRITTEN = ("created", "taken", "refused", *TROUBLES)


class ClusterMetrics:
    """The traffic with one cluster.

    Args:
        registry: where the metrics go.
        part: what lies there: the event store or the trail index; names begin with ``tally_store_`` or ``tally_index_``.
    """

    def __init__(self, registry: CollectorRegistry, *, part: Literal["store", "index"]) -> None:
        name = f"tally_{part}"
        self._requests = Counter(
            f"{name}_requests_total",
            "Requests to the cluster, by operation and outcome.",
            ["operation", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            f"{name}_request_seconds",
            "From a request to its answer, or to giving it up.",
            ["operation"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0),
            registry=registry,
        )
        self._sent = Counter(f"{name}_sent_bytes_total", "Bodies of requests.", registry=registry)
        self._received = Counter(f"{name}_received_bytes_total", "Bodies of answers.", registry=registry)
        self._node_failures = Counter(
            f"{name}_node_failures_total",
            "Times that a node did not answer, or with 502 to 504; where there is another node, it was asked.",
            registry=registry,
        )
        self._documents = Counter(
            f"{name}_documents_total",
            "Documents written: created, found there already, refused by the mapping, or not taken because of a trouble.",
            ["outcome"],
            registry=registry,
        )
        self._unindexed = Counter(
            f"{name}_unindexed_events_total",
            "Events stored as bytes alone, because they or the mapping do not let them be searched.",
            registry=registry,
        )
        self._trouble = Gauge(
            f"{name}_trouble",
            "1 for what was wrong with the newest request of this operation.",
            ["operation", "reason"],
            registry=registry,
        )
        self._reasons = dict.fromkeys(OPERATIONS, "")
        for operation in OPERATIONS:
            self._requests.labels(operation, "ok")
            self._seconds.labels(operation)
            for reason in TROUBLES:
                self._trouble.labels(operation, reason)
        for outcome in _WRITTEN:
            self._documents.labels(outcome)

    def answered(self, operation: str, outcome: str, *, seconds: float, sent: int, received: int) -> None:
        """Count one request; `sent` and `received` are bytes."""
        self._requests.labels(operation, outcome).inc()
        self._seconds.labels(operation).observe(seconds)
        self._sent.inc(sent)
        self._received.inc(received)
        if operation != "write" or outcome != "ok":  # of a bulk that was answered `wrote` says how it went
            self._now(operation, outcome)

    def wrote(self, outcomes: Mapping[str, int]) -> None:
        """Count the documents of a bulk that was answered, by outcome."""
        trouble = ""
        for outcome, count in outcomes.items():
            self._documents.labels(outcome).inc(count)
            trouble = outcome if outcome in TROUBLES else trouble
        self._now("write", trouble)

    def troubled(self, operation: str, outcome: str) -> None:
        """Note what a request that was answered told of: a part of it could not be had."""
        self._now(operation, outcome)

    def unindexed(self, events: int) -> None:
        """Count events that were stored as bytes alone."""
        self._unindexed.inc(events)

    def node_failed(self) -> None:
        """Count a node that did not answer."""
        self._node_failures.inc()

    def _now(self, operation: str, outcome: str) -> None:
        reason = outcome if outcome in TROUBLES else ""
        before, self._reasons[operation] = self._reasons[operation], reason
        if before != reason:
            if before:
                self._trouble.labels(operation, before).set(0)
            if reason:
                self._trouble.labels(operation, reason).set(1)
