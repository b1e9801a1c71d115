"""The trail index: find trails by transaction, key, service, time, status, amount and text. Never the record, always rebuildable.

`TrailIndex` is the seam: one SQLite file is the embedded default (`correlator.index.sqlite`), an OpenSearch cluster the
distributed one (`correlator.index.opensearch`). Everything in it follows from the log's entries, so `tally reindex` can make
it anew at any time, and a write wins only with a larger leaf index.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from collector.event import Facts
from correlator.entry import Entry
from correlator.index.amounts import AmountRange
from correlator.index.condition import Condition
from correlator.index.words import TextSearch

__all__ = ["AmountRange", "IndexedLeaf", "Page", "TextSearch", "TrailIndex", "TrailQuery", "TrailSummary"]


class IndexedLeaf(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An entry with its leaf index in the log.

    `facts`: of an event's entry, decoded, where the caller has them at hand; else the index decodes them.
    """

    leaf: int
    entry: Entry
    facts: Facts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailSummary:
    """What the index tells of a trail.

    Attributes:
        entries: how many entries the trail has within the bound asked for.
        first_leaf, last_leaf: leaf indexes of its first and last entry.
        first_time, last_time: least and greatest stated time of its events, RFC 3339; empty when none states one.
        services: sorted names of the services that took part; of the first `correlator.index.rows.MAX_SERVICES` different ones.
        events: sorted names of its events; of the first `correlator.index.rows.MAX_EVENT_NAMES` different ones.
        keys: sorted (name, value) pairs of its business keys; of a trail that has more than twice `correlator.index.rows.KEYS_A_PAGE` of them
            the first of these and some of the last. It is found by each of them.
        amounts: for each currency in which its events tell amounts, sorted: its code (ISO 4217), the least and the greatest of them.
        status: the newest verdict (complete, incomplete, compensated, failed), else ``error`` if an event tells of one, else ``ok``;
            ``gap`` for a stream with gaps.
        links: trails linked to it, sorted; of a hub as many as `correlator.index.rows.MAX_HUB_LINKS`, which ones is the index's choice.
        links_left_out: how many more link a hub; of any other trail 0.
        hub: true when it links more than the configured number of trails: recorded, not followed.
    """

    trail: str
    entries: int
    first_leaf: int
    last_leaf: int
    first_time: str = ""
    last_time: str = ""
    services: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    amounts: tuple[tuple[str, str, str], ...] = ()
    status: str = "ok"
    links: tuple[str, ...] = ()
    links_left_out: int = 0
    hub: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailQuery:
    """Conditions, all of which must hold; an empty field is no condition.

    `transaction`: the transaction ID, within `tenant`; `key`: (name, value) of a business key; `since`, `until`: the span from
    the least to the greatest stated time of the trail's events meets [since, until); `amount`: the span from the least to the
    greatest amount of the trail's events in that currency meets the range; `text`: each of its terms is the value of the trail's
    own id or of one of its keys, or is among the words of its services' and events' names; `kind`: the trail's family
    (transaction, key, trace, stream, access, ledger, incident); `condition`: others, combined in any way.
    """

    tenant: str = ""
    transaction: str = ""
    key: tuple[str, str] | None = None
    service: str = ""
    since: str = ""
    until: str = ""
    status: str = ""
    kind: str = ""
    amount: AmountRange | None = None
    text: TextSearch | None = None
    condition: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of trails, newest first by `first_leaf`, and the cursor's next `below` (None: no more)."""

    trails: Sequence[TrailSummary] = field(default_factory=tuple)
    next_below: int | None = None


class TrailIndex(Protocol):
    """Derived from the log, entry by entry, in leaf order."""

    def size(self) -> int:
        """How many leaves of the log are indexed: the next leaf index that `apply` takes."""

    def apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        """Index these consecutive leaves; those below `size` are passed over, a hole is a ValueError.

        All of them or none are counted by `size`. When it raises, the same call again is right.
        """

    def find(self, query: TrailQuery, *, size: int, below: int | None = None, limit: int = 50) -> Page:
        """Trails that match and whose first leaf is below `size` (and below `below`), newest first.

        A cursor is the pair (size, below): leaf bounds, so paging is stable while the log grows. A page that has a `next_below`
        may hold fewer than `limit` trails, or none: a search by text or with a condition looks at so many trails at a time.
        """

    def trail(self, trail: str) -> TrailSummary:
        """Raises `NotFound`."""

    def is_hub(self, trail: str) -> bool:
        """As `trail` tells it, without a look at the links, of which a hub may have millions. Raises `NotFound`."""

    def all_links(self, trail: str) -> Sequence[str]:
        """All trails linked to it, sorted, each once, of a hub as well: for who checks the index. None of a trail that it does not know."""

    def leaves(self, trail: str, *, start: int = 0, limit: int = 1_000, size: int | None = None) -> Sequence[int]:
        """Leaf indexes of the trail's entries by position, from position `start`, of those below `size`."""

    def clear(self) -> None:
        """Empty it, for `tally reindex`."""

    def close(self) -> None:
        """Release files."""
