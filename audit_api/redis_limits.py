"""One count for several API processes, in Redis: what each principal asked, exported and took.

Each script runs whole or not at all, by Redis' own clock, so the processes' clocks need not agree. A principal is named by a hash.
While Redis is away each process counts by itself, and goes on answering (docs/decisions/0049-limits-without-redis.md). Its own buckets
are filled and emptied at all times, so nobody starts anew when that begins.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from audit_api.limits import Budget, Limits, OwnLimits, Taken
from audit_api.metrics import ApiMetrics
from audit_api.redis_settings import RedisSettings

__all__ = ["RedisLimits", "open_redis", "try_scripts"]

_log = logging.getLogger("tally.api")

REST_SECONDS = 1.0
"""After a failure Redis is not asked for so long, so that requests do not all wait for it."""

_CONNECTIONS = 32
_T = TypeVar("_T")

# A token bucket as `audit_api.limits.TokenBuckets` has it. It is forgotten once it would be full again.
_TAKE = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local kept = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = tonumber(kept[1]) or burst
left = math.min(burst, left + math.max(0, now - (tonumber(kept[2]) or now)) * rate)
local wait = 0
if left >= 1 then left = left - 1 else wait = (1 - left) / rate end
redis.call('HSET', KEYS[1], 'left', string.format('%.6f', left), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
return string.format('%.6f', wait)
"""

# Rows by the hour in which they were taken. An hour counts until a day after it began, and what began earlier is forgotten.
_ROWS = """
local now = tonumber(redis.call('TIME')[1])
local hour = math.floor(now / 3600)
if tonumber(ARGV[1]) > 0 then
  redis.call('HINCRBY', KEYS[1], tostring(hour), ARGV[1])
  redis.call('EXPIRE', KEYS[1], 90000)
end
local sum, oldest = 0, hour
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if tonumber(field) <= hour - 24 then
    redis.call('HDEL', KEYS[1], field)
  else
    sum = sum + tonumber(redis.call('HGET', KEYS[1], field))
    oldest = math.min(oldest, tonumber(field))
  end
end
return {sum, (oldest + 24) * 3600 - now}
"""


class _PasswordFile(CredentialProvider):
    """Who we are, as the file says when we connect."""

    def __init__(self, user: str, file: Path) -> None:
        self._user = user
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """User and password; raises OSError when the file cannot be read."""
        with self._file.open(encoding="utf-8") as lines:
            password = lines.readline().rstrip("\r\n")
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same; the file is a line long."""
        return self.get_credentials()


def open_redis(settings: RedisSettings) -> "Redis":
    """A client of the Redis that the settings name; nothing is asked yet. Close it with `aclose`."""
    parts = urlsplit(settings.url)
    options: dict[str, Any] = {
        "host": parts.hostname,
        "port": parts.port or 6379,
        "db": int(parts.path.strip("/") or 0),
        "socket_timeout": settings.timeout_seconds,
        "socket_connect_timeout": settings.timeout_seconds,
        "retry": Retry(NoBackoff(), 0),  # whoever asks has the process's own count instead, at once
        "client_name": "tallystick-api",
        "connection_class": Connection,
    }
    if settings.password_file:
        options["credential_provider"] = _PasswordFile(settings.user, Path(settings.password_file))
    if parts.scheme == "rediss":
        options |= {
            "connection_class": SSLConnection,
            "ssl_ca_certs": settings.ca_file or None,
            "ssl_certfile": settings.client_certificate or None,
            "ssl_keyfile": settings.client_key or None,
        }
    pool = BlockingConnectionPool(max_connections=_CONNECTIONS, timeout=settings.timeout_seconds, **options)
    return Redis.from_pool(pool)


async def try_scripts(client: "Redis", prefix: str) -> None:
    """Run both scripts on keys that nobody uses, and remove them; raises as the client does."""
    keys = [f"{prefix}:doctor:{one}" for one in ("bucket", "rows")]
    await client.register_script(_TAKE)(keys=keys[:1], args=["1.0", 1])
    await client.register_script(_ROWS)(keys=keys[1:], args=[1])
    await client.delete(*keys)


class RedisLimits(Limits):
    """`Limits` that hold over all API processes of a ledger. Used in one event loop; close it.

    Args:
        client: of the Redis, by `open_redis`; closed with this.
        prefix: what the names of our keys begin with.
        own: what this process has counted by itself; it decides while Redis is away.
        timeout_seconds: for an answer, connecting included.
        metrics: where to tell whether limits are shared.
        monotonic: seconds that only go forward.
    """

    def __init__(
        self,
        client: "Redis",
        *,
        prefix: str,
        own: OwnLimits,
        timeout_seconds: float,
        metrics: ApiMetrics,
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._own = own
        self._timeout = timeout_seconds
        self._metrics = metrics
        self._monotonic = monotonic
        self._take = client.register_script(_TAKE)
        self._rows = client.register_script(_ROWS)
        self._away_until = -math.inf
        self._shared: bool | None = None
        self._spending: set[asyncio.Task[None]] = set()

    async def take(self, budget: Budget, principal: str) -> float:
        """See `Limits.take`."""
        own = await self._own.take(budget, principal)
        allowance = self._own.allowance(budget)

        async def ask() -> float:
            key = self._key(budget, principal)
            return float(await self._take(keys=[key], args=[repr(allowance.per_second), allowance.burst]))

        shared = await self._asked(ask)
        return own if shared is None else shared

    def spend(self, principal: str, rows: int) -> None:
        """See `Limits.spend`."""
        if rows:
            task = asyncio.ensure_future(self._spend(principal, rows))
            self._spending.add(task)
            task.add_done_callback(self._spending.discard)

    async def _spend(self, principal: str, rows: int) -> None:
        async def ask() -> object:
            return await self._rows(keys=[self._key("rows", principal)], args=[rows])

        if await self._asked(ask) is None:
            _log.warning("%d exported rows are counted by this process alone", rows)

    async def taken(self, principal: str) -> Taken:
        """See `Limits.taken`."""

        async def ask() -> Taken:
            rows, free = await self._rows(keys=[self._key("rows", principal)], args=[0])
            return Taken(rows=int(rows), free_seconds=float(free))

        return await self._asked(ask) or Taken(rows=0, free_seconds=0.0)

    async def close(self) -> None:
        """See `Limits.close`."""
        await asyncio.gather(*self._spending, return_exceptions=True)
        await self._client.aclose()

    def _key(self, what: str, principal: str) -> str:
        return f"{self._prefix}:{what}:{sha256(principal.encode('utf-8')).hexdigest()[:32]}"

    async def _asked(self, ask: Callable[[], Awaitable[_T]]) -> _T | None:
        """What Redis answers; None while it is away."""
        now = self._monotonic()
        if now < self._away_until:
            return None
        if self._shared is False:
            self._away_until = now + REST_SECONDS  # whoever else asks meanwhile does not wait for it, too
        try:
            async with asyncio.timeout(self._timeout):
                answer = await ask()
        except (RedisError, OSError, ValueError) as error:  # a time-out is an OSError
            self._metrics.shared_limit_failures.inc()
            self._away_until = self._monotonic() + REST_SECONDS
            self._tell(shared=False, why=f"{type(error).__name__}: {error}")
            return None
        self._away_until = -math.inf
        self._tell(shared=True)
        return answer

    def _tell(self, *, shared: bool, why: str = "") -> None:
        if shared == self._shared:
            return
        if not shared:
            _log.warning("Redis is away: limits are this process's own until it is back (%s)", why)
        elif self._shared is not None:
            _log.info("Redis is back: limits are shared again")
        self._shared = shared
        self._metrics.limits_shared.set(shared)
