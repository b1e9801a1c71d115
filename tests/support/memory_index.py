"""A `TrailIndex` of dictionaries: small, and slow on purpose, so that it is easy to believe."""

from __future__ import annotations

from collections.abc import Sequence

from collector.event import decode_facts
from correlator.entry import Entry
from correlator.errors import NotFound
from correlator.index import IndexedLeaf, Page, TrailQuery, TrailSummary
from correlator.trail import key_trail, kind_of, parse_trail, transaction_trail


class MemoryIndex:
    """See `correlator.index.TrailIndex`."""

    def __init__(self, hub_links: int = 20) -> None:
        self._hub_links = hub_links
        self._size = 0
        self._trails: dict[str, list[IndexedLeaf]] = {}

    def size(self) -> int:
        return self._size

    def apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        for one in leaves:
            if one.leaf > self._size:
                raise ValueError(f"leaf {one.leaf} comes before leaf {self._size}")
            if one.leaf == self._size:
                self._trails.setdefault(one.entry.trail, []).append(one)
                self._size += 1

    def find(self, query: TrailQuery, *, size: int, below: int | None = None, limit: int = 50) -> Page:
        found = []
        for trail, leaves in sorted(self._trails.items(), key=lambda item: -item[1][0].leaf):
            inside = [one for one in leaves if one.leaf < size]
            if not inside or (below is not None and inside[0].leaf >= below):
                continue
            summary = self._summary(trail, inside)
            if self._matches(summary, inside, query):
                found.append(summary)
        page = found[:limit]
        return Page(trails=tuple(page), next_below=page[-1].first_leaf if len(found) > limit else None)

    def _matches(self, summary: TrailSummary, leaves: Sequence[IndexedLeaf], query: TrailQuery) -> bool:
        times = [_time(one.entry) for one in leaves]
        since, until = query.since, query.until or "~"
        tenant = parse_trail(summary.trail).tenant
        return (
            (not query.tenant or query.tenant == tenant)
            and (not query.transaction or summary.trail == transaction_trail(query.transaction, query.tenant))
            and (query.key is None or query.key in summary.keys or summary.trail == key_trail(*query.key, query.tenant))
            and (not query.service or query.service in summary.services)
            and (not (query.since or query.until) or any(time and since <= time < until for time in times))
            and (not query.status or query.status == summary.status)
            and (not query.kind or query.kind == kind_of(summary.trail))
        )

    def _summary(self, trail: str, leaves: Sequence[IndexedLeaf]) -> TrailSummary:
        facts = [decode_facts(bytes(one.entry.facts)) for one in leaves if one.entry.kind == "event"]
        times = sorted(one.time for one in facts if one.time)
        verdicts = [str(one.entry.detail["verdict"]) for one in leaves if one.entry.kind == "verdict"]
        links = sorted({str(one.entry.detail["to"]) for one in leaves if one.entry.kind == "link"})
        status = "error" if any(one.error for one in facts) else "ok"
        return TrailSummary(
            trail=trail,
            entries=len(leaves),
            first_leaf=leaves[0].leaf,
            last_leaf=leaves[-1].leaf,
            first_time=times[0] if times else "",
            last_time=times[-1] if times else "",
            services=tuple(sorted({one.service for one in facts if one.service})),
            keys=tuple(sorted({pair for one in facts for pair in one.keys.items()})),
            status=verdicts[-1] if verdicts else status,
            links=tuple(links),
            hub=len(links) > self._hub_links,
        )

    def trail(self, trail: str) -> TrailSummary:
        if trail not in self._trails:
            raise NotFound(f"there is no trail {trail}")
        return self._summary(trail, self._trails[trail])

    def leaves(self, trail: str, *, start: int = 0, limit: int = 1_000, size: int | None = None) -> Sequence[int]:
        leaves = [one.leaf for one in self._trails.get(trail, [])]
        return [leaf for leaf in leaves if size is None or leaf < size][start : start + limit]

    def clear(self) -> None:
        self._trails, self._size = {}, 0

    def close(self) -> None:
        pass


def _time(entry: Entry) -> str:
    return decode_facts(bytes(entry.facts)).time if entry.kind == "event" else ""
