"""The rows of an export: entries with their events, of one trail or of all that a search finds, in memory that does not grow.

What is exported is fixed when it begins: the checkpoint of each log, and how far its index had come. Rows that are appended
meanwhile are not in it. A trail is never cut: it is in the export from its first entry to its last below the bound, unless the
export's own bound on rows ends it, and then `Walk.truncated` says where.

What cannot be had does not stop the rest: an event that is missing, changed, retired or too large leaves its row with its reason.
"""

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from audit_api.evidence import Evidence, LoggedEntry, SignedTree
from audit_api.identity.scope import EVERYTHING, RowScope, find_seen
from collector.errors import Malformed, NotFound
from collector.event import Event, Facts, decode_facts
from correlator.entry import Entry
from correlator.index import TrailQuery
from correlator.index.amounts import LEAST, MOST, number_of
from correlator.index.filtertext import filter_text
from correlator.shards import Shard

__all__ = ["Row", "Selection", "SourceLog", "Truncation", "Walk", "told_query", "told_scope"]

STEP_LEAVES = 40
"""Entries read in one step, which is what other readers wait for."""

STEP_BYTES = 4 << 20
"""A step ends with the group of events that passes so many bytes, so that memory does not depend on how large events are."""

_decode_event = msgspec.json.Decoder(Event).decode

_GROUP = 25
_PAGE_TRAILS = 200
_PAGE_LEAVES = 1_000


class SourceLog(Protocol):
    """What an export reads of a log: `audit_api.logs.ServedLog` has it, and what the command line opens."""

    @property
    def evidence(self) -> Evidence:
        """Its index, its reader and the ledger's store."""

    @property
    def shard(self) -> Shard:
        """Which of the ledger's logs it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is exported.

    Attributes:
        query: the trails that a search finds; not looked at where `trails` are named.
        trails: these trails, in this order.
        told: the same in the words of who asked, for the manifest.
        events: whether the events' bytes go in, or their entries alone.
        scope: of what the query finds, what is seen; who names trails has asked before.
    """

    query: TrailQuery = field(default_factory=TrailQuery)
    trails: tuple[str, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    events: bool = True
    scope: RowScope = EVERYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entry, with its event where it records one.

    Attributes:
        log: origin of the log that `leaf` is an index of.
        data: the entry's canonical bytes.
        raw: the event's canonical bytes; None for other entries, and where `problem` or `retired` says why.
        problem: why an event that should be here is not, in words.
        retired: the month with which the event was let go of by policy.
    """

    log: str
    leaf: int
    entry: Entry
    data: bytes = field(repr=False)
    raw: bytes | None = field(default=None, repr=False)
    problem: str = ""
    retired: str = ""

    def facts(self) -> Facts:
        """Of an event's entry; empty ones when they cannot be read, which the row's `problem` says."""
        if self.entry.kind == "event":
            try:
                return decode_facts(bytes(self.entry.facts))
            except Malformed:
                pass
        return Facts(digest="")

    def event(self) -> Event | None:
        """The event itself; None when it is not here. Its digest was compared, so that it is canonical needs no second proof."""
        if self.raw is None:
            return None
        try:
            return _decode_event(self.raw)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """Where an export ended before its selection did: at its bound on rows, with this entry of this trail as its last."""

    rows: int
    trail: str
    leaf: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    log: SourceLog
    tree: SignedTree
    below: int


class Walk:
    """Reads the rows, step by step. One thread at a time, the one that may use the logs.

    Args:
        logs: the ledger's only one, or all shards' in order.
        selection: which trails.
        max_rows: the export ends after so many; 0: with its selection.
        max_event_bytes: an event that is longer is left out of its row, with that as the reason.

    Raises:
        NotFound: nothing is published yet, or a trail that is named does not exist below the checkpoint.
    """

    def __init__(
        self, logs: Sequence[SourceLog], selection: Selection, *, max_rows: int = 0, max_event_bytes: int = 1 << 20
    ) -> None:
        self.selection = selection
        self.truncated: Truncation | None = None
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self._max_rows = max_rows
        self._max_event_bytes = max_event_bytes
        self._bounds = list(_bounds(logs))
        if not self._bounds:
            raise NotFound("nothing is published yet")
        for trail in selection.trails:
            bound = self._bound_of(trail)
            if bound is None or not bound.log.evidence.index.leaves(trail, limit=1, size=bound.below):
                below = bound.below if bound is not None else 0
                raise NotFound(f"there is no trail {trail} below leaf {below}")
        self._leaves = self._all_leaves()
        self._ended = False
        self._pending: list[tuple[_Bound, LoggedEntry]] = []
        self._last: tuple[str, int] = ("", -1)

    # What it is complete up to ----------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """The leaf index below which everything selected is here, less one; of several logs the largest."""
        return max(bound.below for bound in self._bounds) - 1

    def checkpoints(self) -> list[dict[str, Any]]:
        """For the manifest: of each log the checkpoint, and below which leaf index the export is complete."""
        return [
            {
                "origin": bound.tree.checkpoint.origin,
                "size": bound.tree.size,
                "root": base64.b64encode(bound.tree.checkpoint.root).decode("ascii"),
                "note": bound.tree.signed.decode("utf-8"),
                "complete_below": bound.below,
            }
            for bound in self._bounds
        ]

    # Reading ----------------------------------------------------------------------------------------------------------

    def step(self) -> list[Row] | None:
        """Some more rows; None when there are no more. An empty list where the index has looked at so many trails that others have their turn.

        Raises:
            NotFound, VerificationError, Overloaded: the log itself or the index do not answer as they must.
        """
        if not self._pending:
            if self._ended:
                return None
            self._pending = self._next_entries()
        rows: list[Row] = []
        held = 0
        while self._pending and held < STEP_BYTES:
            group, self._pending = self._pending[:_GROUP], self._pending[_GROUP:]
            for row in self._rows(group):
                held += len(row.data) + len(row.raw or b"")
                rows.append(row)
        return rows

    def _next_entries(self) -> list[tuple[_Bound, LoggedEntry]]:
        room = STEP_LEAVES if not self._max_rows else min(STEP_LEAVES, self._max_rows - self.counts["rows"])
        wanted: list[tuple[_Bound, str, int]] = []
        while len(wanted) < STEP_LEAVES:
            try:
                found = next(self._leaves)
            except StopIteration:
                self._ended = True
                break
            if found is None:
                break
            if len(wanted) == room:  # not one row more: what would follow is there, so the end is not the selection's
                self.truncated = Truncation(rows=self._max_rows, trail=self._last[0], leaf=self._last[1])
                self._ended = True
                break
            wanted.append(found)
            self._last = found[1:]
        read: dict[tuple[str, int], LoggedEntry] = {}
        for bound in self._bounds:  # in the order of leaves, which is that of the log's own tiles
            leaves = sorted(leaf for of, _, leaf in wanted if of is bound)
            read |= {(bound.tree.checkpoint.origin, one.leaf): one for one in bound.log.evidence.entries(leaves)}
        return [(bound, read[bound.tree.checkpoint.origin, leaf]) for bound, _, leaf in wanted]

    def _rows(self, group: Sequence[tuple[_Bound, LoggedEntry]]) -> Iterator[Row]:
        events: dict[tuple[str, int], bytes] = {}
        problems: dict[tuple[str, int], str] = {}
        for bound in self._bounds if self.selection.events else ():
            mine = [one for of, one in group if of is bound]
            if mine:
                found, wrong = bound.log.evidence.events_or_problems(mine)
                origin = bound.tree.checkpoint.origin
                events |= {(origin, leaf): data for leaf, data in found.items()}
                problems |= {(origin, leaf): text for leaf, text in wrong.items()}
        for bound, one in group:
            yield self._row(bound, one, events, problems)

    def _row(
        self,
        bound: _Bound,
        one: LoggedEntry,
        events: dict[tuple[str, int], bytes],
        problems: dict[tuple[str, int], str],
    ) -> Row:
        name = (bound.tree.checkpoint.origin, one.leaf)
        raw, problem, retired = events.get(name), problems.get(name, ""), ""
        if problem:
            self.counts["damaged"] += 1
        elif raw is not None and len(raw) > self._max_event_bytes:
            problem = f"an event of {len(raw)} bytes; this export takes at most {self._max_event_bytes}"
            raw = None
            self.counts["oversized"] += 1
        elif raw is None and one.entry.kind == "event" and self.selection.events:
            month = bound.log.evidence.retired(one)
            retired = month.retirement.month if month is not None else ""
            self.counts["retired"] += 1
        elif raw is not None:
            self.counts["events"] += 1
        self.counts["rows"] += 1
        self.counts["trails"] += one.entry.position == 0
        self.kinds[one.entry.kind] += 1
        return Row(
            log=name[0], leaf=one.leaf, entry=one.entry, data=one.data, raw=raw, problem=problem, retired=retired
        )

    # Which leaves -----------------------------------------------------------------------------------------------------

    def _bound_of(self, trail: str) -> _Bound | None:
        return next((bound for bound in self._bounds if bound.log.shard.holds(trail)), None)

    def _all_leaves(self) -> Iterator[tuple[_Bound, str, int] | None]:
        """The leaves of all that is selected, and None before the index is asked again: one search is enough for a step."""
        if self.selection.trails:
            for trail in self.selection.trails:
                bound = self._bound_of(trail)
                if bound is not None:
                    yield from self._leaves_of(bound, trail)
            return
        asked = False
        for bound in self._bounds:
            below: int | None = bound.below
            while below:
                if asked:
                    yield None
                asked = True
                page = find_seen(
                    bound.log.evidence.index,
                    self.selection.query,
                    self.selection.scope,
                    size=bound.below,
                    below=below,
                    limit=_PAGE_TRAILS,
                )
                for summary in page.trails:
                    if bound.log.shard.holds(summary.trail):
                        yield from self._leaves_of(bound, summary.trail)
                below = page.next_below

    def _leaves_of(self, bound: _Bound, trail: str) -> Iterator[tuple[_Bound, str, int]]:
        start = 0
        while leaves := bound.log.evidence.index.leaves(trail, start=start, limit=_PAGE_LEAVES, size=bound.below):
            for leaf in leaves:
                yield bound, trail, leaf
            start += len(leaves)
            if len(leaves) < _PAGE_LEAVES:
                return


def told_query(query: TrailQuery) -> dict[str, Any]:
    """The conditions of a search as a manifest tells them: those that are given, as the parameters of the API have them."""
    told: dict[str, Any] = {
        name: getattr(query, name) for name in ("transaction", "service", "since", "until", "status", "kind", "tenant")
    }
    told["key"] = ":".join(query.key) if query.key is not None else ""
    if query.amount is not None:
        least, most = query.amount.least, query.amount.most
        ends = ("" if least == LEAST else number_of(least), "" if most == MOST else number_of(most))
        told["amount"] = f"{query.amount.currency}:{ends[0]}..{ends[1]}"
    if query.text is not None:
        told["text"] = " ".join(f"{term.text}{'*' if term.prefix else ''}" for term in query.text.terms)
    if query.condition is not None:
        told["filter"] = filter_text(query.condition)
    return {name: value for name, value in sorted(told.items()) if value}


def told_scope(scope: RowScope) -> dict[str, Any]:
    """What a manifest tells of an export by someone who sees a part of the ledger alone; empty for all others."""
    if scope.whole:
        return {}
    told = {
        "tenants": None if scope.tenants is None else sorted(scope.tenants),
        "services": None if scope.services is None else sorted(scope.services),
        "since": scope.since or None,
        "until": scope.until or None,
    }
    return {"scope": {name: value for name, value in told.items() if value is not None}}


def _bounds(logs: Sequence[SourceLog]) -> Iterator[_Bound]:
    """Of each log that has published something: its checkpoint, and how far it is indexed below that."""
    for log in logs:
        try:
            tree = log.evidence.tree()
        except NotFound:
            continue
        yield _Bound(log=log, tree=tree, below=min(log.evidence.index.size(), tree.size))
