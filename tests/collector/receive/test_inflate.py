"""Decompression that stays within its bounds, whatever it is given."""

from __future__ import annotations

import gzip
import random
import sys
import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive.inflate import MAX_RATIO, gunzip, unzstd

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Packer = Callable[[bytes], bytes]
CODINGS = pytest.mark.parametrize(
    ("pack", "unpack", "label"), [(gzip.compress, gunzip, "bad_gzip"), (zstd.compress, unzstd, "bad_zstd")]
)


@CODINGS
def test_one_member_and_many_are_their_content_in_a_row(pack: Packer, unpack: Callable[..., bytes], label: str) -> None:
    parts = [b"", b"a" * 10, bytes(range(256)) * 5_000, b"z"] * 3
    assert unpack(pack(parts[2]), max_bytes=10**7) == parts[2]
    assert unpack(b"".join(map(pack, parts)), max_bytes=10**8) == b"".join(parts)
    assert unpack(memoryview(pack(b"view")), max_bytes=4) == b"view"


@CODINGS
def test_the_bound_is_exact(pack: Packer, unpack: Callable[..., bytes], label: str) -> None:
    data = pack(b"ab" * 500) + pack(b"c")
    assert len(unpack(data, max_bytes=1_001)) == 1_001
    with pytest.raises(Malformed, match="more than 1000 bytes") as caught:
        unpack(data, max_bytes=1_000)
    assert caught.value.label == "too_large"


@CODINGS
@pytest.mark.parametrize("cut", [0, 1, 5, 12, -1, -9])
def test_what_is_cut_or_followed_by_something_else_is_refused(
    pack: Packer, unpack: Callable[..., bytes], label: str, cut: int
) -> None:
    data = pack(b"some text, and some more of it, until it is long enough")
    for broken in (data[:cut], data + data[:cut] if cut else b"", data + b"\0", b"\0" + data):
        with pytest.raises(Malformed) as caught:
            unpack(broken, max_bytes=1_000)
        assert caught.value.label == label


def test_a_zstd_bomb_is_bounded_by_its_own_length_too() -> None:
    for extra in (0, 10_000):
        bomb = zstd.compress(b"\0" * 60_000_000) + zstd.compress(random.Random(1).randbytes(extra))
        assert len(bomb) < 20_000
        with pytest.raises(Malformed, match=f"more than {max(8 * 2**20, MAX_RATIO * len(bomb))} bytes"):
            unzstd(bomb, max_bytes=64_000_000)
    small = zstd.compress(b"\0" * 8_000_000)  # a chunk of equal lines
    assert len(unzstd(small, max_bytes=64_000_000)) == 8_000_000


def test_gzip_at_its_best_is_within_the_ratio() -> None:
    best = gzip.compress(b"\0" * 8_000_000, 9)
    assert len(gunzip(best, max_bytes=8_000_000)) == 8_000_000


def test_a_zstd_window_of_more_than_8_mib_is_refused() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.checksum_flag: 1}
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(b"x" * 100) + compressor.flush()  # streaming: the header states the window
    with pytest.raises(Malformed) as caught:
        unzstd(data, max_bytes=1_000)
    assert caught.value.label == "bad_zstd"


@CODINGS
def test_very_many_small_members_take_no_quadratic_time(pack: Packer, unpack: Callable[..., bytes], label: str) -> None:
    """Each member would copy all that follows it: gigabytes here."""
    start = time.process_time()
    assert unpack(pack(b"") * 30_000, max_bytes=1_000) == b""
    assert time.process_time() - start < 10


def test_there_are_only_so_many_members() -> None:
    with pytest.raises(Malformed, match="pieces of gzip"):
        gunzip(gzip.compress(b"") * 140_000, max_bytes=1_000)


@CODINGS
def test_a_skewed_end_is_found_in_every_place(pack: Packer, unpack: Callable[..., bytes], label: str) -> None:
    two = pack(b"first" * 50) + pack(b"second" * 50)
    for cut in range(len(two)):
        try:
            whole = unpack(two[:cut], max_bytes=10_000)
        except Malformed:
            continue
        assert (whole, cut) == (b"first" * 50, len(pack(b"first" * 50)))


@settings(max_examples=200)
@given(st.binary(max_size=120), st.integers(0, 40), st.binary(max_size=4), st.integers(0, 300))
def test_any_bytes_give_content_within_the_bound_or_malformed(
    content: bytes, place: int, other: bytes, bound: int
) -> None:
    for pack, unpack in ((gzip.compress, gunzip), (zstd.compress, unzstd), (zlib.compress, gunzip), (bytes, unzstd)):
        data = bytearray(pack(content))
        data[place : place + len(other)] = other
        try:
            assert len(unpack(data, max_bytes=bound)) <= bound
        except Malformed as error:
            assert error.label in {"bad_gzip", "bad_zstd", "too_large"}  # noqa: PT017 - either is right
