"""Collector and correlator killed with SIGKILL under load; `make drills` does it 200 times, this a few."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.killing import sigkill_drill

KILLS = int(os.environ.get("TALLY_KILLS", "8"))
SEED = int(os.environ.get("TALLY_SEED", "1"))


@pytest.mark.crash
@pytest.mark.timeout(1_800)
def test_what_was_acknowledged_is_stored_once_and_proved(tmp_path: Path) -> None:
    outcome = sigkill_drill(tmp_path / "drill", kills=KILLS, seed=SEED, least_events=500)
    assert outcome.kills.total() == KILLS
    assert outcome.findings == []
    assert (outcome.lost, outcome.doubled) == ([], [])
    assert outcome.acknowledged >= 500
    assert outcome.resends > 0, "no sender was ever cut off: the drill did not bite"
    assert outcome.stored == outcome.entries
    assert outcome.waiting == 0
    assert outcome.exit_codes == [0, 0]
