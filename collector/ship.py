"""Shipping: cut a batch from the spool, sign its header, sync it, then send events and header to the store.

One batch is in flight a stream, so a missing number in the store is a gap and nothing else. What a crash means: before the
header is synced, the batch was never sent and is cut anew; after it, the same batch is sent again, and the store knows it.
Segments stay until the correlator's log covers them (`EventStore.acknowledged`), so a batch that the store loses before can be
sent again (`Shipper.heal`). A store that was put back to an older state may say less than it said then: what the spool has let
go of is not asked for again. And what the store and the log hold under a number may be the batch of another copy of this spool: so
the start asks for the header, and so does who lets go of segments, and sends again from the newest one that is there as we signed it.

`Shipper` is a plain state machine that one thread steps; waiting, retry and the circuit breaker are in `collector.pipeline`.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import Batch, BatchHeader, Clock, Fork, SignedHeader, StreamId, facts_root, sign_header
from collector.errors import Conflict, VerificationError
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
        asks: whether a start asks the store what it has. Else all that the log does not hold is sent again: for who never heals.
        limits: how large batches grow, and how often an empty one is sent; may be changed.
        heal: when and how much of what the store has lost is sent again.

    Attributes:
        shipped: the number up to which the store has taken the stream's batches.
        stored_below: it has taken every event below this sequence.
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
        asks: bool = True,
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
        acknowledged = store.acknowledged(stream)
        there, self.shipped = self._there(acknowledged, asks=asks), self._gone
        if self.shipped > there:  # segments go only when the log has their batches, so the store has said more before
            _log.warning(
                "%s: the store says that the log holds %d batches, and has said more before: it was put back, or is another one."
                " %d that it lacks are not in the spool any more; what comes after them is sent again",
                stream,
                acknowledged,
                self.shipped - there,
            )
        # the newest that is there may have been on its way when the last process ended: it is sent again, too
        on_its_way = there > max(acknowledged, headers.oldest - 1)
        self.shipped = max(self.shipped, there - on_its_way)
        self._acknowledged = min(acknowledged, self.shipped)
        self._unsent: Batch | None = None
        self._last_created_ns = clock() if headers.last else 0
        self.stored_below = headers.sequence_behind(self.shipped)
        self._cursor: Cursor | None = None  # to be looked up

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
        return self._spool.next_sequence - self.stored_below

    @property
    def refused(self) -> SignedHeader | None:
        """The header in flight: after a `Conflict`, the one that the store has with other bytes."""
        return self._unsent.signed if self._unsent else None

    def step(self, *, ending: bool = False) -> bool:
        """Send one batch if there is one: a re-send, new events, a heartbeat when due. False when nothing is to be sent.

        With `ending` nothing more comes into the spool: in the heartbeat's place stands, at once, the header that closes the stream.

        Raises:
            Overloaded: the store does not take it now; step again later, the same batch will be sent.
            Conflict: the store holds another batch under this number: the spool was cloned.
            Damaged: the spool does not read back.
            OSError: the header could not be synced; nothing was sent.
        """
        if self._unsent is None:
            self._unsent = self._next(ending=ending)
            if self._unsent is None:
                return False
        self._store.append(self._unsent)
        header = self._unsent.signed.header
        self.shipped, self.stored_below, self._unsent = header.number, header.first + header.count, None
        return True

    def close_stream(self) -> None:
        """Cut the closing header; only after the last event is shipped (`waiting_events` is 0). Sent by the next `step`."""
        if not self.closed and self._unsent is None and not self._cut_before:
            self._unsent = self._sign([], closed=True)

    def release(self) -> None:
        """Ask the store what the log holds, and let go of segments and headers up to there.

        Raises:
            Overloaded: the store does not answer.
            Damaged: the header that it is to be asked for does not read back; nothing was let go of.
        """
        # no further than the store took it from us: after a restart what follows is to be read and sent again, and under its numbers
        # the log may hold the batches of another copy of this spool
        acknowledged = min(self._store.acknowledged(self.stream), self.shipped)
        if acknowledged <= self._acknowledged and not self._spool.refusals.now:
            return
        if acknowledged > self._acknowledged:
            # the store may have been put back to an older state meanwhile, and have taken another copy's batches in the place of ours
            ours = self._newest_there(max(self._acknowledged, self._gone) + 1, acknowledged, acknowledged)
            if ours < acknowledged:
                self._go_back(ours)
                acknowledged = ours
        self._acknowledged = acknowledged
        self._spool.release(self._headers.sequence_behind(acknowledged))
        self._headers.release(acknowledged)

    def heal(self, now_seconds: float) -> int:
        """Send again what the store took and has lost, if it is time to look; returns how many batches.

        `now_seconds`: any clock that never goes back. What cannot be sent again is told in the log, and shipping goes on.

        Raises Overloaded when the store does not answer.
        """
        lost = self._lost.look(
            now_seconds, covered=self._acknowledged, shipped=self.shipped, after=self._readable_after
        )
        sent = 0
        for signed in lost:
            number = signed.header.number
            try:
                batch, _ = self._same_again(signed, self._spool.seek(signed.header.first))
                self._store.append(batch)
            except Damaged as error:
                _log.error(
                    "batch %d of %s is lost in the store, and cannot be sent again: %s", number, self.stream, error
                )
                continue
            except Conflict:
                self._go_back(number - 1)  # since the look another copy has filled its place
                break
            _log.warning("batch %d of %s was lost in the store: sent again", number, self.stream)
            sent += 1
        return sent

    def _there(self, acknowledged: int, *, asks: bool) -> int:
        """The number up to which the store has this stream as we signed it, but for what it may have lost: that is healed.

        Each header names the one before, and was sent when the store had taken that: so one that is there speaks for all before it, and
        the newest is found by halving. It may be older than `acknowledged`, if the spool was cloned.

        Raises Overloaded when the store does not answer.
        """
        if self._headers.last is None:
            return 0
        newest = self._headers.last.header.number
        if not asks and newest > acknowledged:
            newest = max(acknowledged, self._headers.oldest - 1)
        covered = min(acknowledged, newest)
        there = self._newest_there(self._headers.oldest, covered, acknowledged)
        if there < covered:
            return there  # whatever is behind: since the store was put back another copy's may stand between
        return self._newest_there(max(self._headers.oldest, covered + 1), newest, acknowledged)

    def _newest_there(self, oldest: int, newest: int, acknowledged: int) -> int:
        """Of the batches from `oldest` to `newest` the number of the newest that is there as we signed it; else the one before `oldest`."""
        if newest < oldest or self._is_there(newest, acknowledged):
            return newest
        numbers = range(oldest, newest)
        return oldest - 1 + bisect_left(numbers, x=True, key=lambda number: not self._is_there(number, acknowledged))

    def _go_back(self, number: int) -> None:
        """What was sent behind `number` is sent again: the store has lost it, or has another one in its place and says so then."""
        self.shipped, self.stored_below, self._unsent = number, self._headers.sequence_behind(number), None
        self._cursor = None

    def _is_there(self, number: int, acknowledged: int) -> bool:
        """Whether the store has the batch that we signed under this number; of one that cannot tell, whether it had it."""
        signed = next(self._headers.after(number - 1))
        try:
            stored = self._store.batch(self.stream, number)
        except VerificationError:
            return number <= acknowledged  # changed since: no sign that it was another's
        if stored is None:
            return number <= acknowledged and not self._store.keeps_headers
        # another one is refused when ours is sent again: then its events are taken over
        return stored.data == signed.data

    def _readable_after(self, number: int) -> Iterator[SignedHeader]:
        """The headers kept behind `number`, without those of batches that begin in a segment that is gone."""
        try:
            yield from self._headers.after(max(number, self._gone))
        except Damaged as error:
            _log.error("what the store may have lost of %s cannot be looked up: %s", self.stream, error)

    @property
    def _gone(self) -> int:
        """The number up to which batches begin in segments that are gone: they cannot be sent again."""
        return self._headers.last_below(self._spool.start.segment)

    @property
    def _cut_before(self) -> bool:
        """Whether batches are to be sent that were cut before."""
        return self._headers.last is not None and self.shipped < self._headers.last.header.number

    def _next(self, *, ending: bool) -> Batch | None:
        if self._cursor is None:
            self._cursor = self._spool.seek(self.stored_below)
        if self._cut_before:
            batch, self._cursor = self._same_again(next(self._headers.after(self.shipped)), self._cursor)
            return batch
        if self.closed:
            return None
        frames, behind = self._frames(self._cursor)
        while frames and not any(frame.count for frame in frames):
            self._cursor = behind  # groups of which every event was known: nothing to ship
            frames, behind = self._frames(behind)
        if frames:
            batch = self._sign(frames)
            self._cursor = behind
            return batch
        if ending:
            return self._sign([], closed=True)
        heartbeat_ns = self.limits.heartbeat_seconds * 1_000_000_000
        # below 0 the clock was set back: how long it was quiet is not known, and the promise may be due
        if heartbeat_ns and not 0 <= self._clock() - self._last_created_ns < heartbeat_ns:
            return self._sign([])
        return None

    def _frames(self, cursor: Cursor) -> tuple[list[Frame], Cursor]:
        return self._spool.frames(cursor, events=self.limits.events, limit_bytes=self.limits.size_bytes)

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
            first=self._headers.next_sequence,
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
