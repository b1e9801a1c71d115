"""Serves the application under its address, over TLS where the settings say so."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from audit_api.identity.certificates import CertificateProtocol
from audit_api.settings import ApiSettings

__all__ = ["serve"]


class _Embedded(uvicorn.Server):
    """uvicorn without its signal handlers: whoever calls `serve` owns the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: FastAPI,
    settings: ApiSettings,
    *,
    stopped: asyncio.Event,
    ready: Callable[[str], None] = lambda _: None,
    protocol: Callable[..., CertificateProtocol] = CertificateProtocol,
) -> None:
    """Serve until `stopped` is set, then finish the answers under way.

    Args:
        app: made by `create_app`.
        settings: where to listen.
        stopped: set it to stop.
        ready: called once when it listens, with the URL.
        protocol: makes what speaks HTTP on a connection; uvicorn calls it as it calls its own.

    Raises:
        OSError: the address cannot be bound, or a PEM file is missing or none; nobody is told that it is ready then.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    # accepted sockets inherit it; without it an answer in two parts waits for the reader's delayed ack
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            http=cast("Any", protocol),
            ws="none",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=512,
            h11_max_incomplete_event_size=32_768,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=settings.shutdown_seconds,
            ssl_certfile=settings.tls_certificate or None,
            ssl_keyfile=settings.tls_key or None,
            ssl_ca_certs=settings.tls_client_ca or None,
            ssl_cert_reqs=ssl.CERT_OPTIONAL if settings.tls_client_ca else ssl.CERT_NONE,
        )
        config.load()  # reads the PEM files: whoever is told that it is ready is not to find that it was not
        server = _Embedded(config)
        host = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
        scheme = "https" if settings.tls_certificate else "http"
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        ready(f"{scheme}://{host}:{listener.getsockname()[1]}")
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        app.state.live.stopping.set()  # who reads along would keep it from stopping
        server.should_exit = True
        await serving
    finally:
        listener.close()
