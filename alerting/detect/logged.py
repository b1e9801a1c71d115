"""Payments read off a log: entries whose facts match, their events from the store, each held to the digest in its entry."""

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from alerting.detect.finding_event import SERVICE
from alerting.detect.metrics import DetectorMetrics
from alerting.detect.payment import Payment, PaymentReader, credible
from collector.batch import EventRef
from collector.errors import Malformed, NotFound, VerificationError
from collector.event import Event, Facts, decode_event, decode_facts, parse_time
from collector.store import EventStore
from correlator.entry import Entry, decode_entry, ref_of
from correlator.log import LogReader

__all__ = ["FollowedLog", "LoggedPayments"]

_log = logging.getLogger("tally.detector")


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedLog:
    """A log of the ledger: its origin, and what reads it.

    Attributes:
        kept: of leaves of events, those that no retirement lets go of; raises `NotFound` where the index does not know yet.
    """

    origin: str
    reader: LogReader
    kept: Callable[[Sequence[int]], Collection[int]]


class LoggedPayments:
    """Reads payments.

    Args:
        store: the events.
        readers: of each kind of payment; the first whose `matches` holds reads the event.
        metrics: where payments and what cannot be read are counted.
        beat: called before each request to the store: where events are missing there are many before `between` returns.
    """

    def __init__(
        self,
        store: EventStore,
        readers: Sequence[PaymentReader],
        metrics: DetectorMetrics,
        *,
        beat: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._beat = beat
        self._readers = readers
        self._metrics = metrics
        for reader in readers:
            metrics.payments.labels(reader.settings.name)
            metrics.unreadable.labels(reader.settings.name)
            metrics.future.labels(reader.settings.name)

    def between(self, log: FollowedLog, start: int, end: int) -> list[tuple[Payment, Event]]:
        """The payments of the leaves from `start` to below `end`, in this order, each with its event.

        An event that was retired by policy or lost, one that lacks what a payment needs, and one that this version cannot decode, is
        counted and left out.

        Raises:
            Overloaded: log or store did not answer.
            VerificationError: an entry or an event was changed.
        """
        wanted: list[tuple[int, Entry, Facts, PaymentReader]] = []
        for leaf, line in enumerate(log.reader.entries(start, end), start):
            entry = decode_entry(line)
            if entry.kind != "event":
                continue
            facts = decode_facts(bytes(entry.facts))
            reader = next((one for one in self._readers if one.matches(facts)), None)
            if reader is not None and facts.service != SERVICE:
                wanted.append((leaf, entry, facts, reader))
        events = self._events(log, {leaf: ref_of(entry) for leaf, entry, _, _ in wanted})
        payments = []
        for leaf, entry, facts, reader in wanted:
            kind = reader.settings.name
            data = events.get(leaf)
            if data is None:  # `tally check` says whether it was retired
                self._metrics.unreadable.labels(kind).inc()
                continue
            if hashlib.sha256(data).hexdigest() != facts.digest:
                raise VerificationError(
                    f"event {entry.sequence} of stream {entry.stream} in the store is not the one in the log (leaf {leaf})"
                )
            try:
                # the digest says that these are the bytes that were signed, not that they are an event: they may be a newer
                # collector's, or anything that whoever holds an enrolled key likes
                event = decode_event(data)
                stated = _placed(reader.payment(event, leaf), facts)
            except Malformed as error:
                self._metrics.unreadable.labels(kind).inc()
                _log.warning("no payment can be read", extra={"leaf": leaf, "payment": kind, "reason": str(error)})
                continue
            payment = credible(stated, event, recorded_ns=parse_time(entry.recorded))
            if payment is not stated:
                self._metrics.future.labels(kind).inc()
            self._metrics.payments.labels(kind).inc()
            payments.append((payment, event))
        return payments

    def _events(self, log: FollowedLog, refs: Mapping[int, EventRef]) -> dict[int, bytes]:
        """The events of these leaves, as far as the store has them."""
        try:
            return self._read(refs)
        except NotFound:
            pass
        try:
            # of a month that was let go of a store has nothing, and says so of each one that it is asked for
            kept = set(log.kept(list(refs)))
        except NotFound:
            kept = set(refs)
        return self._there({leaf: ref for leaf, ref in refs.items() if leaf in kept})

    def _there(self, refs: Mapping[int, EventRef]) -> dict[int, bytes]:
        """As `_events`, by halves: a few that are lost cost a few dozen requests, whatever is beside them."""
        try:
            return self._read(refs)
        except NotFound:
            if len(refs) == 1:
                return {}
        leaves = list(refs)
        middle = len(leaves) // 2
        halves = leaves[:middle], leaves[middle:]
        return {leaf: data for half in halves for leaf, data in self._there({one: refs[one] for one in half}).items()}

    def _read(self, refs: Mapping[int, EventRef]) -> dict[int, bytes]:
        if not refs:
            return {}
        if self._beat is not None:
            self._beat()
        return dict(zip(refs, self._store.events(list(refs.values())), strict=True))


def _placed(payment: Payment, facts: Facts) -> Payment:
    """The payment with what its trail follows from, which are the facts. Events say the same, unless somebody signed another one: of any length."""
    if (payment.transaction, payment.tenant, payment.trace_id) == (facts.transaction, facts.tenant, facts.trace_id):
        return payment
    return replace(payment, transaction=facts.transaction, tenant=facts.tenant, trace_id=facts.trace_id)
