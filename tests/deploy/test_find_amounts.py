"""Amounts from a file to the search: declared, taken in, in the log, found by range, and verified in a bundle."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

AMOUNTS = """
[[collector.stitch.amounts]]
fields = ["attributes.total"]
currency_fields = ["attributes.currency"]
"""
ROWS = (
    {"payment_id": "p1", "event_name": "received", "total": "12.50", "currency": "EUR"},
    {"payment_id": "p1", "event_name": "paid", "total": 12.5, "currency": "EUR"},
    {"payment_id": "p2", "event_name": "received", "total": 900, "currency": "EUR"},
    {"payment_id": "p2", "event_name": "paid", "total": 1000, "currency": "USD"},
    {"payment_id": "p3", "event_name": "received", "total": "a lot", "currency": "EUR"},
)


@pytest.fixture
def shop(workshop: Workshop, cli: Cli, tmp_path: Path) -> Workshop:
    """Three payments of a file; two with amounts."""
    workshop.file.write_text(workshop.file.read_text() + AMOUNTS)
    file = tmp_path / "day.jsonl"
    common = {"time": "2026-01-01T10:00:00Z", "service.name": "shop"}
    file.write_text("".join(f"{json.dumps(common | row)}\n" for row in ROWS))
    assert cli("import", str(file), "--json")[0] == 0
    return workshop


@pytest.mark.usefixtures("shop")
def test_trails_are_found_by_their_amounts(cli: Cli) -> None:
    def of(text: str) -> list[str]:
        code, out, err = cli("find", "--amount", text, "--json")
        assert code == 0, err
        return sorted(trail["trail"].removeprefix("transaction/") for trail in json.loads(out)["trails"])

    assert of("EUR:12.5") == of("EUR:10..20") == ["p1"]
    assert of("EUR:10..") == ["p1", "p2"]
    assert of("USD:1000") == ["p2"]
    assert of("USD:..999") == []
    assert "EUR 900, USD 1000" in cli("find", "--amount", "USD:..")[1]
    code, _, err = cli("find", "--amount", "10..20")
    assert (code, "CURRENCY:LEAST..MOST" in err) == (2, True)
    # the same amount does not make two payments one story
    found = json.loads(cli("find", "--kind", "key", "--json")[1])["trails"]
    assert [trail["trail"] for trail in found if "amount" in trail["trail"]] == []


def test_what_is_found_is_proved_and_the_index_is_checked(shop: Workshop, cli: Cli, tmp_path: Path) -> None:
    bundle = tmp_path / "p1.zip"
    assert cli("export", "p1", "-o", str(bundle))[0] == 0
    code, out, _ = cli("verify", str(bundle), "--key", str(shop.places.log_vkey))
    assert (code, out[:4]) == (0, "TRUE")
    shop.correlate()
    code, out, _ = cli("check")
    assert (code, "TRUE" in out) == (0, True), out
    with sqlite3.connect(shop.places.index) as db:
        db.execute("DELETE FROM amounts WHERE currency = 'USD'")
    db.close()
    code, out, _ = cli("check")
    assert code == 1
    assert "does not have all of its currencies" in out
    assert cli("reindex")[0] == 0
    assert cli("check")[0] == 0
