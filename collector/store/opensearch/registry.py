"""Which streams there are, and in which months each wrote: one small document for each stream and month.

The document is written before the first event of the stream in that month, so a batch whose stream is not listed does not
exist. Only the list of them must be searched, and searching lags behind writing: so the index is refreshed first, and what
was found is counted against what there is.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from collector.batch import StreamId
from collector.errors import Overloaded
from collector.store.opensearch.connection import Connection, path_of

__all__ = ["Registry", "WholeAnswer", "refresh", "registry_document", "registry_id", "search"]

_PAGE = 5_000


class _Entry(msgspec.Struct):
    stream: str
    place: str


class _Hit(msgspec.Struct, rename={"source": "_source"}):
    source: _Entry
    sort: list[int]


class _Total(msgspec.Struct):
    value: int


class _Hits(msgspec.Struct):
    total: _Total
    hits: list[_Hit]


class _Shards(msgspec.Struct):
    failed: int


class WholeAnswer(msgspec.Struct):
    """What every search says of itself: whether all of the index was asked."""

    timed_out: bool
    shards: _Shards = msgspec.field(name="_shards")


class _Found(WholeAnswer):
    hits: _Hits


_A = TypeVar("_A", bound=WholeAnswer)


class _Refreshed(msgspec.Struct):
    shards: _Shards = msgspec.field(name="_shards")


def registry_id(stream: str, place: str) -> str:
    """The id of the document that says that the stream wrote there."""
    return f"{stream}@{place}"


def registry_document(stream: str, place: str) -> bytes:
    """That document, one line."""
    return msgspec.json.encode(_Entry(stream, place))


class Registry:
    """What the index of streams holds, read again in small steps.

    Args:
        connection: to the cluster.
        index: the index of streams; it has one shard, whose sequence numbers are the order of arrival.
        page: documents read at once.
    """

    def __init__(self, connection: Connection, index: str, *, page: int = _PAGE) -> None:
        self._connection = connection
        self._index = index
        self._page = page
        self._places: dict[StreamId, list[str]] = {}
        self._known = 0
        self._last = -1

    def streams(self) -> Sequence[StreamId]:
        """Every stream, in order of arrival, as of the last `read`."""
        return list(self._places)

    def places(self, stream: StreamId) -> Sequence[str]:
        """Where the stream wrote, the latest first, as of the last `read`."""
        return self._places.get(stream, ())[::-1]

    def read(self) -> None:
        """Learn what was added. Costs two small requests when nothing was.

        Raises:
            Overloaded: the cluster did not answer for the whole index.
        """
        refresh(self._connection, self._index)
        total = self._read_on()
        if self._known < total:
            # a write with a smaller number became visible after one with a larger: once more, from the start
            self._places, self._known, self._last = {}, 0, -1
            total = self._read_on()
            if self._known < total:
                raise Overloaded(f"of {total} documents in {self._index} only {self._known} could be read")

    def _read_on(self) -> int:
        while True:
            found = self._search()
            for hit in found.hits.hits:
                self._places.setdefault(StreamId(hit.source.stream), []).append(hit.source.place)
                self._known += 1
                self._last = hit.sort[0]
            if len(found.hits.hits) < self._page:
                return found.hits.total.value

    def _search(self) -> _Found:
        query = {
            "size": self._page,
            "track_total_hits": True,
            "sort": [{"_seq_no": "asc"}],
            "query": {"match_all": {}},
            "search_after": [self._last],
        }
        return search(self._connection, self._index, query, _Found)


def refresh(connection: Connection, index: str) -> None:
    """Make everything that was written to `index` so far visible to searches.

    Raises:
        Overloaded: not on every copy.
    """
    if connection.json(_Refreshed, "POST", path_of(index, "_refresh")).shards.failed:
        connection.watch.troubled("other", "no_shard")
        raise Overloaded(f"{connection.name} could not refresh {index}")


def search(connection: Connection, index: str, query: object, kind: type[_A]) -> _A:
    """A search that answers for the whole index or not at all; the primary's word, which is never behind.

    Raises:
        Overloaded: not all of it answered.
    """
    params = {"preference": "_primary", "allow_partial_search_results": "false"}
    found = connection.json(kind, "POST", path_of(index, "_search"), query, params=params)
    if found.timed_out or found.shards.failed:
        connection.watch.troubled("read", "no_shard" if found.shards.failed else "timeout")
        raise Overloaded(f"{connection.name} answered for a part of {index} only")
    return found
