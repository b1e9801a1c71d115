"""Lists as lines, answers that are asked for again, and why they are read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.ndjson import Lines, LineStream, Room
from audit_api.revalidation import entity_tag, has_already
from audit_api.settings import ApiSettings
from tests.support.apis import Api, open_api, open_cut_api
from tests.support.cut_ledger import CutLedger
from tests.support.ledgers import SmallLedger, payment
from tests.support.whole_ledger import payment_events

pytestmark = pytest.mark.anyio

LINES = "application/x-ndjson"
PAYMENT = "transaction/PAY-1"


async def lines(api: Api, path: str, role: str = "auditor") -> list[Any]:
    answer = await api.get(path, role, Accept=LINES)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == LINES
    return [json.loads(line) for line in answer.text.splitlines()]


# ------------------------------------------------------------------------------------------------------------------ lines


@pytest.mark.parametrize("limit", [1, 5, 200])
async def test_a_search_as_lines_is_all_its_pages(api: Api, limit: int) -> None:
    page = (await api.get("/v1/trails?limit=200")).json()
    *trails, end = await lines(api, f"/v1/trails?limit={limit}")
    assert trails == page["trails"]
    assert end == {"end": True, "size": page["size"], "trails": 12}
    assert await lines(api, "/v1/trails?text=nothing") == [{"end": True, "size": page["size"], "trails": 0}]


async def test_any_number_of_pages_without_lines_is_passed_over() -> None:
    async def following(at: int) -> Lines:
        return [b"[%d]" % at] if at == 3_000 else [], at + 1 if at < 3_000 else None

    room = Room(1)
    room.enter()
    stream = LineStream(([b"{}"], 0), following, counted="trails", room=room)
    assert [part async for part in stream] == [b"{}\n", b"[3000]\n", b'{"end":true,"trails":2}\n']


async def test_a_search_as_lines_goes_over_shards(tmp_path: Path) -> None:
    ledger = CutLedger(tmp_path)
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(6)))
    ledger.take_in()
    async with open_cut_api(tmp_path, ledger) as api:
        page = (await api.get("/v1/trails?limit=200&filter=not kind=stream")).json()
        *trails, end = await lines(api, "/v1/trails?limit=2&filter=not kind=stream")
        assert trails == page["trails"]
        assert end["trails"] == len(trails) > 12


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_a_trail_as_lines_is_all_its_entries_under_one_checkpoint(api: Api, limit: int) -> None:
    page = (await api.get(f"/v1/trails/{PAYMENT}?proofs=true")).json()
    begin, *entries, end = await lines(api, f"/v1/trails/{PAYMENT}?proofs=true&limit={limit}")
    assert entries == page["entries"]
    assert begin == {name: value for name, value in page.items() if name not in ("entries", "next")}
    assert end == {"end": True, "entries": len(entries)}
    access = api.record.events[-1].access
    assert access is not None
    assert (access.trail, access.head) == (PAYMENT, entries[-1]["leaf"]), (
        "all of it is on record, before the first line"
    )


async def test_lines_of_long_events_are_all_sent(api: Api) -> None:
    api.ledger.ship(
        "shop/00000000000000dd", [payment(9, step, "shop", "paid", body="x" * 900_000) for step in range(8)]
    )
    api.ledger.publish()
    begin, *entries, end = await lines(api, "/v1/trails/transaction/PAY-9?limit=1000")
    assert len(entries) == end["entries"] == begin["summary"]["entries"]
    assert [row["entry"]["position"] for row in entries] == list(range(len(entries)))


async def test_lines_show_a_role_no_more_than_a_page(api: Api) -> None:
    page = (await api.get(f"/v1/trails/{PAYMENT}", "sre")).json()
    _, *entries, _ = await lines(api, f"/v1/trails/{PAYMENT}?limit=1", "sre")
    assert entries == page["entries"]


@pytest.mark.parametrize("path", ["/desk/trails", f"/desk/trails/{PAYMENT}"])
async def test_a_page_is_a_page_whatever_is_accepted_and_takes_no_place_of_lists(api: Api, path: str) -> None:
    for _ in range(20):  # more than there are places
        answer = await api.get(path, "sre", Accept=LINES)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
    assert (await lines(api, "/v1/trails"))[-1]["end"] is True


async def test_what_cannot_be_begun_is_a_problem(api: Api) -> None:
    answer = await api.get("/v1/trails/transaction/PAY-9", Accept=LINES)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    api.record.failure = OSError("no room")
    for _ in range(20):  # more than may be under way: each gives its place back
        assert (await api.get("/v1/trails", Accept=LINES)).status_code == 503
    api.record.failure = None
    assert (await lines(api, "/v1/trails"))[-1]["trails"] == 12


async def test_lines_that_break_off_have_no_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    real = type(api.ledger.index).find

    def failing(*arguments: Any, **named: Any) -> Any:
        found.append(1)
        if len(found) > 2:
            raise OSError("gone")
        return real(*arguments, **named)

    monkeypatch.setattr(type(api.ledger.index), "find", failing)
    answer = await api.get("/v1/trails?limit=3", Accept=LINES)
    assert answer.status_code in (200, 500)  # httpx's in-process transport may have begun, or not
    assert '"end"' not in answer.text
    monkeypatch.undo()
    assert (await lines(api, "/v1/trails"))[-1]["trails"] == 12


# ------------------------------------------------------------------------------------------------------------------- tags


@pytest.mark.parametrize(
    "path",
    [f"/v1/trails/{PAYMENT}?beside=false", "/v1/trails?kind=transaction", "/v1/checkpoint", "/log/tile/0/000.p/35"],
)
async def test_who_has_the_answer_is_told_so_and_that_is_on_record(api: Api, path: str) -> None:
    first = await api.get(path)
    tag = first.headers["etag"]
    before = len(api.record.events)
    again = await api.get(path, **{"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    if path.startswith("/v1/trails"):
        event = api.record.events[-1]
        assert len(api.record.events) == before + 1
        assert event.access is not None
        assert (event.access.refused, event.attributes["http.response.status_code"]) == ("", 304)
    assert (await api.get(path, **{"If-None-Match": '"other"'})).content == first.content


async def test_a_trail_that_grew_is_told_anew(api: Api) -> None:
    path = f"/v1/trails/{PAYMENT}?beside=false"
    first = await api.get(path)
    assert "checkpoint" not in first.json()
    assert "accesses" not in first.json()
    api.ledger.add_verdict("transaction/PAY-2", "complete")
    api.ledger.publish()
    assert (await api.get(path, **{"If-None-Match": first.headers["etag"]})).status_code == 304, "another one grew"
    api.ledger.add_verdict(PAYMENT, "complete")
    api.ledger.publish()
    grown = await api.get(path, **{"If-None-Match": first.headers["etag"]})
    assert grown.status_code == 200
    assert grown.headers["etag"] != first.headers["etag"]
    refused = await api.get(f"{path}&proofs=true")
    assert (refused.status_code, refused.json()["parameter"]) == (400, "beside")


async def test_forms_of_an_answer_have_tags_of_their_own(api: Api) -> None:
    path = "/v1/events/gateway/00000000000000aa/0/proof"
    one, other = await api.get(path), await api.get(path, Accept="text/plain")
    assert one.headers["etag"] != other.headers["etag"]
    assert one.headers["vary"] == other.headers["vary"] == "Accept"


@given(st.lists(st.text(st.characters(codec="latin-1")), max_size=3), st.binary(max_size=3))
def test_any_if_none_match_is_read(fields: list[str], body: bytes) -> None:
    tag = entity_tag(body, "application/json")
    assert has_already(fields, tag) == any(field.strip() == "*" for field in fields)
    assert has_already([*fields, f"W/{tag}"], tag)
    assert has_already([f'"a,b", {tag}'], tag)
    assert not has_already([tag[1:-1], f'"x{tag[1:]}'], tag)


# ---------------------------------------------------------------------------------------------------------------- purpose


@pytest.fixture
async def strict(tmp_path: Path, ledger: SmallLedger) -> AsyncIterator[Api]:
    async with open_api(tmp_path, ledger, ApiSettings(purpose_required=True)) as opened:
        yield opened


def purpose(api: Api) -> str:
    return str(api.record.events[-1].attributes.get("access.purpose", ""))


async def test_why_it_was_read_is_on_record(api: Api) -> None:
    for path, headers, told in (
        ("/v1/trails", {"Tally-Purpose": "review 2026/2"}, "review 2026/2"),
        ("/v1/trails?purpose=case%20%C3%A97", {}, "case é7"),
        ("/v1/trails?purpose=query", {"Tally-Purpose": "header"}, "header"),
        ("/v1/trails", {}, ""),
        ("/v1/trails", {"Tally-Purpose": "x" * 250}, "x" * 200),
        ("/v1/trails/transaction/PAY-9?purpose=why", {}, "why"),
    ):
        await api.get(path, **headers)
        assert purpose(api) == told
    encoded = httpx.Headers(
        {"Authorization": f"Bearer {api.tokens['sre']}", "Tally-Purpose": "Prüfung"}, encoding="utf-8"
    )
    answer = await api.client.get("/v1/trails", headers=encoded)
    assert (answer.status_code, purpose(api)) == (200, "Prüfung")


async def test_where_a_purpose_is_required_nothing_is_served_without_one(strict: Api) -> None:
    for path in ("/v1/trails", f"/v1/trails/{PAYMENT}", "/v1/status", f"/v1/exports/{PAYMENT}"):
        for headers in ({}, {"Tally-Purpose": " "}):
            refused = await strict.get(path, **headers)
            assert (refused.status_code, refused.json()["type"]) == (400, "urn:tallystick:problem:purpose-needed")
            access = strict.record.events[-1].access
            assert access is not None
            assert access.refused == "purpose-needed"
        assert (await strict.get(path, **{"Tally-Purpose": "case 7"})).status_code == 200
    assert (await strict.get("/v1/checkpoint", None)).status_code == 200, "what anyone may have is not asked for"
