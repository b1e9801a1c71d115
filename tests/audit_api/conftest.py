"""Fixtures: a small ledger, and an API over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from audit_api.settings import ApiSettings
from collector.store.sqlite import SqliteStore
from correlator.index.sqlite import SqliteIndex
from tests.support.apis import Api, open_api
from tests.support.ledgers import SmallLedger, small_story


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SmallLedger]:
    store, index = SqliteStore(tmp_path / "store.sqlite"), SqliteIndex(tmp_path / "index.sqlite")
    made = SmallLedger(store=store, index=index)
    small_story(made)
    yield made
    made.log.close()
    store.close()
    index.close()


@pytest.fixture
def settings() -> ApiSettings:
    """What a test may override for its module."""
    return ApiSettings()


@pytest.fixture
async def api(tmp_path: Path, ledger: SmallLedger, settings: ApiSettings) -> AsyncIterator[Api]:
    async with open_api(tmp_path, ledger, settings) as opened:
        yield opened
