"""Fingerprints tell contents that were read from all others, whatever was appended since."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import assume, given
from hypothesis import strategies as st

from collector.receive.tail.prints import MARKS, Likeness, Prints, likeness


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]


def read_in_steps(data: bytes, steps: list[int]) -> Prints:
    prints, at = Prints(), 0
    for step in steps:
        at = min(len(data), at + step)
        prints = prints.after(data[:1_024], at, data[:at])
    return prints


contents = st.integers(1, 6_000).flatmap(lambda size: st.randoms().map(lambda chance: chance.randbytes(size)))
steps = st.lists(st.integers(1, 2_000), min_size=1, max_size=12)


@given(data=contents, more=st.binary(max_size=50), steps=steps)
def test_the_same_contents_are_the_same_however_they_grow(data: bytes, more: bytes, steps: list[int]) -> None:
    prints = read_in_steps(data, steps)
    assert len(prints.marks) <= MARKS
    assert likeness(prints, len(data + more), reader(data + more)).same


@given(data=contents, steps=steps, at=st.integers(0, 5_999))
def test_a_changed_byte_that_is_looked_at_is_noticed(data: bytes, steps: list[int], at: int) -> None:
    prints = read_in_steps(data, steps)
    mark = prints.marks[-1]
    assume(at < prints.head_bytes or mark.offset - mark.size <= at < mark.offset)
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert likeness(prints, len(changed), reader(changed)) == Likeness()


@given(data=contents, steps=steps, cut=st.integers(1, 5_999))
def test_a_shorter_copy_is_never_taken_for_the_whole(data: bytes, steps: list[int], cut: int) -> None:
    prints = read_in_steps(data, steps)
    assume(cut < prints.read_to)
    like = likeness(prints, cut, reader(data[:cut]))
    assert not like.same
    assert like.older == (len([mark for mark in prints.marks if mark.offset <= cut]) > 1 and cut >= prints.head_bytes)


def test_prints_of_nothing_are_like_nothing() -> None:
    assert likeness(Prints(), 0, reader(b"")) == Likeness()
