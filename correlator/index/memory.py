"""The trail index in memory: for tests, and to say in few lines what every `TrailIndex` does."""

from collections.abc import Sequence

from correlator.errors import NotFound
from correlator.index import IndexedLeaf, Page, TrailQuery, TrailSummary
from correlator.index.rows import HUB_LINKS, Row, absorb, names_of
from correlator.index.vocabulary import STATUSES
from correlator.trail import transaction_trail

__all__ = ["MemoryIndex"]


class MemoryIndex:
    """`correlator.index.TrailIndex` in dictionaries."""

    def __init__(self, *, hub_links: int = HUB_LINKS) -> None:
        self._hub_links = hub_links
        self._size = 0
        self._rows: dict[str, Row] = {}
        self._leaves: dict[str, list[int]] = {}
        self._links: dict[str, set[str]] = {}
        self._keys: dict[str, set[tuple[str, str]]] = {}  # all of them, unlike a row's

    def size(self) -> int:
        """See `TrailIndex.size`."""
        return self._size

    def apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        """See `TrailIndex.apply`."""
        fresh = [leaf for leaf in leaves if leaf.leaf >= self._size]
        if [leaf.leaf for leaf in fresh] != list(range(self._size, self._size + len(fresh))):
            raise ValueError(f"leaves that do not follow: {self._size} are indexed")
        for row in absorb(fresh, self._rows.get):
            self._rows[row.trail] = row
            self._leaves.setdefault(row.trail, []).extend(row.new_leaves)
            self._links.setdefault(row.trail, set()).update(row.new_links)
            row.asked_keys = keys = self._keys.setdefault(row.trail, set())
            keys.update(row.new_keys)
            row.written()
        self._size += len(fresh)

    def find(self, query: TrailQuery, *, size: int, below: int | None = None, limit: int = 50) -> Page:
        """See `TrailIndex.find`."""
        bound = size if below is None else min(size, below)
        found = [row for row in self._rows.values() if row.first_leaf < bound and _matches(row, query)]
        found.sort(key=lambda row: -row.first_leaf)
        page = tuple(self._summary(row, size) for row in found[:limit])
        return Page(trails=page, next_below=page[-1].first_leaf if len(found) > limit else None)

    def trail(self, trail: str) -> TrailSummary:
        """See `TrailIndex.trail`."""
        row = self._rows.get(trail)
        if row is None:
            raise NotFound(f"no trail {trail[:300]!r} in the index")
        return self._summary(row, self._size)

    def is_hub(self, trail: str) -> bool:
        """See `TrailIndex.is_hub`."""
        row = self._rows.get(trail)
        if row is None:
            raise NotFound(f"no trail {trail[:300]!r} in the index")
        return row.is_hub(self._hub_links)

    def all_links(self, trail: str) -> Sequence[str]:
        """See `TrailIndex.all_links`."""
        return sorted(self._links.get(trail, ()))

    def leaves(self, trail: str, *, start: int = 0, limit: int = 1_000, size: int | None = None) -> Sequence[int]:
        """See `TrailIndex.leaves`."""
        leaves = self._leaves.get(trail, [])[start : start + max(limit, 0)]
        return [leaf for leaf in leaves if size is None or leaf < size]

    def clear(self) -> None:
        """See `TrailIndex.clear`."""
        self.__init__(hub_links=self._hub_links)  # type: ignore[misc]  # begin again is what it means

    def close(self) -> None:
        """Nothing to release."""

    def _summary(self, row: Row, size: int) -> TrailSummary:
        leaves = [leaf for leaf in self._leaves[row.trail] if leaf < size]
        return row.summary(
            entries=len(leaves),
            last_leaf=leaves[-1],
            links=sorted(self._links[row.trail], reverse=True),
            hub_links=self._hub_links,
        )


def _matches(row: Row, query: TrailQuery) -> bool:
    tenant, kind = names_of(row.trail)
    return (
        (not query.tenant or tenant == query.tenant)
        and (not query.transaction or row.trail == transaction_trail(query.transaction, query.tenant))
        and (query.key is None or row.has_key(query.key))
        and (not query.service or query.service in row.services)
        and (not query.kind or kind == query.kind)
        and (not query.status or STATUSES[row.status] == query.status)
        and (not (query.since or query.until) or bool(row.last_time))
        and (not query.since or row.last_time >= query.since)
        and (not query.until or row.first_time < query.until)
        and (query.amount is None or row.has_amount(query.amount))
        and (query.text is None or row.has_text(query.text))
        and (query.condition is None or row.meets(query.condition))
    )
