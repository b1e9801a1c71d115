"""Saved searches: kept, shared within what their reader may see, changed only by who saw their last state, and gone when deleted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.auth import TokenRecord, hash_token, new_token, parse_tokens, render_tokens
from audit_api.durablefile import write_durable
from audit_api.problems import Problem
from audit_api.savedsearches import SEARCH_SCHEMAS, _told
from audit_api.settings import ApiSettings
from audit_api.web.searches import address_of, conditions_of
from collector.errors import StateUnknown
from tests.audit_api.test_openapi import mismatches
from tests.support.apis import Api, open_api, open_shelf
from tests.support.ledgers import SmallLedger

pytestmark = pytest.mark.anyio

PATH = "/v1/searches"
OPEN = {"name": "left open", "conditions": {"kind": "transaction", "status": "incomplete"}}


@pytest.fixture
def settings() -> ApiSettings:
    return ApiSettings(burst_requests=10_000, saved_searches=3)


async def send(
    api: Api, method: str, path: str, body: Any = None, role: str = "auditor", **headers: str
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {api.tokens[role]}"} | headers
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    if content is not None:
        headers["Content-Type"] = "application/json"
    return await api.client.request(method, path, content=content, headers=headers)


async def saved(api: Api, body: Any = OPEN, role: str = "auditor") -> dict[str, Any]:
    answer = await send(api, "POST", PATH, body, role)
    assert answer.status_code == 201, answer.text
    kept: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"{PATH}/{kept['id']}"
    assert list(mismatches(kept, SEARCH_SCHEMAS["SavedSearch"], schemas=SEARCH_SCHEMAS)) == []
    return kept


async def names(api: Api, role: str = "auditor") -> list[str]:
    answer = await api.get(PATH, role)
    assert answer.status_code == 200
    return [one["name"] for one in answer.json()["searches"]]


async def test_a_search_is_kept_found_again_changed_and_deleted(api: Api) -> None:
    kept = await saved(api)
    assert (kept["principal"], kept["conditions"], kept["shared"]) == ("auditor@example", OPEN["conditions"], False)
    path = f"{PATH}/{kept['id']}"
    read = await api.get(path)
    assert read.json() == kept
    assert (await api.get(path, **{"If-None-Match": read.headers["ETag"]})).status_code == 304
    found = (await api.client.get("/v1/trails", params=kept["conditions"], headers={"Authorization": f"Bearer {api.tokens['auditor']}"})).json()  # fmt: skip
    assert {one["status"] for one in found["trails"]} == {"incomplete"}

    api.clocks.seconds += 1
    changed = await send(api, "PUT", path, OPEN | {"name": "open"}, **{"If-Match": read.headers["ETag"]})
    assert (changed.status_code, changed.json()["name"]) == (200, "open")
    assert changed.json()["created"] == kept["created"] < changed.json()["changed"]
    assert (await api.get(path)).headers["ETag"] == changed.headers["ETag"] != read.headers["ETag"]
    for method, body in (("PUT", OPEN), ("DELETE", None)):
        stale = await send(api, method, path, body, **{"If-Match": read.headers["ETag"]})
        assert (stale.status_code, stale.json()["type"]) == (412, "urn:tallystick:problem:precondition-failed")
    weak = await send(api, "DELETE", path, None, **{"If-Match": f"W/{changed.headers['ETag']}"})
    assert weak.status_code == 412
    assert await names(api) == ["open"]
    gone = await send(api, "DELETE", path, None, **{"If-Match": changed.headers["ETag"]})
    assert (gone.status_code, gone.json()["name"]) == (200, "open")
    assert await names(api) == []
    assert (await api.get(path)).status_code == 404
    actions = [event.access.action for event in api.record.events if event.access is not None]
    assert {"search.save", "search.read", "search.change", "search.delete", "searches.list"} <= set(actions)


async def test_who_sees_it_and_who_may_change_it(api: Api) -> None:
    own, shared = await saved(api), await saved(api, OPEN | {"name": "for all", "shared": True})
    assert await names(api) == ["for all", "left open"]
    assert await names(api, "sre") == ["for all"]
    for method, body in (("GET", None), ("PUT", OPEN), ("DELETE", None)):
        assert (await send(api, method, f"{PATH}/{own['id']}", body, "admin")).status_code == 404
    for method, body in (("PUT", OPEN), ("DELETE", None)):
        assert (await send(api, method, f"{PATH}/{shared['id']}", body, "sre")).status_code == 403
    assert (await send(api, "PUT", f"{PATH}/{shared['id']}", OPEN, "admin")).status_code == 403
    assert (await send(api, "DELETE", f"{PATH}/{shared['id']}", None, "admin")).status_code == 200
    assert await names(api, "sre") == []


async def test_sharing_stays_within_a_tenant(api: Api) -> None:
    tokens = {name: new_token() for name in ("acme", "other", "both")}
    records = parse_tokens(api.token_file.read_text())
    records += [
        TokenRecord(
            principal=f"{name}@example",
            roles=["auditor"],
            sha256=hash_token(token),
            tenants=["acme", "other"] if name == "both" else [name],
        )
        for name, token in tokens.items()
    ]
    api.token_file.write_text(render_tokens(records))
    api.tokens.update(tokens)
    await saved(api, OPEN | {"name": "of acme", "shared": True, "tenant": "acme"}, "acme")
    assert [await names(api, role) for role in ("acme", "both", "other", "sre")] == [
        ["of acme"],
        ["of acme"],
        [],
        ["of acme"],
    ]
    for tenant in ("other", ""):
        refused = await send(api, "POST", PATH, OPEN | {"shared": True, "tenant": tenant}, "acme")
        assert (refused.status_code, refused.json()["type"]) == (400, "urn:tallystick:problem:bad-body")
    await saved(api, OPEN | {"name": "of those who see all", "shared": True}, "sre")
    assert await names(api, "both") == ["of acme"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        {},
        {"name": "x"},
        OPEN | {"name": ""},
        OPEN | {"name": " x"},
        OPEN | {"name": "x\ny"},
        OPEN | {"name": "x" * 81},
        OPEN | {"conditions": {"colour": "red"}},
        OPEN | {"conditions": {"status": "great"}},
        OPEN | {"conditions": {"filter": "kind ="}},
        OPEN | {"conditions": {"cursor": "MS4xLjE"}},
        OPEN | {"conditions": {"limit": "3"}},
        OPEN | {"conditions": {"since": "yesterday"}},
        OPEN | {"conditions": {"text": "x" * 5_000}},
        OPEN | {"tenant": "acme"},
        OPEN | {"name": "card 4111 1111 1111 1111"},
        OPEN | {"conditions": {"text": "4111111111111111"}},
        OPEN | {"principal": "ann"},
    ],
)
async def test_what_cannot_be_kept_is_refused(api: Api, body: Any) -> None:
    answer = await send(api, "POST", PATH, body)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:tallystick:problem:bad-body"), answer.text
    assert await names(api) == []


async def test_names_are_unique_and_their_number_is_bounded(api: Api) -> None:
    first = await saved(api)
    taken = await send(api, "POST", PATH, OPEN)
    assert (taken.status_code, taken.json()["type"]) == (409, "urn:tallystick:problem:name-taken")
    second = await saved(api, OPEN | {"name": "b"})
    assert (await send(api, "PUT", f"{PATH}/{second['id']}", OPEN)).status_code == 409
    assert (await send(api, "PUT", f"{PATH}/{first['id']}", OPEN)).status_code == 200
    await saved(api, OPEN | {"name": "c"})
    full = await send(api, "POST", PATH, OPEN | {"name": "d"})
    assert (full.status_code, full.json()["type"]) == (409, "urn:tallystick:problem:too-many-kept")
    await saved(api, OPEN, "sre")


async def test_they_outlive_the_process(api: Api, tmp_path: Path) -> None:
    kept = await saved(api)
    folder = tmp_path / "searches"
    (folder / "0.part").write_text("cut off")
    os.utime(folder / "0.part", (0, 0))
    (folder / "1.part").write_text("another process is at it")
    (file,) = folder.glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    again = open_shelf(tmp_path)
    assert [(one.id, one.name) for one in again] == [(kept["id"], "left open")]
    assert [one.name for one in folder.glob("*.part")] == ["1.part"]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StateUnknown, match=kept["id"]):
        open_shelf(tmp_path)


def test_processes_that_share_the_folder_see_what_the_others_keep_change_and_delete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = open_shelf(tmp_path), open_shelf(tmp_path)
    kept = one.add(principal="p", name="mine", conditions={}, shared=False)
    assert other.find(kept.id) == kept
    changed = other.change(kept, name="ours", conditions={"kind": "transaction"}, shared=True, tenant="")
    assert [search.name for search in one] == ["ours"]
    assert one.find(kept.id) == changed
    one.remove(changed)
    assert other.find(kept.id) is None
    assert list(open_shelf(tmp_path)) == []

    (tmp_path / "searches" / f"{'0' * 32}.json").write_text("{")
    assert list(other) == []
    assert "is no saved search" in caplog.text


def test_a_folder_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = open_shelf(tmp_path, clock=time.time_ns)
    kept = shelf.add(principal="p", name="mine", conditions={}, shared=False)
    os.utime(tmp_path / "searches", ns=(1, 1))  # long ago
    assert shelf.find(kept.id) == kept
    monkeypatch.setattr(Path, "glob", None)  # would raise
    assert shelf.find(kept.id) == kept


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: write_durable(file, b"%d" % at), range(200)))
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


@pytest.fixture
async def browser(tmp_path: Path, ledger: SmallLedger, settings: ApiSettings) -> AsyncIterator[tuple[Api, str]]:
    """The application, and the CSRF token of a browser that is signed in as the auditor."""
    async with open_api(tmp_path, ledger, settings) as api:
        sent = {"token": api.tokens["auditor"], "next": "/desk/trails"}
        await api.client.post("/login", data=sent, headers={"Origin": "http://api"})
        page = await api.client.get("/desk/trails")
        csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
        assert csrf
        yield api, csrf


async def test_the_page_keeps_runs_and_deletes(browser: tuple[Api, str]) -> None:
    api, csrf = browser
    form = {
        "csrf": csrf,
        "name": "Berlin's day <1>",
        "seen": "all",
        "text": "PAY",
        "kind": "transaction",
        "zone": "Europe/Berlin",
        "since": "2026-01-01T01:00",
        "currency": "EUR",
        "least": "10",
    }
    headers = {"Origin": "http://api", "Accept": "text/html"}
    gone = await api.client.post("/desk/searches", data=form, headers=headers)
    assert gone.status_code == 303, gone.text
    (kept,) = (await api.get(PATH)).json()["searches"]
    assert kept["shared"]
    assert kept["conditions"] == {
        "text": "PAY",
        "kind": "transaction",
        "since": "2026-01-01T00:00:00.000000000Z",
        "amount": "EUR:10..",
    }
    page = await api.client.get(gone.headers["Location"], headers=headers)
    assert page.status_code == 200
    assert 'aria-current="true">Berlin&#39;s day &lt;1&gt;</a>' in page.text
    assert 'value="2026-01-01T00:00:00"' in page.text
    assert (await api.client.post("/desk/searches", data=form, headers=headers)).status_code == 409
    without = {**form, "csrf": "", "name": "x"}
    assert (await api.client.post("/desk/searches", data=without, headers=headers)).status_code == 403
    deleted = await api.client.post(f"/desk/searches/{kept['id']}", data={"csrf": csrf}, headers=headers)
    assert deleted.status_code == 303
    assert await names(api) == []


@given(
    st.dictionaries(st.sampled_from(["text", "transaction", "service", "filter", "tenant"]), st.text(min_size=1)),
    st.sampled_from(["transaction", "any", "key"]),
    st.sampled_from(["", "EUR:10..", "EUR:..20", "EUR:1..2", "EUR:12.50..12.50"]),
    st.sampled_from(["", "2026-01-01T00:00:00.000000000Z", "2026-01-01T00:00:00.500000000Z"]),
)
def test_what_the_form_is_filled_with_searches_for_the_same(
    fields: dict[str, str], kind: str, amount: str, since: str
) -> None:
    conditions = {name: text.strip() for name, text in fields.items() if text.strip()}
    conditions |= {"kind": kind} if kind != "any" else {}
    conditions |= {"amount": amount} if amount else {}
    conditions |= {"since": since} if since else {}
    address = httpx.URL(address_of(conditions))
    assert conditions_of(dict(address.params)) == conditions


@given(
    st.binary(max_size=80)
    | st.builds(lambda one: json.dumps(one).encode(), st.dictionaries(st.text(), st.text() | st.integers()))
)
def test_any_body_is_a_search_or_a_problem(body: bytes) -> None:
    try:
        told = _told(body)
    except Problem as problem:
        assert problem.kind.name == "bad-body"  # noqa: PT017 - the problem is what is looked at
    else:
        assert isinstance(told.name, str)
