"""What the store on OpenSearch keeps beyond the contract (test_store.py): found by searching, refused by a mapping, pressed, cut off."""

from __future__ import annotations

import secrets
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from collector.batch import Batch, EventRef, StreamId, facts_root, sign_header
from collector.errors import Conflict, NotFound, Overloaded, StateUnknown, VerificationError
from collector.event import Event, Span
from collector.store.metrics import ClusterMetrics
from collector.store.opensearch.connection import Connection
from collector.store.opensearch.layout import Layout
from collector.store.opensearch.months import OpenSearchMonths
from collector.store.opensearch.store import OpenSearchStore
from collector.store.opensearch.writing import Creation, create
from collector.store.settings import StoreSettings
from tests.servers.opensearch import Cluster
from tests.support.shipper import TRACE, Shipper, key_of, pay, texts

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]

STREAM = StreamId("gateway/0123456789abcdef")
OTHER = StreamId("orders/0123456789abcdef")
MONTH = "2026.01"


@pytest.fixture
def store(opensearch_settings: StoreSettings) -> Iterator[OpenSearchStore]:
    with closing(OpenSearchStore(opensearch_settings, look_beyond_seconds=0)) as made:
        yield made


@pytest.fixture
def prefix(opensearch_settings: StoreSettings) -> str:
    return opensearch_settings.prefix


def refs(*sequences: int, stream: StreamId = STREAM) -> list[EventRef]:
    return [EventRef(stream=stream, sequence=sequence) for sequence in sequences]


def events_of(batch: Batch) -> list[bytes]:
    ends = [sum(batch.lengths[:at]) for at in range(len(batch.lengths) + 1)]
    return [batch.events[start:end] for start, end in pairwise(ends)]


def search(cluster: Cluster, index: str, query: Any, **more: Any) -> list[dict[str, Any]]:
    cluster.ask("POST", f"/{index}/_refresh")
    answer = cluster.ask("POST", f"/{index}/_search", {"query": query, **more})
    return [hit["_source"] for hit in answer["hits"]["hits"]]


def refused(cluster: Cluster, method: str, path: str, body: Any = None) -> str:
    """The type of the error that the server refuses this with."""
    with pytest.raises(urllib.error.HTTPError) as told:
        cluster.ask(method, path, body)
    return told.value.read().decode()


# -- what is searched for


LOG = pay(
    "T-1",
    time="2026-01-01T10:00:00.123456789Z",
    observed="2026-01-01T10:00:01.000000000Z",
    severity_number=17,
    severity_text="ERROR",
    body="card refused by the acquirer",
    trace_id=TRACE,
    span_id="b7ad6b7169203331",
    keys={"order": "o-9"},
    actor="ann",
    outcome="failure",
    attributes={"amount": 1.5, "deep": {"list": [1, None, "ü"]}},
)
ROOT = pay(
    "T-1",
    time="2026-01-01T10:00:00.000000000Z",
    trace_id=TRACE,
    span_id="00f067aa0ba902b7",
    span=Span(name="POST /pay", kind="SERVER", end="2026-01-01T10:00:00.250000001Z", status="ERROR"),
)
CHILD = pay(
    time="2026-01-01T10:00:00.100000000Z",
    service="bank",
    trace_id=TRACE,
    span_id="b7ad6b7169203331",
    span=Span(name="charge", kind="CLIENT", parent_span_id="00f067aa0ba902b7", end="2026-01-01T10:00:00.150000000Z"),
)


def test_a_log_record_is_found_under_the_names_that_dashboards_look_for(
    store: OpenSearchStore, opensearch: Cluster, prefix: str
) -> None:
    store.append(Shipper().batch(LOG, pay("T-2")))
    (found,) = search(opensearch, f"{prefix}-events-*", {"match": {"body": "acquirer"}})
    event = found.pop("event")
    assert event["attributes"] == {"amount": 1.5, "deep": {"list": [1, None, "ü"]}}
    assert found == {
        "@timestamp": "2026-01-01T10:00:00.123456789Z",
        "observedTimestamp": "2026-01-01T10:00:01.000000000Z",
        "traceId": TRACE,
        "spanId": "b7ad6b7169203331",
        "serviceName": "gateway",
        "severityNumber": 17,
        "severityText": "ERROR",
        "body": "card refused by the acquirer",
        "transaction": "T-1",
        "keys": ["order=o-9"],
        "actor": "ann",
        "outcome": "failure",
        "stream": STREAM,
        "sequence": 0,
        "batch": 1,
    }
    for query in (
        {"term": {"traceId": TRACE}},
        {"term": {"keys": "order=o-9"}},
        {"range": {"severityNumber": {"gte": 17}}},
        {"range": {"@timestamp": {"gte": "2026-01-01T10:00:00Z", "lt": "2026-01-01T10:00:01Z"}}},
        {"query_string": {"query": "serviceName:gateway AND severityText:ERROR"}},
    ):
        assert [one["sequence"] for one in search(opensearch, f"{prefix}-events-*", query)] == [0], query


def test_spans_answer_the_query_with_which_traces_are_listed(
    store: OpenSearchStore, opensearch: Cluster, prefix: str
) -> None:
    store.append(Shipper().batch(ROOT, CHILD, LOG))
    opensearch.ask("POST", f"/{prefix}-events-*/_refresh")
    inner = {
        "latency": {"max": {"field": "traceGroupFields.durationInNanos"}},
        "trace_group": {"terms": {"field": "traceGroup", "size": 1}},
        "error_count": {"filter": {"term": {"traceGroupFields.statusCode": "2"}}},
        "last_updated": {"max": {"field": "traceGroupFields.endTime"}},
    }
    query = {
        "size": 0,
        "query": {"range": {"startTime": {"gte": "2026-01-01T09:00:00Z", "lte": "2026-01-01T11:00:00Z"}}},
        "aggs": {"traces": {"terms": {"field": "traceId"}, "aggs": inner}},
    }
    answer = opensearch.ask("POST", f"/{prefix}-events-*/_search", query)
    (trace,) = answer["aggregations"]["traces"]["buckets"]
    assert (trace["key"], trace["doc_count"]) == (TRACE, 2), "the two spans; the log record has no start"
    assert trace["latency"]["value"] == 250_000_001
    assert trace["trace_group"]["buckets"][0]["key"] == "POST /pay"
    assert trace["error_count"]["doc_count"] == 1
    child, root = sorted(search(opensearch, f"{prefix}-events-*", {"exists": {"field": "startTime"}}), key=str)[:2]
    root, child = (root, child) if "traceGroup" in root else (child, root)
    assert {name: child[name] for name in ("parentSpanId", "name", "kind", "durationInNanos", "status.code")} == {
        "parentSpanId": "00f067aa0ba902b7",
        "name": "charge",
        "kind": "SPAN_KIND_CLIENT",
        "durationInNanos": 50_000_000,
        "status.code": 0,
    }


def test_a_hundred_thousand_attributes_make_no_field(store: OpenSearchStore, opensearch: Cluster, prefix: str) -> None:
    before = Layout(prefix=prefix, shards=1, replicas=0).body(f"{prefix}-events-{MONTH}")["mappings"]
    many = [pay(attributes={f"key-{at}-{n}": n for n in range(100)}) for at in range(1_000)]
    store.append(Shipper().batch(*many))
    (found,) = opensearch.ask("GET", f"/{prefix}-events-{MONTH}/_mapping").values()
    assert found["mappings"]["properties"].keys() == before["properties"].keys()
    assert list(store.events(refs(999))) == texts(many[999:])


# -- what comes back


ODD = [
    Event(body={"text": 'é\u2028\u0000\\"/', "numbers": [1e21, 1.5e-7, 0.1, -1, 2**53 - 1, 1e300]}),
    Event(time="0001-01-01T00:00:00.000000000Z", body=["a date that no index of nanoseconds knows"]),
    Event(transaction="x" * 256, body="word " * 20_000),
    Event(attributes={"n" * 60_000: 1}),  # a name longer than the server's parser takes
    Event(body=None, keys={"a": ""}),
    Event(body={"": {"": [[], {}, ""]}}, attributes={".": 1, "a..b": 2}),
]


def test_what_was_hashed_comes_back_byte_by_byte(store: OpenSearchStore, opensearch: Cluster, prefix: str) -> None:
    shipper = Shipper()
    batch = shipper.batch(*ODD)
    for _ in range(2):
        store.append(batch)  # repeated, what the mapping refused is recognised too
    assert list(store.events(refs(*range(len(ODD))))) == texts(ODD)
    assert store.batch(STREAM, 1) == batch.signed
    (unindexed,) = search(opensearch, f"{prefix}-events-*", {"term": {"unindexed": True}})
    assert unindexed["sequence"] == 3
    assert "60000" in unindexed["unindexedReason"] or "name length" in unindexed["unindexedReason"].lower()
    store.append(shipper.batch(pay("T-1")))
    assert len(store.batches_after({STREAM: 0}, 9)) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"no JSON at all",
        b'{"body":\n1}',
        b'{"body":"\xff\xfe"}',
        b'{"attributes":{"a":"\xff"}}',
        b'{"time":5}',
        b"[]",
        b"{",
    ],
)
def test_bytes_that_are_no_event_are_stored_all_the_same(store: OpenSearchStore, data: bytes) -> None:
    whole = Shipper().batch(pay("T-1"), pay("T-2"))
    first, second = events_of(whole)
    batch = Batch(signed=whole.signed, events=first + data, lengths=[len(first), len(data)])
    place = store.place(whole.signed.header.created)
    store.append(batch)
    assert list(store.events(refs(1, 0))) == [data, first]
    with pytest.raises(Conflict):  # and nothing else may take their place
        store._create_events(Batch(signed=whole.signed, events=first + second, lengths=whole.lengths), place, [])


def test_an_index_with_another_mapping_loses_no_event(store: OpenSearchStore, opensearch: Cluster, prefix: str) -> None:
    body = Layout(prefix=prefix, shards=1, replicas=0).body(f"{prefix}-events-{MONTH}")
    body["mappings"]["properties"]["body"] = {"type": "integer"}
    opensearch.ask("PUT", f"/{prefix}-events-{MONTH}", body)
    events = [pay(body="words"), pay(body="7"), pay(body="more words")]
    store.append(Shipper().batch(*events))
    assert list(store.events(refs(0, 1, 2))) == texts(events)
    marked = search(opensearch, f"{prefix}-events-*", {"term": {"unindexed": True}})
    assert sorted(one["sequence"] for one in marked) == [0, 2]


def test_a_batch_larger_than_one_request(store: OpenSearchStore) -> None:
    events = [pay(f"T-{at}", body=f"{at} " + "x" * 40_000) for at in range(300)]
    batch = Shipper().batch(*events, found={"transaction": "r" * 15_000})
    assert len(batch.signed.facts) > 4 * 1024**2
    assert len(batch.events) > 8 * 1024**2
    store.append(batch)
    assert store.batch(STREAM, 1) == batch.signed
    assert list(store.events(refs(299, 0, 150))) == texts([events[at] for at in (299, 0, 150)])


def test_facts_that_are_no_json_come_back(store: OpenSearchStore) -> None:
    lines = [b"not json", b'{"digest":"00"} ']
    header = Shipper().batch(pay(), pay(), facts_root=facts_root(lines)).signed.header
    signed = sign_header(header, key_of(1), b"".join(line + b"\n" for line in lines))
    store.append(Batch(signed=signed, events=b"{}{}", lengths=[2, 2]))
    assert store.batch(STREAM, 1) == signed


def test_each_month_has_its_index_and_events_are_found_in_all(
    store: OpenSearchStore, opensearch: Cluster, prefix: str
) -> None:
    shipper = Shipper()
    for month in ("2025-12", "2026-01", "2026-02"):
        created = f"{month}-15T00:00:00.000000000Z"
        store.append(shipper.batch(pay(f"T-{month}"), created=created, place=store.place(created)))
    names = {f"{prefix}-{kind}-{month}" for kind in ("events", "facts") for month in ("2025.12", "2026.01", "2026.02")}
    assert names <= set(opensearch.ask("GET", f"/{prefix}-*/_settings"))
    again = [pay(f"T-{month}") for month in ("2026-02", "2025-12", "2026-01")]
    assert list(store.events(refs(2, 0, 1))) == texts(again)
    # a month that was let go of: its events are gone, and nothing else is
    opensearch.ask("DELETE", f"/{prefix}-events-2025.12,{prefix}-facts-2025.12")
    assert list(store.events(refs(1, 2))) == texts([again[2], again[0]])
    with pytest.raises(NotFound, match="event 0 "):
        store.events(refs(1, 0))
    with pytest.raises(VerificationError, match=r"batch 1 in the store: .* facts") as caught:
        store.batch(STREAM, 1)
    assert caught.value.label == "facts"
    assert store.batch(STREAM, 2) is not None


# -- nothing is changed


def test_the_server_refuses_to_change_anything(store: OpenSearchStore, opensearch: Cluster, prefix: str) -> None:
    store.append(Shipper().batch(pay("T-1")))
    documents = {
        f"{prefix}-events-{MONTH}": f"{STREAM}:0",
        f"{prefix}-batches": f"{STREAM}:1",
        f"{prefix}-streams": f"{STREAM}@{prefix}-events-{MONTH}",
    }
    for index, id_ in documents.items():
        path = f"/{index}/_doc/{id_.replace('/', '%2F')}"
        before = opensearch.ask("GET", path)
        assert "append" in refused(opensearch, "PUT", path, {"changed": 1})
        assert "append" in refused(opensearch, "DELETE", path)
        assert "append" in refused(opensearch, "POST", path.replace("_doc", "_update"), {"doc": {"changed": 1}})
        assert "version_conflict" in refused(opensearch, "PUT", path.replace("_doc", "_create"), {"changed": 1})
        assert opensearch.ask("GET", path) == before


def test_an_index_that_can_be_changed_is_not_ours(
    store: OpenSearchStore, opensearch: Cluster, opensearch_settings: StoreSettings, prefix: str
) -> None:
    opensearch.ask("PUT", f"/{prefix}-events-{MONTH}", {})
    with pytest.raises(StateUnknown, match="not append-only"):
        store.append(Shipper().batch(pay("T-1")))
    other = StoreSettings(urls=opensearch_settings.urls, prefix=f"{prefix}-other")
    opensearch.ask("PUT", f"/{prefix}-other-batches", {})
    with pytest.raises(StateUnknown, match="not append-only"):
        OpenSearchStore(other)


def test_a_month_that_is_dropped_under_a_collector_is_made_anew_as_it_must_be(
    store: OpenSearchStore, opensearch: Cluster, prefix: str
) -> None:
    shipper = Shipper()
    store.append(shipper.batch(pay("T-1")))
    opensearch.ask("DELETE", f"/{prefix}-events-{MONTH}")
    late = shipper.batch(pay("T-2"))
    store.append(late)
    (found,) = opensearch.ask("GET", f"/{prefix}-events-{MONTH}").values()
    assert found["settings"]["index"]["append_only"] == {"enabled": "true"}
    assert list(store.events(refs(1))) == events_of(late)
    with pytest.raises(NotFound, match="event 0 of stream"):
        store.events(refs(0))
    # dropped in the moment between the look and the bulk, which makes it by itself: the next batch says so
    opensearch.ask("DELETE", f"/{prefix}-events-{MONTH}")
    opensearch.ask("PUT", f"/{prefix}-events-{MONTH}")
    with pytest.raises(StateUnknown, match="not append-only"):
        store.append(shipper.batch(pay("T-3")))


def test_where_nothing_is_made_by_itself_a_dropped_index_is_made_at_the_next_try(
    store: OpenSearchStore, opensearch: Cluster, prefix: str
) -> None:
    shipper = Shipper()
    store.append(shipper.batch(pay("T-1")))
    auto = "action.auto_create_index"
    opensearch.ask("PUT", "/_cluster/settings", {"persistent": {auto: f"-{prefix}-*,+*"}})
    try:
        gone = Creation(index=f"{prefix}-events-2030.01", id="1", document=b"{}")
        connection = Connection(StoreSettings(urls=list(opensearch.urls)))
        with closing(connection), pytest.raises(Overloaded, match="made anew at the next try"):
            create(connection, [gone], copies=1)
        opensearch.ask("DELETE", f"/{prefix}-events-{MONTH},{prefix}-facts-{MONTH}")
        store.append(shipper.batch(pay("T-2")))
        assert len(store.events(refs(1))) == 1
    finally:
        opensearch.ask("PUT", "/_cluster/settings", {"persistent": {auto: None}})


def test_a_month_is_dropped_only_as_it_was_decided_upon(
    store: OpenSearchStore, opensearch: Cluster, opensearch_settings: StoreSettings, prefix: str
) -> None:
    shipper = Shipper()
    store.append(shipper.batch(pay("T-1"), pay("T-2")))
    store.append(shipper.batch(pay("T-3"), created="2026-02-01T00:00:00.000000000Z"))
    with closing(OpenSearchMonths(opensearch_settings)) as months:
        held = months.held()
        assert [(one.month, one.events, one.shut) for one in held] == [(MONTH, 2, False), ("2026.02", 1, False)]
        assert all(one.size_bytes > 0 for one in held)
        with pytest.raises(Conflict, match="has 2 events now, and 1 were to go"):
            months.drop(MONTH, (), 1)
        store.append(shipper.batch(pay("T-4")))  # it is open again
        # a run that died in between left it shut: who ships there is told to wait
        opensearch.ask("PUT", f"/{prefix}-events-{MONTH}/_block/write")
        assert [one.shut for one in months.held()] == [True, False]
        late = shipper.batch(pay("T-5"))
        with pytest.raises(Overloaded, match="lets nothing be written"):
            store.append(late)
        months.reopen(MONTH)
        store.append(late)
        months.compact(MONTH)
        months.drop(MONTH, (), 4)
        months.drop(MONTH, (), 4)  # gone is gone
        assert [one.month for one in months.held()] == ["2026.02"]
        with pytest.raises(NotFound):
            store.events(refs(0))
        assert len(store.events(refs(2))) == 1
        assert store.batch(STREAM, 1) is not None, "headers and facts stay"


def test_a_reader_makes_nothing(opensearch: Cluster, opensearch_settings: StoreSettings, prefix: str) -> None:
    with pytest.raises(NotFound, match="no event store"):
        OpenSearchStore(opensearch_settings, read_only=True)
    assert opensearch.ask("GET", f"/{prefix}-*/_settings") == {}
    with closing(OpenSearchStore(opensearch_settings)) as writer:
        writer.append(Shipper().batch(pay("T-1")))
    with closing(OpenSearchStore(opensearch_settings, read_only=True)) as reader:
        assert list(reader.events(refs(0))) == texts([pay("T-1")])


def test_a_store_whose_headers_are_gone_is_not_an_empty_one(
    store: OpenSearchStore, opensearch: Cluster, prefix: str
) -> None:
    store.append(Shipper().batch(pay("T-1")))
    opensearch.ask("DELETE", f"/{prefix}-batches")
    with pytest.raises(StateUnknown, match="is gone"):
        store.batch(STREAM, 1)
    with pytest.raises(StateUnknown, match="is gone"):
        store.batches_after({STREAM: 0}, 9)


# -- what an operator sees


def test_what_is_heard_from_the_cluster_is_on_the_metrics(
    opensearch: Cluster, opensearch_settings: StoreSettings, prefix: str
) -> None:
    registry = CollectorRegistry()
    watch = ClusterMetrics(registry, part="store")

    def told(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"tally_store_{name}", labels) or 0.0

    with closing(OpenSearchStore(opensearch_settings, watch=watch)) as store:
        shipper = Shipper()
        batch = shipper.batch(pay("T-1"), pay("T-2"))
        store.append(batch)
        created = told("documents_total", outcome="created")
        assert created == 5, "two events, their facts, the header, the stream"
        assert told("requests_total", operation="write", outcome="ok") == 3
        assert told("request_seconds_count", operation="write") == 3
        assert told("sent_bytes_total") > len(batch.events)
        assert told("received_bytes_total") > 0
        # what the mapping refuses, and what is no event at all
        opensearch.ask("PUT", f"/{prefix}-events-{MONTH}/_mapping", {"properties": {"odd": {"type": "long"}}})
        store.append(shipper.batch(pay("T-3"), pay("T-4", body="x" * 40_000)))
        assert told("unindexed_events_total") == 0
        line = b"no event\n"
        strange = shipper.batch(pay("T-5"))
        store.append(Batch(signed=strange.signed, events=line, lengths=[len(line)]))
        assert told("unindexed_events_total") == 1
        # a block is seen while it lasts, and only where it blocks
        opensearch.ask("PUT", f"/{prefix}-*/_settings", {"index.blocks.read_only_allow_delete": True})
        blocked = shipper.batch(pay("T-6"))
        with pytest.raises(Overloaded):
            store.append(blocked)
        assert store.batch(STREAM, 1) is not None
        assert told("trouble", operation="write", reason="blocked") == 1
        assert told("trouble", operation="read", reason="blocked") == 0
        assert told("documents_total", outcome="blocked") >= 1
        opensearch.ask("PUT", f"/{prefix}-*/_settings", {"index.blocks.read_only_allow_delete": None})
        store.append(blocked)
        assert told("trouble", operation="write", reason="blocked") == 0
        # red: no node may hold the only shard of the headers
        opensearch.ask("POST", f"/{prefix}-batches/_close")
        allocation = "index.routing.allocation.require._name"
        opensearch.ask("PUT", f"/{prefix}-batches/_settings", {allocation: "nobody"})
        opensearch.ask("POST", f"/{prefix}-batches/_open?wait_for_active_shards=0")
        with pytest.raises(Overloaded):
            store.batch(STREAM, 1)
        assert told("trouble", operation="read", reason="no_shard") == 1
        opensearch.ask("PUT", f"/{prefix}-batches/_settings", {allocation: None})
        opensearch.ask("GET", f"/_cluster/health/{prefix}-batches?wait_for_status=yellow&timeout=30s")
        assert store.batch(STREAM, 1) is not None
        assert told("trouble", operation="read", reason="no_shard") == 0


# -- crashes and clones


def test_a_sending_that_was_broken_off_shows_nothing_and_is_repeated(store: OpenSearchStore) -> None:
    shipper = Shipper()
    store.append(shipper.batch(pay("T-1")))
    batch = shipper.batch(pay("T-2"), ODD[3])
    # what a crash before the header leaves: the events, found by their id and in no batch
    store._create_events(batch, store.place(batch.signed.header.created), [])
    assert store.batch(STREAM, 2) is None
    with pytest.raises(NotFound, match=r"event 1 .* not whole"):
        store.events(refs(0, 1))
    store.append(batch)
    assert list(store.events(refs(0, 1, 2))) == texts([pay("T-1"), pay("T-2"), ODD[3]])


def test_events_that_a_clone_left_behind_are_a_conflict_not_ours(store: OpenSearchStore) -> None:
    shipper = Shipper()
    store.append(shipper.batch(pay("T-1")))
    theirs = shipper.clone().batch(pay("T-clone"))
    store._create_events(theirs, store.place(theirs.signed.header.created), [])
    with pytest.raises(Conflict, match="another event 1 of stream"):
        store.append(shipper.batch(pay("T-2")))
    assert store.batch(STREAM, 2) is None
    store.append(theirs)  # whoever was first goes on
    assert list(store.events(refs(1))) == texts([pay("T-clone")])


def test_many_streams_are_listed_in_order_of_arrival(
    store: OpenSearchStore, opensearch_settings: StoreSettings
) -> None:
    names = [StreamId(f"s{at}/0123456789abcdef") for at in (5, 3, 8, 1, 9, 2, 7)]
    with closing(OpenSearchStore(opensearch_settings)) as reader:
        reader._registry._page = 3
        for at, name in enumerate(names):
            assert list(reader.streams()) == names[:at]
            store.append(Shipper(name).batch(pay("T-1")))
        assert list(reader.streams()) == names
        # a stream whose number became visible behind a later one: found by counting
        reader._registry._known, reader._registry._last = 3, 4
        reader._registry._places = {name: ["x"] for name in names[:3]}
        assert list(reader.streams()) == names


# -- pressure


def test_a_read_only_block_is_told_and_passes(store: OpenSearchStore, opensearch: Cluster, prefix: str) -> None:
    shipper = Shipper()
    store.append(shipper.batch(pay("T-1")))
    batch = shipper.batch(pay("T-2"))
    settings = f"/{prefix}-events-{MONTH}/_settings"
    # what a server does itself when its disk is fuller than the flood-stage watermark
    opensearch.ask("PUT", settings, {"index.blocks.read_only_allow_delete": True})
    with pytest.raises(Overloaded, match=r"lets nothing be written: .*read-only") as told:
        store.append(batch)
    assert told.value.retry_after_seconds >= 5
    assert store.batch(STREAM, 2) is None
    assert list(store.events(refs(0))) == texts([pay("T-1")]), "reading goes on"
    opensearch.ask("PUT", settings, {"index.blocks.read_only_allow_delete": None})
    store.append(batch)
    assert list(store.events(refs(1))) == texts([pay("T-2")])


def test_that_no_index_may_be_made_is_told_as_a_block_and_not_as_a_matter_of_roles(
    store: OpenSearchStore, opensearch: Cluster, prefix: str
) -> None:
    batch = Shipper().batch(pay("T-1"), created="2031-05-01T00:00:00.000000000Z")
    # what a cluster does itself when all its disks are fuller than the high watermark
    opensearch.ask("PUT", "/_cluster/settings", {"persistent": {"cluster.blocks.create_index": True}})
    try:
        with pytest.raises(Overloaded, match=r"lets nothing be written: .*create-index blocked") as told:
            store.append(batch)
        assert "roles" not in str(told.value)
    finally:
        opensearch.ask("PUT", "/_cluster/settings", {"persistent": {"cluster.blocks.create_index": None}})
    store.append(batch)
    assert store.batch(STREAM, 1) == batch.signed


def test_a_server_with_too_much_to_do_is_told_and_passes() -> None:
    # so little room for what is being indexed that a batch of some size is turned away with 429
    with (
        Cluster(settings={"indexing_pressure.memory.limit": "64kb"}) as small,
        closing(OpenSearchStore(settings_of(small))) as store,
    ):
        shipper = Shipper()
        store.append(shipper.batch(pay("T-1")))
        large = shipper.batch(*(pay("T-2", body="x" * 2_000) for _ in range(50)))
        with pytest.raises(Overloaded, match="too much to do"):
            store.append(large)
        assert store.batch(STREAM, 2) is None
        assert store.batch(STREAM, 1) is not None


def settings_of(cluster: Cluster, **more: Any) -> StoreSettings:
    return StoreSettings(urls=list(cluster.urls), prefix=f"t-{secrets.token_hex(6)}", **more)


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


CALLS: list[Callable[[OpenSearchStore], object]] = [
    lambda store: store.append(Shipper(OTHER).batch(pay("T-9"))),
    lambda store: store.batch(STREAM, 1),
    lambda store: store.batches_after({STREAM: 0}, 3),
    lambda store: store.events(refs(0)),
    lambda store: store.streams(),
    lambda store: store.acknowledge({STREAM: 1}),
    lambda store: store.acknowledged(STREAM),
]


def test_a_server_that_hangs_is_overloaded_and_comes_back(own: Cluster) -> None:
    settings = settings_of(own, timeout_seconds=0.5)
    with closing(OpenSearchStore(msgspec.structs.replace(settings, timeout_seconds=60.0))) as patient:
        patient.append(Shipper().batch(pay("T-1")))
        with closing(OpenSearchStore(settings)) as store:
            assert list(store.events(refs(0))) == texts([pay("T-1")])
            own.nodes[0].pause()
            try:
                for call in CALLS:
                    with pytest.raises(Overloaded, match="did not answer in time"):
                        call(store)
            finally:
                own.nodes[0].resume()
        for call in CALLS:
            call(patient)
        assert list(patient.streams()) == [STREAM, OTHER]


def test_what_was_stored_outlives_the_server_s_sigkill(own: Cluster) -> None:
    settings = settings_of(own, timeout_seconds=60.0)
    with closing(OpenSearchStore(settings)) as store:
        shipper = Shipper()
        for at in range(20):
            store.append(shipper.batch(*(pay(f"T-{at}", body=f"{at} {n}") for n in range(10))))
        store.acknowledge({STREAM: 7})
        own.nodes[0].kill()
        for call in CALLS:
            with pytest.raises(Overloaded, match="cannot be reached"):
                call(store)
        own.nodes[0].start()
        own.wait()
        assert [one.header.number for one in store.batches_after({STREAM: 0}, 99)] == list(range(1, 21))
        expected = [pay(f"T-{at}", body=f"{at} {n}") for at in range(20) for n in range(10)]
        assert list(store.events(refs(*range(200)))) == texts(expected)
        assert store.acknowledged(STREAM) == 7
        store.append(shipper.batch(pay("T-last")))


def test_what_an_earlier_request_left_without_a_sync_is_durable_before_it_counts(own: Cluster) -> None:
    """The answer to a request never comes, and neither does its sync: sent again, its documents are there, and nothing is written that would sync them."""
    settings = settings_of(own, timeout_seconds=60.0)
    with closing(OpenSearchStore(settings)) as store:
        shipper = Shipper()
        store.append(shipper.batch(pay("T-1")))
        batch = shipper.batch(*(pay(f"T-{at}") for at in range(2, 9)))
        place = store.place(batch.signed.header.created)

        def durability(how: str) -> None:
            changed = {"index.translog.durability": how, "index.translog.sync_interval": "1h"}
            own.ask("PUT", f"/{place}/_settings", changed)

        durability("async")
        store._create_events(batch, place, [])
        durability("request")
        store.append(batch)
        own.nodes[0].kill()
        own.nodes[0].start()
        own.wait()
        assert list(store.events(refs(*range(8)))) == texts([pay(f"T-{at}") for at in range(1, 9)])
