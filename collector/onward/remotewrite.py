"""Prometheus' remote-write: version 2.0 where the server takes it, else 1.0.

https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/ and https://prometheus.io/docs/specs/prw/remote_write_spec/. A server that knows 2.0 says in
headers how much of a request it has written. One that answers success without them has read the request as one of 1.0, in which it is empty; one that answers
415 does not know it; and one that answers 400 without them may not have been able to read it: these get 1.0, from then on if they take it.

A Prometheus 2 without ``--enable-feature=native-histograms`` refuses a whole request for one of them, with a status that asks for it again: from then on it gets
classic ones.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cramjam
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.onward.endpoint import Answer, Endpoint, Later, Refused
from collector.onward.outbox import Part
from collector.onward.prompb import request_v1, request_v2
from collector.onward.promseries import NativeHistogram, PromPoint, translate

__all__ = ["RemoteWrite"]

_log = logging.getLogger(__name__)

_SERIES_A_REQUEST = 2_000
_MOST_KNOWN = 2**17  # more than `max_series` may be
_NO_NATIVE = "native histograms are disabled"
_WRITTEN = "x-prometheus-remote-write-{}-written"
_HEADERS = {
    1: {"Content-Type": "application/x-protobuf", "X-Prometheus-Remote-Write-Version": "0.1.0"},
    2: {
        "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        "X-Prometheus-Remote-Write-Version": "2.0.0",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series(Part):
    """A part of a request of OTLP: whole points, translated."""

    translated: tuple[PromPoint, ...]


class RemoteWrite:
    """Sends by remote-write. For one thread.

    Args:
        endpoint: where to.
        newest: the newest version that is tried, 1 or 2.
        native: exponential histograms go as native ones.
    """

    def __init__(self, endpoint: Endpoint, *, newest: int, native: bool) -> None:
        self._endpoint = endpoint
        self._version = newest
        self._native = native
        self._known: dict[int, int] = {}  # hash of labels -> ms of the newest, in the order of when it came

    @property
    def version(self) -> int:
        """That is spoken: 2 until the server has shown that it only knows 1."""
        return self._version

    def parts(self, request: bytes) -> Iterator[Part]:
        """A serialised ExportMetricsServiceRequest as requests of so many series; a point's stay together."""
        held: list[PromPoint] = []
        count = points = unsayable = overtaken = 0
        for point in translate(ExportMetricsServiceRequest.FromString(request), native=self._native):
            if not point.series:
                unsayable += point.points
                continue
            if not self._is_newer(point):
                overtaken += point.points
                continue
            if held and count + len(point.series) > _SERIES_A_REQUEST:
                yield _Series(points=points, unsayable=unsayable, overtaken=overtaken, translated=tuple(held))
                held.clear()
                count = points = unsayable = overtaken = 0
            held.append(point)
            count += len(point.series)
            points += point.points
        yield _Series(points=points, unsayable=unsayable, overtaken=overtaken, empty=not held, translated=tuple(held))

    def _is_newer(self, point: PromPoint) -> bool:
        """Whether a point is newer than the one before of its labels: 1.0 refuses a whole request for one sample that is out of order, or stands twice.

        Series that differ in OpenTelemetry may be one in Prometheus, where names have fewer characters and of a resource only its identity stands. The time
        of a ``target_info`` is that of its request's newest point, and what two readers send of one resource may overtake each other.
        """
        series = point.series[0]  # one for all of them
        labels = hash(series.labels)
        newest = self._known.pop(labels, -1)
        self._known[labels] = max(newest, series.ms)
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return series.ms > newest

    def close(self) -> None:
        """Close the connection."""
        self._endpoint.close()

    def send(self, part: Part) -> int:
        """Send a part; returns how many of its data points were taken. Raises `Later` and `Refused`."""
        assert isinstance(part, _Series)
        try:
            return self._negotiated(part if self._native else _without_native(part))
        except (Later, Refused) as error:
            if not self._native or _NO_NATIVE not in str(error):
                raise
        self._native = False
        _log.warning("the metrics server takes no native histograms: exponential ones go as classic ones from now on")
        return self._negotiated(_without_native(part))

    def _negotiated(self, part: _Series) -> int:
        if part.empty:
            return 0
        if self._version == 2:
            answer = self._post(part, 2)
            if _says_written(answer) or (answer.status not in {400, 415} and not 200 <= answer.status <= 299):
                return _taken(part, answer)
            if answer.status != 400:
                self._version = 1  # that it does not know 2.0 is shown
        taken = _taken(part, self._post(part, 1))
        self._version = 1
        return taken

    def _post(self, part: _Series, version: int) -> Answer:
        body = request_v2(part.translated) if version == 2 else request_v1(part.translated)
        headers: Mapping[str, str] = {**_HEADERS[version], "Content-Encoding": "snappy"}
        return self._endpoint.post(bytes(cramjam.snappy.compress_raw(body)), headers)


def _without_native(part: _Series) -> _Series:
    """What was translated before that was known: without these, which are counted as not written."""
    kept = tuple(
        point for point in part.translated if not any(isinstance(one.value, NativeHistogram) for one in point.series)
    )
    return _Series(points=sum(point.points for point in kept), empty=not kept, translated=kept)


def _taken(part: _Series, answer: Answer) -> int:
    """How many points were taken. A point is taken when all of its series are: those that are missing are taken to be of different points."""
    taken = 0
    if _says_written(answer):
        series = [one for point in part.translated for one in point.series]
        native = sum(isinstance(one.value, NativeHistogram) for one in series)
        missing = sum(
            max(sent - _number(answer.headers.get(_WRITTEN.format(what), "")), 0)
            for what, sent in (("samples", len(series) - native), ("histograms", native))
        )
        taken = max(part.points - missing, 0)
    elif 200 <= answer.status <= 299:
        taken = part.points  # 1.0 says no more
    if 200 <= answer.status <= 299:
        return taken
    # 5xx and 429 are to be tried again, everything else is not (both specifications, "Retries & Backoff")
    if answer.status == 429 or 500 <= answer.status <= 599:
        raise Later(answer.words, after_seconds=answer.after_seconds)
    raise Refused(answer.words, taken=taken)


def _says_written(answer: Answer) -> bool:
    return any(_WRITTEN.format(what) in answer.headers for what in ("samples", "histograms", "exemplars"))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0
