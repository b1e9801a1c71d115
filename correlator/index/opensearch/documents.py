"""What stands in the trail index on OpenSearch: a document a trail, and chunks of what is long. Pure.

A trail's document holds what a summary tells, and the leaves and links that came last. Whenever `CHUNK_LEAVES` leaves (or
`CHUNK_LINKS` links) have gathered there they move to a chunk: a document of its own that never changes. So a trail of a few
entries is one document, and one of 100,000 is rewritten with at most `CHUNK_LEAVES` of them. Keys that leave the trail's row
(`correlator.index.rows.KEYS_A_PAGE`) become a page: a document that is searched, and leads to its trail.

All of it follows from the log: what a document says at a given last leaf, and what a chunk holds, is the same whoever writes it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from correlator.errors import StateUnknown, VerificationError
from correlator.index.amounts import number_of
from correlator.index.rows import Row, names_of
from correlator.index.vocabulary import STATUSES
from correlator.index.words import texts_of, words_of

__all__ = [
    "CHUNK_LEAVES",
    "CHUNK_LINKS",
    "FORMAT",
    "MAPPING",
    "MARK",
    "KeptTrail",
    "KeyPage",
    "TrailDocument",
    "chunk_of_leaves",
    "chunk_of_links",
    "key_term",
    "leaf_chunk_id",
    "link_chunk_id",
    "mark_document",
    "mark_of",
    "opened",
    "opened_page",
    "trail_id",
]

FORMAT = 3
"""Of all that this module says; an index of another format is made anew."""

CHUNK_LEAVES = 512
CHUNK_LINKS = 128

MARK = "mark"
"""The id of the document that says how many leaves are indexed. No trail has it: theirs are hashes."""

_MAX_TERM_BYTES = 32_766
"""Longest term that Lucene takes (`IndexWriter.MAX_TERM_LENGTH`): a document with a longer one is refused."""

_KEYWORD: Mapping[str, Any] = {"type": "keyword"}
_LONG: Mapping[str, Any] = {"type": "long"}
_UNSEARCHED: Mapping[str, Any] = {"type": "object", "enabled": False}

# no ignore_above: an event's facts have at most 16,384 bytes, which folding and `key_term` leave shorter than `_MAX_TERM_BYTES`
MAPPING: Mapping[str, Any] = {
    "dynamic": False,
    "_meta": {"tally": FORMAT},
    "properties": {
        "trail": _KEYWORD,
        "tenant": _KEYWORD,
        "kind": _KEYWORD,
        "entries": _LONG,
        "firstLeaf": _LONG,
        "lastLeaf": _LONG,
        # text, compared as text, as in every index of ours; all of one form, so that is the order of time as well
        "firstTime": _KEYWORD,
        "lastTime": _KEYWORD,
        "services": _KEYWORD,
        "events": _KEYWORD,
        # what free text is looked for in, made of what is told
        "words": _KEYWORD,
        "texts": _KEYWORD,
        "keys": _KEYWORD,
        # both in the order of the numbers, a value a currency
        "amountLeast": _KEYWORD,
        "amountMost": _KEYWORD,
        "status": _KEYWORD,
        "links": _LONG,
        "leaves": _UNSEARCHED,
        "linked": _UNSEARCHED,
        "size": {"type": "long", "index": False},
    },
}


class TrailDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A trail. Only what has a `first_leaf` is one: chunks, pages and the mark have none, and no search gives them.

    Attributes:
        entries, first_leaf, last_leaf, services, events, status: as in `correlator.index.TrailSummary`.
        tenant, kind: of the trail's id, to be searched.
        first_time, last_time: least and greatest stated time; not there when no event states one.
        words: of the names of services and events, as `correlator.index.words.words_of` has them.
        texts: the values of the trail's id and of these keys, as `correlator.index.words.texts_of` has them.
        keys: business keys, each as ``name=value``, in the order in which they came; without those on pages.
        amount_least, amount_most: of each currency, as ``EUR=…``, least and greatest as `correlator.index.amounts.ordered` has them.
        links: how many entries link it.
        leaves: leaf indexes of its entries, of those that no chunk holds.
        linked: where its entries link it to, in their order, of those that no chunk holds.
    """

    trail: str
    tenant: str = ""
    kind: str
    entries: int
    first_leaf: int
    last_leaf: int
    first_time: str = ""
    last_time: str = ""
    services: list[str] = []
    events: list[str] = []
    words: list[str] = []
    texts: list[str] = []
    keys: list[str] = []
    amount_least: list[str] = []
    amount_most: list[str] = []
    status: str
    links: int = 0
    leaves: list[int] = []
    linked: list[str] = []

    @property
    def leaf_chunks(self) -> int:
        """How many chunks hold its first leaves."""
        return (self.entries - len(self.leaves)) // CHUNK_LEAVES

    @property
    def link_chunks(self) -> int:
        """How many chunks hold its first links."""
        return (self.links - len(self.linked)) // CHUNK_LINKS

    def amounts(self) -> dict[str, tuple[str, str]]:
        """Currency to least and greatest. Raises ValueError when the two lists do not tell of the same currencies."""
        pairs = zip(self.amount_least, self.amount_most, strict=True)
        spans = [(low.partition("="), high.partition("=")) for low, high in pairs]
        found = {low[0]: (low[2], high[2]) for low, high in spans if low[0] == high[0] and low[2] <= high[2]}
        if len(found) < len(spans):
            raise ValueError("amounts that do not go together")
        for span in found.values():
            for end in span:
                number_of(end)
        return found

    def row(self) -> Row:
        """What it tells, as every index of ours keeps it."""
        return Row(
            trail=self.trail,
            first_leaf=self.first_leaf,
            entries=self.entries,
            last_leaf=self.last_leaf,
            first_time=self.first_time,
            last_time=self.last_time,
            status=STATUSES.index(self.status),
            links=self.links,
            services=set(self.services),
            events=set(self.events),
            keys=dict.fromkeys(map(_key_of, self.keys)),
            amounts=self.amounts(),
        )


class KeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of a trail that its document does not hold any more; `keys` and `texts` as there."""

    trail: str
    keys: list[str]
    texts: list[str]


class KeptTrail:
    """A trail as the writer keeps it: its row, and what stands in its document beside that."""

    __slots__ = ("leaves", "linked", "row")

    def __init__(self, row: Row, leaves: Sequence[int] = (), linked: Sequence[str] = ()) -> None:
        self.row = row
        self.leaves = list(leaves)
        self.linked = list(linked)

    def written(self) -> Iterator[tuple[str, bytes]]:
        """Take what is new in the row; gives the chunks that became full, as id and document."""
        row = self.row
        self.leaves += row.new_leaves
        self.linked += row.new_links
        row.written()
        name = trail_id(row.trail)
        while len(self.leaves) >= CHUNK_LEAVES:
            at = (row.entries - len(self.leaves)) // CHUNK_LEAVES
            yield leaf_chunk_id(name, at), msgspec.json.encode({"leaves": self.leaves[:CHUNK_LEAVES]})
            del self.leaves[:CHUNK_LEAVES]
        while len(self.linked) >= CHUNK_LINKS:
            at = (row.links - len(self.linked)) // CHUNK_LINKS
            yield link_chunk_id(name, at), msgspec.json.encode({"linked": self.linked[:CHUNK_LINKS]})
            del self.linked[:CHUNK_LINKS]

    def pages(self) -> Iterator[tuple[str, bytes]]:
        """The keys that left the row since it was written, as id and document; call it before `written`."""
        for keys in self.row.full_pages:
            yield _page_of(self.row.trail, keys)

    def document(self) -> bytes:
        """The trail's document, one line."""
        row = self.row
        tenant, kind = names_of(row.trail)
        return msgspec.json.encode(
            TrailDocument(
                trail=row.trail,
                tenant=tenant,
                kind=kind,
                entries=row.entries,
                first_leaf=row.first_leaf,
                last_leaf=row.last_leaf,
                first_time=row.first_time,
                last_time=row.last_time,
                services=sorted(row.services),
                events=sorted(row.events),
                words=_words(row),
                texts=_texts(row),
                keys=[key_term(*key) for key in row.keys],
                amount_least=[f"{currency}={span[0]}" for currency, span in sorted(row.amounts.items())],
                amount_most=[f"{currency}={span[1]}" for currency, span in sorted(row.amounts.items())],
                status=STATUSES[row.status],
                links=row.links,
                leaves=self.leaves,
                linked=self.linked,
            )
        )


def trail_id(trail: str) -> str:
    """The id of a trail's document: a hash, because an id may have 512 bytes and a trail's more."""
    return hashlib.sha256(trail.encode()).hexdigest()


def leaf_chunk_id(name: str, at: int) -> str:
    """The id of the chunk that holds the leaves of positions from ``at * CHUNK_LEAVES`` on; `name` is the trail's id."""
    return f"{name}-leaves-{at}"


def link_chunk_id(name: str, at: int) -> str:
    """As `leaf_chunk_id`, of links."""
    return f"{name}-links-{at}"


def _page_of(trail: str, keys: Sequence[tuple[str, str]]) -> tuple[str, bytes]:
    page = msgspec.json.encode(
        KeyPage(trail=trail, keys=[key_term(*key) for key in keys], texts=sorted(texts_of(trail, keys)))
    )
    # which keys they are follows from the log, so the same page has the same name whoever writes it
    return f"{trail_id(trail)}-keys-{hashlib.sha256(page).hexdigest()[:32]}", page


class _Mark(msgspec.Struct):
    size: int


class _LeafChunk(msgspec.Struct):
    leaves: list[int]


class _LinkChunk(msgspec.Struct):
    linked: list[str]


_decode_trail = msgspec.json.Decoder(TrailDocument).decode
_decode_page = msgspec.json.Decoder(KeyPage).decode
_decode_mark = msgspec.json.Decoder(_Mark).decode
_decode_leaves = msgspec.json.Decoder(_LeafChunk).decode
_decode_links = msgspec.json.Decoder(_LinkChunk).decode


def opened(id_: str, data: bytes) -> TrailDocument:
    """A trail's document, which must say the same in what is searched as in what is told.

    Raises:
        StateUnknown: it does not, or is none.
    """
    try:
        document = _decode_trail(data)
        tenant, kind = names_of(document.trail)
        row = document.row()
        leaves, links = document.entries - len(document.leaves), document.links - len(document.linked)
        sound = (
            id_ == trail_id(document.trail)
            and document.keys == [key_term(*key) for key in row.keys]
            and (tenant, kind) == (document.tenant, document.kind)
            and (document.words, document.texts) == (_words(row), _texts(row))
            and leaves >= 0
            and links >= 0
            and leaves % CHUNK_LEAVES == links % CHUNK_LINKS == 0
        )
    except (ValueError, VerificationError) as error:
        raise _damaged(id_) from error
    if not sound:
        raise _damaged(id_)
    return document


def opened_page(id_: str, data: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The trail and the keys of a page, which must have the name that follows from them.

    Raises:
        StateUnknown: it has not, or is none.
    """
    try:
        page = _decode_page(data)
        keys = [_key_of(term) for term in page.keys]
        name, ours = _page_of(page.trail, keys)
        if name == id_ and _decode_page(ours) == page:
            return page.trail, keys
    except (ValueError, VerificationError) as error:
        raise _damaged(id_) from error
    raise _damaged(id_)


def mark_document(size: int) -> bytes:
    """The document that says that so many leaves are indexed."""
    return msgspec.json.encode(_Mark(size))


def mark_of(data: bytes) -> int:
    """What it says. Raises `StateUnknown` when it says nothing."""
    try:
        return _decode_mark(data).size
    except ValueError as error:
        raise _damaged(MARK) from error


def chunk_of_leaves(id_: str, data: bytes | None) -> list[int]:
    """The leaves of a chunk. Raises `StateUnknown` when it is not there or not whole."""
    try:
        if data is not None and len(leaves := _decode_leaves(data).leaves) == CHUNK_LEAVES:
            return leaves
    except ValueError as error:
        raise _damaged(id_) from error
    raise _damaged(id_)


def chunk_of_links(id_: str, data: bytes | None) -> list[str]:
    """The links of a chunk; raises as `chunk_of_leaves`."""
    try:
        if data is not None and len(linked := _decode_links(data).linked) == CHUNK_LINKS:
            return linked
    except ValueError as error:
        raise _damaged(id_) from error
    raise _damaged(id_)


def _words(row: Row) -> list[str]:
    return sorted(words_of(row.services) | words_of(row.events))


def _texts(row: Row) -> list[str]:
    return sorted(texts_of(row.trail, row.keys))


def key_term(name: str, value: str) -> str:
    """A key as one term; an equals sign in the name is escaped, so that no two keys are the same.

    Escapes may make the name three times as long. A term that no index would take has the name's length in front instead: no collector of ours
    gives keys such names, and whoever signs one must not stop the index.
    """
    term = f"{name.replace('%', '%25').replace('=', '%3D')}={value}"
    if len(term) <= _MAX_TERM_BYTES // 4 or len(term.encode()) <= _MAX_TERM_BYTES:
        return term
    return f"{_BY_LENGTH}{len(name)}={name}{value}"


_BY_LENGTH = "%L"  # begins no term of the usual form, where behind each % stands 25 or 3D


def _key_of(term: str) -> tuple[str, str]:
    name, _, value = term.partition("=")
    if name.startswith(_BY_LENGTH):
        length = int(name[len(_BY_LENGTH) :])
        return value[:length], value[length:]
    return name.replace("%3D", "=").replace("%25", "%"), value


def _damaged(id_: str) -> StateUnknown:
    return StateUnknown(f"the trail index is damaged (document {id_}): make it anew with `tally reindex`")
