"""Reading along: what is told, from where it goes on, whom it stops for, and who is let go of."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.requests import Request

from audit_api.auth import Principal
from audit_api.gate import Call, Reading
from audit_api.serving import serve
from audit_api.settings import ApiSettings
from audit_api.streaming import ByteStream
from tests.support.apis import Api, open_api, open_cut_api
from tests.support.cut_ledger import CutLedger
from tests.support.ledgers import SmallLedger, payment
from tests.support.whole_ledger import payment_events

pytestmark = pytest.mark.anyio

PAYMENT = "transaction/PAY-1"


def events(text: str) -> list[tuple[str, str, Any]]:
    """Id, name and data of each event that has data."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


async def told(api: Api, query: str = "", role: str = "auditor", **headers: str) -> list[tuple[str, str, Any]]:
    answer = await api.get(f"/v1/live?seconds=0{query}", role, **headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events(answer.text)


@asynccontextmanager
async def served(api: Api) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The same application on a real port, and what stops it."""
    stopped, urls = asyncio.Event(), asyncio.Queue[str]()
    serving = asyncio.create_task(serve(api.app, ApiSettings(port=0), stopped=stopped, ready=urls.put_nowait))
    yield await urls.get(), stopped
    stopped.set()
    with anyio.fail_after(8):
        await serving


async def test_all_that_was_published_is_told_in_its_order(api: Api) -> None:
    found = await told(api, "&after=0")
    leaves = [data["leaf"] for _, _, data in found]
    assert leaves == sorted(leaves)
    assert [int(id_) for id_, _, _ in found] == leaves
    page = (await api.get("/v1/trails?limit=200")).json()["trails"]
    begun = {data["trail"]: data["leaf"] for _, name, data in found if name == "trail"}
    assert begun == {one["trail"]: one["first_leaf"] for one in page if one["first_leaf"] > 0}
    verdicts = {data["trail"]: data["verdict"]["verdict"] for _, name, data in found if name == "verdict"}
    assert verdicts[PAYMENT] == "incomplete"
    assert {trail for trail in verdicts if not trail.startswith("transaction/")} == set()
    assert await told(api) == [], "from now on"
    assert await told(api, "&after=0", "sre") == found


@pytest.mark.parametrize("at", [3, 10])
async def test_it_goes_on_behind_the_last_event(api: Api, at: int) -> None:
    found = await told(api, "&after=0")
    assert await told(api, f"&after={found[at][0]}") == found[at + 1 :]
    assert await told(api, "&after=0", **{"Last-Event-ID": found[at][0]}) == found[at + 1 :]
    only = await told(api, "&after=0&kind=transaction")
    assert only == [one for one in found if one[2]["trail"].startswith("transaction/")]


@pytest.mark.parametrize("after", ["x", "-1", "1.2", "99999", "9" * 17])
async def test_what_is_no_place_is_refused(api: Api, after: str) -> None:
    answer = await api.get("/v1/live?seconds=0", **{"Last-Event-ID": after})
    assert (answer.status_code, answer.json()["parameter"]) == (400, "Last-Event-ID")


async def test_over_shards_each_trail_is_told_once(tmp_path: Path) -> None:
    ledger = CutLedger(tmp_path)
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(6)))
    ledger.take_in()
    async with open_cut_api(tmp_path, ledger) as api:
        start = ".".join("0" for _ in ledger.shards)
        found = await told(api, f"&after={start}")
        begun = [data["trail"] for _, name, data in found if name == "trail"]
        page = (await api.get("/v1/trails?limit=200")).json()["trails"]
        assert sorted(begun) == sorted(one["trail"] for one in page)
        assert {data["log"] for _, _, data in found} == {one["log"] for one in page}
        for at in (0, len(found) // 2, len(found) - 1):
            assert await told(api, f"&after={found[at][0]}") == found[at + 1 :]


async def test_what_happens_is_told_when_it_is_published(api: Api) -> None:
    async with served(api) as (url, _), httpx.AsyncClient(base_url=url, timeout=20) as client:
        headers = {"Authorization": f"Bearer {api.tokens['auditor']}"}
        async with client.stream("GET", "/v1/live?kind=transaction", headers=headers) as answer:
            text = answer.aiter_text()
            assert await anext(text) == "retry: 3000\n\n"
            access = api.record.events[-1].access
            assert access is not None
            assert (access.action, access.head) == ("live.read", 34), "on record before the first byte"
            api.ledger.ship("gateway/00000000000000aa", [payment(7, 0, "gateway", "payment.requested")])
            api.ledger.publish()
            ((_, name, data),) = events(await anext(text))
            assert (name, data["trail"]) == ("trail", "transaction/PAY-7")
            api.ledger.add_verdict("transaction/PAY-7", "complete")
            api.ledger.publish()
            ((_, name, data),) = events(await anext(text))
            assert (name, data["verdict"]["verdict"]) == ("verdict", "complete")


async def test_a_stop_does_not_wait_for_who_reads_along(api: Api) -> None:
    async with served(api) as (url, stopped), httpx.AsyncClient(base_url=url, timeout=20) as client:
        headers = {"Authorization": f"Bearer {api.tokens['auditor']}"}
        async with client.stream("GET", "/v1/live", headers=headers) as answer:
            text = answer.aiter_text()
            await anext(text)
            stopped.set()
            assert [part async for part in text] == []


async def test_it_ends_and_is_heard_of_meanwhile(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit_api.live.HEARTBEAT_SECONDS", 0.1)
    answer = await api.get("/v1/live?seconds=1")
    assert re.fullmatch(r"retry: 3000\n\n(id: 34\n\n)+", answer.text)


async def test_so_many_may_read_along_and_no_more(tmp_path: Path, ledger: SmallLedger) -> None:
    async with open_api(tmp_path, ledger, ApiSettings(live_readers=1)) as api:
        first = asyncio.create_task(api.get("/v1/live?seconds=1"))
        while api.app.state.live._readers == 0:  # noqa: ASYNC110 - it comes to be within the request that is under way
            await asyncio.sleep(0)
        answer = await api.get("/v1/live?seconds=0")
        assert (answer.status_code, answer.json()["type"]) == (429, "urn:tallystick:problem:too-many-requests")
        assert (await first).status_code == 200
        assert (await api.get("/v1/live?seconds=0")).status_code == 200
        api.record.failure = OSError("no room")
        for _ in range(3):
            assert (await api.get("/v1/live?seconds=0")).status_code == 503, "each gives its place back"


async def stream_of(api: Api, *, after: str, seconds: int, kind: str = "") -> ByteStream:
    """What a reader is told, as the application makes it: the test takes it at its own pace."""

    async def run(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    reader = Principal(name="ann", roles=frozenset({"auditor"}))
    values = {"after": after, "kind": kind, "seconds": seconds}
    call = Call(principal=reader, target={}, values=values, request=Request({"type": "http", "headers": []}))
    reading: Reading = await api.app.state.live.read(call, run)
    assert reading.stream is not None
    return reading.stream


async def taken(api: Api, stream: ByteStream, *, stop_behind: int = 0) -> str:
    """All that a reader is told for whom there is always more: something is published each time that it has taken a part."""
    text, parts = "", 0
    with anyio.fail_after(10):
        async for part in stream:
            text, parts = text + part.decode(), parts + 1
            if parts > 1:  # before the second one is asked for it has looked at nothing
                api.ledger.ship(f"shop/{parts:016x}", [payment(100 + parts, 0, "shop", "paid")])
                api.ledger.publish()
            await asyncio.sleep(0)
            if parts == stop_behind:
                api.app.state.live.stopping.set()
    await stream.aclose()
    return text


@pytest.fixture
def always_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit_api.live._CHUNK", 1)
    monkeypatch.setattr("audit_api.live.POLL_SECONDS", 0.0)  # what was published is seen at once


@pytest.mark.usefixtures("always_behind")
async def test_who_waits_for_no_more_is_told_what_there_was_then(api: Api) -> None:
    found = await told(api, "&after=0")
    text = await taken(api, await stream_of(api, after="0", seconds=0))
    assert events(text) == found


@pytest.mark.usefixtures("always_behind")
async def test_it_ends_in_time_for_who_stays_behind(tmp_path: Path, ledger: SmallLedger) -> None:
    async with open_api(tmp_path, ledger, ApiSettings(live_seconds=1)) as api:
        for seconds in (1, 0):
            await taken(api, await stream_of(api, after="", seconds=seconds))
        stream = await stream_of(api, after="0", seconds=0)
        for _ in range(2):
            await anext(stream)
        await asyncio.sleep(1)  # the reader's own pace: its time is over before it has what there was
        assert [part async for part in stream] == []


@pytest.mark.usefixtures("always_behind")
async def test_a_stop_does_not_wait_for_who_stays_behind(api: Api) -> None:
    found = await told(api, "&after=0")
    assert events(await taken(api, await stream_of(api, after="0", seconds=900), stop_behind=4)) == found[:3]


async def test_its_end_says_how_far_it_passed_over_what_is_not_told(api: Api) -> None:
    answer = await api.get("/v1/live?seconds=0&after=0&kind=incident")
    assert answer.text == "retry: 3000\n\nid: 34\n\n"
    assert (await api.get("/v1/live?seconds=0&after=34")).text == "retry: 3000\n\n"


async def test_a_damaged_log_ends_it_without_an_end(api: Api) -> None:
    name = "tile/entries/000.p/35"
    api.ledger.storage.objects[name] = api.ledger.storage.objects[name].replace(b"PAY-1", b"PAY-8")
    answer = await api.get("/v1/live?seconds=0&after=0")
    assert "PAY-8" not in answer.text
