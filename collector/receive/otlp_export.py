"""What an OTLP request becomes, whether it came over HTTP or gRPC: decoded once, made durable, and counted.

A request is one group, named by the SHA-256 of its body (decompressed), so that the same request sent again, by either transport, is recognised as
long as the collector's journal remembers it; spans, exemplars and records with ``log.record.uid`` are recognised on their own as well.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.errors import Malformed
from collector.event import Origin, format_time
from collector.receive import Arrival, Intake, otlp_json
from collector.receive.otlp_events import JSON, PROTOBUF, Refused, events_of_logs, events_of_traces
from collector.receive.otlp_metrics import Points, events_of_metrics
from collector.receive.turns import Turns
from collector.rejection import Rejection, place_in
from collector.sender import OURSELVES, Sender

__all__ = ["LOGS", "METRICS", "TRACES", "Onward", "OtlpExports", "Signal", "Taken"]

_BREATH = 250
"""Records that are mapped in one go before other connections get their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One of OpenTelemetry's signals: its request, and how its answer counts what was not taken.

    `service`: gRPC's name of it; `rejected`: the field of its partial success in OTLP/JSON.
    """

    name: str
    service: str
    rejected: str
    message: Any
    read_json: Callable[[bytes], Any]
    records: Callable[..., Iterator[Arrival | Refused | Points]]


LOGS = Signal(
    name="logs",
    service="opentelemetry.proto.collector.logs.v1.LogsService",
    rejected="rejectedLogRecords",
    message=ExportLogsServiceRequest,
    read_json=otlp_json.read_logs,
    records=events_of_logs,
)
TRACES = Signal(
    name="traces",
    service="opentelemetry.proto.collector.trace.v1.TraceService",
    rejected="rejectedSpans",
    message=ExportTraceServiceRequest,
    read_json=otlp_json.read_traces,
    records=events_of_traces,
)
METRICS = Signal(
    name="metrics",
    service="opentelemetry.proto.collector.metrics.v1.MetricsService",
    rejected="rejectedDataPoints",
    message=ExportMetricsServiceRequest,
    read_json=otlp_json.read_metrics,
    records=events_of_metrics,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A request's answer: everything that can be kept is durable; `rejected` records, spans or points are not, and `reason` says why."""

    rejected: int = 0
    reason: str = ""


class Onward(Protocol):
    """Where data points go on to."""

    async def pass_on(self, body: bytes, *, json: bool, points: int) -> Taken:
        """Take a whole request with so many points; returns what does not go on of them. Raises `Overloaded`: not now."""


class OtlpExports:
    """Takes requests of both transports.

    Args:
        intake: takes the events.
        clock: Unix time in nanoseconds; stamps `observed` where the sender did not.
        passed: called for each request of metrics whose evidence is durable, with what went by: data points by their kind, exemplars
            that are kept, exemplars that name no trace.
        turns: shares of the event loop's time.
        onward: where data points go on to; None: they are not kept.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        clock: Callable[[], int],
        passed: Callable[[Mapping[str, int], int, int], object] = lambda _points, _kept, _untraced: None,
        onward: Onward | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._passed = passed
        self._onward = onward
        self._turns = turns or Turns()

    async def take(self, body: bytes, signal: Signal, *, json: bool, sender: Sender = OURSELVES) -> Taken:
        """Make a request's records durable; what cannot be an event is in the dead letters. `sender`: as in `Intake.accept`.

        Raises:
            Malformed: the body is no OTLP; it is in the dead letters.
            TooLarge: it is more than the spool may hold; nothing of it was taken.
            Overloaded: not now. What was taken all the same is recognised when it comes again.
        """
        origin = Origin(receiver="otlp")
        share = self._turns.of(sender)
        await share.turn()
        arrivals: list[Arrival] = []
        refused: list[Refused] = []
        points: Counter[str] = Counter()
        untraced = kept = seen = 0
        try:
            for record in _read(body, signal, json, format_time(self._clock())):
                if isinstance(record, Arrival):
                    arrivals.append(record)
                    if not len(arrivals) % _BREATH:
                        await share.turn()
                elif isinstance(record, Refused):
                    refused.append(record)
                else:
                    points[record.kind] += record.count
                    untraced += record.untraced
                    seen += record.count
                    if seen >= _BREATH:
                        seen = 0
                        await share.turn()
        except Malformed as error:
            await self._intake.reject([Rejection(body, error, origin)])
            raise
        except RecursionError as error:
            raise await self._too_deep(body, origin) from error
        group_id = b""
        if arrivals or refused:  # of metrics it is rarely needed, and it is a pass over the body
            group_id = hashlib.sha256(b"otlp\0%b\0%b" % (signal.name.encode(), body)).digest()
        await self._intake.reject(
            [Rejection(one.raw, one.error, origin, place_in(group_id, at)) for at, one in enumerate(refused)]
        )
        rejected = len(refused)
        reason = str(refused[0].error) if refused else ""
        if arrivals:
            receipt = await self._intake.accept(arrivals, group_id=group_id, sender=sender)
            kept = receipt.stored + receipt.duplicates
            rejected += receipt.dead_lettered
            if receipt.dead_lettered and not reason:
                reason = "some records cannot be taken; the collector's dead letters say why"
        if signal is not METRICS:
            return Taken(rejected=rejected, reason=reason)
        taken = await self._points_of(body, json, points.total(), kept, reason)
        self._passed(points, kept, untraced)
        return taken

    async def _too_deep(self, body: bytes, origin: Origin) -> Malformed:
        # not a local of `take`: an error that its own traceback's frame holds is a cycle, and would keep the body until the next collection
        error = Malformed("nested too deeply", label="too_deep")
        await self._intake.reject([Rejection(body, error, origin)])
        return error

    async def _points_of(self, body: bytes, json: bool, points: int, kept: int, reason: str) -> Taken:
        """What becomes of data points: partial success says that they are not kept, so that the sender does not repeat them."""
        if not points:
            return Taken(reason=reason)
        if self._onward is not None:
            taken = await self._onward.pass_on(body, json=json, points=points)
        else:
            told = (
                f"{points} data points are not kept: of metrics this collector keeps the exemplars that name a trace, {kept} here; "
                "they go on to Prometheus where [collector.metrics_to] says where"
            )
            taken = Taken(rejected=points, reason=told)
        return Taken(rejected=taken.rejected, reason="; ".join(filter(None, (taken.reason, reason))))


def _read(body: bytes, signal: Signal, json: bool, observed: str) -> Iterator[Arrival | Refused | Points]:
    if json:
        return signal.records(signal.read_json(body), JSON, observed=observed)
    try:
        request = signal.message.FromString(body)
    except DecodeError as error:
        raise Malformed(f"not {signal.message.DESCRIPTOR.name} in protobuf", label="bad_otlp") from error
    return signal.records(request, PROTOBUF, observed=observed)
