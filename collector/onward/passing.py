"""The way that metrics take through a sidecar: from the OTLP receivers to a metrics server, and to whoever scrapes.

A sender is answered when its points are bounded and wait in memory: what becomes of them there is counted, and told to nobody. What is told is what does
not go on at all (`collector.onward.seriestable.REJECTED`), as OTLP's partial success.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from collector.errors import Malformed, Overloaded
from collector.onward.datapoint import points_of
from collector.onward.endpoint import Endpoint
from collector.onward.exposition import Exposition
from collector.onward.metricsrequest import read_request
from collector.onward.otlpwrite import OtlpWrite
from collector.onward.outbox import Counting, Outbox, Way
from collector.onward.ownmetrics import own_metrics
from collector.onward.promseries import translate
from collector.onward.seriestable import REJECTED, SeriesTable
from collector.onward.settings import MetricsToSettings
from collector.protect import Protector
from collector.receive.otlp_export import Taken

__all__ = ["PATH", "MetricsPassing"]

_log = logging.getLogger(__name__)

PATH = "/service-metrics"
"""Where the services' metrics are scraped."""

_LOOKS_IN_STALE_TIME = 4
_WAITING_REQUESTS = 64
_SHOWN_A_SERIES = 20  # a histogram with the SDKs' fifteen buckets is seventeen of them


class MetricsPassing:
    """Takes requests of metrics (it is a `collector.receive.otlp_export.Onward`), and sends or shows what goes on. For an event loop.

    Args:
        settings: where to, and the bounds.
        collector: the sidecar's name.
        registry: of its own metrics.
        counting: hears what becomes of data points.
        protector: returns the one in force, see `SeriesTable`.
        clock: Unix time in nanoseconds.

    Raises:
        Malformed: a library is not installed, or a file with a secret holds none.
        OSError: a file cannot be read.
    """

    def __init__(
        self,
        settings: MetricsToSettings,
        *,
        collector: str,
        registry: CollectorRegistry,
        counting: Counting,
        protector: Callable[[], Protector],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._collector = collector
        self._registry = registry
        self._counting = counting
        self._clock = clock
        self._table = SeriesTable(
            most=settings.max_series,
            most_of_service=settings.max_series_of_service,
            stale_ns=round(settings.stale_seconds * 1e9),
            protector=protector,
        )
        self._exposition = None
        if settings.expose:
            most = settings.max_series * _SHOWN_A_SERIES
            self._exposition = Exposition(most=most, stale_seconds=settings.stale_seconds)
        self._outbox: Outbox | None = None
        if settings.url:
            endpoint = Endpoint(settings)
            self._outbox = Outbox(
                _way(settings, endpoint),
                name=endpoint.name,
                counting=counting,
                limit_bytes=settings.queue_bytes,
                max_age_seconds=settings.max_age_seconds,
            )
        self._pending = 0
        # one thread, so that the table needs no lock and requests keep their order; the event loop goes on meanwhile
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics-series")
        self._ticking = asyncio.create_task(self._tick())

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """What is scraped, where that is asked for."""
        return [Route(PATH, self._scraped)] if self._exposition is not None else []

    @property
    def series(self) -> int:
        """How many there are."""
        return len(self._table)

    @property
    def waiting_bytes(self) -> int:
        """What waits for the server."""
        return self._outbox.waiting_bytes if self._outbox is not None else 0

    async def pass_on(self, body: bytes, *, json: bool, points: int) -> Taken:
        """Take a request with so many points; returns how many of them do not go on, and why.

        Raises:
            Overloaded: too many requests are being taken.
        """
        if self._pending >= _WAITING_REQUESTS:
            raise Overloaded("too many metrics at a time", retry_after_seconds=5.0)
        self._pending += 1
        try:
            dropped = await self._in_thread(self._take, body, json, points)
        finally:
            self._pending -= 1
        told = {reason: count for reason, count in dropped.items() if reason in REJECTED or reason == "unreadable"}
        words = [
            f"{count} data points: {REJECTED.get(reason, 'cannot be read')}" for reason, count in sorted(told.items())
        ]
        return Taken(rejected=sum(told.values()), reason="; ".join(words))

    async def close(self) -> None:
        """Send the sidecar's own metrics a last time, and what waits, for as long as the settings say; then take no more."""
        self._ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticking
        outbox = self._outbox
        if outbox is not None:
            if self._settings.own_seconds:
                await self._in_thread(self._put_own)
            await asyncio.to_thread(outbox.close, self._settings.flush_seconds)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _take(self, body: bytes, json: bool, points: int) -> Counter[str]:
        try:
            request = read_request(body, json=json)
        except Malformed:  # only of JSON whose other fields are none of metrics: the exemplars have been read
            dropped = Counter({"unreadable": points})
        else:
            dropped = self._table.take(request, now_ns=self._clock())
            self._go_on(request)
        for reason, count in dropped.items():
            self._counting.metric_points_dropped(reason, count)
        return dropped

    def _go_on(self, request: Any) -> None:
        if self._exposition is not None:
            hidden = sum(map(self._exposition.update, translate(request, native=False)))
            if hidden:
                self._counting.metric_points_dropped("not_shown", hidden)
        points = points_of(request)
        if self._outbox is not None and points:
            self._outbox.put(request.SerializeToString(), points)

    def _forget(self) -> None:
        request = self._table.forget(now_ns=self._clock())
        if request is not None:
            self._go_on(request)

    def _put_own(self) -> None:
        request = own_metrics(self._registry, collector=self._collector, now_ns=self._clock())
        if self._outbox is not None:
            self._outbox.put(request.SerializeToString(), points_of(request))

    async def _tick(self) -> None:
        """Forget stale series, and send the sidecar's own metrics, each at its times."""
        loop = asyncio.get_running_loop()
        forget_every = self._settings.stale_seconds / _LOOKS_IN_STALE_TIME
        own_every = self._settings.own_seconds
        next_forget = loop.time() + forget_every
        next_own = loop.time() if own_every else float("inf")
        while True:
            await asyncio.sleep(max(min(next_forget, next_own) - loop.time(), 0.0))
            now = loop.time()
            try:
                if now >= next_forget:
                    next_forget = now + forget_every
                    await self._in_thread(self._forget)
                if now >= next_own:
                    next_own = now + own_every
                    await self._in_thread(self._put_own)
            except Exception as error:  # noqa: BLE001 - a sidecar's own metrics end nothing else
                _log.error("metrics: %s: %s", type(error).__name__, error)

    async def _scraped(self, request: Request) -> Response:
        assert self._exposition is not None
        body, content_type = await asyncio.to_thread(self._exposition.render, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})


def _way(settings: MetricsToSettings, endpoint: Endpoint) -> Way:
    if settings.protocol == "otlp":
        return OtlpWrite(endpoint)
    try:
        from collector.onward.remotewrite import RemoteWrite  # noqa: PLC0415 - its compression comes with an extra
    except ModuleNotFoundError as error:
        raise Malformed(
            "remote-write needs more than is installed: pip install 'tallystick[remote-write]'", where="metrics_to"
        ) from error
    newest = 2 if settings.protocol == "remote-write" else 1
    return RemoteWrite(endpoint, newest=newest, native=settings.histograms == "native")
