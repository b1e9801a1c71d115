"""Where a Fluent Forward message ends: a connection's bytes in, whole messages out, undecoded.

MessagePack says how long a thing is only bit by bit; its structure is followed without building anything, so a lying length costs nothing.
"""

import re

import msgpack

from collector.errors import Malformed
from collector.receive.fluent_msgpack import MSGPACK_ERRORS

__all__ = ["NIL", "Framing"]

NIL = b"\xc0"
"""A heartbeat; no other message begins with it."""

_NILS = re.compile(re.escape(NIL) + b"+")
"""Found without a copy of what stands behind them: there may be one between any two messages of a read."""

_SHORT_RUN_BYTES = 65_536 + 16
"""More than a run of bytes whose length has 16 bits, and the head of whatever follows."""

_READ_BYTES = 1_048_576
"""What may stand behind a message in the same read."""


class Framing:
    """Cuts what a connection brings into messages of at most `max_message_bytes`.

    `feed` and `next_message` raise `Malformed`: not MessagePack, or a message beyond the limit. The place where the next message begins is lost with it:
    `take` gives what was read, and the connection is of no further use.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()
        self._start = 0  # of the buffer's first byte, counted from the connection's first
        self._least_bytes = 0  # of the message at hand, while there is no unpacker
        self._unpacker: msgpack.Unpacker | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=self._max_message_bytes + _READ_BYTES)
        self._unpacker.feed(self._buffer)
        self._began = self._start

    @property
    def pending_bytes(self) -> int:
        """Bytes that have come of messages that `next_message` has not given out."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Something has arrived. `next_message` is to be asked until it has none before more is fed."""
        self._buffer += data
        try:
            if self._unpacker is not None:
                self._unpacker.feed(data)
            elif len(self._buffer) >= self._least_bytes:
                self._begin_anew()
        except msgpack.BufferFull as error:
            raise self._too_large() from error

    def next_message(self) -> bytes | None:
        """The next whole message; None while there is none. Heartbeats in a row, of which a read may bring a million, are one."""
        unpacker = self._unpacker
        if unpacker is None or not self._buffer:
            return None  # mostly nothing stands behind the last one: the unpacker would say so by an exception
        try:
            if self._buffer[:1] == NIL:
                run = _NILS.match(self._buffer)
                assert run is not None
                count = run.end()
                del run  # it holds the buffer
                unpacker.read_bytes(min(count, self._max_message_bytes))
            else:
                unpacker.skip()
        except msgpack.OutOfData:
            self._see_how_long(self._began + unpacker.tell() - self._start)
            return None
        except MSGPACK_ERRORS as error:
            raise self._lost("not MessagePack", "bad_msgpack") from error
        length = self._began + unpacker.tell() - self._start
        if length > self._max_message_bytes:
            raise self._too_large()
        message = bytes(memoryview(self._buffer)[:length])
        del self._buffer[:length]
        self._start += length
        if length > _READ_BYTES:
            # an unpacker's buffer grows, and never shrinks: some hundred connections would keep gigabytes
            self._begin_anew()
        return message

    def _see_how_long(self, at: int) -> None:
        """The message is not whole: the unpacker stands at this place of the buffer.

        Where more stands behind it than a 16-bit length can announce, it waits for the rest of a run of bytes whose 32-bit length it has just read. If much of
        that is to come, the unpacker goes, and with it a second copy of all that has: some connections with half a long message each are most of the memory.
        """
        least_bytes = len(self._buffer)
        if least_bytes - at > _SHORT_RUN_BYTES:
            least_bytes = at + int.from_bytes(self._buffer[at - 4 : at])
        if least_bytes > self._max_message_bytes:
            raise self._too_large() from None
        if least_bytes - len(self._buffer) > _READ_BYTES:
            self._least_bytes, self._unpacker = least_bytes, None

    def take(self, max_bytes: int = 65_536) -> bytes:
        """Take out what was read and not understood, for the dead letters: cut to `max_bytes`."""
        data = bytes(self._buffer[:max_bytes])
        self._buffer.clear()
        return data

    def _too_large(self) -> Malformed:
        return self._lost(f"a message of more than {self._max_message_bytes} bytes", "too_large")

    def _lost(self, reason: str, label: str) -> Malformed:
        return Malformed(reason, where=f"byte {self._start} of the connection", label=label)
