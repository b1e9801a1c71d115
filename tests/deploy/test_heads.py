"""The last entries of trails: what a dictionary would say, with a few of them in memory."""

from __future__ import annotations

import tempfile
from hashlib import sha256
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from deploy.checking.heads import Heads, Last


@given(
    st.lists(st.tuples(st.integers(0, 12), st.one_of(st.integers(0, 5), st.integers())), max_size=60),
    st.integers(1, 5),
)
def test_it_says_what_a_dictionary_says(entries: list[tuple[int, int]], hot_trails: int) -> None:
    known: dict[str, Last] = {}
    with tempfile.TemporaryDirectory() as folder:
        heads = Heads(Path(folder) / "heads", hot_trails=hot_trails)
        try:
            for leaf, (trail, position) in enumerate(entries):
                last = Last(position=position, leaf=leaf, hash=sha256(b"%d" % leaf).digest())
                assert heads.follow(f"trace/{trail}", last) == known.get(f"trace/{trail}")
                known[f"trace/{trail}"] = last
            assert heads.trails == len(known)
        finally:
            heads.close()


def test_few_of_many_trails_are_in_memory(tmp_path: Path) -> None:
    heads = Heads(tmp_path / "heads", hot_trails=100)
    digest = bytes(32)
    for leaf in range(3_000):
        assert heads.follow(f"trace/{leaf}", Last(position=0, leaf=leaf, hash=digest)) is None
        assert len(heads._table.young) + len(heads._table._old) <= 200
    for leaf in (0, 1_500, 2_999):
        found = heads.follow(f"trace/{leaf}", Last(position=1, leaf=3_000 + leaf, hash=digest))
        assert found == Last(position=0, leaf=leaf, hash=digest)
    assert heads.trails == 3_000
    heads.close()
