"""How long to wait before trying again: exponential backoff with full jitter, and a circuit breaker above it.

Pure but for the randomness passed in. Full jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Breaker", "RetryLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLimits:
    """Seconds and counts. After `failures_to_open` failures in a row the breaker opens: one trial every `open_seconds`."""

    base_seconds: float = 0.1
    cap_seconds: float = 10.0
    failures_to_open: int = 8
    open_seconds: float = 15.0


class Breaker:
    """Counts failures in a row. `open` tells operators that the store is taken to be down, not merely slow.

    Args:
        limits: the bounds.
        uniform: a number drawn evenly between its two arguments.
    """

    def __init__(self, limits: RetryLimits, *, uniform: Callable[[float, float], float]) -> None:
        self._limits = limits
        self._uniform = uniform
        self.failures = 0

    @property
    def open(self) -> bool:
        """Whether so many trials failed in a row that only one in a while is made."""
        return self.failures >= self._limits.failures_to_open

    def failed(self, *, at_least_seconds: float = 0.0) -> float:
        """Count a failure; returns the seconds to wait before the next trial."""
        self.failures += 1
        if self.open:
            return max(at_least_seconds, self._uniform(self._limits.open_seconds / 2, self._limits.open_seconds))
        bound = min(self._limits.cap_seconds, self._limits.base_seconds * 2.0 ** (self.failures - 1))
        return max(at_least_seconds, self._uniform(0.0, bound))

    def succeeded(self) -> None:
        """A trial succeeded: close."""
        self.failures = 0
