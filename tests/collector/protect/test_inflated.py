"""Streams in refused input: what can be read of them stands there, and none of their own bytes."""

from __future__ import annotations

import gzip
import random
import sys
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.protect.inflated import inflated

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST = 131_072
CARD = b'{"message":"card 4111111111111111 declined"}'
each_kind = pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, zstd.compress])
Compress = Callable[[bytes], bytes]


def hidden(data: bytes) -> bool:
    """Whether the card number stands in a stream that somebody could inflate."""
    for at in range(len(data)):
        for bits in (31, 15):
            stream, out = zlib.decompressobj(bits), b""
            try:
                for place in range(at, len(data)):
                    out += stream.decompress(data[place : place + 1])
            except zlib.error:
                pass
            if CARD[17:30] in out:
                return True
        if data[at : at + 4] == b"\x28\xb5\x2f\xfd":
            return True
    return False


@each_kind
def test_a_whole_stream_is_opened_in_its_place(compress: Compress) -> None:
    assert (
        inflated(b"\x93\xa3pay\xc4" + compress(CARD) + b"\x81\xa1a\xff", MOST)
        == b"\x93\xa3pay\xc4" + CARD + b"\x81\xa1a\xff"
    )
    assert inflated(compress(CARD) + compress(b"second") + b"\xff", MOST) == CARD + b"second\xff"
    assert inflated(compress(compress(CARD)), MOST) == CARD


@each_kind
def test_of_a_cut_or_damaged_stream_stands_what_comes_out_of_it(compress: Compress) -> None:
    for stream in (compress(CARD)[:-3], compress(CARD)[:-4] + b"\xff\xff\xff\xfe\xff" * 9):
        told = inflated(b"\xff" + stream, MOST)
        assert not hidden(told)
        assert b"compressed bytes from here on are not kept; SHA-256" in told


@each_kind
def test_what_is_too_long_or_too_deep_is_a_note(compress: Compress) -> None:
    told = inflated(compress(CARD + b"x" * 5_000_000), MOST)
    assert told.startswith(CARD)
    assert len(told) < MOST + 200
    deep = CARD
    for _ in range(9):
        deep = compress(deep)
    assert b"SHA-256" in inflated(deep, MOST)
    assert not hidden(inflated(deep, MOST))


@each_kind
@pytest.mark.timeout(20)
def test_streams_of_streams_hold_no_more_than_one_may(compress: Compress) -> None:
    bomb = compress(bytes(MOST - 1))
    bombs = compress(bomb * (MOST // len(bomb)))
    told = inflated(b"\xff" + bombs * (MOST // len(bombs)), MOST)
    assert len(told) < 3 * MOST
    assert b"SHA-256" in told
    last = inflated(b"\xff" + compress(bytes(MOST)) + compress(CARD * 100), MOST)
    assert not hidden(last[MOST:])


def test_what_holds_no_stream_is_what_it_was() -> None:
    for data in (
        b"",
        b"plain text, x^2 and hC",
        "Gr\u00fc\u00dfe, caf\u00e9".encode(),
        "caf\u00e9".encode()[:-1],
        b"\xff\xfe binary x\x9c",
        CARD,
    ):
        assert inflated(data, MOST) is data


@pytest.mark.parametrize("begin", [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"x\x9c"])
@pytest.mark.timeout(20)
def test_many_beginnings_take_no_time(begin: bytes) -> None:
    inflated(b"\xff" + begin * (MOST // len(begin)), MOST)


@given(st.binary(max_size=300), st.integers(0, 2**32), st.booleans())
def test_no_card_number_stays_in_a_stream(around: bytes, seed: int, damage: bool) -> None:
    chance = random.Random(seed)
    stream = bytearray(gzip.compress(CARD) if chance.random() < 0.5 else zlib.compress(CARD))
    if damage:
        stream[chance.randrange(30, len(stream))] ^= 1 << chance.randrange(8)
    told = inflated(b"\xff" + around[: len(around) // 2] + bytes(stream) + around[len(around) // 2 :], MOST)
    assert bytes(stream) not in told
