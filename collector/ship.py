"""Shipping: cut a batch from the spool, sign its header, sync it, then send events and header to the store.

One batch is in flight a stream, so a missing number in the store is a gap and nothing else. What a crash means: before the
header is synced, the batch was never sent and is cut anew; after it, the same batch is sent again, and the store knows it.
Segments stay until the correlator's log covers them (`EventStore.acknowledged`), so a batch that the store loses before can be
sent again (`Shipper.heal`).

`Shipper` is a plain state machine that one thread steps; waiting, retry and the circuit breaker are in `collector.pipeline`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import Batch, BatchHeader, Clock, Fork, SignedHeader, StreamId, facts_root, sign_header
from collector.errors import Conflict
from collector.event import format_time
from collector.frame import MAX_FRAME_BYTES, Frame
from collector.headerlog import HeaderLog
from collector.heal import HealLimits, LostBatches
from collector.segments import Damaged
from collector.spool import Cursor, Spool
from collector.store import Destination

__all__ = ["BatchLimits", "Shipper", "public_key_hex"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How large a batch grows, and how often a quiet stream shows that it lives.

    A batch is whole frames, so it may exceed `events` and `size_bytes` by one frame.
    """

    events: int = 2_000
    size_bytes: int = 4 * 1024**2
    heartbeat_seconds: int = 60


class Shipper:
    """Ships one stream's spool. Not thread-safe: one thread steps it.

    Args:
        stream, ledger: what the headers name.
        spool: the stream's spool, open.
        headers: the stream's header log, open.
        store: where batches go.
        key: signs the headers.
        clock: Unix time in nanoseconds.
        measured_clock: the clock's measured offset for the header, None when unmeasured.
        fork: what the first header says of the stream this one replaces.
        limits: how large batches grow, and how often an empty one is sent; may be changed.
        heal: when and how much of what the store has lost is sent again.
    """

    def __init__(
        self,
        *,
        stream: StreamId,
        ledger: str,
        spool: Spool,
        headers: HeaderLog,
        store: Destination,
        key: Ed25519PrivateKey,
        clock: Callable[[], int],
        limits: BatchLimits | None = None,
        measured_clock: Callable[[], Clock | None] = lambda: None,
        fork: Fork | None = None,
        heal: HealLimits | None = None,
    ) -> None:
        self.stream = stream
        self._ledger = ledger
        self._spool = spool
        self._headers = headers
        self._store = store
        self._key = key
        self._public = public_key_hex(key)
        self._clock = clock
        self.limits = limits or BatchLimits()
        self._measured_clock = measured_clock
        self._fork = fork
        self._lost = LostBatches(stream, store=store, limits=heal or HealLimits())
        self._acknowledged = store.acknowledged(stream)
        self._resend = headers.after(self._acknowledged)
        self._kept_to_resend = False
        self._unsent: Batch | None = None
        last = headers.last
        self._cut = last.header.first + last.header.count if last else 0
        self.shipped = self._resend[0].header.number - 1 if self._resend else (last.header.number if last else 0)
        self._last_created_ns = clock() if last else 0
        self._cursor = spool.seek(self._resend[0].header.first if self._resend else self._cut)

    @property
    def closed(self) -> bool:
        """Whether the last header that was cut closes the stream."""
        return self._headers.last is not None and self._headers.last.header.closed

    @property
    def finished(self) -> bool:
        """Whether the stream is closed and the log holds all of it: the spool may be removed."""
        last = self._headers.last
        return last is not None and last.header.closed and self._acknowledged >= last.header.number

    @property
    def acknowledged(self) -> int:
        """The batch number up to which the log held the stream when last asked (`release`)."""
        return self._acknowledged

    @property
    def waiting_events(self) -> int:
        """Durable events that the store does not have yet."""
        unsent = self._unsent.signed.header.count if self._unsent else 0
        return self._spool.next_sequence - self._cut + unsent + sum(signed.header.count for signed in self._resend)

    @property
    def stored_below(self) -> int:
        """The store has taken every event of the stream below this sequence."""
        if self._unsent is not None:
            return self._unsent.signed.header.first
        return self._resend[0].header.first if self._resend else self._cut

    @property
    def refused(self) -> SignedHeader | None:
        """The header in flight: after a `Conflict`, the one that the store has with other bytes."""
        return self._unsent.signed if self._unsent else None

    def step(self) -> bool:
        """Send one batch if there is one: a re-send, new events, a heartbeat when due. False when nothing is to be sent.

        Raises:
            Overloaded: the store does not take it now; step again later, the same batch will be sent.
            Conflict: the store holds another batch under this number: the spool was cloned.
            Damaged: the spool does not read back.
            OSError: the header could not be synced; nothing was sent.
        """
        if self._unsent is None:
            self._unsent = self._next()
            if self._unsent is None:
                return False
        self._store.append(self._unsent)
        self.shipped = self._unsent.signed.header.number
        self._unsent = None
        return True

    def close_stream(self) -> None:
        """Cut the closing header; only after the last event is shipped (`waiting_events` is 0). Sent by the next `step`."""
        if not self.closed and self._unsent is None:
            self._unsent = self._sign([], closed=True)

    def release(self) -> None:
        """Ask the store what the log holds, and let go of segments and headers up to there.

        Raises Overloaded when the store does not answer.
        """
        acknowledged = self._store.acknowledged(self.stream)
        if acknowledged <= self._acknowledged and not self._kept_to_resend and not self._spool.refusals.now:
            return
        self._acknowledged = acknowledged
        following = self._headers.after(acknowledged)
        covered = following[0].header.first if following else self._cut
        # after a restart the log may hold more and more of what is still to be sent again: its events are read from the spool
        self._kept_to_resend = self.stored_below < covered
        self._spool.release(min(covered, self.stored_below))
        self._headers.release(acknowledged)

    def heal(self, now_seconds: float) -> int:
        """Send again what the store took and has lost, if it is time to look; returns how many batches.

        `now_seconds`: any clock that never goes back. What cannot be sent again is told in the log, and shipping goes on.

        Raises Overloaded when the store does not answer.
        """
        lost = self._lost.look(now_seconds, covered=self._acknowledged, shipped=self.shipped, after=self._headers.after)
        sent = 0
        for signed in lost:
            number = signed.header.number
            try:
                batch, _ = self._same_again(signed, self._spool.seek(signed.header.first))
                self._store.append(batch)
            except (Damaged, Conflict) as error:
                _log.error(
                    "batch %d of %s is lost in the store, and cannot be sent again: %s", number, self.stream, error
                )
                continue
            _log.warning("batch %d of %s was lost in the store: sent again", number, self.stream)
            sent += 1
        return sent

    def _next(self) -> Batch | None:
        if self._resend:
            signed = self._resend[0]
            batch, self._cursor = self._same_again(signed, self._cursor)
            del self._resend[0]
            return batch
        if self.closed:
            return None
        frames, behind = self._frames()
        while frames and not any(frame.count for frame in frames):
            self._cursor = behind  # groups of which every event was known: nothing to ship
            frames, behind = self._frames()
        if frames:
            batch = self._sign(frames)
            self._cursor = behind
            return batch
        heartbeat_ns = self.limits.heartbeat_seconds * 1_000_000_000
        if heartbeat_ns and self._clock() - self._last_created_ns >= heartbeat_ns:
            return self._sign([])
        return None

    def _frames(self) -> tuple[list[Frame], Cursor]:
        return self._spool.frames(self._cursor, events=self.limits.events, limit_bytes=self.limits.size_bytes)

    def _sign(self, frames: Sequence[Frame], *, closed: bool = False) -> Batch:
        now_ns = self._clock()
        created = format_time(now_ns)
        facts = b"".join(frame.facts for frame in frames)
        lines = facts.split(b"\n")[:-1]
        last = self._headers.last
        header = BatchHeader(
            v=1,
            ledger=self._ledger,
            stream=self.stream,
            number=last.header.number + 1 if last else 1,
            first=self._cut,
            count=len(lines),
            previous=last.digest if last else "",
            facts_root=facts_root(lines),
            key=self._public,
            created=created,
            clock=self._measured_clock(),
            place=self._store.place(created),
            heartbeat_seconds=self.limits.heartbeat_seconds,
            closed=closed,
            fork=self._fork if last is None else None,
        )
        signed = sign_header(header, self._key, facts)
        # a crash before this line: never sent, cut anew. After it: found on restart and sent as it stands
        self._headers.append(signed)
        self._cut += len(lines)
        self._last_created_ns = now_ns
        return _batch(signed, frames)

    def _same_again(self, signed: SignedHeader, cursor: Cursor) -> tuple[Batch, Cursor]:
        """The batch of a header that was cut before, its events read again from `cursor` on; and the place behind them."""
        header = signed.header
        frames: list[Frame] = []
        have = 0
        while have < header.count:
            found, cursor = self._spool.frames(cursor, events=header.count - have, limit_bytes=MAX_FRAME_BYTES)
            if not found:
                break
            have += sum(frame.count for frame in found)
            frames.extend(found)
        facts = b"".join(frame.facts for frame in frames)
        if have != header.count or facts_root(facts.split(b"\n")[:-1]) != header.facts_root:
            raise Damaged(f"spool of {self.stream}: the events of batch {header.number} are not those that were signed")
        again = SignedHeader(header=header, data=signed.data, signature=signed.signature, facts=facts)
        return _batch(again, frames), cursor


def public_key_hex(key: Ed25519PrivateKey) -> str:
    """The raw public key as 64 hex digits: what headers name as their `key`."""
    return key.public_key().public_bytes_raw().hex()


def _batch(signed: SignedHeader, frames: Sequence[Frame]) -> Batch:
    lengths: list[int] = []
    for frame in frames:
        lengths.extend(frame.event_lengths)
    return Batch(signed=signed, events=b"".join(frame.events for frame in frames), lengths=lengths)
