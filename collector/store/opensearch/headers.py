"""Reading the signed headers, with the facts that each commits to."""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from collector.batch import BatchHeader, SignedHeader, StreamId, open_header
from collector.errors import VerificationError
from collector.store.opensearch import documents
from collector.store.opensearch.connection import Connection
from collector.store.opensearch.layout import Layout
from collector.store.opensearch.registry import WholeAnswer, refresh, search

__all__ = ["Headers", "place_of"]

_STREAMS_A_SEARCH = 500
_FACTS_A_GET = 16


class _Named(msgspec.Struct):
    stream: str
    number: int


class _Hit(msgspec.Struct, rename={"source": "_source"}):
    source: _Named


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Found(WholeAnswer):
    hits: _Hits


def place_of(header: BatchHeader, layout: Layout) -> str:
    """The index of the batch's events: the place that the header names, where it is one of ours; else that of its month."""
    return header.place if layout.is_place(header.place) else layout.place(header.created)


class Headers:
    """The headers of a cluster.

    Args:
        connection: to it.
        layout: where things lie.
        clock: monotonic seconds.
        look_beyond_seconds: how often it is searched for what a stream has behind a gap.
    """

    def __init__(
        self, connection: Connection, layout: Layout, *, clock: Callable[[], float], look_beyond_seconds: float
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._clock = clock
        self._look_beyond_seconds = look_beyond_seconds
        self._looked_beyond: dict[StreamId, float] = {}

    def data(self, stream: StreamId, number: int) -> bytes | None:
        """A header's bytes as they are stored, unchecked; None if there is none under this number."""
        found = self._stored([(stream, number)])
        return found[0][2].data if found else None

    def missing(self, wanted: Collection[tuple[StreamId, int]]) -> set[tuple[StreamId, int]]:
        """Those of these that are not stored."""
        asked = list(wanted)
        answers = self._connection.documents([self._place(*one) for one in asked])
        return {one for one, found in zip(asked, answers, strict=True) if not found.found}

    def read(self, wanted: Sequence[tuple[StreamId, int]]) -> list[SignedHeader]:
        """Those of these headers that there are, with their facts, in the order asked for.

        Raises:
            VerificationError: one of them does not hold; names stream and number.
        """
        there = self._stored(wanted)
        parts = [self._facts_places(*one) for one in there]
        places = [place for some in parts for place in some]
        facts = iter(self._connection.documents(places, retired=True, at_once=_FACTS_A_GET))
        return [
            _checked(stream, number, stored, [bytes(one.source) for one in islice(facts, len(some)) if one.found])
            for (stream, number, stored), some in zip(there, parts, strict=True)
        ]

    def after(self, frontier: Mapping[StreamId, int], limit: int) -> list[SignedHeader]:
        """See `EventStore.batches_after`. A gap of more than `limit` numbers is passed after `look_beyond_seconds`."""
        following = [(stream, number + more) for stream, number in frontier.items() for more in range(1, limit + 1)]
        found = self.read(following)
        spoke = {signed.header.stream for signed in found}
        quiet = [(stream, number + limit) for stream, number in frontier.items() if stream not in spoke]
        beyond = self._beyond(quiet, limit)
        # the search is later than the look at what follows: what was stored in between comes first, or it would seem to be missing
        jumping = {stream for stream, _ in beyond}
        meanwhile = self.read([one for one in following if one[0] in jumping])
        spoke = {signed.header.stream for signed in meanwhile}
        return [*found, *meanwhile, *self.read([one for one in beyond if one[0] not in spoke])]

    def _place(self, stream: StreamId, number: int) -> tuple[str, str]:
        return self._layout.batches, documents.header_id(stream, number)

    def _stored(self, wanted: Sequence[tuple[StreamId, int]]) -> list[tuple[StreamId, int, documents.StoredHeader]]:
        there = self._look(wanted)
        last: dict[StreamId, int] = {}
        for stream, number in there:
            last[stream] = max(number, last.get(stream, 0))
        # a multi-get is not one moment. A stream's batches are stored one after the other: what is not there although a later one
        # is may have come since it was looked for, and if it is not there now either, it is missing
        holes = [one for one in wanted if one not in there and one[1] < last.get(one[0], 0)]
        if holes:
            there |= self._look(holes)
        return [(*one, there[one]) for one in wanted if one in there]

    def _look(self, wanted: Sequence[tuple[StreamId, int]]) -> dict[tuple[StreamId, int], documents.StoredHeader]:
        answers = self._connection.documents([self._place(*one) for one in wanted])
        found: dict[tuple[StreamId, int], documents.StoredHeader] = {}
        for (stream, number), one in zip(wanted, answers, strict=True):
            if one.found:
                try:
                    found[stream, number] = documents.stored_header(bytes(one.source))
                except VerificationError as error:
                    raise VerificationError(f"stream {stream}, batch {number} in the store: {error}") from error
        return found

    def _facts_places(self, stream: StreamId, number: int, stored: documents.StoredHeader) -> list[tuple[str, str]]:
        if not stored.facts_documents:
            return []
        signed = _checked(stream, number, stored, None)
        index = self._layout.facts(place_of(signed.header, self._layout))
        return [
            (index, documents.facts_id(stream, number, signed.digest, part)) for part in range(stored.facts_documents)
        ]

    def _beyond(self, quiet: Sequence[tuple[StreamId, int]], limit: int) -> list[tuple[StreamId, int]]:
        """For streams that have none of the numbers up to this one: the next that they have all the same, if any.

        At most every `look_beyond_seconds` for a stream. A search says which numbers to ask for; that it may be late costs
        time and nothing else. Returns `limit` numbers from the first one found on.
        """
        now, never = self._clock(), float("-inf")
        due = [one for one in quiet if now - self._looked_beyond.get(one[0], never) >= self._look_beyond_seconds]
        if not due:
            return []
        refresh(self._connection, self._layout.batches)
        jumps: list[tuple[StreamId, int]] = []
        for at in range(0, len(due), _STREAMS_A_SEARCH):
            query = _first_beyond(due[at : at + _STREAMS_A_SEARCH])
            for hit in search(self._connection, self._layout.batches, query, _Found).hits.hits:
                jumps += [(StreamId(hit.source.stream), hit.source.number + more) for more in range(limit)]
        self._looked_beyond.update((stream, now) for stream, _ in due)
        return jumps


def _first_beyond(quiet: Sequence[tuple[StreamId, int]]) -> dict[str, Any]:
    """The query for the first header of each of these streams behind its number."""
    each = [
        {"bool": {"filter": [{"term": {"stream": stream}}, {"range": {"number": {"gt": number}}}]}}
        for stream, number in quiet
    ]
    return {
        "size": len(quiet),
        "query": {"bool": {"should": each, "minimum_should_match": 1}},
        "sort": [{"number": "asc"}],
        "collapse": {"field": "stream"},
        "_source": ["stream", "number"],
    }


def _checked(
    stream: StreamId, number: int, stored: documents.StoredHeader, facts: Sequence[bytes] | None
) -> SignedHeader:
    """The signed header of a document, with its facts where their documents are given."""
    try:
        lines = None if facts is None else documents.facts_of_documents(facts)
        signed = open_header(stored.data, stored.signature, lines)
    except VerificationError as error:
        told = f"stream {stream}, batch {number} in the store: {error}"
        raise VerificationError(told, label=error.label) from error
    if signed.header.stream != stream or signed.header.number != number:
        raise VerificationError(
            f"stream {stream}, batch {number} in the store: the document holds batch {signed.header.number}"
            f" of stream {signed.header.stream}"
        )
    return signed
