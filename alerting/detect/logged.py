"""Payments read off a log: entries whose facts match, their events from the store, each held to the digest in its entry."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from alerting.detect.finding_event import SERVICE
from alerting.detect.metrics import DetectorMetrics
from alerting.detect.payment import Payment, PaymentReader
from collector.batch import EventRef
from collector.errors import Malformed, NotFound, VerificationError
from collector.event import Event, Facts, decode_event, decode_facts
from collector.store import EventStore
from correlator.entry import Entry, decode_entry, ref_of
from correlator.log import LogReader

__all__ = ["FollowedLog", "LoggedPayments"]

_log = logging.getLogger("tally.detector")


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedLog:
    """A log of the ledger: its origin, and what reads it."""

    origin: str
    reader: LogReader


class LoggedPayments:
    """Reads payments.

    Args:
        store: the events.
        readers: of each kind of payment; the first whose `matches` holds reads the event.
        metrics: where payments and what cannot be read are counted.
    """

    def __init__(self, store: EventStore, readers: Sequence[PaymentReader], metrics: DetectorMetrics) -> None:
        self._store = store
        self._readers = readers
        self._metrics = metrics
        for reader in readers:
            metrics.payments.labels(reader.settings.name)
            metrics.unreadable.labels(reader.settings.name)

    def between(self, log: FollowedLog, start: int, end: int) -> list[tuple[Payment, Event]]:
        """The payments of the leaves from `start` to below `end`, in this order, each with its event.

        An event that was retired by policy or lost, and one that lacks what a payment needs, is counted and left out.

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
        events = self._events([ref_of(entry) for _, entry, _, _ in wanted])
        payments = []
        for (leaf, entry, facts, reader), data in zip(wanted, events, strict=True):
            kind = reader.settings.name
            if data is None:  # `tally check` says whether it was retired
                self._metrics.unreadable.labels(kind).inc()
                continue
            if hashlib.sha256(data).hexdigest() != facts.digest:
                raise VerificationError(
                    f"event {entry.sequence} of stream {entry.stream} in the store is not the one in the log (leaf {leaf})"
                )
            event = decode_event(data)
            try:
                payments.append((reader.payment(event, leaf), event))
            except Malformed as error:
                self._metrics.unreadable.labels(kind).inc()
                _log.warning("no payment can be read", extra={"leaf": leaf, "payment": kind, "reason": str(error)})
            else:
                self._metrics.payments.labels(kind).inc()
        return payments

    def _events(self, refs: Sequence[EventRef]) -> Sequence[bytes | None]:
        if not refs:
            return []
        try:
            return self._store.events(refs)
        except NotFound:
            return [self._event(ref) for ref in refs]

    def _event(self, ref: EventRef) -> bytes | None:
        try:
            return self._store.events([ref])[0]
        except NotFound:
            return None
