"""From a fault to a person: a process that stops, a real Prometheus with our rules, a real Alertmanager with our routes, a webhook.

Minutes of patience are made seconds (`shortened`): how long an alert waits is promtool's to show (tests/alerting).
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.servers.alertmanager import RECEIVERS, Alertmanager, need_alertmanager, shortened, webhook
from tests.servers.prometheus import Prometheus, need_prometheus
from tests.support.observed import observed

pytestmark = pytest.mark.alertmanager

BOUND_SECONDS = 30.0
"""From fault to webhook, on a loaded machine; the test prints what it was."""

ALERTING = """
runbook_url = "https://wiki.example/tally/"
check_hours = 0
incident_hours = 0
"""
DASHBOARDS = """
[dashboards]
grafana_url = "https://grafana.example"
api_url = "https://audit.example"
"""


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(240)
def test_from_fault_to_webhook_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need_prometheus()
    need_alertmanager()
    with (
        webhook("s3cret") as heard,
        observed(tmp_path, ALERTING + RECEIVERS.format(url=heard.url) + DASHBOARDS) as here,
    ):
        done = here.tally("render", "-o", str(tmp_path / "out"), "--only", "alerts")
        assert done.returncode == 0, done.stderr
        rules = tmp_path / "out" / "prometheus" / "tallystick.rules.yml"
        rules.write_text(
            shortened(rules.read_text(), "10s")
        )  # on a busy machine a Prometheus may miss a process for some seconds
        config = tmp_path / "out" / "alertmanager" / "alertmanager.yml"
        config.write_text(re.sub(r"(group_wait|group_interval): .+", r"\1: 1s", config.read_text()))
        (config.parent / "token").write_text("s3cret\n")
        for second in range(3):
            here.second()
            time.sleep(0.2 * second)  # load for a time, so that there is something to miss
        with Alertmanager(tmp_path / "alertmanager", config) as alertmanager, Prometheus(
            tmp_path / "prometheus", here.targets, rules=rules, alertmanager=alertmanager.address
        ) as prometheus:  # fmt: skip
            watchdog = heard.until(lambda one: one["labels"]["alertname"] == "TallyWatchdog")
            assert watchdog["receiver"] == "deadman"
            prometheus.until("count(tally_collector_info)", {(): 1})
            prometheus.until('count(tally_correlator_role{tally_correlator_role="writer"} == 1)', {(): 1})
            prometheus.until("count(tally_detector_behind_leaves)", {(): 1})
            # what was not heard in the first seconds of a slow machine is over, too
            prometheus.until('count(ALERTS{alertname!="TallyWatchdog"}) or vector(0)', {(): 0})
            until(lambda: {one["labels"]["alertname"] for one in alertmanager.alerts()} == {"TallyWatchdog"})
            heard.heard.clear()

            # a sidecar that hangs: nothing says that it is down, it is only not heard
            pid = here.pids["collector-side"]
            stopped = time.time()
            os.kill(pid, signal.SIGSTOP)
            try:
                missing = heard.until(lambda one: one["labels"]["alertname"] == "TallyCollectorMissing")
            finally:
                os.kill(pid, signal.SIGCONT)
            to_page = missing["arrived"] - stopped
            assert to_page > 10, "no earlier than the rule's patience"
            assert missing["receiver"] == "pager"
            assert missing["status"] == "firing"
            assert missing["labels"]["collector"] == "side"
            assert missing["labels"]["ledger"] == "boards.example/audit"
            assert missing["annotations"]["summary"] == "Collector side is not heard"
            assert missing["annotations"]["dashboard"] == "https://grafana.example/d/tally-pipeline"
            assert missing["annotations"]["runbook_url"] == "https://wiki.example/tally/TallyCollectorMissing.md"
            assert missing["annotations"]["trail"] == "https://audit.example/v1/streams"
            heard.until(
                lambda one: one["labels"]["alertname"] == "TallyCollectorMissing" and one["status"] == "resolved"
            )

            # somebody tries the API's door
            tried = time.time()
            for _ in range(30):
                assert httpx.get(f"{here.urls['api']}/v1/trails", timeout=10).status_code in (401, 429)
                time.sleep(0.05)  # below the limit on anonymous refusals
            refused = heard.until(lambda one: one["labels"]["alertname"] == "TallyReadsRefused")
            assert refused["receiver"] == "tickets"
            assert refused["annotations"]["summary"].endswith("reads refused: unauthenticated")
            to_ticket = refused["arrived"] - tried

        assert heard.refused == 0, "the token came from its file"
        texts = [text for one in heard.heard for text in one["annotations"].values()]
        assert [text for text in texts if "error expanding" in text or "<no value>" in text] == []
        pages = {one["labels"]["alertname"] for one in heard.heard if one["receiver"] == "pager"}
        assert pages == {"TallyCollectorMissing"}, "one fault, one page"
        with capsys.disabled():
            sys.stdout.write(f"\nfrom fault to webhook: {to_page:.1f} s (collector), {to_ticket:.1f} s (refusals)\n")
        assert max(to_page, to_ticket) < BOUND_SECONDS
