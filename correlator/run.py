"""The correlator at work: takes batches from the store, checks and stitches them, publishes entries, indexes, acknowledges.

One `step` is one publish. In its order, with what a crash in between leaves:

    read the store        nothing was changed
    check, stitch, chain  the state in memory is ahead of the log: it is thrown away, `State.open` replays the log
    publish               see `correlator.log`: it has happened or it has not
    index                 the index is behind: it catches up from the log
    acknowledge           spools keep segments longer: said again at the next start

So there is nothing to repair after a crash but to `open` again.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import msgspec

from collector.batch import SignedHeader, StreamId
from collector.errors import Malformed
from collector.store import EventStore
from correlator.admit import Admission, ForkFound, Refusal, admit, enrolment_of
from correlator.chain import Chain, read_facts
from correlator.errors import Overloaded, StateUnknown, VerificationError
from correlator.index import TrailIndex
from correlator.log import AuditLog
from correlator.metrics import CorrelatorMetrics
from correlator.note import Signer
from correlator.progress import FlowTracker
from correlator.reader import LogReader
from correlator.reindex import catch_up
from correlator.settings import CorrelatorSettings
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
        self._reader = reader
        self._state = state
        self._index = index
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self.metrics = metrics or CorrelatorMetrics()
        self._stitcher = Stitcher(settings.key_order)
        self._source = BatchSource(
            store,
            state.streams,
            group=settings.streams_a_step,
            clock=time.monotonic_ns,
            recheck_seconds=settings.missing_poll_seconds,
        )
        self._recorders = frozenset(settings.recorders)
        self._unpublished: Chain | None = None
        self._unacknowledged: dict[StreamId, int] = {
            StreamId(name): _logged_up_to(stream) for name, stream in state.streams.items()
        }
        self._started_ns = clock()
        self._index_behind = True
        self._failed = ""
        self._beat_ns = time.monotonic_ns()
        self._ready = False

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
    ) -> Self:
        """Become the log's writer, and bring state and index up to it.

        Args:
            store: where collectors ship to.
            storage: where the log lies.
            signer: the log's key; its name is the ledger's.
            index: of the trails; may be empty or behind.
            state_folder: of the derived state; made when absent.
            settings: see there.
            clock: nanoseconds since 1970.
            writer_id: who writes, for people.
            metrics: where to count; by default its own.
            progress: told (leaves applied, leaves) while state or index catch up.

        Raises:
            Conflict: another process writes this log.
            VerificationError: the log was changed.
            Overloaded, StateUnknown: a disk or store does not answer.
        """
        log = AuditLog.open(storage, signer, clock=clock, writer_id=writer_id)
        state = None
        try:
            reader = LogReader(storage, signer.verifier, cached_tiles=64, cached_bundles=16)
            state = State.open(
                state_folder,
                reader,
                log.size,
                fingerprint=_fingerprint(signer.name, settings),
                flows=lambda cold: FlowTracker(cold, settings.flows),
                hot_trails=settings.hot_trails,
                progress=progress,
            )
            made = cls(
                store=store,
                log=log,
                reader=reader,
                state=state,
                index=index,
                settings=settings,
                ledger=signer.name,
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
        chain = self._unpublished
        if chain is None:
            taken = self._source.take(self._settings.step_entries)
            forks = self._forks_told(taken)
            chain = self._chained(taken, forks)
        if chain.entries:
            self._publish(chain)
        self._after_publish(chain)
        self._beat_ns = time.monotonic_ns()
        self._ready = True
        return len(chain.entries)

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set, pausing while there is nothing to do.

        Raises:
            StateUnknown: close, and open again.
        """
        least, most = self._settings.poll_min_seconds, self._settings.poll_max_seconds
        pause = least
        while not stop.is_set():
            try:
                made = self.step()
            except Overloaded as error:
                self.metrics.failures.inc()
                self._beat_ns = time.monotonic_ns()
                self._ready = False
                _log.warning("step given up, tried again later", extra={"reason": str(error)})
                stop.wait(min(error.retry_after_seconds, 5.0))
                continue
            pause = least if made else min(pause * 1.5, most)
            if not self._source.backlog:
                stop.wait(pause)

    def close(self) -> None:
        """Write the state out and give the log up. The store and the index stay open: they are the caller's."""
        try:
            if self._failed or self._unpublished is not None:
                self._state.discard()
            else:
                self._state.close()
        finally:
            self._audit_log.close()

    # ------------------------------------------------------------------------------------------------- making the entries

    def _chained(self, taken: Iterable[SignedHeader | BadBatch], forks: dict[str, str]) -> Chain:
        chain = Chain(self._state, self._stitcher, self._clock())
        try:
            for item in taken:
                if isinstance(item, BadBatch):
                    self._refuse_bad(chain, item)
                else:
                    self._accept(chain, item, forks)
            self._tell_silent(chain)
            for trail, verdict in self._state.flows.verdicts(chain.recorded_ns):
                chain.add_verdict(trail, verdict)
        except BaseException as error:
            # the state holds entries that will never be: replay is the way back
            self._failed = f"making entries failed: {error!r}"
            if isinstance(error, Exception) and not isinstance(error, StateUnknown):
                raise StateUnknown(self._failed) from error
            raise
        return chain

    def _accept(self, chain: Chain, signed: SignedHeader, forks: dict[str, str]) -> None:
        header = signed.header
        stream = self._state.streams.get(header.stream) or StreamState(stream=header.stream)
        if stream.frozen and header.number > stream.next_number:
            return
        enrolled = enrolment_of(
            stream.collector,
            header.key,
            configured=self._settings.enrolled,
            known=self._state.keys_of(stream.collector),
            first_use=self._settings.enrol_on_first_use,
        )
        verdict = admit(stream, signed, self._ledger, enrolled)
        if verdict is None:
            return
        if isinstance(verdict, Admission):
            try:
                lines, facts = read_facts(signed)
            except Malformed as error:
                verdict = Refusal(reason="bad_facts", why=str(error))
            else:
                if verdict.enrol:
                    role = "recorder" if stream.collector in self._recorders else "collector"
                    chain.add_enrolment(stream=header.stream, key=header.key, how=verdict.enrol, role=role)
                if verdict.absent is not None:
                    self._tell_absent(chain, stream, signed, verdict.absent)
                why = f"late: fills the gap at leaf {verdict.late}" if verdict.late >= 0 else ""
                chain.add_batch(signed, lines, facts, why)
                if header.fork is not None:
                    self._tell_fork(chain, signed, forks)
                return
        if stream.frozen:
            return  # the log says so already
        if isinstance(verdict, ForkFound):
            chain.add_fork(
                header.stream,
                number=verdict.number,
                logged=verdict.logged,
                found=verdict.found,
                frozen=True,
                why=verdict.why,
            )
        else:
            chain.add_gap(
                header.stream,
                verdict.reason,
                first_number=header.number,
                last_number=header.number,
                first_sequence=header.first,
                last_sequence=header.first + header.count - 1,
                why=f"batch {header.number} is not accepted: {verdict.why}",
            )

    def _tell_absent(self, chain: Chain, stream: StreamState, signed: SignedHeader, absent: tuple[int, int]) -> None:
        first, last = absent
        chain.add_gap(
            stream.stream,
            "first_late" if first == 1 else "missing",
            first_number=first,
            last_number=last,
            first_sequence=stream.next_sequence,
            last_sequence=signed.header.first - 1,
            why=f"the store has batch {signed.header.number}, but not what comes before it",
        )

    def _refuse_bad(self, chain: Chain, bad: BadBatch) -> None:
        stream = self._state.streams.get(bad.stream) or StreamState(stream=bad.stream)
        if stream.frozen or bad.number < stream.next_number:
            return  # the log says already that it is not to be had
        chain.add_gap(
            bad.stream,
            "bad_facts" if "facts" in str(bad.error) else "bad_signature",
            first_number=bad.number,
            last_number=bad.number,
            first_sequence=stream.next_sequence,
            last_sequence=-1,
            why=f"batch {bad.number} is not accepted: {bad.error}"[:1_000],
        )

    def _forks_told(self, taken: Iterable[SignedHeader | BadBatch]) -> dict[str, str]:
        """For headers that tell of a fork: digest of the batch that the store holds under the disputed number."""
        digests: dict[str, str] = {}
        for item in taken:
            fork = item.header.fork if isinstance(item, SignedHeader) else None
            if fork is not None:
                try:
                    stored = self._store.batch(StreamId(fork.stream), fork.number)
                except VerificationError:
                    stored = None
                digests[f"{fork.stream} {fork.number}"] = "" if stored is None else stored.digest
        return digests

    def _tell_fork(self, chain: Chain, signed: SignedHeader, digests: dict[str, str]) -> None:
        fork = signed.header.fork
        assert fork is not None
        stream = self._state.streams.get(signed.header.stream)
        forked = self._state.streams.get(fork.stream)
        if stream is None or forked is None or forked.collector != stream.collector:
            _log.warning("a fork of an unknown stream was told", extra={"stream": signed.header.stream})
            return
        chain.add_fork(
            fork.stream,
            number=fork.number,
            logged=digests.get(f"{fork.stream} {fork.number}", ""),
            found=fork.digest,
            frozen=False,
            why=f"told by the stream {signed.header.stream}, which goes on in its place: the spool was cloned",
        )

    def _tell_silent(self, chain: Chain) -> None:
        now_ns = chain.recorded_ns
        for name in self._source.quiet:
            stream = self._state.streams.get(name)
            if stream is None or not stream.heartbeat_seconds or stream.closed or stream.silent or stream.frozen:
                continue
            patience_ns = self._settings.silent_heartbeats * stream.heartbeat_seconds * 1_000_000_000
            if now_ns - max(stream.seen_ns, self._started_ns) > patience_ns:
                chain.add_gap(
                    name,
                    "silent",
                    first_number=stream.next_number,
                    last_number=-1,
                    first_sequence=stream.next_sequence,
                    last_sequence=-1,
                    why=f"no batch within {self._settings.silent_heartbeats} heartbeats of {stream.heartbeat_seconds} s",
                )

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
        for name in {one.entry.trail for one in chain.indexed if one.entry.kind == "batch"}:
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
            self._store.acknowledge(self._unacknowledged)
            self._unacknowledged = {}
        self._gauge(made=bool(chain.entries))

    def _catch_up_index(self, progress: Callable[[int, int], None] | None) -> None:
        self._index_behind = True
        catch_up(self._index, self._reader, self._audit_log.size, progress=progress)
        self._index_behind = False

    def _count(self, chain: Chain) -> None:
        self.metrics.entries.labels("event").inc(chain.events)
        for one in chain.indexed:
            kind = one.entry.kind
            if kind != "event":
                self.metrics.entries.labels(kind).inc()
                if kind == "gap":
                    self.metrics.gaps.labels(one.entry.detail["reason"]).inc()

    def _gauge(self, *, made: bool) -> None:
        metrics = self.metrics
        metrics.log_size.set(self._audit_log.size)
        metrics.lag_batches.set(self._source.backlog)
        metrics.index_lag.set(0 if not self._index_behind else self._audit_log.size - self._index.size())
        if made:
            _gauge_streams(metrics, self._state.streams.values())
        if self._state.leaves:
            metrics.head_age_seconds.set(max(0.0, (self._clock() - self._state.recorded_ns) / 1e9))


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


def _fingerprint(ledger: str, settings: CorrelatorSettings) -> str:
    """Of what the state follows from beside the log. Other flows begin again, so that they count from the log's start."""
    return hashlib.sha256(msgspec.json.encode([ledger, settings.flows], order="sorted")).hexdigest()
