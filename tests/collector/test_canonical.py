"""Canonical bytes: the published vectors of RFC 8785, and our two paths against the `rfc8785` package on whatever Hypothesis thinks of."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from collector.canonical import MAX_DEPTH, MAX_SAFE_INTEGER, Normaliser, encode, encode_exact, number
from collector.errors import Malformed

VECTORS = ("arrays", "french", "structures", "unicode", "values", "weird")

# every kind of text that JSON has trouble with: line separators, quotes, controls, the last BMP characters, astral ones
texts = st.text(alphabet=st.characters(exclude_categories=())) | st.sampled_from(
    ["\u2028", '"\\/\b\f\n\r\t\x00\x7f', "\uffff", "\ufb33", "\U0001f600", "\ud83d", "\ude00\ud83d", "é", "é"]
)
integers = st.integers() | st.sampled_from(
    [sign * (MAX_SAFE_INTEGER + step) for sign in (1, -1) for step in (-1, 0, 1, 2)]
)
floats = st.floats() | st.floats(min_value=-1e-3, max_value=1e-3) | st.floats(min_value=1e14, max_value=1e22)
scalars = st.none() | st.booleans() | integers | floats | texts | st.binary(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5) | st.tuples(inner) | st.dictionaries(texts | st.integers(), inner, max_size=5)
    ),
    max_leaves=20,
)


def normalised(value: Any) -> tuple[Any, Normaliser]:
    walk = Normaliser()
    return walk.value(value), walk


def reference(value: Any) -> bytes:
    return rfc8785.dumps(value)


@pytest.mark.parametrize("name", VECTORS)
def test_the_published_vectors(data_dir: Path, name: str) -> None:
    folder = data_dir / "vectors" / "jcs"
    document, walk = normalised(json.loads((folder / "input" / f"{name}.json").read_text("utf-8")))
    expected = (folder / "output" / f"{name}.json").read_bytes()
    assert bytes.fromhex((folder / "outhex" / f"{name}.txt").read_text("ascii")) == expected
    assert encode(document, exact=walk.exact) == expected
    assert encode_exact(document) == expected


def test_ten_thousand_published_numbers(data_dir: Path) -> None:
    lines = (data_dir / "vectors" / "jcs" / "es6numbers_10k.txt").read_text("ascii").splitlines()
    assert len(lines) == 10_000
    for line in lines:
        bits, _, expected = line.partition(",")
        (value,) = struct.unpack(">d", bytes.fromhex(bits.rjust(16, "0")))
        assert number(value) == expected, bits
        plain, walk = normalised({"n": value})
        assert encode(plain, exact=walk.exact) == b'{"n":%s}' % expected.encode(), bits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        number(value)
    text = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}[str(value)]
    assert normalised({"n": value})[0] == {"n": text}


@given(values)
@example({"\U0001f600": 1, "\ufb33": 2})  # by code point the other way round
@example({"b": -0.0, "a": 1e21, "c": 5e-324, "d": 1e-7, "e": 0.00001, "f": 123456789012345.6})
@example([10.0**16, 2.0**53, -(2.0**53), 1e15, 1e15 + 0.5, 1e-4, 9.999e-5])
def test_both_paths_give_the_bytes_of_the_rfc8785_package(value: Any) -> None:
    try:
        plain, walk = normalised(value)
    except Malformed as error:
        if error.label != "duplicate_key":  # as {1: …, "1": …}: nothing else is wrong with these values
            raise
        return
    expected = reference(plain)
    assert encode_exact(plain) == expected
    assert encode(plain, exact=walk.exact) == expected


@given(values)
def test_normalising_twice_is_normalising_once(value: Any) -> None:
    try:
        once, walk = normalised(value)
    except Malformed:
        return
    twice, again = normalised(once)
    assert encode_exact(twice) == encode_exact(once)
    assert not again.marks
    assert walk.exact or not again.exact


@given(values)
def test_canonical_bytes_read_as_canonical_give_themselves(value: Any) -> None:
    try:
        plain, walk = normalised({"body": value})
    except Malformed:
        return
    data = encode(plain, exact=walk.exact)
    back = Normaliser(canonical=True)
    assert encode(back.value(msgspec.json.decode(data)), exact=back.exact) == data


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MAX_SAFE_INTEGER, MAX_SAFE_INTEGER),
        (MAX_SAFE_INTEGER + 1, "9007199254740992"),
        (-MAX_SAFE_INTEGER - 1, "-9007199254740992"),
        (2**200, str(2**200)),
        (True, True),
        (1.0, 1),
        (-0.0, 0),
        (b"\xff\x00", "/wA="),
        (memoryview(b"ab"), "YWI="),
        ((1, 2), [1, 2]),
        (msgspec.msgpack.Ext(5, b"x"), {"ext": 5, "data": "eA=="}),
        (datetime(2023, 1, 30, 11, 50, 59, 971622, UTC), "2023-01-30T11:50:59.971622000Z"),
        (datetime(2023, 1, 30, 12, 50, 59, 0, timezone(timedelta(hours=1))), "2023-01-30T11:50:59.000000000Z"),
        (
            {None: 1, True: 2, 7: 3, b"\xff": 4, b"caf\xc3\xa9": 5},
            {"null": 1, "true": 2, "7": 3, "/w==": 4, "café": 5},
        ),
    ],
)
def test_what_a_decoder_gives_becomes_json(value: Any, expected: Any) -> None:
    got, _ = normalised(value)
    assert got == expected
    assert type(got) is type(expected)


def test_surrogates_that_belong_together_are_joined_and_lone_ones_replaced() -> None:
    plain, walk = normalised(["\ud83d\ude00", "a\ud83db"])
    assert plain == ["\U0001f600", "a�b"]
    assert walk.marks == {"surrogate_replaced"}


@pytest.mark.parametrize(
    "value", [{1: "a", "1": "b"}, dict.fromkeys(["\ud800", "\ud801"]), {b"\xff": 1, "/w==": 2}, {b"a": 1, "a": 2}]
)
def test_two_keys_that_become_one_are_refused(value: Any) -> None:
    with pytest.raises(Malformed) as refused:
        normalised(value)
    assert refused.value.label == "duplicate_key"


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"k": inner}])
def test_nesting_has_a_limit(wrap: Any) -> None:
    value: Any = "leaf"
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    normalised(value)
    with pytest.raises(Malformed) as refused:
        normalised(wrap(value))
    assert refused.value.label == "too_deep"
    for _ in range(50_000):
        value = wrap(value)
    with pytest.raises(Malformed):
        normalised(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, {(1, 2): 3}, lambda: None])
def test_what_no_decoder_gives_is_refused(value: Any) -> None:
    with pytest.raises(Malformed):
        normalised({"body": value})
