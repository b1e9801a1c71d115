"""OTLP/HTTP, protobuf and JSON: a way in of OpenTelemetry SDKs and collectors.

https://opentelemetry.io/docs/specs/otlp/#otlphttp. Success is answered after the fsync; when some records went to the dead letters the
answer is the specification's partial success, with their number, and so is the answer to metrics whose points are not kept. Errors are a
google.rpc.Status in the request's own encoding.
"""

from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from collector.errors import Malformed, Overloaded, TooLarge
from collector.receive import otlp_answer
from collector.receive.body import BodyLimits, media_type, read_body, sender_of
from collector.receive.otlp_export import LOGS, METRICS, TRACES, OtlpExports, Signal
from collector.receive.problem import problem, retry_after
from collector.receive.room import Room

__all__ = ["OtlpReceiver"]

_PROTOBUF_TYPE = "application/x-protobuf"
_JSON_TYPE = "application/json"
_HTTP_STATUS = {"too_large": 413, "bad_encoding": 415}
"""Of a `Malformed` by its label; the others are 400. A sender repeats none of them."""


class OtlpReceiver:
    """The handlers of ``/v1/logs``, ``/v1/traces`` and ``/v1/metrics``, and their routes.

    Args:
        exports: takes the requests.
        limits: of one body.
        room: for the bodies of all requests together.
        refused: called with a reason for each refused request that leaves no dead letter, which would be counted itself: ``media_type``,
            ``too_large``, ``bad_gzip``, ``bad_encoding``, ``overloaded``, ``connection_lost``.
    """

    def __init__(
        self,
        exports: OtlpExports,
        *,
        limits: BodyLimits | None = None,
        room: Room | None = None,
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self._exports = exports
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
        return await self._post(request, LOGS)

    async def traces(self, request: Request) -> Response:
        """Take an ExportTraceServiceRequest."""
        return await self._post(request, TRACES)

    async def metrics(self, request: Request) -> Response:
        """Take the exemplars of an ExportMetricsServiceRequest."""
        return await self._post(request, METRICS)

    async def _post(self, request: Request, signal: Signal) -> Response:
        kind = media_type(request)
        if kind not in {_PROTOBUF_TYPE, _JSON_TYPE}:
            self._refused("media_type")
            return problem(415, "Unsupported media type", f"send OTLP as {_PROTOBUF_TYPE} or {_JSON_TYPE}")
        json = kind == _JSON_TYPE
        try:
            with self._room.claim() as claim:
                try:
                    body = await read_body(request, self._limits, claim)
                except Malformed as error:
                    self._refused(error.label)
                    raise
                taken = await self._exports.take(body, signal, json=json, sender=sender_of(request))
        except ClientDisconnect:
            self._refused("connection_lost")
            return Response(status_code=400)  # nobody hears it
        except Overloaded as error:
            self._refused("overloaded")
            return _status(503, otlp_answer.UNAVAILABLE, str(error), kind, headers=retry_after(error))
        except Malformed as error:
            if isinstance(error, TooLarge):  # the others are counted, as dead letters or above
                self._refused(error.label)
            return _status(_HTTP_STATUS.get(error.label, 400), otlp_answer.INVALID_ARGUMENT, str(error), kind)
        answer = otlp_answer.success_json(taken, signal) if json else otlp_answer.success_protobuf(taken)
        return Response(answer, media_type=kind)


def _status(http_status: int, code: int, message: str, kind: str, *, headers: dict[str, str] | None = None) -> Response:
    """An error as google.rpc.Status in the request's own encoding, as OTLP/HTTP demands."""
    body = (otlp_answer.status_json if kind == _JSON_TYPE else otlp_answer.status_protobuf)(code, message)
    return Response(body, http_status, headers, media_type=kind)
