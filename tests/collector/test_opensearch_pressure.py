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
    ("status", "kind"), [(404, "index_not_found_exception"), (400, "mapper_parsing_exception"), (409, "")]
)
def test_a_definite_no_is_none_of_these(status: int, kind: str) -> None:
    assert pressure("the cluster", status, kind, "why") is None
