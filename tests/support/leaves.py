"""Entries with their leaf indexes, as a trail index gets them."""

from collections.abc import Sequence
from typing import Any

import msgspec

from collector.event import Facts, decode_facts, encode_facts
from correlator.entry import Entry, Kind, encode_entry
from correlator.index import IndexedLeaf
from correlator.index.leaves import EventRun
from correlator.index.leaves import Leaves as Chained

TIME = "2026-01-02T03:04:0{}.000000000Z"


class Leaves:
    """Makes entries in leaf order; positions follow by trail."""

    def __init__(self) -> None:
        self.made: list[IndexedLeaf] = []
        self._positions: dict[str, int] = {}

    def add(self, trail: str, kind: Kind = "event", **fields: Any) -> int:
        leaf = len(self.made)
        position = self._positions.get(trail, -1) + 1
        self._positions[trail] = position
        facts = fields.pop("facts", Facts(digest="0" * 64) if kind == "event" else None)
        more: dict[str, Any] = {"facts": msgspec.Raw(encode_facts(facts))} if facts else {}
        self.made.append(
            IndexedLeaf(
                leaf=leaf,
                entry=Entry(
                    v=1,
                    trail=trail,
                    position=position,
                    kind=kind,
                    recorded=TIME.format(9),
                    detail=fields,
                    **more,
                ),
            )
        )
        return leaf

    def event(self, trail: str, **facts: Any) -> int:
        return self.add(trail, facts=Facts(digest="0" * 64, **facts))


def story() -> Leaves:
    """Nine leaves in which every kind of trail and status is."""
    leaves = Leaves()
    pay = "transaction/pay-1"
    leaves.event(pay, service="gateway", time=TIME.format(3), keys={"order_id": "o1"})  # 0
    leaves.add(pay, "link", to="key/order_id/o1")  # 1
    leaves.add("key/order_id/o1", "link", to=pay)  # 2
    leaves.event("transaction/pay-2", service="ledger", time=TIME.format(1), error=True)  # 3
    leaves.event(pay, service="ledger", time=TIME.format(2))  # 4
    leaves.event("tenant/acme/transaction/pay-1", service="gateway", time=TIME.format(7))  # 5
    leaves.add("stream/gateway/0123456789abcdef", "gap", reason="missing")  # 6
    leaves.add(pay, "verdict", flow="payment", verdict="complete", missing=[])  # 7
    leaves.event("trace/" + "a" * 32)  # 8
    return leaves


def in_runs(made: Sequence[IndexedLeaf]) -> Chained:
    """The same leaves as a chain gives them: neighbouring events of one trail as a run."""
    given = Chained(made[0].leaf, [encode_entry(one.entry) for one in made])
    for one in made:
        entry = one.entry
        if entry.kind != "event":
            given.parts.append(one)
            continue
        facts = [decode_facts(bytes(entry.facts))]
        last = given.parts[-1] if given.parts else None
        if isinstance(last, EventRun) and last.trail == entry.trail:
            given.parts[-1] = msgspec.structs.replace(last, facts=[*last.facts, *facts])
        else:
            given.parts.append(EventRun(leaf=one.leaf, position=entry.position, trail=entry.trail, facts=facts))
    return given
