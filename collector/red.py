"""Rate, errors and duration of services' requests, from what their sidecar has stored of them: server and consumer spans, and access logs.

`request_of` reads an event, `RequestMetrics` counts what was read. A label's value comes from outside, so there is a bound on them:
at most so many services, and of each so many operations; the rest is counted under ``other``. Attributes are those of
OpenTelemetry (https://opentelemetry.io/docs/specs/semconv/http/, …/http/http-metrics/), histograms and exemplars those of
OpenMetrics (https://prometheus.io/docs/specs/om/open_metrics_spec/).
"""

import math
import re
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram

from collector.errors import Malformed
from collector.event import Event, parse_time

__all__ = ["ACCESS_LOG", "DURATION_BUCKETS", "OTHER", "Request", "RequestMetrics", "request_of"]

ACCESS_LOG = "http.server.request"
"""The name of an event that is a line of an access log: every preset gives it, and a mapping of one's own may."""

OTHER = "other"
"""The service or operation that those beyond the bounds are counted under."""

_KINDS = {"SERVER": "server", "CONSUMER": "consumer"}
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram of durations, in seconds."""

_LABEL_CHARACTERS = 128
_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_METHOD = re.compile(r"[A-Z]{1,16}", re.ASCII)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_PATH = re.compile(r"(?:([A-Z]{1,16}) )?(?:/|[a-z][a-z0-9+.-]*://)", re.ASCII)


class Request(NamedTuple):
    """One request that a service has answered.

    `kind`: ``server``, ``consumer`` or ``gateway`` (an access log); `outcome`: ``success``, ``client_error`` (HTTP 4xx) or ``failure``;
    `seconds`: how long it took, not below 0, None where that was not said; `trace_id`: 32 hex digits, or empty.
    """

    service: str
    operation: str
    kind: str
    outcome: str
    seconds: float | None
    trace_id: str


def request_of(event: Event) -> Request | None:
    """The request that this event tells of, None when it is none. Of an event as it will be stored: masked, its times in their form."""
    span = event.span
    if span is not None:
        kind = _KINDS.get(span.kind)
        if kind is None:  # what a client saw is counted where it was answered
            return None
        operation = _operation(event.attributes, span.name)
        seconds = _between(event.time, span.end)
    elif event.event_name == ACCESS_LOG:
        kind = "gateway"
        operation = _operation(event.attributes, "")
        seconds = _seconds(event.attributes.get("http.server.request.duration"))
    else:
        return None
    return Request(
        service=_label(event.service) or "unknown",
        operation=operation,
        kind=kind,
        outcome=_outcome(event),
        seconds=seconds,
        trace_id=event.trace_id if _TRACE_ID.fullmatch(event.trace_id) else "",
    )


def _operation(attributes: dict[str, Any], name: str) -> str:
    """The route where it is told, else the span's name; of what begins like a path or a URL no more than the method."""
    method = attributes.get("http.request.method", attributes.get("http.method"))
    method = method if isinstance(method, str) and _METHOD.fullmatch(method) else ""
    route = attributes.get("http.route")
    if isinstance(route, str) and route:
        # API Gateway's route keys bring their method along
        return _label(route if not method or route.startswith(f"{method} ") else f"{method} {route}")
    path = _PATH.match(name)
    if name and path is None:
        return _label(name)
    return method or (path[1] if path and path[1] else "unknown")


def _outcome(event: Event) -> str:
    if event.span is not None and event.span.status == "ERROR":
        return "failure"
    status = event.attributes.get("http.response.status_code", event.attributes.get("http.status_code"))
    if type(status) is int and 400 <= status <= 499:
        return "client_error"
    if type(status) is int and 500 <= status <= 599:
        return "failure"
    return "failure" if event.outcome == "failure" else "success"


def _between(start: str, end: str) -> float | None:
    try:
        nanoseconds = parse_time(end) - parse_time(start)
    except Malformed:  # one of them was not stated
        return None
    return nanoseconds / 1e9 if nanoseconds >= 0 else None


def _seconds(value: Any) -> float | None:
    if type(value) is not float and type(value) is not int:
        return None
    return float(value) if 0 <= value < math.inf else None


def _label(text: str) -> str:
    """A text as the value of a label: one line, without control characters, cut."""
    return _UNSAFE.sub(" ", text[:_LABEL_CHARACTERS]).strip()


class RequestMetrics:
    """Counts requests. Not safe for several threads at once.

    ``tally_service_requests_total{service,operation,kind,outcome}``, ``tally_service_request_duration_seconds{service,operation,kind}``,
    ``tally_service_folded_requests_total{label}``. The outcome ``failure`` is there from an operation's first request on, at 0.

    Args:
        registry: where they are shown.
        services: so many at most, by who comes first; the rest is ``other``.
        operations: so many at most of each service, of each kind; the rest is ``other``.
    """

    def __init__(self, registry: CollectorRegistry, *, services: int, operations: int) -> None:
        self._most = (services, operations)
        self._known: dict[str, dict[str, set[str]]] = {}  # service -> kind -> operations
        self._series: dict[tuple[str, str, str, str], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "tally_service_requests_total",
            "Requests that services have answered, as their spans and their gateways' access logs tell.",
            ["service", "operation", "kind", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tally_service_request_duration_seconds",
            "How long those requests took, where that was told.",
            ["service", "operation", "kind"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._folded = Counter(
            "tally_service_folded_requests_total",
            'Requests that were counted under the service or the operation "other", because there were too many names.',
            ["label"],
            registry=registry,
        )
        for label in ("service", "operation"):
            self._folded.labels(label)

    def count(self, request: Request) -> None:
        """Count a request, with its trace as the exemplar where there is one."""
        service, operation = self._bounded(request)
        name = (service, operation, request.kind, request.outcome)
        series = self._series.get(name)
        if series is None:
            # there before it counts: of a counter that begins at 600, no rate sees the 600 (instrumenting: avoid missing metrics)
            self._requests.labels(service, operation, request.kind, "failure")
            series = self._requests.labels(*name), self._seconds.labels(*name[:3])
            self._series[name] = series  # finding them by their labels again costs as much as counting
        counted, seconds = series
        exemplar = {"trace_id": request.trace_id} if request.trace_id else None
        counted.inc(exemplar=exemplar)
        if request.seconds is not None:
            seconds.observe(request.seconds, exemplar=exemplar)

    def _bounded(self, request: Request) -> tuple[str, str]:
        services, operations = self._most
        known = self._known.get(request.service)
        if known is None:
            if len(self._known) >= services:
                self._folded.labels("service").inc()
                return OTHER, OTHER
            known = self._known[request.service] = {}
        names = known.setdefault(request.kind, set())
        if request.operation not in names:
            if len(names) >= operations:
                self._folded.labels("operation").inc()
                return request.service, OTHER
            names.add(request.operation)
        return request.service, request.operation
