"""A real Alertmanager (Debian's package, or any on PATH) on a free port; amtool; and a webhook that keeps what it is told.

The webhook's body: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.need import need

RECEIVERS = """
default_receiver = "tickets"
watchdog_receiver = "deadman"
routes = [ {{ severity = "page", receiver = "pager" }}, {{ severity = "ticket", receiver = "tickets" }} ]
[alerting.receivers.pager]
webhook_url = "{url}"
webhook_token_file = "token"
[alerting.receivers.tickets]
webhook_url = "{url}"
webhook_token_file = "token"
[alerting.receivers.deadman]
webhook_url = "{url}"
webhook_token_file = "token"
"""
"""The end of a ``[alerting]`` whose receivers are all one `webhook`, at `url`, with the token in the file ``token``."""

_START_SECONDS = 60.0


def need_alertmanager() -> str:
    """Goes on where alertmanager and amtool are installed; gives the server's program."""
    program = shutil.which("alertmanager") or shutil.which("prometheus-alertmanager") or ""
    need(
        program and shutil.which("amtool"),
        "alertmanager and amtool on PATH (Debian: apt-get install prometheus-alertmanager)",
    )
    return program


def amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What amtool says."""
    need_alertmanager()
    return subprocess.run(["amtool", *arguments], capture_output=True, text=True, check=False, timeout=30)


class Alertmanager:
    """A server of its own in a folder of its own, alone: no cluster. `port`: where it listens; 0: on one that is free."""

    def __init__(self, folder: Path, config: Path, *, port: int = 0) -> None:
        program = need_alertmanager()
        folder.mkdir()
        if not port:
            with socket.create_server(("127.0.0.1", 0)) as free:  # it says port 0 for a port that it chose
                port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={config}",
                    f"--storage.path={folder / 'data'}",
                    f"--web.listen-address={self.address}",
                    "--cluster.listen-address=",
                ],
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                if httpx.get(f"http://{self.address}/-/ready", timeout=2).status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"alertmanager did not start: {self._log.read_text()[-2_000:]}")
            time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it."""
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        finally:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it hears connections, and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def alerts(self) -> list[dict[str, Any]]:
        """What it has now (`/api/v2/alerts`)."""
        found: list[dict[str, Any]] = httpx.get(f"http://{self.address}/api/v2/alerts", timeout=10).json()
        return found


class Webhook:
    """What came to a webhook, in order: each alert of each message, with the message's number and receiver and the time of its arrival."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.heard: list[dict[str, Any]] = []
        self.refused = 0
        self.messages = 0

    def until(self, what: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> dict[str, Any]:
        """The first alert of which this is true, once it has come."""
        deadline = time.monotonic() + seconds
        while True:
            for one in list(self.heard):
                if what(one):
                    return one
            names = [(one["labels"].get("alertname"), one["status"]) for one in self.heard]
            assert time.monotonic() < deadline, (names, self.refused)
            time.sleep(0.05)


@contextmanager
def webhook(token: str) -> Iterator[Webhook]:
    """A webhook that takes only what bears the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            right = self.headers.get("authorization") == f"Bearer {token}"
            if right:
                there.messages += 1
                told = {"receiver": body["receiver"], "message": there.messages, "arrived": time.time()}
                there.heard += [{**alert, **told} for alert in body["alerts"]]
            else:
                there.refused += 1
            self.send_response(200 if right else 401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there = Webhook(f"http://127.0.0.1:{server.server_port}/alerts", token)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield there
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def shortened(rules: str, seconds: str = "1s") -> str:
    """Rules whose minutes of patience are a second, and whose groups are evaluated as often as the server says: for a test's time."""
    text = re.sub(r"^(\s+for: ).+$", rf"\g<1>{seconds}", rules, flags=re.MULTILINE)
    return re.sub(r"^\s+interval: .+\n", "", text, flags=re.MULTILINE)
