"""Exports as data: which rows, up to which checkpoint, how the API streams them, and what happens when something fails half-way."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit_api.auth import TokenRecord, hash_token, new_token, parse_tokens, render_tokens
from audit_api.export import walk as walk_module
from audit_api.export.data import AT_ONCE
from audit_api.export.shelf import Shelf
from audit_api.export.walk import Selection, told_query
from audit_api.settings import ApiSettings
from audit_api.streaming import StreamedAnswer
from collector.batch import open_header
from collector.errors import NotFound, Overloaded
from collector.event import Event
from collector.protect.classify import has_card
from collector.store.sqlite_months import SqliteMonths
from correlator.checkpoint import open_checkpoint
from correlator.entry import decode_entry
from correlator.index import AmountRange, TextSearch, TrailQuery, sqlite
from correlator.index.filters import parse_filter
from correlator.retired import MonthAccount
from tests.support.apis import Api, open_api, scope_of
from tests.support.exports import made, rows_of, unpacked
from tests.support.ledgers import SIGNER, SmallLedger, payment

PAYMENT = "transaction/PAY-1"


@pytest.fixture
def settings() -> ApiSettings:
    return ApiSettings(export_rows=30, burst_requests=10_000)


# Which rows ------------------------------------------------------------------------------------------------------------


def test_every_leaf_is_there_once_and_each_trail_in_its_order(
    ledger: SmallLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, walk = rows_of(ledger)
    assert sorted(row.leaf for row in rows) == list(range(ledger.log.size))
    assert walk.counts["rows"] == ledger.log.size
    assert walk.counts["trails"] == len({row.entry.trail for row in rows})
    by_trail: dict[str, list[int]] = {}
    for row in rows:
        by_trail.setdefault(row.entry.trail, []).append(row.entry.position)
    assert all(positions == list(range(len(positions))) for positions in by_trail.values())
    for name, value in (("STEP_LEAVES", 3), ("_GROUP", 2), ("_PAGE_TRAILS", 1), ("_PAGE_LEAVES", 2), ("STEP_BYTES", 1)):
        monkeypatch.setattr(walk_module, name, value)
        assert rows_of(ledger)[0] == rows, name


def test_a_search_selects_whole_trails(ledger: SmallLedger) -> None:
    rows, _ = rows_of(ledger, Selection(query=TrailQuery(kind="transaction", status="incomplete")))
    assert {row.entry.trail for row in rows} == {PAYMENT}
    assert {row.entry.kind for row in rows} == {"event", "link", "verdict"}


def test_one_step_asks_the_index_once(ledger: SmallLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = TrailQuery(condition=parse_filter("not kind = transaction or trail = transaction/PAY-0"))
    rows, _ = rows_of(ledger, Selection(query=ends))
    monkeypatch.setattr(sqlite, "_LOOKS", 2)  # as if the index were so large that a search gives up many times
    monkeypatch.setattr(sqlite, "_LOOKS_A_TURN", 1)
    assert rows_of(ledger, Selection(query=ends))[0] == rows
    for most in (len(rows), len(rows) - 1):
        _, walk = rows_of(ledger, Selection(query=ends), max_rows=most)
        assert walk.counts["rows"] == most
        assert (walk.truncated is None) is (most == len(rows))
    none = Selection(query=TrailQuery(condition=parse_filter("not event != nothing")))
    walk = walk_module.Walk(walk_module_logs(ledger), none)
    steps = 0
    while (some := walk.step()) is not None:
        assert some == []
        steps += 1
    assert steps > 3
    _, manifest = made(ledger, "csv", none)
    assert manifest["counts"]["rows"] == 0


def test_trails_by_name_keep_their_order_and_must_exist(ledger: SmallLedger) -> None:
    rows, _ = rows_of(ledger, Selection(trails=(PAYMENT, "transaction/PAY-0")))
    assert list(dict.fromkeys(row.entry.trail for row in rows)) == [PAYMENT, "transaction/PAY-0"]
    with pytest.raises(NotFound, match="there is no trail transaction/PAY-9 below leaf 35"):
        rows_of(ledger, Selection(trails=("transaction/PAY-9",)))


def test_what_comes_meanwhile_is_not_in_it(ledger: SmallLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "STEP_LEAVES", 5)
    before, walk = rows_of(ledger)
    walk = walk_module.Walk(walk_module_logs(ledger), Selection())
    rows = list(walk.step() or [])
    ledger.ship("gateway/00000000000000aa", [payment(1, 9, "gateway", "late"), payment(8, 0, "gateway", "new")])
    ledger.publish()
    while (some := walk.step()) is not None:
        rows += some
    assert rows == before
    (checkpoint,) = walk.checkpoints()
    assert (checkpoint["size"], checkpoint["complete_below"]) == (35, 35)


def walk_module_logs(ledger: SmallLedger) -> Any:
    from tests.support.exports import logs_of

    return logs_of(ledger).all


@pytest.mark.parametrize("limit", [1, 4, 5, 34, 35, 36, 1_000])
@pytest.mark.parametrize("step", [400, 4])
def test_truncation_is_declared_and_only_when_something_is_left_out(
    ledger: SmallLedger, limit: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_module, "STEP_LEAVES", step)
    whole, _ = rows_of(ledger)
    rows, walk = rows_of(ledger, max_rows=limit)
    assert rows == whole[:limit]
    if limit >= len(whole):
        assert walk.truncated is None
    else:
        assert walk.truncated is not None
        assert (walk.truncated.trail, walk.truncated.leaf) == (rows[-1].entry.trail, rows[-1].leaf)
    _, manifest = made(ledger, "ndjson", max_rows=limit)
    assert manifest["complete"] is (limit >= len(whole))
    assert (manifest["truncated"] is None) is manifest["complete"]


def test_the_index_may_be_behind_and_the_manifest_says_so(ledger: SmallLedger) -> None:
    ledger.ship("gateway/00000000000000aa", [payment(8, 0, "gateway", "new")])
    ledger.log.publish()  # and the index does not know of it
    _, manifest = made(ledger, "ndjson")
    (checkpoint,) = manifest["checkpoints"]
    assert checkpoint["complete_below"] == 35
    assert checkpoint["size"] > 35
    tree = open_checkpoint(checkpoint["note"].encode(), SIGNER.verifier)
    assert (tree.origin, tree.size) == (checkpoint["origin"], checkpoint["size"])
    assert base64.b64encode(tree.root).decode() == checkpoint["root"]


def test_a_damaged_event_keeps_its_row_and_blocks_nothing(ledger: SmallLedger) -> None:
    store: Any = ledger.store
    blob = store._db.execute("SELECT events FROM bodies ORDER BY batch LIMIT 1 OFFSET 2").fetchone()[0]
    changed = blob.replace(b'"actor":"ann"', b'"actor":"bob"')
    assert changed != blob
    store._db.execute("UPDATE bodies SET events = ? WHERE events = ?", (changed, blob))
    rows, walk = rows_of(ledger)
    assert len(rows) == ledger.log.size
    (damaged,) = (row for row in rows if row.problem)
    assert damaged.raw is None
    assert "digest differs" in damaged.problem
    assert walk.counts["damaged"] == 1
    assert walk.counts["events"] == 11


def test_retired_events_are_told_with_their_month(ledger: SmallLedger, tmp_path: Path) -> None:
    account = MonthAccount()
    for leaf in range(ledger.log.size):
        entry = decode_entry(ledger.reader.entry(leaf))
        if entry.kind == "batch":
            header = open_header(entry.detail["header"].encode(), base64.b64decode(entry.detail["signature"]))
            account.add(leaf, header.header, header.digest)
    retirement = account.retirement("2026.01", ledger.log.size)
    ledger.ship("api/00000000000000cc", [Event(actor="ann", retirement=retirement)], role="recorder")
    ledger.publish()
    with closing(SqliteMonths(tmp_path / "store.sqlite")) as months:
        months.drop("2026.01", account.digests(retirement.size), retirement.events)
    rows, walk = rows_of(ledger, Selection(trails=(PAYMENT,)))
    assert [row.retired for row in rows if row.entry.kind == "event"] == ["2026.01", "2026.01"]
    assert walk.counts["retired"] == 2
    assert not any(row.problem for row in rows)


def test_a_search_is_told_in_the_words_it_was_asked_in() -> None:
    query = TrailQuery(
        key=("order_id", "O-1"),
        amount=AmountRange.parse("eur:..20.5"),
        text=TextSearch.parse("Payment rec*"),
        since="2026-01-01T00:00:00.000000000Z",
        kind="transaction",
    )
    assert told_query(query) == {
        "amount": "EUR:..20.5",
        "key": "order_id:O-1",
        "kind": "transaction",
        "since": "2026-01-01T00:00:00.000000000Z",
        "text": "payment rec*",
    }
    assert told_query(TrailQuery()) == {}


# Over the API ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["ndjson", "csv", "parquet", "ecs", "ocsf"])
async def test_the_api_streams_what_the_making_makes(api: Api, form: str) -> None:
    answer = await api.get(f"/v1/exports?format={form}&kind=transaction")
    assert answer.status_code == 200, answer.text
    name, data, manifest = unpacked(answer.content)
    selection = Selection(query=TrailQuery(kind="transaction"), told={"kind": "transaction"})
    assert (data, manifest) == made(api.ledger, form, selection, max_rows=30)
    assert manifest["files"][0]["name"] == name
    assert answer.headers["Tally-Checkpoint-Size"] == "35"
    assert answer.headers["Content-Disposition"].endswith('.zip"')
    assert answer.content == (await api.get(f"/v1/exports?format={form}&kind=transaction")).content


@pytest.mark.anyio
async def test_one_trail_comes_with_the_traces_of_its_story(api: Api) -> None:
    answer = await api.get(f"/v1/exports/{PAYMENT}?format=ndjson")
    assert answer.status_code == 200, answer.text
    _, data, manifest = unpacked(answer.content)
    trails = list(dict.fromkeys(json.loads(line)["entry"]["trail"] for line in data.splitlines()))
    assert trails == [PAYMENT, f"trace/{2:032x}"]
    assert manifest["selection"] == {"trail": PAYMENT, "linked": True, "events": True}
    access = api.record.events[-1].access
    assert access is not None
    last = (await api.get(f"/v1/trails/{PAYMENT}")).json()["entries"][-1]["leaf"]
    assert (access.action, access.trail, access.head) == ("trail.export", PAYMENT, last)
    alone = unpacked((await api.get(f"/v1/exports/{PAYMENT}?format=ndjson&linked=false&events=false")).content)
    assert {json.loads(line)["entry"]["trail"] for line in alone[1].splitlines()} == {PAYMENT}
    assert all(json.loads(line)["event"] is None for line in alone[1].splitlines())
    assert (await api.get("/v1/exports/transaction/PAY-9?format=csv")).status_code == 404


@pytest.mark.anyio
async def test_nobody_exports_what_they_may_not_see(api: Api) -> None:
    token = new_token()
    record = TokenRecord(principal="narrow", roles=["auditor"], sha256=hash_token(token), until="2026-01-01T00:01:30Z")
    api.token_file.write_text(render_tokens([*parse_tokens(api.token_file.read_text()), record]))
    api.tokens["narrow"] = token
    _, data, manifest = unpacked((await api.get("/v1/exports?kind=transaction", "narrow")).content)
    trails = {json.loads(line)["entry"]["trail"] for line in data.splitlines()}
    assert trails == {"transaction/PAY-0", PAYMENT}, "the third begins after the end of what is seen"
    assert manifest["selection"]["scope"] == {"until": "2026-01-01T00:01:30.000000000Z"}
    assert (await api.get("/v1/exports/transaction/PAY-2?format=csv", "narrow")).status_code == 404
    assert (await api.get(f"/v1/exports/{PAYMENT}?format=csv", "narrow")).status_code == 200


@pytest.mark.anyio
async def test_an_export_that_has_more_rows_than_it_may_says_so(api: Api) -> None:
    _, data, manifest = unpacked((await api.get("/v1/exports?format=csv")).content)
    assert manifest["complete"] is False
    assert manifest["truncated"]["after_rows"] == manifest["counts"]["rows"] == 30
    assert data.count(b"\r\n") == 31


@pytest.mark.anyio
async def test_it_is_on_record_before_the_first_byte(api: Api) -> None:
    sent: list[tuple[str, int]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append((message["type"], len(api.record.events)))

    await api.app(scope_of(api, "/v1/exports", b"format=csv"), receive, send)
    assert len(sent) >= 3
    assert {on_record for _, on_record in sent} == {1}
    assert api.record.events[0].attributes["url.query"] == "format=csv"


@pytest.mark.anyio
async def test_room_is_made_again_whatever_becomes_of_an_export(api: Api) -> None:
    """More of each kind than there is room for, one after the other: broken off, not on record, gone, not found."""

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    for _ in range(AT_ONCE + 1):
        await api.app(scope_of(api, "/v1/exports", b""), gone, send)
        api.record.failure = Overloaded("full")
        assert (await api.get("/v1/exports")).status_code == 503
        api.record.failure = None
        assert (await api.get("/v1/exports/transaction/PAY-9?format=csv")).status_code == 404
    assert (await api.get("/v1/exports")).status_code == 200


@pytest.mark.anyio
async def test_a_failure_half_way_breaks_the_answer_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "STEP_LEAVES", 5)
    steps = 0
    real: Callable[..., Any] = walk_module.Walk.step

    def step(walk: walk_module.Walk) -> Any:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise Overloaded("the index is busy")
        return real(walk)

    monkeypatch.setattr(walk_module.Walk, "step", step)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    for _ in range(AT_ONCE + 1):
        sent.clear()
        steps = 0
        with pytest.raises(Exception, match="busy"):
            await api.app(scope_of(api, "/v1/exports", b""), receive, send)
        assert sent[0]["status"] == 200
        assert sent[-1].get("more_body") is True, "the end that HTTP demands never came"
    monkeypatch.undo()
    assert (await api.get("/v1/exports")).status_code == 200


@pytest.mark.anyio
async def test_when_all_places_are_taken_the_next_one_hears_it(api: Api) -> None:
    wait = asyncio.Event()
    begun = asyncio.Semaphore(0)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            begun.release()
            await wait.wait()

    slow = [asyncio.create_task(api.app(scope_of(api, "/v1/exports", b""), receive, send)) for _ in range(AT_ONCE)]
    for _ in slow:
        await begun.acquire()
    answer = await api.get("/v1/exports")
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert (await api.get(f"/v1/trails/{PAYMENT}")).status_code == 200, "only exports wait"
    wait.set()
    await asyncio.gather(*slow)
    assert (await api.get("/v1/exports")).status_code == 200


@pytest.mark.anyio
async def test_exports_at_once_have_one_budget_together(tmp_path: Path, ledger: SmallLedger) -> None:
    """What those may have that are under way, the next one may not: each began with all that was left of the day."""
    settings = ApiSettings(export_rows=30, export_rows_a_day=50, burst_requests=10_000)
    wait = asyncio.Event()
    begun = asyncio.Semaphore(0)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            begun.release()
            await wait.wait()

    async with open_api(tmp_path, ledger, settings, exports_folder=tmp_path / "exports") as api:
        slow = [asyncio.create_task(api.app(scope_of(api, "/v1/exports", b""), receive, send)) for _ in range(2)]
        for _ in slow:
            await begun.acquire()
        refused = await api.get("/v1/exports")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "15")
        assert "exports under way may have all that is left of 50 rows a day" in refused.json()["detail"]
        assert (await api.get("/v1/exports", "admin")).status_code == 200, "each has their own"
        wait.set()
        await asyncio.gather(*slow)
        shelf = Shelf(tmp_path / "exports", clock=api.clocks.wall, keep_seconds=60, has_card=has_card)
        assert shelf.spent("auditor@example") == 50
        refused = await api.get("/v1/exports")
        assert (refused.status_code, int(refused.headers["Retry-After"]) > 80_000) == (429, True)


@pytest.mark.anyio
async def test_a_reader_that_takes_nothing_is_let_go_of() -> None:
    class Stream:
        closed = 0

        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> bytes:
            return b"x"

        async def aclose(self) -> None:
            self.closed += 1

    stream = Stream()
    answer = StreamedAnswer(stream, media_type="text/plain", headers={}, stall_seconds=0.01)

    async def stall(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TimeoutError):
        await answer({"type": "http"}, receive, stall)
    assert stream.closed


@pytest.mark.anyio
@pytest.mark.parametrize(
    "query", ["format=xml", "format=bundle", "cursor=1", "limit=3", "kind=nothing", "format=csv&format=csv"]
)
async def test_what_cannot_be_understood_is_refused(api: Api, query: str) -> None:
    answer = await api.get(f"/v1/exports?{query}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:tallystick:problem:bad-parameter")


@pytest.mark.anyio
async def test_a_format_that_is_not_installed_is_a_problem(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "audit_api.export.parquet", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    answer = await api.get("/v1/exports?format=parquet")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:tallystick:problem:format-unavailable")


def test_a_step_holds_so_many_bytes_and_a_group_more(ledger: SmallLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.ship("gateway/00000000000000aa", [payment(9, at, "gateway", "large", body="x" * 10_000) for at in range(60)])
    ledger.publish()
    monkeypatch.setattr(walk_module, "STEP_BYTES", 50_000)
    walk = walk_module.Walk(walk_module_logs(ledger), Selection(trails=("transaction/PAY-9",)))
    steps = []
    while (rows := walk.step()) is not None:
        steps.append(sum(len(row.raw or b"") for row in rows))
    assert sum(steps) > 600_000
    assert max(steps) < 50_000 + 25 * 11_000
    assert len(steps) > 2
