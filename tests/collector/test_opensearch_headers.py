"""Reading headers from OpenSearch while collectors write: what is stored between two looks is not taken for a gap.

The cluster here is one in memory that does what our requests ask for, so that batches can be stored at any moment between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from collector.batch import Batch, StreamId
from collector.store.opensearch import documents
from collector.store.opensearch.connection import Connection
from collector.store.opensearch.headers import Headers, place_of
from collector.store.opensearch.layout import Layout
from collector.store.settings import StoreSettings
from tests.support.shipper import Shipper, pay

STREAM = StreamId("gateway/0123456789abcdef")
OTHER = StreamId("orders/0123456789abcdef")
LAYOUT = Layout(prefix="tally", shards=1, replicas=0)


class Cluster(Connection):
    """What was stored before a look is what it sees: each item of a multi-get, and each refresh, is a look of its own.

    `before_look` is called before each of them with its count, from 1 on.
    """

    def __init__(self) -> None:
        super().__init__(StoreSettings(urls=["http://127.0.0.1:9200"]))
        self.documents_there: dict[tuple[str, str], bytes] = {}
        self.visible: list[tuple[str, int]] = []
        self.looks = 0
        self.before_look: Callable[[int], None] | None = None

    def store(self, batch: Batch) -> None:
        header, facts = batch.signed.header, documents.facts_documents(batch.signed.facts)
        index = LAYOUT.facts(place_of(header, LAYOUT))
        for part, data in enumerate(facts):
            self.documents_there[index, documents.facts_id(header.stream, header.number, batch.signed.digest, part)] = (
                data
            )
        place = LAYOUT.batches, documents.header_id(header.stream, header.number)
        self.documents_there[place] = documents.header_document(batch.signed, len(facts))

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> bytes:
        whole = {"timed_out": False, "_shards": {"failed": 0}}
        if path == "/_mget":
            return msgspec.json.encode({"docs": [self._item(one["_index"], one["_id"]) for one in body["docs"]]})
        if path.endswith("/_refresh"):
            self._look()
            names = [id_.rpartition(":") for index, id_ in self.documents_there if index == LAYOUT.batches]
            self.visible = sorted((stream, int(number)) for stream, _, number in names)
            return msgspec.json.encode(whole)
        assert path == f"/{LAYOUT.batches}/_search", (method, path, more)
        clauses = [one["bool"]["filter"] for one in body["query"]["bool"]["should"]]
        firsts = [self._first(one[0]["term"]["stream"], one[1]["range"]["number"]["gt"]) for one in clauses]
        hits = [{"_source": {"stream": stream, "number": number}} for some in firsts for stream, number in some]
        return msgspec.json.encode({**whole, "hits": {"hits": hits}})

    def _look(self) -> None:
        self.looks += 1
        if self.before_look is not None:
            self.before_look(self.looks)

    def _item(self, index: str, id_: str) -> dict[str, Any]:
        self._look()
        found = self.documents_there.get((index, id_))
        return {"_index": index, "_id": id_, "found": found is not None, "_source": msgspec.Raw(found or b"null")}

    def _first(self, stream: str, behind: int) -> Sequence[tuple[str, int]]:
        return [one for one in self.visible if one[0] == stream and one[1] > behind][:1]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def headers(cluster: Cluster) -> Headers:
    return Headers(cluster, LAYOUT, clock=lambda: 0.0, look_beyond_seconds=0)


def numbers(headers: Headers, limit: int, **frontier: int) -> list[tuple[str, int]]:
    asked = {{"stream": STREAM, "other": OTHER}[name]: number for name, number in frontier.items()}
    return [(one.header.stream, one.header.number) for one in headers.after(asked, limit)]


@pytest.mark.parametrize("limit", [1, 2, 16])
@pytest.mark.parametrize("stored", [2, 3, 20])
def test_whenever_batches_are_stored_none_of_them_seems_to_be_missing(limit: int, stored: int) -> None:
    """Stored one after the other, all before one look: for every look there is."""
    look, looked = 0, False
    while not look or looked:
        look, looked = look + 1, False
        cluster = Cluster()
        mine, others = Shipper(STREAM), Shipper(OTHER)
        cluster.store(mine.batch(pay("p1")))
        cluster.store(others.batch(pay("p2")))

        def meanwhile(at: int, due: int = look, cluster: Cluster = cluster, mine: Shipper = mine) -> None:
            nonlocal looked
            if at == due:
                looked = True
                for _ in range(stored):
                    cluster.store(mine.batch(pay("p1")))

        cluster.before_look = meanwhile
        headers = Headers(cluster, LAYOUT, clock=lambda: 0.0, look_beyond_seconds=0)
        found = numbers(headers, limit, stream=1, other=1)
        assert found == [(STREAM, 2 + at) for at in range(len(found))], f"stored before look {look}"


@pytest.mark.parametrize("limit", [1, 2, 3, 16])
def test_a_batch_that_is_missing_is_passed(cluster: Cluster, headers: Headers, limit: int) -> None:
    mine = Shipper(STREAM)
    batches = [mine.batch(pay("p1", body=number)) for number in range(6)]
    for at in (0, 3, 5):  # batches 2, 3 and 5 are missing
        cluster.store(batches[at])
    seen, frontier = [], 1
    while found := numbers(headers, limit, stream=frontier):
        seen += [number for _, number in found]
        frontier = seen[-1]
    assert seen == [4, 6]


def test_a_stream_that_goes_on_behind_a_gap_tells_what_filled_it_meanwhile_first(
    cluster: Cluster, headers: Headers
) -> None:
    mine = Shipper(STREAM)
    batches = [mine.batch(pay("p1", body=number)) for number in range(5)]
    cluster.store(batches[0])
    cluster.store(batches[4])

    def late(look: int) -> None:
        if look == 2:  # the refresh
            cluster.store(batches[1])

    cluster.before_look = late
    assert numbers(headers, 1, stream=1) == [(STREAM, 2)]
    assert numbers(headers, 1, stream=2) == [(STREAM, 5)]
