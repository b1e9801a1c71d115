"""The sidecar's one HTTP server: OTLP, JSON lines, metrics and health on one port, bound to this machine by default.

`create_app` is the application, `HttpServer` runs it inside the sidecar's event loop.
"""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from collector.receive.http_protocol import BoundedProtocol
from collector.receive.problem import json_response, problem

__all__ = ["HttpServer", "create_app"]


def create_app(
    routes: Sequence[BaseRoute],
    *,
    registry: CollectorRegistry,
    not_ready: Callable[[], Sequence[str]] = tuple,
    standing: Callable[[], Mapping[str, Any]] = dict,
) -> Starlette:
    """The application: the receivers' routes, and ``/metrics``, ``/livez``, ``/readyz``.

    Args:
        routes: of the receivers (`NdjsonReceiver.routes`, `OtlpReceiver.routes`).
        registry: whose metrics are shown.
        not_ready: why no events can be taken just now, in words; empty when they can.
        standing: what else ``/readyz`` says.
    """

    async def metrics(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(registry), headers={"content-type": content_type})

    async def livez(_: Request) -> Response:
        return json_response({"status": "alive"})

    async def readyz(_: Request) -> Response:
        reasons = list(not_ready())
        said = {"status": "not ready", "reasons": reasons} if reasons else {"status": "ready"}
        return json_response({**said, **standing()}, status=503 if reasons else 200)

    return Starlette(
        routes=[*routes, Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)],
        exception_handlers={HTTPException: _http_problem, Exception: _our_problem},
    )


async def _http_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, headers=dict(error.headers or {}))


async def _our_problem(_: Request, __: Exception) -> Response:
    return problem(500, "Internal error", "see the collector's log")


class _Embedded(uvicorn.Server):
    """uvicorn without its signal handlers: the sidecar owns the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves an application on a socket of its own.

    Args:
        app: what to serve.
        host: address to bind; this machine alone by default, since nobody is asked who they are.
        port: 0 lets the system choose.
        max_concurrency: connections and requests beyond it are answered 503, but for ``/livez`` and ``/readyz``; before that, silent connections give their places.
        refused: called with a reason for connections that are ended: ``slow_head``, ``stalled``, ``silent``.
        head_seconds: how long a request's head may take.
        stalled_seconds: a connection on which nothing comes for so long in the middle of a body is closed.
        tls_certificate, tls_key: PEM files; both or neither.
        tls_client_ca: PEM file with the authorities whose certificates clients must show; empty: none is demanded.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str = "127.0.0.1",
        port: int = 4318,
        max_concurrency: int = 512,
        refused: Callable[[str], None] = lambda _: None,
        head_seconds: float = 20.0,
        stalled_seconds: float = 60.0,
        tls_certificate: str = "",
        tls_key: str = "",
        tls_client_ca: str = "",
    ) -> None:
        self._address = (host, port)
        self._server = _Embedded(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                # uvicorn calls it as it calls its own class
                http=cast(
                    "Any",
                    functools.partial(
                        BoundedProtocol, refused=refused, head_seconds=head_seconds, stalled_seconds=stalled_seconds
                    ),
                ),
                ws="none",
                server_header=False,
                limit_concurrency=max_concurrency,
                timeout_keep_alive=75,
                ssl_certfile=tls_certificate or None,
                ssl_keyfile=tls_key or None,
                ssl_ca_certs=tls_client_ca or None,
                ssl_cert_reqs=ssl.CERT_REQUIRED if tls_client_ca else ssl.CERT_NONE,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; returns the port. Raises OSError when the address cannot be bound."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        listener = socket.create_server(self._address, family=family, backlog=1024)
        # accepted sockets inherit it; without it an answer in two parts waits for the reader's delayed ack
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = int(listener.getsockname()[1])
        self.start_on([listener])
        return port

    def start_on(self, listeners: Sequence[socket.socket]) -> None:
        """Serve on sockets that listen already, and are ours from now on: whoever connects now waits in the backlog."""
        self._serving = asyncio.create_task(self._server.serve(sockets=list(listeners)))

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Finish the requests that are being answered, for at most `grace_seconds`, then close."""
        if self._serving is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_seconds))
        self._server.should_exit = True
        await self._serving
        self._serving = None
