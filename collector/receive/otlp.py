"""OTLP/HTTP for logs and traces, protobuf and JSON: the way in of OpenTelemetry SDKs and collectors.

https://opentelemetry.io/docs/specs/otlp/#otlphttp. A request is one group, named by the SHA-256 of its body, so that the same request
sent again (the SDKs retry after a time-out) is recognised as long as the collector's journal remembers it; spans and records with
``log.record.uid`` are recognised on their own as well. Success is answered after the fsync; when some records went to the dead letters
the answer is the specification's partial success, with their number. Metrics are not taken here: 501 says so.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from collector.errors import Malformed, Overloaded
from collector.event import Origin, format_time
from collector.receive import Arrival, Intake, otlp_json
from collector.receive.body import BodyLimits, media_type, read_body
from collector.receive.otlp_events import JSON, PROTOBUF, Refused, events_of_logs, events_of_traces
from collector.receive.problem import problem, retry_after
from collector.receive.room import Room

__all__ = ["OtlpReceiver"]

_PROTOBUF_TYPE = "application/x-protobuf"
_JSON_TYPE = "application/json"
_BREATH = 1_000
"""Records that are mapped in one go before other connections get their turn."""

# Codes of google.rpc.Status (google/rpc/code.proto)
_INVALID_ARGUMENT = 3
_UNIMPLEMENTED = 12
_UNAVAILABLE = 14


class OtlpReceiver:
    """The handlers of ``/v1/logs``, ``/v1/traces`` and ``/v1/metrics``, and their routes.

    Args:
        intake: takes the events.
        clock: Unix time in nanoseconds; stamps `observed` where the sender did not.
        limits: of one body.
        room: for the bodies of all requests together.
        refused: called with a reason for each refused request: ``media_type``, ``too_large``, ``bad_gzip``, ``bad_encoding``,
            ``bad_otlp``, ``too_deep``, ``metrics``, ``overloaded``, ``connection_lost``.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        clock: Callable[[], int],
        limits: BodyLimits | None = None,
        room: Room | None = None,
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._limits = limits or BodyLimits()
        self._room = room or Room(128 * 2**20)
        self._refused = refused

    @property
    def routes(self) -> list[Route]:
        """The routes to mount."""
        return [
            Route("/v1/logs", self.logs, methods=["POST"]),
            Route("/v1/traces", self.traces, methods=["POST"]),
            Route("/v1/metrics", self.metrics, methods=["POST"]),
        ]

    async def logs(self, request: Request) -> Response:
        """Take an ExportLogsServiceRequest."""
        return await self._post(request, "logs", _read_logs, "rejectedLogRecords")

    async def traces(self, request: Request) -> Response:
        """Take an ExportTraceServiceRequest."""
        return await self._post(request, "traces", _read_traces, "rejectedSpans")

    async def metrics(self, request: Request) -> Response:
        """Say that metrics are not taken: a status that no sender retries."""
        self._refused("metrics")
        text = "this collector takes logs and traces; send metrics to Prometheus"
        return _status(501, _UNIMPLEMENTED, text, media_type(request))

    async def _post(
        self,
        request: Request,
        signal: str,
        read: Callable[[bytes, str, str], Iterator[Arrival | Refused]],
        rejected_name: str,
    ) -> Response:
        kind = media_type(request)
        if kind not in {_PROTOBUF_TYPE, _JSON_TYPE}:
            self._refused("media_type")
            return problem(415, "Unsupported media type", f"send OTLP as {_PROTOBUF_TYPE} or {_JSON_TYPE}")
        try:
            with self._room.claim() as claim:
                body = await read_body(request, self._limits, claim)
                rejected, reason = await self._take(body, signal, kind, read)
        except ClientDisconnect:
            self._refused("connection_lost")
            return Response(status_code=400)  # nobody hears it
        except Overloaded as error:
            self._refused("overloaded")
            return _status(503, _UNAVAILABLE, str(error), kind, headers=retry_after(error))
        except Malformed as error:
            self._refused(error.label)
            status = {"too_large": 413, "bad_encoding": 415}.get(error.label, 400)
            return _status(status, _INVALID_ARGUMENT, str(error), kind)
        return _success(kind, rejected, reason, rejected_name)

    async def _take(
        self, body: bytes, signal: str, kind: str, read: Callable[[bytes, str, str], Iterator[Arrival | Refused]]
    ) -> tuple[int, str]:
        """Make a request's records durable; returns how many became dead letters, and why the first did.

        Raises:
            Malformed: the body is no OTLP; it is in the dead letters.
            Overloaded: nothing but dead letters was taken.
        """
        origin = Origin(receiver="otlp")
        arrivals: list[Arrival] = []
        refused: list[Refused] = []
        try:
            for record in read(body, kind, format_time(self._clock())):
                if isinstance(record, Arrival):
                    arrivals.append(record)
                    if not len(arrivals) % _BREATH:
                        await asyncio.sleep(0)
                else:
                    refused.append(record)
        except (Malformed, RecursionError) as error:
            named = error if isinstance(error, Malformed) else Malformed("nested too deeply", label="too_deep")
            await self._intake.reject(body, named, origin)
            raise named from error
        for one in refused:
            await self._intake.reject(one.raw, one.error, origin)
        rejected = len(refused)
        reason = str(refused[0].error) if refused else ""
        if arrivals:
            group_id = hashlib.sha256(b"otlp\0%b\0%b" % (signal.encode(), body)).digest()
            receipt = await self._intake.accept(arrivals, group_id=group_id)
            rejected += receipt.dead_lettered
            if receipt.dead_lettered and not reason:
                reason = "some records cannot be taken; the collector's dead letters say why"
        return rejected, reason


def _read_logs(body: bytes, kind: str, observed: str) -> Iterator[Arrival | Refused]:
    if kind == _JSON_TYPE:
        return events_of_logs(otlp_json.read_logs(body), JSON, observed=observed)
    return events_of_logs(_parsed(ExportLogsServiceRequest, body), PROTOBUF, observed=observed)


def _read_traces(body: bytes, kind: str, observed: str) -> Iterator[Arrival | Refused]:
    if kind == _JSON_TYPE:
        return events_of_traces(otlp_json.read_traces(body), JSON, observed=observed)
    return events_of_traces(_parsed(ExportTraceServiceRequest, body), PROTOBUF, observed=observed)


def _parsed(message: Any, body: bytes) -> Any:
    try:
        return message.FromString(body)
    except DecodeError as error:
        raise Malformed(f"not {message.DESCRIPTOR.name} in protobuf", label="bad_otlp") from error


def _success(kind: str, rejected: int, reason: str, rejected_name: str) -> Response:
    """Export…ServiceResponse: empty, or with partial_success = 1 {rejected = 1, error_message = 2} (trace_service.proto, logs_service.proto)."""
    if kind == _JSON_TYPE:
        partial = {"partialSuccess": {rejected_name: str(rejected), "errorMessage": reason}} if rejected else {}
        return Response(msgspec.json.encode(partial), media_type=_JSON_TYPE)
    if not rejected:
        return Response(b"", media_type=_PROTOBUF_TYPE)
    partial_success = b"\x08" + _varint(rejected) + _text_field(2, reason)
    return Response(b"\x0a" + _varint(len(partial_success)) + partial_success, media_type=_PROTOBUF_TYPE)


def _status(http_status: int, code: int, message: str, kind: str, *, headers: dict[str, str] | None = None) -> Response:
    """An error as google.rpc.Status {code = 1, message = 2} in the request's own encoding, as OTLP/HTTP demands."""
    if kind == _JSON_TYPE:
        body = msgspec.json.encode({"code": code, "message": message})
    else:
        kind, body = _PROTOBUF_TYPE, b"\x08" + _varint(code) + _text_field(2, message)
    return Response(body, http_status, headers, media_type=kind)


def _text_field(number: int, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Base-128 varint (protobuf encoding)."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
