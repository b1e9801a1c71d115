"""What is cut before it goes on record keeps no part of a card number, wherever the cut falls."""

from __future__ import annotations

import re
import time

import pytest

from audit_api.accesses import MAX_TEXT, Asked, access_event
from audit_api.clipped import clipped
from audit_api.purpose import MAX_PURPOSE, as_kept
from collector.extract import Extractor, StitchSettings
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive import Arrival

SPELLINGS = (
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "４１１１１１１１１１１１１１１１",
    "4111%201111%201111%201111",
    "4111&nbsp;1111&nbsp;1111&nbsp;1111",
    r"4111\u00a01111\u00a01111\u00a01111",
    r"4111\x201111\x201111\x201111",
)


def kept(path: str, query: str, purpose: str) -> str:
    """The digits in the event as it is stored."""
    event = access_event(
        Asked(action="trail.read", method="GET", path=path, query=query, purpose=as_kept(purpose)),
        principal="ann",
        status=200,
        now_ns=1_700_000_000_000_000_000,
    )
    preparer = Preparer(
        extractor=Extractor(StitchSettings()), protector=Protector(token_key=bytes(32)), clock=time.time_ns
    )
    (data,) = preparer.prepare([Arrival(event=event)]).events
    text = data.decode()
    return re.sub(r"\[4111 11\*\* \*\*\*\* 1111~card:[a-z]+\]", "", text)


@pytest.mark.parametrize("card", SPELLINGS)
def test_no_cut_leaves_a_part_of_a_card_number(card: str) -> None:
    for inside in range(1, len(card)):
        query = f"text={'a' * (MAX_TEXT - 6 - inside)} {card} and more"
        path = f"/{'a' * (MAX_TEXT - 2 - inside)} {card} and more"
        purpose = f"{'a' * (MAX_PURPOSE - 1 - inside)} {card} and more"
        text = kept(path, query.replace("%", "%25").replace("&", "%26"), purpose)
        assert "4111" not in text, (inside, text)
        assert "４１" not in text, (inside, text)


def test_only_the_end_is_let_go_of() -> None:
    assert clipped("order 77", 8) == "order 77"
    assert clipped("order 77 of ann", 15) == "order 77 of ann"
    assert clipped("order 77 of ann, 12", 17) == "order 77 of ann"
    assert clipped("1" * 400, 300) == ""
    started = time.monotonic()
    for hostile in ("%" * 300 + "a", "\\u" * 150 + "z", "&" * 299 + "z!", "1" * 299 + "z1"):
        clipped(hostile * 2, 300)
    assert time.monotonic() - started < 1.0
