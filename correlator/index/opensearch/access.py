"""Documents of the trail index through its alias: put with a version that the server compares, got as they are now, searched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from collector.store.opensearch.connection import Connection, Refusal, path_of, pressure
from collector.store.opensearch.registry import WholeAnswer, search
from collector.store.opensearch.writing import tell_written
from correlator.errors import Overloaded, StateUnknown

__all__ = ["Access", "Named", "Put"]

_BULK_BYTES = 8 * 1024**2
_GET_DOCUMENTS = 512
_SCANNED_AT_ONCE = 2_048
"""More than an index has shards, each of which counts its documents by itself."""
_CONFLICT = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A document to be written under this id, unless one of this version or a larger one is there."""

    id: str
    version: int
    document: bytes


class _Error(msgspec.Struct):
    type: str = ""
    reason: str = ""


class _Status(msgspec.Struct):
    status: int
    error: _Error | None = None


class _Item(msgspec.Struct):
    index: _Status


class _Written(msgspec.Struct):
    items: list[_Item] = []


class _Document(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    found: bool = False
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw())
    error: _Error | None = None


class _Documents(msgspec.Struct):
    docs: list[_Document]


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    source: msgspec.Raw = msgspec.field(name="_source")


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Found(WholeAnswer):
    hits: _Hits


class Named(msgspec.Struct, frozen=True):
    """A document without its content. `routing`: empty where it lies where its id puts it, as all of ours do."""

    id: str = msgspec.field(name="_id")
    version: int = msgspec.field(name="_version")
    sort: list[int]
    routing: str = msgspec.field(name="_routing", default="")


class _Names(msgspec.Struct):
    hits: list[Named]


class _Scanned(WholeAnswer):
    hits: _Names


class _Bucket(msgspec.Struct):
    key: str


class _Buckets(msgspec.Struct):
    sum_other_doc_count: int
    buckets: list[_Bucket]


class _Filtered(msgspec.Struct):
    trails: _Buckets


class _Grouped(WholeAnswer):
    aggregations: dict[str, _Filtered]


class Access:
    """What stands behind one alias.

    Args:
        connection: to the cluster.
        alias: the only name that is used: the index behind it may become another one at any time.
        copies: how many copies of a shard must be there, or nothing is written to it.
    """

    def __init__(self, connection: Connection, alias: str, *, copies: int) -> None:
        self._connection = connection
        self._alias = alias
        self._copies = copies

    def put(self, puts: Sequence[Put]) -> None:
        """Write these, in requests of bounded size; each is synced when this returns. One that is there in this version or a later one stays.

        Raises:
            Overloaded: at least one was not taken now.
            StateUnknown: the alias is gone, or a document was refused.
        """
        params = {
            "wait_for_active_shards": self._copies,
            "timeout": self._connection.patience,
            # an index that writing to it would make is none of ours
            "require_alias": "true",
            "filter_path": "items.*.status,items.*.error",
        }
        path = path_of(self._alias, "_bulk")
        for body, count in _requests(puts):
            answer = self._connection.json(_Written, "POST", path, body, params=params, ndjson=True)
            if len(answer.items) != count:
                raise Overloaded(f"{self._connection.name} answered for {len(answer.items)} of {count} documents")
            tell_written(
                self._connection,
                ((item.index.status, item.index.error.type if item.index.error else "") for item in answer.items),
            )
            for item in answer.items:
                status = item.index.status
                if status >= 300 and status != _CONFLICT:
                    raise self._trouble(status, item.index.error or _Error())

    def get(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Those of these documents that are there, as they are at this moment (a real-time get), by id.

        Raises:
            Overloaded: one of them cannot be read now: an error is never an absence.
            StateUnknown: the alias is gone.
        """
        found: dict[str, bytes] = {}
        path = path_of(self._alias, "_mget")
        for at in range(0, len(ids), _GET_DOCUMENTS):
            some = list(ids[at : at + _GET_DOCUMENTS])
            answer = self._connection.json(_Documents, "POST", path, {"ids": some}, params={"realtime": "true"})
            if [one.id for one in answer.docs] != some:
                raise Overloaded(f"{self._connection.name} answered for other documents than were asked for")
            for one in answer.docs:
                if one.error is not None:
                    raise self._trouble(404 if one.error.type == "index_not_found_exception" else 503, one.error)
                if one.found:
                    found[one.id] = bytes(one.source)
        return found

    def search(self, body: Any) -> list[tuple[str, bytes]]:
        """Id and document of each hit, in order.

        Raises:
            Overloaded: not all of the index answered.
            StateUnknown: the alias is gone.
        """
        found = search(self._connection, self._alias, body, _Found)
        return [(hit.id, bytes(hit.source)) for hit in found.hits.hits]

    def scan(self, query: Any) -> Iterator[Named]:
        """Every document that the query lets pass, in the order in which they were written; one that is written again meanwhile may come twice.

        Raises:
            Overloaded: not all of the index answered.
            StateUnknown: the alias is gone.
        """
        last, told = 0, set[tuple[str, str]]()
        while True:
            body = {"size": _SCANNED_AT_ONCE, "query": query, "_source": False, "version": True}
            # from the last number on, which each shard gives by itself: documents of others may have it, too
            body |= {"track_total_hits": False, "sort": [{"_seq_no": "asc"}], "search_after": [last - 1]}
            hits = search(self._connection, self._alias, body, _Scanned).hits.hits
            yield from (hit for hit in hits if (hit.id, hit.routing) not in told)
            if len(hits) < _SCANNED_AT_ONCE:
                return
            last = hits[-1].sort[0]
            told = {(hit.id, hit.routing) for hit in hits if hit.sort[0] == last}

    def groups(self, body: Any) -> list[list[str]]:
        """For each of a search's filters, in order, the trails of the documents that it lets pass.

        Raises:
            Overloaded: not all of the index answered, or there are more trails than the search asks for.
            StateUnknown: the alias is gone.
        """
        found = search(self._connection, self._alias, body, _Grouped).aggregations
        if any(one.trails.sum_other_doc_count for one in found.values()):
            raise Overloaded(f"{self._connection.name}: too many trails with very many keys are meant: ask for less")
        return [[bucket.key for bucket in found[str(at)].trails.buckets] for at in range(len(found))]

    def _trouble(self, status: int, error: _Error) -> Exception:
        if status == 404:
            return StateUnknown(f"{self._connection.name}: the trail index {self._alias} is gone: {error.reason}")
        known = pressure(self._connection.name, status, error.type, error.reason)
        return known or Refusal(status, error.type, error.reason)


def _requests(puts: Sequence[Put]) -> Iterator[tuple[bytes, int]]:
    """Bodies of about `_BULK_BYTES`, each with the number of its documents."""
    lines: list[bytes] = []
    size = 0
    for one in puts:
        if lines and size + len(one.document) > _BULK_BYTES:
            yield b"\n".join((*lines, b"")), len(lines) // 2
            lines, size = [], 0
        action = {"_id": one.id, "version": one.version, "version_type": "external"}
        lines += [msgspec.json.encode({"index": action}), one.document]
        size += len(one.document) + len(lines[-2])
    if lines:
        yield b"\n".join((*lines, b"")), len(lines) // 2
