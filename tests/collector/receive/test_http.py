"""The sidecar's HTTP server: health, metrics, errors, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from collector.receive.http import HttpServer, create_app


def test_health_metrics_and_errors() -> None:
    registry = CollectorRegistry()
    Counter("tally_seen", "Seen", registry=registry).inc(3)
    reasons: list[str] = []

    async def breaks(_: Request) -> Response:
        raise RuntimeError("with a secret in it")

    async def story() -> None:
        app = create_app([Route("/breaks", breaks)], registry=registry, not_ready=lambda: reasons)
        server = HttpServer(app, port=0)
        port = await server.start()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            reasons.append("the spool is full")
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.json()["reasons"]) == (503, ["the spool is full"])
            metrics = await client.get("/metrics")
            assert metrics.headers["content-type"].startswith("text/plain")
            assert "tally_seen_total 3.0" in metrics.text
            asked = await client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
            assert asked.headers["content-type"].startswith("application/openmetrics-text")
            assert asked.text.endswith("# EOF\n")
            broken = await client.get("/breaks")
            assert broken.status_code == 500
            assert broken.headers["content-type"] == "application/problem+json"
            assert "secret" not in broken.text
        await server.stop()
        with pytest.raises(OSError):  # noqa: PT011 - refused is what it is about
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(story())


def test_tls(certificate: tuple[Path, Path]) -> None:
    async def story() -> None:
        app = create_app([], registry=CollectorRegistry())
        server = HttpServer(app, port=0, tls_certificate=str(certificate[0]), tls_key=str(certificate[1]))
        port = await server.start()
        context = ssl.create_default_context(cafile=certificate[0])
        async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=context, trust_env=False) as client:
            assert (await client.get("/livez")).json() == {"status": "alive"}
        await server.stop()

    asyncio.run(story())


def test_stop_finishes_what_is_being_answered() -> None:
    async def story() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def slow(_: Request) -> Response:
            entered.set()
            await leave.wait()
            return Response("done")

        server = HttpServer(create_app([Route("/slow", slow)], registry=CollectorRegistry()), port=0)
        port = await server.start()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            asking = asyncio.create_task(client.get("/slow"))
            await entered.wait()
            stopping = asyncio.create_task(server.stop(10))
            leave.set()
            assert (await asking).text == "done"
            await stopping

    asyncio.run(story())


def test_a_port_that_is_taken_is_told() -> None:
    async def story() -> None:
        app = create_app([], registry=CollectorRegistry())
        first = HttpServer(app, port=0)
        port = await first.start()
        with pytest.raises(OSError, match="in use"):
            await HttpServer(app, port=port).start()
        await first.stop()

    asyncio.run(story())


def test_silent_connections_give_their_places_to_others() -> None:
    refused: list[str] = []

    async def story() -> None:
        server = HttpServer(
            create_app([], registry=CollectorRegistry()), port=0, max_concurrency=4, refused=refused.append
        )
        port = await server.start()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert (await client.get("/livez")).status_code == 200  # it keeps its connection, and has made a request
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
            assert (await client.get("/livez")).status_code == 200
            assert await silent[0][0].read() == b""  # the oldest went first
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as another:
                assert (await another.get("/livez")).status_code == 200
            for _, writer in silent:
                writer.close()
        await server.stop()

    asyncio.run(story())
    assert set(refused) == {"silent"}
    assert len(refused) >= 6


@pytest.mark.parametrize(
    ("before", "sent"),
    [(b"", b""), (b"", b"GET /livez HT"), (b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n", b"GET /livez HT")],
)
def test_a_head_that_does_not_come_in_time_ends_its_connection(before: bytes, sent: bytes) -> None:
    refused: list[str] = []

    async def story() -> None:
        app = create_app([], registry=CollectorRegistry())
        server = HttpServer(app, port=0, head_seconds=0.2, refused=refused.append)
        port = await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if before:
            writer.write(before)
            await reader.readuntil(b"}")
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await server.stop()

    asyncio.run(story())
    assert refused == ["slow_head"]


def test_a_body_and_a_kept_connection_may_take_their_time() -> None:
    refused: list[str] = []

    async def reads(request: Request) -> Response:
        return Response(await request.body())

    async def story() -> None:
        app = create_app([Route("/reads", reads, methods=["POST"])], registry=CollectorRegistry())
        server = HttpServer(app, port=0, head_seconds=0.1, refused=refused.append)
        port = await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"POST /reads HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na")
            await asyncio.sleep(0.3)  # longer than a head may take: that is what is tested
            writer.write(b"b")
            assert (await reader.readuntil(b"ab")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.3)
        writer.close()
        await server.stop()

    asyncio.run(story())
    assert refused == []


async def _echo(request: Request) -> Response:
    try:
        return Response(await request.body())
    except ClientDisconnect:
        return Response(status_code=400)  # nobody hears it


_ECHO = Route("/reads", _echo, methods=["POST"])
_BEGUN = b"POST /reads HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\na"


@pytest.mark.parametrize("before", [b"", b"POST /reads HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab"])
def test_a_body_of_which_nothing_more_comes_ends_its_connection(before: bytes) -> None:
    refused: list[str] = []

    async def story() -> None:
        app = create_app([_ECHO], registry=CollectorRegistry())
        server = HttpServer(app, port=0, stalled_seconds=0.3, refused=refused.append)
        port = await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if before:
            writer.write(before)
            assert (await reader.readuntil(b"ab")).startswith(b"HTTP/1.1 200")
        writer.write(_BEGUN)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await server.stop()

    asyncio.run(story())
    assert refused == ["stalled"]


def test_a_body_that_comes_slowly_is_read_to_its_end() -> None:
    refused: list[str] = []

    async def story() -> None:
        app = create_app([_ECHO], registry=CollectorRegistry())
        server = HttpServer(app, port=0, stalled_seconds=0.5, refused=refused.append)
        port = await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_BEGUN)
        for _ in range(11):
            await asyncio.sleep(0.1)  # more than half a second in all, which is what is tested
            writer.write(b"b" * 9)
        assert (await reader.readuntil(b"ab")).startswith(b"HTTP/1.1 200")
        writer.close()
        await server.stop()

    asyncio.run(story())
    assert refused == []


def test_a_body_that_the_server_does_not_read_is_not_stalled() -> None:
    refused: list[str] = []

    async def story() -> None:
        waited = asyncio.Event()

        async def later(request: Request) -> Response:
            await waited.wait()
            return Response(str(len(await request.body())))

        app = create_app([Route("/later", later, methods=["POST"])], registry=CollectorRegistry())
        server = HttpServer(app, port=0, stalled_seconds=0.2, refused=refused.append)
        port = await server.start()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            asking = asyncio.ensure_future(client.post("/later", content=b"x" * 20_000_000))
            await asyncio.sleep(0.8)  # longer than it may stall: that is what is tested
            waited.set()
            assert (await asking).text == "20000000"
        await server.stop()

    asyncio.run(story())
    assert refused == []


def test_whether_it_lives_is_answered_while_others_hold_all_places() -> None:
    async def story() -> None:
        server = HttpServer(create_app([_ECHO], registry=CollectorRegistry()), port=0, max_concurrency=4)
        port = await server.start()
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        for _, writer in held:
            writer.write(_BEGUN)
            await writer.drain()
        for path, status in (("/livez", 200), ("/readyz", 200), ("/metrics", 503)):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                assert (await client.get(path)).status_code == status
        for _, writer in held:
            writer.close()
        await server.stop()

    asyncio.run(story())
