"""What an index keeps of a trail, and how entries change it. Pure: the same for every kind of index."""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice

from collector.amounts import is_amount
from collector.event import Facts, decode_facts
from correlator.errors import VerificationError
from correlator.index import AmountRange, IndexedLeaf, TrailSummary
from correlator.index.amounts import number_of, ordered
from correlator.index.condition import And, Condition, Has, HasAmount, HasKey, HasText, HasTime, Not, Or
from correlator.index.leaves import EventRun, Leaves
from correlator.index.vocabulary import STATUSES
from correlator.index.words import TextSearch, texts_of, words_of
from correlator.trail import parse_trail

__all__ = [
    "HUB_LINKS",
    "KEYS_A_PAGE",
    "MAX_EVENT_NAMES",
    "MAX_HUB_LINKS",
    "MAX_SERVICES",
    "Row",
    "absorb",
    "names_of",
]

HUB_LINKS = 20
"""Links of a key's trail up to which it is followed, unless the settings say otherwise."""

MAX_HUB_LINKS = 1_000
"""Links of a hub that its summary tells: a hub is not followed, so nobody needs the millions that it may have."""

MAX_EVENT_NAMES = 256
"""Different names of events that an index keeps of a trail, the first ones: a row that is rewritten must not grow for ever."""

MAX_SERVICES = 256
"""Different names of services that an index keeps of a trail, the first ones, for the same reason."""

KEYS_A_PAGE = 256
"""Different keys that stay in a trail's row, the first ones. Those that come later leave it by so many at a time, as a page."""

_ERROR, _GAP, _VERDICTS = 1, 2, 3


class Row:
    """A trail as the index knows it, and what of it is not written yet.

    Attributes:
        keys: its business keys in the order in which they came: the first `KEYS_A_PAGE`, and later ones that make no page yet. So a row
            that is rewritten at every step is bounded, however many keys its trail has.
        full_pages: keys that left the row since it was written. A key that comes again after it left is taken for a new one.
        asked_keys, asked_texts: what an index has found elsewhere of the keys that are not in the row, of what a search asks.
    """

    __slots__ = (
        "amounts",
        "asked_keys",
        "asked_texts",
        "entries",
        "events",
        "first_leaf",
        "first_time",
        "full_pages",
        "keys",
        "last_leaf",
        "last_time",
        "links",
        "new_amounts",
        "new_events",
        "new_keys",
        "new_leaves",
        "new_links",
        "new_services",
        "services",
        "status",
        "trail",
    )

    def __init__(
        self,
        *,
        trail: str,
        first_leaf: int,
        entries: int = 0,
        last_leaf: int = -1,
        first_time: str = "",
        last_time: str = "",
        status: int = 0,
        links: int = 0,
        services: set[str] | None = None,
        events: set[str] | None = None,
        keys: dict[tuple[str, str], None] | None = None,
        amounts: dict[str, tuple[str, str]] | None = None,
    ) -> None:
        self.trail = trail
        self.first_leaf = first_leaf
        self.entries = entries
        self.last_leaf = last_leaf
        self.first_time = first_time
        self.last_time = last_time
        self.status = status
        self.links = links
        self.services = set() if services is None else services
        self.events = set() if events is None else events
        self.keys = {} if keys is None else keys
        self.amounts = {} if amounts is None else amounts
        """Currency to the least and the greatest, as `ordered` has them: bounded, however many amounts a trail has."""
        self.new_leaves: list[int] = []
        self.new_services: Sequence[str] = ()  # most rows have none, and many rows are kept in memory
        self.new_events: Sequence[str] = ()
        self.new_keys: Sequence[tuple[str, str]] = ()
        self.new_amounts: Sequence[str] = ()
        self.new_links: list[str] = []
        self.full_pages: Sequence[Sequence[tuple[str, str]]] = ()
        self.asked_keys: Collection[tuple[str, str]] = ()
        self.asked_texts: Collection[str] = ()

    @property
    def turned(self) -> bool:
        """Whether its trail may have keys that are not in the row."""
        return len(self.keys) >= KEYS_A_PAGE

    def written(self) -> None:
        """All that was new is in the index."""
        self.new_leaves = []
        self.new_links = []
        self.new_services = self.new_events = self.new_keys = self.new_amounts = self.full_pages = ()

    def summary(self, *, entries: int, last_leaf: int, links: Iterable[str], hub_links: int) -> TrailSummary:
        """What an index tells of the trail, with what it does not find in the row: what lies within the bound asked for, and links, each once.

        Of `links` no more are taken than are told.
        """
        hub = self.is_hub(hub_links)
        told = sorted(islice(links, MAX_HUB_LINKS) if hub else links)
        return TrailSummary(
            trail=self.trail,
            entries=entries,
            first_leaf=self.first_leaf,
            last_leaf=last_leaf,
            first_time=self.first_time,
            last_time=self.last_time,
            services=tuple(sorted(self.services)),
            events=tuple(sorted(self.events)),
            keys=tuple(sorted(self.keys)),
            amounts=tuple(
                (name, number_of(least), number_of(most)) for name, (least, most) in sorted(self.amounts.items())
            ),
            status=STATUSES[self.status],
            links=tuple(told),
            links_left_out=self.links - len(told) if hub else 0,
            hub=hub,
        )

    def is_hub(self, hub_links: int) -> bool:
        """Whether it is a key's, and has more links than this."""
        return self.links > hub_links and names_of(self.trail)[1] == "key"

    def has_key(self, key: tuple[str, str]) -> bool:
        """Whether it is one of the trail's."""
        return key in self.keys or key in self.asked_keys

    def has_text(self, text: TextSearch) -> bool:
        """Whether every term of it is found in this trail."""
        texts = texts_of(self.trail, (*self.keys, *self.asked_keys)).union(self.asked_texts)
        return text.meets(texts, words_of(self.services) | words_of(self.events))

    def has_amount(self, amount: AmountRange) -> bool:
        """Whether the span of its amounts in that currency meets the range."""
        least, most = self.amounts.get(amount.currency, ("", ""))
        return bool(most) and most >= amount.least and least <= amount.most

    def meets(self, condition: Condition) -> bool:
        """Whether the condition holds of this trail: what it means, for every index."""
        match condition:
            case And(parts):
                return all(self.meets(part) for part in parts)
            case Or(parts):
                return any(self.meets(part) for part in parts)
            case Not(part):
                return not self.meets(part)
            case Has():
                return not self._values(condition.field).isdisjoint(condition.values)
            case HasKey():
                return any(self.has_key((condition.name, value)) for value in condition.values)
            case HasText():
                return self.has_text(condition.text)
            case HasAmount():
                return self.has_amount(condition.range)
            case HasTime():
                return self._reaches(condition)

    def _values(self, field: str) -> set[str]:
        if field == "service":
            return self.services
        if field == "event":
            return self.events
        if field == "status":
            return {STATUSES[self.status]}
        return {self.trail} if field == "trail" else {names_of(self.trail)[("tenant", "kind").index(field)]}

    def _reaches(self, condition: HasTime) -> bool:
        if not self.last_time:
            return False
        match condition.than:
            case ">=":
                return self.last_time >= condition.time
            case ">":
                return self.last_time > condition.time
            case "<=":
                return self.first_time <= condition.time
            case "<":
                return self.first_time < condition.time


def absorb(leaves: Sequence[IndexedLeaf | EventRun], row_of: Callable[[str], Row | None]) -> Collection[Row]:
    """Apply entries to the rows of their trails; `row_of` gives what is known. Returns the rows that changed.

    Entries in a trail whose id is none are passed over: nobody can ask for it, and what else the log holds must be found.
    """
    touched: dict[str, Row] = {}
    for part in leaves.parts if isinstance(leaves, Leaves) else leaves:
        if isinstance(part, EventRun):
            row = touched.get(part.trail) or _row(part.trail, part.position, part.leaf, row_of)
            if row is None:
                continue
            touched[part.trail] = row
            _grow(row, part.leaf, len(part.facts))
            _absorb_events(row, part.facts)
        else:
            entry = part.entry
            row = touched.get(entry.trail) or _row(entry.trail, entry.position, part.leaf, row_of)
            if row is None:
                continue
            touched[entry.trail] = row
            _grow(row, part.leaf, 1)
            _absorb_entry(row, part)
    return touched.values()


def _row(name: str, position: int, leaf: int, row_of: Callable[[str], Row | None]) -> Row | None:
    """What is known of the trail; a new row when it begins here; None when it is no trail's id."""
    known = row_of(name) if position else None
    if known is not None:
        return known
    try:
        trail = parse_trail(name)
    except VerificationError:
        return None
    row = Row(trail=name, first_leaf=leaf)
    if trail.kind == "key":
        _absorb_key(row, (trail.name, trail.value))
    return row


def _grow(row: Row, leaf: int, count: int) -> None:
    row.entries += count
    row.last_leaf = leaf + count - 1
    row.new_leaves += range(leaf, leaf + count)


def _absorb_entry(row: Row, indexed: IndexedLeaf) -> None:
    entry, kind = indexed.entry, indexed.entry.kind
    if kind == "event":
        _absorb_events(row, [indexed.facts or decode_facts(bytes(entry.facts))])
    elif kind == "link":
        row.links += 1
        row.new_links.append(entry.detail["to"])
    elif kind == "verdict":
        row.status = STATUSES.index(entry.detail["verdict"])
    elif kind in ("gap", "fork"):
        row.status = max(row.status, _GAP)


def _absorb_events(row: Row, events: Iterable[Facts]) -> None:
    services, names = row.services, row.events
    for facts in events:
        time, service, name = facts.time, facts.service, facts.name
        if time:
            if not row.first_time:
                row.first_time = row.last_time = time
            elif time < row.first_time:
                row.first_time = time
            elif time > row.last_time:
                row.last_time = time
        if service and service not in services and len(services) < MAX_SERVICES:
            services.add(service)
            row.new_services = (*row.new_services, service)
        if name and name not in names and len(names) < MAX_EVENT_NAMES:
            names.add(name)
            row.new_events = (*row.new_events, name)
        if facts.keys:
            for key in facts.keys.items():
                if key not in row.keys:
                    if is_amount(key[0]) and (amount := ordered(key[1])):
                        _absorb_amount(row, key[0][-3:].upper(), amount)
                    else:
                        _absorb_key(row, key)
        if facts.error and row.status < _ERROR:
            row.status = _ERROR


def _absorb_key(row: Row, key: tuple[str, str]) -> None:
    if len(row.keys) >= 2 * KEYS_A_PAGE:
        # at this key of all others, whatever else is written with it: which keys a row holds follows from the log alone
        keys = list(row.keys)
        row.full_pages = (*row.full_pages, keys[KEYS_A_PAGE:])
        row.keys = dict.fromkeys(keys[:KEYS_A_PAGE])
    row.keys[key] = None
    if isinstance(row.new_keys, list):
        row.new_keys.append(key)
    else:
        row.new_keys = [key]


def _absorb_amount(row: Row, currency: str, amount: str) -> None:
    least, most = row.amounts.get(currency, (amount, amount))
    span = (min(least, amount), max(most, amount))
    if row.amounts.get(currency) != span:
        row.amounts[currency] = span
        if currency not in row.new_amounts:
            row.new_amounts = (*row.new_amounts, currency)


def names_of(trail: str) -> tuple[str, str]:
    """The tenant and the family of a trail."""
    if not trail.startswith("tenant/"):
        return "", trail.partition("/")[0]
    parsed = parse_trail(trail)
    return parsed.tenant, parsed.kind
