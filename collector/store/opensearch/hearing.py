"""What an answer of OpenSearch means, in one word of a closed set; and who is told of every request. Pure."""

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Unheard", "Watch", "operation_of", "word_for"]

_NO_SHARD = frozenset(
    {"unavailable_shards_exception", "no_shard_available_action_exception", "search_phase_execution_exception"}
)
_NO_MANAGER = frozenset({"cluster_manager_not_discovered_exception", "master_not_discovered_exception"})


class Watch(Protocol):
    """Is told of every request; see `collector.store.metrics.ClusterMetrics`, whose words these are."""

    def answered(self, operation: str, outcome: str, *, seconds: float, sent: int, received: int) -> None:
        """One request; `sent` and `received` are bytes."""

    def wrote(self, outcomes: Mapping[str, int]) -> None:
        """The documents of a bulk that was answered, by outcome."""

    def troubled(self, operation: str, outcome: str) -> None:
        """A request was answered, and the answer tells of a trouble."""

    def unindexed(self, events: int) -> None:
        """So many events were stored as bytes alone."""

    def node_failed(self) -> None:
        """A node did not answer; where there is another one, that is asked."""


class Unheard:
    """A `Watch` for those whom nobody watches."""

    def answered(self, operation: str, outcome: str, *, seconds: float, sent: int, received: int) -> None:
        """See `Watch`."""

    def wrote(self, outcomes: Mapping[str, int]) -> None:
        """See `Watch`."""

    def troubled(self, operation: str, outcome: str) -> None:
        """See `Watch`."""

    def unindexed(self, events: int) -> None:
        """See `Watch`."""

    def node_failed(self) -> None:
        """See `Watch`."""


def operation_of(method: str, path: str) -> str:
    """``write`` for a bulk, ``read`` for gets of documents and searches, ``other`` for the rest."""
    last = path.partition("?")[0].rpartition("/")[2]
    if last == "_bulk":
        return "write"
    return "read" if last in {"_mget", "_search", "_count"} or (method == "GET" and "/_doc/" in path) else "other"


def word_for(status: int, kind: str) -> str:
    """The outcome of a request or an item, by HTTP's status and the exception's type as OpenSearch names it."""
    if kind in _NO_MANAGER or (kind == "cluster_block_exception" and status == 503):
        return "no_manager"
    if kind == "cluster_block_exception":
        return "blocked"
    if kind in _NO_SHARD and status >= 500:
        return "no_shard"
    if status >= 500:
        return "unavailable"
    return {429: "too_much", 401: "denied", 403: "denied", 404: "not_found"}.get(status, "refused")
