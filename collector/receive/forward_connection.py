"""One Forward connection: read, decode, hand over, acknowledge.

A message costs as few turns of the event loop as it can: its group is handed to the intake in the turn in which it arrived, and its ack is written in
that turn if the intake has committed by then, else by the callback that hears of the fsync. When the turn has had its time, the next message waits for another
(`turns`). What waits longer (for a slot, for room, for the intake, for a sender that does not read its acks) gets a task; meanwhile nothing more is read.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import msgpack

from collector.errors import Malformed, Overloaded, TooLarge
from collector.event import Origin
from collector.receive import Intake
from collector.receive.forward_group import Group, Taking
from collector.receive.forward_guard import certificate_name
from collector.receive.forward_handover import Handover
from collector.receive.forward_handshake import Greeting, Handshake
from collector.receive.forward_message import MessageReader
from collector.receive.room import Claim, Room, is_slow
from collector.receive.turns import Turns
from collector.sender import Sender

__all__ = ["Connection", "Terms"]

_log = logging.getLogger(__name__)

_UNCLAIMED_BYTES = 1_048_576  # of a message half read: connections times this is bounded anyway
_arriving = memoryview(bytearray(1_048_576))
"""What one read of a socket brings, of whichever connection: taken out before the loop reads the next. A chunk comes whole, and so waits for one turn."""


class Terms(Protocol):
    """What all connections of a receiver have in common; see `collector.receive.forward.ForwardReceiver`."""

    intake: Intake
    handshake: Handshake | None
    in_flight: int
    patience_seconds: float
    stalled_seconds: float
    refused: Callable[[str], object]
    room: Room
    turns: Turns

    def admit(self, connection: "Connection") -> bool:
        """A sender has come; False: there are too many."""

    def gone(self, connection: "Connection") -> None:
        """Nothing is left of a connection that was admitted."""


class Connection(asyncio.BufferedProtocol):
    """One sender: reads and decodes, keeps a bounded number of groups in flight, acknowledges in order. `number`: tells it from the others."""

    def __init__(self, *, terms: Terms, messages: MessageReader, number: int = 0) -> None:
        self._terms = terms
        self._sender = Sender(connection=number)
        self._share = terms.turns.of(self._sender)
        self._handover = Handover(terms.intake, sender=self._sender, patience_seconds=terms.patience_seconds)
        self._deferred = False  # the rest is taken in in another turn of the loop
        self._messages = messages
        self._greeting: Greeting | None = None
        self._greeting_timer: asyncio.TimerHandle | None = None
        self._unread: deque[bytes] = deque()  # arrived while something waits: a piece, rarely two
        self._groups: Iterator[Group] = iter(())  # of the piece that is being taken in
        self._buffered = terms.room.claim()
        self._arrived_bytes = 0
        self._stall_timer: asyncio.TimerHandle | None = None
        self._taking: deque[Taking] = deque()  # in the order in which they came
        self._waiting: asyncio.Task[None] | None = None
        self._pack = msgpack.Packer(unicode_errors="surrogateescape").pack
        self._slot = asyncio.Event()  # one of the groups in flight has ended
        self._drained = asyncio.Event()  # cleared while the sender does not read its acks
        self._drained.set()
        self.made = False  # there was a transport
        self.heard = False  # something has arrived
        self._ended = False  # the sender has left, or nothing more is taken from it
        self._given_up = False  # and it gets no more acks
        self._lost = False  # there is no transport any more

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A sender has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.made = True
        if not self._terms.admit(self):
            self._terms.refused("too_many_connections")
            self._ended = True
            transport.close()
            return
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a sender that vanished frees its place
        name = certificate_name(transport.get_extra_info("peercert"))
        if name:
            self._messages.peer = f"certificate:{name}"
        handshake = self._terms.handshake
        if handshake is not None:
            self._greeting = Greeting(handshake, self._messages.framing)
            self._greeting_timer = asyncio.get_running_loop().call_later(handshake.timeout_seconds, self._unwelcome)
            transport.write(self._greeting.helo)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - a BufferedProtocol's
        """Where to put what has arrived."""
        return _arriving

    def buffer_updated(self, nbytes: int) -> None:
        """Something has arrived."""
        data = bytes(_arriving[:nbytes])
        self.heard = True
        self._arrived_bytes += nbytes
        if self._ended:
            return
        if self._greeting is not None:
            self._greet(self._greeting, data)
            return
        self._unread.append(data)
        if not self._waits:
            self._take_in()

    def eof_received(self) -> bool:
        """The sender says no more; it may still read its acks, except over TLS, where both directions end at once."""
        if self._greeting is not None:
            self._greet(self._greeting, b"")
        elif not self._ended:
            self._ended = True
            if not self._waits:
                self._end()
        return self._transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        """The sender does not read its acks: it is not read either."""
        self._drained.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._drained.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more. What was taken from it goes on."""
        self._lost = True
        if exc is not None:
            self._give_up("connection_lost")
        self._ended = True
        for timer in (self._greeting_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._drained.set()
        self._leave()

    # -- what the receiver calls

    def stop_reading(self) -> None:
        """Take nothing more from the sender: what has arrived here is read to its end, and what is in flight is finished."""
        peer = self._transport.get_extra_info("socket")
        if peer is None:
            return  # over TLS: it has left already, and we are about to hear it
        with contextlib.suppress(OSError):  # it has left already
            peer.shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """Let go of what is in flight. Who asked for an ack comes again; of the others it is told."""
        self._given_up = self._ended = True
        if self._waiting is not None:
            self._waiting.cancel()
        for taking in self._taking:
            if not taking.future.done():
                self._let_go(taking.group)
                taking.future.cancel()
        self._transport.abort()

    # -- taking in

    def _greet(self, greeting: Greeting, data: bytes) -> None:
        try:
            self._transport.write(greeting.hear(data))
        except Malformed:
            greeting.over = (
                True  # and nothing is kept: whoever can connect could fill the dead letters, which keeps out everybody
            )
        if greeting.over:
            assert self._greeting_timer is not None
            self._greeting_timer.cancel()
            self._greeting = None
            if not greeting.welcome:
                self._unwelcome(silent=greeting.silent)
            elif not self._messages.peer:
                self._messages.peer = greeting.peer

    def _unwelcome(self, *, silent: bool = False) -> None:
        if not silent:
            self._terms.refused("handshake")
        self._greeting = None
        self._ended = True
        self._leave()

    def _take_in(self, *, its_turn: bool = False) -> None:
        """Take in what has arrived, as far as that goes without waiting; in its turn at least one step, whoever else waits in its share."""
        try:
            while True:
                if self._messages.waiting and not (its_turn or self._share.may_go_on()):
                    self._defer()
                    return
                its_turn = False
                group = next(self._groups, None)
                if group is not None:
                    if self._buffered.held_bytes:
                        # what it was read into is no longer needed: held while the group waits for room, several would wait for one another
                        self._buffered.at_most(self._half_read_bytes)
                    if not self._start_at_once(group):
                        break
                elif self._given_up or not self._unread:
                    half_read_bytes = self._half_read_bytes
                    if half_read_bytes or self._buffered.held_bytes:
                        self._buffered.resize(half_read_bytes)
                    if half_read_bytes and self._stall_timer is None:
                        self._await_more()
                    break
                else:  # a piece that makes no message whole waits for no turn: it would be one for each piece of a message
                    self._messages.hear(self._unread.popleft())
                    self._groups = self._messages.groups()
        except Malformed as error:
            self._lose_framing(error)
        except Overloaded:
            self._give_up("overloaded")  # waiting for room with a message half read could be waiting for one another
        else:
            if group is not None or not (self._ended or (self._handover.flows.is_set() and self._drained.is_set())):
                self._transport.pause_reading()
                self._waiting = asyncio.ensure_future(self._wait(group))

    async def _wait(self, group: Group | None) -> None:
        """Wait until this group, if there is one, can be started and more can be taken in; then read on."""
        try:
            if group is not None:
                await self._start_later(group)
            await self._handover.flows.wait()
            await self._drained.wait()
        finally:
            self._waiting = None
            self._leave()
        self._go_on()

    def _await_more(self) -> None:
        """A long message is half read, and others may want the room that it has: it has to go on."""
        self._stall_timer = asyncio.get_running_loop().call_later(
            self._terms.stalled_seconds, self._see_whether_more_came, self._arrived_bytes
        )

    def _see_whether_more_came(self, before_bytes: int) -> None:
        self._stall_timer = None
        if not self._half_read_bytes:
            return
        came_bytes = self._arrived_bytes - before_bytes
        if is_slow(came_bytes, self._half_read_bytes) and not self._waits:  # who waits for us is not read
            self._give_up("stalled")
        else:
            self._await_more()

    @property
    def _half_read_bytes(self) -> int:
        """What is to be claimed for a message that is not whole yet. After a whole one, what came behind it in the same read is less than counts."""
        pending_bytes = self._messages.framing.pending_bytes
        return pending_bytes if pending_bytes > _UNCLAIMED_BYTES else 0

    @property
    def _waits(self) -> bool:
        return self._deferred or self._waiting is not None

    def _defer(self) -> None:
        self._deferred = True
        self._transport.pause_reading()
        self._share.later(partial(self._go_on, its_turn=True))

    def _go_on(self, *, its_turn: bool = False) -> None:
        self._deferred = False
        self._take_in(its_turn=its_turn)
        if not self._waits:
            if self._ended:
                self._end()
            else:
                self._transport.resume_reading()

    async def _start_later(self, group: Group) -> None:
        claim = self._terms.room.claim()
        try:
            while len(self._taking) >= self._terms.in_flight:
                self._slot.clear()
                await self._slot.wait()
            await claim.wait(group.size_bytes)
        except asyncio.CancelledError:
            self._let_go(group)
            raise
        self._start(group, claim)

    def _end(self) -> None:
        """The sender has left, and all that it said is taken in."""
        if self._messages.framing.pending_bytes and not self._given_up:
            self._terms.refused("cut_message")  # it left in the middle of one: it knows that this one was not taken
        self._leave()

    def _lose_framing(self, error: Malformed) -> None:
        self._terms.refused("framing")
        self._ended = True
        raw = self._messages.framing.take()
        origin = Origin(receiver="forward", peer=self._messages.peer)
        self._start(Group(origin=origin, refused=[(raw, error)]), self._terms.room.claim())

    # -- handing over

    def _start_at_once(self, group: Group) -> bool:
        """Hand the group over unless there is no slot or no room for it just now."""
        if len(self._taking) >= self._terms.in_flight:
            return False
        claim = self._terms.room.claim()
        if not claim.at_once(group.size_bytes):
            return False
        self._start(group, claim)
        return True

    def _start(self, group: Group, claim: Claim) -> None:
        at_once = self._handover.at_once(group)
        future = at_once or asyncio.ensure_future(self._handover.patiently(group))
        taking = Taking(group=group, claim=claim, future=future, patient=at_once is None)
        self._taking.append(taking)
        if future.done():
            self._ended_taking(taking, future)
        else:
            future.add_done_callback(partial(self._ended_taking, taking))

    def _ended_taking(self, taking: Taking, future: asyncio.Future[object]) -> None:
        if not (taking.patient or future.cancelled()) and isinstance(future.exception(), Overloaded | TooLarge):
            taking.patient = True
            taking.future = asyncio.ensure_future(self._handover.patiently(taking.group))
            taking.future.add_done_callback(partial(self._ended_taking, taking))
            return
        taking.claim.release()
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Ack the groups in their order. After one that was given up none is acknowledged: the sender comes again with them all."""
        while self._taking and self._taking[0].future.done():
            taking = self._taking.popleft()
            error = None if taking.future.cancelled() else taking.future.exception()
            if isinstance(error, Overloaded):
                self._give_up("overloaded")
            elif isinstance(error, TooLarge):
                self._give_up(error.label)  # no word says "never": without an ack the sender keeps it, and says so
                _log.warning(
                    "a chunk is not taken, and its connection closed (tag %r): %s", taking.group.origin.tag, error
                )
            elif error is not None:  # whatever broke, the sender must not get its ack, and others go on
                self._give_up("intake_error")
                _log.error("a group could not be taken: %s: %s", type(error).__name__, error)
            if taking.group.chunk is not None and not (self._given_up or self._lost):
                self._transport.write(self._pack({"ack": taking.group.chunk}))
        self._slot.set()
        self._leave()

    def _give_up(self, reason: str) -> None:
        if not self._given_up:
            self._given_up = self._ended = True
            self._terms.refused(reason)
            self._handover.flows.set()  # nobody waits for an intake to which nothing more is brought
            self._leave()

    def _leave(self) -> None:
        """Close once nothing is in flight and nothing more comes."""
        if self._ended and not self._taking and not self._waits:
            self._transport.close()  # what is written already still goes out
            if self._lost:
                self._buffered.release()
                self._terms.gone(self)

    def _let_go(self, group: Group) -> None:
        """The receiver closes before a group was taken. Who asked for an ack comes again; of the others it is told."""
        if group.chunk is None:
            for _ in group.arrivals:
                self._terms.refused("unacknowledged_lost")
