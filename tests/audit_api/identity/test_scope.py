"""What of a ledger is seen: how far one page of a search looks for it."""

from __future__ import annotations

import pytest

from audit_api.identity import scope
from audit_api.identity.scope import RowScope, find_seen
from correlator.index import TrailQuery
from correlator.index.filters import parse_filter
from tests.support.ledgers import SmallLedger

NOBODY = RowScope(tenants=frozenset({"acme", "globex"}))


def pages(ledger: SmallLedger, query: TrailQuery) -> int:
    """How many pages there are of what is seen, which is nothing."""
    size, below, count = ledger.index.size(), ledger.index.size(), 0
    while below:
        page = find_seen(ledger.index, query, NOBODY, size=size, below=below, limit=1)
        assert page.trails == []
        assert page.next_below is None or page.next_below < below
        below, count = page.next_below or 0, count + 1
    return count


def test_a_page_of_a_search_that_looks_one_by_one_ends_after_so_many_leaves(
    ledger: SmallLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = TrailQuery(condition=parse_filter("not event = nothing"))
    assert pages(ledger, everything) == 1
    monkeypatch.setattr(scope, "_MAX_LEAVES", ledger.index.size() // 4)
    assert 3 <= pages(ledger, everything) <= 5
    assert pages(ledger, TrailQuery()) == 1, "what the index leads to is not looked at one by one"
