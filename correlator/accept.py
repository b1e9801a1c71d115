"""What is accepted of what the store has: entries for batches that follow, and for everything that does not.

A stream that does not follow stops, by a gap or fork entry that names it, and the other streams go on. A batch that was missing
and does not fit stops nothing: it stays missing. The log says each thing once: a stream that has stopped says no more until it goes on.
"""

import logging
from collections.abc import Iterable, Mapping

from collector.batch import SignedHeader, StreamId
from collector.errors import Malformed
from collector.store import EventStore
from correlator.admit import Admission, ForkFound, Refusal, admit, enrolment_of
from correlator.chain import Chain, read_facts
from correlator.errors import VerificationError
from correlator.settings import CorrelatorSettings
from correlator.source import BadBatch
from correlator.state import State
from correlator.streams import StreamState

__all__ = ["Acceptor", "forks_told"]

_log = logging.getLogger("tally.correlator")


def forks_told(store: EventStore, taken: Iterable[SignedHeader | BadBatch]) -> Mapping[str, str]:
    """For headers that tell of a fork: "<stream> <number>" -> digest of the batch that the store holds there, or empty.

    Raises:
        Overloaded, StateUnknown: from the store.
    """
    digests: dict[str, str] = {}
    for item in taken:
        fork = item.header.fork if isinstance(item, SignedHeader) else None
        if fork is not None:
            try:
                stored = store.batch(StreamId(fork.stream), fork.number)
            except VerificationError:
                stored = None
            digests[f"{fork.stream} {fork.number}"] = "" if stored is None else stored.digest
    return digests


class Acceptor:
    """Makes the entries of batches.

    Args:
        state: read and changed.
        settings: which keys may sign, and how long a stream may be silent.
        ledger: the log's origin.
        started_ns: when this process began, by the wall clock: silence counts from then on.
    """

    def __init__(self, state: State, settings: CorrelatorSettings, *, ledger: str, started_ns: int) -> None:
        self._state = state
        self._settings = settings
        self._ledger = ledger
        self._started_ns = started_ns
        self._recorders = frozenset(settings.recorders)

    def accept(self, chain: Chain, taken: Iterable[SignedHeader | BadBatch], forks: Mapping[str, str]) -> None:
        """Entries for these batches, in this order; `forks` as `forks_told` gives it."""
        for item in taken:
            if isinstance(item, BadBatch):
                self._refuse_bad(chain, item)
            else:
                self._accept(chain, item, forks)

    def _accept(self, chain: Chain, signed: SignedHeader, forks: Mapping[str, str]) -> None:
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
        if stream.told_of(header.number):
            return  # the log says so already
        if isinstance(verdict, ForkFound):
            chain.add_fork(
                header.stream,
                number=verdict.number,
                logged=verdict.logged,
                found=verdict.found,
                frozen=header.number >= stream.next_number,
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
            "bad_facts" if bad.error.label == "facts" else "bad_signature",
            first_number=bad.number,
            last_number=bad.number,
            first_sequence=stream.next_sequence,
            last_sequence=-1,
            why=f"batch {bad.number} is not accepted: {bad.error}"[:1_000],
        )

    def _tell_fork(self, chain: Chain, signed: SignedHeader, digests: Mapping[str, str]) -> None:
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

    def tell_silent(self, chain: Chain, quiet: Mapping[str, int]) -> None:
        """A gap entry for each stream that had missed its heartbeats when it was asked in vain, once; `quiet` as `BatchSource` has it."""
        for name, asked_ns in quiet.items():
            stream = self._state.streams.get(name)
            if stream is None or not stream.heartbeat_seconds or stream.closed or stream.silent or stream.frozen:
                continue
            patience_ns = self._settings.silent_heartbeats * stream.heartbeat_seconds * 1_000_000_000
            if asked_ns - max(stream.seen_ns, self._started_ns) > patience_ns:
                chain.add_gap(
                    name,
                    "silent",
                    first_number=stream.next_number,
                    last_number=-1,
                    first_sequence=stream.next_sequence,
                    last_sequence=-1,
                    why=f"no batch within {self._settings.silent_heartbeats} heartbeats of {stream.heartbeat_seconds} s",
                )
