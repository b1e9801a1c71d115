"""Makes incidents of conditions: one open at a time for each cause and subject, each step on record once.

    condition → is one open for this cause? → event → recorder (durable) → known here, and soon in the log

What is open is known from the log. A step that is in our spool and not in the log yet when we die is taken again after the restart, under
the same id: the recorder's journal of source ids knows it, so it is on record once.
"""

from typing import Protocol

from alerting.incidents.condition import Condition
from alerting.incidents.metrics import IncidentMetrics
from collector.event import Event, Incident, format_time, parse_time
from correlator.entry import Entry
from correlator.incidents import Incidents, LoggedIncident, closed_event, incident_id, opened_event, source_id

__all__ = ["Keeper", "Steps"]

MAX_DETAIL = 500


class Steps(Protocol):
    """What is needed of `collector.recorder.Recorder`."""

    def record_once(self, event: Event, source_id: bytes) -> bool:
        """Durable on return, and only once for each id; raises `Overloaded` or `StateUnknown`."""


class Keeper:
    """Opens and closes. For one thread.

    Args:
        recorder: puts steps on record.
        ledger: its name: incidents of two ledgers are called differently.
        incidents: what the log tells of; it must know all of it before the first condition.
        metrics: where to count.
    """

    def __init__(self, recorder: Steps, *, ledger: str, incidents: Incidents, metrics: IncidentMetrics) -> None:
        self._recorder = recorder
        self._ledger = ledger
        self.incidents = incidents
        self._metrics = metrics
        metrics.show(incidents)

    def learn(self, entry: Entry, leaf: int) -> None:
        """Take in an entry of the log.

        An incident that a person signed off while it was open is over by their word.

        Raises:
            Overloaded, StateUnknown: the end could not be put on record; learn the same entry again.
            VerificationError: the entry cannot be read.
        """
        found = self.incidents.add(entry, leaf)
        if found is None:
            return
        if found.open and found.signed and found.began:
            self._close(found, parse_time(found.signed), f"{found.signed_by} says that it is over")
        self._metrics.show(self.incidents)

    def observe(self, seen: Condition) -> LoggedIncident | None:
        """Open or close what this condition opens or closes; gives it, or None when there was nothing to do.

        Raises:
            Overloaded, StateUnknown: it could not be put on record; observe the same again.
        """
        standing = self.incidents.open_of(seen.cause, seen.subject)
        if not seen.fails:
            return self._close(standing, seen.time_ns, seen.detail) if standing is not None else None
        if standing is not None:
            return None
        turn = seen.mark or f"#{self.incidents.count_of(seen.cause, seen.subject)}"
        found = incident_id(self._ledger, seen.cause, seen.subject, turn)
        if self.incidents.get(found) is not None:
            return None
        said = Incident(
            id=found,
            state="opened",
            cause=seen.cause,
            subject=seen.subject,
            time=format_time(seen.time_ns),
            first=seen.first,
            last=seen.last,
        )
        return self._record(said, opened_event(said, detail=seen.detail[:MAX_DETAIL]))

    def _close(self, one: LoggedIncident, time_ns: int, detail: str) -> LoggedIncident:
        began_ns = parse_time(one.began)
        time_ns = max(time_ns, began_ns)  # clocks differ: an end before the beginning says nothing
        said = Incident(
            id=one.id,
            state="closed",
            cause=one.cause,
            subject=one.subject,
            time=format_time(time_ns),
            first=one.first,
            last=one.last,
        )
        seconds = (time_ns - began_ns) / 1e9
        return self._record(said, closed_event(said, detail=detail[:MAX_DETAIL], seconds=seconds))

    def _record(self, said: Incident, event: Event) -> LoggedIncident:
        if self._recorder.record_once(event, source_id(said.id, said.state)):
            self._metrics.steps.labels(said.cause, said.state).inc()
        found = self.incidents.take(said)
        self._metrics.show(self.incidents)
        return found
