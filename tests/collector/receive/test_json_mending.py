"""Nulls and halves of surrogate pairs: what is mended is what a lenient decoder reads, and nothing else is touched."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.receive.json_mending import mended, restore_halves

HALF = re.compile("[\ud800-\udfff]")


class Node(msgspec.Struct):
    """A message."""

    text: str = ""
    number: int = 0
    below: list[Node] | None = None


texts = st.text(st.characters(exclude_characters="\ufdd0"), max_size=8) | st.lists(
    st.sampled_from(["\\", '"', "\ud83d", "\ude42", "\\ud83d", "\\ude42", ",", "{", '"text"', ":null", "n"]), max_size=8
).map("".join)
nodes = st.recursive(
    st.fixed_dictionaries({}, optional={"text": texts | st.none(), "number": st.integers(0, 9) | st.none()}),
    lambda inner: st.fixed_dictionaries(
        {"below": st.lists(inner, max_size=3) | st.none()}, optional={"text": texts | st.none()}
    ),
    max_leaves=6,
)


def lenient(told: dict[str, Any]) -> Node:
    kept = {name: value for name, value in told.items() if value is not None}
    if "text" in kept:
        kept["text"] = HALF.sub("\ud800", kept["text"])
    if "below" in kept:
        kept["below"] = [lenient(one) for one in kept["below"]]
    return Node(**kept)


@given(told=nodes, spaced=st.sampled_from([(",", ":"), (" , ", " : "), (",\n", ":\t")]))
def test_what_is_mended_is_what_a_lenient_decoder_reads(told: dict[str, Any], spaced: tuple[str, str]) -> None:
    body = json.dumps(told, separators=spaced).encode()
    better = mended(body)
    node = msgspec.json.decode(body if better is None else better, type=Node)
    restore_halves(node)
    assert node == lenient(json.loads(body))


@pytest.mark.parametrize("body", [b"{}", rb'{"text":"\ud83d\ude42 null, \"n\":null"}', b'{"below":[null]}', b"no"])
def test_what_needs_no_mending_is_left_alone(body: bytes) -> None:
    assert mended(body) is None


def test_a_long_body_is_left_alone() -> None:
    assert mended(b'{"text":null}') == b'{"":0}'
    assert mended(b'{"text":null}' + b" " * 4 * 2**20) is None
