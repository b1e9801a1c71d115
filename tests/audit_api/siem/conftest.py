"""A ledger in which every kind of entry is, and every difficulty that exports have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from collector.store.sqlite import SqliteStore
from correlator.index.sqlite import SqliteIndex
from tests.support.exports import difficult_story
from tests.support.ledgers import SmallLedger


@pytest.fixture(scope="module")
def difficult(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallLedger]:
    folder = tmp_path_factory.mktemp("difficult")
    store, index = SqliteStore(folder / "store.sqlite"), SqliteIndex(folder / "index.sqlite")
    made = SmallLedger(store=store, index=index)
    difficult_story(made)
    stream = "gateway/00000000000000aa"
    made._add(trail=f"stream/{stream}", kind="gap", detail={"stream": stream, "after": 1, "until": 3})
    made._add(trail=f"stream/{stream}", kind="fork", detail={"stream": stream})
    made.publish()
    yield made
    store.close()
    index.close()
