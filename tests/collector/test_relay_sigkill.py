"""Two collectors in a chain as real processes, each killed with SIGKILL while events come in: the account at the end is exact."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from collector.retry import RetryLimits
from collector.send import Forwarder, Upstream
from tests.support.collector_process import CollectorProcess

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

CHUNKS, EVENTS = 60, 50


def test_what_the_edge_acknowledged_is_upstream_once(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("central", "edge")}
    for folder in folders.values():
        folder.mkdir()
    central = CollectorProcess(folders["central"])
    central.start()
    port = int(central.addresses["forward"].rpartition(":")[2])
    relay = f'[collector.relay]\nhost = "127.0.0.1"\nport = {port}\ntls = false\n'
    edge = CollectorProcess(folders["edge"], further=relay)
    try:
        edge.start()
        edge_port = int(edge.addresses["forward"].rpartition(":")[2])
        quick = RetryLimits(base_seconds=0.05, cap_seconds=0.5)
        with Forwarder(Upstream(port=edge_port), retry=quick) as forwarder:
            for chunk in range(CHUNKS):
                entries = [(1_700_000_000_000_000_000, {"n": chunk * EVENTS + at}) for at in range(EVENTS)]
                forwarder.send("shop", entries, chunk=f"chunk-{chunk}", patience_seconds=60.0)
                if chunk in (10, 40):
                    central.kill()
                    central.start()
                if chunk in (20, 40):
                    edge.kill()
                    edge.start()
        edge.stop()
        central.stop()
        stored = Counter(event.attributes["n"] for event in central.stored())
        assert stored == Counter(range(CHUNKS * EVENTS))
        assert not (folders["edge"] / "tally-data" / "store.sqlite").exists()
    finally:
        edge.close()
        central.close()
