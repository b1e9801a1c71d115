"""The bookkeeping of offsets never offers one for commit that lies beyond what is durable, or of a partition that is not ours."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collector.receive.kafka.offsets import Offsets

steps = st.lists(
    st.tuples(
        st.sampled_from(["assign", "revoke", "take", "done", "commit", "committed late"]),
        st.integers(min_value=0, max_value=2),
        st.integers(min_value=1, max_value=5),
    ),
    max_size=60,
)


@given(steps)
def test_never_beyond_what_is_durable(story: list[tuple[str, int, int]]) -> None:
    """Against a model that knows each message: read from where the group's offset is, durable or not."""
    offsets: Offsets[int] = Offsets()
    ours: set[int] = set()
    group = dict.fromkeys(range(3), 0)  # what the broker has
    position = dict.fromkeys(range(3), 0)
    in_hand: dict[int, range] = {}
    durable: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    offered: dict[int, int] = {}
    for what, partition, count in story:
        if what == "assign":
            offsets.assigned([partition])
            ours.add(partition)
            in_hand.pop(partition, None)
            position[partition] = group[partition]
        elif what == "revoke":
            offsets.revoked([partition])
            ours.discard(partition)
            in_hand.pop(partition, None)
        elif what == "take":
            read = range(position[partition], position[partition] + count)
            taken = offsets.take(partition, read.stop)
            assert taken == (partition in ours and partition not in in_hand)
            if taken:
                in_hand[partition] = read
                position[partition] = read.stop
                assert offsets.holds(partition, read.stop)
        elif what == "done":
            durable[partition].update(in_hand.pop(partition, range(0)))
            offsets.done(partition)
        elif what == "commit":
            offered = offsets.to_commit()
            for one, offset in offered.items():
                group[one] = max(group[one], offset)
            offsets.committed(offered)
            assert offsets.to_commit() == {}
        else:  # an answer that comes when partitions have moved says nothing of those that are ours anew
            offsets.committed({one: offset for one, offset in offered.items() if one not in ours})
        for one, offset in offsets.to_commit().items():
            assert one in ours
            assert set(range(offset)) <= durable[one], "a message before it is not durable"
    assert offsets.ours == ours


def test_what_is_durable_is_offered() -> None:
    offsets: Offsets[str] = Offsets()
    assert not offsets.take("a", 5)
    offsets.assigned(["a", "b"])
    assert offsets.take("a", 5)
    assert not offsets.take("a", 9)
    assert offsets.to_commit() == {}
    offsets.done("a")
    offsets.begins("b", 7)
    assert offsets.to_commit() == {"a": 5, "b": 7}
    offsets.committed({"a": 5})
    assert offsets.to_commit() == {"b": 7}
    offsets.revoked(["b"])
    offsets.done("b")
    assert offsets.to_commit() == {}
