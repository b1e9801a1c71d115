"""A group that is larger than the whole spool: each way in refuses it for good, or takes it in portions where nobody can be told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import grpc
import httpx
import msgspec
import pytest

from collector.errors import Overloaded, TooLarge
from collector.event import Event
from collector.receive import Arrival, Receipt
from collector.receive.portions import Portions
from collector.settings import ElasticsearchSettings, SpoolSettings
from tests.support import forwarding
from tests.support.memory_intake import MemoryIntake
from tests.support.running_sidecar import SETTINGS, Running

SMALL = msgspec.structs.replace(
    SETTINGS,
    spool=SpoolSettings(max_bytes=20_000),
    elasticsearch=ElasticsearchSettings(port=0),
)
TOO_MANY = 60
"""Events of 500 bytes and more: 30,000 together."""

LINE = "x" * 500


def test_every_way_that_can_say_never_says_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def life() -> Running:
        sidecar = Running(tmp_path / "spool", settings=SMALL)
        addresses = await sidecar.ready
        async with httpx.AsyncClient(trust_env=False) as client:
            lines = f'{{"message":"{LINE}"}}\n' * TOO_MANY
            answer = await sidecar.post(lines)
            assert (answer.status_code, "spool.max_bytes" in answer.json()["detail"]) == (413, True)
            answer = await sidecar.export(LINE * TOO_MANY)
            assert (answer.status_code, answer.json()["code"]) == (413, 3)  # INVALID_ARGUMENT: never sent again
            assert "spool.max_bytes" in answer.json()["message"]
            bulk = f'{{"create":{{"_index":"i"}}}}\n{{"message":"{LINE}"}}\n' * TOO_MANY
            answer = await client.post(
                f"http://{addresses['elasticsearch']}/_bulk", content=bulk, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 413
            events = [
                {"specversion": "1.0", "id": str(at), "source": "s", "type": "t", "data": LINE}
                for at in range(TOO_MANY)
            ]
            answer = await client.post(
                f"http://{addresses['http']}/v1/cloudevents",
                content=msgspec.json.encode(events),
                headers={"content-type": "application/cloudevents-batch+json"},
            )
            assert answer.status_code == 413
            assert await sidecar.export_over_grpc(LINE * TOO_MANY) == grpc.StatusCode.INVALID_ARGUMENT
            chunk = [[1, {"message": LINE}]] * TOO_MANY
            assert await sidecar.forward("shop.log", chunk, {"chunk": "c"}) == b"", "closed, without an ack"
            metrics = (await client.get(f"http://{addresses['http']}/metrics")).text
        assert 'tally_collector_refused_total{reason="too_large"} 6.0' in metrics
        assert "tally_collector_refusing 0.0" in metrics, "smaller ones are taken"
        assert (await sidecar.post('{"message":"small"}\n')).status_code == 200
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    with caplog.at_level(logging.WARNING, "collector.receive"):
        sidecar = asyncio.run(life())
    assert sidecar.bodies() == ["small"], "nothing of what was refused"
    (line,) = [one.getMessage() for one in caplog.records if "a chunk is not taken" in one.getMessage()]
    assert "'shop.log'" in line
    assert "spool.max_bytes" in line


def arrivals(*bodies: str) -> list[Arrival]:
    return [Arrival(event=Event(body=body), source_id=body.encode()) for body in bodies]


def test_portions_are_halves_in_order_with_a_name_each_and_what_overload_interrupts_goes_on() -> None:
    async def story() -> None:
        intake = MemoryIntake(largest_group=3)
        left = arrivals(*"abcdefgh")
        portions = Portions(left, group_id=b"part")
        assert await first_error(portions, intake, after=1) == "ab", "two were taken before it was too much"
        await portions.hand_over(intake)
        assert [event.body for event in intake.events] == list("abcdefgh")
        assert (left, intake.dead) == ([], [])
        assert b"part" not in intake.groups, "the name of all would tell that all of it was taken"
        assert len(set(intake.groups)) == len(intake.groups) == 4
        again = MemoryIntake(largest_group=3)
        await Portions(arrivals(*"abcdefgh"), group_id=b"part").hand_over(again)
        assert again.groups == intake.groups, "the same names when all of it comes again"

    asyncio.run(story())


async def first_error(portions: Portions, intake: MemoryIntake, *, after: int) -> str:
    """Overload in the middle of it: what was taken by then."""
    taken = intake.accept
    calls = 0

    class Pressed:
        reject = intake.reject

        async def accept(self, arrivals: Sequence[Arrival], **options: object) -> Receipt:
            nonlocal calls
            if len(arrivals) <= intake.largest_group:
                if calls == after:
                    raise Overloaded("just now")
                calls += 1
            return await taken(arrivals, **options)  # type: ignore[arg-type]  # as they came

    with pytest.raises(Overloaded):
        await portions.hand_over(Pressed())
    return "".join(str(event.body) for event in intake.events)


class NeverIntake(MemoryIntake):
    """Larger than its whole spool is whatever holds "large"."""

    async def accept(self, arrivals: Sequence[Arrival], **options: object) -> Receipt:
        if any(arrival.event.body == "large" for arrival in arrivals):
            raise TooLarge("larger than the spool")
        return await super().accept(arrivals, **options)  # type: ignore[arg-type]  # as they came


def test_an_event_that_is_too_large_by_itself_is_a_dead_letter_and_the_others_are_taken() -> None:
    async def story() -> None:
        intake = NeverIntake()
        await Portions(arrivals("a", "b", "large", "c", "d")).hand_over(intake)
        assert [event.body for event in intake.events] == ["a", "b", "c", "d"]
        ((raw, error, _),) = intake.dead
        assert (b"large" in raw, error.label) == (True, "too_large")

    asyncio.run(story())


def test_forward_without_acks_loses_nothing() -> None:
    async def story() -> None:
        async with forwarding.Setting(MemoryIntake(largest_group=4)) as at:
            sender = await at.sender()
            sender.say(["t", [[1, {"message": str(n)}] for n in range(10)]])
            sender.say(["t", [[1, {"message": "acked"}]], {"chunk": "c"}])
            assert await sender.hear() == {"ack": "c"}
            assert sorted(str(event.body) for event in at.intake.events) == [*map(str, range(10)), "acked"]
            assert at.reasons == []

    forwarding.run(story())


def test_acks_of_what_came_before_go_out_and_none_after_it() -> None:
    async def story() -> None:
        async with forwarding.Setting(MemoryIntake(largest_group=2)) as at:
            sender = await at.sender()
            for chunk, events in (("before", 1), ("never", 3), ("after", 1)):
                sender.say(["t", [[1, {"message": chunk}]] * events, {"chunk": chunk}])
            assert await sender.hear() == {"ack": "before"}
            await sender.hear_the_end()
            assert at.reasons == ["too_large"]

    forwarding.run(story())
