"""Bundles and reports: two are made at a time, nobody waits for that without an end, and none is made for who has gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from audit_api.export import bundle, operation
from audit_api.export.bundle import BundleExport
from tests.support.apis import Api, scope_of

pytestmark = pytest.mark.anyio

PAYMENT = "/v1/exports/transaction/PAY-1"
PLACES = 2


async def asked(api: Api, query: bytes, is_gone: Callable[[], bool]) -> int:
    """The status of an export that is asked for by who is there until `is_gone`."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if is_gone():
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await api.app(scope_of(api, PAYMENT, query), receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("form", ["pdf", "bundle"])
async def test_when_all_places_stay_taken_the_next_one_hears_it(
    api: Api, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def slow(*_: Any, **__: Any) -> bytes:
        begun.release()
        assert go.wait(60)
        return b"made"

    monkeypatch.setattr(operation, "report_pdf", slow)
    monkeypatch.setattr(operation, "_WAIT_SECONDS", 0.01)
    under_way = [asyncio.create_task(api.get(f"{PAYMENT}?format=pdf")) for _ in range(PLACES)]
    for _ in under_way:
        await asyncio.to_thread(begun.acquire)
    answer = await api.get(f"{PAYMENT}?format={form}")
    assert answer.status_code == 429
    assert answer.json()["detail"] == "2 bundles or reports are being made: wait for one of them"
    assert int(answer.headers["Retry-After"]) > 0
    assert (await api.get("/v1/trails/transaction/PAY-1")).status_code == 200, "only these exports wait"
    go.set()
    assert [one.content for one in await asyncio.gather(*under_way)] == [b"made"] * PLACES
    assert (await api.get(PAYMENT)).status_code == 200


@pytest.mark.parametrize("query", [b"", b"format=pdf"])
async def test_nothing_is_read_for_who_has_gone_and_that_is_on_record(
    api: Api, monkeypatch: pytest.MonkeyPatch, query: bytes
) -> None:
    steps = 0
    real = BundleExport.step

    def step(export: BundleExport) -> bool:
        nonlocal steps
        steps += 1
        return real(export)

    monkeypatch.setattr(BundleExport, "step", step)
    monkeypatch.setattr(bundle, "STEP_ENTRIES", 1)
    for _ in range(PLACES + 1):  # the place is given back
        assert await asked(api, query, lambda: True) == 503
    assert steps == 0
    access = api.record.events[-1].access
    assert access is not None
    assert (access.action, access.refused) == ("trail.export", "unavailable")
    assert await asked(api, query, lambda: steps == 3) == 503
    assert steps == 3, "who goes in the middle of it ends it there"
    assert await asked(api, query, lambda: False) == 200
