"""The drill of faults in short (`python -m drills faults` has them all): a sidecar that is killed, an event that is changed; each one alert, one incident, and over afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills.faults.running import quiet_time, run_fault
from drills.faults.setting import hurried, setting
from drills.faults.table import FAULTS

RULES = """
- name: tally
  interval: 30s
  rules:
  - alert: Slow
    expr: sum(increase(a[10m])) > 0 and b offset 1h
    for: 5m
  - alert: Quick
    expr: rate(a[1m]) > 0
    for: 30s
"""


def test_rules_are_hurried_alike() -> None:
    text = hurried(RULES)
    assert "increase(a[30s])" in text
    assert "b offset 180s" in text
    assert "for: 15s" in text
    assert ("rate(a[10s])" in text, text.count("for: 10s")) == (True, 1), (
        "ten seconds at least: it is scraped every second"
    )
    assert "interval" not in text


@pytest.mark.alertmanager
@pytest.mark.long
@pytest.mark.timeout(400)
def test_each_fault_is_told_once_and_over_afterwards(tmp_path: Path) -> None:
    with setting(tmp_path / "made") as made:
        assert quiet_time(made, 3.0) == []
        for fault in FAULTS:
            if fault.name in ("sidecar", "tamper"):
                outcome = run_fault(made, fault)
                assert outcome.broken == [], made.findings[-1:]
