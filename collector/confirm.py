"""Who waits for the store: groups whose sender is told when the store has their events (``ack = "store"``), not when the disk has.

A group waits for a sequence of its stream: all below it must be in the store. One that holds re-sent events waits for everything
that was in any spool when it was recognised, because its first copy may be anywhere in there: so the answer to a re-send never says
more than the answer to the first.

The committing thread adds, the shipping thread confirms, an event loop forgets who waits no more: all under one lock, and nobody
polls. Nothing of this outlives the process: senders without an answer come again, and are recognised.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from collector.batch import StreamId
from collector.errors import Overloaded
from collector.group import Done, Spooled

__all__ = ["Confirmations"]


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    """One group: whom to tell, what, and the streams of which something is not in the store yet."""

    told: Done
    outcome: Spooled
    streams: set[StreamId]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Twice:
    """A `Done` whose sender is told twice: of the disk, by `done`, then of the store, by `stored`.

    `stream` is where the group's new events go; `given_up` says how many spools had been set aside when the group was queued.
    """

    done: Done
    stored: Done
    stream: StreamId
    given_up: int

    def __call__(self, outcome: Spooled | Exception) -> None:
        """The disk has it, or not."""
        self.done(outcome)


class Confirmations:
    """The groups that wait, by stream, in the order in which they came. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._below: dict[StreamId, int] = {}  # the store has all events below
        self._queues: dict[StreamId, dict[_Waiter, int]] = {}
        self._waiters: dict[Done, _Waiter] = {}
        self._given_up = 0  # spools since the start: what was known before one was may be in no store

    @property
    def waiting(self) -> int:
        """How many groups wait."""
        return len(self._waiters)

    def twice(self, done: Done, stored: Done, stream: StreamId) -> Done:
        """A `Done` for a group that is about to be queued: `done` is told of the disk, `stored` of the store. `stream`: where its new events go."""
        return _Twice(done=done, stored=stored, stream=stream, given_up=self._given_up)

    def delivered(
        self, outcomes: Sequence[tuple[Done, Spooled | Exception]], ends: Callable[[], Mapping[StreamId, int]]
    ) -> list[tuple[Done, Spooled | Exception]]:
        """Let those of these groups wait that are told twice, and were told of the disk; returns what some of them can be told at once.

        `ends` gives the sequence that follows in every spool; the live one's is read first: when it becomes a draining one meanwhile, it is among
        those already.
        """
        answers: list[tuple[Done, Spooled | Exception]] = []
        for done, outcome in outcomes:
            if not isinstance(done, _Twice) or isinstance(outcome, Exception):
                continue  # the latter has heard it
            below = {done.stream: outcome.first + outcome.stored} if outcome.stored else {}
            if outcome.duplicates:
                below |= ends()
                if done.given_up != self._given_up:  # asked last, see `give_up`
                    gone = Overloaded("a spool was set aside just now: the first copy may have been in it")
                    answers.append((done.stored, gone))
                    continue
            if not self.add(done.stored, outcome, below):
                answers.append((done.stored, outcome))
        return answers

    def add(self, told: Done, outcome: Spooled, below: Mapping[StreamId, int]) -> bool:
        """Let a group wait until the store has every event below these sequences; False if it has them already."""
        with self._lock:
            to_come = {stream: end for stream, end in below.items() if end > self._below.get(stream, 0)}
            if not to_come:
                return False
            waiter = self._waiters[told] = _Waiter(told=told, outcome=outcome, streams=set(to_come))
            for stream, end in to_come.items():
                self._queues.setdefault(stream, {})[waiter] = end
            return True

    def confirm(self, stream: StreamId, below: int) -> list[tuple[Done, Spooled | Exception]]:
        """The store has all events of the stream below this sequence: take out, and return, the groups that wait for no more."""
        found: list[tuple[Done, Spooled | Exception]] = []
        with self._lock:
            self._below[stream] = max(below, self._below.get(stream, 0))
            queue = self._queues.get(stream, {})
            ready: list[_Waiter] = []
            for waiter, end in queue.items():
                if end > below:
                    break  # they stand in order; one that was moved here may wait a little longer than it must
                ready.append(waiter)
            for waiter in ready:
                del queue[waiter]
                waiter.streams.discard(stream)
                if not waiter.streams:
                    del self._waiters[waiter.told]
                    found.append((waiter.told, waiter.outcome))
        return found

    def fell_back(self, stream: StreamId, below: int) -> None:
        """The store has lost what it had of the stream from this sequence on: who comes from now on waits for it again."""
        with self._lock:
            if below < self._below.get(stream, 0):
                self._below[stream] = below

    def move(self, stream: StreamId, successor: StreamId, below: int) -> None:
        """The events of a forked stream went on under `successor`, where all of them stand below this sequence."""
        with self._lock:
            queue = self._queues.pop(stream, {})
            behind = self._queues.setdefault(successor, {})
            for waiter in queue:
                waiter.streams.discard(stream)
                waiter.streams.add(successor)
                behind[waiter] = max(below, behind.get(waiter, 0))

    def fail(self, error: Exception, stream: StreamId | None = None) -> list[tuple[Done, Spooled | Exception]]:
        """Take out the groups that wait for this stream (None: all), to be told the error."""
        with self._lock:
            waiters = list(self._waiters.values() if stream is None else self._queues.get(stream, {}))
            for waiter in waiters:
                self._take_out(waiter)
            return [(waiter.told, error) for waiter in waiters]

    def give_up(self, stream: StreamId, error: Exception) -> list[tuple[Done, Spooled | Exception]]:
        """As `fail`, for a spool that is set aside, whose ids are forgotten. To be called before it leaves the spools that `delivered` is told of.

        A re-send recognised by an id of before either waits for this stream, and is failed here, or sees the count.
        """
        self._given_up += 1
        return self.fail(error, stream)

    def forget(self, told: Done) -> None:
        """This one waits no more; unknown ones are fine."""
        with self._lock:
            waiter = self._waiters.get(told)
            if waiter is not None:
                self._take_out(waiter)

    def _take_out(self, waiter: _Waiter) -> None:
        del self._waiters[waiter.told]
        for stream in waiter.streams:
            del self._queues[stream][waiter]
