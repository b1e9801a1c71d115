"""Retirements as the log tells them: what each lets go of."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.event import Retirement
from correlator.retired import RetiredMonth, Retirements

MONTH = "2026.01"


def retired(*, size: int, leaf: int) -> RetiredMonth:
    said = Retirement(month=MONTH, size=size, batches=1, events=1, digest="ab" * 32)
    return RetiredMonth(retirement=said, leaf=leaf, recorded="2026-11-01T00:00:00.000000000Z", by="")


@pytest.mark.parametrize(
    ("size", "batch_leaf", "covered"),
    [
        (7, 6, True),
        (7, 7, False),
        (10, 9, True),
        (10, 10, False),
        (1_000, 9, True),
        (1_000, 10, False),
        (1_000, 11, False),
    ],
)
def test_a_retirement_lets_go_of_nothing_that_came_behind_it(size: int, batch_leaf: int, covered: bool) -> None:
    one = retired(size=size, leaf=10)
    assert Retirements([one]).covers(MONTH, batch_leaf) == (one if covered else None)
    assert Retirements([one]).covers("2026.02", batch_leaf) is None


def test_the_first_that_lets_go_of_a_batch_is_told() -> None:
    early, late = retired(size=1_000, leaf=10), retired(size=30, leaf=40)
    months = Retirements([early, late])
    assert [months.covers(MONTH, leaf) for leaf in (9, 11, 29, 30)] == [early, late, late, None]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12))
def test_it_is_the_first_of_all_that_let_go_of_it(told: list[tuple[int, int]]) -> None:
    known = [retired(size=size, leaf=leaf) for size, leaf in told]
    months = Retirements(known)
    for batch_leaf in range(32):
        first = next((one for one in known if batch_leaf < min(one.retirement.size, one.leaf)), None)
        assert months.covers(MONTH, batch_leaf) is first


def test_many_of_one_month_cost_no_pass_each() -> None:
    """Whoever signs a log of their own can put as many there as a bundle has lines; each of its batches asks."""
    months = Retirements(retired(size=0, leaf=leaf) for leaf in range(20_000))
    started = time.process_time()
    assert {months.covers(MONTH, leaf) for leaf in range(20_000)} == {None}
    assert time.process_time() - started < 5.0
