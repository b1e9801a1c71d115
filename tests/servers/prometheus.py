"""A real Prometheus (Debian's package, or any on PATH), that scrapes what a test names and takes what is sent to it; and promtool.

Debian's is 2.42, which knows remote-write 1.0 and no OTLP. ``TALLY_PROMETHEUS=3`` (`make test-prometheus3`) takes 3.16 instead, which is built from its Go
module once, in four minutes of a core, into a cache outside the tree: too long for CI. Its HTTP API: https://prometheus.io/docs/prometheus/latest/querying/api/.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.need import need

VERSION = "v0.316.0"
"""Of ``github.com/prometheus/prometheus``: 3.16.0. Go checks what it downloads against its public checksum database."""

THREE = os.environ.get("TALLY_PROMETHEUS") == "3"
"""Whether tests are to use 3.16."""

_READY = "Server is ready to receive web requests."
_START_SECONDS = 60.0
_PATIENCE_SECONDS = 30.0
_LISTENING = re.compile(r'msg="Listening on" (?:component=web )?address=(127\.0\.0\.1:[1-9][0-9]*)')


def need_prometheus() -> None:
    """Goes on where prometheus and promtool are installed."""
    for program in ("prometheus", "promtool"):
        need(shutil.which(program), f"{program} on PATH (Debian: apt-get install prometheus)")


def prometheus_binary() -> str:
    """The server: what is on PATH, or 3.16, built when it is not in the cache yet."""
    if not THREE:
        return "prometheus"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tallystick" / f"prometheus-{VERSION}"
    binary = cache / "prometheus"
    if not binary.is_file():
        need(shutil.which("go"), "Prometheus 3 is built from source: install Go")
        # remove_all_sd: without the discovery of services in clouds, which is most of it
        command = [
            "go",
            "install",
            "-tags",
            "remove_all_sd",
            f"github.com/prometheus/prometheus/cmd/prometheus@{VERSION}",
        ]
        subprocess.run(command, check=True, env=os.environ | {"GOBIN": str(cache)})
    return str(binary)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Prometheus:
    """A server of its own in a folder of its own; scrapes every second, keeps exemplars, takes remote-write, and OTLP where it knows it.

    Args:
        folder: for its configuration, data and log; one that is there already is gone on with.
        targets: job -> host:port of a ``/metrics``, or host:port/path.
        port: to listen on; 0 chooses one.
        web: further lines of its web configuration (TLS, users), https://prometheus.io/docs/prometheus/latest/configuration/https/.
        rules: a file of rules, evaluated every second where their groups say nothing else.
        alertmanager: host:port of who gets the alerts.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, str],
        *,
        port: int = 0,
        web: Mapping[str, Any] | None = None,
        rules: Path | None = None,
        alertmanager: str = "",
    ) -> None:
        need_prometheus()
        folder.mkdir(exist_ok=True)
        own = folder / "web.yml"
        own.write_text(json.dumps(web or {}))
        wanted: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [_job(job, target) for job, target in targets.items()],
        }
        if rules:
            wanted["rule_files"] = [str(rules.resolve())]
        if alertmanager:
            wanted["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        config = folder / "prometheus.yml"  # JSON is YAML
        config.write_text(json.dumps(wanted))
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    prometheus_binary(),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    f"--web.config.file={own}",
                    "--web.enable-remote-write-receiver",
                    *(["--web.enable-otlp-receiver"] if THREE else []),
                    "--enable-feature=exemplar-storage,native-histograms",
                    "--rules.alert.resend-delay=1s",
                ],
                stdout=log,
                stderr=log,
            )
        self.url = ""
        self._scheme = "https" if web and "tls_server_config" in web else "http"
        self._asking: dict[str, Any] = {}

    def identify(self, *, ca: Path, certificate: tuple[Path, Path], user: str, password: str) -> None:
        """Ask over TLS from now on, as this user and with this certificate and its key."""
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(*certificate)
        self._asking = {"verify": context, "auth": (user, password)}

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _START_SECONDS
        while not self.url:
            text = self._log.read_text()
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"prometheus did not start: {text[-2_000:]}")
            # it listens for a while before it is ready, and says 503
            if (found := _LISTENING.search(text)) is not None and _READY in text:
                self.url = f"{self._scheme}://{found[1]}"
            else:
                time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        finally:
            self._process.kill()
            self._process.wait()

    def ask(self, path: str, **parameters: str) -> Any:
        """The ``data`` of an answer of the HTTP API."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10, **self._asking)
        told = answer.json()
        assert told["status"] == "success", told
        return told["data"]

    def query(self, promql: str) -> dict[tuple[str, ...], float]:
        """An instant query's vector: the labels' values, in the order of their names, to the value."""
        result = self.ask("query", query=promql)["result"]
        return {
            tuple(value for _, value in sorted(one["metric"].items()) if value): float(one["value"][1])
            for one in result
        }

    def until(self, promql: str, expected: Mapping[tuple[str, ...], float]) -> None:
        """Wait until a query gives this; what is awaited is scraped every second."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (found := self.query(promql)) != expected:
            assert time.monotonic() < deadline, (promql, found)
            time.sleep(0.2)


def _job(name: str, target: str) -> dict[str, Any]:
    place, _, path = target.partition("/")
    job: dict[str, Any] = {"job_name": name, "static_configs": [{"targets": [place]}]}
    # what a service says of itself stands
    return {**job, "metrics_path": f"/{path}", "honor_labels": True} if path else job


def promtool_check(metrics: str) -> list[str]:
    """What ``promtool check metrics`` says against a ``/metrics`` in the text format; empty when all is well."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True, check=False, timeout=30
    )
    lines = (done.stdout + done.stderr).split("\n")
    return [line for line in lines if line] or ([f"exit {done.returncode}"] if done.returncode else [])
