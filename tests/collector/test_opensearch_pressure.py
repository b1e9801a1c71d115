"""Which of the cluster's errors ask to wait, and which are a definite no."""

from __future__ import annotations

import pytest

from collector.store.opensearch.connection import pressure


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (403, "cluster_block_exception", "lets nothing be written"),
        (429, "cluster_block_exception", "lets nothing be written"),
        (403, "index_create_block_exception", "lets nothing be written"),
        (429, "rejected_execution_exception", "has too much to do"),
        (403, "security_exception", "does not let us"),
        (413, "", "takes no request of this size"),
        (503, "unavailable_shards_exception", "cannot do it now: 503"),
        (500, "i_o_exception", "cannot do it now: 500"),
        # a node says so of a shard that it has just closed; taken for a no, it would end the correlator
        (
            404,
            "shard_not_found_exception",
            "cannot do it now: 404 shard_not_found_exception: why (a node whose disk is full closes",
        ),
    ],
)
def test_what_passes_is_waited_for(status: int, kind: str, said: str) -> None:
    told = pressure("the cluster", status, kind, "why")
    assert told is not None
    assert str(told).startswith(f"the cluster {said}")
    assert told.retry_after_seconds >= 1.0


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        # what everybody hears who asks once the shard is closed: nothing of a disk, so that nobody would look there
        (
            "[tally-events-2026.11][0] primary shard is not active Timeout: [8s]",
            " (its node is away, or the node's disk is full)",
        ),
        ("[tally-events-2026.11][0] Not enough active copies to meet shard count of [2] (have 1, needed 2).", ""),
    ],
)
def test_a_primary_that_is_not_there_may_lie_on_a_full_disk(reason: str, hint: str) -> None:
    told = pressure("the cluster", 503, "unavailable_shards_exception", reason)
    assert str(told) == f"the cluster cannot do it now: 503 unavailable_shards_exception: {reason}{hint}"


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "index_not_found_exception"), (400, "mapper_parsing_exception"), (409, "")]
)
def test_a_definite_no_is_none_of_these(status: int, kind: str) -> None:
    assert pressure("the cluster", status, kind, "why") is None
