"""The API over a ledger of three shards, made by the real parts: each answer is from the right log, and what it proves holds."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.cut_schemas import CUT_SCHEMAS
from audit_api.parameters import decode_bounds, encode_bounds
from collector.store.sqlite import SqliteStore
from correlator.checkpoint import open_checkpoint
from correlator.index import sqlite
from correlator.index.sqlite import SqliteIndex
from correlator.merkle import leaf_hash, verify_consistency, verify_inclusion
from correlator.shards import key_of_log
from correlator.statement import Statement, open_statement
from correlator.unbundle import parse_members, unpack_bundle
from correlator.verify import verify_bundle, verify_proof
from deploy.api import open_logs
from tests.audit_api.test_openapi import mismatches, requests_of
from tests.support.apis import Api, open_cut_api
from tests.support.cut_ledger import CutLedger
from tests.support.whole_ledger import payment_events, trace_of

pytestmark = pytest.mark.anyio

PAYMENTS = 12


class Row(msgspec.Struct):
    """A row of an answer with its entry left as bytes."""

    leaf: int
    entry: msgspec.Raw
    proof: list[str]


class Answer(msgspec.Struct):
    entries: list[Row]
    checkpoint: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CutLedger:
    ledger = CutLedger(tmp_path_factory.mktemp("cut-api"))
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(PAYMENTS)))
    ledger.record(["transaction/p1"] * 3)
    ledger.take_in()
    return ledger


@pytest.fixture
async def api(made: CutLedger, tmp_path: Path) -> AsyncIterator[Api]:
    """Over a ledger that no test writes to."""
    async with open_cut_api(tmp_path, made) as opened:
        yield opened


async def told(api: Api, path: str, role: str | None = "auditor") -> Any:
    answer = await api.get(path, role)
    assert answer.status_code == 200, answer.text
    return answer.json()


def crossing(ledger: CutLedger) -> int:
    """A payment whose trace is in another shard."""
    return next(
        number
        for number in range(PAYMENTS)
        if ledger.shard_of(f"transaction/p{number}") != ledger.shard_of(f"trace/{trace_of(number)}")
    )


def origin_of(ledger: CutLedger, trail: str) -> str:
    return ledger.shards[ledger.shard_of(trail) - 1].origin(ledger.key.name)


async def statement(api: Api, ledger: CutLedger) -> Statement:
    answer = await api.get("/log/head", None)
    assert answer.status_code == 200, answer.text
    return open_statement(answer.content, ledger.key)


# -- find


async def pages(api: Api, query: str) -> AsyncIterator[dict[str, Any]]:
    cursor = ""
    while True:
        page = await told(api, f"/v1/trails?{query}{cursor}")
        yield page
        if page["next"] is None:
            return
        cursor = f"&cursor={page['next']}"


@pytest.mark.parametrize("limit", [1, 5, 200])
async def test_a_search_tells_each_trail_of_all_logs_once(api: Api, made: CutLedger, limit: int) -> None:
    found: list[dict[str, Any]] = []
    async for page in pages(api, f"limit={limit}"):
        assert len(page["trails"]) <= limit
        assert page["size"] == sum(made.size(shard) for shard in made.shards)
        found += page["trails"]
    names = [one["trail"] for one in found]
    expected = {entry.trail for shard in made.shards for entry in made.entries(shard)}
    assert sorted(names) == sorted(expected)
    assert all(one["log"] == origin_of(made, one["trail"]) for one in found), (
        "streams are told by their own shard alone"
    )
    recorded = []
    for one in found:
        shard = made.shards[made.shard_of(one["trail"]) - 1]
        recorded.append(made.entries(shard)[one["first_leaf"]].recorded)
    assert recorded == sorted(recorded, reverse=True), "newest first over all logs"


@pytest.mark.parametrize("looks", [1, 3, 10])
async def test_a_search_that_looks_at_many_trails_lets_others_go_first_and_keeps_its_order(
    api: Api, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    def names(page: dict[str, Any]) -> list[str]:
        return [one["trail"] for one in page["trails"]]

    query = "filter=not kind=key and not transaction in (p1,p2)&limit=5"
    whole = [name async for page in pages(api, query) for name in names(page)]
    never = "filter=not event!=nothing"
    assert [names(page) async for page in pages(api, never)] == [[]]
    monkeypatch.setattr(sqlite, "_LOOKS", looks)
    monkeypatch.setattr(sqlite, "_LOOKS_A_TURN", 1)
    assert [name async for page in pages(api, query) for name in names(page)] == whole
    steps = [names(page) async for page in pages(api, never)]
    assert len(steps) > 1
    assert not any(steps)


async def test_conditions_hold_in_every_log(api: Api) -> None:
    payments = {f"transaction/p{number}" for number in range(PAYMENTS)}
    for query, expected in (
        ("kind=transaction", payments),
        ("transaction=p3", {"transaction/p3"}),
        ("transaction=nobody", set()),
        ("key=order_id:o1&kind=transaction", {"transaction/p2", "transaction/p3"}),
        ("amount=EUR:4..5&kind=transaction", {"transaction/p4"}),
        ("kind=transaction&service=nobody", set()),
        ("kind=transaction&text=gateway%20paid%20p7", {"transaction/p7"}),
        ("filter=kind%3Dtransaction%20and%20not%20amount.EUR%3E2.5", {f"transaction/p{number}" for number in range(3)}),
        ("filter=transaction%3Dp3%20or%20transaction%20in%20(p1,nobody)", {"transaction/p1", "transaction/p3"}),
    ):
        page = await told(api, f"/v1/trails?{query}&limit=200")
        assert {one["trail"] for one in page["trails"]} == expected, query
        assert page["next"] is None


async def test_pages_hold_while_entries_are_appended_between_them(tmp_path: Path) -> None:
    ledger = CutLedger(tmp_path)
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(8)))
    ledger.take_in()
    then = {entry.trail for shard in ledger.shards for entry in ledger.entries(shard)}
    found: list[str] = []
    async with open_cut_api(tmp_path, ledger) as api:
        sizes = set()
        async for page in pages(api, "limit=7"):
            found += [one["trail"] for one in page["trails"]]
            sizes.add(page["size"])
            if len(found) <= 21:  # new trails, and more entries of old ones
                new = len(found) // 7
                ledger.collect("payments", payment_events("payments", [new, 100 + new]))
                ledger.take_in()
        now = {one["trail"] for one in (await told(api, "/v1/trails?limit=200"))["trails"]}
    assert len(found) == len(set(found)), "each trail once"
    assert set(found) == then, "all that were there, and none that came later"
    assert len(sizes) == 1
    assert {f"transaction/p{100 + new}" for new in (1, 2, 3)} <= now, "and later ones are found by a new search"


@given(st.integers(0, 1 << 53), st.lists(st.integers(0, 1 << 53), min_size=2, max_size=64))
def test_a_cursor_over_logs_goes_through_text(size: int, bounds: list[int]) -> None:
    text = encode_bounds(size, bounds)
    assert decode_bounds(len(bounds))(text) == (size, tuple(bounds))
    assert len(text) <= 1_000, "it fits into a parameter"
    with pytest.raises(ValueError, match="not a cursor"):
        decode_bounds(len(bounds) - 1)(text)


@given(st.one_of(st.text(), st.from_regex(r"2(\.[0-9a-f]{0,15}){2,5}", fullmatch=True)))
def test_what_is_no_cursor_over_logs_is_refused(text: str) -> None:
    try:
        size, bounds = decode_bounds(3)(text)
    except ValueError:
        return
    assert encode_bounds(size, bounds) == text


async def test_a_made_up_cursor_finds_what_it_may(api: Api) -> None:
    assert (await api.get("/v1/trails?cursor=MS4zNS4xNA")).status_code == 400, "of a ledger that is not cut"
    assert (await told(api, "/v1/trails?cursor=2.5.0.0.0"))["trails"] == []
    far = encode_bounds(1 << 50, [1 << 50] * 3)
    assert len((await told(api, f"/v1/trails?limit=200&cursor={far}"))["trails"]) > PAYMENTS


# -- one trail


async def test_a_trail_is_proved_by_its_shards_log(api: Api, made: CutLedger) -> None:
    joint = await statement(api, made)
    logs = set()
    for number in range(PAYMENTS):
        answer = await api.get(f"/v1/trails/transaction/p{number}?proofs=true")
        trail = msgspec.json.decode(answer.content, type=Answer)
        origin = origin_of(made, f"transaction/p{number}")
        assert trail.checkpoint["origin"] == origin
        tree = open_checkpoint(trail.checkpoint["note"].encode(), key_of_log(made.key, origin))
        joint.check_covers(tree)
        logs.add(origin)
        assert trail.entries
        for row in trail.entries:
            path = [base64.b64decode(part) for part in row.proof]
            verify_inclusion(leaf_hash(bytes(row.entry)), row.leaf, tree.size, path, tree.root)
    assert len(logs) == len(made.shards)


async def test_a_story_names_what_is_in_other_logs(api: Api, made: CutLedger) -> None:
    number = crossing(made)
    story = (await told(api, f"/v1/trails/transaction/p{number}"))["story"]
    trace = f"trace/{trace_of(number)}"
    assert (trace in story["traces"], trace in story["elsewhere"]) == (True, True)
    assert f"key/order_id/o{number // 2}" in [one["trail"] for one in story["related"]]
    beyond = await told(api, f"/v1/trails/{trace}")
    assert "looked up" in {row["event"]["event_name"] for row in beyond["entries"] if row["event"]}
    assert beyond["checkpoint"]["origin"] == origin_of(made, trace)
    near = next(
        other
        for other in range(PAYMENTS)
        if made.shard_of(f"transaction/p{other}") == made.shard_of(f"trace/{trace_of(other)}")
    )
    assert (await told(api, f"/v1/trails/transaction/p{near}"))["story"]["elsewhere"] == []
    missing = await api.get("/v1/trails/transaction/nobody")
    assert missing.status_code == 404


async def test_a_trace_whose_log_is_behind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = CutLedger(tmp_path)
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(2)))
    ledger.take_in()
    number = next(
        number
        for number in range(2, 60)
        if ledger.shard_of(f"transaction/p{number}") == 1 and ledger.shard_of(f"trace/{trace_of(number)}") == 3
    )
    ledger.collect("payments", payment_events("payments", [number]))
    shards = ledger.shards
    with monkeypatch.context() as patch:
        patch.setattr("deploy.importing.shards_of", lambda _: shards[:1])
        ledger.take_in()
    async with open_cut_api(tmp_path, ledger) as api:
        story = (await told(api, f"/v1/trails/transaction/p{number}"))["story"]
        assert story["elsewhere"] == [f"trace/{trace_of(number)}"]
        assert (await api.get(f"/v1/trails/trace/{trace_of(number)}")).status_code == 404
        assert (await api.get(f"/v1/exports/transaction/p{number}")).status_code == 200


async def test_shards_that_have_published_nothing_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = CutLedger(tmp_path)
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(PAYMENTS)))
    first, *others = ledger.shards
    with monkeypatch.context() as patch:
        patch.setattr("deploy.importing.shards_of", lambda _: (first,))
        ledger.take_in()
    with ExitStack() as open_files:
        assert open_logs(ledger.config, ledger.places, open_files) is None, "the API waits for every index"
    for shard in others:
        SqliteIndex(ledger.places.of_shard(shard.name).index).close()
    async with open_cut_api(tmp_path, ledger) as api:
        for number in range(PAYMENTS):
            there = ledger.shard_of(f"transaction/p{number}") == 1
            for path in ("trails", "exports"):
                answer = await api.get(f"/v1/{path}/transaction/p{number}")
                assert answer.status_code == (200 if there else 404), answer.text
        names = [one["trail"] for one in (await told(api, "/v1/trails?kind=transaction"))["trails"]]
        assert sorted(names) == sorted(
            f"transaction/p{number}" for number in range(PAYMENTS) if ledger.shard_of(f"transaction/p{number}") == 1
        )
        assert [one["origin"] for one in (await told(api, "/v1/checkpoint"))["checkpoints"]] == [
            first.origin(ledger.key.name)
        ]
        status = await told(api, "/v1/status")
        assert list(mismatches(status, CUT_SCHEMAS["Status"], schemas=CUT_SCHEMAS)) == []
        assert [one["checkpoint"] is None for one in status["logs"]] == [False, True, True]
        codes = set()
        with closing(SqliteStore(ledger.places.store, read_only=True)) as store:
            (stream,) = store.streams()
        for sequence in range(3 * PAYMENTS):
            answer = await api.get(f"/v1/events/{stream}/{sequence}/proof")
            codes.add(answer.status_code)
            assert answer.status_code == 200 or answer.json()["type"].endswith(":not-logged-yet"), answer.text
        assert codes == {200, 404}


async def test_who_read_a_trail_is_told_from_other_logs(api: Api, made: CutLedger) -> None:
    accesses = (await told(api, "/v1/trails/transaction/p1"))["accesses"]
    assert (accesses["complete"], len(accesses["entries"])) == (True, 3)
    principal = accesses["entries"][0]["principal"]
    page = await told(api, "/v1/trails?kind=access")
    (home,) = [one for one in page["trails"] if one["trail"].endswith(principal)]
    assert {one["log"] for one in accesses["entries"]} == {home["log"]}
    rows = (await told(api, f"/v1/trails/{home['trail']}"))["entries"]
    assert {one["leaf"] for one in accesses["entries"]} <= {row["leaf"] for row in rows}


async def test_reading_is_on_record_with_its_trail(api: Api) -> None:
    answer = await told(api, "/v1/trails/transaction/p2")
    (event,) = api.record.events
    assert event.access is not None
    assert (event.access.trail, event.access.head) == ("transaction/p2", answer["entries"][-1]["leaf"])


# -- proofs and bundles


async def test_each_event_is_proved_wherever_it_is(api: Api, made: CutLedger) -> None:
    joint = await statement(api, made)
    events = [(shard, entry) for shard in made.shards for entry in made.entries(shard) if entry.kind == "event"]
    assert len(events) == 3 * PAYMENTS + 3
    for shard, entry in events:
        url = f"/v1/events/{entry.stream}/{entry.sequence}/proof"
        proof = await told(api, url)
        assert (proof["trail"], proof["checkpoint"]["origin"]) == (entry.trail, shard.origin(made.key.name))
        text = (await api.get(url, Accept="text/plain")).content
        report = verify_proof(text, made.key)
        assert (report.checkpoint.origin, report.leaf) == (shard.origin(made.key.name), proof["leaf"])
        joint.check_covers(report.checkpoint)
    unknown = await api.get("/v1/events/gateway/00000000000000ff/0/proof")
    assert unknown.status_code == 404


async def test_a_bundle_verifies_with_the_ledgers_key(api: Api, made: CutLedger) -> None:
    joint = await statement(api, made)
    for number in range(PAYMENTS):
        answer = await api.get(f"/v1/exports/transaction/p{number}")
        assert answer.status_code == 200, answer.text
        report = verify_bundle(answer.content, made.key)
        assert report.checkpoint.origin == origin_of(made, f"transaction/p{number}")
        joint.check_covers(report.checkpoint)
        near = made.shard_of(f"transaction/p{number}") == made.shard_of(f"trace/{trace_of(number)}")
        assert answer.headers["Tally-Traces-Elsewhere"] == str(int(not near))
        trails = [part.trail for part in parse_members(unpack_bundle(answer.content)).trails]
        assert trails == [f"transaction/p{number}", *([f"trace/{trace_of(number)}"] if near else [])]
        trace = await api.get(f"/v1/exports/trace/{trace_of(number)}")
        assert verify_bundle(trace.content, made.key).checkpoint.origin == origin_of(made, f"trace/{trace_of(number)}")


async def test_the_checkpoints_are_those_of_the_statement(api: Api, made: CutLedger) -> None:
    both = await told(api, "/v1/checkpoint", None)
    assert both["key"] == made.key.vkey
    joint = open_statement(both["statement"].encode(), made.key)
    trees = [open_checkpoint(one["note"].encode(), key_of_log(made.key, one["origin"])) for one in both["checkpoints"]]
    assert tuple(trees) == joint.trees
    for shard, tree in zip(made.shards, trees, strict=True):
        grown = await told(api, f"/v1/consistency?first=2&shard={shard.number}", None)
        assert (grown["log"], grown["second"]["size"]) == (tree.origin, tree.size)
        proof = [base64.b64decode(part) for part in grown["proof"]]
        verify_consistency(2, base64.b64decode(grown["first"]["root"]), tree.size, tree.root, proof)
    assert (await api.get("/v1/consistency?first=2", None)).json()["parameter"] == "shard"
    assert (await api.get("/v1/consistency?first=2&shard=4", None)).json()["parameter"] == "shard"


# -- the logs themselves


async def test_each_log_is_served_under_its_own_prefix(api: Api, made: CutLedger) -> None:
    for shard in made.shards:
        folder = made.log_folder(shard)
        objects = [path.relative_to(folder).as_posix() for path in (folder / "tile").rglob("*") if path.is_file()]
        assert any(path.startswith("tile/entries/") for path in objects)
        for path in ("checkpoint", *objects):
            entries = path.startswith("tile/entries/")
            answer = await api.get(f"/log/{shard.name}/{path}", "auditor" if entries else None)
            assert (answer.status_code, answer.content) == (200, (folder / path).read_bytes()), path
            if entries:
                assert (await api.get(f"/log/{shard.name}/{path}", None)).status_code == 401
    for path in (
        "checkpoint",
        "shard-4-of-3/checkpoint",
        "shard-1-of-2/tile/0/000.p/5",
        "tile/0/000",
        "shard-1-of-3/head",
    ):
        assert (await api.get(f"/log/{path}", None)).status_code == 404, path


async def test_a_log_that_was_put_back_is_told(made: CutLedger, tmp_path: Path) -> None:
    ledger = CutLedger(made.copy(tmp_path / "copy").folder)
    earlier = CutLedger(made.copy(tmp_path / "earlier").folder)
    ledger.collect("gateway", payment_events("gateway", range(50, 56)))
    ledger.take_in()
    async with open_cut_api(tmp_path, ledger) as api:
        assert (await api.get("/v1/checkpoint", None)).status_code == 200
    (earlier.places.log / "head").write_bytes((ledger.places.log / "head").read_bytes())
    async with open_cut_api(tmp_path, earlier) as api:  # every log as it was, under a statement that is newer
        for path in ("/v1/checkpoint", "/v1/status", "/log/head"):
            answer = await api.get(path)
            assert (answer.status_code, "rolled back" in answer.text) == (500, True), answer.text
    (earlier.places.log / "head").unlink()
    async with open_cut_api(tmp_path, earlier) as api:
        assert (await api.get("/log/head", None)).status_code == 404


# -- how it stands


async def test_how_it_stands_is_told_log_by_log(api: Api, made: CutLedger) -> None:
    status = await told(api, "/v1/status", "sre")
    assert status["ledger"] == made.key.name
    assert [(one["log"], one["indexed"], one["index_lag"]) for one in status["logs"]] == [
        (shard.origin(made.key.name), made.size(shard), 0) for shard in made.shards
    ]
    streams = (await told(api, "/v1/streams", "sre"))["streams"]
    assert {one["status"] for one in streams} == {"ok"}
    assert {one["stream"]: one["logged_batch"] for one in streams} == made.acknowledged()
    assert (await told(api, "/readyz", None))["status"] == "ready"
    metrics = (await api.get("/metrics", None)).text
    for shard in made.shards:
        assert f'tally_api_log_leaves{{shard="{shard.number}"}} {float(made.size(shard))}' in metrics
        assert f'tally_api_indexed_leaves{{shard="{shard.number}"}} {float(made.size(shard))}' in metrics


async def test_a_log_that_does_not_answer_is_named(made: CutLedger, tmp_path: Path) -> None:
    ledger = CutLedger(made.copy(tmp_path / "copy").folder)
    (ledger.log_folder(ledger.shards[1]) / "checkpoint").write_bytes(b"nonsense")
    async with open_cut_api(tmp_path, ledger) as api:
        ready = await api.get("/readyz", None)
        assert ready.status_code == 503
        assert ready.json()["reasons"] == ["the log of shard 2 does not answer: VerificationError"]
        for number in range(PAYMENTS):
            answer = await api.get(f"/v1/trails/transaction/p{number}")
            if ledger.shard_of(f"transaction/p{number}") == 2:
                assert answer.status_code == 500
            else:  # the others' trails are read, and it is said that not all is known of who read them
                assert (answer.status_code, answer.json()["accesses"]["complete"]) == (200, False)
        assert (await api.get("/v1/trails")).status_code == 500, "a search leaves no log out in silence"


# -- the OpenAPI document


@pytest.mark.parametrize(
    "name", [name for name, schema in CUT_SCHEMAS.items() if isinstance(schema.get("example"), dict)]
)
def test_each_schemas_example_is_one(name: str) -> None:
    assert list(mismatches(CUT_SCHEMAS[name]["example"], CUT_SCHEMAS[name], schemas=CUT_SCHEMAS)) == []


async def test_the_document_is_complete_and_true(api: Api, made: CutLedger, repo_root: Path) -> None:
    document = await told(api, "/openapi.json", None)
    contract = [route for route in api.app.routes if getattr(route, "include_in_schema", True)]
    routes = {getattr(route, "path", "").replace(":path}", "}") for route in contract}
    assert set(document["paths"]) == routes
    page = (repo_root / "docs" / "api.md").read_text(encoding="utf-8")
    for path in document["paths"]:
        assert f"`{path}`" in page, path
    event = next(entry for shard in made.shards for entry in made.entries(shard) if entry.kind == "event")
    collector, incarnation = event.stream.split("/")
    names = {
        "transaction/PAY-1": "transaction/p1",
        "/v1/events/gateway/00000000000000aa/0/": f"/v1/events/{collector}/{incarnation}/{event.sequence}/",
        "000.p/35": f"000.p/{made.size(made.shards[2])}",
    }
    for _, template, operation in requests_of(document):
        url = template
        for example, real in names.items():
            url = url.replace(example, real)
        answer = await api.get(url, "admin")
        if url.startswith("/v1/incidents/"):  # nothing has failed here
            assert answer.status_code == 404
            continue
        assert answer.status_code == 200, (url, answer.text)
        declared = operation["responses"]["200"]["content"]
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in declared, url
        if media_type.endswith("json") and url != "/openapi.json":
            schema = declared[media_type]["schema"]
            assert list(mismatches(answer.json(), schema, schemas=document["components"]["schemas"])) == [], url
