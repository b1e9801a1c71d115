"""The filter never denies what was added, and seldom affirms what was not."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from correlator.bloom import BloomFilter


def key(number: int) -> bytes:
    return b"h" + hashlib.blake2b(str(number).encode(), digest_size=24).digest()


@given(st.sets(st.integers(), max_size=200), st.integers(0, 50))
def test_what_was_added_is_there(numbers: set[int], capacity: int) -> None:
    known = BloomFilter(capacity)
    known.add_all(key(number) for number in numbers)
    assert all(key(number) in known for number in numbers)


def test_what_was_not_added_is_seldom_there() -> None:
    known = BloomFilter(10_000)
    known.add_all(key(number) for number in range(10_000))
    assert not known.full
    assert sum(key(-number) in known for number in range(1, 10_001)) < 50
    known.add_all(key(number) for number in range(10_000, 20_000))
    assert known.full
