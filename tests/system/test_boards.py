"""Every panel of every board asks a real Prometheus, which scrapes a running installation, and gets an answer.

With TALLY_DRAW=FOLDER the boards are drawn there, after some minutes of traffic (`make boards`): how docs/dashboards/*.png are made.
"""

from __future__ import annotations

import base64
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dashboards.board import Links
from dashboards.boards import boards
from tests.servers.alertmanager import shortened
from tests.servers.prometheus import Prometheus, need_prometheus
from tests.support.board_queries import answer, asked
from tests.support.exposed import exposed
from tests.support.observed import Beside, observed
from tests.support.webhooks import receiver

pytestmark = pytest.mark.prometheus

DRAW = os.environ.get("TALLY_DRAW", "")
SECONDS = int(os.environ.get("TALLY_DRAW_SECONDS", "300")) if DRAW else 12
"""Of traffic. Without drawing: the first scrape, then findings, then what they change."""

MORE = """
[[detector.rules]]
kind = "amount"
name = "very-large"
above = "900"
severity = "critical"
freeze = true
[detector.alertmanager]
urls = ["{alertmanager}"]
[detector.freeze]
url = "{freezer}/freeze"
secret_file = "freeze.secret"
[incidents]
probe_seconds = 1
patience_seconds = 0
quiet_seconds = 15
"""
"""Somebody to tell; and incidents that begin and end within what is drawn."""


@pytest.mark.timeout(SECONDS + 120)
def test_every_panel_has_data(tmp_path: Path) -> None:
    need_prometheus()
    made = [board.build(Links(api="https://audit.example")) for board in boards()]
    textfile = tmp_path / "check.prom"
    days = [(datetime.now(UTC) - timedelta(days=ago)).date().isoformat() for ago in (4, 3, 2)]
    secret = tmp_path / "freeze.secret"
    secret.write_text(base64.b64encode(bytes(32)).decode())
    secret.chmod(0o600)
    with receiver(*[200] * 20, *[503] * 4, 200) as (alertmanager, _), receiver(200, 200, 409, 200) as (freezer, _), observed(
        tmp_path, MORE.format(alertmanager=alertmanager, freezer=freezer), review_since=days[0]
    ) as here:  # fmt: skip
        here.tally("render", "-o", str(tmp_path / "out"), "--only", "alerts")
        rules = tmp_path / "out" / "prometheus" / "tallystick.rules.yml"
        rules.write_text(shortened(rules.read_text()))
        beside = Beside(textfile)
        with exposed(beside.registry) as address, Prometheus(
            tmp_path / "prometheus", {**here.targets, "beside": address}, rules=rules
        ) as prometheus:  # fmt: skip
            start = time.time()
            for at in range(SECONDS):
                share = at / SECONDS
                trouble = 0.6 if DRAW and 0.55 < share < 0.7 else 0.3 if not DRAW and at % 3 == 0 else 0.0
                here.second(trouble)
                beside.second(trouble if DRAW else 0.0)
                if at in (SECONDS // 3, SECONDS * 4 // 5):
                    assert here.tally("check", "--textfile", str(textfile)).returncode == 0
                    here.sign_day(days.pop(0))
                time.sleep(max(0.0, start + at + 1 - time.time()))  # load for a time is what is wanted, not a condition
            end = time.time()
            prometheus.until("count(tally_check_findings)", {(): 1})
            prometheus.until('count(tally_flow_trails{state="incomplete"} > 0)', {(): 1})
            prometheus.until("count(count by (service) (service:tally_slo_budget:remaining_ratio))", {(): 4})
            if DRAW:
                from tests.support.board_drawing import draw

                for board in made:
                    draw(board, prometheus, Path(DRAW) / f"{board['uid'].removeprefix('tally-')}.png", start + 12, end)
            silent = [
                f"{board['title']} / {one.row} / {one.panel['title']}: {one.query}"
                for board in made
                for one in asked(board)
                if not answer(prometheus, one, end - 10, end, 1)
            ]
            assert silent == []
            counted = sum(1 for board in made for _ in asked(board))
            assert counted > 90
