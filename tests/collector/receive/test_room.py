"""Room for what is being received: bounded, first come first served, and always given back."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Overloaded
from collector.receive.room import Claim, Pace, Room


def test_claims_are_bounded_and_given_back() -> None:
    room = Room(100)
    with room.claim() as first:
        first.add(60)
        with room.claim() as second:
            second.add(40)
            with pytest.raises(Overloaded):
                second.add(1)
            first.resize(10)
            second.resize(90)
            assert room.used_bytes == 100
        assert room.used_bytes == 10
    assert room.used_bytes == 0


def test_what_is_larger_than_the_room_has_it_alone() -> None:
    room = Room(100)
    with room.claim() as claim:
        claim.add(1000)
        with room.claim() as other, pytest.raises(Overloaded):
            other.add(1)


def test_who_holds_much_must_go_on_fast_enough() -> None:
    seconds = 0.0
    pace = Pace(seconds=60.0, clock=lambda: seconds)
    pace.check(8_000, 0)
    for _ in range(59):
        seconds += 1.0
        pace.check(1, 8_000)  # in its first minute much has come
    seconds += 1.0
    pace.check(1, 8_060)
    for _ in range(10):  # an eighth of it a minute is enough
        seconds += 60.0
        pace.check(1_000, 8_000)
    seconds += 30.0
    pace.check(900, 8_000)
    seconds += 30.0
    with pytest.raises(Overloaded, match="slowly"):
        pace.check(99, 8_000)


def test_who_waits_comes_in_order_and_may_stop_waiting() -> None:
    async def story() -> None:
        room = Room(100)
        first = room.claim()
        await first.wait(100)
        order: list[str] = []

        async def enter(name: str, size_bytes: int) -> None:
            with room.claim() as claim:
                await claim.wait(size_bytes)
                order.append(name)

        tasks = [asyncio.create_task(enter(name, size)) for name, size in (("a", 90), ("b", 50), ("c", 1), ("d", 60))]
        await asyncio.sleep(0)
        assert order == []
        tasks[1].cancel()
        first.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["a", "c", "d"]
        assert room.used_bytes == 0

    asyncio.run(story())


def test_a_wait_that_is_cancelled_as_its_turn_comes_gives_it_back() -> None:
    async def story() -> None:
        room = Room(100)
        first = room.claim()
        await first.wait(100)
        task = asyncio.create_task(room.claim().wait(100))
        await asyncio.sleep(0)
        first.release()  # its turn has come, and it has not run yet
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert room.used_bytes == 0

    asyncio.run(story())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 80)), max_size=40))
def test_whatever_is_claimed_the_bound_holds_unless_one_is_alone(steps: list[tuple[int, int]]) -> None:
    room = Room(100)
    claims: dict[int, Claim] = {}
    sizes: dict[int, int] = {}
    for name, size_bytes in steps:
        claim = claims.setdefault(name, room.claim())
        with contextlib.suppress(Overloaded):
            claim.resize(size_bytes)
            sizes[name] = size_bytes
        assert room.used_bytes == sum(sizes.values()) <= 100
    for claim in claims.values():
        claim.release()
    assert room.used_bytes == 0
