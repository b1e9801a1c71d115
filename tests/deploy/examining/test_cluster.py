"""Who answers where OpenSearch should be: nobody, somebody else, or one that does not know us; servers on this machine."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from collector.store.settings import StoreSettings
from deploy.examining import Chart
from deploy.examining.cluster import reach
from tests.support.charts import only, outcomes, troubles

NOW = dt.datetime.now(dt.UTC)


@contextmanager
def answering(status: int, body: str, kind: str = "application/json") -> Iterator[str]:
    """A server that gives everybody this answer; gives its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Nothing to log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def main(uuid: str = "a", **version: str) -> str:
    given: Mapping[str, str] = {"number": "3.4.0", "distribution": "opensearch"} | version
    return json.dumps({"name": "n", "cluster_name": "c", "cluster_uuid": uuid, "version": given})


def reached(*urls: str, user: str = "", password_file: Path | None = None) -> tuple[bool, Chart, list[str]]:
    chart, denied = Chart("OpenSearch"), list[str]()
    settings = StoreSettings(
        urls=list(urls), timeout_seconds=2, user=user, password_file=str(password_file) if password_file else ""
    )
    return reach(chart, settings, "store", now=NOW, login=None, denied=denied), chart, denied


def test_nobody_answers() -> None:
    inside, chart, _ = reached("http://127.0.0.1:1")
    assert not inside
    assert only(chart).outcome == "failed"


def test_one_node_of_two_lets_us_in() -> None:
    with answering(200, main()) as url:
        inside, chart, denied = reached("http://127.0.0.1:1", url)
        assert (inside, denied) == (True, [])
        assert outcomes(chart) == {"http://127.0.0.1:1": "failed", url: "ok", "version": "ok"}


def test_two_clusters_are_not_one() -> None:
    with answering(200, main("a")) as one, answering(200, main("b")) as two:
        assert only(reached(one, two)[1]).name == "cluster"
        assert troubles(reached(one, one.replace("127.0.0.1", "localhost"))[1]) == []


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, "<html>hello</html>", "text/html"),
        (200, "hello", "application/json"),
        (404, "{}", "application/json"),
        (503, "{}", "application/json"),
    ],
)
def test_somebody_else_answers(status: int, body: str, kind: str) -> None:
    with answering(status, body, kind) as url:
        inside, chart, _ = reached(url)
        assert not inside
        assert only(chart).outcome == "failed"


def test_another_product_is_told() -> None:
    with answering(200, main(number="8.17.0", distribution="")) as url:
        assert only(reached(url)[1]).name == "version"


def test_it_does_not_know_us(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cr3t\n")
    error = json.dumps({"error": {"type": "security_exception", "reason": "Unauthorized"}, "status": 401})
    with answering(401, error) as url:
        inside, chart, _ = reached(url, user="ann", password_file=tmp_path / "password")
        assert not inside
        assert "ann" in only(chart).found
        assert str(tmp_path / "password") in only(chart).mend[0]
        assert "s3cr3t" not in str(chart.checks)
        assert "user" in only(reached(url)[1]).mend[0]


def test_it_knows_us_and_does_not_say_what_it_is() -> None:
    with answering(
        403,
        json.dumps({"error": {"type": "security_exception", "reason": "no permissions for [cluster:monitor/main]"}}),
    ) as url:
        inside, chart, denied = reached(url)
        assert inside
        assert troubles(chart) == []
        assert denied == ["OpenSearch version (cluster:monitor/main)"]
