"""Data points that go on to a metrics server: what it answers is what their sender hears, and the evidence is kept whatever it answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collector.errors import Overloaded
from collector.receive.http import HttpServer, create_app
from collector.receive.otlp import OtlpReceiver
from collector.receive.otlp_export import METRICS, OtlpExports, Taken
from collector.receive.otlp_onward import MetricsServer, _partial
from tests.support.memory_intake import MemoryIntake

NOW_NS = 1_700_000_000_000_000_000


def measurements(value: int = 1) -> bytes:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.sum.data_points.add(as_int=value).exemplars.add(as_int=value, trace_id=b"\1" * 16, span_id=b"\2" * 8)
    metric.sum.data_points.add(as_int=2)
    return request.SerializeToString()


class Upstream:
    """A metrics server that answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.answer = Response(b"", media_type="application/x-protobuf")
        self.go: asyncio.Event | None = None

    async def metrics(self, request: Request) -> Response:
        self.asked.append((request.headers["content-type"], await request.body()))
        if self.go is not None:
            await self.go.wait()
        return self.answer


def told(story: Callable[[Upstream, str], Awaitable[None]], *, tls: tuple[Path, Path] | None = None) -> None:
    async def tell() -> None:
        upstream = Upstream()
        app = create_app(
            [Route("/api/v1/otlp/v1/metrics", upstream.metrics, methods=["POST"])], registry=CollectorRegistry()
        )
        certificate, key = tls or ("", "")
        server = HttpServer(app, port=0, tls_certificate=str(certificate), tls_key=str(key))
        port = await server.start()
        url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
        try:
            async with asyncio.timeout(20):
                await story(upstream, f"{url}/api/v1/otlp")
        finally:
            await server.stop(1.0)

    asyncio.run(tell())


def test_what_the_metrics_server_takes_is_success_with_its_own_partial_success(intake: MemoryIntake) -> None:
    async def story(upstream: Upstream, url: str) -> None:
        results: list[str] = []
        onward = MetricsServer(url, counted=results.append)
        exports = OtlpExports(intake, clock=lambda: NOW_NS, onward=onward)
        assert await exports.take(measurements(), METRICS, json=False) == Taken()
        assert upstream.asked == [("application/x-protobuf", measurements())]
        partial = ExportMetricsServiceResponse()
        partial.partial_success.rejected_data_points = 1
        partial.partial_success.error_message = "one is too old"
        upstream.answer = Response(partial.SerializeToString(), media_type="application/x-protobuf")
        assert await exports.take(measurements(2), METRICS, json=False) == Taken(rejected=1, reason="one is too old")
        body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": [{}]}}]}]}]})
        upstream.answer = Response(
            b'{"partialSuccess":{"rejectedDataPoints":"1","errorMessage":"no"}}', media_type="application/json"
        )
        assert await exports.take(body.encode(), METRICS, json=True) == Taken(rejected=1, reason="no")
        assert upstream.asked[2] == ("application/json", body.encode())
        assert await exports.take(b"", METRICS, json=False) == Taken()  # without points there is nothing to send on
        assert results == ["taken"] * 3
        assert [event.body["value"] for event in intake.events] == [1, 2]
        onward.close()

    told(story)


def test_one_collector_is_the_metrics_server_of_another(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        first = MemoryIntake()
        onward = MetricsServer(str(client.base_url))
        taken = await OtlpExports(first, clock=lambda: NOW_NS, onward=onward).take(measurements(), METRICS, json=False)
        assert taken.rejected == 2
        assert "2 data points are not kept" in taken.reason  # nothing is silent, however long the way
        assert first.events == intake.events
        onward.close()

    serve(OtlpReceiver(OtlpExports(intake, clock=lambda: NOW_NS)).routes, story)


@pytest.mark.parametrize("status", [400, 401, 404, 500, 301])
def test_what_it_refuses_for_good_the_sender_hears_and_does_not_repeat(intake: MemoryIntake, status: int) -> None:
    async def story(upstream: Upstream, url: str) -> None:
        results: list[str] = []
        onward = MetricsServer(url, counted=results.append)
        upstream.answer = Response("out of\norder sample", status, media_type="text/plain")
        taken = await OtlpExports(intake, clock=lambda: NOW_NS, onward=onward).take(measurements(), METRICS, json=False)
        assert taken == Taken(rejected=2, reason=f"the metrics server refuses them: HTTP {status} out of order sample")
        assert results == ["refused"]
        assert len(intake.events) == 1
        onward.close()

    told(story)


@pytest.mark.parametrize(
    ("status", "header", "seconds"), [(429, "7", 7.0), (503, "", 5.0), (502, "soon", 5.0), (504, "99999", 60.0)]
)
def test_when_it_is_busy_the_sender_comes_again_and_the_evidence_is_there_once(
    intake: MemoryIntake, status: int, header: str, seconds: float
) -> None:
    passed: list[int] = []

    async def story(upstream: Upstream, url: str) -> None:
        onward = MetricsServer(url)
        exports = OtlpExports(
            intake, clock=lambda: NOW_NS, onward=onward, passed=lambda points, *_: passed.append(points["sum"])
        )
        usual, upstream.answer = upstream.answer, Response(b"", status, {"Retry-After": header} if header else None)
        with pytest.raises(Overloaded, match=f"HTTP {status}") as caught:
            await exports.take(measurements(), METRICS, json=False)
        assert caught.value.retry_after_seconds == seconds
        assert passed == []
        upstream.answer = usual
        assert await exports.take(measurements(), METRICS, json=False) == Taken()
        assert passed == [2]
        assert len(upstream.asked) == 2
        assert len(intake.events) == 1
        onward.close()

    told(story)


def test_when_it_is_down_slow_or_no_http_server_the_sender_hears_later(
    intake: MemoryIntake, caplog: pytest.LogCaptureFixture
) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async def story(upstream: Upstream, url: str) -> None:
        async def refused(where: str) -> str:
            onward = MetricsServer(where, timeout_seconds=0.2)
            exports = OtlpExports(intake, clock=lambda: NOW_NS, onward=onward)
            with pytest.raises(Overloaded) as caught:
                await exports.take(measurements(), METRICS, json=False)
            onward.close()
            return str(caught.value)

        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        assert "refused" in await refused(f"http://127.0.0.1:{port}")
        upstream.go = asyncio.Event()
        assert "timed out" in await refused(url)
        upstream.go.set()
        mail = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        await refused(f"http://127.0.0.1:{mail.sockets[0].getsockname()[1]}")
        mail.close()
        await mail.wait_closed()
        # said once for each change, and by none of the many senders that come again
        caplog.clear()
        onward = MetricsServer(url)
        exports = OtlpExports(intake, clock=lambda: NOW_NS, onward=onward)
        caplog.set_level("INFO")
        usual = upstream.answer
        for answer in (Response(b"", 503), Response(b"", 503), usual, usual):
            upstream.answer = answer
            try:
                await exports.take(measurements(), METRICS, json=False)
            except Overloaded:
                assert answer is not usual
        ours = [record.getMessage() for record in caplog.records if record.name == "collector.receive.otlp_onward"]
        assert ours == ["metrics do not go on to 127.0.0.1: HTTP 503", "metrics go on to 127.0.0.1 again"]
        onward.close()

    told(story)
    assert len(intake.events) == 1


def test_no_more_wait_for_it_than_may(intake: MemoryIntake) -> None:
    async def story(upstream: Upstream, url: str) -> None:
        upstream.go = asyncio.Event()
        onward = MetricsServer(url, at_a_time=1, waiting=2)
        exports = OtlpExports(intake, clock=lambda: NOW_NS, onward=onward)
        waiting = [asyncio.create_task(exports.take(measurements(n), METRICS, json=False)) for n in range(2)]
        while not upstream.asked:  # noqa: ASYNC110 - it is asked by a thread
            await asyncio.sleep(0.005)
        with pytest.raises(Overloaded, match="too many"):
            await exports.take(measurements(3), METRICS, json=False)
        assert len(upstream.asked) == 1
        upstream.go.set()
        assert await asyncio.gather(*waiting) == [Taken(), Taken()]
        onward.close()

    told(story)


def test_over_tls_its_certificate_is_checked(
    intake: MemoryIntake, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(upstream: Upstream, url: str) -> None:
        for trusted in (False, True):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
            onward = MetricsServer(url)
            exports = OtlpExports(intake, clock=lambda: NOW_NS, onward=onward)
            if trusted:
                assert await exports.take(measurements(), METRICS, json=False) == Taken()
            else:
                with pytest.raises(Overloaded, match=r"(?i)certificate"):
                    await exports.take(measurements(), METRICS, json=False)
            assert len(upstream.asked) == trusted
            onward.close()

    told(story, tls=certificate)


said = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.none(), max_size=1)
partials = st.fixed_dictionaries({"partialSuccess": said | st.fixed_dictionaries({"rejectedDataPoints": said})})


@given(st.binary(max_size=60) | partials.map(json.dumps).map(str.encode))
def test_whatever_it_says_of_its_success_is_a_number_of_points(body: bytes) -> None:
    for as_json in (False, True):
        assert _partial(body, json=as_json).rejected >= 0
