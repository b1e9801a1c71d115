"""A small HTTP server for a process that has no other: /metrics, /livez and /readyz, on this machine alone; and what is posted to it."""

import hmac
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

__all__ = ["Posts", "health_server"]

_PROBLEM = "text/plain; charset=utf-8"
_MAX_BODY_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """What may be posted: to this path, with this bearer token, at most a mebibyte; `take` gives the status of the answer."""

    path: str
    token: str
    take: Callable[[bytes], int]


@contextmanager
def health_server(
    registry: CollectorRegistry,
    *,
    port: int,
    alive: Callable[[], bool],
    ready: Callable[[], bool],
    word: Callable[[], str] = lambda: "ok",
    posts: Posts | None = None,
) -> Iterator[str]:
    """Serve until the block ends; gives ``127.0.0.1:port`` (0 chose a free one). OSError when the port is taken.

    `word` is what ``/readyz`` says: what the process is at; ``not`` stands before it when it is not ready.
    """

    class Answer(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path == "/metrics":
                encoder, kind = choose_encoder(",".join(self.headers.get_all("accept", [])))
                self._send(200, encoder(registry), kind)
            elif self.path in ("/livez", "/readyz"):
                well = alive() if self.path == "/livez" else ready()
                told = "ok" if self.path == "/livez" else word()
                self._send(200 if well else 503, f"{'' if well else 'not '}{told}\n".encode(), _PROBLEM)
            else:
                self._send(404, b"there is /metrics, /livez and /readyz\n", _PROBLEM)

        def do_POST(self) -> None:
            if posts is None:
                self.send_error(501)  # as for every method that it does not know
                return
            if self.path != posts.path:
                self._send(404, b"nothing is taken here\n", _PROBLEM)
                return
            given = self.headers.get("authorization", "").encode("utf-8", "replace")
            length = self.headers.get("content-length", "")
            if not hmac.compare_digest(given, f"Bearer {posts.token}".encode()):
                self._refuse(401, b"this needs a token\n")
            elif not (length.isascii() and length.isdigit()) or int(length) > _MAX_BODY_BYTES:
                self._refuse(413, b"a body has a length of at most a mebibyte\n")
            else:
                status = posts.take(self.rfile.read(int(length)))
                self._send(status, b"taken\n" if status < 300 else b"not taken\n", _PROBLEM)

        def _refuse(self, status: int, text: bytes) -> None:
            self.close_connection = True  # what was sent will not be read
            self._send(status, text, _PROBLEM)

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server's name)
            """Probes come every few seconds: nothing to log."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
