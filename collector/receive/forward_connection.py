"""One Forward connection: read, decode, hand over, acknowledge.

A message costs as few turns of the event loop as it can: its group is handed to the intake in the turn in which it was
read, and its ack is written by the callback that hears of the fsync. Only a group that the intake does not take at once (it
is overloaded, or there are dead letters to write) gets a task of its own, which tries again.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgpack

from collector.errors import Malformed, Overloaded
from collector.event import Origin
from collector.receive import Intake
from collector.receive.forward_handshake import MAX_PING_BYTES, Greeting, Handshake
from collector.receive.forward_message import Group, MessageReader
from collector.receive.room import Claim, Room

__all__ = ["READ_BYTES", "Connection", "Terms"]

_log = logging.getLogger(__name__)

READ_BYTES = 262_144
"""Most that is read from a connection at a time."""

_UNCLAIMED_BYTES = 1_048_576  # of a message half read: connections times this is bounded anyway
_MAX_BACKOFF_SECONDS = 5.0


class Terms(Protocol):
    """What all connections of a receiver have in common; see `collector.receive.forward.ForwardReceiver`."""

    intake: Intake
    handshake: Handshake | None
    in_flight: int
    patience_seconds: float
    refused: Callable[[str], object]
    room: Room


@dataclass(slots=True, kw_only=True, eq=False)
class _Taking:
    """A group on its way into the intake; `patient` once it has a task that tries again."""

    group: Group
    claim: Claim
    future: asyncio.Future[object]
    patient: bool


class Connection:
    """One sender: reads and decodes, keeps a bounded number of groups in flight, acknowledges in order."""

    def __init__(
        self,
        *,
        terms: Terms,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        messages: MessageReader,
    ) -> None:
        self._terms = terms
        self._reader = reader
        self._writer = writer
        self._messages = messages
        self._taking: deque[_Taking] = deque()  # in the order in which they came
        self._slots = asyncio.Semaphore(terms.in_flight)
        self._settled = asyncio.Event()  # nothing is in flight
        self._settled.set()
        self._given_up = False
        self._flows = asyncio.Event()  # cleared while the intake is overloaded
        self._flows.set()

    def stop_reading(self) -> None:
        """Take nothing more from the sender: what has arrived here is read to its end, and what is in flight is finished."""
        peer = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it has left already
            peer.shutdown(socket.SHUT_RD)

    async def run(self) -> None:
        """Serve the sender until it leaves, breaks the protocol, or the receiver closes."""
        try:
            await self._read()
            await self._settled.wait()
            with contextlib.suppress(OSError):  # it has left: nothing more to say to it
                await self._writer.drain()
        finally:
            self._given_up = True
            left = [taking for taking in self._taking if not taking.future.done()]
            for taking in left:
                self._let_go(taking.group)
                taking.future.cancel()
            await asyncio.gather(*(taking.future for taking in left), return_exceptions=True)

    async def _read(self) -> None:
        refused = self._terms.refused
        try:
            if self._terms.handshake is not None and not await self._greet(self._terms.handshake):
                refused("handshake")
                return
            with self._terms.room.claim() as buffered:
                while not self._given_up and (data := await self._reader.read(READ_BYTES)):
                    for group in self._messages.groups(data):
                        await self._start(group)
                    await self._flows.wait()
                    await self._writer.drain()  # who does not read its acks is not read either
                    pending_bytes = self._messages.pending_bytes
                    buffered.resize(pending_bytes if pending_bytes > _UNCLAIMED_BYTES else 0)
            if self._messages.pending_bytes:
                refused(
                    "cut_message"
                )  # the sender left in the middle of a message: it knows that this one was not taken
        except Malformed as error:
            refused("framing")
            await self._start(Group(origin=Origin(receiver="forward"), refused=[(self._messages.take(), error)]))
        except Overloaded:
            self._give_up("overloaded")  # waiting for room with a message half read could be waiting for one another
        except TimeoutError:
            refused("handshake")
        except OSError:
            self._give_up("connection_lost")

    async def _start(self, group: Group) -> None:
        claim = self._terms.room.claim()
        try:
            await self._slots.acquire()
            await claim.wait(group.size_bytes)
        except asyncio.CancelledError:
            self._let_go(group)
            raise
        at_once = self._at_once(group)
        future = at_once or asyncio.ensure_future(self._take(group))
        taking = _Taking(group=group, claim=claim, future=future, patient=at_once is None)
        self._taking.append(taking)
        self._settled.clear()
        future.add_done_callback(partial(self._ended, taking))

    def _at_once(self, group: Group) -> asyncio.Future[object] | None:
        """Hand the group over in this turn; None when that takes patience."""
        if group.refused or not group.arrivals:
            return None
        try:
            return asyncio.ensure_future(self._accept(group))
        except Overloaded:
            return None

    def _accept(self, group: Group) -> Awaitable[object]:
        # who asks for no ack hears nothing of the store, and must not be taken twice because the store was slow
        return self._terms.intake.accept(group.arrivals, group_id=group.group_id, heard=group.chunk is not None)

    def _ended(self, taking: _Taking, future: asyncio.Future[object]) -> None:
        if not (taking.patient or future.cancelled()) and isinstance(future.exception(), Overloaded):
            taking.patient = True
            taking.future = asyncio.ensure_future(self._take(taking.group))
            taking.future.add_done_callback(partial(self._ended, taking))
            return
        taking.claim.release()
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Ack the groups in their order. After one that was given up none is acknowledged: the sender comes again with them all."""
        while self._taking and self._taking[0].future.done():
            taking = self._taking.popleft()
            self._slots.release()
            error = None if taking.future.cancelled() else taking.future.exception()
            if isinstance(error, Overloaded):
                self._give_up("overloaded")
            elif error is not None:  # whatever broke, the sender must not get its ack, and others go on
                self._give_up("intake_error")
                _log.error("a group could not be taken: %s: %s", type(error).__name__, error)
            if taking.group.chunk is not None and not self._given_up:
                self._writer.write(msgpack.packb({"ack": taking.group.chunk}, unicode_errors="surrogateescape"))
        if not self._taking:
            self._settled.set()

    def _give_up(self, reason: str) -> None:
        if not self._given_up:
            self._given_up = True
            self._terms.refused(reason)
            self.stop_reading()

    async def _take(self, group: Group) -> None:
        """Make a group durable, patiently: its dead letters, then its events.

        Raises:
            Overloaded: a group with an ack, after `patience_seconds`.
        """
        intake = self._terms.intake
        for raw, error in group.refused:
            await self._patiently(partial(intake.reject, raw, error, group.origin), group)
        if group.arrivals:
            await self._patiently(partial(self._accept, group), group)

    def _let_go(self, group: Group) -> None:
        """The receiver closes before a group was taken. Who asked for an ack comes again; of the others it is told."""
        if group.chunk is None:
            for _ in group.arrivals:
                self._terms.refused("unacknowledged_lost")

    async def _patiently(self, take: Callable[[], Awaitable[object]], group: Group) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._terms.patience_seconds
        wait_seconds = 0.0
        while True:
            try:
                await take()
            except Overloaded as error:
                wait_seconds = min(max(error.retry_after_seconds, wait_seconds * 2), _MAX_BACKOFF_SECONDS)
                if group.chunk is not None and loop.time() + wait_seconds > give_up:
                    raise
                self._flows.clear()
                await asyncio.sleep(wait_seconds)
            else:
                self._flows.set()
                return

    async def _greet(self, handshake: Handshake) -> bool:
        """HELO, PING, PONG; False when the sender does not know the key, or says something else."""
        greeting = Greeting(handshake, self._messages)
        self._writer.write(greeting.helo)
        async with asyncio.timeout(handshake.timeout_seconds):
            while not greeting.over:
                self._writer.write(greeting.hear(await self._reader.read(MAX_PING_BYTES)))
            await self._writer.drain()
        return greeting.welcome
