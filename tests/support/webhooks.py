"""Who is told over HTTP: a server that answers as it is told to, and keeps what it was sent."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["NO_HTTP", "Posted", "dribbler", "mumbler", "receiver"]

NO_HTTP = {
    "a TLS alert": b"\x15\x03\x03\x00\x02\x02\x46",
    "a header too long": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
}
"""Answers that are no HTTP, whoever asks."""


@dataclass(frozen=True, slots=True)
class Posted:
    """One request; names of headers in lower case, and of what was merely asked for an empty body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@contextmanager
def receiver(*statuses: int) -> Iterator[tuple[str, list[Posted]]]:
    """Answers with one status after the other, the last for ever, also as a proxy; gives its URL, and what it was sent so far."""
    got: list[Posted] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            got.append(Posted(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            status = statuses[min(len(got), len(statuses)) - 1]
            self.send_response(status)
            if status == 302:
                self.send_header("location", "http://127.0.0.1:9/")
            self.send_header("content-length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", got
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


@contextmanager
def mumbler(answer: bytes) -> Iterator[str]:
    """Answers every request with these bytes, and closes; gives its URL."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            self.request.sendall(answer)

    running = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


@contextmanager
def dribbler(*, seconds: float, bytes_: int, body: bool = False) -> Iterator[str]:
    """Answers 200 with a header, or a body, of so many bytes, one each time that `seconds` are over; gives its URL."""
    over = threading.Event()

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            try:
                self.request.sendall(b"HTTP/1.1 200 OK\r\n" + b"content-length: %d\r\n\r\n" % bytes_ * body)
                for _ in range(bytes_):
                    self.request.sendall(b"x")
                    if over.wait(seconds):
                        return
                self.request.sendall(b"" if body else b": y\r\ncontent-length: 0\r\n\r\n")
            except OSError:  # whoever asked has gone
                pass

    running = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        over.set()
        running.shutdown()
        running.server_close()
        thread.join()
