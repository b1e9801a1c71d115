"""Creating documents in bulk: what was created, what was there, what was refused, item by item."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from collector.batch import StreamId
from collector.errors import Overloaded
from collector.store.opensearch.connection import Connection, Denied, Refusal, path_of, pressure
from collector.store.opensearch.hearing import word_for

__all__ = ["Creation", "Outcome", "create", "raise_number", "settle", "tell_written"]

_log = logging.getLogger(__name__)

_BULK_BYTES = 8 * 1024**2
"""Size of one request: far below what a server takes (http.max_content_length, 100 MB), large enough to cost little each."""

_CONFLICT = 409
_BAD_REQUEST = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A document to be created: where, under which id, and its one line."""

    index: str
    id: str
    document: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was not simply created: positions of those whose id was taken, and of those that were refused, with the reason."""

    taken: Sequence[int]
    refused: Sequence[tuple[int, str]]


class _Shards(msgspec.Struct):
    failed: int


class _Flushed(msgspec.Struct):
    shards: _Shards = msgspec.field(name="_shards")


class _Cause(msgspec.Struct):
    type: str = ""
    reason: str = ""


class _Error(msgspec.Struct):
    type: str = ""
    reason: str = ""
    caused_by: _Cause | None = None


class _Status(msgspec.Struct):
    status: int
    error: _Error | None = None


class _Item(msgspec.Struct):
    create: _Status


class _Answer(msgspec.Struct):
    items: list[_Item] = []


class _IndexedItem(msgspec.Struct):
    index: _Status


class _Indexed(msgspec.Struct):
    items: list[_IndexedItem] = []


def create(connection: Connection, creations: Sequence[Creation], *, copies: int) -> Outcome:
    """Create these documents, in requests of bounded size; each is synced when this returns.

    A crash of ours, or an `Overloaded`, leaves some created: the same call again finds those taken.

    Args:
        connection: to the cluster.
        creations: what to create.
        copies: how many copies of a shard must be there, or nothing is written to it.

    Raises:
        Overloaded: at least one was not taken now.
        Refusal: a definite no to a whole request.
    """
    taken: list[int] = []
    refused: list[tuple[int, str]] = []
    params = {
        "wait_for_active_shards": copies,
        "timeout": connection.patience,
        "filter_path": "items.*.status,items.*.error",
    }
    first = 0
    for body, count in _requests(creations):
        answer = connection.json(_Answer, "POST", "/_bulk", body, params=params, ndjson=True)
        if len(answer.items) != count:
            raise Overloaded(f"{connection.name} answered for {len(answer.items)} of {count} documents")
        tell_written(connection, map(_told, (item.create for item in answer.items)))
        for at, item in enumerate(answer.items, first):
            status = item.create.status
            if status == _CONFLICT:
                taken.append(at)
            elif status == _BAD_REQUEST:
                refused.append((at, _words(item.create.error or _Error())))
            elif status >= 300:
                raise _trouble(connection, item.create)
        first += count
    return Outcome(taken=taken, refused=refused)


def raise_number(connection: Connection, index: str, numbers: Mapping[StreamId, int]) -> None:
    """Set each stream's number unless it has a larger one. The number is the document's version: the server compares.

    Raises:
        Overloaded: at least one was not taken now.
    """
    lines: list[bytes] = []
    for id_, number in numbers.items():
        action = {"_index": index, "_id": id_, "version": number, "version_type": "external"}
        lines += [msgspec.json.encode({"index": action}), msgspec.json.encode({"number": number})]
    params = {"timeout": connection.patience, "filter_path": "items.*.status,items.*.error"}
    body = b"\n".join((*lines, b""))
    answer = connection.json(_Indexed, "POST", "/_bulk", body, params=params, ndjson=True)
    if len(answer.items) != len(numbers):
        raise Overloaded(f"{connection.name} answered for {len(answer.items)} of {len(numbers)} documents")
    tell_written(connection, map(_told, (item.index for item in answer.items)))
    for item in answer.items:
        if item.index.status >= 300 and item.index.status != _CONFLICT:
            raise _trouble(connection, item.index)


def tell_written(connection: Connection, told: Iterable[tuple[int, str]]) -> None:
    """Tell the connection's watch how the items of a bulk went: HTTP's status and the type of the error, if any, of each."""
    outcomes: Counter[str] = Counter()
    for (status, kind), count in Counter(told).items():
        outcomes[_outcome(status, kind)] += count
    connection.watch.wrote(outcomes)


def _told(one: _Status) -> tuple[int, str]:
    return one.status, one.error.type if one.error else ""


def _outcome(status: int, kind: str) -> str:
    if status < 300:
        return "created"
    word = "taken" if status == _CONFLICT else word_for(status, kind)
    return "refused" if word == "not_found" else word


def _trouble(connection: Connection, told: _Status) -> Exception:
    error = told.error or _Error()
    if waits := pressure(connection.name, told.status, error.type, error.reason):
        return waits
    if told.status == 404:  # where nothing is made by itself (action.auto_create_index), which is how it should be
        return Overloaded(f"{connection.name}: {error.reason}: it was dropped, and is made anew at the next try")
    return Refusal(told.status, error.type, error.reason)


def _words(error: _Error) -> str:
    cause = error.caused_by
    return f"{error.type}: {error.reason}" + (f" ({cause.reason})" if cause else "")


def _requests(creations: Sequence[Creation]) -> Iterator[tuple[bytes, int]]:
    """Bodies of about `_BULK_BYTES`, each with the number of its documents; a larger document has one of its own."""
    lines: list[bytes] = []
    size = 0
    for one in creations:
        if lines and size + len(one.document) > _BULK_BYTES:
            yield b"\n".join((*lines, b"")), len(lines) // 2
            lines, size = [], 0
        lines.append(msgspec.json.encode({"create": {"_index": one.index, "_id": one.id}}))
        lines.append(one.document)
        size += len(one.document) + len(lines[-2])
    if lines:
        yield b"\n".join((*lines, b"")), len(lines) // 2


def settle(connection: Connection, *indexes: str) -> None:
    """What is in these indexes already is durable on return.

    A document that an earlier request brought, whose answer never came, is seen and not synced yet: a create that finds it syncs nothing, and
    if that sync fails it is gone. So what was not brought just now is flushed
    (https://docs.opensearch.org/latest/api-reference/index-apis/flush/).

    Raises:
        Overloaded: not now.
    """
    try:
        done = connection.json(_Flushed, "POST", path_of(",".join(indexes), "_flush"))
    except Denied:
        # roles of before: as it was then, a sync that fails behind an answer that never came is not noticed
        _log.warning("a collector's role has no indices:admin/flush*: take it from deploy/opensearch/roles.yml")
        return
    if done.shards.failed:
        raise Overloaded(f"{connection.name} cannot sync {', '.join(indexes)} now")
