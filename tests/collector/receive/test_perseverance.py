"""What an attempt's end leads to: another one, and a word about it that gives nothing away."""

from __future__ import annotations

import asyncio

import pytest

from collector.receive.perseverance import Perseverance
from collector.receive.standing import BrokerStanding
from collector.retry import RetryLimits


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


def test_what_ends_each_attempt_soon_after_it_connected_is_tried_less_and_less_often() -> None:
    async def story(lasting_seconds: float) -> int:
        now = [0.0]
        standing = BrokerStanding("test", "one", lambda *_: None)
        limits = RetryLimits(base_seconds=0.0, cap_seconds=0.0, failures_to_open=5, open_seconds=3_600.0)
        perseverance = Perseverance(standing, monotonic=lambda: now[0], limits=limits)
        attempts = 0

        async def attempt() -> None:
            nonlocal attempts
            attempts += 1
            perseverance.connected()
            now[0] += lasting_seconds
            if attempts == 20:
                perseverance.stop()
            raise ConnectionError

        running = asyncio.ensure_future(perseverance.run(attempt))
        for _ in range(1_000):  # turns of the loop: an attempt needs a few
            await asyncio.sleep(0)
        perseverance.stop()
        await asyncio.wait_for(running, 30)
        return attempts

    assert asyncio.run(story(1.0)) == 5
    assert asyncio.run(story(11.0)) == 20
