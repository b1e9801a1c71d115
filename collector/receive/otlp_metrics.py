"""Metrics that name a trace: each exemplar that does becomes an event, so that a measurement stands in its transaction's trail.

An exemplar is one measurement that an SDK kept beside an aggregate, with the trace in which it was made
(https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exemplars). The aggregates themselves, the data points, are no evidence of
any one transaction: they are counted here, by their kind, and not kept.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from collector.errors import Malformed
from collector.event import Event, Origin, Scope
from collector.receive import Arrival
from collector.receive.otlp_events import VOID, Reading, Refused, Void, attributes_of, scopes_of, time_of
from collector.receive.record import trace_id_of

__all__ = ["EXEMPLAR", "KINDS", "Points", "events_of_metrics"]

EXEMPLAR = "metric.exemplar"
"""The event's name. Not the metric's, so that a declared flow never takes a measurement for a step of the same name."""

KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
"""The kinds of data (metrics.proto, ``oneof data``) by their field's name."""

_POINTS_A_TURN = 1_000
_ORIGIN = Origin(receiver="otlp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """So many data points of a kind went by, and so many exemplars on them that name no trace."""

    kind: str
    count: int
    untraced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metric:
    """A metric of one kind, and where it comes from."""

    name: str
    unit: str
    kind: str
    resource: dict[str, Any]
    scope: Scope | None
    marks: list[str]
    reading: Reading
    observed: str

    def events_of(self, points: Iterable[Any]) -> Iterator[Arrival | Refused | Points]:
        """The exemplars with a trace, and what has gone by."""
        has_exemplars = self.kind != "summary"
        identifier = self.reading.identifier
        count = untraced = 0
        for point in points:
            count += 1
            for exemplar in (point.exemplars or ()) if has_exemplars else ():
                if not identifier(exemplar.trace_id):
                    untraced += 1
                    if untraced == _POINTS_A_TURN:
                        yield Points(kind=self.kind, count=count, untraced=untraced)
                        count = untraced = 0
                    continue
                try:
                    yield self._event_of(exemplar, point)
                except Malformed as error:
                    yield Refused(raw=self.reading.raw_of(exemplar), error=error)
            if count >= _POINTS_A_TURN:
                yield Points(kind=self.kind, count=count, untraced=untraced)
                count = untraced = 0
        if count or untraced:
            yield Points(kind=self.kind, count=count, untraced=untraced)

    def _event_of(self, exemplar: Any, point: Any) -> Arrival:
        reading = self.reading
        reading.walked.begin()
        trace_id = reading.identifier(exemplar.trace_id)
        if len(trace_id) != 32 or not trace_id_of(trace_id):
            raise Malformed("an exemplar whose trace id is not 16 bytes", label="bad_id")
        marks = list(self.marks)
        # the point has the attributes that it is aggregated by, the exemplar those filtered out: together they are what was measured
        attributes = attributes_of(point.attributes, reading, marks, exemplar.filtered_attributes)
        value = reading.number_of(exemplar)
        event = Event(
            time=time_of(exemplar.time_unix_nano, attributes, marks),
            observed=self.observed,
            event_name=EXEMPLAR,
            body={"metric": self.name, "type": self.kind, "unit": self.unit, "value": value},
            attributes=attributes,
            resource=self.resource,
            scope=self.scope,
            trace_id=trace_id,
            span_id=reading.identifier(exemplar.span_id),
            origin=_ORIGIN,
            marks=marks,
        )
        return Arrival(event=event, source_id=_source_id(event))


def events_of_metrics(request: Any, reading: Reading, *, observed: str) -> Iterator[Arrival | Refused | Points | Void]:
    """The exemplars with a trace of an ExportMetricsServiceRequest (protobuf's class or `otlp_json.MetricsRequest`), in their order.

    Between them, at least every 1,000 data points or exemplars, what has gone by.
    """
    for part in scopes_of(request.resource_metrics, "scope_metrics", "metrics", reading):
        if isinstance(part, Void):
            yield part
            continue
        resource, scope, marks, items = part
        for metric in items:
            empty = True
            for kind in KINDS:
                data = getattr(metric, kind)
                if data and data.data_points:
                    empty = False
                    named = _Metric(
                        name=metric.name, unit=metric.unit, kind=kind, resource=resource, scope=scope, marks=marks, reading=reading, observed=observed,
                    )  # fmt: skip
                    yield from named.events_of(data.data_points)
            if empty:
                yield VOID


def _source_id(event: Event) -> bytes:
    """What the exemplar says, hashed: a reader that collects again may send it again, in another request and beside other points."""
    said = (
        event.trace_id, event.span_id, event.time, event.body, sorted(event.attributes.items()), sorted(event.resource.items()), event.scope,
    )  # fmt: skip
    return b"exemplar\0" + hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).digest()
