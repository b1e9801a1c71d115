"""The kernel is asked for real; what it may say is judged."""

from __future__ import annotations

import sys

import pytest

from collector.kernelclock import KernelClock, kernel_clock
from deploy.examining import Chart
from deploy.examining.clock import examine_clock, judge_kernel, judge_offset, judge_server
from tests.support.charts import outcomes, troubles
from tests.support.time_server import time_server

NOW_NS = 1_767_225_600_000_000_000


def test_the_kernel_says_something_or_nothing() -> None:
    told = kernel_clock()
    if told is None:
        return  # a container may forbid the question, and other systems have none: then it is told as unknown, see below
    assert sys.platform.startswith("linux")
    # adjtimex(2): at most 16 s, where the kernel stops counting
    assert 0 <= told.max_error_seconds <= 16.1


@pytest.mark.parametrize(
    ("clock", "outcome"),
    [
        (None, "unknown"),
        (KernelClock(synchronised=True, max_error_seconds=0.02), "ok"),
        (KernelClock(synchronised=False, max_error_seconds=16.0), "warning"),
    ],
)
def test_the_kernels_word(clock: KernelClock | None, outcome: str) -> None:
    chart = Chart("clock")
    judge_kernel(chart, clock)
    assert outcomes(chart) == {"synchronised": outcome}
    troubles(chart)


@pytest.mark.parametrize(
    ("least", "most", "outcome", "said"),
    [
        (-0.2, 0.3, "ok", "within 0.300 s"),
        (-9.0, 0.1, "ok", "within 9.000 s"),  # an answer that took long says no more
        (1.5, 1.6, "warning", "1.5 s ahead"),
        (-1.6, -1.5, "warning", "1.5 s behind"),
        (-90.0, -70.0, "failed", "70.0 s behind"),
    ],
)
def test_another_machines_clock(least: float, most: float, outcome: str, said: str) -> None:
    chart = Chart("clock")
    judge_offset(chart, "clock of node0", least_seconds=least, most_seconds=most)
    assert outcomes(chart) == {"clock of node0": outcome}
    assert said in chart.checks[0].found
    troubles(chart)


@pytest.mark.parametrize(("ahead_seconds", "outcome"), [(-1e6, "ok"), (0, "ok"), (0.5, "ok"), (30, "warning")])
def test_a_head_from_the_future(ahead_seconds: float, outcome: str) -> None:
    chart = examine_clock(head_written_ns=NOW_NS + int(ahead_seconds * 1e9), now_ns=NOW_NS)
    assert outcomes(chart)["log's writer"] == outcome
    assert "log's writer" not in outcomes(examine_clock(head_written_ns=None, now_ns=NOW_NS))


@pytest.mark.parametrize(("ahead_seconds", "outcome"), [(0, "ok"), (5, "warning"), (-300, "failed")])
def test_the_time_server_that_sidecars_ask(ahead_seconds: int, outcome: str) -> None:
    chart = Chart("clock")
    with time_server() as server:
        server.ahead_ns = ahead_seconds * 1_000_000_000
        judge_server(chart, "127.0.0.1", server.port)
    assert outcomes(chart) == {"time server 127.0.0.1": outcome}
    (found,) = (check.found for check in chart.checks)
    assert ("ahead" if ahead_seconds > 0 else "behind" if ahead_seconds < 0 else "within") in found


def test_a_time_server_that_does_not_answer_is_told() -> None:
    chart = Chart("clock")
    judge_server(chart, "127.0.0.1", 1)
    assert outcomes(chart) == {"time server 127.0.0.1": "warning"}
    troubles(chart)
