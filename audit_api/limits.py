"""How much one may ask: a token bucket a principal, and a bound on how many refusals are put on record one by one.

`Limits` is what the gate asks: `OwnLimits` are this process's, `audit_api.redis_limits.RedisLimits` those of several together.

A refusal costs its sender nothing and us an entry for ever, so who is refused could fill the spool. Hence `RefusalBudget`: of
each principal the first refusals of a minute are recorded one by one, the rest as one entry with their count.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Allowance", "Budget", "Limits", "OwnLimits", "RefusalBudget", "Surplus", "Taken", "TokenBuckets"]

Budget = Literal["requests", "exports"]
"""What is counted: requests, and of them those that take content away."""

_MINUTE_NS = 60_000_000_000
MAX_TRACKED = 10_000


class TokenBuckets:
    """Each name may ask `rate` times a second on average, and `burst` times at once.

    Args:
        rate: requests a second.
        burst: requests that can be saved up.
        monotonic: seconds that only go forward.
    """

    def __init__(self, *, rate: float, burst: int, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """0 when the name may ask now (and then has), else the seconds until it may."""
        now = self._monotonic()
        left, at = self._buckets.pop(name, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        wait = 0.0 if left >= 1.0 else (1.0 - left) / self._rate
        self._buckets[name] = (left - 1.0 if not wait else left, now)
        if len(self._buckets) > MAX_TRACKED:
            self._buckets.popitem(last=False)  # who has asked longest ago: its bucket is full again by now
        return wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How often a principal may ask on average, and how many times at once."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Rows that a principal was given within the last day, and after how many seconds the oldest of them count no more."""

    rows: int
    free_seconds: float


class Limits(Protocol):
    """How much each principal may ask. Used in the event loop; closed with the application."""

    async def take(self, budget: Budget, principal: str) -> float:
        """0 when the principal may ask now (and then has), else the seconds until it may; never raises."""

    def spend(self, principal: str, rows: int) -> None:
        """Rows that a principal was given, for who counts them together with us."""

    async def taken(self, principal: str) -> Taken:
        """What a principal was given, by us and by who counts together with us; none where that cannot be told. Never raises."""

    async def close(self) -> None:
        """Let go of connections."""


class OwnLimits(Limits):
    """`Limits` of this process alone, in memory. What rows were given it leaves to `audit_api.export.shelf.Shelf`.

    Args:
        requests, exports: what a principal may.
        monotonic: seconds that only go forward.
    """

    def __init__(self, *, requests: Allowance, exports: Allowance, monotonic: Callable[[], float]) -> None:
        self._allowances: dict[Budget, Allowance] = {"requests": requests, "exports": exports}
        self._buckets = {
            budget: TokenBuckets(rate=one.per_second, burst=one.burst, monotonic=monotonic)
            for budget, one in self._allowances.items()
        }

    def allowance(self, budget: Budget) -> Allowance:
        """What a principal may."""
        return self._allowances[budget]

    async def take(self, budget: Budget, principal: str) -> float:
        """See `Limits.take`."""
        return self._buckets[budget].take(principal)

    def spend(self, principal: str, rows: int) -> None:
        """Nobody counts together with us."""

    async def taken(self, principal: str) -> Taken:  # noqa: ARG002 - the protocol's signature
        """Nobody counts together with us."""
        return Taken(rows=0, free_seconds=0.0)

    async def close(self) -> None:
        """There is nothing to let go of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """Refusals of a principal that were counted and not recorded one by one, in the minute that began at `since_ns`."""

    principal: str
    refusals: int
    since_ns: int


@dataclass(slots=True)
class _Minute:
    start_ns: int
    recorded: int = 0
    counted: int = 0


class RefusalBudget:
    """Which refusals are recorded one by one, and how many are not.

    Args:
        per_minute: how many of each principal.
        clock: Unix time in nanoseconds.
    """

    def __init__(self, *, per_minute: int, clock: Callable[[], int]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._minutes: OrderedDict[str, _Minute] = OrderedDict()
        self._over: list[Surplus] = []

    def take(self, principal: str) -> bool:
        """Whether this refusal is to be recorded by itself; else it is counted for `surplus`."""
        start = self._clock() // _MINUTE_NS * _MINUTE_NS
        minute = self._minutes.get(principal)
        if minute is None or minute.start_ns != start:
            self._close(principal)
            minute = self._minutes[principal] = _Minute(start)
            if len(self._minutes) > MAX_TRACKED:
                self._close(next(iter(self._minutes)))
        if minute.recorded < self._per_minute:
            minute.recorded += 1
            return True
        minute.counted += 1
        return False

    def surplus(self, *, all_of_it: bool = False) -> list[Surplus]:
        """What was counted in minutes that are over (`all_of_it`: in the present one, too), each told once."""
        now = self._clock() // _MINUTE_NS * _MINUTE_NS
        for principal in [name for name, minute in self._minutes.items() if all_of_it or minute.start_ns != now]:
            self._close(principal)
        over, self._over = self._over, []
        return over

    def give_back(self, surplus: Sequence[Surplus]) -> None:
        """These could not be recorded: they will be told again."""
        self._over.extend(surplus)

    def _close(self, principal: str) -> None:
        minute = self._minutes.pop(principal, None)
        if minute is not None and minute.counted:
            self._over.append(Surplus(principal=principal, refusals=minute.counted, since_ns=minute.start_ns))
