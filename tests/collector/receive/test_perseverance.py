"""What an attempt's end leads to: another one, and a word about it that gives nothing away."""

from __future__ import annotations

import asyncio

import pytest

from collector.receive.perseverance import Perseverance
from collector.receive.standing import BrokerStanding


def test_attempts_go_on_until_stop_and_only_known_errors_are_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    errors = [OSError("it is away"), ValueError("card 4111"), OSError(), None]
    reports: list[int] = []

    async def story() -> None:
        standing = BrokerStanding("test", "one", lambda *told: reports.append(told[2]))
        perseverance = Perseverance(standing, OSError)

        async def attempt() -> None:
            error = errors.pop(0)
            if error is not None:
                raise error
            perseverance.connected()
            perseverance.stop()

        await asyncio.wait_for(perseverance.run(attempt), 30)
        await asyncio.wait_for(perseverance.pause(3_600), 30)  # does not outlast the stop

    asyncio.run(story())
    assert (errors, reports) == ([], [0, 0, 0, 0, 1])
    assert [record.getMessage() for record in caplog.records] == [
        "test one: nothing is read: it is away",
        "test one: nothing is read: ValueError",
        "test one: nothing is read: OSError",
        "test one: the broker answers again",
    ]
