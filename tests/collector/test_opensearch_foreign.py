"""What stands in the cluster and is none of ours: an error that its caller acts on, whatever it is.

The cluster here is a server in memory that answers over HTTP, so that what the transport makes of it is seen, too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from collector.batch import StreamId
from collector.errors import Conflict, Overloaded
from collector.store.opensearch import documents
from collector.store.opensearch.connection import Connection
from collector.store.opensearch.layout import Layout
from collector.store.opensearch.store import OpenSearchStore
from collector.store.settings import StoreSettings
from tests.support.shipper import Shipper, pay

STREAM = StreamId("gateway/0123456789abcdef")
LAYOUT = Layout(prefix="tally", shards=1, replicas=0)

FOREIGN = {
    "another's": b'{"stream":"x"}',
    "of other types": b'{"stream":1,"sequence":"x","number":"7"}',
    "a surrogate": b'{"stream":"\xed\xa0\x80","number":"\xed\xa0\x80"}',
    "nested": b'{"number":' + b"[" * 900 + b"]" * 900 + b"}",
}


class Server(ThreadingHTTPServer):
    """Gives documents by id, and takes those whose id is free."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.there: dict[tuple[str, str], bytes] = {}

    @property
    def settings(self) -> StoreSettings:
        return StoreSettings(urls=[f"http://127.0.0.1:{self.server_port}"])

    def answer(self, path: str, body: bytes) -> Any:
        if "/_settings/" in path:
            ours = {"settings": {"index.append_only.enabled": "true"}}
            return dict.fromkeys(path.split("/")[1].replace("%2C", ",").split(","), ours)
        if path.startswith("/_mget"):
            return {"docs": [self._item(one["_index"], one["_id"]) for one in msgspec.json.decode(body)["docs"]]}
        if path.startswith("/_bulk"):
            lines = body.splitlines()
            actions = [msgspec.json.decode(line)["create"] for line in lines[::2]]
            return {"items": [{"create": self._create(*one)} for one in zip(actions, lines[1::2], strict=True)]}
        assert "/_flush" in path, path
        return {"_shards": {"failed": 0}}

    def _item(self, index: str, id_: str) -> dict[str, Any]:
        found = self.there.get((index, id_))
        return {"_index": index, "_id": id_, "found": found is not None, "_source": msgspec.Raw(found or b"null")}

    def _create(self, action: dict[str, str], document: bytes) -> dict[str, int]:
        taken = (action["_index"], action["_id"]) in self.there
        self.there.setdefault((action["_index"], action["_id"]), document)
        return {"status": 409 if taken else 201}


class Handler(BaseHTTPRequestHandler):
    """Of `Server`."""

    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = msgspec.json.encode(self.server.answer(self.path, body))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def cluster() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def store(cluster: Server) -> Iterator[OpenSearchStore]:
    with closing(OpenSearchStore(cluster.settings)) as made:
        yield made


def test_what_is_ours_is_stored_and_found(store: OpenSearchStore, cluster: Server) -> None:
    batch = Shipper(STREAM).batch(pay("p1"))
    store.append(batch)
    store.append(batch)
    found = store.batch(STREAM, 1)
    assert found is not None
    assert found.data == batch.signed.data
    assert store.acknowledged(STREAM) == 0
    cluster.there[LAYOUT.acknowledged, STREAM] = b'{"number":7}'
    assert store.acknowledged(STREAM) == 7


@pytest.mark.parametrize("name", FOREIGN)
def test_a_document_comes_with_the_bytes_that_are_stored(cluster: Server, name: str) -> None:
    cluster.there["some", "one"] = FOREIGN[name]
    with closing(Connection(cluster.settings)) as connection:
        (found,) = connection.documents([("some", "one")])
    assert bytes(found.source) == FOREIGN[name]


@pytest.mark.parametrize("name", FOREIGN)
def test_what_stands_where_a_batch_or_an_event_is_to_stand_is_a_fork(
    store: OpenSearchStore, cluster: Server, name: str
) -> None:
    # the collector takes its events over then, and goes on
    cluster.there[LAYOUT.batches, documents.header_id(STREAM, 1)] = FOREIGN[name]
    with pytest.raises(Conflict, match=f"stream {STREAM}, batch 1 in the store: "):
        store.append(Shipper(STREAM).batch(pay("p1")))
    del cluster.there[LAYOUT.batches, documents.header_id(STREAM, 1)]
    batch = Shipper(STREAM).batch(pay("p1"))
    place = LAYOUT.place(batch.signed.header.created)
    cluster.there[place, documents.event_id(STREAM, 0)] = FOREIGN[name]
    with pytest.raises(Conflict, match=f"event 0 of stream {STREAM} in the store: "):
        store.append(batch)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_word_of_the_log_that_is_none_is_no_answer(store: OpenSearchStore, cluster: Server, name: str) -> None:
    cluster.there[LAYOUT.acknowledged, STREAM] = FOREIGN[name]
    cluster.there[LAYOUT.acknowledged, f"{STREAM} 1/2"] = FOREIGN[name]
    with pytest.raises(Overloaded, match=f"the document {STREAM} of {LAYOUT.acknowledged} is not of our making"):
        store.acknowledged(STREAM)
    with pytest.raises(Overloaded, match=r"1/2 of .* is not of our making"):
        store._least([STREAM], 2)
