"""Retirements as the log tells them: what each lets go of."""

from __future__ import annotations

import pytest

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
