"""Our roles for OpenSearch's security plugin: each process can do its work, and nobody can change what is stored."""

from __future__ import annotations

import ssl
import urllib.error
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from collector.batch import EventRef, StreamId
from collector.errors import Conflict, Overloaded
from collector.store.opensearch.months import OpenSearchMonths
from collector.store.opensearch.store import OpenSearchStore
from collector.store.settings import StoreSettings
from correlator.index import TrailQuery
from correlator.index.opensearch.index import OpenSearchIndex
from correlator.index.settings import IndexSettings
from tests.servers.certificates import Authority
from tests.servers.opensearch import Cluster
from tests.support.leaves import story
from tests.support.shipper import Shipper, pay, texts

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]

STREAM = StreamId("gateway/0123456789abcdef")
EVENTS = "tally-events-2026.01"


@pytest.fixture(scope="module")
def cluster(opensearch_secured: Cluster) -> Iterator[Cluster]:
    yield opensearch_secured
    opensearch_secured.ask("DELETE", "/tally-*")


@pytest.fixture
def as_user(cluster: Cluster, tmp_path: Path) -> Any:
    """The settings of a user."""
    assert cluster.security is not None
    security = cluster.security

    def settings(user: str, **more: Any) -> StoreSettings:
        (tmp_path / user).write_text(f"{security.passwords[user]}\n")
        known = {"ca_file": str(security.authority.ca), "user": user, "password_file": str(tmp_path / user)}
        return StoreSettings(urls=list(cluster.urls), **(known | more))

    return settings


@pytest.fixture
def stored(as_user: Any) -> None:
    """One batch of two events, shipped with the collector's credentials."""
    with closing(OpenSearchStore(as_user("collector"))) as store:
        store.append(Shipper().batch(pay("T-1"), pay("T-2")))


def refusal(cluster: Cluster, user: str, method: str, path: str, body: Any = None) -> str:
    assert cluster.security is not None
    with pytest.raises(urllib.error.HTTPError) as told:
        cluster.ask(method, path, body, user=(user, cluster.security.passwords[user]))
    return f"{told.value.code} {told.value.read().decode()}"


@pytest.mark.usefixtures("stored")
def test_each_process_can_do_its_work(as_user: Any) -> None:
    refs = [EventRef(stream=STREAM, sequence=at) for at in (1, 0)]
    with closing(OpenSearchStore(as_user("correlator"), look_beyond_seconds=0)) as correlator:
        assert list(correlator.streams()) == [STREAM]
        assert [one.header.number for one in correlator.batches_after({STREAM: 0}, 3)] == [1]
        assert list(correlator.batches_after({STREAM: 1}, 3)) == []
        correlator.acknowledge({STREAM: 1})
    with closing(OpenSearchStore(as_user("collector"))) as collector:
        assert collector.acknowledged(STREAM) == 1
        collector.append(Shipper().batch(pay("T-1"), pay("T-2")))  # sent again: recognised
    with closing(OpenSearchStore(as_user("api"), read_only=True)) as api:
        assert list(api.events(refs)) == texts([pay("T-2"), pay("T-1")])


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("user", ["collector", "correlator", "api"])
def test_nobody_can_change_what_is_stored(cluster: Cluster, user: str) -> None:
    documents = {
        EVENTS: f"{STREAM}:0",
        "tally-batches": f"{STREAM}:1",
        "tally-streams": f"{STREAM}@{EVENTS}",
    }
    for index, id_ in documents.items():
        name = quote(id_, safe="")
        before = cluster.ask("GET", f"/{index}/_doc/{name}")
        told = {
            "update": refusal(cluster, user, "POST", f"/{index}/_update/{name}", {"doc": {"x": 1}}),
            "delete": refusal(cluster, user, "DELETE", f"/{index}/_doc/{name}"),
            "index": refusal(cluster, user, "PUT", f"/{index}/_doc/{name}", {"x": 1}),
            "delete by query": refusal(
                cluster, user, "POST", f"/{index}/_delete_by_query", {"query": {"match_all": {}}}
            ),
            "settings": refusal(cluster, user, "PUT", f"/{index}/_settings", {"index.refresh_interval": "9s"}),
            "mapping": refusal(cluster, user, "PUT", f"/{index}/_mapping", {"properties": {"x": {"type": "long"}}}),
            "drop": refusal(cluster, user, "DELETE", f"/{index}"),
        }
        assert all(answer.startswith(("403", "400")) for answer in told.values()), told
        # by permission; and what no permission can tell apart from creating, by the index itself
        assert "no permissions" in told["update"]
        assert "no permissions" in told["delete"]
        assert ("no permissions" if user == "correlator" else "append") in told["index"]
        assert cluster.ask("GET", f"/{index}/_doc/{name}") == before


@pytest.mark.usefixtures("stored")
def test_only_retention_lets_go_of_a_month_and_of_nothing_else(cluster: Cluster, as_user: Any) -> None:
    with closing(OpenSearchStore(as_user("collector"))) as store:
        shipper = Shipper("old/0123456789abcdef")
        store.append(shipper.batch(pay("T-1"), created="2025-01-01T00:00:00.000000000Z"))
    with closing(OpenSearchMonths(as_user("retention"))) as months:
        old, new = months.held()
        assert (old.month, old.events, new.month) == ("2025.01", 1, "2026.01")
        months.compact("2026.01")
        with pytest.raises(Conflict):
            months.drop("2026.01", (), 1)
        months.drop("2025.01", (), 1)
        assert [one.month for one in months.held()] == ["2026.01"]
    for index in ("tally-batches", "tally-streams", "tally-facts-2025.01", "tally-acknowledged"):
        assert refusal(cluster, "retention", "DELETE", f"/{index}").startswith("403")
    name = quote(f"{STREAM}:0", safe="")
    assert refusal(cluster, "retention", "DELETE", f"/{EVENTS}/_doc/{name}").startswith("403")
    assert refusal(cluster, "retention", "POST", f"/{EVENTS}/_update/{name}", {"doc": {"x": 1}}).startswith("403")
    for user in ("collector", "correlator", "api"):
        with closing(OpenSearchMonths(as_user(user))) as months, pytest.raises(Overloaded, match="does not let us"):
            months.drop("2026.01", (), 2)


@pytest.mark.usefixtures("stored")
def test_only_the_correlator_says_what_the_log_holds(cluster: Cluster, as_user: Any) -> None:
    for user in ("collector", "api"):
        answer = refusal(cluster, user, "PUT", f"/tally-acknowledged/_doc/{quote(STREAM, safe='')}", {"number": 9})
        assert answer.startswith("403"), answer
    with closing(OpenSearchStore(as_user("api"))) as api, pytest.raises(Overloaded, match="does not let us"):
        api.acknowledge({STREAM: 9})


@pytest.mark.usefixtures("stored")
def test_the_correlator_keeps_the_trail_index_and_the_api_reads_it(cluster: Cluster, as_user: Any) -> None:
    def index(user: str, **options: Any) -> OpenSearchIndex:
        settings = IndexSettings(**msgspec.structs.asdict(as_user(user)))
        return OpenSearchIndex(settings, **options)

    leaves = story().made
    with closing(index("correlator")) as writer:
        writer.apply(leaves[:5])
    with closing(index("api", read_only=True)) as reader:
        before = reader.find(TrailQuery(), size=9).trails
        assert [one.trail for one in before] == ["transaction/pay-2", "key/order_id/o1", "transaction/pay-1"]
        with closing(index("correlator", beside=True)) as beside:
            beside.apply(leaves)
            beside.take_over(linger_seconds=0)
        assert reader.size() == 9
        assert list(reader.leaves("transaction/pay-1")) == [0, 1, 4, 7]
    with closing(index("correlator")) as writer:
        writer.clear()
        writer.apply(leaves)
    (name,) = cluster.ask("GET", "/tally-trails-*")
    for user in ("collector", "api"):
        for attempt in ({"beside": True}, {}):
            with pytest.raises(Overloaded, match="does not let us"), closing(index(user, **attempt)) as other:
                other.clear()
        told = [
            refusal(cluster, user, "PUT", f"/{name}/_doc/mark", {"size": 0}),
            refusal(cluster, user, "DELETE", f"/{name}"),
            refusal(cluster, user, "POST", "/_aliases", {"actions": [{"remove_index": {"index": name}}]}),
        ]
        assert all(answer.startswith("403") for answer in told), told
    answer = refusal(cluster, "correlator", "POST", "/_aliases", {"actions": [{"remove_index": {"index": EVENTS}}]})
    assert answer.startswith("403"), "of events it removes nothing"


def test_a_stranger_and_a_wrong_password_are_told_so(as_user: Any, tmp_path: Path) -> None:
    with pytest.raises(Overloaded, match=r"does not let us: .* roles right"):
        OpenSearchStore(as_user("stranger"))
    (tmp_path / "wrong").write_text("not it\n")
    with pytest.raises(Overloaded, match="does not let us"):
        OpenSearchStore(as_user("collector", password_file=str(tmp_path / "wrong")))


def test_a_server_whose_certificate_is_another_s_is_not_talked_to(as_user: Any, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with pytest.raises(Overloaded, match=r"no secure connection: .*CERTIFICATE_VERIFY_FAILED"):
        OpenSearchStore(as_user("collector", ca_file=str(other.ca)))


def test_a_client_certificate_serves_as_well(cluster: Cluster, as_user: Any) -> None:
    assert cluster.security is not None
    folder = cluster.security.authority.folder
    settings = msgspec.structs.replace(
        as_user("collector"),
        user="",
        password_file="",
        client_certificate=str(folder / "admin.pem"),
        client_key=str(folder / "admin-key.pem"),
    )
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.load_cert_chain(settings.client_certificate, settings.client_key)  # it is what it says
    with closing(OpenSearchStore(settings)) as store:
        assert store.acknowledged(StreamId("nobody/0123456789abcdef")) == 0
