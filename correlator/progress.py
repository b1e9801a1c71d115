"""How far each declared flow is in each trail, and which deadlines have passed.

Time here is *recorded* time, the correlator's clock when the first step of a flow came into the log: it is the one clock
that all trails share, and it never goes back. Progress and timers are part of the state: derived from the log, hot in
memory, cold in `correlator.coldstate`.
"""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Any

import msgspec

from collector.amounts import is_amount
from collector.event import Facts
from correlator.coldstate import ColdState, Table, time_key
from correlator.flow import CompiledFlow, Flow, Verdict

__all__ = ["OPEN", "SEVERAL", "FlowTracker", "Progress"]

OPEN = "open"
"""How a flow without a verdict stands."""

SEVERAL = "several"
"""Instead of a currency, where a flow has more than one."""

_STANDING = b"n"  # one row, written with the rest of a flush

_HOT = 32_768
_DUE_A_STEP = 4_096


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One flow in one trail.

    Attributes:
        happened: step -> how often.
        deadline_ns: recorded time after which it is no longer open; 0: never.
        verdict: the newest verdict entry, as `_text` writes it; empty when there is none.
        currency: of the amounts that events of its steps state, as in their keys (``eur``, ``xxx`` where none is said); `SEVERAL` when they
            differ; empty when there are none.
    """

    trail: str
    flow: str
    happened: dict[str, int]
    deadline_ns: int
    verdict: str = ""
    currency: str = ""

    @property
    def standing(self) -> str:
        """The word of its newest verdict, `OPEN` when there is none."""
        return self.verdict.partition(" ")[0] or OPEN


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Progress).decode
_decode_standing = msgspec.msgpack.Decoder(dict[str, dict[str, int]]).decode


def _currency(before: str, facts: Facts) -> str:
    """The currency of the amounts so far and of these: the same in whatever order events come."""
    for name in facts.keys:
        if is_amount(name):
            currency = name.rpartition(".")[2]
            before = currency if before in ("", currency) else SEVERAL
    return before


def _text(verdict: str, missing: Sequence[str]) -> str:
    return f"{verdict} {','.join(missing)}"


class FlowTracker:
    """The declared flows at work.

    Args:
        cold: the cold store.
        flows: as declared.

    Attributes:
        declared: whether there are any.
        standing: by flow, how many trails are `OPEN`, and how many have each newest verdict.
    """

    def __init__(self, cold: ColdState, flows: Sequence[Flow] = ()) -> None:
        self._cold = cold
        self._flows = {flow.name: CompiledFlow(flow) for flow in flows}
        self.declared = bool(flows)
        self._table: Table[Progress] = Table(cold, b"p", limit=_HOT, encode=_encode, decode=_decode)
        self._timers: list[tuple[int, str]] = []
        self._touched: dict[str, None] = {}
        self._scan_from = b"t"
        self._fired: list[bytes] = []
        raw = cold.get(_STANDING)
        self.standing = _decode_standing(raw) if raw is not None else self._counted()

    def _counted(self) -> dict[str, dict[str, int]]:
        """`standing` of a state that did not keep it: everything is looked at, once."""
        counts: dict[str, dict[str, int]] = {}
        for _, raw in self._cold.items(b"p") if self.declared else ():
            progress = _decode(raw)
            flow = counts.setdefault(progress.flow, {})
            flow[progress.standing] = flow.get(progress.standing, 0) + 1
        return counts

    def _stands(self, flow: str, now: str, *, before: str = "") -> None:
        counts = self.standing.setdefault(flow, {})
        counts[now] = counts.get(now, 0) + 1
        if before:
            counts[before] -= 1

    def on_event(self, trails: Sequence[str], facts: Facts, recorded_ns: int) -> None:
        """An event of these trails (its own, and those it links to) is in the log."""
        for flow in self._flows.values():
            steps = flow.steps_of(facts)
            if steps:
                for trail in trails:
                    if flow.applies_to(trail):
                        self._count(flow, trail, steps, facts, recorded_ns)

    def _count(self, flow: CompiledFlow, trail: str, steps: Sequence[str], facts: Facts, recorded_ns: int) -> None:
        name = f"{trail}\n{flow.flow.name}"
        known = self._table.get(name)
        happened = dict(known.happened) if known is not None else {}
        for step in steps:
            happened[step] = happened.get(step, 0) + 1
        currency = _currency("" if known is None else known.currency, facts)
        if known is not None:
            progress = msgspec.structs.replace(known, happened=happened, currency=currency)
        else:
            deadline_ns = recorded_ns + flow.deadline_ns if flow.deadline_ns else 0
            progress = Progress(
                trail=trail, flow=flow.flow.name, happened=happened, deadline_ns=deadline_ns, currency=currency
            )
            self._stands(flow.flow.name, OPEN)
            if deadline_ns:
                heappush(self._timers, (deadline_ns, name))
        self._table.put(name, progress)
        self._touched[name] = None

    def progress_of(self, trail: str, flow: str) -> Progress | None:
        """How far the flow is in the trail; None: none of its steps happened."""
        return self._table.get(f"{trail}\n{flow}")

    def on_verdict(self, trail: str, detail: dict[str, Any]) -> None:
        """A verdict entry is in the log."""
        name = f"{trail}\n{detail['flow']}"
        known = self._table.get(name)
        if known is not None:
            text = _text(detail["verdict"], detail["missing"])
            self._table.put(name, msgspec.structs.replace(known, verdict=text))
            self._stands(known.flow, detail["verdict"], before=known.standing)

    def verdicts(self, now_ns: int) -> Iterator[tuple[str, Verdict]]:
        """(trail, verdict) where the verdict is new: of trails touched since the last call, and of deadlines passed.

        The caller makes the entry and reports it with `on_verdict` before it takes the next one.
        """
        if not self.declared:
            return
        names = self._touched
        self._touched = {}
        for name in self._due(now_ns):
            names[name] = None
        judged: set[str] = set()  # at most one verdict a trail a publish: another flow's waits for the next
        for name in names:
            new = self._new_verdict(name, now_ns)
            if new is None:
                continue
            trail, verdict = new
            if trail in judged:
                heappush(self._timers, (now_ns, name))
                continue
            judged.add(trail)
            yield trail, verdict

    def _new_verdict(self, name: str, now_ns: int) -> tuple[str, Verdict] | None:
        progress = self._table.get(name)
        if progress is None:  # a flow that is no longer declared
            return None
        flow = self._flows.get(progress.flow)
        if flow is None:
            return None
        verdict = flow.judge(progress.happened, expired=0 < progress.deadline_ns <= now_ns)
        if verdict is None or _text(verdict.verdict, verdict.missing) == progress.verdict:
            return None
        return progress.trail, verdict

    def _due(self, now_ns: int) -> Iterator[str]:
        room = _DUE_A_STEP
        for key, value in self._cold.between(self._scan_from, time_key(b"t", now_ns + 1), room):
            self._scan_from = key + b"\x00"
            self._fired.append(key)
            yield value.decode()
            room -= 1
        while self._timers and self._timers[0][0] <= now_ns and room > 0:
            yield heappop(self._timers)[1]
            room -= 1

    # -------------------------------------------------------------------------------------------------------- keeping

    def changed(self) -> Iterator[tuple[bytes, bytes]]:
        """What the next flush writes."""
        yield from self._table.changed()
        for deadline_ns, name in self._timers:
            yield time_key(b"t", deadline_ns, name), name.encode()
        # a flush says that these leaves are done with: what of them was replayed and is not judged yet is due at once
        for name in self._touched:
            if self._new_verdict(name, 0) is not None:
                yield time_key(b"t", 0, name), name.encode()
        if self.declared:
            yield _STANDING, _encode(self.standing)

    def removed(self) -> Sequence[bytes]:
        """What the next flush removes."""
        return self._fired

    def flushed(self) -> None:
        """The flush is durable."""
        self._table.flushed()
        self._timers = []
        self._touched = {}
        self._fired = []
        self._scan_from = b"t"
