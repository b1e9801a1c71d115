"""One Beats connection: read, decode, hand over, acknowledge.

A window is handed to the intake in parts; each part is acknowledged after its fsync, so that a sender that loses the
connection in the middle of a window has to send only the rest again. While a part is on its way nothing is read, and every
`keepalive_seconds` the last ack is said again (0, when there was none yet): Beats take silence for a dead connection.
"""

import asyncio
import contextlib
import hashlib
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from collector.errors import Malformed, Overloaded
from collector.event import Origin, format_time
from collector.receive import Arrival, Intake
from collector.receive.ecs import arrival_of_document, place_id
from collector.receive.json_lines import object_of_line
from collector.receive.lumberjack import Document, FrameReader, Window, ack
from collector.receive.portions import Portions
from collector.receive.room import Pace, Room
from collector.receive.turns import Turns
from collector.rejection import Rejection
from collector.sender import Sender

__all__ = ["READ_BYTES", "Connection", "Terms"]

_log = logging.getLogger(__name__)

READ_BYTES = 262_144
"""Most that is read from a connection at a time."""

_UNCLAIMED_BYTES = 1_048_576  # of a window half read: connections times this is bounded anyway
_MAX_BACKOFF_SECONDS = 5.0


class Terms(Protocol):
    """What all connections of a receiver have in common; see `collector.receive.beats.BeatsReceiver`."""

    intake: Intake
    clock: Callable[[], int]
    service: str
    room: Room
    max_document_bytes: int
    part_documents: int
    part_bytes: int
    keepalive_seconds: float
    stalled_seconds: float
    refused: Callable[[str], object]
    turns: Turns


@dataclass(slots=True, kw_only=True)
class _Part:
    """Documents that are made durable and acknowledged together."""

    documents: list[Document] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, document: Document) -> None:
        self.documents.append(document)
        self.size_bytes += document.size_bytes


class Connection:
    """One sender: one part at a time, in order. `nonce`: 16 random bytes that tell its groups from those of every other connection; `number` tells it from those that are open."""

    def __init__(
        self,
        *,
        terms: Terms,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        frames: FrameReader,
        nonce: bytes,
        number: int = 0,
    ) -> None:
        self._terms = terms
        self._reader = reader
        self._writer = writer
        self._frames = frames
        self._nonce = nonce
        self._sender = Sender(connection=number)
        self._pace = Pace(seconds=terms.stalled_seconds)
        self._part = _Part()
        self._parts = 0  # handed over so far
        self._acked = 0  # of this window

    def stop_reading(self) -> None:
        """Take nothing more from the sender: what has arrived here is read to its end, and what is in flight is finished."""
        peer = self._writer.get_extra_info("socket")
        if peer is None:
            return  # over TLS: it has left already, and we are about to hear it
        with contextlib.suppress(OSError):  # it has left already
            peer.shutdown(socket.SHUT_RD)

    async def run(self) -> None:
        """Serve the sender until it leaves, breaks the protocol, or the receiver closes."""
        refused = self._terms.refused
        held_bytes = 0
        try:
            with self._terms.room.claim() as held:
                while data := await self._read():
                    before_bytes = held_bytes
                    for frame in self._frames.frames(data):
                        await self._frame(frame)
                    held_bytes = self._frames.pending_bytes + self._part.size_bytes
                    held.resize(held_bytes if held_bytes > _UNCLAIMED_BYTES else 0)
                    # what is compressed is held as what it says, and counts as that
                    self._pace.check(max(len(data), held_bytes - before_bytes), held.held_bytes)
            if self._frames.pending_bytes or self._frames.in_window:
                refused("cut_message")  # it left in the middle of a window: it knows what was not acknowledged
        except Malformed as error:
            refused("framing")
            await self._bury(error)
        except Overloaded:
            # too slow, or there is no room: waiting for it with a window half read could be waiting for one another
            refused("overloaded")
        except TimeoutError:
            refused("stalled")
        except OSError:
            refused("connection_lost")
        except Exception as error:  # noqa: BLE001 - whatever broke, the sender must not get its ack, and others go on
            refused("intake_error")
            _log.error("a part of a window could not be taken: %s: %s", type(error).__name__, error)

    async def _read(self) -> bytes:
        """The next bytes; between windows a sender may be silent as long as it likes. Raises TimeoutError."""
        amid = self._frames.pending_bytes or self._frames.in_window
        async with asyncio.timeout(self._terms.stalled_seconds if amid else None):
            return await self._reader.read(READ_BYTES)

    async def _frame(self, frame: Window | Document) -> None:
        if isinstance(frame, Window):
            await self._hand_over()
            self._acked = 0
            return
        self._part.add(frame)
        terms = self._terms
        if frame.last or len(self._part.documents) >= terms.part_documents or self._part.size_bytes >= terms.part_bytes:
            await self._hand_over()

    async def _hand_over(self) -> None:
        """Make the part durable, however long it takes, and acknowledge it. Raises OSError: the sender has left."""
        part, self._part = self._part, _Part()
        if not part.documents:
            return
        self._parts += 1
        last = part.documents[-1]
        taking = asyncio.ensure_future(self._take(part.documents, self._parts))
        try:
            while not (await asyncio.wait({taking}, timeout=self._terms.keepalive_seconds))[0]:
                await self._say(last.version, self._acked)
            taking.result()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
        self._acked = last.sequence
        self._pace = Pace(seconds=self._terms.stalled_seconds)  # it was we who took our time
        await self._say(last.version, self._acked)

    async def _say(self, version: int, sequence: int) -> None:
        self._writer.write(ack(version, sequence))
        await self._writer.drain()

    async def _take(self, documents: list[Document], number: int) -> None:
        """Dead letters first, then events; tried again as long as it is too much."""
        await self._terms.turns.of(self._sender).turn()
        intake = self._terms.intake
        observed = format_time(self._terms.clock())
        # a name for each part: what the spool has, but the store had not in time, is recognised when it is tried again
        group_id = hashlib.sha256(b"beats\0%b\0%d" % (self._nonce, number)).digest()
        arrivals: list[Arrival] = []
        refused: list[tuple[bytes, Malformed]] = []
        for document in documents:
            try:
                arrivals.append(self._arrival(document, observed))
            except Malformed as error:
                refused.append((document.json, error))
        portions = Portions(arrivals, group_id=group_id, sender=self._sender)
        wait_seconds = 0.0
        while True:
            try:
                while refused:
                    await self._reject(*refused[0])
                    del refused[0]
                await portions.hand_over(intake)
                return
            except Overloaded as error:
                wait_seconds = min(max(error.retry_after_seconds, wait_seconds * 2), _MAX_BACKOFF_SECONDS)
                await asyncio.sleep(wait_seconds)

    def _arrival(self, document: Document, observed: str) -> Arrival:
        """The event of a document. Raises Malformed: it is none."""
        if len(document.json) > self._terms.max_document_bytes:
            raise Malformed(f"a document of more than {self._terms.max_document_bytes} bytes", label="too_large")
        told: dict[str, Any]
        if document.fields is None:
            told = object_of_line(document.json)
        else:
            told = dict(document.fields)
            if "line" in told and "message" not in told:
                told["message"] = told.pop("line")  # as logstash-forwarder calls it
        metadata = told.get("@metadata")
        beat, name = (metadata.get("beat"), metadata.get("_id")) if type(metadata) is dict else (None, None)
        origin = Origin(receiver="beats", tag=beat if type(beat) is str else "")
        source_id = place_id(told)
        if type(name) is str and name:
            parts = (origin.tag.encode("utf-8", "surrogatepass"), name.encode("utf-8", "surrogatepass"))
            source_id = hashlib.sha256(b"beats\0%d\0%b\0%b" % (len(parts[0]), *parts)).digest()
        return arrival_of_document(
            told, origin=origin, source_id=source_id, service=self._terms.service, observed=observed
        )

    async def _bury(self, error: Malformed) -> None:
        """What could not be read is kept for a person; the sender has no ack for it, and comes again."""
        with contextlib.suppress(Overloaded):
            await self._reject(self._frames.take(), error)

    async def _reject(self, raw: bytes, error: Malformed) -> None:
        # named by its bytes: a sender that has no ack for it comes again, and again
        name = hashlib.sha256(b"beats\0" + raw).digest()
        await self._terms.intake.reject([Rejection(raw, error, Origin(receiver="beats"), name)])
