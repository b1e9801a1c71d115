"""JSON indented piece by piece: the same bytes as in one go, and no memory for what is long."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.errors import VerificationError
from correlator.indented import indented

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.sampled_from(['"', "\\", '\\"[', "é{", "\n,:"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(JSON)
def test_pieces_are_what_is_indented_at_once(value: object) -> None:
    data = msgspec.json.encode([value, "x" * 70_000, {"one": value}, [], {}])
    pieces = list(indented(data, at_once_bytes=0))
    assert b"".join(pieces) == b"".join(indented(data)) == msgspec.json.format(data, indent=2)
    assert len(pieces) > 1
    assert all(piece.decode("utf-8") is not None for piece in pieces)
    short = msgspec.json.encode(value)
    assert (
        b"".join(indented(short, at_once_bytes=0)) == b"".join(indented(short)) == msgspec.json.format(short, indent=2)
    )


def test_what_is_long_is_never_there_as_a_whole() -> None:
    data = b"[" * 60 + b"0," * 200_000 + b"0" + b"]" * 60
    tracemalloc.start()
    try:
        length = sum(map(len, indented(data)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert length > 20_000_000
    assert most < 1_000_000


@pytest.mark.parametrize("data", [b"", b"[", b"nul", b"\xff", b"[" * 3_000 + b"1" * 6_000])
def test_what_is_no_json_is_told(data: bytes) -> None:
    with pytest.raises(VerificationError, match="cannot be read"):
        list(indented(data))
