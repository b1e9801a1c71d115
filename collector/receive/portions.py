"""Arrivals on their way into an intake, in as few groups as it takes.

For what nobody acknowledges as a whole, or what our own reading has put together (a reading of syslog, a batch of a file or a partition):
a group that is larger than the whole spool is handed over in halves, where somebody who waits for one answer would be refused.
"""

import hashlib
from collections.abc import Awaitable, Callable

from collector.errors import TooLarge
from collector.event import Origin
from collector.prepare import raw_of
from collector.receive import Arrival, Intake
from collector.rejection import Rejection
from collector.sender import OURSELVES, Sender

__all__ = ["Portions"]


class Portions:
    """See the module.

    Args:
        arrivals: in order; what is durable is taken off the list, so that who is told `Overloaded` goes on with the rest.
        group_id: names them all; a portion has a name that follows from it and from its places. None: they have none.
        heard, sender: as in `Intake.accept`.
        most: so many at a time, however many fit; 0: no bound.
        turn: awaited before each portion: whose turn of the event loop it is.
    """

    def __init__(
        self,
        arrivals: list[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
        most: int = 0,
        turn: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._left = arrivals
        self._group_id = group_id
        self._heard = heard
        self._sender = sender
        self._turn = turn
        self._total = len(arrivals)
        self._most = min(most or self._total, self._total)
        self._taken = 0

    async def hand_over(self, intake: Intake) -> None:
        """Make all durable. One that is larger than the whole spool by itself becomes a dead letter.

        Raises:
            Overloaded: not now; call it again for what is left.
        """
        while self._left:
            portion = self._left[: self._most]
            if self._turn is not None:
                await self._turn()
            try:
                await intake.accept(portion, group_id=self._name(len(portion)), heard=self._heard, sender=self._sender)
            except TooLarge as error:
                if len(portion) > 1:
                    self._most = (len(portion) + 1) // 2
                    continue
                await self._reject(portion[0], error, intake)
            self._taken += len(portion)
            del self._left[: len(portion)]

    def _name(self, length: int) -> bytes | None:
        """By its places: the first portion under the name of all would stand for all of them once the spool takes more."""
        if self._group_id is None or length == self._total:
            return self._group_id
        part = b"portion\0%b\0%d\0%d\0%d" % (self._group_id, self._total, self._taken, length)
        return hashlib.sha256(part).digest()

    async def _reject(self, arrival: Arrival, error: TooLarge, intake: Intake) -> None:
        origin = arrival.event.origin or Origin()
        await intake.reject([Rejection(raw_of(arrival), error, origin, arrival.source_id or b"")])
