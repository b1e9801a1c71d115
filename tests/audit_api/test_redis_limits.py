"""Limits that several API processes count together: in a real Redis, and while it is away."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest

from audit_api.limits import Allowance, Limits, OwnLimits, Taken
from audit_api.metrics import ApiMetrics
from audit_api.redis_limits import REST_SECONDS, RedisLimits, open_redis, try_scripts
from audit_api.redis_settings import RedisSettings
from tests.servers.kafka import free_ports
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.anyio

NEVER = Allowance(per_second=1e-6, burst=4)
"""Four, and no more while a test runs."""


def own(allowance: Allowance = NEVER, monotonic: Callable[[], float] = time.monotonic) -> OwnLimits:
    return OwnLimits(requests=allowance, exports=Allowance(per_second=1e-6, burst=1), monotonic=monotonic)


@asynccontextmanager
async def limits_in(
    settings: RedisSettings, allowance: Allowance = NEVER, monotonic: Callable[[], float] = time.monotonic
) -> AsyncIterator[tuple[RedisLimits, ApiMetrics]]:
    """As one API process has them."""
    metrics = ApiMetrics()
    limits = RedisLimits(
        open_redis(settings),
        prefix=settings.prefix,
        own=own(allowance, monotonic),
        timeout_seconds=settings.timeout_seconds,
        metrics=metrics,
        monotonic=monotonic,
    )
    try:
        yield limits, metrics
    finally:
        await limits.close()


def value(metrics: ApiMetrics, name: str) -> float:
    found = metrics.registry.get_sample_value(name)
    assert found is not None
    return found


async def told(limits: Limits, name: str, *, rows: int) -> Taken:
    """What a principal was given, once it is so many rows: they are sent beside what goes on."""
    with anyio.fail_after(60):
        while True:
            taken = await limits.taken(name)
            assert taken.rows <= rows
            if taken.rows == rows:
                return taken
            await anyio.sleep(0.01)


async def holds_its_promises(limits: Limits, name: str) -> None:
    """What every implementation does."""
    assert [await limits.take("requests", name) == 0 for _ in range(6)] == [True] * 4 + [False] * 2
    wait = await limits.take("requests", name)
    assert 0 < wait <= 1e6
    assert await limits.take("requests", f"{name}-other") == 0, "each has their own"
    assert await limits.take("exports", name) == 0, "exports are counted apart"
    assert await limits.take("exports", name) > 0


async def test_own_limits_hold_their_promises() -> None:
    await holds_its_promises(own(), "ann")


@pytest.fixture
def settings(redis_server: RedisServer) -> RedisSettings:
    """Keys that no other test has."""
    return redis_server.settings(prefix=f"t{secrets.token_hex(8)}")


@pytest.mark.redis
async def test_limits_in_redis_hold_the_same_promises(settings: RedisSettings) -> None:
    async with limits_in(settings) as (limits, metrics):
        await holds_its_promises(limits, "ann")
        assert value(metrics, "tally_api_limits_shared") == 1
        assert value(metrics, "tally_api_shared_limit_failures_total") == 0


@pytest.mark.redis
async def test_processes_count_together(settings: RedisSettings) -> None:
    async with limits_in(settings) as (one, _), limits_in(settings) as (other, _):
        waits = await asyncio.gather(*(limits.take("requests", "ann") for limits in (one, other) * 10))
        assert sum(wait == 0 for wait in waits) == NEVER.burst


@pytest.mark.redis
async def test_a_bucket_fills_again_and_is_then_forgotten(settings: RedisSettings, redis_server: RedisServer) -> None:
    async with limits_in(settings, Allowance(per_second=50.0, burst=1)) as (limits, _):
        with anyio.fail_after(60):
            assert await limits.take("requests", "ann") == 0
            (key,) = redis_server.ask("KEYS", f"{settings.prefix}:*").splitlines()
            assert 0 < int(redis_server.ask("PTTL", key)) <= 1_020
            wait = await limits.take("requests", "ann")
            while wait:
                assert wait <= 1 / 50.0
                await anyio.sleep(wait)
                wait = await limits.take("requests", "ann")


@pytest.mark.redis
async def test_rows_of_a_day_are_counted_together(settings: RedisSettings, redis_server: RedisServer) -> None:
    async with limits_in(settings) as (one, _), limits_in(settings) as (other, _):
        assert (await one.taken("ann")).rows == 0
        one.spend("ann", 700)
        other.spend("ann", 50)
        other.spend("bob", 1)
        taken = await told(one, "ann", rows=750)
        assert 22 * 3_600 < taken.free_seconds <= 24 * 3_600
        key = next(
            one
            for one in redis_server.ask("KEYS", f"{settings.prefix}:rows:*").splitlines()
            if "750" in redis_server.ask("HVALS", one)
        )
        (hour,) = redis_server.ask("HKEYS", key).splitlines()
        redis_server.ask("HSET", key, str(int(hour) - 23), "5", str(int(hour) - 24), "1000")
        taken = await one.taken("ann")
        assert taken.rows == 755, "what is older than a day counts no more"
        assert taken.free_seconds <= 3_600
        assert int(redis_server.ask("TTL", key)) > 23 * 3_600


@pytest.mark.redis
async def test_over_tls_as_a_user_who_may_no_more_than_this_needs(redis_server: RedisServer) -> None:
    settings = redis_server.tls_settings()
    async with limits_in(settings) as (limits, metrics):
        await holds_its_promises(limits, "secret-name@example")
        limits.spend("secret-name@example", 7)
        await told(limits, "secret-name@example", rows=7)
        assert value(metrics, "tally_api_shared_limit_failures_total") == 0
    keys = redis_server.ask("KEYS", "tally:*")
    assert keys
    assert "secret" not in keys
    elsewhere = msgspec.structs.replace(settings, prefix="others")
    async with limits_in(elsewhere) as (limits, metrics):
        assert await limits.take("requests", "ann") == 0
        assert value(metrics, "tally_api_limits_shared") == 0, "it may touch no other keys"


@pytest.mark.redis
async def test_who_is_not_let_in_counts_alone_and_tells_no_secret(
    redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "password").write_text("not-the-password\n", encoding="utf-8")
    settings = msgspec.structs.replace(redis_server.tls_settings(), password_file=str(tmp_path / "password"))
    with caplog.at_level(logging.INFO):
        async with limits_in(settings) as (limits, metrics):
            await holds_its_promises(limits, "ann")
            assert value(metrics, "tally_api_limits_shared") == 0
    assert "Redis is away" in caplog.text
    assert "not-the-password" not in caplog.text


@pytest.mark.redis
async def test_trying_the_scripts_leaves_nothing(redis_server: RedisServer) -> None:
    client = open_redis(redis_server.settings())
    try:
        await try_scripts(client, "trial")
    finally:
        await client.aclose()
    assert redis_server.ask("KEYS", "trial:*") == ""


@pytest.mark.redis
async def test_it_is_killed_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer() as server, caplog.at_level(logging.INFO):
        async with limits_in(server.settings(timeout_seconds=2.0)) as (limits, metrics):
            assert [await limits.take("requests", "ann") for _ in range(3)] == [0, 0, 0]
            server.kill()
            took = [await limits.take("requests", "ann") == 0 for _ in range(3)]
            assert took == [True, False, False], "nobody starts anew when Redis goes: the process has counted all along"
            assert value(metrics, "tally_api_limits_shared") == 0
            assert value(metrics, "tally_api_shared_limit_failures_total") == 1, "it is not asked each time"
            server.start()
            with anyio.fail_after(60):
                while value(metrics, "tally_api_limits_shared") == 0:
                    await limits.take("requests", "bob")
                    await anyio.sleep(0.05)
    assert "Redis is back" in caplog.text


# ------------------------------------------------------------------------------------------------- without any Redis


async def test_while_nobody_listens_each_process_counts_by_itself() -> None:
    (port,) = free_ports(1)
    async with limits_in(RedisSettings(url=f"redis://127.0.0.1:{port}")) as (limits, metrics):
        await holds_its_promises(limits, "ann")
        assert (await limits.taken("ann")).rows == 0
        limits.spend("ann", 5)
        assert value(metrics, "tally_api_limits_shared") == 0
        assert value(metrics, "tally_api_shared_limit_failures_total") >= 1


async def test_one_that_hangs_is_waited_for_once_in_a_while() -> None:
    at = 0.0
    heard = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = RedisSettings(url=f"redis://127.0.0.1:{port}", timeout_seconds=0.05)
    async with server, limits_in(settings, monotonic=lambda: at) as (limits, metrics):
        for _ in range(50):
            await limits.take("requests", "ann")
        assert value(metrics, "tally_api_shared_limit_failures_total") == 1
        at += REST_SECONDS
        await asyncio.gather(*(limits.take("requests", "ann") for _ in range(50)))
        assert value(metrics, "tally_api_shared_limit_failures_total") == 2, "one asks, the others do not wait"
        assert heard == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "redis://:hunter2@127.0.0.1"}, "holds more than a place"),
        ({"url": "redis://cache.example"}, "needs rediss://"),
        ({"url": "http://127.0.0.1"}, "is no URL such as"),
        ({"url": "redis://127.0.0.1:0"}, "is no URL such as"),
        ({"url": "redis://127.0.0.1/keys"}, "number of a database"),
        ({"url": "redis://127.0.0.1", "ca_file": "ca.pem"}, "settings for TLS"),
        ({"url": "rediss://cache.example", "client_key": "key.pem"}, "belong together"),
        ({"url": "rediss://cache.example", "user": "tally"}, "goes with password_file"),
        ({"password_file": "password"}, "no url"),
    ],
)
async def test_settings_that_protect_less_than_they_seem_to_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said) as refused:
        msgspec.convert(given, RedisSettings)
    assert "hunter2" not in str(refused.value)
    msgspec.convert({"url": "redis://cache.example", "unprotected": True}, RedisSettings)
