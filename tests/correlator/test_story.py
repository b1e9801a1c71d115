"""A story is a trail and its traces, never another transaction's; hubs are named and not followed."""

from pathlib import Path

import pytest

from correlator.errors import NotFound
from correlator.index import TrailSummary
from correlator.index.memory import MemoryIndex
from correlator.story import MAX_RELATED, MAX_STORY_TRACES, Related, StoryTrails, story
from tests.support.correlating import Correlating
from tests.support.shipper import Shipper, pay

T = [f"{number:032x}" for number in range(1, MAX_STORY_TRACES + 11)]


def world_of(tmp_path: Path, *events: object) -> Correlating:
    world = Correlating(folder=tmp_path, index=MemoryIndex(hub_links=3))
    world.store.append(Shipper().batch(*events))  # type: ignore[arg-type]  # they are events
    world.run()
    world.close()
    return world


def test_the_story_of_a_transaction_is_its_trail_and_its_traces(tmp_path: Path) -> None:
    world = world_of(
        tmp_path,
        pay("p1", trace_id=T[0]),
        pay("p1", trace_id=T[1]),
        pay(trace_id=T[0]),
        pay("p2", trace_id=T[1]),
        pay("p2", trace_id=T[2], keys={"order": "1"}),
    )
    assert story("transaction/p1", world.index.trail, world.index.is_hub) == StoryTrails(
        main="transaction/p1",
        traces=(f"trace/{T[0]}", f"trace/{T[1]}"),
        related=(Related(trail="transaction/p2", through=f"trace/{T[1]}"),),
    )
    # p2's own trace and key are no part of p1's story, though a trace joins them
    assert story("transaction/p2", world.index.trail, world.index.is_hub).traces == (f"trace/{T[1]}", f"trace/{T[2]}")
    assert story("transaction/p2", world.index.trail, world.index.is_hub).related == (
        Related(trail="key/order/1"),
        Related(trail="transaction/p1", through=f"trace/{T[1]}"),
    )
    with pytest.raises(NotFound):
        story("transaction/none", world.index.trail, world.index.is_hub)


def test_a_trace_is_its_own_story_and_names_what_it_serves(tmp_path: Path) -> None:
    world = world_of(tmp_path, pay("p1", trace_id=T[0]), pay("p2", trace_id=T[0]), pay("p1", trace_id=T[1]))
    assert story(f"trace/{T[0]}", world.index.trail, world.index.is_hub) == StoryTrails(
        main=f"trace/{T[0]}", related=(Related(trail="transaction/p1"), Related(trail="transaction/p2"))
    )


def test_an_order_is_one_story_over_its_traces(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(pay(trace_id=T[n], keys={"order": "o1"}) for n in range(3)), pay(trace_id=T[1]))
    found = story("key/order/o1", world.index.trail, world.index.is_hub)
    assert found.traces == tuple(f"trace/{T[n]}" for n in range(3))
    assert found.related == ()
    assert found.hubs == ()


def test_a_hub_merges_nothing(tmp_path: Path) -> None:
    account = {"account": "7"}
    world = world_of(
        tmp_path,
        *(pay(f"p{n}", trace_id=T[n], keys=account) for n in range(2)),
        *(pay(trace_id=T[n], keys=account) for n in range(2, 6)),
    )
    assert world.index.trail("key/account/7").hub
    read: list[str] = []

    def reading(trail: str) -> TrailSummary:
        read.append(trail)
        return world.index.trail(trail)

    found = story("transaction/p0", reading, world.index.is_hub)
    assert read == ["transaction/p0", f"trace/{T[0]}"], "the hub's links are not"
    assert found.traces == (f"trace/{T[0]}",)
    assert found.related == ()
    assert found.hubs == ("key/account/7",)
    hub = story("key/account/7", world.index.trail, world.index.is_hub)
    assert (hub.traces, hub.traces_left_out) == ((), 4)


def test_a_story_has_a_bound(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(pay("p1", trace_id=trace) for trace in T))
    found = story("transaction/p1", world.index.trail, world.index.is_hub)
    assert (len(found.traces), found.traces_left_out) == (MAX_STORY_TRACES, 10)


def test_of_what_is_related_some_is_told_and_the_rest_counted() -> None:
    """What relates it to more is not even asked: a hub of a million links is told as fast as one of a thousand."""
    asked: list[str] = []

    def is_hub(trail: str) -> bool:
        asked.append(trail)
        return trail.startswith("key/shop/")

    def of(name: str, count: int, left_out: int = 0) -> StoryTrails:
        links = tuple(f"key/{name}/{number:04d}" for number in range(count))
        main = TrailSummary(
            trail="key/many/1", entries=1, first_leaf=0, last_leaf=0, hub=True, links=links, links_left_out=left_out
        )
        asked.clear()
        return story("key/many/1", {"key/many/1": main}.__getitem__, is_hub)

    found = of("order", 1_000, left_out=99_000)
    assert (len(found.related), found.related_left_out, found.hubs) == (MAX_RELATED, 99_800, ())
    assert len(asked) == MAX_RELATED
    found = of("shop", 1_000)
    assert (found.related, found.related_left_out, len(found.hubs)) == ((), 800, MAX_RELATED)
    found = of("order", MAX_RELATED)
    assert (len(found.related), found.related_left_out) == (MAX_RELATED, 0)
