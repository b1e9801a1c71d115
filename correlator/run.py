"""The correlator at work: takes batches from the store, checks and stitches them, publishes entries, indexes, acknowledges.

One `step` is one publish. In its order, with what a crash in between leaves:

    read the store        nothing was changed
    check, stitch, chain  the state in memory is ahead of the log: it is thrown away, `State.open` replays the log
    publish               see `correlator.log`: it has happened or it has not
    index                 the index is behind: it catches up from the log
    acknowledge           spools keep segments longer: said again at the next start

So there is nothing to repair after a crash but to `open` again.
"""

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from collector.batch import SignedHeader, StreamId
from collector.store import EventStore
from correlator.accept import Acceptor, forks_told
from correlator.chain import Chain
from correlator.derived import open_state
from correlator.errors import Overloaded, StateUnknown
from correlator.heartbeat import Heartbeat
from correlator.index import TrailIndex
from correlator.log import AuditLog
from correlator.metrics import CorrelatorMetrics
from correlator.note import Signer
from correlator.reader import LogReader
from correlator.reindex import catch_up
from correlator.settings import CorrelatorSettings
from correlator.shards import split_origin
from correlator.source import BadBatch, BatchSource
from correlator.state import State
from correlator.stitch import Stitcher
from correlator.storage import LogStorage
from correlator.streams import StreamState

__all__ = ["Correlator"]

_log = logging.getLogger("tally.correlator")


class Correlator:
    """One ledger's correlator: the only writer of its log. Made by `open`; for one thread.

    After a `StateUnknown` it does nothing more: close it and open it again.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        log: AuditLog,
        heartbeat: Heartbeat,
        reader: LogReader,
        state: State,
        index: TrailIndex,
        settings: CorrelatorSettings,
        ledger: str,
        clock: Callable[[], int],
        metrics: CorrelatorMetrics | None = None,
    ) -> None:
        self._store = store
        self._audit_log = log
        self._heartbeat = heartbeat
        self._reader = reader
        self._state = state
        self._index = index
        self._settings = settings
        self._clock = clock
        self.metrics = metrics or CorrelatorMetrics()
        self._stitcher = Stitcher(settings.key_order)
        self._source = BatchSource(
            store,
            state.streams,
            group=settings.streams_a_step,
            clock=time.monotonic_ns,
            wall_clock=clock,
            recheck_seconds=settings.missing_poll_seconds,
        )
        self._acceptor = Acceptor(state, settings, ledger=ledger, started_ns=clock())
        self._unpublished: Chain | None = None
        self._entries_an_event = (
            1.0  # of the last step, links and all: where each event has its own trail, they are four
        )
        self._unacknowledged: dict[StreamId, int] = {
            StreamId(name): _logged_up_to(stream) for name, stream in state.streams.items()
        }
        self._index_behind = True
        self._failed = ""
        self._beat_ns = time.monotonic_ns()
        self._ready = False
        self.metrics.role.state("writer")
        self._gauge_flows()
        self.metrics.epoch.set(log.epoch)
        self.metrics.head_unchanged_seconds.set(0)
        if state.leaves:
            self.metrics.published(state.recorded_ns, clock)

    @classmethod
    def open(
        cls,
        *,
        store: EventStore,
        storage: LogStorage,
        signer: Signer,
        index: TrailIndex,
        state_folder: Path,
        settings: CorrelatorSettings,
        clock: Callable[[], int] = time.time_ns,
        writer_id: str = "correlator",
        metrics: CorrelatorMetrics | None = None,
        progress: Callable[[int, int], None] | None = None,
        take_over: bool = False,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> Self:
        """Become the log's writer, and bring state and index up to it.

        Args:
            store: where collectors ship to.
            storage: where the log lies.
            signer: the log's key; its name is the log's origin, which says which shard of the ledger it is, if it is one.
            index: of the trails; may be empty or behind.
            state_folder: of the derived state; made when absent.
            settings: see there.
            clock: nanoseconds since 1970.
            writer_id: who writes, for people.
            metrics: where to count; by default its own.
            progress: told (leaves applied, leaves) while state or index catch up.
            take_over: depose the writer, which hangs (`AuditLog.open`). The state must be this process's own.
            monotonic_ns: a clock that never goes back, which tells when an idle head is renewed.

        Raises:
            Conflict: another process writes this log.
            VerificationError: the log was changed.
            Overloaded, StateUnknown: a disk or store does not answer.
        """
        log = AuditLog.open(storage, signer, clock=clock, writer_id=writer_id, take_over=take_over)
        state = None
        try:
            heartbeat = Heartbeat(log, every_seconds=settings.renew_seconds, monotonic_ns=monotonic_ns)
            reader = LogReader(storage, signer.verifier, cached_tiles=64, cached_bundles=16)
            state = open_state(
                state_folder,
                reader,
                log.size,
                origin=signer.name,
                settings=settings,
                progress=heartbeat.during(progress),
            )
            made = cls(
                store=store,
                log=log,
                heartbeat=heartbeat,
                reader=reader,
                state=state,
                index=index,
                settings=settings,
                ledger=split_origin(signer.name)[0],
                clock=clock,
                metrics=metrics,
            )
            made._catch_up_index(progress)
        except BaseException:
            if state is not None:
                state.discard()
            log.close()
            raise
        return made

    # -------------------------------------------------------------------------------------------------------------- work

    @property
    def size(self) -> int:
        """Leaves published."""
        return self._audit_log.size

    def alive(self, within_seconds: float = 60.0) -> bool:
        """Whether steps go on, be it in vain: the last one ended so recently, and none with a `StateUnknown`."""
        return not self._failed and time.monotonic_ns() - self._beat_ns < within_seconds * 1_000_000_000

    def ready(self) -> bool:
        """Whether the last step did what it had to."""
        return self._ready and self.alive()

    def step(self) -> int:
        """Publish what the store has next; returns the number of entries published, 0 when there is nothing to do.

        Raises:
            Overloaded: store, disk or index did not answer; nothing is lost, call again later.
            StateUnknown: stop; close, and open again.
        """
        if self._failed:
            raise StateUnknown(f"this correlator has stopped: {self._failed}")
        with _no_cycles():
            return self._step()

    def _step(self) -> int:
        chain = self._unpublished
        while chain is None:
            taken = self._source.take(max(1, int(self._settings.step_entries / self._entries_an_event)))
            try:
                forks = forks_told(self._store, taken)
            except BaseException:
                # what follows them in their streams may be read already: without them it would look like a gap
                self._source.put_back(taken)
                raise
            made = self._chained(taken, forks)
            if made.entries or not self._source.backlog:  # else all of it was known, and there is more
                chain = made
        if chain.entries:
            self._publish(chain)
        self._after_publish(chain)
        self._beat_ns = time.monotonic_ns()
        self._ready = True
        return len(chain.entries)

    def renew(self) -> None:
        """Renew the log's head if nothing was written to it for a while; raises as `step`."""
        try:
            self._heartbeat.beat()
        except StateUnknown as error:
            self._failed = f"renewing the head failed: {error}"
            raise

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set, pausing while there is nothing to do.

        A step that found something is followed by a rest as long as itself, unless there is more already. So the busier it
        gets, the more a publish takes in, and what a publish costs beside its entries is paid less often.

        Raises:
            StateUnknown: close, and open again.
        """
        least, most = self._settings.poll_min_seconds, self._settings.poll_max_seconds
        pause = least
        while not stop.is_set():
            began_ns = time.monotonic_ns()
            try:
                self.renew()
                made = self.step()
            except Overloaded as error:
                self.metrics.failures.inc()
                self._beat_ns = time.monotonic_ns()
                self._ready = False
                _log.warning("step given up, tried again later", extra={"reason": str(error)})
                self._pause(stop, min(error.retry_after_seconds, 5.0))
                continue
            took = (time.monotonic_ns() - began_ns) / 1e9
            pause = min(max(least, took), most) if made else min(pause * 1.5, most)
            if not self._source.backlog:
                self._pause(stop, pause)

    def _pause(self, stop: threading.Event, seconds: float) -> None:
        """Wait, and renew the head meanwhile: a pause may be longer than a standby's patience."""
        end_ns = time.monotonic_ns() + int(seconds * 1e9)
        while (left_ns := end_ns - time.monotonic_ns()) > 0:
            if stop.wait(min(left_ns / 1e9, self._settings.renew_seconds / 2)):
                return
            try:
                self.renew()
            except Overloaded:
                return  # the next step says so

    def close(self) -> None:
        """Write the state out and give the log up. The store and the index stay open: they are the caller's."""
        try:
            if self._failed or self._unpublished is not None:
                self._state.discard()
            else:
                self._state.close()
        finally:
            self._audit_log.close()

    def _chained(self, taken: Iterable[SignedHeader | BadBatch], forks: Mapping[str, str]) -> Chain:
        chain = Chain(self._state, self._stitcher, self._clock())
        try:
            self._acceptor.accept(chain, taken, forks)
            self._acceptor.tell_silent(chain, self._source.quiet)
            for trail, verdict in self._state.flows.verdicts(chain.recorded_ns):
                chain.add_verdict(trail, verdict)
        except BaseException as error:
            # the state holds entries that will never be: replay is the way back
            self._failed = f"making entries failed: {error!r}"
            if isinstance(error, Exception) and not isinstance(error, StateUnknown):
                raise StateUnknown(self._failed) from error
            raise
        if chain.events:
            self._entries_an_event = len(chain.entries) / chain.events
        return chain

    # --------------------------------------------------------------------------------------------------------- publishing

    def _publish(self, chain: Chain) -> None:
        try:
            with self.metrics.publish_seconds.time():
                if self._unpublished is None:
                    self._audit_log.append(chain.entries, chain.hashes)
                self._unpublished = chain  # an Overloaded from here on: the log keeps the entries, publish again
                self._audit_log.publish()
        except Overloaded:
            raise
        except BaseException as error:
            self._failed = f"publishing failed: {error!r}"
            raise
        self._unpublished = None
        self._index_behind = True
        self._count(chain)
        for name in {entry.trail for entry in chain.others if entry.kind == "batch"}:
            stream = name.partition("/")[2]
            self._unacknowledged[StreamId(stream)] = _logged_up_to(self._state.streams[stream])
        self._state.commit(chain.hashes[-1])

    def _after_publish(self, chain: Chain) -> None:
        if self._index_behind:
            if chain.indexed and self._index.size() == chain.indexed[0].leaf:
                self._index.apply(chain.indexed)  # as good as from the log, and decoded already
                self._index_behind = False
            else:
                self._catch_up_index(None)
        if self._unacknowledged:
            self._store.acknowledge(self._unacknowledged, part=self._state.shard.number, parts=self._state.shard.count)
            self._unacknowledged = {}
        self._gauge(made=bool(chain.entries))

    def _catch_up_index(self, progress: Callable[[int, int], None] | None) -> None:
        self._index_behind = True
        catch_up(
            self._index,
            self._reader,
            self._audit_log.size,
            progress=self._heartbeat.during(progress),
            published=lambda: self._reader.tree().size,
        )
        self._index_behind = False

    def _count(self, chain: Chain) -> None:
        self.metrics.published(self._state.recorded_ns, self._clock)
        self.metrics.stitched(chain.created, self._clock())
        self.metrics.late_events.inc(chain.late_events)
        self.metrics.flows.count(chain.verdicts)
        kinds = Counter(entry.kind for entry in chain.others)
        kinds["event"] = chain.events
        for kind, count in kinds.items():
            self.metrics.entries.labels(kind).inc(count)
        if kinds["gap"]:
            for entry in chain.others:
                if entry.kind == "gap":
                    self.metrics.gaps.labels(entry.detail["reason"]).inc()

    def _gauge_flows(self) -> None:
        self.metrics.flows.show([flow.name for flow in self._settings.flows], self._state.flows.standing)

    def _gauge(self, *, made: bool) -> None:
        metrics = self.metrics
        metrics.log_size.set(self._audit_log.size)
        metrics.lag_batches.set(self._source.backlog)
        metrics.illegal_streams.set(len(self._source.illegal))
        metrics.index_lag.set(0 if not self._index_behind else self._audit_log.size - self._index.size())
        if made:
            _gauge_streams(metrics, self._state.streams.values())
            self._gauge_flows()


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Let Python's cycle collector rest: a step makes many objects and no cycles, and looking through them costs a third of it."""
    resting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if resting:
            gc.enable()


def _logged_up_to(stream: StreamState) -> int:
    """The number up to which the log holds every batch: spools may let go of those."""
    return (stream.missing[0].first if stream.missing else stream.next_number) - 1


def _gauge_streams(metrics: CorrelatorMetrics, streams: Iterable[StreamState]) -> None:
    counts = dict.fromkeys(("open", "closed", "silent", "stopped"), 0)
    missing = 0
    for stream in streams:
        state = "stopped" if stream.frozen else "closed" if stream.closed else "silent" if stream.silent else "open"
        counts[state] += 1
        missing += sum(gap.last - gap.first + 1 for gap in stream.missing)
    for state, count in counts.items():
        metrics.streams.labels(state).set(count)
    metrics.missing_batches.set(missing)
