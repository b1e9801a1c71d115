"""Framing: messages come out as they went in, wherever a read ends; what is none is named with its place."""

from __future__ import annotations

import os
import time
from pathlib import Path
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


@pytest.mark.parametrize("piece_bytes", [70_000, 1_000_000, 1_048_576, 3_999_999])
@pytest.mark.parametrize(
    "long",
    [
        ["tag", b"x" * 3_000_000, {"chunk": "c"}],
        ["tag", 1, {"m": "y" * 3_000_000, "n": b"z" * 2_500_000}, {"chunk": "c"}],
        ["tag", [[1, {"m": "y" * 1_500_000}]] * 3],
        ["tag", [[at, {"n": at}] for at in range(400_000)]],
        ["tag", msgpack.ExtType(5, b"e" * 3_000_000), b"\xdb" * 200_000],
        ["tag", b"\xdb\0\0\0\1" * 600_000],
    ],
    ids=["packed", "two", "three", "many", "ext", "like lengths"],
)
def test_a_long_message_comes_whole_in_whatever_pieces(long: Any, piece_bytes: int) -> None:
    message, small = msgpack.packb(long), msgpack.packb(["t", 1, {}])
    data, framing, found = small + message + small + message + NIL, Framing(8_000_000), []
    for at in range(0, len(data), piece_bytes):
        framing.feed(data[at : at + piece_bytes])
        while (one := framing.next_message()) is not None:
            found.append(one)
    assert found == [small, message, small, message, NIL]


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    framing = Framing(8_000_000)
    framing.feed(msgpack.packb(["t", b"x" * 9_000_000])[:100_000])
    with pytest.raises(Malformed, match="more than 8000000 bytes"):
        framing.next_message()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_half_a_long_message_is_held_once() -> None:
    data = msgpack.packb(["t", 1, {"m": "x" * 15_000_000}])
    before, framings = resident_bytes(), [Framing(16_000_000) for _ in range(10)]
    for framing in framings:
        for at in range(0, 14_000_000, 1_000_000):
            framing.feed(data[at : at + 1_000_000])
            assert framing.next_message() is None
    assert resident_bytes() - before < 220_000_000


def test_a_connection_does_not_keep_the_memory_of_its_longest_message() -> None:
    data = msgpack.packb("x" * 8_000_000)
    before, kept = resident_bytes(), []
    for _ in range(20):
        framing = Framing(16_000_000)
        for at in range(0, len(data), 1_000_000):
            framing.feed(data[at : at + 1_000_000])
            if framing.next_message() is not None:
                kept.append(framing)
    assert len(kept) == 20
    assert resident_bytes() - before < 80_000_000, "a few of them, not twenty"


def test_heartbeats_in_a_row_are_one_message() -> None:
    framing, message = Framing(1_000), msgpack.packb("x")
    framing.feed(NIL * 2_500 + message + NIL + message)
    found = list(iter(framing.next_message, None))
    assert found == [NIL * 1_000, NIL * 1_000, NIL * 500, message, NIL, message]


def test_a_heartbeat_between_any_two_messages_costs_no_copy_of_what_stands_behind_it() -> None:
    framing, count = Framing(4 * 2**20), 2**17
    framing.feed((NIL + b"\x90") * count + msgpack.packb(b"x" * 3 * 2**20))
    began = time.process_time()
    found = sum(1 for _ in iter(framing.next_message, None))
    assert time.process_time() - began < 2.0  # with a copy for each it is 384 GiB
    assert found == 2 * count + 1


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
