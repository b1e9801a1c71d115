"""The _bulk endpoint over a real socket: what its answers say, what senders ask before, and two real clients, unmodified."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import elasticsearch
import elasticsearch.helpers
import httpx
import opensearchpy
import opensearchpy.helpers
import pytest

from collector.receive.body import BodyLimits
from collector.receive.credentials import Credentials
from collector.receive.elasticsearch import ElasticsearchReceiver
from collector.receive.http import HttpServer
from tests.support.memory_intake import MemoryIntake

ND = {"content-type": "application/x-ndjson"}
Story = Callable[[httpx.AsyncClient], Awaitable[None]]


class Setting:
    """A receiver, its intake and the reasons it counted."""

    def __init__(self, **options: Any) -> None:
        self.intake = MemoryIntake()
        self.reasons: list[str] = []
        self.receiver = ElasticsearchReceiver(
            self.intake, clock=lambda: 1_700_000_000_000_000_000, refused=self.reasons.append, **options
        )

    def run(self, story: Story) -> None:
        """Tell a story to a server on a port of its own."""

        async def told() -> None:
            server = HttpServer(self.receiver.app, port=0)
            port = await server.start()
            try:
                async with (
                    asyncio.timeout(30),
                    httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
                ):
                    await story(client)
            finally:
                await server.stop(1.0)

        asyncio.run(told())

    def client(self, story: Callable[[str], None]) -> None:
        """The same with a client that blocks, in a thread: it gets the server's URL."""

        async def told(client: httpx.AsyncClient) -> None:
            await asyncio.to_thread(story, str(client.base_url).rstrip("/"))

        self.run(told)


def body(*lines: Any) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def statuses(answer: httpx.Response) -> list[int]:
    return [details["status"] for item in answer.json()["items"] for details in item.values()]


def test_each_action_has_its_answer_in_order() -> None:
    at = Setting(max_document_bytes=200)

    async def story(client: httpx.AsyncClient) -> None:
        answer = await client.post(
            "/shop-logs/_bulk?refresh=false&pipeline=p&timeout=1m",
            content=body(
                {"index": {"_id": "a"}}, {"message": "one", "log": {"level": "error"}},
                {"create": {"_index": "other"}}, {"message": "two"},
                {"index": {}}, b"{broken",
                {"delete": {"_id": "a"}},
                {"update": {"_id": "a"}}, {"doc": {"message": "changed"}},
                {"index": {}}, {"message": "x" * 300},
                {"index": {}}, {"message": "three"},
            ),
            headers=ND,
        )  # fmt: skip
        assert answer.status_code == 200
        told = answer.json()
        assert told["errors"] is True
        assert [list(item) for item in told["items"]] == [
            ["index"], ["create"], ["index"], ["delete"], ["update"], ["index"], ["index"],
        ]  # fmt: skip
        assert statuses(answer) == [201, 201, 400, 400, 400, 400, 201]
        first = told["items"][0]["index"]
        assert (first["_index"], first["_id"], first["result"]) == ("shop-logs", "a", "created")
        assert "append" in told["items"][3]["delete"]["error"]["reason"]
        assert told["items"][2]["index"]["error"]["reason"] == "column 2: not JSON"

    at.run(story)
    assert [(event.body, event.origin.tag if event.origin else "") for event in at.intake.events] == [
        ("one", "shop-logs"), ("two", "other"), ("three", "shop-logs"),
    ]  # fmt: skip
    first = at.intake.events[0]
    assert (first.severity_number, first.attributes) == (17, {"_id": "a"})
    assert first.observed == "2023-11-14T22:13:20.000000000Z"
    assert [(error.label, raw[:8]) for raw, error, _ in at.intake.dead] == [
        ("bad_json", b"{broken"), ("too_large", b'{"messag'),
    ]  # fmt: skip
    assert at.reasons == ["append_only", "append_only"]


def test_what_normalising_refuses_has_its_own_error() -> None:
    at = Setting(part_documents=2)
    deep = b'{"a":' * 200 + b"1" + b"}" * 200

    async def story(client: httpx.AsyncClient) -> None:
        content = b"".join(body({"index": {}}, document) for document in (b"{}", deep, b"{}", b"{}", deep))
        answer = await client.post("/i/_bulk", content=content, headers=ND)
        assert statuses(answer) == [201, 400, 201, 201, 400]
        assert len(at.intake.dead) == 2

    at.run(story)


def test_of_many_that_cannot_be_read_each_has_its_answer_and_its_letter() -> None:
    at = Setting(part_documents=2)

    async def story(client: httpx.AsyncClient) -> None:
        content = b"".join(body({"index": {}}, b"{%d" % number) for number in range(5)) + body({"index": {}}, b"{}")
        answer = await client.post("/i/_bulk", content=content, headers=ND)
        assert statuses(answer) == [400] * 5 + [201]
        assert [raw for raw, _, _ in at.intake.dead] == [b"{%d" % number for number in range(5)]

    at.run(story)


def test_an_unchanged_document_with_an_id_is_a_resend_and_a_changed_one_is_another_event() -> None:
    at = Setting()

    async def story(client: httpx.AsyncClient) -> None:
        async def send(action: str, document: bytes, index: str = "i") -> None:
            answer = await client.post(f"/{index}/_bulk", content=body({action: {"_id": "1"}}, document), headers=ND)
            assert statuses(answer) == [201]

        await send("index", b'{"n":1,"m":2}')
        await send("index", b'{"m":2, "n":1}')
        assert len(at.intake.events) == 1
        await send("index", b'{"n":2}')
        await send("index", b'{"n":2}', index="j")
        assert [event.attributes["n"] for event in at.intake.events] == [1, 2, 2]
        await send("create", b'{"n":3}')
        await send("create", b'{"n":4}')  # "only if there is none": the id alone names it
        assert [event.attributes["n"] for event in at.intake.events] == [1, 2, 2, 3]

    at.run(story)


def test_a_document_without_an_id_is_named_by_its_place_in_a_file_or_not_at_all() -> None:
    at = Setting()

    async def story(client: httpx.AsyncClient) -> None:
        for document in ({"log": {"file": {"path": "/a"}, "offset": 5}, "message": "x"}, {"message": "y"}):
            for _ in range(2):
                await client.put("/_bulk", content=body({"create": {"_index": "i"}}, document), headers=ND)
        assert [event.body for event in at.intake.events] == ["x", "y", "y"]

    at.run(story)


def test_a_bad_document_sent_again_is_one_dead_letter() -> None:
    at = Setting()

    async def story(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            answer = await client.post("/i/_bulk/", content=body({"index": {}}, b"{broken"), headers=ND)
            assert statuses(answer) == [400]
        assert len(at.intake.dead) == 1

    at.run(story)


def test_the_filter_that_logstash_beats_and_fluent_bit_send() -> None:
    at = Setting()

    async def story(client: httpx.AsyncClient) -> None:
        content = body({"index": {}}, {}, {"index": {}}, b"{broken")
        answer = await client.post(
            "/i/_bulk?filter_path=errors,items.*.error,items.*.status", content=content, headers=ND
        )
        reason = {"type": "document_parsing_exception", "reason": "column 2: not JSON"}
        assert answer.json() == {
            "errors": True,
            "items": [{"index": {"status": 201}}, {"index": {"status": 400, "error": reason}}],
        }
        refused = await client.post("/i/_bulk?filter_path=" + "a" * 2_000, content=content, headers=ND)
        assert refused.status_code == 400
        assert len(at.intake.events) == 1  # nothing of the second request was taken

    at.run(story)


def test_answers_are_written_as_shippers_search_them() -> None:
    """Vector and Fluent Bit look for these very bytes before they parse anything."""
    at = Setting()

    async def story(client: httpx.AsyncClient) -> None:
        good = await client.post("/i/_bulk", content=body({"index": {}}, {}), headers=ND)
        assert good.text.startswith('{"took":0,"errors":false,"items":[{"index":{')
        bad = await client.post("/i/_bulk", content=body({"index": {}}, b"broken"), headers=ND)
        assert '"errors":true' in bad.text

    at.run(story)


def test_gzip_and_chunked_bodies() -> None:
    at = Setting(limits=BodyLimits(max_body_bytes=10_000, max_inflated_bytes=20_000))
    content = body({"index": {}}, {"message": "hello"})

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 5):
            yield content[start : start + 5]

    async def story(client: httpx.AsyncClient) -> None:
        zipped = {**ND, "content-encoding": "gzip"}
        assert (await client.post("/i/_bulk", content=gzip.compress(content), headers=zipped)).status_code == 200
        assert (await client.post("/i/_bulk", content=pieces(), headers=ND)).status_code == 200
        assert len(at.intake.events) == 2
        bomb = gzip.compress(b" " * 10**6)
        for data, headers, status in (
            (bomb, zipped, 413),
            (gzip.compress(content)[:-5], zipped, 400),
            (b"x" * 20_000, ND, 413),
            (content, {**ND, "content-encoding": "zstd"}, 415),
        ):
            answer = await client.post("/i/_bulk", content=data, headers=headers)
            assert (answer.status_code, answer.json()["status"]) == (status, status)

    at.run(story)
    assert at.reasons == ["too_large", "bad_gzip", "too_large", "bad_encoding"]
    assert len(at.intake.events) == 2


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b"", ND, 400, "empty"),
        (b'{"index":{}}\n{}\nno action\n{}\n', ND, 400, "bad_action"),
        (b'{"index":{}}\n{}\n' * 4, ND, 413, "too_many_items"),
        (b'{"index":{}}\n{}\n', {"content-type": "text/plain"}, 415, "media_type"),
        (b'{"index":{}}\n{}\n', {}, 415, "media_type"),
    ],
)
def test_a_request_that_cannot_be_taken_leaves_nothing(
    content: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    at = Setting(max_items=3)

    async def story(client: httpx.AsyncClient) -> None:
        answer = await client.post("/i/_bulk", content=content, headers=headers)
        assert answer.status_code == status
        assert answer.json()["error"]["reason"]

    at.run(story)
    assert (at.reasons, at.intake.events, at.intake.dead) == ([reason], [], [])


def test_overload_is_told_for_the_whole_request() -> None:
    at = Setting(part_documents=2)

    class ThirdPart(MemoryIntake):
        async def accept(self, *given: Any, **options: Any) -> Any:
            self.overloaded = int(len(self.events) == 4 and not self.groups[4:])
            self.groups.append(None)
            return await super().accept(*given, **options)

    async def story(client: httpx.AsyncClient) -> None:
        content = body(*[line for n in range(6) for line in ({"index": {"_id": str(n)}}, {"n": n})])
        at.intake.overloaded = 1
        answer = await client.post("/i/_bulk", content=content, headers=ND)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["error"]["type"] == "es_rejected_execution_exception"
        assert at.intake.events == []
        # when a later part is not taken, all comes again, and what has ids is recognised
        at.receiver._intake = taken = ThirdPart()
        assert (await client.post("/i/_bulk", content=content, headers=ND)).status_code == 429
        assert len(taken.events) == 4
        assert (await client.post("/i/_bulk", content=content, headers=ND)).status_code == 200
        assert [event.attributes["n"] for event in taken.events] == list(range(6))

    at.run(story)
    assert at.reasons == ["overloaded", "overloaded"]


def test_dead_letters_that_are_full_are_told_too() -> None:
    at = Setting()

    async def story(client: httpx.AsyncClient) -> None:
        at.intake.overloaded = 1
        answer = await client.post("/i/_bulk", content=body({"index": {}}, b"broken"), headers=ND)
        assert answer.status_code == 429

    at.run(story)


def test_credentials() -> None:
    at = Setting(credentials=Credentials("Basic shipper:s3cret\nApiKey id:key\nBearer token"))

    async def story(client: httpx.AsyncClient) -> None:
        assert (await client.get("/")).status_code == 401
        answer = await client.post("/i/_bulk", content=body({"index": {}}, {}), headers=ND)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="tallystick"')
        assert (await client.get("/", auth=("shipper", "wrong"))).status_code == 401
        assert (await client.get("/", auth=("shipper", "s3cret"))).status_code == 200
        key = base64.b64encode(b"id:key").decode()
        assert (await client.get("/", headers={"authorization": f"ApiKey {key}"})).status_code == 200
        assert (await client.head("/", headers={"authorization": "Bearer token"})).status_code == 200

    at.run(story)
    assert at.reasons == ["credentials"] * 3


PROBES = [
    ("GET", "/"),
    ("HEAD", "/"),
    ("GET", "/_license?human=false"),
    ("GET", "/_xpack"),
    ("GET", "/_cluster/health"),
    ("GET", "/_nodes/http"),
    ("GET", "/_nodes/_all/http?timeout=1s"),
    ("HEAD", "/_index_template/ecs-logstash"),
    ("PUT", "/_index_template/ecs-logstash"),
    ("GET", "/_template/logstash"),
    ("PUT", "/_template/logstash"),
    ("PUT", "/_component_template/ecs"),
    ("GET", "/_ilm/policy/filebeat"),
    ("PUT", "/_ilm/policy/filebeat"),
    ("GET", "/_data_stream/filebeat-9.1.0"),
    ("PUT", "/_data_stream/filebeat-9.1.0"),
    ("HEAD", "/_alias/logstash"),
    ("HEAD", "/logstash"),
    ("PUT", "/%3Clogstash-%7Bnow%2Fd%7D-000001%3E"),
]


@pytest.mark.parametrize("product", ["elasticsearch", "opensearch"])
def test_what_senders_ask_at_their_start_lets_them_go_on(product: Any) -> None:
    at = Setting(product=product)

    async def story(client: httpx.AsyncClient) -> None:
        for method, path in PROBES:
            answer = await client.request(method, path)
            assert answer.status_code == 200, (method, path)
            assert answer.headers.get("x-elastic-product") == ("Elasticsearch" if product == "elasticsearch" else None)
            assert method == "HEAD" or answer.json()
        root = (await client.get("/")).json()
        licence = (await client.get("/_license")).json()["license"]
        assert licence["status"] == "active"
        assert (root["version"].get("distribution") == "opensearch") is (product == "opensearch")
        assert (root["tagline"] == "You Know, for Search") is (product == "elasticsearch")
        (node,) = (await client.get("/_nodes/http")).json()["nodes"].values()
        assert f"http://{node['http']['publish_address']}" == str(client.base_url).rstrip("/")

    at.run(story)
    assert at.reasons == []


def test_the_version_can_be_chosen_and_health_tells_whether_events_are_taken() -> None:
    reasons: list[str] = []
    at = Setting(version="8.19.2", not_ready=lambda: reasons)

    async def story(client: httpx.AsyncClient) -> None:
        assert (await client.get("/")).json()["version"]["number"] == "8.19.2"
        assert (await client.get("/_cluster/health")).json()["status"] == "green"
        reasons.append("the spool cannot be written")
        answer = await client.get("/_cluster/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "red")

    at.run(story)


ELSEWHERE = [
    ("POST", "/i/_search", 404),
    ("GET", "/_cat/indices", 404),
    ("GET", "/i/_doc/1", 404),
    ("PUT", "/_ingest/pipeline/p", 404),
    ("GET", "/_bulk", 405),
    ("DELETE", "/i", 405),
    ("PUT", "/_settings", 404),
    ("GET", "/v1/events", 404),
]


def test_what_is_not_here_is_refused_in_words_and_counted() -> None:
    at = Setting()

    async def story(client: httpx.AsyncClient) -> None:
        for method, path, status in ELSEWHERE:
            answer = await client.request(method, path)
            assert answer.status_code == status, (method, path)
            assert answer.json()["status"] == status
            assert "/_bulk" in answer.json()["error"]["reason"]
            assert answer.headers["x-elastic-product"] == "Elasticsearch"

    at.run(story)
    assert at.reasons == ["unknown_request"] * len(ELSEWHERE)


def actions(count: int, **details: Any) -> list[dict[str, Any]]:
    return [
        {"_index": "shop", "_id": str(n), **details, "_source": {"n": n, "message": f"event {n}"}} for n in range(count)
    ]


def test_opensearch_py_unmodified() -> None:
    at = Setting(product="opensearch")

    def story(url: str) -> None:
        with opensearchpy.OpenSearch(url, http_compress=True) as client:
            assert client.ping()
            assert client.info()["version"]["distribution"] == "opensearch"
            assert opensearchpy.helpers.bulk(client, actions(1_200), chunk_size=500) == (1_200, [])
            assert opensearchpy.helpers.bulk(client, actions(1_200), chunk_size=500) == (1_200, [])
            told = list(opensearchpy.helpers.streaming_bulk(client, actions(3, _op_type="create")))
            assert [ok for ok, _ in told] == [True] * 3
            done, errors = opensearchpy.helpers.bulk(
                client, [{"_op_type": "delete", "_index": "shop", "_id": "1"}, *actions(1)], raise_on_error=False
            )
            assert (done, [error["delete"]["status"] for error in errors]) == (1, [400])

    at.client(story)
    assert sorted(event.attributes["n"] for event in at.intake.events) == sorted([*range(1_200), *range(3)])


def test_elasticsearch_py_unmodified_with_its_product_check_and_sniffing() -> None:
    at = Setting()

    def story(url: str) -> None:
        with elasticsearch.Elasticsearch(url, http_compress=True, sniff_on_start=True) as client:
            assert client.info()["tagline"] == "You Know, for Search"
            assert elasticsearch.helpers.bulk(client, actions(700)) == (700, [])
            at.intake.overloaded = 1
            again = elasticsearch.helpers.streaming_bulk(
                client, actions(2, _index="again"), max_retries=2, initial_backoff=0.01
            )
            assert [ok for ok, _ in again] == [True, True]

    at.client(story)
    assert len(at.intake.events) == 702
    assert at.reasons == ["overloaded"]


def test_elasticsearch_py_with_an_api_key() -> None:
    at = Setting(credentials=Credentials("ApiKey id:key"))

    def story(url: str) -> None:
        with elasticsearch.Elasticsearch(url, api_key=("id", "key")) as client:
            assert elasticsearch.helpers.bulk(client, actions(3)) == (3, [])
        with elasticsearch.Elasticsearch(url) as stranger, pytest.raises(elasticsearch.AuthenticationException):
            stranger.info()

    at.client(story)
    assert at.reasons == ["credentials"]


def test_elasticsearch_py_refuses_to_talk_to_what_says_that_it_is_opensearch() -> None:
    def story(url: str) -> None:
        with elasticsearch.Elasticsearch(url) as client, pytest.raises(elasticsearch.UnsupportedProductError):
            client.info()

    Setting(product="opensearch").client(story)
