"""The sidecar's intake: prepare a group, put what is refused into the dead letters, the rest into the spool, then tell.

Implements `collector.receive.Intake` on asyncio. What a turn of the event loop has brought is committed in the next one, so that
all connections share a sync; or at once, while turns bring one group each. It is committed right there while that is quick
(`Spool.commit_quickly`), else by the spool's committing thread, which hops into the event loop once for each commit, whatever the
number of groups in it; with ``ack = "store"`` the shipping thread hops once more for each batch.
"""

import asyncio
import hashlib
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TypeVar

import msgspec

from collector.deadletters import DeadLetters
from collector.errors import Overloaded, StateUnknown
from collector.group import checked_size
from collector.metrics import CollectorMetrics
from collector.pipeline import Pipeline
from collector.prepare import Prepared, Preparer, raw_of
from collector.protect import Protector
from collector.receive import Arrival, Receipt
from collector.red import Request
from collector.rejection import Rejection, first_of, place_in
from collector.sender import OURSELVES, Sender
from collector.spool import Group, Spooled

__all__ = ["SpoolIntake", "groups_of"]

T = TypeVar("T")

_GROUP_EVENTS = 8_192
_GROUP_BYTES = 16 * 1024**2


class SpoolIntake:
    """See the module. Made in the event loop that will use it.

    `protector` masks what becomes a dead letter, where that is not the one that the dead letters were opened with.
    `store_patience_seconds`: how long after the fsync a sender waits for the store before it hears `Overloaded`; None: its
    answer comes after the fsync. `breath_seconds`: a group that takes longer to prepare lets others have their turns in between.
    """

    def __init__(
        self,
        *,
        preparer: Preparer,
        pipeline: Pipeline,
        dead_letters: DeadLetters,
        metrics: CollectorMetrics,
        protector: Protector | None = None,
        store_patience_seconds: float | None = None,
        breath_seconds: float = 0.05,
    ) -> None:
        self._preparer = preparer
        self._breath_seconds = breath_seconds
        self._pipeline = pipeline
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._protector = protector
        self._store_patience_seconds = store_patience_seconds
        self._loop = asyncio.get_running_loop()
        self._groups = 0  # queued in this turn of the loop
        self._groups_before = 0  # in the last one that brought any
        self._finish: Callable[[], None] | None = None  # of a commit in this turn
        self._counts: list[Callable[[], object]] = []  # to be counted at the end of this turn

    def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
    ) -> Awaitable[Receipt]:
        """See `Intake.accept`."""
        began = time.perf_counter()
        prepared = Prepared()
        preparing = self._preparer.preparing(arrivals, prepared)
        take = partial(self._accept, prepared, group_id or b"", sender, began, heard)
        return take() if self._goes_through(preparing) else self._accept_slowly(preparing, take)

    def _goes_through(self, preparing: Iterator[None]) -> bool:
        """Prepare on, until all is or others must have a turn."""
        until = time.perf_counter() + self._breath_seconds
        return all(time.perf_counter() < until for _ in preparing)

    async def _accept_slowly(self, preparing: Iterator[None], take: Callable[[], Awaitable[Receipt]]) -> Receipt:
        """Of a group that takes long to prepare: a few megabytes of what must be masked everywhere."""
        await asyncio.sleep(0)
        while not self._goes_through(preparing):  # noqa: ASYNC110 - it works, and waits for nothing
            await asyncio.sleep(0)
        return await take()

    def _accept(
        self, prepared: Prepared, group_id: bytes, sender: Sender, began: float, heard: bool
    ) -> Awaitable[Receipt]:
        groups = list(groups_of(prepared, group_id, sender))
        if len(groups) == 1 and not prepared.refused:  # nearly always
            return self._take(groups[0], partial(self._receipt, began), heard, prepared.requests)
        self._pipeline.check_fits(sum(map(checked_size, groups)))
        return self._accept_parts(prepared, groups, group_id, began, heard)

    async def _accept_parts(
        self, prepared: Prepared, groups: Sequence[Group], group_id: bytes, began: float, heard: bool
    ) -> Receipt:
        # named after their places in the group, so that a re-send of an unacknowledged group leaves one letter each, not two
        await self.reject(
            [
                Rejection(
                    raw_of(one.arrival),
                    one.error,
                    one.arrival.event.origin,
                    one.arrival.source_id or place_in(group_id, one.at, decoded=True),
                )
                for one in prepared.refused
            ]
        )
        outcomes = await self._take_all(groups, heard, prepared.requests)
        whole = Spooled(
            first=0,
            stored=sum(outcome.stored for outcome in outcomes),
            duplicates=sum(outcome.duplicates for outcome in outcomes),
        )
        receipt = self._receipt(began, whole)
        refusals = tuple((one.at, str(one.error)) for one in prepared.refused)
        return msgspec.structs.replace(receipt, dead_lettered=len(refusals), refused=refusals)

    def _receipt(self, began: float, spooled: Spooled) -> Receipt:
        self._count(partial(self._metrics.ack_seconds.observe, time.perf_counter() - began))
        return Receipt(stored=spooled.stored, duplicates=spooled.duplicates)

    async def reject(self, rejections: list[Rejection]) -> None:
        """See `Intake.reject`."""
        add = partial(self._dead_letters.add, protector=self._protector)
        while rejections:
            some = first_of(rejections)
            for one in await asyncio.to_thread(add, some):
                self._metrics.refused(one.error.label)
            del rejections[: len(some)]

    async def _take_all(
        self, groups: Sequence[Group], heard: bool, requests: Mapping[int, Request]
    ) -> Sequence[Spooled]:
        # one after the other would cost a sync each: they are queued together and share one
        waiting: list[asyncio.Future[Spooled]] = []
        start = 0
        try:
            for group in groups:
                end = start + len(group.events)
                its = {at - start: request for at, request in requests.items() if start <= at < end}
                try:
                    future = self._take(group, _as_it_is, heard, its)
                except Overloaded:
                    if not waiting:
                        raise
                    await asyncio.gather(*waiting)  # our own parts may be what fills the queue; on disk they leave it
                    future = self._take(group, _as_it_is, heard, its)
                waiting.append(future)
                start = end
        except Overloaded:
            for future in waiting:  # the part that is queued is kept, and recognised by its name when all comes again
                future.cancel()
            raise
        return await asyncio.gather(*waiting)

    def _take(
        self, group: Group, told: Callable[[Spooled], T], heard: bool, requests: Mapping[int, Request]
    ) -> asyncio.Future[T]:
        """Queue a group; the future is what `told` makes of what became of it. Raises Overloaded: nothing was queued."""
        future: asyncio.Future[T] = self._loop.create_future()
        patience_seconds = self._store_patience_seconds if heard else None

        def answer(outcome: Spooled | Exception) -> None:
            if future.done():
                return  # the sender went away or lost its patience; the events are kept all the same
            if isinstance(outcome, StateUnknown):
                future.set_exception(_until_restart(outcome))
            elif isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(told(outcome))

        def spooled(outcome: Spooled | Exception) -> None:
            if isinstance(outcome, Spooled):
                self._count(partial(self._metrics.taken, stored=outcome.stored, duplicates=outcome.duplicates))
                if requests and outcome.stored:
                    places = outcome.kept or requests  # a re-send is no second request
                    self._metrics.answered(requests[at] for at in places if at in requests)
            if patience_seconds is None or isinstance(outcome, Exception):
                answer(outcome)
                return
            late = Overloaded(
                f"kept, but the store has not taken it within {patience_seconds:g} s", retry_after_seconds=2.0
            )
            timer = self._loop.call_later(patience_seconds, answer, late)

            def ended(_: asyncio.Future[T]) -> None:
                timer.cancel()
                self._pipeline.forget(answer)

            future.add_done_callback(ended)

        try:
            self._pipeline.append(group, spooled, stored=None if patience_seconds is None else answer, held=True)
        except Overloaded:
            if group.sender.way:
                self._metrics.refused_input(group.sender.way)
            raise
        except StateUnknown as error:
            raise _until_restart(error) from error
        self._groups += 1
        if self._groups == 1:
            self._loop.call_soon(self._turn_over)
            if self._groups_before == 1:  # a sender alone: nobody comes to share its sync
                self._finish = self._pipeline.commit_quickly()
        return future

    def _count(self, count: Callable[[], object]) -> None:
        """Count once the answers are written, if they are being written in this turn."""
        if self._groups:
            self._counts.append(count)
        else:
            count()

    def _turn_over(self) -> None:
        """Once a turn of the event loop, for everything that came in it: all connections share one sync."""
        self._groups_before, self._groups = self._groups, 0
        if self._finish is not None:
            finish, self._finish = self._finish, None
            finish()
        self._pipeline.commit_quickly()()
        counts, self._counts = self._counts, []
        for count in counts:
            count()


def _as_it_is(spooled: Spooled) -> Spooled:
    return spooled


def _until_restart(error: StateUnknown) -> Overloaded:
    """What senders are told when the spool must be opened again: nothing was taken, try later. The sidecar restarts."""
    return Overloaded(str(error), retry_after_seconds=5.0)


def groups_of(prepared: Prepared, group_id: bytes, sender: Sender = OURSELVES) -> Iterator[Group]:
    """The prepared events as groups that fit a frame each: halved, by the places of their arrivals, until they do.

    A part is named by its places, and what was refused keeps its place: so a name that is known stands for the same arrivals, whatever
    a changed setting refuses, shortens or lengthens before all of it comes again. Where it moves a cut, what was taken is taken once more.
    """
    if not prepared.events:
        return
    refused = [one.at for one in prepared.refused]
    sizes = [len(event) + len(facts) for event, facts in zip(prepared.events, prepared.facts, strict=True)]
    places = len(sizes) + len(refused)
    if places <= _GROUP_EVENTS and sum(sizes) <= _GROUP_BYTES:
        yield Group(
            group_id=group_id,
            source_ids=prepared.source_ids,
            events=prepared.events,
            facts=prepared.facts,
            sender=sender,
        )
        return
    before = list(accumulate(sizes, initial=0))
    left = [(0, places)]
    while left:
        start, end = left.pop()
        first, last = start - bisect_left(refused, start), end - bisect_left(refused, end)
        if end - start > 1 and (end - start > _GROUP_EVENTS or before[last] - before[first] > _GROUP_BYTES):
            middle = (start + end) // 2
            left += ((middle, end), (start, middle))
        elif first < last:
            part = b"%b\0%d\0%d\0%d" % (group_id, places, start, end)
            yield Group(
                group_id=hashlib.sha256(part).digest() if group_id else b"",
                source_ids=prepared.source_ids[first:last],
                events=prepared.events[first:last],
                facts=prepared.facts[first:last],
                sender=sender,
            )
