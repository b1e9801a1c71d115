"""Data points of OTLP metrics go on to a metrics server, such as Prometheus: over OTLP/HTTP, while their sender waits.

Nothing is queued here. What the metrics server answers is what the sender hears, so a server that is down or busy is the sender's "later", and
the exporter's own queue is the only one. Repeated requests are the metrics server's to recognise (Prometheus takes the same sample of the
same instant once).
"""

import asyncio
import contextlib
import http.client
import logging
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from collector.errors import Overloaded
from collector.receive.otlp_export import Taken

__all__ = ["MetricsServer"]

_log = logging.getLogger(__name__)

_LATER = frozenset({429, 502, 503, 504})
"""Statuses after which a client is to come again (https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes)."""

_MAX_ANSWER_BYTES = 65_536
_MAX_REASON = 300
_LONGEST_WAIT_SECONDS = 60.0


class _Answer(NamedTuple):
    status: int
    content_type: str
    retry_after: str
    body: bytes

    @property
    def words(self) -> str:
        """What a server says in plain text, as Prometheus does; empty when it is anything else."""
        if not self.content_type.startswith("text/plain"):
            return ""
        text = self.body.decode("utf-8", "replace")[:_MAX_REASON]
        return "".join(sign if sign.isprintable() else " " for sign in text).strip()


class _Partial(msgspec.Struct, rename="camel"):
    rejected_data_points: int = 0
    error_message: str = ""


class _Success(msgspec.Struct, rename="camel"):
    partial_success: _Partial | None = None


_success = msgspec.json.Decoder(_Success, strict=False)  # 64-bit integers come as text


class MetricsServer:
    """Where data points go on to.

    Args:
        url: of its OTLP endpoint, http or https, without ``/v1/metrics``.
        counted: called for each request with what became of it: ``taken``, ``refused``, ``later``.
        timeout_seconds: for connecting, and again for the answer; senders hear "later" after it. Less than the 10 s after which exporters give up.
        at_a_time: requests on their way.
        waiting: requests that are on their way or wait for it; a further one hears "later" at once.
    """

    def __init__(
        self,
        url: str,
        *,
        counted: Callable[[str], object] = lambda _result: None,
        timeout_seconds: float = 5.0,
        at_a_time: int = 4,
        waiting: int = 32,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/") + "/v1/metrics"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._counted = counted
        self._timeout_seconds = timeout_seconds
        self._waiting = waiting
        self._pending = 0
        self._trouble = ""
        self._threads = ThreadPoolExecutor(at_a_time, thread_name_prefix="metrics-onward")

    async def pass_on(self, body: bytes, *, json: bool, points: int) -> Taken:
        """Send an ExportMetricsServiceRequest with so many points on; returns what the server took.

        Raises:
            Overloaded: it is down, busy or slow: the same request is to come again.
        """
        if self._pending >= self._waiting:
            self._counted("later")
            raise Overloaded("too many metrics wait for their server", retry_after_seconds=5.0)
        self._pending += 1
        try:
            answer = await self._answer(body, "application/json" if json else "application/x-protobuf")
        finally:
            self._pending -= 1
        if answer.status in _LATER:
            raise self._later(f"HTTP {answer.status}", answer.retry_after)
        self._say("")
        if 200 <= answer.status < 300:
            self._counted("taken")
            return _partial(answer.body, json=json)
        self._counted("refused")
        return Taken(
            rejected=points, reason=f"the metrics server refuses them: HTTP {answer.status} {answer.words}".strip()
        )

    def close(self) -> None:
        """Begin nothing more; what is on its way ends by itself, within its time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, body: bytes, content_type: str) -> _Answer:
        try:
            async with asyncio.timeout(2 * self._timeout_seconds):
                return await asyncio.wrap_future(self._threads.submit(self._post, body, content_type))
        except (OSError, http.client.HTTPException) as error:  # TimeoutError is an OSError
            raise self._later(str(error) or type(error).__name__, "") from error

    def _post(self, body: bytes, content_type: str) -> _Answer:
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_seconds)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_seconds, context=self._tls
            )
        with contextlib.closing(connection):
            connection.request("POST", self._path, body, {"Content-Type": content_type, "User-Agent": "tallystick"})
            response = connection.getresponse()
            return _Answer(
                response.status,
                response.headers.get("Content-Type", ""),
                response.headers.get("Retry-After", ""),
                response.read(_MAX_ANSWER_BYTES),
            )

    def _later(self, why: str, retry_after: str) -> Overloaded:
        self._counted("later")
        self._say(why)
        seconds = float(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else 5.0
        return Overloaded(
            f"the metrics server does not take them now: {why}",
            retry_after_seconds=min(max(seconds, 1.0), _LONGEST_WAIT_SECONDS),
        )

    def _say(self, trouble: str) -> None:
        """Into the log, once for each change between trouble and none."""
        if trouble and not self._trouble:
            _log.warning("metrics do not go on to %s: %s", self._host, trouble)
        elif self._trouble and not trouble:
            _log.info("metrics go on to %s again", self._host)
        self._trouble = trouble


def _partial(body: bytes, *, json: bool) -> Taken:
    """What an answer of success says was not taken; nothing when it is not understood, since its status says success."""
    try:
        if json:
            read = _success.decode(body).partial_success or _Partial()
            return Taken(rejected=max(read.rejected_data_points, 0), reason=read.error_message)
        partial = ExportMetricsServiceResponse.FromString(body).partial_success
        return Taken(rejected=max(partial.rejected_data_points, 0), reason=partial.error_message)
    except (msgspec.DecodeError, UnicodeDecodeError, DecodeError, RecursionError):
        return Taken()
