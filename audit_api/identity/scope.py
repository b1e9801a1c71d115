"""What of a ledger a principal may see: its rows are trails, and a trail is seen whole or not at all. Pure.

| scope     | sees a trail when                                                       | since                                  |
|-----------|-------------------------------------------------------------------------|----------------------------------------|
| tenants   | its id is one of these tenants' (``tenant/<tenant>/…``)                 | the id follows from the event, for ever |
| services  | one of these services took part in it                                   | the index                              |
| since, until | the span of its events' stated times meets [since, until)            | the index                              |

All that is declared must hold. A trail that states nothing of what is asked (a stream's batches have no tenant, an enrolment has no time) is
not seen. What is seen is the trail with everything in it: who must not see another service's events keeps them in another tenant, or ledger.
"""

from dataclasses import dataclass, replace

from correlator.index import Page, TrailIndex, TrailQuery, TrailSummary
from correlator.trail import access_trail

__all__ = ["EVERYTHING", "RowScope", "find_seen"]

_MAX_PAGES = 50
_MAX_LEAVES = 50_000
"""A search by text or with a condition goes on over so many leaves at most before others have their turn: the index looks at trails one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScope:
    """A part of a ledger.

    Attributes:
        tenants: None: whatever the tenant, and none.
        services: None: whatever the services.
        since, until: RFC 3339 in the form that events carry (UTC, nine digits); empty: no bound.
    """

    tenants: frozenset[str] | None = None
    services: frozenset[str] | None = None
    since: str = ""
    until: str = ""

    @property
    def whole(self) -> bool:
        """Whether nothing is hidden."""
        return self == EVERYTHING

    def sees_id(self, trail: str) -> bool:
        """As `sees`, as far as a trail's id tells: whether the tenant is right."""
        return self.tenants is None or any(trail.startswith(_prefix(tenant)) for tenant in self.tenants)

    def sees(self, summary: TrailSummary) -> bool:
        """Whether this trail is seen."""
        if not self.sees_id(summary.trail):
            return False
        if self.services is not None and self.services.isdisjoint(summary.services):
            return False
        if (self.since or self.until) and not summary.last_time:
            return False
        return summary.last_time >= self.since and (not self.until or summary.first_time < self.until)

    def narrowed(self, query: TrailQuery) -> TrailQuery | None:
        """The query with as much of the scope in it as an index can look for; None when nothing that it finds is seen."""
        if self.tenants is not None:
            if query.tenant and query.tenant not in self.tenants:
                return None
            if not query.tenant and len(self.tenants) == 1:
                query = replace(query, tenant=next(iter(self.tenants)))
        if self.services is not None and not query.service and len(self.services) == 1:
            query = replace(query, service=next(iter(self.services)))
        until = min(filter(None, (query.until, self.until)), default="")
        return replace(query, since=max(query.since, self.since), until=until)


EVERYTHING = RowScope()
"""The scope of who may see all of the ledger."""


def find_seen(
    index: TrailIndex, query: TrailQuery, scope: RowScope, *, size: int, below: int | None = None, limit: int = 50
) -> Page:
    """As `TrailIndex.find`, of what is seen. So many trails are looked at, then a page ends, though it may hold fewer than `limit`."""
    if scope.whole:
        return index.find(query, size=size, below=below, limit=limit)
    narrowed = scope.narrowed(query)
    if narrowed is None:
        return Page()
    one_by_one = narrowed.text is not None or narrowed.condition is not None
    end = size if below is None else min(size, below)
    found: list[TrailSummary] = []
    for _ in range(_MAX_PAGES):
        page = index.find(narrowed, size=size, below=below, limit=limit)
        for summary in filter(scope.sees, page.trails):
            found.append(summary)
            if len(found) == limit:
                last = summary is page.trails[-1] and page.next_below is None
                return Page(trails=found, next_below=None if last else summary.first_leaf)
        below = page.next_below
        if below is None or (one_by_one and end - below >= _MAX_LEAVES):
            break
    return Page(trails=found, next_below=below)


def _prefix(tenant: str) -> str:
    """With which the ids of a tenant's trails begin."""
    return access_trail("x", tenant).removesuffix("access/x")
