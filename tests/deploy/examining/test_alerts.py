"""Whom the detector tells, examined: an Alertmanager that is ready, is not, or wants to know who we are; who freezes payments."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from alerting.detect.settings import AlertmanagerSettings, DetectorSettings, FreezeSettings
from deploy.examining.alerts import examine_alerts
from tests.servers.kafka import free_ports
from tests.support.charts import only, outcomes, troubles


@contextmanager
def alertmanager(status: int = 200, token: str = "") -> Iterator[tuple[str, list[str]]]:
    """Answers to ``/-/ready``; to who does not bring the token, 401. Gives its URL, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            known = not token or self.headers["Authorization"] == f"Bearer {token}"
            self.send_response((status if self.path == "/-/ready" else 404) if known else 401)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def telling(*urls: str, token_file: str = "", freeze: str = "") -> DetectorSettings:
    return DetectorSettings(
        alertmanager=AlertmanagerSettings(urls=urls, token_file=token_file),
        freeze=FreezeSettings(url=freeze, secret_file="secret" if freeze else ""),
    )


def test_each_alertmanager_is_asked_whether_it_is_ready() -> None:
    (port,) = free_ports(1)
    away = f"http://127.0.0.1:{port}"
    with alertmanager() as (ready, asked), alertmanager(503) as (starting, _):
        chart = examine_alerts(telling(ready, starting, away))
    assert outcomes(chart) == {ready: "ok", starting: "failed", away: "failed"}
    assert asked == ["GET /-/ready"]
    assert len(troubles(chart)) == 2


def test_it_is_told_who_we_are(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("letmein\n", encoding="utf-8")
    with alertmanager(token="letmein") as (url, _):
        assert troubles(examine_alerts(telling(url, token_file=str(file)))) == []
        check = only(examine_alerts(telling(url)))
        assert "(401)" in check.found
        missing = only(examine_alerts(telling(url, token_file=str(tmp_path / "none"))))
        assert missing.outcome == "failed"


def test_who_freezes_payments_is_not_asked_for_anything() -> None:
    with alertmanager() as (url, asked):
        chart = examine_alerts(telling(url, freeze=f"{url}/freeze"))
        assert troubles(chart) == []
    assert asked == ["GET /-/ready"]
    (port,) = free_ports(1)
    check = only(examine_alerts(telling(freeze=f"http://127.0.0.1:{port}/freeze")))
    assert check.name == f"http://127.0.0.1:{port}"


def test_findings_that_nobody_hears_of() -> None:
    assert only(examine_alerts(telling())).outcome == "warning"
