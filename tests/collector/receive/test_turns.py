"""Turns of the event loop, on a clock that only work moves: who waits for whom, and for how long."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

import msgpack
import pytest

from collector.receive.turns import LoopTime, Share, Turns
from collector.sender import Sender
from tests.support.forwarding import Setting
from tests.support.memory_intake import MemoryIntake


class Clock:
    """Seconds that pass when somebody works."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Flooding:
    """Senders that always have one more message, each of so many seconds."""

    def __init__(self, clock: Clock, done: list[str]) -> None:
        self.clock, self.done = clock, done
        self.stopped = False

    def begin(self, share: Share, name: str, seconds: float) -> None:
        def work() -> None:
            self.clock.now += seconds
            self.done.append(name)
            if not self.stopped:
                self.go_on(share, work)

        self.go_on(share, work)

    @staticmethod
    def go_on(share: Share, work: Callable[[], None]) -> None:
        if share.may_go_on():
            work()
        else:
            share.later(work)


def test_who_sends_a_little_waits_for_one_message_of_a_flood() -> None:
    async def story() -> None:
        clock, done, waits = Clock(), list[str](), list[int]()
        turns = Turns(LoopTime(turn_seconds=0.004, clock=clock, worked=clock), lambda: waits.append(1))
        flooding = Flooding(clock, done)
        for at in range(8):
            flooding.begin(turns.of(Sender(connection=at)), f"flood-{at}", 0.02)
        for _ in range(100):
            await asyncio.sleep(0)
        before = len(done)
        assert before > 20
        assert set(done) == {f"flood-{at}" for at in range(8)}
        for _ in range(20):  # whenever it comes in
            began, loop = len(done), asyncio.get_running_loop()
            heard = loop.create_future()
            share = turns.of(Sender(connection=100))
            loop.call_soon(flooding.go_on, share, lambda heard=heard: heard.set_result(len(done)))
            assert await heard - began <= 2, "the one at hand, and one that was chosen before it was there"
        flooding.stopped = True
        assert len(waits) >= len(done) - 8

    asyncio.run(story())


def test_service_is_shared_by_time_and_not_by_messages() -> None:
    async def story() -> None:
        clock, done = Clock(), list[str]()
        turns = Turns(LoopTime(turn_seconds=0.004, clock=clock, worked=clock))
        flooding = Flooding(clock, done)
        flooding.begin(turns.of(Sender(connection=1)), "long", 0.02)
        flooding.begin(turns.of(Sender(connection=2)), "short", 0.005)
        while done.count("long") < 50:  # noqa: ASYNC110 - each is a turn of the loop
            await asyncio.sleep(0)
        assert 150 <= done.count("short") <= 250

    asyncio.run(story())


def test_of_those_who_are_served_alike_nobody_waits_for_two_rounds() -> None:
    async def story() -> None:
        clock, done = Clock(), list[str]()
        turns = Turns(LoopTime(turn_seconds=0.004, clock=clock, worked=clock))
        loop, chance = asyncio.get_running_loop(), random.Random(11)

        def begin(name: str) -> None:  # as `Flooding`, of messages that never take the same
            share = turns.of(Sender(connection=int(name)))

            def work() -> None:
                clock.now += chance.gauss(0.012, 0.001)
                done.append(name)
                loop.call_soon(Flooding.go_on, share, work)

            Flooding.go_on(share, work)

        for at in range(8):
            begin(str(at))
        while len(done) < 8_000:  # noqa: ASYNC110 - each is a turn of the loop
            await asyncio.sleep(0)
        rounds = [
            after - before
            for name in set(done)
            for before, after in itertools.pairwise(at for at, one in enumerate(done) if one == name)
        ]
        assert len(set(done)) == 8
        assert max(rounds) <= 11
        assert sum(waited != 8 for waited in rounds) < 0.1 * len(rounds)
        assert all(975 <= done.count(name) <= 1_025 for name in set(done)), "and yet it is shared by time"

    asyncio.run(story())


@pytest.mark.parametrize("before_seconds", [0.01, 0.02, 0.03, 0.04, 0.2, 1.0])
def test_those_who_come_after_another_are_alike_from_their_first_message_on(before_seconds: float) -> None:
    async def story() -> None:
        clock, done = Clock(), list[str]()
        turns = Turns(LoopTime(turn_seconds=0.004, clock=clock, worked=clock))
        flooding = Flooding(clock, done)
        first = turns.of(Sender(connection=100))
        assert first.may_go_on()
        clock.now += before_seconds
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert first.may_go_on()  # so far all would have been served who had been there
        clock.now += 0.001
        await asyncio.sleep(0)
        for at in range(8):
            flooding.begin(turns.of(Sender(connection=at)), str(at), 0.012)
        while len(done) < 400:  # noqa: ASYNC110 - each is a turn of the loop
            await asyncio.sleep(0)
        flooding.stopped = True
        for name in set(done):
            places = [at for at, one in enumerate(done) if one == name]
            assert all(after - before <= 9 for before, after in itertools.pairwise(places))

    asyncio.run(story())


def test_who_is_heard_first_in_each_turn_does_not_overtake_those_who_wait() -> None:
    async def story() -> None:
        clock, done = Clock(), list[str]()
        turns = Turns(LoopTime(turn_seconds=0.004, clock=clock, worked=clock))
        flooding, loop = Flooding(clock, done), asyncio.get_running_loop()
        for at in range(3):
            flooding.begin(turns.of(Sender(connection=at)), f"waits-{at}", 0.02)
        early = turns.of(Sender(connection=9))

        def heard() -> None:  # as a socket on which the next message has always come
            if early.waiting or flooding.stopped:
                return

            def work() -> None:
                clock.now += 0.02
                done.append("early")
                loop.call_soon(heard)

            flooding.go_on(early, work)

        heard()
        while len(done) < 200:  # noqa: ASYNC110 - each is a turn of the loop
            await asyncio.sleep(0)
        flooding.stopped = True
        last = done[-100:]  # the first ones are what a new sender has ahead
        assert 20 <= last.count("early") <= 30, "one of four"

    asyncio.run(story())


def test_a_turn_that_is_young_makes_nobody_wait() -> None:
    async def story() -> None:
        clock = Clock()
        share = Turns(LoopTime(turn_seconds=0.004, clock=clock, worked=clock)).of(Sender())
        assert share.may_go_on()
        clock.now += 0.003
        assert share.may_go_on()
        clock.now += 0.001
        assert not share.may_go_on()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert share.may_go_on(), "another turn"
        clock.now += 1.0
        share.later(lambda: None)
        await asyncio.sleep(0)
        assert not share.may_go_on(), "not before what waits, though the turn is young"

    asyncio.run(story())


def test_tasks_get_their_turns_too_and_one_that_gave_up_harms_nobody() -> None:
    async def story() -> None:
        clock, order = Clock(), list[int]()
        turns = Turns(LoopTime(turn_seconds=0.004, clock=clock, worked=clock))

        async def work(at: int) -> None:
            await turns.of(Sender(connection=at)).turn()
            clock.now += 0.02
            order.append(at)

        tasks = [asyncio.create_task(work(at)) for at in range(4)]
        gone = asyncio.create_task(work(9))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(*tasks)
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert order == [0, 1, 2, 3]

    asyncio.run(story())


def test_a_quiet_forward_connection_is_acknowledged_beside_a_flood() -> None:
    """On a clock by which each group takes 20 ms: of all that the flood has sent, what is taken before the quiet one's ack is a part."""

    async def story() -> None:
        clock = Clock()

        class SlowIntake(MemoryIntake):
            async def accept(self, *arguments: object, **options: object) -> object:  # type: ignore[override]  # passed on
                clock.now += 0.02
                return await super().accept(*arguments, **options)  # type: ignore[arg-type]  # as they came

        intake = SlowIntake()
        async with Setting(intake, turns=Turns(LoopTime(clock=clock, worked=clock))) as at:
            floods = [await at.sender() for _ in range(4)]
            quiet = await at.sender()
            for name, flood in enumerate(floods):
                flood.say(*[["flood", n, {"n": n}, {"chunk": f"{name}-{n}"}] for n in range(500)])
            await floods[0].hear()
            quiet.say(["quiet", 1, {}, {"chunk": "quiet"}])
            assert await quiet.hear() == {"ack": "quiet"}
            assert len(intake.events) < 1_000, "it did not wait for the end of the flood"
            for name, flood in enumerate(floods):
                while await flood.hear() != {"ack": f"{name}-499"}:
                    pass
            assert len(intake.events) == 2_001
            assert at.reasons == []

    asyncio.run(story())


def test_a_message_waits_for_one_turn_in_however_many_pieces_it_comes() -> None:
    async def story() -> None:
        class Late(LoopTime):
            def admits(self, share: Share) -> bool:
                super().admits(share)
                return False  # each time there is no time left

        waits: list[int] = []
        async with Setting(MemoryIntake(), turns=Turns(Late(), lambda: waits.append(1))) as at:
            sender = await at.sender()
            message = msgpack.packb(["t", 1, {"message": "x" * 1_000}, {"chunk": "c"}])
            for start in range(0, len(message), 100):
                assert not waits
                sender.say(message[start : start + 100])
                await sender.writer.drain()
                await asyncio.sleep(0.005)  # so that they do not come as one
            assert await sender.hear() == {"ack": "c"}
            assert len(waits) == 1

    asyncio.run(story())


def test_framing_that_is_lost_in_another_turn_is_counted_once() -> None:
    async def story() -> None:
        ticks = itertools.count()

        def clock() -> float:  # each look is in a turn that is over
            return next(ticks) * 0.005

        async with Setting(MemoryIntake(), turns=Turns(LoopTime(clock=clock, worked=clock))) as at:
            sender = await at.sender()
            sender.say(["t", 1, {"message": "good"}], b"\xc1\xc1\xc1")
            await sender.hear_the_end()
            assert at.reasons == ["framing"]
            assert [raw for raw, _, _ in at.intake.dead] == [b"\xc1\xc1\xc1"]

    asyncio.run(story())


def test_turns_do_not_multiply_whoever_asks_in_between() -> None:
    async def story() -> None:
        calls = 0

        class Counted(LoopTime):
            def _next(self) -> None:
                nonlocal calls
                calls += 1
                super()._next()

        clock, loop = Clock(), asyncio.get_running_loop()
        turns = Turns(Counted(turn_seconds=0.004, clock=clock, worked=clock))
        flooding = Flooding(clock, [])
        for at in range(3):
            flooding.begin(turns.of(Sender(connection=at)), "flood", 0.005)
        quiet = turns.of(Sender(connection=9))

        def ask() -> None:
            quiet.may_go_on()
            loop.call_soon(ask)

        ask()
        for _ in range(200):
            await asyncio.sleep(0)
        assert 50 <= calls <= 210, "one at most in each iteration of the loop"

    asyncio.run(story())


def test_connections_that_have_a_share_together_do_not_wait_for_each_other() -> None:
    async def story() -> None:
        clock = Clock()

        class SlowIntake(MemoryIntake):
            async def accept(self, *arguments: object, **options: object) -> object:  # type: ignore[override]  # passed on
                clock.now += 0.003
                return await super().accept(*arguments, **options)  # type: ignore[arg-type]  # as they came

        async with Setting(SlowIntake(), turns=Turns(LoopTime(clock=clock, worked=clock))) as at:
            at.receiver._numbers = itertools.count(0, 256)  # as after so many others
            both = [await at.sender() for _ in range(2)]
            for name, sender in enumerate(both):
                sender.say(*[["flood", n, {"n": n}, {"chunk": f"{name}-{n}"}] for n in range(100)])
            for name, sender in enumerate(both):
                while await sender.hear() != {"ack": f"{name}-99"}:
                    pass

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(bounded())
