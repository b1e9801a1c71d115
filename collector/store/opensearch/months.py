"""`MonthStore` on OpenSearch, where a month's events are an index of their own, and go by dropping it.

The index is shut for writing first: that call returns when nothing is on its way any more
(https://docs.opensearch.org/latest/api-reference/index-apis/blocks/). Then its documents are counted, and only if they are as many as was
decided upon it is dropped. A batch that comes late is told to wait, and makes the index anew.
"""

from collections.abc import Collection, Sequence

import msgspec

from collector.errors import Conflict, Overloaded
from collector.store.months import HeldMonth
from collector.store.opensearch.connection import Connection, Refusal, path_of
from collector.store.opensearch.layout import Layout
from collector.store.opensearch.registry import WholeAnswer, refresh, search
from collector.store.settings import StoreSettings

__all__ = ["OpenSearchMonths"]

_BLOCK = "index.blocks.write"


class _Number(msgspec.Struct):
    count: int = 0
    size_in_bytes: int = 0


class _Stats(msgspec.Struct):
    segments: _Number = msgspec.field(default_factory=_Number)
    store: _Number = msgspec.field(default_factory=_Number)


class _IndexStats(msgspec.Struct):
    primaries: _Stats
    total: _Stats


class _AllStats(msgspec.Struct):
    indices: dict[str, _IndexStats] = {}


class _Settings(msgspec.Struct):
    settings: dict[str, str] = {}


class _Total(msgspec.Struct):
    value: int


class _Hits(msgspec.Struct):
    total: _Total


class _Counted(WholeAnswer):
    hits: _Hits


class _Done(msgspec.Struct):
    acknowledged: bool = False
    shards_acknowledged: bool = False


class OpenSearchMonths:
    """`collector.store.months.MonthStore` on OpenSearch.

    Args:
        settings: where the cluster is; whoever it names must be allowed to drop indexes (role ``tally_retention``).

    Raises:
        OSError: a certificate or the password's file cannot be read.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._layout = Layout(prefix=settings.prefix, shards=settings.shards, replicas=settings.replicas)
        self._connection = Connection(settings)
        self._patience = {"timeout": self._connection.patience}

    def close(self) -> None:
        """See `MonthStore.close`."""
        self._connection.close()

    def held(self) -> Sequence[HeldMonth]:
        """See `MonthStore.held`."""
        pattern = self._layout.of_month("*")
        stats = self._connection.json(_AllStats, "GET", path_of(pattern, "_stats", "store,segments")).indices
        settings = self._connection.json(
            dict[str, _Settings], "GET", path_of(pattern, "_settings"), params={"flat_settings": "true"}
        )
        return [
            HeldMonth(
                month=name[-7:],
                events=self._count(name),
                size_bytes=found.total.store.size_in_bytes,
                shut=_is_shut(settings.get(name)),
                loose=found.primaries.segments.count > int(_shards(settings.get(name))),
            )
            for name, found in sorted(stats.items())
            if self._layout.is_place(name)
        ]

    def _count(self, index: str) -> int:
        refresh(self._connection, index)
        query = {"size": 0, "track_total_hits": True, "query": {"match_all": {}}}
        return search(self._connection, index, query, _Counted).hits.total.value

    def drop(self, month: str, headers: Collection[str], events: int) -> None:
        """See `MonthStore.drop`."""
        del headers
        index = self._layout.of_month(month)
        try:
            if not self._shut(index):
                # it was shut already, by a run that died: whether that run's call had waited for everybody nobody knows
                self.reopen(month)
                if not self._shut(index):
                    raise Overloaded(f"{self._connection.name} has not told all of its nodes in time")
            there = self._count(index)
            if there != events:
                self.reopen(month)
                raise Conflict(f"{index} has {there:,} events now, and {events:,} were to go")
            # a crash before this line leaves it shut: the next call goes on, or `reopen` does
            self._done("DELETE", path_of(index))
        except Refusal as refusal:
            if refusal.status != 404:
                raise

    def reopen(self, month: str) -> None:
        """See `MonthStore.reopen`."""
        path = path_of(self._layout.of_month(month), "_settings")
        self._done("PUT", path, {_BLOCK: None})

    def compact(self, month: str) -> None:
        """See `MonthStore.compact`."""
        params: dict[str, str | int] = {"max_num_segments": 1, "wait_for_completion": "false"}
        self._connection.ask("POST", path_of(self._layout.of_month(month), "_forcemerge"), params=params)

    def _shut(self, index: str) -> bool:
        """Whether the call has shut it, and nothing is on its way to it any more."""
        done = self._connection.json(_Done, "PUT", path_of(index, "_block", "write"), params=self._patience)
        return done.acknowledged and done.shards_acknowledged

    def _done(self, method: str, path: str, body: object = None) -> None:
        if not self._connection.json(_Done, method, path, body, params=self._patience).acknowledged:
            raise Overloaded(f"{self._connection.name} has not told all of its nodes in time")


def _is_shut(found: _Settings | None) -> bool:
    return found is not None and found.settings.get(_BLOCK) == "true"


def _shards(found: _Settings | None) -> str:
    return found.settings.get("index.number_of_shards", "1") if found is not None else "1"
