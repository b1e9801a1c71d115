"""Reading is evidence: each access and refusal as an event that is durable before its answer goes out, and reading them back.

An access is never in the trail that was read, or reading would change what is read: it is in ``access/<principal>``.
`AccessHistory` finds those of a trail, to be shown beside it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote_plus

from audit_api.clipped import clipped
from audit_api.evidence import Evidence
from audit_api.limits import Surplus
from collector.batch import EventRef
from collector.errors import Malformed
from collector.event import Access, Event, Origin, decode_facts, format_time
from correlator.index import TrailQuery

__all__ = [
    "DAY_KEY",
    "DAY_SIGNED",
    "SERVICE",
    "SIGNED",
    "AccessHistory",
    "AccessRecorder",
    "Asked",
    "PastAccess",
    "access_event",
    "surplus_event",
]

SERVICE = "tallystick-api"
SIGNED = "review.sign"
"""The action of an access that signs a trail off."""
DAY_SIGNED = "review.day"
"""The action of an access that signs a day off; the day is its event's key `DAY_KEY`."""
DAY_KEY = "review_day"

MAX_TEXT = 300
_KEPT_SIGNED = 20


class AccessRecorder(Protocol):
    """What the API needs of `collector.recorder.Recorder`. Used from several threads at once."""

    def record(self, event: Event) -> EventRef:
        """Durable on return; raises `Overloaded`, `Malformed` or `StateUnknown`: then it is not on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for, as far as it could be told: for the record of an access or of a refusal.

    Attributes:
        action: what the request would do, e.g. ``trail.read``.
        method, path, query: of the request as sent.
        client: the address it came from, as the connection says.
        trail: the trail asked for; empty for a search.
        session: the name of the browser's session that asked; empty: a token did.
        notes: further attributes of the event.
        keys: business keys of the event, which stay in the log with it.
        purpose: why, as whoever asked says; empty: they did not say.
    """

    action: str
    method: str
    path: str
    query: str = ""
    client: str = ""
    trail: str = ""
    session: str = ""
    purpose: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)


def access_event(
    asked: Asked, *, principal: str, status: int, now_ns: int, trail: str = "", head: int = -1, refused: str = ""
) -> Event:
    """The event of an access, or of a refusal with its reason. Attribute names are OpenTelemetry's."""
    attributes: dict[str, Any] = {
        "http.request.method": asked.method,
        "http.response.status_code": status,
        "url.path": clipped(asked.path, MAX_TEXT),
    }
    if asked.query:
        # decoded, so that protection sees card numbers
        attributes["url.query"] = clipped(unquote_plus(asked.query), MAX_TEXT)
    if asked.client:
        attributes["client.address"] = asked.client
    if asked.session:
        attributes["session.id"] = asked.session
    if asked.purpose:
        attributes["access.purpose"] = asked.purpose
    attributes |= asked.notes
    time = format_time(now_ns)
    return Event(
        time=time,
        observed=time,
        event_name=f"access.{asked.action}",
        resource={"service.name": SERVICE},
        attributes=attributes,
        keys=dict(asked.keys),
        actor=principal,
        outcome="failure" if refused else "success",
        access=Access(principal=principal, action=asked.action, trail=trail or asked.trail, head=head, refused=refused),
        origin=Origin(receiver="record"),
    )


def surplus_event(surplus: Surplus, *, now_ns: int) -> Event:
    """The event that stands for refusals that were not recorded one by one."""
    time = format_time(now_ns)
    return Event(
        time=time,
        observed=time,
        event_name="access.refusals",
        resource={"service.name": SERVICE},
        attributes={"refusals": surplus.refusals, "since": format_time(surplus.since_ns), "seconds": 60},
        actor=surplus.principal,
        outcome="failure",
        access=Access(principal=surplus.principal, action="refusals", refused="counted"),
        origin=Origin(receiver="record"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAccess:
    """An access of a trail: its entry's leaf index, and what it says."""

    leaf: int
    time: str
    principal: str
    action: str
    head: int
    refused: str


@dataclass(slots=True)
class AccessHistory:
    """Who has read which trail, gathered from the ``access/…`` trails as they grow. Bounded: the latest accesses are kept.

    Args:
        evidence: the ledger.
        monotonic: seconds that only go forward.
        kept_trails: of so many trails, those whose accesses came last.
        kept_each: so many accesses of each.
        first_look: how many of a principal's latest accesses are read when it is met first.
        refresh_seconds: the access trails are looked at again after so long.
    """

    evidence: Evidence
    monotonic: Callable[[], float]
    kept_trails: int = 20_000
    kept_each: int = 50
    first_look: int = 2_000
    refresh_seconds: float = 0.5
    _by_trail: OrderedDict[str, deque[PastAccess]] = field(default_factory=OrderedDict)
    _signed: OrderedDict[str, deque[PastAccess]] = field(default_factory=OrderedDict)
    _days: dict[str, deque[PastAccess]] = field(default_factory=dict)
    _positions: dict[str, int] = field(default_factory=dict)
    _looked_at: float = -1e9
    complete: bool = True
    """Whether nothing was passed over or let go of since the first access."""

    def of(self, trail: str) -> Sequence[PastAccess]:
        """The latest accesses of a trail, oldest first."""
        self._look()
        return sorted(self._by_trail.get(trail, ()), key=lambda access: access.leaf)

    def signed(self, trail: str) -> Sequence[PastAccess]:
        """The latest sign-offs of a trail, oldest first; other accesses do not push them out."""
        self._look()
        return sorted(self._signed.get(trail, ()), key=lambda access: access.leaf)

    def day_signed(self, day: str, principals: Collection[str] = ()) -> Sequence[PastAccess]:
        """The latest sign-offs of a day, oldest first, among the accesses that were looked at.

        Looks again at once when one of these principals, of whom the index says that they signed it, is not among them.
        """
        self._look()
        if not {*principals} <= {access.principal for access in self._days.get(day, ())}:
            self._refresh()
        return sorted(self._days.get(day, ()), key=lambda access: access.leaf)

    def _look(self) -> None:
        now = self.monotonic()
        if now - self._looked_at >= self.refresh_seconds:
            self._refresh()
            self._looked_at = now  # only now: what could not be looked at is not told as if it had been

    def _refresh(self) -> None:
        index = self.evidence.index
        size = min(index.size(), self.evidence.tree().size)
        below: int | None = None
        while True:
            page = index.find(TrailQuery(kind="access"), size=size, below=below, limit=200)
            for summary in page.trails:
                start = self._positions.get(summary.trail)
                if start is None:
                    start = max(0, summary.entries - self.first_look)
                    self.complete = self.complete and start == 0
                while start < summary.entries:
                    leaves = index.leaves(summary.trail, start=start, limit=500, size=size)
                    if not leaves:
                        break
                    self._take(leaves)
                    start += len(leaves)
                self._positions[summary.trail] = start
            if page.next_below is None:
                return
            below = page.next_below

    def _take(self, leaves: Sequence[int]) -> None:
        for one in self.evidence.entries(leaves):
            if one.entry.kind != "event":
                continue
            try:
                facts = decode_facts(bytes(one.entry.facts))
            except Malformed:
                continue  # not ours to judge here: `tally check` names it
            access = facts.access
            if access is None:
                continue
            past = PastAccess(
                leaf=one.leaf,
                time=facts.time,
                principal=access.principal,
                action=access.action,
                head=access.head,
                refused=access.refused,
            )
            day = facts.keys.get(DAY_KEY, "")
            if access.action == DAY_SIGNED and day and not access.refused:
                self._days.setdefault(day, deque(maxlen=_KEPT_SIGNED)).append(past)
            if not access.trail:
                continue
            kept = self._by_trail.setdefault(access.trail, deque(maxlen=self.kept_each))
            self.complete = self.complete and len(kept) < self.kept_each
            kept.append(past)
            if access.action == SIGNED and not access.refused:
                self._signed.setdefault(access.trail, deque(maxlen=_KEPT_SIGNED)).append(past)
                self._signed.move_to_end(access.trail)
                if len(self._signed) > self.kept_trails:
                    self._signed.popitem(last=False)
            self._by_trail.move_to_end(access.trail)
            if len(self._by_trail) > self.kept_trails:
                self._by_trail.popitem(last=False)
                self.complete = False
