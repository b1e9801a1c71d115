"""What a spool refuses is said once, and is over when something is taken."""

from __future__ import annotations

import pytest

from collector.refusals import Refusals


def test_it_is_logged_when_it_begins_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "collector.refusals")
    now = 100.0
    refusals = Refusals(monotonic=lambda: now)
    refusals.over()
    assert refusals.now == ""
    for _ in range(50):
        refusals.note("full")
        now += 0.1
    assert refusals.now == "full"
    refusals.over()
    assert refusals.now == ""
    assert [one.getMessage() for one in caplog.records] == ["no events are taken: full", "events are taken again"]


def test_a_spool_at_its_bound_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "collector.refusals")
    now = 100.0
    refusals = Refusals(monotonic=lambda: now)
    for _ in range(200):  # a large group is refused, a small one taken, for twenty seconds
        refusals.note("full")
        refusals.over()
        now += 0.1
    warnings = [one for one in caplog.records if one.levelname == "WARNING"]
    assert 3 <= len(warnings) <= 5
    assert len(caplog.records) == 2 * len(warnings)


def test_a_refusal_that_nobody_has_repeated_for_a_minute_is_history() -> None:
    now = 100.0
    refusals = Refusals(monotonic=lambda: now)
    refusals.note("full")
    now += 59.0
    assert refusals.now == "full"
    now += 2.0
    assert refusals.now == ""
