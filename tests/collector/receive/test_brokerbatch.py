"""A batch of a broker: what becomes of its messages, and what is done again after it could not be taken whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from collector.errors import Overloaded
from collector.event import Origin
from collector.receive import Arrival, Receipt
from collector.receive.brokerbatch import BrokerBatch, Pressure
from collector.receive.brokermessage import BrokerMessage, Reading
from tests.support.memory_intake import MemoryIntake


def message(value: bytes, source_id: bytes | None = None) -> BrokerMessage:
    return BrokerMessage(value=value, attributes={}, origin=Origin(receiver="test"), source_id=source_id)


def batch(*messages: BrokerMessage, again: bool = False) -> BrokerBatch:
    made = BrokerBatch(Reading(format="json"), observed="2026-01-01T00:00:00.000000000Z")
    for one in messages:
        made.add(one, again=again)
    return made


def test_what_cannot_be_read_is_a_dead_letter_and_counts_as_taken() -> None:
    intake = MemoryIntake()
    whole = batch(message(b'{"message": "a"}'), message(b"no", b"id"), message(b'{"message": "b"}'))
    asyncio.run(whole.store(intake))
    assert (whole.count, [event.body for event in intake.events]) == (3, ["a", "b"])
    assert [(raw, origin.receiver) for raw, _, origin in intake.dead] == [(b"no", "test")]


def test_a_trial_that_failed_is_taken_up_where_it_was() -> None:
    async def story() -> None:
        intake = MemoryIntake()
        whole = batch(message(b"no"), message(b"no, too"), message(b'{"message": "a"}'))
        for overloaded in (1, 1, 1):
            intake.overloaded = overloaded
            with pytest.raises(Overloaded):
                await whole.store(intake)
        await whole.store(intake)
        await whole.store(intake)
        # letters without an id would be doubled if any was written again
        assert [raw for raw, _, _ in intake.dead] == [b"no", b"no, too"]
        assert [event.body for event in intake.events] == ["a"]

    asyncio.run(story())


class SlowStore(MemoryIntake):
    """Keeps what it is given, and says for some calls that the store has not taken it yet: what ``ack = "store"`` does."""

    late = 0

    async def accept(self, arrivals: Sequence[Arrival], **how: Any) -> Receipt:
        receipt = await super().accept(arrivals, **how)
        if self.late > 0:
            self.late -= 1
            raise Overloaded("kept, but the store has not taken it")
        return receipt


@pytest.mark.parametrize("largest_group", [0, 2])
def test_what_is_kept_and_not_yet_stored_is_not_kept_again_by_the_next_trial(largest_group: int) -> None:
    async def story() -> None:
        intake = SlowStore(largest_group=largest_group)
        whole, other = (batch(*[message(b"{}") for _ in range(3)]) for _ in range(2))
        intake.late = 3
        for _ in range(intake.late):
            with pytest.raises(Overloaded):
                await whole.store(intake)
        await whole.store(intake)
        assert len(intake.events) == 3
        await other.store(intake)  # that it says the same makes it no re-send
        assert len(intake.events) == 6

    asyncio.run(story())


def test_a_batch_whose_messages_all_have_ids_needs_no_name() -> None:
    intake = MemoryIntake()
    asyncio.run(batch(message(b"{}", b"a"), message(b"{}", b"b")).store(intake))
    assert intake.groups == [None]  # known by its messages alone, it costs no frame when it comes again


def test_only_what_nothing_tells_from_its_like_is_marked() -> None:
    intake = MemoryIntake()
    asyncio.run(batch(message(b'{"message": "a"}'), message(b"{}", b"id"), again=True).store(intake))
    assert [event.marks for event in intake.events] == [["redelivered"], []]


def test_pressure_doubles_up_to_a_bound_and_begins_anew_when_it_has_eased() -> None:
    pressure, error = Pressure(), Overloaded("full", retry_after_seconds=0.5)
    assert [pressure.felt(error) for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, 5.0]
    pressure.eased()
    assert pressure.felt(error) == 0.5
