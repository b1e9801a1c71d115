"""Which offsets may be committed: those behind what is durable, of partitions that are ours. Pure.

An offset that is committed is that of the next message to read (https://kafka.apache.org/documentation/#consumerconfigs, "offsets"). Offsets of
a partition have holes where messages were compacted away or a transaction ended, so an order is kept and nothing is counted: a partition has at most
one batch in hand, and the next one is taken after it is durable.
"""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

__all__ = ["Offsets"]

P = TypeVar("P", bound=Hashable)


class Offsets(Generic[P]):
    """Bookkeeping of one member of a group. `P` names a partition."""

    def __init__(self) -> None:
        self._ours: set[P] = set()
        self._in_hand: dict[P, int] = {}
        self._durable: dict[P, int] = {}
        self._committed: dict[P, int] = {}

    @property
    def ours(self) -> frozenset[P]:
        """The partitions that are assigned to this member."""
        return frozenset(self._ours)

    def assigned(self, partitions: Iterable[P]) -> None:
        """These are ours from now on, and nothing is known of them."""
        for partition in partitions:
            self._forget(partition)
            self._ours.add(partition)

    def revoked(self, partitions: Iterable[P]) -> None:
        """These are ours no more: what is in hand of them is another member's to do."""
        for partition in partitions:
            self._forget(partition)
            self._ours.discard(partition)

    def begins(self, partition: P, offset: int) -> None:
        """Nothing before `offset` is asked for: it may be committed as it is."""
        assert partition in self._ours
        assert partition not in self._in_hand
        self._durable[partition] = max(offset, self._durable.get(partition, 0))

    def take(self, partition: P, next_offset: int) -> bool:
        """Take messages in hand, the last of which is before `next_offset`.

        False: they are not ours to do, or those before them are not done. Then they must be read again.
        """
        if partition not in self._ours or partition in self._in_hand:
            return False
        self._in_hand[partition] = next_offset
        return True

    def holds(self, partition: P, next_offset: int) -> bool:
        """Whether what was taken up to `next_offset` is still in hand."""
        return self._in_hand.get(partition) == next_offset

    def done(self, partition: P) -> None:
        """What is in hand of the partition is durable. Says nothing of a partition that was revoked meanwhile."""
        if partition in self._in_hand:
            self._durable[partition] = max(self._in_hand.pop(partition), self._durable.get(partition, 0))

    def to_commit(self) -> dict[P, int]:
        """What is durable and not committed."""
        return {one: offset for one, offset in self._durable.items() if self._committed.get(one) != offset}

    def committed(self, offsets: dict[P, int]) -> None:
        """The broker has taken these."""
        for partition, offset in offsets.items():
            if partition in self._ours:
                self._committed[partition] = offset

    def _forget(self, partition: P) -> None:
        for table in (self._in_hand, self._durable, self._committed):
            table.pop(partition, None)
