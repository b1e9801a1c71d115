"""Reads a chart of `tally doctor` in tests."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.examining import Chart, Check


def outcomes(chart: Chart | Sequence[Check]) -> dict[str, str]:
    """The worst outcome under each name."""
    checks = chart.checks if isinstance(chart, Chart) else chart
    order = ("ok", "unknown", "warning", "failed")
    found: dict[str, str] = {}
    for check in checks:
        found[check.name] = max(found.get(check.name, "ok"), check.outcome, key=order.index)
    return found


def troubles(chart: Chart | Sequence[Check]) -> list[Check]:
    """What is not ok; each must say what helps."""
    checks = chart.checks if isinstance(chart, Chart) else chart
    found = [check for check in checks if check.outcome != "ok"]
    assert all(check.mend and all(check.mend) for check in found), found
    assert not any(check.mend for check in checks if check.outcome == "ok")
    return found


def only(chart: Chart | Sequence[Check]) -> Check:
    """The one trouble that there is."""
    (check,) = troubles(chart)
    return check
