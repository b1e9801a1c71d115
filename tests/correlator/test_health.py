"""Metrics and health as a scraper sees them."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from correlator.health import HealthServer
from tests.support.correlating import Correlating
from tests.support.shipper import Shipper, pay


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_and_health(tmp_path: Path) -> None:
    world = Correlating(folder=tmp_path)
    correlator = world.open()
    server = HealthServer(
        "127.0.0.1", 0, registry=correlator.metrics.registry, alive=correlator.alive, ready=correlator.ready
    )
    try:
        assert get(server.port, "/livez") == (200, "ok\n")
        assert get(server.port, "/readyz") == (503, "not ok\n")
        shipper = Shipper()
        world.store.append(shipper.batch(pay("p1"), pay("p2")))
        lost = shipper.batch(pay("p3"))
        world.store.append(shipper.batch(pay("p4")))
        world.run()
        assert get(server.port, "/readyz") == (200, "ok\n")
        status, text = get(server.port, "/metrics")
        assert status == 200
        lines = text.splitlines()
        for line in (
            'tally_correlator_entries_total{kind="event"} 3.0',
            'tally_correlator_entries_total{kind="batch"} 2.0',
            'tally_correlator_entries_total{kind="gap"} 1.0',
            'tally_correlator_gaps_total{reason="missing"} 1.0',
            "tally_correlator_log_leaves 7.0",
            "tally_correlator_index_lag_leaves 0.0",
            "tally_correlator_head_age_seconds 0.0",
            "tally_correlator_publish_seconds_count 1.0",
            'tally_correlator_streams{state="open"} 1.0',
            "tally_correlator_missing_batches 1.0",
        ):
            assert line in lines
        assert shipper.stream not in text, "no label holds what comes from outside"
        assert lost.signed.digest not in text
        assert get(server.port, "/other")[0] == 404
    finally:
        server.close()
        world.close()
    with pytest.raises(urllib.error.URLError):
        get(server.port, "/livez")
