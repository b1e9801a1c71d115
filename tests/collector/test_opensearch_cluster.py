"""Three nodes and a replica: nodes are killed while batches are stored, and nothing is missing or doubled afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from collector.batch import Batch, EventRef, StreamId
from collector.errors import Overloaded
from collector.store.opensearch.store import OpenSearchStore
from collector.store.settings import StoreSettings
from drills.nodes import nodes_drill
from drills.story import AGE, WAITING
from tests.servers.opensearch import Cluster
from tests.support.drilled import holds
from tests.support.shipper import Shipper, pay, texts

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]

STREAM = StreamId("gateway/0123456789abcdef")
EVENTS_A_BATCH = 20
PATIENCE_SECONDS = 180.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=3) as cluster:
        yield cluster


def send(store: OpenSearchStore, batch: Batch) -> int:
    """As a shipper does: the same batch until it is taken. Returns how often it was not."""
    end = time.monotonic() + PATIENCE_SECONDS
    refusals = 0
    while True:
        try:
            store.append(batch)
        except Overloaded as told:
            refusals += 1
            if time.monotonic() > end:
                raise
            time.sleep(min(told.retry_after_seconds, 0.5))  # what the store asks for; no event tells that it is over
        else:
            return refusals


def primary(cluster: Cluster, index: str, via: int = 0) -> int:
    """The node that holds the index's primary shard."""
    shards = cluster.ask("GET", f"/_cat/shards/{index}?format=json", via=via)
    (name,) = [one["node"] for one in shards if one["prirep"] == "p"]
    return int(name.removeprefix("node"))


def whole(cluster: Cluster) -> None:
    cluster.wait()
    answer = cluster.ask("GET", "/_cluster/health?wait_for_status=green&timeout=120s", timeout_seconds=150)
    assert answer["status"] == "green"


def test_nodes_are_killed_in_the_middle_and_nothing_is_missing_or_doubled(cluster: Cluster) -> None:
    settings = StoreSettings(urls=list(cluster.urls), replicas=1, timeout_seconds=10.0)
    shipper = Shipper()
    events = [pay(f"T-{at % 50}", body=f"event {at}") for at in range(60 * EVENTS_A_BATCH)]

    def batch() -> Batch:
        return shipper.batch(*events[shipper.sequence : shipper.sequence + EVENTS_A_BATCH])

    with closing(OpenSearchStore(settings)) as store:
        place = store.place("2026-01-01T00:00:00.000000000Z")
        refused = [0, 0]
        for _ in range(10):
            send(store, batch())
        for turn in range(2):
            whole(cluster)
            via = 0 if primary(cluster, place) != 0 else 1
            killed = cluster.nodes[primary(cluster, place, via)]
            for at in range(20):
                if at == 5:
                    killed.kill()  # what holds the primary of what is being written
                refused[turn] += send(store, batch())
            assert primary(cluster, place, via) != killed.number, "the replica took over"
            killed.start()
        whole(cluster)
        for _ in range(10):
            assert send(store, batch()) == 0
        assert shipper.sequence == len(events)

        found = store.batches_after({STREAM: 0}, 99)
        assert [one.header.number for one in found] == list(range(1, shipper.number + 1))
        asked = [EventRef(stream=STREAM, sequence=at) for at in range(len(events))]
        assert list(store.events(asked)) == texts(events)
        cluster.ask("POST", f"/{place}/_refresh")
        assert cluster.ask("GET", f"/{place}/_count")["count"] == len(events), "none twice"
        assert list(store.streams()) == [STREAM]


@pytest.mark.long
def test_sidecars_and_correlator_go_on_while_nodes_are_killed(cluster: Cluster, tmp_path: Path) -> None:
    outcome = nodes_drill(tmp_path / "drill", cluster, prefix="drill", events=300, down_seconds=1.0)
    holds(outcome, at_least=1_500)
    for killed in (outcome.phase("the node with the primary"), outcome.phase("the cluster manager")):
        assert killed.resumed_seconds is not None
        assert killed.most[AGE] > 0.2, "the SRE sees it: events wait longer than a round takes"
        assert killed.most[WAITING] > 0


def test_with_fewer_copies_than_are_asked_for_nothing_is_written(cluster: Cluster) -> None:
    settings = StoreSettings(urls=list(cluster.urls), replicas=2, copies=3, timeout_seconds=10.0, prefix="three")
    whole(cluster)
    with closing(OpenSearchStore(settings)) as store:
        shipper = Shipper()
        store.append(shipper.batch(pay("T-1")))
        whole(cluster)
        last = cluster.nodes[2]
        last.kill()
        batch = shipper.batch(pay("T-2"))
        try:
            with pytest.raises(Overloaded, match="cannot do it now: 503"):
                store.append(batch)
            assert store.batch(STREAM, 1) is not None, "reading goes on"
            assert store.batch(STREAM, 2) is None
        finally:
            last.start()
        whole(cluster)
        store.append(batch)
        assert store.batch(STREAM, 2) is not None


def test_a_node_that_hangs_is_passed_over(cluster: Cluster) -> None:
    whole(cluster)
    (manager,) = cluster.ask("GET", "/_cat/cluster_manager?format=json")
    idle = next(node for node in cluster.nodes[1:] if node.name != manager["node"])
    exclude = "cluster.routing.allocation.exclude._name"
    cluster.ask("PUT", "/_cluster/settings", {"persistent": {exclude: idle.name}})
    settings = StoreSettings(urls=list(cluster.urls), prefix="hangs", timeout_seconds=5.0)
    try:
        with closing(OpenSearchStore(settings)) as store:
            shipper = Shipper()
            send(store, shipper.batch(pay("T-0")))
            idle.pause()  # it holds none of our shards: whoever asks it waits in vain
            for at in range(1, 9):
                send(store, shipper.batch(pay(f"T-{at}")))
            assert len(store.batches_after({STREAM: 0}, 20)) == 9
            start = time.monotonic()
            for _ in range(9):
                store.batch(STREAM, 1)
            assert time.monotonic() - start < 5.0, "it is asked once, and then left alone"
    finally:
        idle.resume()
        cluster.ask("PUT", "/_cluster/settings", {"persistent": {exclude: None}})
