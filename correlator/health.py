"""What a correlator tells those who run it: ``/metrics``, ``/livez`` and ``/readyz`` over HTTP.

Prometheus text format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

__all__ = ["HealthServer"]


class HealthServer:
    """Serves in a thread of its own until `close`. Listens when made.

    Args:
        host: address to listen on; nothing served here needs a role, so keep it local or behind the cluster's network.
        port: 0 chooses a free one.
        registry: the metrics.
        alive: whether the process does its work; false means: restart it.
        ready: whether its last work succeeded.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry,
        alive: Callable[[], bool],
        ready: Callable[[], bool],
    ) -> None:
        class Handler(_Handler):
            pages: ClassVar = {
                "/metrics": lambda: (True, generate_latest(registry), CONTENT_TYPE_LATEST),
                "/livez": lambda: _word(alive()),
                "/readyz": lambda: _word(ready()),
            }

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _word(well: bool) -> tuple[bool, bytes, str]:
    return well, b"ok\n" if well else b"not ok\n", "text/plain; charset=utf-8"


class _Handler(BaseHTTPRequestHandler):
    pages: ClassVar[dict[str, Callable[[], tuple[bool, bytes, str]]]] = {}
    server_version = "tally"
    sys_version = ""
    timeout = 10  # a client that says nothing does not keep a thread

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        well, body, kind = page()
        self.send_response(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: scrapes are no news."""
