"""What is remembered for keys from outside: the right value, and never more than the bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collector.memo import Memo

keys = st.recursive(
    st.text(max_size=20) | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
)


@given(st.lists(keys, max_size=40))
def test_it_says_what_the_function_says(asked: list[object]) -> None:
    memo: Memo[object, str] = Memo(repr, entries=4, characters=50)
    for key in asked:
        # equal keys of different types (1 and True) are one key, as in every dict: functions must not tell them apart
        assert memo[key] in {repr(other) for other in asked if other == key}
        assert len(memo) <= 4


def test_what_is_known_is_not_worked_out_again() -> None:
    asked: list[str] = []

    def work_out(key: str) -> str:
        asked.append(key)
        return key.upper()

    memo = Memo(work_out)
    assert [memo["a"], memo["a"], memo["b"]] == ["A", "A", "B"]
    assert asked == ["a", "b"]


def test_long_keys_are_not_remembered() -> None:
    memo: Memo[object, bool] = Memo(bool, entries=10, characters=100)
    for key in ("x" * 101, ("x" * 60, "y" * 60), (("x" * 101,),), tuple("abcdefghijklmn"), b"bytes"):
        assert memo[key]
    assert not memo
    assert memo["x" * 80]
    assert len(memo) == 1
