"""An event -> its trail, and why. Pure: it follows from that event alone, so any order of arrival gives the same trails.

The trail is the explicit transaction; else the strongest declared business key (strength = `settings.key_order`, names not
listed there come after, by name); else the trace; else the stream. An amount (`collector.amounts`) stands among the keys and is
no identity. Every other identity that the event carries is a link
between its trail and the other one (docs/format.md, "Stitching").

An access goes to ``access/<principal>``, but only when a recorder of ours signed it: anybody else's claim is placed like
any other event. An access links nothing, for the trail that was read must not change by being read. A retirement goes to
``ledger/retirements`` and an incident to ``incident/<id>`` on the same condition, if its id can be one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from collector.amounts import is_amount
from collector.event import Facts
from correlator.trail import (
    RETIREMENTS,
    access_trail,
    incident_trail,
    is_incident,
    key_trail,
    stream_trail,
    trace_trail,
    transaction_trail,
)

__all__ = ["MAX_WHY_CHARACTERS", "Placement", "Stitcher"]

MAX_WHY_CHARACTERS = 300
"""A reason is cut to this length, so that the longest facts still fit into one entry."""

_CACHED = 8_192


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an event belongs.

    Attributes:
        trail: the id of its trail.
        why: the reason, e.g. ``transaction: attributes.payment_id``, ``key order_id: rule 2``, ``trace``, ``stream``.
        links: (the other trail, the reason for it), each other trail once, strongest first.
        shard: in the log of which shard, where the event itself says so; 0: in that of its trail.
    """

    trail: str
    why: str
    links: tuple[tuple[str, str], ...] = ()
    shard: int = 0


class Stitcher:
    """Places events.

    Args:
        key_order: names of business keys, strongest first.
    """

    def __init__(self, key_order: Sequence[str] = ()) -> None:
        self._strength = {name: rank for rank, name in enumerate(key_order)}
        self._traces: dict[str, Placement | None] = {}
        self._placed: dict[tuple[object, ...], Placement] = {}

    def place(self, facts: Facts, stream: str, *, recorder: bool = False) -> Placement:
        """The place of the event of `stream` with these facts; `recorder`: the stream is one of our own recorders.

        Events that carry the same identities for the same reasons get the same object.
        """
        if facts.access is not None and recorder:
            return Placement(access_trail(facts.access.principal or "unknown", facts.tenant), "access")
        if facts.retirement is not None and recorder:
            return Placement(RETIREMENTS, "retirement", shard=facts.retirement.shard)
        if facts.incident is not None and recorder and is_incident(facts.incident.id):
            return Placement(incident_trail(facts.incident.id), "incident")
        if not facts.transaction and not facts.keys:
            placed = self._by_trace(facts.trace_id, facts.tenant) if facts.trace_id else None
            return placed or Placement(stream_trail(stream, facts.tenant), "stream")
        # the number of keys says where they end: a collector must not be able to pass a key off as another's reason
        keys = facts.keys
        same = (facts.transaction, facts.trace_id, facts.tenant, len(keys), *keys.items(), *facts.found.items())
        placed = self._placed.get(same)
        if placed is None:
            found = self.identities(facts)
            if not found:  # keys without values, amounts alone, and no trace
                return Placement(stream_trail(stream, facts.tenant), "stream")
            trail, why = found[0]
            placed = Placement(trail, why, tuple(found[1:]))
            if len(self._placed) >= _CACHED:
                self._placed.clear()
            self._placed[same] = placed
        return placed

    def place_all(self, batch: Iterable[Facts], stream: str, *, recorder: bool = False) -> list[Placement]:
        """`place` for each event of a batch of `stream`: neighbours often are of one transaction, and are placed once."""
        out: list[Placement] = []
        before = Facts(digest="")
        for facts in batch:
            if (
                out
                and facts.transaction == before.transaction
                and facts.trace_id == before.trace_id
                and facts.keys == before.keys
                and facts.found == before.found
                and facts.tenant == before.tenant
                and facts.access == before.access
                and facts.retirement == before.retirement
                and facts.incident == before.incident
            ):
                out.append(out[-1])
            else:
                out.append(self.place(facts, stream, recorder=recorder))
                before = facts
        return out

    def identities(self, facts: Facts) -> list[tuple[str, str]]:
        """The trail of every identity that the event carries, with its reason: strongest first, each trail once."""
        tenant = facts.tenant
        out: list[tuple[str, str]] = []
        if facts.transaction:
            out.append(
                (transaction_trail(facts.transaction, tenant), _why("transaction", facts.found.get("transaction")))
            )
        keys = facts.keys
        if keys:
            names = sorted(keys, key=self._rank) if len(keys) > 1 else keys
            out += [
                (key_trail(name, keys[name], tenant), _why(f"key {name}", facts.found.get(name)))
                for name in names
                if name and keys[name] and not is_amount(name)
            ]
        if facts.trace_id:
            placed = self._by_trace(facts.trace_id, tenant)
            if placed is not None:
                out.append((placed.trail, placed.why))
        return out

    def _rank(self, name: str) -> tuple[int, str]:
        return self._strength.get(name, len(self._strength)), name

    def _by_trace(self, trace_id: str, tenant: str) -> Placement | None:
        """Most events of a batch share their trace with a neighbour, hence the cache; None: not a trace id."""
        if tenant:
            try:
                return Placement(trace_trail(trace_id, tenant), "trace")
            except ValueError:
                return None
        if trace_id in self._traces:
            return self._traces[trace_id]
        try:
            placed = Placement(trace_trail(trace_id), "trace")
        except ValueError:
            placed = None
        if len(self._traces) >= _CACHED:
            self._traces.clear()
        self._traces[trace_id] = placed
        return placed


def _why(what: str, rule: str | None) -> str:
    return (f"{what}: {rule}" if rule else what)[:MAX_WHY_CHARACTERS]
