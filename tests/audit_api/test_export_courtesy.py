"""An export lets requests go first, and comes to its end all the same."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from audit_api import readingthread
from audit_api.settings import ApiSettings
from collector.batch import EventRef, StreamId
from collector.event import Event
from tests.support.apis import Api, open_api
from tests.support.ledgers import SmallLedger

pytestmark = pytest.mark.anyio

HELD = "access.trails.search"


@dataclass
class HeldRecord:
    """`AccessRecorder` that keeps searches under way until they are let go."""

    begun: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def record(self, event: Event) -> EventRef:
        if event.event_name == HELD:
            self.begun.set()
            assert self.go.wait(60)
        return EventRef(stream=StreamId("api/00000000000000cc"), sequence=0)


@pytest.fixture
def record() -> HeldRecord:
    return HeldRecord()


@pytest.fixture
async def api(tmp_path: Path, ledger: SmallLedger, record: HeldRecord) -> AsyncIterator[Api]:
    settings = ApiSettings(burst_requests=10_000)
    async with open_api(tmp_path, ledger, settings, record, exports_folder=tmp_path / "exports") as opened:
        yield opened


async def until(api: Api, path: str, wanted: str) -> None:
    """Wait until the job is so far, by its file: to ask for it would be a request under way."""
    file = anyio.Path(api.token_file.parent / "exports" / f"{path.rpartition('/')[2]}.json")
    while f'"state":"{wanted}"' not in await file.read_text():  # noqa: ASYNC110 - a file: there is nothing to await
        await anyio.sleep(0.01)


async def test_it_waits_while_a_request_is_under_way(
    api: Api, record: HeldRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readingthread, "COURTESY_SECONDS", 3_600.0)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(api.get, "/v1/trails")
            await anyio.to_thread.run_sync(record.begun.wait)
            path = (await api.send("POST", "/v1/exports?format=csv")).headers["Location"]
            await until(api, path, "running")
            for _ in range(20):  # others are answered meanwhile, and it does not move
                assert (await api.get("/v1/checkpoint", None)).status_code == 200
            job = (await api.get(path)).json()
            assert (job["state"], job["rows"]) == ("running", 0)
            record.go.set()
        await until(api, path, "done")


async def test_it_ends_though_requests_are_always_under_way(
    api: Api, record: HeldRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readingthread, "COURTESY_SECONDS", 0.001)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(api.get, "/v1/trails")
            await anyio.to_thread.run_sync(record.begun.wait)
            path = (await api.send("POST", "/v1/exports?format=csv")).headers["Location"]
            await until(api, path, "done")
            assert not record.go.is_set()
            record.go.set()
