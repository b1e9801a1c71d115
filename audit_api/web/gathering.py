"""Reads a story for the page, through the operation that answers ``/v1/trails/…``: the same roles, the same limits, the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from audit_api.gate import Call, Runner
from audit_api.logs import Logs
from audit_api.settings import ApiSettings
from audit_api.trails import PAGE_BYTES, Trails
from audit_api.web.rows import Row, row_of
from collector.batch import Clock
from collector.errors import NotFound, VerificationError
from correlator.trail import stream_trail

__all__ = ["Gathered", "Gathering"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What was read for one page.

    Attributes:
        answer: of the trail asked for, as `readTrail` gives it.
        rows: of that trail and of its story's traces, one for each entry.
        trails: which trails those are, the one asked for first.
        cut: entries of these trails that are not on this page, because of the limit.
        behind: traces that are linked, and whose log has nothing of them yet.
        torn: streams that some of these events came by, and that something is missing from.
        head: leaf index of the last entry of the trail that is shown; −1: none.
    """

    answer: Mapping[str, Any]
    rows: Sequence[Row]
    trails: Sequence[str]
    cut: int
    behind: Sequence[str]
    torn: Sequence[str]
    head: int


class Gathering:
    """Reads stories.

    Args:
        logs: the ledger's.
        trails: the operations on trails.
        settings: `page_entries` is the most entries that one page holds, traces included; after `PAGE_BYTES` of them no trace follows.
    """

    def __init__(self, logs: Logs, trails: Trails, settings: ApiSettings) -> None:
        self._logs = logs
        self._trails = trails
        self._most = settings.page_entries

    async def read(self, call: Call, run: Runner) -> Gathered:
        """The story of the trail that the call names, from position ``start`` on; raises as `Trails.read`."""
        trail = call.target["trail"]
        answer, rows, head, held = await self._answer(call, run, trail, start=call.values["start"], limit=self._most)
        cut = answer["summary"]["entries"] - (call.values["start"] + len(rows))
        names, behind = [trail], []
        for trace in answer["story"]["traces"]:
            room = self._most - len(rows) if held < PAGE_BYTES else 0
            try:
                told, found, _, size = await self._answer(call, run, trace, start=0, limit=max(room, 1))
            except NotFound:
                behind.append(trace)
                continue
            found, held = found[:room], held + size
            cut += told["summary"]["entries"] - len(found)
            rows += found
            names.append(trace)
        rows, torn = await run(self._with_clocks, rows)
        return Gathered(
            answer=answer, rows=rows, trails=tuple(names), cut=max(cut, 0), behind=tuple(behind), torn=torn, head=head
        )

    async def _answer(
        self, call: Call, run: Runner, trail: str, *, start: int, limit: int
    ) -> tuple[Mapping[str, Any], list[Row], int, int]:
        """What `readTrail` answers but for its entries, these as rows, the leaf of the last one, and how many bytes all were."""
        values = {"start": start, "limit": limit, "proofs": False, "events": True, "beside": True}
        # what the request accepts is the page's matter: as lines there would be a stream, which has a place and no body
        reading = await self._trails.read(replace(call, target={"trail": trail}, values=values, accept=""), run)
        answer = msgspec.json.decode(reading.body, type=dict[str, msgspec.Raw])
        entries = msgspec.json.decode(answer.pop("entries"), type=list[dict[str, msgspec.Raw]])
        told = {name: msgspec.json.decode(raw) for name, raw in answer.items()}
        return told, [row_of(trail, _opened(one)) for one in entries], reading.head, len(reading.body)

    def _with_clocks(self, rows: Sequence[Row]) -> tuple[list[Row], tuple[str, ...]]:
        """The rows with their collectors' measured clocks, and the streams that something is missing from."""
        batches: dict[str, list[tuple[int, int, Clock | None]]] = {}
        clocked = []
        for row in rows:
            clock = None
            if row.kind == "event" and row.stream:
                clock = self._clock(row, batches.setdefault(row.stream, []))
            if clock is None or row.start_ns is None:
                clocked.append(row)
            else:
                corrected_ns = row.start_ns - clock.offset_ns  # an offset of the collector's clock from the ledger's
                clocked.append(replace(row, corrected_ns=corrected_ns, uncertainty_ns=clock.uncertainty_ns))
        torn = []
        for stream in sorted(batches):
            trail = stream_trail(stream)
            try:
                if self._logs.of(trail).evidence.index.trail(trail).status == "gap":
                    torn.append(stream)
            except NotFound:
                continue
        return clocked, tuple(torn)

    def _clock(self, row: Row, known: list[tuple[int, int, Clock | None]]) -> Clock | None:
        """What the signed header of the event's batch says of its collector's clock; None where it was not measured."""
        for first, count, clock in known:
            if first <= row.sequence < first + count:
                return clock
        try:
            batch = self._logs.of(row.trail).evidence.batch_with(row.stream, row.sequence, below=row.leaf)
        except (NotFound, VerificationError):
            return None  # the proof says so; a time line without corrected times is one all the same
        header = batch.signed.header
        known.append((header.first, header.count, header.clock))
        return header.clock


def _opened(entry: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """An element of `entries`; its event stays the bytes that were hashed, for opened it takes many times their memory."""
    opened = {name: msgspec.json.decode(raw) for name, raw in entry.items() if name != "event"}
    raw = bytes(entry.get("event", b"null"))
    return opened | {"event": None if raw == b"null" else raw}
