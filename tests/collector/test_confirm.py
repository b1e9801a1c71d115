"""Who waits for the store: in what order they are told, and that each is told once and then forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collector.batch import StreamId
from collector.confirm import Confirmations
from collector.errors import Overloaded
from collector.spool import Spooled

A, B = StreamId("payments/a"), StreamId("payments/b")
ONE = Spooled(first=0, stored=1, duplicates=0)


class Sender:
    def __call__(self, outcome: Spooled | Exception) -> None:
        raise AssertionError(f"told {outcome}: that is the caller's to do")


def test_who_waits_for_two_streams_is_told_by_the_later_one() -> None:
    waiting, sender = Confirmations(), Sender()
    assert waiting.add(sender, ONE, {A: 3, B: 5})
    assert waiting.confirm(A, 3) == []
    assert waiting.confirm(B, 4) == []
    assert waiting.confirm(B, 5) == [(sender, ONE)]
    assert waiting.confirm(B, 9) == []
    assert not waiting.add(Sender(), ONE, {A: 3, B: 9})  # there already
    assert waiting.waiting == 0


def test_a_moved_one_waits_for_its_successor() -> None:
    waiting, sender, both = Confirmations(), Sender(), Sender()
    waiting.add(sender, ONE, {A: 3})
    waiting.add(both, ONE, {A: 3, B: 2})
    waiting.move(A, B, 7)
    waiting.confirm(A, 100)
    assert waiting.confirm(B, 6) == []
    assert waiting.confirm(B, 7) == [(both, ONE), (sender, ONE)]


def test_who_is_forgotten_or_failed_hears_nothing_more() -> None:
    waiting, gone, failed, left = Confirmations(), Sender(), Sender(), Sender()
    error = Overloaded("set aside")
    waiting.add(gone, ONE, {A: 1, B: 1})
    waiting.add(failed, ONE, {A: 1})
    waiting.add(left, ONE, {B: 1})
    waiting.forget(gone)
    waiting.forget(gone)
    assert waiting.fail(error, A) == [(failed, error)]
    assert waiting.confirm(A, 1) == []
    assert waiting.fail(error) == [(left, error)]
    assert waiting.confirm(B, 1) == []
    assert waiting.waiting == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 9), st.integers(0, 9)),
            st.tuples(st.just("confirm"), st.sampled_from([A, B]), st.integers(0, 9)),
        ),
        max_size=40,
    )
)
def test_nobody_is_told_too_early_or_twice_and_in_the_end_everybody_was(steps: list[tuple[str, object, int]]) -> None:
    waiting = Confirmations()
    there = {A: 0, B: 0}
    ends = {A: 0, B: 0}
    asked: dict[Sender, dict[StreamId, int]] = {}
    told: list[object] = []
    for kind, one, number in [*steps, ("confirm", A, 200), ("confirm", B, 200)]:
        if kind == "add":
            assert isinstance(one, int)
            ends = {A: ends[A] + one, B: ends[B] + number}  # sequences only grow
            sender = Sender()
            asked[sender] = dict(ends)
            if not waiting.add(sender, ONE, ends):
                told.append(sender)
                assert all(there[stream] >= end for stream, end in ends.items())
        else:
            assert isinstance(one, str)
            stream = StreamId(one)
            there[stream] = max(there[stream], number if number == 200 else min(number, ends[stream]))
            for sender_told, outcome in waiting.confirm(stream, there[stream]):
                assert outcome is ONE
                assert isinstance(sender_told, Sender)
                assert all(there[of] >= end for of, end in asked[sender_told].items())
                told.append(sender_told)
    assert len(told) == len(set(told))
    assert set(told) >= {sender for sender, below in asked.items() if max(below.values()) <= 200}
