"""The queue before the disk: everything in its order while it is short, turns by bytes when it is long."""

from __future__ import annotations

from collector.fairqueue import FairQueue
from collector.group import Group, Spooled
from collector.sender import Sender

FLOOD, OTHER, QUIET = Sender("forward", 1), Sender("forward", 2), Sender("http", 1)


def put(queue: FairQueue, sender: Sender, name: str, size_bytes: int) -> None:
    queue.put(Group(group_id=name.encode(), source_ids=(), events=(), facts=(), sender=sender), heard, size_bytes)


def heard(_: Spooled | Exception) -> None:
    """Nobody waits."""


def taken(queue: FairQueue, limit_bytes: int) -> list[str]:
    return [one.group.group_id.decode() for one in queue.take(limit_bytes)]


def test_what_fits_comes_out_in_the_order_in_which_it_came() -> None:
    queue = FairQueue()
    for at, sender in enumerate((FLOOD, QUIET, FLOOD, OTHER, QUIET)):
        put(queue, sender, str(at), 10)
    assert (bool(queue), queue.size_bytes) == (True, 50)
    assert taken(queue, 50) == ["0", "1", "2", "3", "4"]
    assert (bool(queue), queue.size_bytes, taken(queue, 50)) == (False, 0, [])


def test_who_has_queued_little_is_not_behind_a_flood() -> None:
    queue = FairQueue()
    for at in range(100):
        put(queue, FLOOD, f"flood-{at}", 50_000)
    put(queue, QUIET, "quiet", 300)
    first = taken(queue, 200_000)
    assert first[-1] == "quiet", "in the first that is written, after a hundredth of what was there before"
    assert first[:-1] == [f"flood-{at}" for at in range(len(first) - 1)]
    assert 3 <= len(first) - 1 <= 5


def test_turns_are_of_bytes_not_of_groups_and_each_sender_keeps_its_order() -> None:
    queue = FairQueue()
    for at in range(40):
        put(queue, FLOOD, f"large-{at}", 60_000)
        put(queue, OTHER, f"small-{at}", 6_000)
    first = taken(queue, 600_000)
    large = [name for name in first if name.startswith("large")]
    small = [name for name in first if name.startswith("small")]
    assert large == [f"large-{at}" for at in range(len(large))]
    assert small == [f"small-{at}" for at in range(len(small))]
    assert 0.5 <= 6_000 * len(small) / (60_000 * len(large)) <= 1.5
    rest: list[str] = []
    while queue:
        rest += taken(queue, 600_000)
    assert len(first) + len(rest) == 80
    assert queue.size_bytes == 0


def test_a_group_longer_than_all_that_is_taken_at_a_time_comes_out_alone() -> None:
    queue = FairQueue()
    put(queue, FLOOD, "long", 1_000_000)
    put(queue, QUIET, "short", 10)
    assert taken(queue, 10) == ["short"]
    assert taken(queue, 10) == ["long"]
    assert queue.size_bytes == 0


def test_the_last_part_of_the_queue_is_for_who_has_little_in_it() -> None:
    queue = FairQueue()
    assert queue.has_room(FLOOD, 2_000, 800), "alone it may be longer than the bound"
    while queue.has_room(FLOOD, 50, 800):
        put(queue, FLOOD, "flood", 50)
    assert 600 <= queue.size_bytes <= 750
    assert queue.has_room(QUIET, 50, 800)
    put(queue, QUIET, "quiet", 50)
    assert not queue.has_room(QUIET, 800 - queue.size_bytes + 1, 800), "the bound holds for all"
