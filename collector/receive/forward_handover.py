"""How a Forward connection hands its groups to the intake: in the turn in which they came, or patiently."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from collector.errors import Overloaded, TooLarge
from collector.receive import Intake
from collector.receive.forward_group import Group
from collector.receive.portions import Portions
from collector.rejection import Rejection, place_in
from collector.sender import Sender

__all__ = ["Handover"]

_MAX_BACKOFF_SECONDS = 5.0


class Handover:
    """Of one connection, for one event loop.

    Args:
        intake: what takes the groups.
        sender: whose they are.
        patience_seconds: so long an overloaded intake is tried again for a group whose sender waits for an ack; for others, for ever.

    Attributes:
        flows: cleared while the intake is overloaded.
    """

    def __init__(self, intake: Intake, *, sender: Sender, patience_seconds: float) -> None:
        self._intake = intake
        self._sender = sender
        self._patience_seconds = patience_seconds
        self.flows = asyncio.Event()
        self.flows.set()

    def at_once(self, group: Group) -> asyncio.Future[object] | None:
        """Hand the group over in this turn; None when that takes patience."""
        if group.refused or not group.arrivals:
            return None
        try:
            taken = self._accept(group)
        except (Overloaded, TooLarge):
            return None
        return taken if isinstance(taken, asyncio.Future) else asyncio.ensure_future(taken)

    async def patiently(self, group: Group) -> None:
        """Make a group durable: its dead letters, then its events.

        Raises:
            Overloaded: a group with an ack, after `patience_seconds`.
            TooLarge: a group with an ack, which will never be taken. Others are taken in portions.
        """
        if group.refused:
            name = group.group_id
            rejections = [
                Rejection(raw, error, group.origin, place_in(name, at)) for at, (raw, error) in enumerate(group.refused)
            ]
            await self._again(partial(self._intake.reject, rejections), group)
        if group.chunk is None:
            portions = Portions(group.arrivals, heard=False, sender=self._sender)
            await self._again(partial(portions.hand_over, self._intake), group)
        elif group.arrivals:
            await self._again(partial(self._accept, group), group)

    def _accept(self, group: Group) -> Awaitable[object]:
        # who asks for no ack hears nothing of the store, and must not be taken twice because the store was slow
        return self._intake.accept(
            group.arrivals, group_id=group.group_id, heard=group.chunk is not None, sender=self._sender
        )

    async def _again(self, take: Callable[[], Awaitable[object]], group: Group) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience_seconds
        wait_seconds = 0.0
        while True:
            try:
                await take()
            except Overloaded as error:
                wait_seconds = min(max(error.retry_after_seconds, wait_seconds * 2), _MAX_BACKOFF_SECONDS)
                if group.chunk is not None and loop.time() + wait_seconds > give_up:
                    raise
                self.flows.clear()
                await asyncio.sleep(wait_seconds)
            else:
                self.flows.set()
                return
