"""Three OpenSearch nodes with a replica: nodes are killed in the middle of ingest, one after the other, and come back."""

from __future__ import annotations

import time
import urllib.error
from pathlib import Path

from drills.installation import Installation, until
from drills.story import Outcome, Story
from tests.servers.opensearch import Cluster, Node

__all__ = ["nodes_drill"]


def nodes_drill(folder: Path, cluster: Cluster, *, prefix: str, events: int, down_seconds: float) -> Outcome:
    """Kill the node with the primary shard of what is being written, then the cluster manager.

    Args:
        folder: an empty one, or none yet.
        cluster: three nodes, whole; whole again afterwards.
        prefix: of index names that nobody else has.
        events: acknowledged before, between and after the kills.
        down_seconds: how long each stays down.
    """
    installation = Installation(folder, urls=cluster.urls, prefix=prefix, replicas=1)

    def steps(story: Story) -> None:
        with story.phase("all three nodes"):
            story.send(events)
        killed: list[Node] = []
        for what in ("the node with the primary shard killed", "the cluster manager killed"):
            _whole(cluster)
            found = _primary(cluster, f"{prefix}-events-*") if not killed else _manager(cluster)
            node = found if found not in killed else next(one for one in cluster.nodes if one not in killed)
            also = "" if node is not _manager(cluster) or killed else ", which is the cluster manager too"
            with story.phase(f"{what}{also}") as phase:
                node.kill()
                phase.resumed_seconds = story.stored_on()
                left = down_seconds - (time.monotonic() - phase.begin)
                if left > 0:
                    time.sleep(left)  # ingest on two nodes, for as long as asked for
                story.send(events)
                node.start()
                _whole(cluster)
            killed.append(node)
            with story.phase("all three nodes again"):
                story.send(events)

    try:
        return Story(installation).tell(steps)
    finally:
        for node in cluster.nodes:
            if not node.alive():
                node.start()
        _whole(cluster)


def _whole(cluster: Cluster) -> None:
    cluster.wait()
    until("every shard has its replica", lambda: _health(cluster) == "green", seconds=300)


def _health(cluster: Cluster) -> str:
    try:
        answer = cluster.ask("GET", "/_cluster/health?wait_for_status=green&timeout=20s", timeout_seconds=60)
    except urllib.error.HTTPError as error:
        if error.code != 408:  # not yet
            raise
        return ""
    return str(answer["status"])


def _primary(cluster: Cluster, index: str) -> Node:
    """The node with the primary shard of the latest index of this pattern."""
    shards = cluster.ask("GET", f"/_cat/shards/{index}?format=json&s=index:desc")
    return _named(cluster, next(one["node"] for one in shards if one["prirep"] == "p"))


def _manager(cluster: Cluster) -> Node:
    (found,) = cluster.ask("GET", "/_cat/cluster_manager?format=json")
    return _named(cluster, found["node"])


def _named(cluster: Cluster, name: str) -> Node:
    return next(node for node in cluster.nodes if node.name == name)
