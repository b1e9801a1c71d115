"""What the tests of the ways in share: an intake in memory, and the sidecar's HTTP server on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from collector.receive.http import HttpServer, create_app
from tests.support.memory_intake import MemoryIntake

Story = Callable[[httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def intake() -> MemoryIntake:
    return MemoryIntake()


@pytest.fixture
def serve() -> Callable[[Sequence[Route], Story], None]:
    """Runs a story: an HTTP client that talks over a real socket to a server with the given routes."""

    def run(routes: Sequence[Route], story: Story) -> None:
        async def told() -> None:
            server = HttpServer(create_app(routes, registry=CollectorRegistry()), port=0)
            port = await server.start()
            try:
                async with (
                    asyncio.timeout(30),
                    httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
                ):
                    await story(client)
            finally:
                await server.stop(1.0)

        asyncio.run(told())

    return run
