"""What the five services share: a small HTTP server, and a client call. JSON in, JSON out, 127.0.0.1 only."""

from __future__ import annotations

import json
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Refused", "call", "serve"]

Handler = Callable[[dict[str, Any], Mapping[str, str]], dict[str, Any]]
"""Takes a request's JSON object and its headers (names in lower case), gives the answer's JSON object; may raise `Refused`."""

MAX_BODY_BYTES = 65_536


class Refused(Exception):
    """The other side said no: its HTTP status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


def call(url: str, body: dict[str, Any], headers: Mapping[str, str], *, timeout_seconds: float = 5.0) -> dict[str, Any]:
    """POST `body` and give the answer; raises `Refused`, and TimeoutError when there is none in time."""
    request = urllib.request.Request(  # noqa: S310  (always http: the runner gives the address)
        url, json.dumps(body).encode(), {"content-type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:  # noqa: S310
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(error.code, str(json.load(error).get("error", ""))) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError(f"no answer from {url} within {timeout_seconds:g} s") from None
        raise Refused(503, str(error.reason)) from None


def serve(routes: Mapping[str, Handler], *, close: Callable[[], None]) -> None:
    """Answer POSTs until SIGTERM or Ctrl-C, then call `close`. The first line on stdout is the port."""
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)  # before any thread starts, so that they inherit it

    class Requests(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length", 0))
            handler = routes.get(self.path)
            if handler is None or size > MAX_BODY_BYTES:
                self._answer(
                    404 if handler is None else 413, {"error": "no such thing" if handler is None else "too long"}
                )
                self.close_connection = True  # the body was not read
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                self._answer(200, handler(json.loads(self.rfile.read(size)), headers))
            except Refused as error:
                self._answer(error.status, {"error": error.reason})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except BrokenPipeError:
                pass  # the caller did not wait for us

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server's name)
            """Say nothing: what is to be known goes to the sidecar."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    signal.sigwait(stopping)
    server.shutdown()
    close()
    sys.exit(0)
