"""Token buckets against a model, and the bound on refusals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from audit_api import limits
from audit_api.limits import RefusalBudget, Surplus, TokenBuckets

MINUTE = 60_000_000_000


class At:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> int:
        return int(self.seconds * 1e9)


@given(st.lists(st.floats(0, 3), max_size=60))
def test_no_more_than_rate_and_burst_allow(pauses: list[float]) -> None:
    at = At()
    buckets = TokenBuckets(rate=2.0, burst=5, monotonic=at.monotonic)
    taken = 0
    for pause in pauses:
        at.seconds += pause
        wait = buckets.take("ann")
        taken += wait == 0
        assert taken <= 5 + 2.0 * (at.seconds - 1000.0) + 1e-6
        if wait:
            at.seconds += wait + 1e-9
            assert buckets.take("ann") == 0
            taken += 1


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    at = At()
    buckets = TokenBuckets(rate=10.0, burst=3, monotonic=at.monotonic)
    at.seconds += 1e6
    assert [buckets.take("ann") == 0 for _ in range(4)] == [True, True, True, False]
    assert buckets.take("bob") == 0


def test_names_are_forgotten_when_there_are_too_many() -> None:
    at = At()
    buckets = TokenBuckets(rate=1.0, burst=1, monotonic=at.monotonic)
    budget = RefusalBudget(per_minute=1, clock=at.wall)
    for number in range(limits.MAX_TRACKED + 500):
        assert buckets.take(str(number)) == 0
        budget.take(str(number))
        budget.take(str(number))
    assert len(buckets._buckets) == limits.MAX_TRACKED
    assert len(budget._minutes) <= limits.MAX_TRACKED
    assert sum(surplus.refusals for surplus in budget.surplus(all_of_it=True)) == limits.MAX_TRACKED + 500


@given(st.lists(st.tuples(st.sampled_from(["anonymous", "ann"]), st.integers(0, 40)), max_size=80))
def test_every_refusal_is_recorded_or_counted(steps: list[tuple[str, int]]) -> None:
    at = At()
    budget = RefusalBudget(per_minute=3, clock=at.wall)
    recorded, told = 0, 0
    for principal, pause in steps:
        at.seconds += pause
        recorded += budget.take(principal)
        told += sum(surplus.refusals for surplus in budget.surplus())
    told += sum(surplus.refusals for surplus in budget.surplus(all_of_it=True))
    assert recorded + told == len(steps)
    assert budget.surplus(all_of_it=True) == []


def test_a_surplus_names_its_minute_and_may_be_given_back() -> None:
    at = At()
    budget = RefusalBudget(per_minute=1, clock=at.wall)
    assert [budget.take("ann") for _ in range(3)] == [True, False, False]
    assert budget.surplus() == []
    at.seconds += 60
    surplus = budget.surplus()
    assert surplus == [Surplus(principal="ann", refusals=2, since_ns=int(1000e9) // MINUTE * MINUTE)]
    assert budget.surplus() == []
    budget.give_back(surplus)
    assert budget.surplus() == surplus
