"""Framing: messages come out as they went in, wherever a read ends; what is none is named with its place."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive.forward_framing import NIL, Framing

values = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=6) | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80)
@given(st.lists(values, max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_messages_come_out_as_they_went_in_wherever_a_read_ends(said: list[Any], lengths: list[int]) -> None:
    messages = [msgpack.packb(one) for one in said]
    data, framing, found, at = b"".join(messages), Framing(10_000), [], 0
    while at < len(data):
        piece = data[at : at + lengths[at % len(lengths)]]
        at += len(piece)
        framing.feed(piece)
        while (message := framing.next_message()) is not None:
            found.append(message)
    assert b"".join(found) == data
    assert framing.pending_bytes == 0
    assert [one for one in found if one.strip(NIL)] == [one for one in messages if one != NIL]


@settings(max_examples=80)
@given(st.binary(max_size=60))
def test_whatever_comes_is_given_out_or_kept_or_refused(data: bytes) -> None:
    framing, found, said = Framing(30), b"", ""
    try:
        framing.feed(data)
        while (message := framing.next_message()) is not None:
            assert len(message) <= 30
            found += message
    except Malformed as error:
        said = str(error)
    assert not said or f"byte {len(found)} of the connection" in said
    assert found + framing.take() == data


def test_a_message_that_is_too_large_is_refused_whole_or_half_and_a_small_one_before_it_is_not() -> None:
    small, large = msgpack.packb("x" * 500), msgpack.packb("x" * 1_100)
    for end in (len(large), 1_050):
        framing = Framing(1_000)
        framing.feed(small + large[:end])
        assert framing.next_message() == small
        with pytest.raises(Malformed, match=f"byte {len(small)} of the connection: a message of more than 1000 bytes"):
            framing.next_message()
        assert framing.take(100) == large[:100]


def test_heartbeats_in_a_row_are_one_message() -> None:
    framing, message = Framing(1_000), msgpack.packb("x")
    framing.feed(NIL * 2_500 + message + NIL + message)
    found = list(iter(framing.next_message, None))
    assert found == [NIL * 1_000, NIL * 1_000, NIL * 500, message, NIL, message]


def test_what_comes_behind_a_message_is_not_counted_to_it() -> None:
    framing, message = Framing(1_000), msgpack.packb("x" * 900)
    framing.feed(message * 1_000)
    assert all(framing.next_message() == message for _ in range(1_000))
    assert framing.next_message() is None


def test_more_at_once_than_can_be_held_is_refused() -> None:
    framing = Framing(1_000)
    with pytest.raises(Malformed) as raised:
        framing.feed(b"\xc0" * 2_000_000)
    assert raised.value.label == "too_large"
