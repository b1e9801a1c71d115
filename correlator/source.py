"""What the store has next: batches of every open stream in turn, in bounded numbers, late ones, and bad ones by name.

All reading of the store for a step happens here, before the step changes anything: a store that does not answer then
costs nothing but time.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from collector.batch import SignedHeader, StreamId, is_stream_id
from collector.store import EventStore
from correlator.errors import VerificationError
from correlator.streams import Missing, StreamState

__all__ = ["BadBatch", "BatchSource"]

_BATCHES_A_READ = 16
_SEARCHED_NUMBERS = 1_024
_LATE_NUMBERS = 64
_NAMES_TOLD = 3
_NAME_CHARACTERS = 100

_log = logging.getLogger("tally.correlator")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadBatch:
    """A batch in the store that cannot be read: its header, signature or facts do not hold."""

    stream: str
    number: int
    error: VerificationError


@dataclass(slots=True, kw_only=True)
class _Round:
    """One turn through all open streams."""

    left: deque[StreamId] = field(default_factory=deque)
    quiet: dict[str, int] = field(default_factory=dict)


class BatchSource:
    """Reads batches for the correlator.

    Args:
        store: where they are.
        streams: what the log has of each stream; changes as batches are logged.
        group: streams asked for in one call.
        clock: monotonic nanoseconds.
        wall_clock: nanoseconds since 1970.
        recheck_seconds: how often missing numbers and stopped streams are asked for.
    """

    def __init__(
        self,
        store: EventStore,
        streams: Mapping[str, StreamState],
        *,
        group: int,
        clock: Callable[[], int],
        wall_clock: Callable[[], int],
        recheck_seconds: float,
    ) -> None:
        self._store = store
        self._streams = streams
        self._group = group
        self._clock = clock
        self._wall_clock = wall_clock
        self._recheck_ns = int(recheck_seconds * 1_000_000_000)
        self._next_recheck_ns = 0
        self._rechecked: dict[str, int] = {}
        """Stream -> the missing number that was asked for last."""
        self._ready: deque[SignedHeader | BadBatch] = deque()
        self._round = _Round()
        self._began_earlier = False
        self.quiet: Mapping[str, int] = {}
        """Streams that had nothing new in the last full round, with the wall clock's time at which each was asked.

        Only those can be called silent, and only up to that time: the round may be long ago.
        """
        self.illegal: frozenset[str] = frozenset()
        """Names in the store's list, as of the last round's beginning, that no stream can have: they are passed over."""

    @property
    def backlog(self) -> int:
        """Batches read and not taken yet."""
        return len(self._ready)

    def take(self, events: int) -> list[SignedHeader | BadBatch]:
        """The next batches: whole ones, until they hold so many events; none when there is nothing new.

        Raises:
            Overloaded, StateUnknown: from the store; nothing is lost.
        """
        if not self._ready:
            self._read()
        taken: list[SignedHeader | BadBatch] = []
        while self._ready and events > 0:
            item = self._ready.popleft()
            taken.append(item)
            events -= item.header.count if isinstance(item, SignedHeader) else 1
        return taken

    def put_back(self, taken: Sequence[SignedHeader | BadBatch]) -> None:
        """What `take` gave last and nothing was made of: the next `take` begins with it."""
        self._ready.extendleft(reversed(taken))

    def _read(self) -> None:
        now_ns = self._clock()
        if now_ns >= self._next_recheck_ns:
            self._next_recheck_ns = now_ns + self._recheck_ns
            self._ready.extend(self._late())
        # a round that an earlier call began may have passed streams that have something new by now: then one more, whole
        if not self._go_round() and self._began_earlier:
            self._go_round()
        self._began_earlier = bool(self._round.left)

    def _go_round(self) -> bool:
        """Read on until something is found or all open streams were asked; a new round if the last one is over."""
        if not self._round.left:
            self._round = _Round(left=deque(s for s in self._listed() if self._is_open(s)))
        round_ = self._round
        found: Sequence[SignedHeader | BadBatch] = ()
        while round_.left and not found:
            group = list(islice(round_.left, self._group))
            # before the answer, which may take any time: up to here nothing had come
            asked_ns = self._wall_clock()
            found = self._after(group)
            self._ready.extend(found)
            spoke = {item.header.stream if isinstance(item, SignedHeader) else item.stream for item in found}
            round_.quiet.update((stream, asked_ns) for stream in group if stream not in spoke)
            for _ in group:
                round_.left.popleft()
        if not round_.left:
            self.quiet = round_.quiet
        return bool(found)

    def _listed(self) -> Sequence[StreamId]:
        """The streams that the store lists. A name that no stream can have would name a trail that cannot be read back.

        The list is not signed, and no header can bear such a name, so there is nothing to put on record for it: people are told.
        """
        listed = self._store.streams()
        illegal = frozenset(stream for stream in listed if not is_stream_id(stream))
        if fresh := illegal - self.illegal:
            told = [stream[:_NAME_CHARACTERS] for stream in sorted(fresh)[:_NAMES_TOLD]]
            _log.error("the store lists streams that cannot be", extra={"streams": told, "count": len(fresh)})
        self.illegal = illegal
        return [stream for stream in listed if stream not in illegal] if illegal else listed

    def _is_open(self, stream: str) -> bool:
        state = self._streams.get(stream)
        return state is None or not (state.closed or state.frozen)

    def _next_number(self, stream: str) -> int:
        state = self._streams.get(stream)
        return 1 if state is None else state.next_number

    def _after(self, group: Sequence[StreamId]) -> list[SignedHeader | BadBatch]:
        frontier = {stream: self._next_number(stream) - 1 for stream in group}
        try:
            return list(self._store.batches_after(frontier, max(1, _BATCHES_A_READ // len(group))))
        except VerificationError:
            found: list[SignedHeader | BadBatch] = []
            for stream in group:  # one bad batch must not stop its neighbours
                found += self._one_by_one(stream)
            return found

    def _one_by_one(self, stream: StreamId) -> Iterator[SignedHeader | BadBatch]:
        try:
            yield from self._store.batches_after({stream: self._next_number(stream) - 1}, 1)
        except VerificationError:
            pass
        else:
            return
        first = self._next_number(stream)
        for number in range(first, first + _SEARCHED_NUMBERS):
            try:
                found = self._store.batch(stream, number)
            except VerificationError as error:
                yield BadBatch(stream=stream, number=number, error=error)
                return
            if found is not None:
                yield found

    def _late(self) -> Iterator[SignedHeader | BadBatch]:
        """Batches that were missing and have come, and what follows in streams that had stopped."""
        for name, state in self._streams.items():
            stream = StreamId(name)
            if state.frozen:
                try:
                    yield from self._store.batches_after({stream: state.next_number - 1}, 1)
                except VerificationError:
                    continue  # it is as bad as it was, and the log says so
            if not state.missing:
                self._rechecked.pop(name, None)
            for number in islice(_in_turn(state.missing, self._rechecked.get(name, 0)), _LATE_NUMBERS):
                found: SignedHeader | BadBatch | None
                try:
                    found = self._store.batch(stream, number)
                except VerificationError as error:
                    found = BadBatch(stream=stream, number=number, error=error)
                self._rechecked[name] = number
                if found is not None:
                    yield found


def _in_turn(missing: Sequence[Missing], last: int) -> Iterator[int]:
    """Every missing number once, from behind `last` on and round again: those that are lost for good must not hide the others."""
    for gap in missing:
        yield from range(max(gap.first, last + 1), gap.last + 1)
    for gap in missing:
        yield from range(gap.first, min(gap.last, last) + 1)
