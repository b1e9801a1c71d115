"""Hostile input on every listener, in short: honest senders keep their service, memory its bound, and refusals are counted by reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills.hostile.running import SHORT, hostile_drill


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_honest_senders_keep_their_service(tmp_path: Path) -> None:
    outcome = hostile_drill(tmp_path / "hostile", SHORT)
    assert outcome.broken() == []
    assert len(outcome.acknowledged) > 100
