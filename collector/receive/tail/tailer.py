"""Follows files: looks, reads a piece of each in turn, hands the events over, and moves the checkpoint behind what is durable.

The order keeps the promise: a file's identity is in the checkpoint before its first event is handed on, the end of a message that only
time has set before that message is; a position moves after the intake has returned. A crash in between reads a part again, and each of its
events is recognised by identity, place and content.

Pressure: while the intake is overloaded nothing is read, and the files are the buffer. They are still looked at, and opened, so that
a rotation in the meantime loses nothing.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from collector.disk import Disk
from collector.errors import Overloaded
from collector.receive import Intake
from collector.receive.portions import Portions
from collector.receive.tail.checkpoint import Checkpoint
from collector.receive.tail.kubernetes import NAMESPACE, POD
from collector.receive.tail.kubernetes_api import Pods
from collector.receive.tail.reading import Batch, Tracked
from collector.receive.tail.settings import TailSettings
from collector.receive.tail.watch import Watch
from collector.receive.turns import Turns
from collector.sender import OURSELVES

__all__ = ["NO_METADATA", "Report", "Tailer"]

_log = logging.getLogger(__name__)

NO_METADATA = "k8s_metadata_missing"
"""Mark of an event whose pod the Kubernetes API had not told of when it was read."""

Report = Callable[[str, int, int, int], object]
"""Hears for each entry: its label, bytes that are not taken yet, open files, files that wait to be opened."""

_READERS = 8
_PORTION_EVENTS = 2_048  # what is read at a time may be a hundred thousand short lines, and nobody else is heard while a portion is prepared
_SAVE_SECONDS = 1.0
_METADATA_SECONDS = 1.0  # how long the first reading of a file waits for what is told of its pod
_MAX_BACKOFF_SECONDS = 5.0


class Tailer:
    """See the module.

    Args:
        entries: what to follow.
        directory: of the checkpoint.
        intake: takes the events; what it has returned for is durable.
        pods: what the Kubernetes API says; None: it is not asked.
        turns: shares of the event loop's time, of which all files together have one.
        clock: Unix time in nanoseconds; `monotonic` in seconds; `random` gives so many random bytes.

    Raises:
        StateUnknown: the checkpoint does not read back.
    """

    def __init__(
        self,
        entries: Sequence[TailSettings],
        directory: Path,
        *,
        intake: Intake,
        disk: Disk,
        clock: Callable[[], int],
        pods: Pods | None = None,
        turns: Turns | None = None,
        report: Report = lambda *_: None,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._entries = entries
        self._intake = intake
        self._pods = pods
        self._report = report
        self._monotonic = monotonic
        self._checkpoint = Checkpoint(directory, disk=disk)
        self._watch = Watch(entries, self._checkpoint.files, self._checkpoint.begun, random=random, clock=clock)
        self._poll_seconds = min(entry.poll_seconds for entry in entries)
        self._stopping = asyncio.Event()
        self._share = (turns or Turns()).of(OURSELVES)
        self._readers = asyncio.Semaphore(_READERS)
        self._saving = asyncio.Lock()
        self._moved = False
        self._saved_seconds = -_SAVE_SECONDS
        self._not_before_seconds = 0.0
        self._backoff_seconds = 0.0

    async def run(self) -> None:
        """Follow until `stop`; what was read and could not be handed on is read again by the next run."""
        try:
            while not self._stopping.is_set():
                look_again = self._monotonic() + self._poll_seconds
                await self.look()
                while await self.turn() and self._monotonic() < look_again and not self._stopping.is_set():
                    pass
                self._say()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), max(0.0, look_again - self._monotonic()))
        finally:
            if self._moved or self._watch.dirty:
                await self._save()
            self._watch.close()

    def stop(self) -> None:
        """Let `run` end after the turns that are being taken."""
        self._stopping.set()

    async def look(self) -> None:
        """Look which files there are and what became of them."""
        await asyncio.to_thread(self._watch.step, self._monotonic())
        if self._pods is not None:
            for one in self._watch.tracked:
                self._ask(one, self._pods)
        await self._save_if_due()

    async def turn(self) -> bool:
        """Each file that has something gets its turn; true if there is more to do at once."""
        now_seconds = self._monotonic()
        if now_seconds < self._not_before_seconds:
            return False
        able = [
            one
            for one in self._watch.tracked
            if one.durable and not (one.metadata_marks and now_seconds - one.since_seconds < _METADATA_SECONDS)
        ]
        await self._hand_all([one for one in able if one.waiting is not None])
        await asyncio.gather(
            *(self._read(one) for one in able if one.waiting is None and one.file is not None and one.unread)
        )
        await self._close_what_is_over(able)
        for one in able:
            if one.leaving and one.waiting is None and not one.unread and not one.holds_back:
                self._watch.retire(one)
        await self._save_if_due()
        if self._monotonic() < self._not_before_seconds:
            return False
        self._backoff_seconds = 0.0
        return any(one.file is not None and one.unread and not one.replaced for one in able)

    async def _read(self, one: Tracked) -> None:
        async with self._readers:
            if self._monotonic() < self._not_before_seconds:
                return
            try:
                batch = await asyncio.to_thread(one.read, self._monotonic())
            except OSError as error:
                _log.warning("%s cannot be read: %s", one.path, error.strerror)
                one.close_file()
                return
            if batch is None:
                one.size = one.read_to if not one.replaced else one.size  # until it is looked at again
                return
            one.waiting = batch
            await self._hand(one, batch)

    async def _hand_all(self, waiting: Sequence[Tracked]) -> None:
        for one in waiting:
            if one.waiting is not None and self._monotonic() >= self._not_before_seconds:
                await self._hand(one, one.waiting)

    async def _hand(self, one: Tracked, batch: Batch) -> None:
        """Make a batch durable; if that cannot be now, it waits, and so does everything."""
        try:
            await self._intake.reject(batch.refusals)
            await Portions(batch.arrivals, most=_PORTION_EVENTS, turn=self._share.turn).hand_over(self._intake)
        except Overloaded as error:
            self._backoff_seconds = min(
                max(error.retry_after_seconds, 2 * self._backoff_seconds), _MAX_BACKOFF_SECONDS
            )  # fmt: skip
            self._not_before_seconds = self._monotonic() + self._backoff_seconds
            return
        one.waiting = None
        one.take(batch.position)
        self._moved = True

    async def _close_what_is_over(self, able: Sequence[Tracked]) -> None:
        now_seconds = self._monotonic()
        over = [one for one in able if one.waiting is None and not one.unread and one.cut(now_seconds)]
        if not over or not await self._save():
            return
        for one in over:
            one.waiting = one.close(now_seconds)
        await asyncio.gather(*(self._hand(one, one.waiting) for one in over if one.waiting is not None))

    async def _save_if_due(self) -> None:
        due = self._monotonic() - self._saved_seconds >= _SAVE_SECONDS
        if self._watch.dirty or (self._moved and due):
            await self._save()

    async def _save(self) -> bool:
        """Write the checkpoint. False when the disk did not take it: then nothing that depends on it goes on."""
        async with self._saving:
            files = self._watch.remembered()
            new = [one for one in self._watch.tracked if not one.durable]
            self._watch.dirty = self._moved = False
            self._saved_seconds = self._monotonic()
            try:
                await asyncio.to_thread(self._checkpoint.save, files, self._watch.begun)
            except OSError as error:
                _log.warning("the positions in files cannot be written: %s", error)
                self._watch.dirty = True
                return False
            for one in new:
                one.durable = True
            return True

    @staticmethod
    def _ask(one: Tracked, pods: Pods) -> None:
        if POD in one.resource:
            told = pods.attributes(one.resource[NAMESPACE], one.resource[POD])
            one.metadata = told or {}
            one.metadata_marks = (NO_METADATA,) if told is None else ()

    def _say(self) -> None:
        for at, entry in enumerate(self._entries):
            mine = [one for one in self._watch.tracked if one.settings is entry]
            behind_bytes = sum(one.behind_bytes for one in mine)
            opened = sum(one.file is not None for one in mine)
            self._report(entry.label, behind_bytes, opened, self._watch.not_opened[at])
