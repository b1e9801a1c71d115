"""Text from a file to the search: taken in, in the log, found by words, and the index held to the log."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

ROWS = (
    {"payment_id": "P-1", "event_name": "refund.requested", "service.name": "shop"},
    {"payment_id": "P-1", "event_name": "gatewayTimeout", "service.name": "payments"},
    {"payment_id": "P-2", "event_name": "refund.requested", "service.name": "shop"},
    {"payment_id": "P-3", "event_name": "paid", "service.name": "shop", "message": "no refund timeout here"},
    {"payment_id": "4111 1111 1111 1111", "event_name": "paid", "service.name": "shop"},
)


@pytest.fixture
def shop(workshop: Workshop, cli: Cli, tmp_path: Path) -> Workshop:
    """Four payments of a file, one with a card's number where its id should be."""
    file = tmp_path / "day.jsonl"
    file.write_text("".join(f"{json.dumps({'time': '2026-01-01T10:00:00Z'} | row)}\n" for row in ROWS))
    assert cli("import", str(file), "--json")[0] == 0
    return workshop


@pytest.mark.usefixtures("shop")
def test_trails_are_found_by_words(cli: Cli) -> None:
    def of(*options: str) -> list[str]:
        code, out, err = cli("find", "--kind", "transaction", "--json", "--text", *options)
        assert code == 0, err
        return sorted(trail["trail"].removeprefix("transaction/") for trail in json.loads(out)["trails"])

    assert of("Refund TIMEOUT") == ["P-1"]
    assert of("refund") == of("refund shop") == ["P-1", "P-2"]
    assert of("refund", "--service", "payments") == ["P-1"]
    assert of("refund p-2") == ["P-2"]
    assert len(of("pai*")) == 2
    assert of("p-*") == ["P-1", "P-2", "P-3"]
    assert of("here") == [], "messages are not in the index"
    assert of("4111") == of("4111111111111111") == [], "nor what protection has taken out"
    assert "transaction/P-1" in cli("find", "--text", "timeout")[1]
    for text, told in ((" ", "no word"), ("*", "beginning of a word"), ("a b c d e f g h i", "8 words")):
        code, _, err = cli("find", "--text", text)
        assert (code, told in err) == (2, True), err


def test_what_is_searched_is_held_to_the_log(shop: Workshop, cli: Cli) -> None:
    shop.correlate()
    assert cli("check")[0] == 0
    for damage, named in (
        ("DELETE FROM words WHERE word = 'timeout'", "does not have all of its words"),
        ("INSERT INTO texts SELECT 'p-9', min(first_leaf) FROM trails", "has more of its texts"),
    ):
        with sqlite3.connect(shop.places.index) as db:
            db.execute(damage)
        db.close()
        code, out, _ = cli("check")
        assert (code, named in out) == (1, True), out
        assert cli("reindex")[0] == 0
    assert cli("check")[0] == 0
