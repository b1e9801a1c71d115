"""Under which names the trail index lies: numbered indexes, and an alias that says which of them is read.

    <prefix>-trails            alias: the index that is read and kept up to date
    <prefix>-trails-next       alias: one that is being made beside it
    <prefix>-trails-000001     the indexes themselves, numbered in the order in which they were made

Reading and writing go through the aliases alone. One that takes the other's place does so in a single change of the cluster's
state: a reader sees the one or the other. A crash before it leaves the old one where it was, and the half-made one for the
next `begin` to remove; a crash after it leaves the old one, which no alias names, for the next `begin` as well.
"""

import re
from typing import Any

import msgspec

from collector.store.opensearch.connection import Connection, Refusal, path_of
from collector.store.opensearch.registry import refresh
from correlator.errors import NotFound, StateUnknown
from correlator.index.opensearch.documents import FORMAT, MAPPING
from correlator.index.settings import IndexSettings

__all__ = ["Generations", "index_body"]


class _Mappings(msgspec.Struct):
    meta: dict[str, Any] = msgspec.field(name="_meta", default_factory=dict)


class _Index(msgspec.Struct):
    mappings: _Mappings


class _Aliases(msgspec.Struct):
    aliases: dict[str, Any] = {}


def index_body(settings: IndexSettings) -> dict[str, Any]:
    """Settings and mapping that an index of trails is made with."""
    return {
        "settings": {
            "index.number_of_shards": settings.shards,
            "index.number_of_replicas": settings.replicas,
            # synced before the answer: what the mark claims must outlive a power cut
            "index.translog.durability": "request",
            # copies index by themselves, so that a refresh means the same on each
            "index.replication.type": "DOCUMENT",
            # no pipeline of the cluster's may change a document
            "index.default_pipeline": "_none",
            "index.final_pipeline": "_none",
        },
        "mappings": MAPPING,
    }


class Generations:
    """The indexes of one prefix.

    Args:
        connection: to the cluster.
        settings: their prefix, shards and replicas.
    """

    def __init__(self, connection: Connection, settings: IndexSettings) -> None:
        self._connection = connection
        self._settings = settings
        self.current = f"{settings.prefix}-trails"
        """Alias of the index that is read."""
        self.next = f"{settings.prefix}-trails-next"
        """Alias of the one that is being made."""

    def check(self) -> None:
        """The current index is there, and of our format.

        Raises:
            NotFound: there is none.
            StateUnknown: of another format, or not made by us.
            Overloaded: the cluster does not answer.
        """
        try:
            found = self._connection.json(dict[str, _Index], "GET", path_of(self.current, "_mapping"))
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            raise NotFound(f"{self._connection.name}: no trail index {self.current} yet") from refusal
        if len(found) != 1 or self.current in found:
            raise StateUnknown(
                f"{self._connection.name}: {self.current} must be an alias of one index, and is not: {', '.join(found)}"
            )
        ((name, index),) = found.items()
        told = index.mappings.meta.get("tally")
        if told != FORMAT:
            raise StateUnknown(
                f"{name} has format {told}; this program knows {FORMAT}: make it anew with `tally reindex`"
            )

    def open(self) -> None:
        """As `check`; made when there is none."""
        try:
            self.check()
        except NotFound:
            self._make(self._following(self._names()), self.current)
            self.check()

    def begin(self) -> None:
        """Make an empty index to be the next one; what an earlier attempt left is removed first.

        Raises:
            Overloaded: the cluster does not answer.
        """
        self.remove_old()
        self._make(self._following(self._names()), self.next)

    def take_over(self) -> None:
        """The next index becomes the current one, in one step. A crash before its answer: it has happened or it has not.

        The old one stays until `remove_old`: a request that was under way when the alias moved still reads it.

        Raises:
            StateUnknown: there is no next one.
            Overloaded: the cluster does not answer.
        """
        found = self._names()
        following = [name for name, aliases in found.items() if self.next in aliases]
        if len(following) != 1:
            raise StateUnknown(f"{self._connection.name}: {self.next} is gone: begin again with `tally reindex`")
        actions: list[dict[str, Any]] = [
            {"remove": {"index": name, "alias": self.current}}
            for name, aliases in found.items()
            if self.current in aliases
        ]
        actions.append({"add": {"index": following[0], "alias": self.current}})
        actions.append({"remove": {"index": following[0], "alias": self.next}})
        # a reader may refresh the old index just before the alias moves, and search the new one just after
        refresh(self._connection, self.next)
        try:
            self._connection.ask("POST", "/_aliases", {"actions": actions})
        except Refusal as refusal:
            # asked twice, because the first answer was lost? then the aliases that were to go are gone already
            if refusal.status != 404 or self.current not in self._names().get(following[0], ()):
                raise

    def remove_old(self) -> None:
        """Remove every index of ours that is not the current one.

        Raises:
            Overloaded: the cluster does not answer.
        """
        for name, aliases in self._names().items():
            if self.current not in aliases:
                self._remove(name)

    def _names(self) -> dict[str, set[str]]:
        """Our indexes with their aliases."""
        pattern = f"{self.current}-*"
        found = self._connection.json(dict[str, _Aliases], "GET", path_of(pattern, "_alias"))
        ours = re.compile(rf"{re.escape(self.current)}-\d{{6,}}", re.ASCII)
        return {name: set(index.aliases) for name, index in found.items() if ours.fullmatch(name)}

    def _following(self, found: dict[str, set[str]]) -> str:
        numbers = [int(name.rpartition("-")[2]) for name in found]
        return f"{self.current}-{max(numbers, default=0) + 1:06}"

    def _make(self, name: str, alias: str) -> None:
        body = index_body(self._settings) | {"aliases": {alias: {}}}
        try:
            self._connection.ask("PUT", path_of(name), body)
        except Refusal as refusal:
            if refusal.kind != "resource_already_exists_exception":  # another process was faster
                raise

    def _remove(self, name: str) -> None:
        try:
            self._connection.ask("DELETE", path_of(name))
        except Refusal as refusal:
            if refusal.status != 404:
                raise
