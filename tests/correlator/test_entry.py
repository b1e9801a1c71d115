"""Entries as bytes: exactly one spelling, and one error for everything else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.entry import MAX_ENTRY_BYTES, Entry, Previous, decode_entry, encode_entry, ref_of
from correlator.errors import VerificationError

RECORDED = "2026-01-01T00:00:00.000000000Z"
FACTS = b'{"digest":"' + b"ab" * 32 + b'","name":"payment.captured","service":"payments"}'


def event_entry() -> Entry:
    return Entry(
        v=1,
        trail="transaction/tx-1",
        position=3,
        previous=Previous(leaf=41, hash="cd" * 32),
        kind="event",
        recorded=RECORDED,
        why="transaction: attributes.transaction_id",
        stream="payments/0123456789abcdef",
        sequence=7,
        facts=msgspec.Raw(FACTS),
    )


@pytest.mark.parametrize(("levels", "fits"), [(62, True), (63, False), (900, False), (40_000, False)])
def test_deep_nesting_is_refused(levels: int, fits: bool) -> None:
    """The entry and its detail are two levels; brackets in strings are none."""
    detail = msgspec.Raw(b'{"a":' + b"[" * levels + b"]" * levels + b',"b":"' + b"[{" * 100 + b'"}')
    shallow = {"kind": "verdict", "position": 0, "recorded": RECORDED, "trail": "transaction/t", "v": 1}
    data = msgspec.json.encode({"detail": detail, **shallow})
    if fits:
        assert decode_entry(data).detail["b"] == "[{" * 100
    else:
        with pytest.raises(VerificationError, match=r"nested deeper than 64 levels|at most 65535"):
            decode_entry(data)


def test_what_no_log_can_hold_is_refused() -> None:
    entry = Entry(v=1, trail="transaction/t", position=0, kind="verdict", recorded=RECORDED, detail={"a": "x" * 65_600})
    with pytest.raises(VerificationError, match="at most 65535"):
        decode_entry(msgspec.json.encode(entry, order="sorted"))


def test_facts_stand_in_the_entry_byte_for_byte() -> None:
    data = encode_entry(event_entry())
    assert b'"facts":' + FACTS in data
    entry = decode_entry(data)
    assert bytes(entry.facts) == FACTS
    assert (ref_of(entry).stream, ref_of(entry).sequence) == ("payments/0123456789abcdef", 7)
    assert encode_entry(entry) == data


def test_an_entry_without_facts_has_none() -> None:
    data = encode_entry(
        Entry(v=1, trail="stream/a/00", position=0, kind="gap", recorded=RECORDED, detail={"reason": "missing"})
    )
    assert b"facts" not in data
    assert bytes(decode_entry(data).facts) == b""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1', b'"v":2'),
        (b'"v":1', b'"v":1,"extra":1'),
        (b'"kind":"event"', b'"kind":"story"'),
        (b'"position":3', b'"position": 3'),
        (b'"position":3', b'"position":3.0'),
        (b'"sequence":7', b'"sequence":7,"sequence":7'),
        (b'"why":"transaction', b'"why":"\\u0074ransaction'),
        (b'"name":"payment.captured",', b'"name":"payment.captured","nme":1,'),
        (b'"sequence":7', b'"sequence":9007199254740993'),
        (b'"leaf":41', b'"leaf":9007199254740992'),
        (b'"digest"', b'"access":{"action":"read","head":9007199254740993,"principal":"ann"},"digest"'),
        # in the order of code points, which is not that of UTF-16 code units
        (b'"name":"payment', '"keys":{"\uffee":"1","\U0001f600":"2"},"name":"payment'.encode()),
    ],
)
def test_another_spelling_is_refused(old: bytes, new: bytes) -> None:
    data = encode_entry(event_entry())
    assert data.count(old) == 1
    with pytest.raises(VerificationError, match=r"^entry "):
        decode_entry(data.replace(old, new))


@pytest.mark.parametrize(
    ("canonical", "other"),
    [
        ('{"\U0001f600":1,"\uffee":1}', '{"\uffee":1,"\U0001f600":1}'),
        ('{"a":1e+22}', '{"a":1e22}'),
        ('{"a":0}', '{"a":-0.0}'),
        ('{"a":9007199254740992}', '{"a":9007199254740993}'),
        ('{"a":100000000000000000000}', '{"a":1e20}'),
    ],
)
def test_a_detail_is_spelled_as_rfc_8785_has_it(canonical: str, other: str) -> None:
    """What a verifier in another language, with a library for canonical JSON, takes and refuses."""
    gap = f'{{"detail":%s,"kind":"gap","position":0,"recorded":"{RECORDED}","trail":"stream/a/00","v":1}}'
    assert decode_entry((gap % canonical).encode()).kind == "gap"
    with pytest.raises(VerificationError, match=r"^entry "):
        decode_entry((gap % other).encode())


def test_an_entry_that_no_bundle_can_hold_is_not_written() -> None:
    with pytest.raises(ValueError, match=str(MAX_ENTRY_BYTES)):
        encode_entry(msgspec.structs.replace(event_entry(), why="x" * MAX_ENTRY_BYTES))


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(VerificationError, match="nested deeper than 64 levels"):
        decode_entry(b'{"detail":{"a":' + b"[" * 60_000)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_comes_the_parser_raises_its_own_error(data: bytes) -> None:
    with pytest.raises(VerificationError):
        decode_entry(data)
