"""What the correlator knows of a stream: its gaps, as they come and are filled."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collector.batch import BatchHeader
from correlator.streams import Missing, StreamState

_EVENTS = 10
"""Of each batch here."""


def header(number: int) -> BatchHeader:
    return BatchHeader(
        v=1, ledger="l", stream="a/1", number=number, first=(number - 1) * _EVENTS, count=_EVENTS, previous=f"{number - 1}",
        facts_root="", key="", created="", clock=None, place="", heartbeat_seconds=0, closed=False, fork=None,
    )  # fmt: skip


def with_gaps(missing: set[int], last: int) -> StreamState:
    """A stream whose batches up to `last` are logged but for those that are missing."""
    state = StreamState(stream="a/1")
    for number in range(1, last + 1):
        if number in missing:
            continue
        if number > state.next_number:
            state.on_gap(
                {
                    "reason": "missing",
                    "first_number": state.next_number,
                    "last_number": number - 1,
                    "first_sequence": state.next_sequence,
                    "last_sequence": (number - 1) * _EVENTS - 1,
                },
                leaf=number,
            )
        state.on_batch(header(number), f"{number}", 0)
    return state


@given(st.sets(st.integers(1, 29)), st.randoms())
def test_each_missing_number_is_in_one_gap_in_whatever_order_they_are_filled(missing: set[int], random: Any) -> None:
    state = with_gaps(missing, 30)
    coming = sorted(missing)
    random.shuffle(coming)
    while True:
        for number in range(32):
            holding = [gap for gap in state.missing if gap.first <= number <= gap.last]
            assert len(holding) == (number in coming)
            assert state.gap_of(number) == next(iter(holding), None)
            assert state.told_of(number) == (number <= 30 and number not in coming)
        for gap in state.missing:
            assert (gap.before, gap.after) == (str(gap.first - 1) if gap.first > 1 else "", str(gap.last))
            assert (gap.first_sequence, gap.last_sequence) == ((gap.first - 1) * _EVENTS, gap.last * _EVENTS - 1)
        if not coming:
            return
        number = coming.pop()
        state.on_batch(header(number), f"{number}", 0)


class Counted(list[Missing]):
    """Counts how often it is looked into."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        return super().__getitem__(at)

    def __iter__(self) -> Any:
        for one in super().__iter__():
            self.looks += 1
            yield one

    def index(self, *_: Any) -> int:
        raise AssertionError("compares with all before it")


def test_of_very_many_gaps_few_are_looked_at() -> None:
    state = with_gaps(set(range(1, 20_000, 2)), 20_000)
    gaps = state.missing = Counted(state.missing)
    assert len(gaps) == 10_000
    assert state.told_of(17_000)
    gap = state.gap_of(17_001)
    assert gap is not None
    assert gap.first == 17_001
    state.on_batch(header(17_001), "17001", 0)
    assert state.gap_of(17_001) is None
    assert len(gaps) == 9_999
    assert gaps.looks < 100
