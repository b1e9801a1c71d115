"""What is heard from a cluster becomes metrics: each answer one word of a closed set, the newest trouble seen while it lasts."""

from __future__ import annotations

import socket
import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collector.batch import BatchHeader
from collector.errors import Overloaded
from collector.event import Event, encode_event
from collector.store.metrics import OPERATIONS, OUTCOMES, ClusterMetrics
from collector.store.opensearch.connection import Connection
from collector.store.opensearch.documents import event_document, is_unindexed, raw_event_document
from collector.store.opensearch.hearing import operation_of, word_for
from collector.store.settings import StoreSettings
from tests.support.shipper import Shipper, pay


class Watched:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = ClusterMetrics(self.registry, part="store")

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"tally_store_{name}", labels) or 0.0

    def troubles(self) -> set[tuple[str, str]]:
        (family,) = [one for one in self.registry.collect() if one.name == "tally_store_trouble"]
        return {(one.labels["operation"], one.labels["reason"]) for one in family.samples if one.value}


@given(status=st.integers(min_value=300, max_value=599), kind=st.text())
def test_every_answer_has_one_of_the_words(status: int, kind: str) -> None:
    assert word_for(status, kind) in OUTCOMES


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (403, "cluster_block_exception", "blocked"),
        (429, "cluster_block_exception", "blocked"),
        (503, "cluster_block_exception", "no_manager"),
        (503, "cluster_manager_not_discovered_exception", "no_manager"),
        (503, "unavailable_shards_exception", "no_shard"),
        (503, "search_phase_execution_exception", "no_shard"),
        (400, "search_phase_execution_exception", "refused"),
        (500, "", "unavailable"),
        (429, "rejected_execution_exception", "too_much"),
        (401, "", "denied"),
        (403, "security_exception", "denied"),
        (404, "index_not_found_exception", "not_found"),
        (400, "mapper_parsing_exception", "refused"),
    ],
)
def test_which_word_an_answer_has(status: int, kind: str, word: str) -> None:
    assert word_for(status, kind) == word


def test_what_a_request_does() -> None:
    asked = {
        ("POST", "/_bulk?timeout=1s"): "write",
        ("POST", "/tally-trails/_bulk"): "write",
        ("POST", "/_mget?realtime=true"): "read",
        ("POST", "/tally-streams/_search"): "read",
        ("PUT", "/tally-streams"): "other",
        ("GET", "/tally-streams/_settings/index.append_only.enabled"): "other",
        ("POST", "/tally-batches/_refresh"): "other",
    }
    assert {operation_of(*one) for one in asked} <= set(OPERATIONS)
    assert {one: operation_of(*one) for one in asked} == asked


def test_a_node_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        urls = [f"http://127.0.0.1:{free.getsockname()[1]}"] * 2
    watched = Watched()
    connection = Connection(StoreSettings(urls=urls), watch=watched.metrics)
    with closing(connection), pytest.raises(Overloaded, match="cannot be reached"):
        connection.ask("POST", "/_mget", {"docs": []})
    assert watched.value("requests_total", operation="read", outcome="unreachable") == 1
    assert watched.value("node_failures_total") == 2
    assert watched.value("request_seconds_count", operation="read") == 1
    assert watched.troubles() == {("read", "unreachable")}


def answering(*answers: bytes) -> tuple[str, threading.Thread]:
    """A server that gives these answers, each on a connection of its own."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening:
            for answer in answers:
                with listening.accept()[0] as one:
                    one.settimeout(10)
                    while not one.recv(65_536).endswith(b"\n"):
                        pass
                    one.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}", thread


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


def test_a_trouble_is_seen_until_the_same_operation_succeeds() -> None:
    blocked = b'{"error":{"type":"cluster_block_exception","reason":"disk"},"status":403}'
    url, thread = answering(http("403 Forbidden", blocked), http("200 OK", b"{}"), http("200 OK", b"<p>", "text/html"))
    watched = Watched()
    with closing(Connection(StoreSettings(urls=[url], timeout_seconds=10.0), watch=watched.metrics)) as connection:
        with pytest.raises(Overloaded, match="lets nothing be written"):
            connection.ask("POST", "/_bulk", b"{}\n")
        assert watched.troubles() == {("write", "blocked")}
        assert connection.ask("POST", "/_mget", b"{}\n") == b"{}"
        assert watched.troubles() == {("write", "blocked")}, "that reading goes well says nothing of writing"
        watched.metrics.wrote({"created": 2, "taken": 1})
        assert watched.troubles() == set()
        watched.metrics.wrote({"created": 1, "too_much": 2})
        assert watched.troubles() == {("write", "too_much")}
        with pytest.raises(Overloaded, match="does not answer as OpenSearch does"):
            connection.ask("POST", "/_mget", b"{}\n")
    thread.join()
    assert watched.value("documents_total", outcome="created") == 3
    assert watched.value("requests_total", operation="read", outcome="unreadable") == 1
    assert watched.value("sent_bytes_total") == 9
    assert watched.value("received_bytes_total") == 2


@given(data=st.binary(max_size=60) | st.sampled_from([b'"}', b'{"body":"}"}', b'{"raw":"x"}', b"{}"]))
def test_a_document_shows_whether_it_can_be_searched(data: bytes) -> None:
    header: BatchHeader = Shipper().batch(pay("T-1")).signed.header
    raw = raw_event_document(data, 0, header, 'a "reason"}')
    assert is_unindexed(raw)
    document = event_document(data, 0, header)
    assert is_unindexed(document) == (b'"unindexed":true' in document)


def test_an_event_s_document_can_be_searched() -> None:
    header = Shipper().batch(pay("T-1")).signed.header
    for event in (Event(body='x"}'), pay("T-1", body={"a": '"}'})):
        assert not is_unindexed(event_document(encode_event(event, exact=True)[0], 0, header))
