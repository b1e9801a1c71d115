"""The event store by months: what is there of each, and how a month's events are let go of. For `tally retain` alone.

A batch belongs to the month of `collector.batch.month_of`. Headers and facts stay for ever; it is the events' bytes that go. Whether
they may is not decided here, nor put on record: who calls `drop` has seen to both.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["HeldMonth", "MonthStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldMonth:
    """A month of which the store has events.

    Attributes:
        month: ``2026.01``.
        events: how many, also those of batches that were broken off.
        size_bytes: what they take up, copies included.
        shut: nothing can be written to it, because a `drop` was broken off.
        loose: it lies in more pieces than it must, which `compact` mends.
    """

    month: str
    events: int
    size_bytes: int
    shut: bool = False
    loose: bool = False


class MonthStore(Protocol):
    """Every method raises `Overloaded` when the store cannot be reached or is busy."""

    def held(self) -> Sequence[HeldMonth]:
        """The months of which there is something, ascending; exact as of now."""

    def drop(self, month: str, headers: Collection[str], events: int) -> None:
        """Let go of the month's events, for ever. A month that is not there is gone already.

        A crash in between leaves all, or less; the same call again goes on.

        Args:
            month: which.
            headers: hex digests of the headers of its batches.
            events: how many events the store has of them: if there are others, nothing is done.

        Raises:
            Conflict: there are others, which came meanwhile.
        """

    def reopen(self, month: str) -> None:
        """Let a month be written to again, of which a `drop` was broken off and is not to be."""

    def compact(self, month: str) -> None:
        """Put the month's pieces together, in the background; it can be read and written to meanwhile, and after."""

    def close(self) -> None:
        """Release files and connections."""
