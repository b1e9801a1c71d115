"""OTLP/HTTP to a metrics server, such as Prometheus' own receiver (https://opentelemetry.io/docs/specs/otlp/#otlphttp)."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from collector.onward.datapoint import points_of
from collector.onward.endpoint import Answer, Endpoint, Later, Refused
from collector.onward.outbox import Part

__all__ = ["OtlpWrite"]

_LATER = frozenset({429, 502, 503, 504})
"""Statuses after which a client is to come again (https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes)."""

_HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request(Part):
    """A whole request, serialised."""

    body: bytes


class OtlpWrite:
    """Sends by OTLP. For one thread.

    Args:
        endpoint: where to.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def parts(self, request: bytes) -> Iterator[Part]:
        """The request as it is."""
        points = points_of(ExportMetricsServiceRequest.FromString(request))
        if points:
            yield _Request(points=points, body=request)

    def close(self) -> None:
        """Close the connection."""
        self._endpoint.close()

    def send(self, part: Part) -> int:
        """Send it; returns how many of its data points were taken. Raises `Later` and `Refused`."""
        assert isinstance(part, _Request)
        answer = self._endpoint.post(gzip.compress(part.body, 1, mtime=0), _HEADERS)
        if answer.status in _LATER:
            raise Later(answer.words, after_seconds=answer.after_seconds)
        if not 200 <= answer.status <= 299:
            raise Refused(answer.words)
        return part.points - min(_rejected(answer), part.points)


def _rejected(answer: Answer) -> int:
    """What a partial success says was not taken; 0 when the answer is not understood, since its status says success."""
    try:
        return max(int(ExportMetricsServiceResponse.FromString(answer.body).partial_success.rejected_data_points), 0)
    except DecodeError:
        return 0
