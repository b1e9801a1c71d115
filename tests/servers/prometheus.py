"""A real Prometheus (Debian's package, or any on PATH), scraping what a test names; and promtool.

Its HTTP API: https://prometheus.io/docs/prometheus/latest/querying/api/.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.need import need

_START_SECONDS = 60.0
_PATIENCE_SECONDS = 30.0
_LISTENING = re.compile(r'msg="Listening on" address=(127\.0\.0\.1:[1-9][0-9]*)')


def need_prometheus() -> None:
    """Goes on where prometheus and promtool are installed."""
    for program in ("prometheus", "promtool"):
        need(shutil.which(program), f"{program} on PATH (Debian: apt-get install prometheus)")


class Prometheus:
    """A server of its own in a folder of its own; scrapes every second, keeps exemplars.

    Args:
        folder: for its configuration, data and log.
        targets: job -> host:port of a ``/metrics``.
        rules: a file of rules, evaluated every second where their groups say nothing else.
        alertmanager: host:port of who gets the alerts.
    """

    def __init__(
        self, folder: Path, targets: Mapping[str, str], *, rules: Path | None = None, alertmanager: str = ""
    ) -> None:
        need_prometheus()
        folder.mkdir()
        jobs = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()]
        wanted: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": jobs,
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
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                    "--enable-feature=exemplar-storage",
                    "--rules.alert.resend-delay=1s",
                ],
                stdout=log,
                stderr=log,
            )
        self.url = ""

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _START_SECONDS
        while not self.url:
            text = self._log.read_text()
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"prometheus did not start: {text[-2_000:]}")
            if (found := _LISTENING.search(text)) is not None:
                self.url = f"http://{found[1]}"
            else:
                time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10)
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


def promtool_check(metrics: str) -> list[str]:
    """What ``promtool check metrics`` says against a ``/metrics`` in the text format; empty when all is well."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True, check=False, timeout=30
    )
    lines = (done.stdout + done.stderr).split("\n")
    return [line for line in lines if line] or ([f"exit {done.returncode}"] if done.returncode else [])
