"""What an OTLP request becomes, whether it came over HTTP or gRPC: decoded once, made durable, and counted.

A request is one group, named by the SHA-256 of its body (decompressed), so that the same request sent again, by either transport, is recognised as
long as the collector's journal remembers it; spans, exemplars and records with ``log.record.uid`` are recognised on their own as well.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.errors import Malformed, TooLarge
from collector.event import Origin, format_time
from collector.receive import Arrival, Intake, otlp_json
from collector.receive.census import Path, Walked, check_decoded, check_json, check_nested, check_protobuf
from collector.receive.otlp_events import JSON, PROTOBUF, Refused, Void, events_of_logs, events_of_traces
from collector.receive.otlp_metrics import Points, events_of_metrics
from collector.receive.turns import Share, Turns
from collector.rejection import Rejection, place_in
from collector.sender import OURSELVES, Sender

__all__ = ["LOGS", "METRICS", "TRACES", "Onward", "OtlpExports", "Signal", "Taken"]

_log = logging.getLogger(__name__)

_QUIET_NS = 60 * 10**9

_BREATH = 250
"""Records that are mapped in one go before other connections get their turn."""

_BREATH_VALUES = 16_384
"""Or records with so many values."""

_MAX_VOIDS = 100_000
"""Resources, scopes and metrics that hold nothing, of one request. No SDK sends any; two bytes are one, and each takes memory and time as a full one does."""

_MAX_PARTS = 8 * 2**20
"""Messages of protobuf that one request may hold, whatever they stand in: attributes, their values, items of lists, events of spans, exemplars."""

_MAX_EVENTS = 131_072
"""Most that one request may become; as many as a message of Forward. A data point, which becomes none, takes less room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One of OpenTelemetry's signals: its request, and how its answer counts what was not taken.

    `service`: gRPC's name of it; `rejected`: the field of its partial success in OTLP/JSON; `path`: from its request to its records, of which, and of
    what they stand in, there may be `max_records`.
    """

    name: str
    service: str
    rejected: str
    message: Any
    read_json: Callable[[bytes], Any]
    records: Callable[..., Iterator[Arrival | Refused | Points | Void]]
    path: Path = ((1,), (2,), (2,))
    max_records: int = _MAX_EVENTS


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
    path=((1,), (2,), (2,), (5, 7, 9, 10, 11), (1,)),  # any kind of data (metrics.proto, `oneof data`), and its points
    max_records=8 * _MAX_EVENTS,
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


@dataclass(slots=True, kw_only=True)
class _Records:
    """What a request holds: events to be, what cannot be one, data points by their kind, exemplars that name no trace, and a field that OTLP/JSON does not know."""

    arrivals: list[Arrival] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    points: Counter[str] = field(default_factory=Counter)
    untraced: int = 0
    misnamed: str = ""


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
        self._warned_ns: int | None = None

    async def take(self, body: bytes, signal: Signal, *, json: bool, sender: Sender = OURSELVES) -> Taken:
        """Make a request's records durable; what cannot be an event is in the dead letters. `sender`: as in `Intake.accept`.

        Raises:
            Malformed: the body is no OTLP, or nearly nothing of it; it is in the dead letters.
            TooLarge: it has more records than a request may have, or is more than the spool may hold; nothing of it was taken.
            Overloaded: not now. What was taken all the same is recognised when it comes again.
        """
        origin = Origin(receiver="otlp")
        share = self._turns.of(sender)
        await share.turn()
        try:
            read = await self._read(body, signal, json, share)
        except TooLarge:
            raise
        except Malformed as error:
            await self._intake.reject([Rejection(body, error, origin)])
            raise
        except RecursionError as error:
            raise await self._too_deep(body, origin) from error
        arrivals, refused, points = read.arrivals, read.refused, read.points
        kept, group_id = 0, b""
        if arrivals or refused:  # of metrics it is rarely needed, and it is a pass over the body
            group_id = hashlib.sha256(b"otlp\0%b\0%b" % (signal.name.encode(), body)).digest()
        await self._intake.reject(
            [Rejection(one.raw, one.error, origin, place_in(group_id, at)) for at, one in enumerate(refused)]
        )
        rejected = len(refused)
        reason = str(refused[0].error) if refused else self._warning(read.misnamed)
        if arrivals:
            receipt = await self._intake.accept(arrivals, group_id=group_id, sender=sender)
            kept = receipt.stored + receipt.duplicates
            rejected += receipt.dead_lettered
            if receipt.dead_lettered and not reason:
                reason = "some records cannot be taken; the collector's dead letters say why"
        if signal is not METRICS:
            return Taken(rejected=rejected, reason=reason)
        taken = await self._points_of(body, json, points.total(), kept, reason)
        self._passed(points, kept, read.untraced)
        return taken

    async def _read(self, body: bytes, signal: Signal, json: bool, share: Share) -> "_Records":
        """Decode a request, while other connections get their turns. Raises `Malformed`, `TooLarge`, RecursionError."""
        read, seen, voids = _Records(), 0, 0
        if not json:
            check_protobuf(body, signal.path, signal.max_records)
            for _ in check_nested(body, signal.message.DESCRIPTOR, _MAX_PARTS):
                await share.turn()
        reading = replace(JSON if json else PROTOBUF, walked=Walked())
        request = _decoded(body, signal, json)
        if json:
            read.misnamed = otlp_json.misnamed_in(request)
        for record in signal.records(request, reading, observed=format_time(self._clock())):
            if isinstance(record, Arrival):
                read.arrivals.append(record)
                seen += 1
            elif isinstance(record, Refused):
                read.refused.append(record)
            elif isinstance(record, Void):
                voids += 1
                seen += 1
            else:
                read.points[record.kind] += record.count
                read.untraced += record.untraced
                seen += record.count + record.untraced
            if seen >= _BREATH or reading.walked.since >= _BREATH_VALUES:
                seen = reading.walked.since = 0
                await share.turn()
            if voids > _MAX_VOIDS:
                raise Malformed(
                    f"more than {_MAX_VOIDS} resources, scopes or metrics that hold nothing", label="bad_otlp"
                )
            if len(read.arrivals) + len(read.refused) > _MAX_EVENTS:  # exemplars, which are not counted before
                raise TooLarge(f"more than {_MAX_EVENTS} events in a request: send them in several")
        return read

    def _warning(self, misnamed: str) -> str:
        """What the sender is told whose request has a field that is to be ignored; the log hears it, too, at most once a minute."""
        if not misnamed:
            return ""
        warning = f"{misnamed} is no field of OTLP/JSON, whose names are lowerCamelCase: nothing in it is taken"
        now_ns = self._clock()
        if self._warned_ns is None or abs(now_ns - self._warned_ns) >= _QUIET_NS:
            self._warned_ns = now_ns
            _log.warning("a sender's request over OTLP is answered 200, and not stored: %s", warning)
        return warning

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


def _decoded(body: bytes, signal: Signal, json: bool) -> Any:
    """The request, of protobuf's class or `otlp_json`'s. Raises `Malformed`, `TooLarge`, RecursionError."""
    if json:
        check_json(body)
        told = signal.read_json(body)
        check_decoded(told, signal.message.DESCRIPTOR, signal.path, signal.max_records)
        return told
    try:
        return signal.message.FromString(body)
    except DecodeError as error:
        raise Malformed(f"not {signal.message.DESCRIPTOR.name} in protobuf", label="bad_otlp") from error
