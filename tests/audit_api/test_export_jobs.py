"""Exports that are made while nobody waits: they end, survive a restart, are fetched in pieces, and stay within their bounds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.auth import TokenRecord, hash_token, new_token, parse_tokens, render_tokens
from audit_api.export import walk as walk_module
from audit_api.export.joboperations import JOB_SCHEMAS, _range_of
from audit_api.export.shelf import Shelf
from audit_api.problems import PROBLEMS, Problem
from audit_api.settings import ApiSettings
from collector.errors import Overloaded
from collector.protect.classify import has_card
from tests.support.apis import Api, open_api
from tests.support.exports import made, unpacked
from tests.support.ledgers import SmallLedger

pytestmark = pytest.mark.anyio

JOBS = "/v1/export-jobs"
SETTINGS = ApiSettings(burst_requests=10_000, export_jobs=3, export_rows_a_day=60, export_keep_seconds=60)


@pytest.fixture
async def api(tmp_path: Path, ledger: SmallLedger) -> AsyncIterator[Api]:
    async with open_api(tmp_path, ledger, SETTINGS, exports_folder=tmp_path / "exports") as opened:
        yield opened


async def ended(api: Api, path: str) -> dict[str, Any]:
    """The job, once it is at its end."""
    with anyio.fail_after(60):
        while True:
            answer = await api.get(path)
            assert answer.status_code == 200, answer.text
            job: dict[str, Any] = answer.json()
            if job["state"] in ("done", "failed"):
                return job
            await anyio.sleep(0.01)


async def made_one(api: Api, query: str = "format=csv&kind=transaction") -> tuple[str, dict[str, Any]]:
    answer = await api.send("POST", f"/v1/exports?{query}")
    assert answer.status_code == 202, answer.text
    path = answer.headers["Location"]
    assert path == f"{JOBS}/{answer.json()['id']}"
    return path, await ended(api, path)


async def test_a_job_gives_what_the_stream_gives(api: Api, tmp_path: Path) -> None:
    path, job = await made_one(api)
    streamed = await api.get("/v1/exports?format=csv&kind=transaction")
    file = await api.get(f"{path}/file")
    assert file.status_code == 200
    assert file.content == streamed.content
    assert job["sha256"] == sha256(file.content).hexdigest()
    assert (job["state"], job["bytes"], job["complete"], job["size"]) == ("done", len(file.content), True, 35)
    assert job["rows"] == unpacked(file.content)[2]["counts"]["rows"]
    assert (await api.get(JOBS)).json()["jobs"] == [job]
    assert oct((tmp_path / "exports").stat().st_mode)[-3:] == "700"
    assert {oct(one.stat().st_mode)[-3:] for one in (tmp_path / "exports").iterdir()} == {"600"}


async def test_each_step_is_on_record(api: Api) -> None:
    path, _ = await made_one(api)
    await api.get(f"{path}/file")
    await api.send("DELETE", path)
    actions = [event.access.action for event in api.record.events if event.access is not None]
    assert [one for one in actions if one != "exports.read"] == ["trails.export", "exports.fetch", "exports.delete"]
    assert api.record.events[0].attributes["url.query"] == "format=csv&kind=transaction"


async def test_a_purpose_in_the_query_does_not_change_what_is_made(api: Api) -> None:
    _, plain = await made_one(api, "format=csv&kind=transaction")
    _, job = await made_one(api, "format=csv&kind=transaction&purpose=case+17")
    assert (job["state"], job["problem"], job["sha256"]) == ("done", "", plain["sha256"])
    asked = [
        event for event in api.record.events if event.access is not None and event.access.action == "trails.export"
    ]
    assert asked[-1].attributes["access.purpose"] == "case 17"


async def test_a_transfer_is_resumed(api: Api) -> None:
    path, job = await made_one(api)
    whole = (await api.get(f"{path}/file")).content
    etag = f'"{job["sha256"]}"'
    pieces = b""
    while len(pieces) < len(whole):
        end = min(len(pieces) + 1_000, len(whole)) - 1
        part = await api.get(f"{path}/file", Range=f"bytes={len(pieces)}-{end}", **{"If-Range": etag})
        assert (part.status_code, part.headers["ETag"]) == (206, etag)
        assert part.headers["Content-Range"] == f"bytes {len(pieces)}-{end}/{len(whole)}"
        pieces += part.content
    assert pieces == whole
    assert (await api.get(f"{path}/file", Range="bytes=-5")).content == whole[-5:]
    changed = await api.get(f"{path}/file", Range="bytes=5-", **{"If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, whole)
    beyond = await api.get(f"{path}/file", Range=f"bytes={len(whole)}-")
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")


@given(
    st.text(alphabet="bytes=-, 0123456789", max_size=20) | st.from_regex(r"bytes=[0-9]{0,5}-[0-9]{0,5}"),
    st.integers(1, 9_999),
)
async def test_no_range_reaches_beyond_the_file(asked: str, size: int) -> None:
    try:
        found = _range_of(asked, size)
    except Problem:  # it has none of the file's bytes
        found = None
    assert found is None or 0 <= found[0] <= found[1] < size


async def test_a_job_that_a_stop_broke_off_is_made_after_the_next_start(
    tmp_path: Path, ledger: SmallLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "exports"
    real = walk_module.Walk.step
    monkeypatch.setattr(walk_module, "STEP_LEAVES", 3)
    steps, under_way = 0, threading.Event()

    def step(walk: walk_module.Walk) -> Any:
        nonlocal steps
        steps += 1
        if steps > 2:
            under_way.set()
            raise Overloaded("the index is busy")  # the worker tries again later: it is under way at the stop
        return real(walk)

    monkeypatch.setattr(walk_module.Walk, "step", step)
    async with open_api(tmp_path, ledger, SETTINGS, exports_folder=folder) as api:
        path = (await api.send("POST", "/v1/exports?format=ndjson")).headers["Location"]
        assert await asyncio.to_thread(under_way.wait, 30)
        assert (await api.get(path)).json()["state"] == "running"
        assert (await api.get(f"{path}/file")).status_code == 409
    assert list(folder.glob("*.part"))
    monkeypatch.undo()
    (folder / f"{'0' * 32}.zip").write_bytes(b"of a job that is not there")
    async with open_api(tmp_path, ledger, SETTINGS, exports_folder=folder) as api:
        job = await ended(api, path)
        assert job["state"] == "done", job
        _, data, _ = unpacked((await api.get(f"{path}/file")).content)
    assert data == made(ledger, "ndjson")[0]
    assert {one.suffix for one in folder.iterdir()} == {".json", ".zip"}
    assert len(list(folder.glob("*.zip"))) == 1


async def test_jobs_are_their_owners(api: Api) -> None:
    path, _ = await made_one(api)
    for one in (path, f"{path}/file"):
        assert (await api.get(one, "admin")).status_code == 404
        assert (await api.get(one, "sre")).status_code == 403
    assert (await api.send("DELETE", path, "admin")).status_code == 404
    assert (await api.get(JOBS, "admin")).json() == {"jobs": []}
    narrow(api, "auditor@example")
    assert (await api.get(f"{path}/file")).status_code == 404, "they see less now than when they asked"
    assert (await api.get(JOBS)).json() == {"jobs": []}
    scoped, job = await made_one(api, "format=ndjson&kind=transaction")
    assert unpacked((await api.get(f"{scoped}/file")).content)[2]["counts"]["trails"] == 2
    assert job["state"] == "done"


def narrow(api: Api, principal: str) -> None:
    token = new_token()
    record = TokenRecord(principal=principal, roles=["auditor"], sha256=hash_token(token), until="2026-01-01T00:01:30Z")
    api.token_file.write_text(render_tokens([*parse_tokens(api.token_file.read_text()), record]))
    api.tokens["auditor"] = token


async def test_what_is_deleted_or_too_old_is_gone(api: Api, tmp_path: Path) -> None:
    path, _ = await made_one(api)
    assert (await api.send("DELETE", path)).status_code == 200
    assert (await api.get(path)).status_code == 404
    path, job = await made_one(api, "format=csv&kind=trace")
    assert job["expires"] is not None
    api.clocks.seconds += 61
    assert (await api.get(path)).status_code == 404
    assert {one.name for one in (tmp_path / "exports").iterdir()} == {"spent.json"}


async def test_there_are_only_so_many(api: Api) -> None:
    for _ in range(3):
        await made_one(api, "format=csv&service=nobody")
    answer = await api.send("POST", "/v1/exports")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")


async def test_a_principal_has_a_budget_of_rows(api: Api) -> None:
    path, job = await made_one(api, "format=ndjson")
    assert job["rows"] == 35
    _, second = await made_one(api, "format=ndjson")
    assert (second["rows"], second["complete"]) == (25, False), "what was left of sixty"
    await api.send("DELETE", path)
    answer = await api.send("POST", "/v1/exports")
    assert answer.status_code == 429, "what was taken stays taken"
    assert int(answer.headers["Retry-After"]) > 80_000
    assert (await api.send("POST", "/v1/exports", "admin")).status_code == 202, "each has their own"
    assert (await api.get("/v1/exports?format=csv")).status_code == 429, "streamed or not"
    api.clocks.seconds += 86_401
    assert (await api.get("/v1/exports?format=csv")).status_code == 200
    _, manifest = unpacked((await api.get("/v1/exports?format=csv")).content)[1:]
    assert manifest["counts"]["rows"] == 25


async def test_files_together_have_a_bound(tmp_path: Path, ledger: SmallLedger) -> None:
    settings = msgspec.structs.replace(SETTINGS, export_disk_bytes=2_000)
    async with open_api(tmp_path, ledger, settings, exports_folder=tmp_path / "exports") as api:
        path, job = await made_one(api, "format=ndjson")
        assert job["state"] == "failed"
        assert "all exports together may have 2,000 bytes" in job["problem"]
        assert (await api.get(f"{path}/file")).json()["type"] == "urn:tallystick:problem:not-done"
        assert not list((tmp_path / "exports").glob("*.part"))
        assert (await made_one(api, "format=csv&service=nobody"))[1]["state"] == "done", "the next one is made"


async def test_what_cannot_be_asked_makes_no_job(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await api.send("POST", "/v1/exports?format=xml")).status_code == 400
    assert (await api.send("POST", "/v1/exports", "sre")).status_code == 403
    api.record.failure = Overloaded("full")
    assert (await api.send("POST", "/v1/exports")).status_code == 503
    api.record.failure = None
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.delitem(__import__("sys").modules, "audit_api.export.parquet", raising=False)
    answer = await api.send("POST", "/v1/exports?format=parquet")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:tallystick:problem:format-unavailable")


async def test_no_job_keeps_a_card_number(api: Api, tmp_path: Path) -> None:
    for query in (
        "key=order_id:4111111111111111",
        "text=4111-1111-1111-1111",
        f"text={''.join(f'%5Cuff1{digit}' for digit in '4111111111111111')}",  # as JSON escapes them
        "filter=key.a%20%3D%20%224111111111111111%22",
    ):
        answer = await api.send("POST", f"/v1/exports?format=csv&{query}")
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:tallystick:problem:bad-parameter")
        assert answer.json()["parameter"] == query.partition("=")[0]
        assert "4111" not in answer.json()["detail"]
        assert "uff14" not in answer.json()["detail"]
    assert not list((tmp_path / "exports").iterdir())


async def test_the_document_and_the_page_know_them(api: Api, repo_root: Path) -> None:
    document = (await api.get("/openapi.json", None)).json()
    page = (repo_root / "docs" / "api.md").read_text(encoding="utf-8")
    assert set(document["paths"]["/v1/exports"]) == {"get", "post"}
    for path in (JOBS, f"{JOBS}/{{job}}", f"{JOBS}/{{job}}/file"):
        assert f"`{path}`" in page
        assert path in document["paths"]
    assert JOB_SCHEMAS.keys() <= document["components"]["schemas"].keys()
    for name in ("not-done", "range-not-satisfiable"):
        assert PROBLEMS[name].type in str(document["paths"][f"{JOBS}/{{job}}/file"]["get"]["responses"])
        assert f"`{name}`" in page


def test_what_cannot_be_removed_is_over_all_the_same_and_holds_up_nobody(tmp_path: Path) -> None:
    now = [1]
    shelf = Shelf(tmp_path, clock=lambda: now[0], keep_seconds=60, has_card=has_card)
    old = shelf.add(principal="a", form="csv", query="", scope={})
    shelf.fail(old, "no")
    shelf.part(old).mkdir()  # no unlink takes it
    now[0] = 61_000_000_000
    new = shelf.add(principal="a", form="csv", query="", scope={})
    assert list(shelf) == [new]
    assert shelf.find(old.id) is None
    shelf.part(old).rmdir()
    assert list(shelf) == [new]
    assert not shelf.has(old)


def test_a_shelf_keeps_nothing_that_it_does_not_know(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, clock=lambda: 1, keep_seconds=60, has_card=has_card)
    job = shelf.add(principal="ann", form="csv", query="", scope={})
    (tmp_path / "notes.txt").write_text("somebody's")
    (tmp_path / f"{job.id}.json.part").write_text("torn")
    again = Shelf(tmp_path, clock=lambda: 1, keep_seconds=60, has_card=has_card)
    assert [one.id for one in again] == [job.id]
    assert {one.name for one in tmp_path.iterdir()} == {f"{job.id}.json", "notes.txt"}
