"""`TrailIndex` on an OpenSearch cluster.

Leaves are applied by three requests, each synced before its answer, in this order; with what a crash before it leaves:

    chunks       nothing was changed (pages of keys are written with them, and the index is refreshed then)
    trails       chunks that no trail speaks of yet: written again, the same
    mark         trails that are ahead of the mark: `size` is what it was, the same leaves come again, and are passed over
                 where a trail has them already

So the mark never claims what is not written. Every document is put with the number of leaves that it reflects as its
external version: the server itself refuses an older state over a newer one, be it that of a writer that was deposed.

**What a search sees.** `trail`, `leaves` and `size` are real-time gets. A search sees what was there when the index was last
refreshed, so `find` refreshes it before a first page (`below` is None): it finds all that was written before it was called.
Further pages do not: what is below them was there when the first was made. Writing waits for a refresh only where a page of keys
was written: whoever finds a trail's document without these keys must find the page, so pages are looked at after the trails
(`_search`). A document that is
ahead of the mark can be found: its leaves are published, only the mark comes a moment later.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from collector.store.opensearch.connection import Connection
from collector.store.opensearch.hearing import Watch
from collector.store.opensearch.registry import refresh
from correlator.errors import NotFound, StateUnknown
from correlator.index import IndexedLeaf, Page, TrailQuery, TrailSummary
from correlator.index.asked import asked_of
from correlator.index.leaves import EventRun, Leaves
from correlator.index.opensearch import documents
from correlator.index.opensearch.access import Access, Put
from correlator.index.opensearch.beside import Beside, beside_of, beside_search, has_content
from correlator.index.opensearch.documents import CHUNK_LEAVES, CHUNK_LINKS, MARK, KeptTrail, TrailDocument
from correlator.index.opensearch.generations import Generations
from correlator.index.opensearch.parts import Part, after, part_of
from correlator.index.opensearch.search import pages_search, search_of
from correlator.index.recent import Recent
from correlator.index.rows import HUB_LINKS, MAX_HUB_LINKS, Row, absorb
from correlator.index.settings import IndexSettings
from correlator.index.words import TextTerm
from correlator.trail import is_trail

__all__ = ["OpenSearchIndex"]

_SEARCHED_AT_ONCE = 1_000
_BESIDE_AT_ONCE = 64
_LINGER_SECONDS = 5.0


class OpenSearchIndex:
    """`correlator.index.TrailIndex` on OpenSearch; made when absent. For several threads, one at a time.

    Args:
        settings: where the cluster is, and how the index is made.
        hub_links: a key's trail with more links than this is a hub.
        read_only: for reading alone; the index must be there.
        beside: make an empty index beside the one that is read; `take_over` puts it in its place.
        watch: is told of every request.

    Raises:
        NotFound: `read_only`, and there is no index yet.
        Overloaded: the cluster does not answer.
        StateUnknown: the index is of another format, or was not made by us: reindex.
        OSError: a certificate or the password's file cannot be read.
    """

    def __init__(
        self,
        settings: IndexSettings,
        *,
        hub_links: int = HUB_LINKS,
        read_only: bool = False,
        beside: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self._hub_links = hub_links
        self._read_only = read_only
        self._beside = beside
        self._lock = threading.Lock()
        self._recent = Recent[KeptTrail](lambda kept: len(kept.row.keys))
        self._known_size = -1  # other than the mark when another process wrote it: then the trails above are stale
        self._connection = Connection(settings, watch=watch)
        self._generations = Generations(self._connection, settings)
        self._alias = self._generations.next if beside else self._generations.current
        self._access = Access(self._connection, self._alias, copies=settings.copies)
        try:
            if beside:
                self._generations.begin()
            elif read_only:
                self._generations.check()
            else:
                self._generations.open()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """See `TrailIndex.close`."""
        with self._lock:
            self._connection.close()

    # ---------------------------------------------------------------------------------------------------------- writing

    def size(self) -> int:
        """See `TrailIndex.size`."""
        with self._lock:
            return self._size()

    def apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        """See `TrailIndex.apply`. Not one transaction, but one mark: see this module's head.

        Raises:
            Overloaded: not everything was taken now; the same call again goes on.
            StateUnknown: the index has lost something: reindex.
        """
        self._must_write()
        with self._lock:
            try:
                self._apply(leaves)
            except BaseException:
                self._forget()  # what is kept in memory may be ahead of what was written
                raise
            self._recent.turn()

    def _apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        size = self._size()
        if size != self._known_size:
            self._forget()
        # the usual case first: picking single leaves out of `Leaves` decodes each of them
        fresh = [leaf for leaf in leaves if leaf.leaf >= size] if leaves and leaves[0].leaf < size else leaves
        if not fresh:
            return
        if fresh[0].leaf != size or fresh[-1].leaf != size + len(fresh) - 1:
            raise ValueError(f"leaves {fresh[0].leaf} to {fresh[-1].leaf} do not follow: {size} are indexed")
        parts = [part_of(one) for one in (fresh.parts if isinstance(fresh, Leaves) else fresh)]
        self._fetch(parts)
        chunks: list[Put] = []
        pages: list[Put] = []
        trails: list[Put] = []
        for row in absorb(self._not_yet_in(parts), self._row):
            kept = self._recent.get(row.trail)
            if kept is None or kept.row is not row:
                kept = KeptTrail(row)
            self._recent.put(row.trail, kept, new_keys=len(row.new_keys))
            version = row.last_leaf + 1
            pages += [Put(id=id_, version=version, document=document) for id_, document in kept.pages()]
            chunks += [Put(id=id_, version=version, document=document) for id_, document in kept.written()]
            trails.append(Put(id=documents.trail_id(row.trail), version=version, document=kept.document()))
        self._access.put([*chunks, *pages])
        if pages:
            refresh(self._connection, self._alias)
        self._access.put(trails)
        size += len(fresh)
        self._access.put([Put(id=MARK, version=size, document=documents.mark_document(size))])
        self._known_size = size

    def _fetch(self, parts: Sequence[Part]) -> None:
        """Get those of the trails that began earlier and are not kept in memory."""
        named = {one.trail for one in parts}
        named.difference_update({one.trail for one in parts if one.position == 0})
        wanted = {documents.trail_id(trail): trail for trail in named if self._recent.get(trail) is None}
        for id_, data in self._access.get(list(wanted)).items():
            document = documents.opened(id_, data)
            self._recent.put(wanted[id_], KeptTrail(document.row(), document.leaves, document.linked))

    def _not_yet_in(self, parts: Sequence[Part]) -> list[IndexedLeaf | EventRun]:
        """Without the leaves that their trails have already: a crash came before the mark, or another writer did more.

        Raises:
            StateUnknown: a trail does not have all that is below its next leaf.
        """
        more: list[IndexedLeaf | EventRun] = []
        entries: dict[str, int] = {}
        for given in parts:
            part, expected = given, entries.get(given.trail)
            if expected is None:
                kept = self._recent.get(given.trail) if given.position else None
                if kept is None and not is_trail(given.trail):
                    continue  # `absorb` passes it over, too
                if kept is not None:
                    part = after(given, kept.row.last_leaf)
                    if part.count == 0:
                        continue
                expected = 0 if kept is None else kept.row.entries
            if part.position != expected:
                raise StateUnknown(
                    f"the trail index has {expected} entries of {part.trail[:300]!r} and is given number {part.position}:"
                    " make it anew with `tally reindex`"
                )
            entries[part.trail] = part.position + part.count
            more.append(part.given)
        return more

    def _row(self, trail: str) -> Row | None:
        kept = self._recent.get(trail)
        return None if kept is None else kept.row

    def _forget(self) -> None:
        self._recent.forget()
        self._known_size = -1

    def _size(self) -> int:
        found = self._access.get([MARK])
        return documents.mark_of(found[MARK]) if found else 0

    def _must_write(self) -> None:
        if self._read_only:
            raise StateUnknown("the trail index was opened for reading alone")

    def clear(self) -> None:
        """See `TrailIndex.clear`: an empty index takes the place of this one."""
        self._must_write()
        with self._lock:
            self._forget()
            self._generations.begin()
            if not self._beside:
                self._generations.take_over()
                self._generations.remove_old()

    def take_over(self, *, linger_seconds: float = _LINGER_SECONDS) -> None:
        """Put the index that was made `beside` in the place of the one that is read, in one step. The last call before `close`.

        The old one is removed so much later: what was being read there when the names changed can be read to its end.

        Raises:
            Overloaded: the cluster does not answer: whether it has happened is seen by looking.
            StateUnknown: it is gone.
        """
        if not self._beside:
            raise ValueError("this is the index that is read")
        with self._lock:
            self._generations.take_over()
            time.sleep(linger_seconds)
            self._generations.remove_old()

    # ---------------------------------------------------------------------------------------------------------- reading

    def find(self, query: TrailQuery, *, size: int, below: int | None = None, limit: int = 50) -> Page:
        """See `TrailIndex.find`, and this module's head for what it sees."""
        bound = size if below is None else min(size, below)
        with self._lock:
            if below is None:
                refresh(self._connection, self._alias)
            asked = asked_of(query)
            turned: dict[tuple[str, str] | TextTerm, set[str]] = {key: set() for key in asked.keys}
            turned |= {term: set() for term in asked.terms}
            found: list[TrailDocument] = []
            while (wanted := limit + 1 - len(found)) > 0:
                at_once = min(wanted, _SEARCHED_AT_ONCE)
                hits = self._search(query, bound, at_once, turned)
                found += [documents.opened(id_, data) for id_, data in hits]
                if len(hits) < at_once:
                    break
                bound = found[-1].first_leaf
            trails = self._summaries(found[:limit], size)
        return Page(trails=trails, next_below=trails[-1].first_leaf if len(found) > limit else None)

    def _search(
        self, query: TrailQuery, bound: int, limit: int, turned: dict[tuple[str, str] | TextTerm, set[str]]
    ) -> list[tuple[str, bytes]]:
        """One search, whole; `turned` gains the trails that have on a page what it asks.

        What a trail's document has lost to a page when it is looked at is found on that page if it is looked at later.
        """
        while True:
            hits = self._access.search(search_of(query, bound, limit, turned))
            if not turned:  # nothing that a page could answer
                return hits
            on_pages = self._access.groups(pages_search(turned))
            unknown = [set(found) - known for found, known in zip(on_pages, turned.values(), strict=True)]
            if not any(unknown):
                return hits
            for one, more in zip(turned, unknown, strict=True):
                turned[one] |= more

    def lacks(self, trail: str, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of these keys by which the trail is not found: for `tally check`, a few hundred at a time."""
        with self._lock:
            document = self._document(trail)
            held = {} if document is None else document.row().keys
            asked = [key for key in keys if key not in held]
            on_pages = self._access.groups(pages_search(asked, trail=trail)) if asked else []
            return [key for key, trails in zip(asked, on_pages, strict=True) if not trails]

    def beside(self, size: int) -> Iterator[Beside]:
        """All documents but those of trails that begin below leaf `size`, and all that were put elsewhere than their id says: for `tally check`."""
        with self._lock:
            refresh(self._connection, self._alias)
        scanned = self._access.scan(beside_search(size))
        while True:
            with self._lock:
                some = list(islice(scanned, _BESIDE_AT_ONCE))
                content = self._access.get([one.id for one in some if has_content(one.id)])
            if not some:
                return
            for one in some:
                if not one.routing and has_content(one.id) and one.id not in content:
                    continue  # it has gone since
                yield beside_of(one, content.get(one.id, b""))

    def trail(self, trail: str) -> TrailSummary:
        """See `TrailIndex.trail`."""
        with self._lock:
            document = self._document(trail)
            if document is None:
                raise NotFound(f"no trail {trail[:300]!r} in the index")
            return self._summaries([document], None)[0]

    def is_hub(self, trail: str) -> bool:
        """See `TrailIndex.is_hub`."""
        with self._lock:
            document = self._document(trail)
            if document is None:
                raise NotFound(f"no trail {trail[:300]!r} in the index")
            return document.row().is_hub(self._hub_links)

    def all_links(self, trail: str) -> Sequence[str]:
        """See `TrailIndex.all_links`."""
        with self._lock:
            document = self._document(trail)
            if document is None:
                return []
            ids = _link_chunks(document, document.link_chunks)
            return sorted(_links(document, ids, self._access.get(ids)))

    def leaves(self, trail: str, *, start: int = 0, limit: int = 1_000, size: int | None = None) -> Sequence[int]:
        """See `TrailIndex.leaves`. Reads the trail's document, and the chunks of the positions asked for."""
        with self._lock:
            document = self._document(trail)
            if document is None or start >= document.entries or limit <= 0:
                return []
            end = min(start + limit, document.entries)
            first = start // CHUNK_LEAVES
            chunks = range(first, min(-(-end // CHUNK_LEAVES), document.leaf_chunks))
            ids = [documents.leaf_chunk_id(documents.trail_id(trail), at) for at in chunks]
            found = self._access.get(ids)
        out: list[int] = []
        for id_ in ids:
            out += documents.chunk_of_leaves(id_, found.get(id_))
        # what was read begins with the first chunk asked for, or with the tail when no chunk was
        begin = first * CHUNK_LEAVES if ids else document.entries - len(document.leaves)
        out += document.leaves
        out = out[start - begin : end - begin]
        return out if size is None else out[: bisect_left(out, size)]

    def _document(self, trail: str) -> TrailDocument | None:
        id_ = documents.trail_id(trail)
        found = self._access.get([id_])
        return documents.opened(id_, found[id_]) if found else None

    def _summaries(self, found: Sequence[TrailDocument], size: int | None) -> tuple[TrailSummary, ...]:
        ids = {one.trail: _link_chunks(one, self._chunks_told(one)) for one in found}
        chunks = self._access.get([id_ for some in ids.values() for id_ in some])
        return tuple(self._summary(one, size, _links(one, ids[one.trail], chunks)) for one in found)

    def _chunks_told(self, one: TrailDocument) -> int:
        """How many of its chunks of links a summary needs: of a hub its first ones."""
        some = -(-MAX_HUB_LINKS // CHUNK_LINKS)
        return some if one.link_chunks > some and one.row().is_hub(self._hub_links) else one.link_chunks

    def _summary(self, one: TrailDocument, size: int | None, links: Iterable[str]) -> TrailSummary:
        entries, last_leaf = one.entries, one.last_leaf
        if size is not None and last_leaf >= size:
            entries, last_leaf = self._within(one, size)
        return one.row().summary(entries=entries, last_leaf=last_leaf, links=links, hub_links=self._hub_links)

    def _within(self, one: TrailDocument, size: int) -> tuple[int, int]:
        """How many leaves of the trail are below `size`, and the last of them."""
        held, leaves = one.leaf_chunks, one.leaves
        name = documents.trail_id(one.trail)
        while True:
            below = bisect_left(leaves, size)
            if below:
                return held * CHUNK_LEAVES + below, leaves[below - 1]
            if held == 0:
                return 0, -1
            held -= 1
            id_ = documents.leaf_chunk_id(name, held)
            leaves = documents.chunk_of_leaves(id_, self._access.get([id_]).get(id_))


def _link_chunks(one: TrailDocument, count: int) -> list[str]:
    """The ids of its first chunks of links."""
    return [documents.link_chunk_id(documents.trail_id(one.trail), at) for at in range(count)]


def _links(one: TrailDocument, ids: Sequence[str], chunks: dict[str, bytes]) -> Iterable[str]:
    """Those of these chunks, then those in the document, each once."""
    links: dict[str, None] = {}
    for id_ in ids:
        links |= dict.fromkeys(documents.chunk_of_links(id_, chunks.get(id_)))
    return links | dict.fromkeys(one.linked)
