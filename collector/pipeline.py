"""Spool to store, for one collector, across its incarnations: what the sidecar, the recorder and the importer stand on.

`append` takes groups into the live incarnation's spool; one shipping thread sends what every incarnation still holds, in
rounds (`collector.rounds`). When the store shows that the spool was cloned (`Conflict`), the events it
refused are taken over by a new incarnation, whose first header says so; when a spool cannot be read back, its folder is
set aside for a person and a new incarnation goes on.

Who wants to hear when the store has a group passes `stored` to `append`: the shipping thread tells, once a batch.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import Clock, Fork, StreamId
from collector.confirm import Confirmations
from collector.disk import Disk, OsDisk
from collector.errors import Conflict, Overloaded, StateUnknown
from collector.group import check_fits
from collector.journal import Journal
from collector.limits import PipelineLimits
from collector.lives import Life, Lives
from collector.rounds import Rounds
from collector.segments import Damaged, SourceIds
from collector.ship import Shipper
from collector.spool import Deliver, Done, Group, Spooled, deliver_here
from collector.standing import PipelineState
from collector.store import Destination
from collector.takeover import TakeOverWaits, Told

__all__ = ["Pipeline", "PipelineLimits"]

_log = logging.getLogger(__name__)


class Pipeline:
    """See the module. `start()` before use, `stop()` at the end.

    Args:
        root: the collector's folder of incarnations.
        collector: its name, the first part of its stream ids.
        ledger: name of the ledger.
        store: where batches go.
        key: signs the batch headers.
        journal: the memory of source ids; None: an LMDB one in `root`.
        deliver: how acknowledgements get from the committing thread to their callers.
        clock: Unix time in nanoseconds; `measured_clock`: its measured offset, None when unmeasured.
        monotonic: seconds that never go back.

    Raises:
        StateUnknown: another process has this root open, or a folder in it belongs to another ledger.
    """

    def __init__(
        self,
        root: Path,
        *,
        collector: str,
        ledger: str,
        store: Destination,
        key: Ed25519PrivateKey,
        limits: PipelineLimits | None = None,
        disk: Disk | None = None,
        journal: SourceIds | None = None,
        deliver: Deliver = deliver_here,
        clock: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
        measured_clock: Callable[[], Clock | None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._ledger = ledger
        self._store = store
        self._key = key
        self._limits = limits or PipelineLimits()
        self._disk = disk or OsDisk()
        self._deliver_outside = deliver
        self._clock = clock
        self._measured_clock = measured_clock
        self._monotonic = monotonic
        self._forks: set[StreamId] = set()
        self._resent = 0
        self.stored_events = 0  # since the start
        self._confirmations = Confirmations()
        self._rounds = Rounds(
            self,
            retry=self._limits.retry,
            linger_seconds=self._limits.linger_seconds,
            release_seconds=self._limits.release_seconds,
            enough_events=self._limits.enough_events,
        )
        self._gate = threading.Lock()
        self._closing = False
        self._close_stream = False
        self._threaded = False
        self._disk.make_directory(root)
        if (lock := self._disk.lock(root / "lock")) is None:
            raise StateUnknown(f"the spool {root.name} is in use by another process")
        self._lock = lock
        self._own_journal: Journal | None = None
        if journal is None:
            self._disk.make_directory(root / "journal")
            try:
                journal = self._own_journal = Journal(root / "journal", horizon=self._limits.journal_ids)
            except Overloaded:
                self._lock.release()
                raise
        self._journal = journal
        self._lives = Lives(
            root,
            collector=collector,
            ledger=ledger,
            disk=self._disk,
            journal=journal,
            limits=self._limits.spool,
            deliver=self._deliver,
            committed=self._rounds.wake,
            clock=clock,
            monotonic=monotonic,
            random_bytes=random_bytes,
        )
        try:
            self._live, self._draining = self._lives.open()
        except BaseException:
            self._let_go()
            raise
        self._count()

    @property
    def stream(self) -> StreamId:
        """The live incarnation's stream."""
        return self._live.incarnation.stream

    @property
    def next_sequence(self) -> int:
        """The live stream's next sequence: all below are durable."""
        return self._live.spool.next_sequence

    def append(self, group: Group, done: Done, *, stored: Done | None = None, held: bool = False) -> StreamId:
        """Take a group in; see `Spool.append`, also for `held`. Returns the stream whose sequences `done` will name.

        `stored`, if given, is called after `done` was called with a `Spooled`: with the same one when the store has every
        event of the group, those recognised as re-sends included; with `Overloaded` when this process cannot bring them there.
        """
        with self._gate:  # nothing may come in behind the header that closes the stream
            if self._closing:
                raise Overloaded("the collector is stopping")
            live, age_seconds = self._live, self._rounds.waiting_seconds
            if 0 < self._limits.max_age_seconds < age_seconds:
                raise live.spool.refusals.refuse(f"the spool's oldest event has waited for {age_seconds:.0f} s")
            if stored is not None:
                done = self._confirmations.twice(done, stored, live.incarnation.stream)
            live.spool.append(group, done, held=held)
        return live.incarnation.stream

    def check_fits(self, size_bytes: int) -> None:
        """Raises `TooLarge`: a group of so many bytes could never be taken, whole or cut."""
        check_fits(size_bytes, self._limits.spool.open_bytes)

    def commit_quickly(self) -> Callable[[], None]:
        """See `Spool.commit_quickly`. Returns its `finish`. What was held for a stream that has been succeeded since, its own thread commits."""
        spool = self._live.spool
        spool.commit_quickly()
        return spool.finish

    def forget(self, stored: Done) -> None:
        """Nobody waits for this `stored` any more; its events are shipped all the same."""
        self._confirmations.forget(stored)

    def state(self) -> PipelineState:
        """What operators want to know."""
        live = self._live
        return PipelineState(
            stream=live.incarnation.stream,
            spool_bytes=sum(life.spool.size_bytes for life in (*self._draining, live)) + self._lives.forked_bytes,
            waiting_events=self.waiting_events(),
            waiting_seconds=self._rounds.waiting_seconds,
            waiting_groups=self._confirmations.waiting,
            shipped_number=live.shipper.shipped if live.shipper else 0,
            acknowledged_number=live.shipper.acknowledged if live.shipper else 0,
            breaker_open=self._rounds.breaker.open,
            failed_rounds=self._rounds.failed,
            torn_bytes=live.spool.torn_bytes,
            damaged=tuple(self._lives.damaged),
            forks=len(self._forks),
            resent_batches=self._resent,
            refusing=live.spool.refusals.now,
            store_trouble=self._rounds.last_error if self._rounds.breaker.failures else "",
            last_error=self._rounds.last_error or self._lives.last_error,
            failed=str(live.spool.failed or ""),
        )

    def limit(self, limits: PipelineLimits) -> None:
        """Put other bounds in force; those of retries, healing, releasing and remembering stay as they are."""
        self._limits = replace(limits, retry=self._limits.retry, heal=self._limits.heal)
        lives = (*self._draining, self._live)
        self._lives.limit(limits.spool, lives)
        for life in lives:
            if life.shipper is not None:
                life.shipper.limits = limits.batch
        self._rounds.linger_seconds = limits.linger_seconds
        self._rounds.enough_events = limits.enough_events

    def start(self) -> None:
        """Start the committing and the shipping thread."""
        self._live.spool.start_committing()
        self._threaded = True
        self._rounds.start()

    def stop(
        self, *, drain_seconds: float = 5.0, close_stream: bool = True, overrun_seconds: float | None = None
    ) -> bool:
        """Commit what is queued, ship what is spooled within `drain_seconds`, close the stream if all of it is shipped.

        Returns whether everything was shipped; what was not is shipped after the next start. With `overrun_seconds` a store that
        hangs is left alone so long after the time was up, files and lock open, as a process leaves them that is about to end.
        """
        self._close_stream = close_stream
        with self._gate:
            self._closing = True  # the spool itself stays open: a fork may be taken over just now
        self._live.spool.settle()
        if not self._rounds.stop(drain_seconds, overrun_seconds=overrun_seconds):
            return False
        shippers = [life.shipper for life in (*self._draining, self._live)]
        drained = all(shipper is not None and shipper.waiting_events == 0 for shipper in shippers)
        for life in (*self._draining, self._live):
            life.close()
        stops = Overloaded("the collector stops; what it kept is shipped after its next start")
        if left := self._confirmations.fail(stops):
            self._deliver_outside(left)
        self._let_go()
        return drained

    def _let_go(self) -> None:
        if self._own_journal is not None:
            self._own_journal.close()
        self._lock.release()

    def _deliver(self, outcomes: Sequence[tuple[Done, Spooled | Exception]]) -> None:
        outside = [outcome for outcome in outcomes if not isinstance(outcome[0], Told)]
        if len(outside) < len(outcomes):
            deliver_here([outcome for outcome in outcomes if isinstance(outcome[0], Told)])
        if outside:
            self._deliver_outside(outside)
        if answers := self._confirmations.delivered(outcomes, self._ends):
            self._deliver_outside(answers)

    def _ends(self) -> dict[StreamId, int]:
        return {life.incarnation.stream: life.spool.next_sequence for life in (self._live, *self._draining)}

    # -- shipping, in its own thread

    def waiting_events(self) -> int:
        """Durable events of every incarnation that the store does not have yet."""
        return sum(life.waiting_events for life in (*self._draining, self._live))

    def drained(self) -> bool:
        """Whether a stop has nothing left to ship; cuts the closing header when all else is."""
        if any(life.shipper is None or life.shipper.waiting_events for life in (*self._draining, self._live)):
            return False
        shipper = self._live.shipper
        assert shipper is not None
        if not self._close_stream:
            return True
        if not shipper.closed:
            shipper.close_stream()
            return False
        return shipper.refused is None

    def commit_once(self) -> int:
        """Commit what is queued; returns how many groups. For who runs without threads: a test."""
        return self._live.spool.commit_pending()

    def ship_once(self) -> bool:
        """One step of every incarnation, oldest first; True if anything was sent. For the shipping thread, or for a test.

        Raises Overloaded, StateUnknown, OSError as `Shipper.step`; a `Conflict` is handled here: the fork is taken over.
        """
        progressed, waits = False, None
        for life in (*self._draining, self._live):
            try:
                progressed = self._step(life) or progressed
            except Damaged as error:
                self._give_up(life, error)
                progressed = True
            except TakeOverWaits as error:
                waits = error  # the others go on: what they ship makes room
        if waits is None or progressed:
            return progressed
        self.release_once()
        raise waits

    def _step(self, life: Life) -> bool:
        shipper = self._shipper(life)
        below = shipper.stored_below
        try:
            progressed = shipper.step(ending=life is not self._live)
        except Conflict as error:
            self._take_over(life, shipper, str(error))
            return True
        self.stored_events += shipper.stored_below - below
        if confirmed := self._confirmations.confirm(life.incarnation.stream, shipper.stored_below):
            self._deliver_outside(confirmed)
        return progressed

    def release_once(self) -> None:
        """Let go of what the log holds, send again what the store has lost, remove incarnations that the log holds whole.

        Raises Overloaded.
        """
        for life in (*self._draining, self._live):
            if life.shipper is None:
                continue
            try:
                life.shipper.release()
            except Damaged as error:
                self._give_up(life, error)
                continue
            self._resent += life.shipper.heal(self._monotonic())
            self._confirmations.fell_back(life.incarnation.stream, life.shipper.stored_below)
        for life in list(self._draining):
            if life.shipper is not None and life.shipper.finished:
                self._journal.flush()  # the ids of its last segment must outlive its folder; Overloaded: the folder stays
                self._draining.remove(life)
                self._lives.remove(life)
        self._lives.release_forked(self._store)
        self._count()

    def _count(self) -> None:
        """Tell the live spool what is held beside it: the bound is for all of them together."""
        held_bytes = self._lives.forked_bytes + sum(life.spool.size_bytes for life in self._draining)
        self._live.spool.shares.elsewhere_bytes = held_bytes

    def _shipper(self, life: Life) -> Shipper:
        if life.shipper is None:
            life.shipper = Shipper(
                stream=life.incarnation.stream,
                ledger=self._ledger,
                spool=life.spool,
                headers=life.headers,
                store=self._store,
                key=self._key,
                clock=self._clock,
                limits=self._limits.batch,
                measured_clock=self._measured_clock,
                fork=life.incarnation.fork,
                heal=self._limits.heal,
            )
        return life.shipper

    def _take_over(self, life: Life, shipper: Shipper, reason: str) -> None:
        """The store holds another batch under this number: the spool was cloned. Number what it refused anew."""
        refused, stream = shipper.refused, life.incarnation.stream
        assert refused is not None
        if stream not in self._forks:  # else its take-over goes on
            self._forks.add(stream)
            self._rounds.last_error = reason
            _log.error("fork: %s; its events go on under a new incarnation", reason)
        if life is self._live:
            self._succeed(Fork(stream=stream, number=refused.header.number, digest=refused.digest))
        self._lives.take_over(life, refused, into=self._live.spool)
        self._draining.remove(life)
        self._count()
        self._confirmations.move(stream, self._live.incarnation.stream, self._live.spool.next_sequence)

    def _give_up(self, life: Life, error: Damaged) -> None:
        """A spool does not read back: set it aside, and go on without it."""
        if life is self._live:
            self._succeed(None)
        self._lives.give_up(life, error)
        set_aside = Overloaded(f"the spool was set aside: {error}")
        if failed := self._confirmations.give_up(life.incarnation.stream, set_aside):
            self._deliver_outside(failed)
        self._draining.remove(life)
        self._count()

    def _succeed(self, fork: Fork | None) -> None:
        """From here on new groups go to a new incarnation; the live one is drained until it is taken over or set aside."""
        successor = self._lives.new(fork)
        if self._threaded:
            successor.spool.start_committing()
        self._draining.append(self._live)  # first: whoever looks for all of them must find it in one place at least
        self._live = successor
        self._count()
