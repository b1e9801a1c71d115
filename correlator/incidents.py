"""Which incidents there were, as the log itself tells, and the events that tell it. Pure (docs/format.md, "Incident").

An incident is a control that failed: a gap in the evidence, a store that is away, a review that was not done. It is opened, closed and signed
off by events that a recorder of ours signed, each in the trail ``incident/<id>``. All that says which incidents there are stands in
their facts, and so in their entries: it is told for ever, also when the events' own bytes have been retired.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from collector.errors import Malformed
from collector.event import Event, Incident, Origin, decode_facts, format_time
from correlator.entry import Entry
from correlator.errors import VerificationError
from correlator.trail import incident_trail, kind_of

__all__ = [
    "CAUSES",
    "SERVICE",
    "Incidents",
    "LoggedIncident",
    "closed_event",
    "incident_id",
    "opened_event",
    "signed_event",
    "source_id",
]

SERVICE = "tallystick-incidents"
"""Under this name incidents are told."""

CAUSES: Mapping[str, str] = {
    "gap": "batches of a stream are missing, or cannot be accepted",
    "fork": "a stream has two histories: a spool was cloned, or a key is used by two",
    "collector_lost": "a collector that is expected is not heard",
    "verification_failed": "something does not verify: damage or tampering",
    "clock_off": "a collector's clock is off",
    "store_outage": "the event store does not answer",
    "review_missed": "nobody reviewed what calls for a look",
    "alert_path_broken": "alerts cannot reach people",
    "dead_letters": "inputs were refused, and are in no trail",
}
"""What can fail, by the name that stands in the log."""

_CARD_LIKE = re.compile(r"\d{12}")
_LIMIT = 2_000


def incident_id(*parts: str) -> str:
    """32 hex digits that follow from `parts`, and in which no digits stand that protection could take for a card number."""
    turn = 0
    while True:
        found = hashlib.sha256("\n".join((*parts, str(turn))).encode()).hexdigest()[:32]
        if not _CARD_LIKE.search(found):
            return found
        turn += 1


def source_id(incident: str, state: str) -> bytes:
    """What a recorder knows this step of this incident by, so that it is on record once."""
    return f"incident/{incident}/{state}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIncident:
    """An incident as it stands in the log. Leaves are −1, and times empty, of what has not happened.

    Attributes:
        id, cause, subject, first, last: see `collector.event.Incident`.
        began, ended, signed: RFC 3339 times, as whoever recorded them states.
        opened_leaf, closed_leaf, signed_leaf: leaf indexes of the entries.
        signed_by: the principal.
    """

    id: str
    cause: str
    subject: str = ""
    first: int = -1
    last: int = -1
    began: str = ""
    ended: str = ""
    signed: str = ""
    opened_leaf: int = -1
    closed_leaf: int = -1
    signed_leaf: int = -1
    signed_by: str = ""

    @property
    def open(self) -> bool:
        """Whether the control has not been found to work again."""
        return not self.ended

    @property
    def state(self) -> str:
        """``opened``, ``closed``, or ``signed_off`` when a person has answered for it, which may be before it is closed."""
        return "signed_off" if self.signed else "opened" if self.open else "closed"

    @property
    def trail(self) -> str:
        """The id of its trail."""
        return incident_trail(self.id)


class Incidents:
    """The incidents of a ledger, gathered from its logs' entries; those of one incident are all in one log, in order."""

    def __init__(self) -> None:
        self._of: dict[str, LoggedIncident] = {}
        self._open: dict[tuple[str, str], str] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, entry: Entry, leaf: int) -> LoggedIncident | None:
        """Take in an entry; gives the incident as it stands then, None when the entry is about none. Twice is as once.

        Raises:
            VerificationError: its facts cannot be read.
        """
        if entry.kind != "event" or kind_of(entry.trail) != "incident":
            return None
        try:
            facts = decode_facts(bytes(entry.facts))
        except Malformed as error:
            raise VerificationError(f"leaf {leaf}: {error}") from error
        if facts.incident is None:
            return None
        return self.take(facts.incident, by=facts.actor, leaf=leaf)

    def take(self, said: Incident, *, by: str = "", leaf: int = -1) -> LoggedIncident:
        """Take in what an event says, of an entry at this leaf, or (−1) one that is not in the log yet. The first word of a kind holds."""
        key = (said.cause, said.subject)
        known = self._of.get(said.id)
        if known is None:
            known = LoggedIncident(id=said.id, cause=said.cause, subject=said.subject)
            self._counts[key] = self._counts.get(key, 0) + 1
        if said.state == "opened" and (not known.began or known.opened_leaf < 0):
            known = replace(known, began=said.time, first=said.first, last=said.last, opened_leaf=leaf)
        elif said.state == "closed" and (not known.ended or known.closed_leaf < 0):
            known = replace(known, ended=said.time, closed_leaf=leaf)
        elif said.state == "signed_off" and (not known.signed or known.signed_leaf < 0):
            known = replace(known, signed=said.time, signed_leaf=leaf, signed_by=by)
        self._of[said.id] = known
        if known.open:
            self._open.setdefault(key, said.id)
        elif self._open.get(key) == said.id:
            del self._open[key]
        return known

    def __len__(self) -> int:
        return len(self._of)

    def get(self, incident: str) -> LoggedIncident | None:
        """The incident of this id."""
        return self._of.get(incident)

    def all(self) -> list[LoggedIncident]:
        """All of them, those that began last first."""
        return sorted(self._of.values(), key=lambda one: (one.began, one.id), reverse=True)

    def open_of(self, cause: str, subject: str) -> LoggedIncident | None:
        """The one that is open for this cause."""
        found = self._open.get((cause, subject))
        return self._of[found] if found is not None else None

    def count_of(self, cause: str, subject: str) -> int:
        """How many there ever were for this cause."""
        return self._counts.get((cause, subject), 0)


def opened_event(incident: Incident, *, detail: str) -> Event:
    """The event that opens an incident; `detail` says in words what was seen."""
    return _event(incident, name="incident.opened", body=detail, severity_number=13, severity_text="WARN")


def closed_event(incident: Incident, *, detail: str, seconds: float) -> Event:
    """The event that closes one, after `seconds`."""
    attributes = {"incident.duration_seconds": round(seconds, 3)}
    return _event(
        incident, name="incident.closed", body=detail, attributes=attributes, severity_number=9, severity_text="INFO"
    )


def signed_event(
    incident: LoggedIncident, *, now_ns: int, by: str, roles: str, root_cause: str, remediation: str, comment: str
) -> Event:
    """The event by which a person answers for an incident (PCI DSS 10.7.3); texts have at most 2,000 characters."""
    said = Incident(
        id=incident.id, state="signed_off", cause=incident.cause, subject=incident.subject, time=format_time(now_ns)
    )
    attributes = {
        "incident.root_cause": root_cause[:_LIMIT],
        "incident.remediation": remediation[:_LIMIT],
        "incident.roles": roles,
    }
    return _event(
        said,
        name="incident.signed_off",
        body=comment[:_LIMIT] or None,
        attributes=attributes,
        severity_number=9,
        severity_text="INFO",
        actor=by,
    )


def _event(
    incident: Incident, *, name: str, body: str | None, attributes: Mapping[str, Any] | None = None, **fields: Any
) -> Event:
    return Event(
        time=incident.time,
        event_name=name,
        body=body,
        resource={"service.name": SERVICE},
        attributes={"incident.cause": incident.cause, "incident.subject": incident.subject, **(attributes or {})},
        incident=incident,
        actor=fields.pop("actor", SERVICE),
        origin=Origin(receiver="record"),
        **fields,
    )
