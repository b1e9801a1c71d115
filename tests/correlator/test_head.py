"""Heads and stagings as bytes: round trips, and every way to be malformed."""

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.errors import VerificationError
from correlator.head import (
    Head,
    StagingRef,
    decode_head,
    decode_staging,
    encode_head,
    encode_staging,
    staging_epoch,
)
from correlator.tiles import ENTRIES, Tile

HEAD = Head(
    epoch=3,
    writer="correlator-1",
    written_ns=1_767_225_600_000_000_000,
    size=300,
    root="ab" * 32,
    checkpoint="ledger.example\n300\n…\n",
    stagings=(StagingRef(name=f"300-{'ab' * 32}.3", sha256="cd" * 32),),
)
OBJECTS = [
    (Tile(level=ENTRIES, index=1, width=44), b"\x00\x01a" * 44),
    (Tile(level=0, index=0), bytes(8192)),
    (Tile(level=1, index=0, width=1), b"x" * 32),
]


def ref_of(data: bytes) -> StagingRef:
    return StagingRef(name="s", sha256=sha256(data).hexdigest())


def test_a_head_round_trips_in_one_form() -> None:
    data = encode_head(HEAD)
    assert decode_head(data) == HEAD
    assert data.startswith(
        b'{"v":1,"epoch":3,"writer":"correlator-1","written_ns":1767225600000000000,"size":300,"root":"ab'
    )
    assert data.endswith(b"}]}\n")
    for other in (data[:-1], b" " + data, data.replace(b'"v":1', b'"v": 1'), data.replace(b'"v":1,', b"")):
        with pytest.raises(VerificationError, match="head"):
            decode_head(other)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1', b'"v":2'),
        (b'"name":"300-', b'"name":"../300-'),
        (b'abab.3"', b'abab-3"'),
        (b'"epoch":3', b'"epoch":0'),
        (b'"epoch":3', b'"epoch":"3"'),
        (b'"size":300', b'"size":-1'),
        (b'"size":300', b'"size":9223372036854775808'),
        (b'"writer"', b'"writes"'),
        (b'{"v"', b'{"more":1,"v"'),
    ],
)
def test_a_malformed_head_is_refused(old: bytes, new: bytes) -> None:
    assert old in encode_head(HEAD)
    with pytest.raises(VerificationError, match="head"):
        decode_head(encode_head(HEAD).replace(old, new))


def test_a_staging_round_trips() -> None:
    data = encode_staging(300, OBJECTS)
    assert decode_staging(data, ref_of(data)) == OBJECTS
    assert decode_staging(encode_staging(0, []), ref_of(encode_staging(0, []))) == []


def test_a_staging_is_the_one_that_the_head_names() -> None:
    data = encode_staging(300, OBJECTS)
    for other in (data[:-1], data + b"x", b"", data.replace(b"a", b"b")):
        with pytest.raises(VerificationError, match="staging/s is not the one that the head names"):
            decode_staging(other, ref_of(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b'{"v":1,"size":1,"objects":[["tile/0/000",1]]}\n',
        b'{"v":1,"size":1,"objects":[["tile/0/000",-1]]}\n',
        b'{"v":1,"size":1,"objects":[["tile/0/000",1]]}\nab',
        b'{"v":1,"size":1,"objects":[["../head",1]]}\na',
        b'{"v":1,"size":1,"objects":[["checkpoint",1]]}\na',
        b'{"v":1,"size":1,"objects":[["tile/0/000"]]}\na',
        b'{"v":2,"size":1,"objects":[]}\n',
    ],
)
def test_a_malformed_staging_is_refused_though_the_head_names_it(data: bytes) -> None:
    with pytest.raises(VerificationError):
        decode_staging(data, ref_of(data))


@given(st.binary() | st.text(alphabet='{}[]":,tile/0.p19v').map(str.encode))
def test_the_parsers_raise_only_their_own_error(data: bytes) -> None:
    for parse in (lambda: decode_head(data), lambda: decode_staging(data, ref_of(data))):
        try:
            parse()
        except VerificationError:
            pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["v", "epoch", "writer", "size", "root", "checkpoint", "stagings", "written_ns"]), JSON)
def test_a_head_with_any_field_replaced_is_read_or_refused(field: str, value: object) -> None:
    head = msgspec.json.decode(encode_head(HEAD)) | {field: value}
    try:
        data = msgspec.json.encode(head) + b"\n"
    except OverflowError:
        return
    try:
        assert encode_head(decode_head(data)) == data
    except VerificationError:
        pass


@pytest.mark.parametrize(
    ("name", "epoch"),
    [("5-ab.7", 7), ("5-ab.12", 12), ("5-ab", 0), ("", 0), ("5-ab.x", 0), ("5-ab.٣", 0), ("a." + "9" * 30, 0)],
)
def test_the_epoch_in_a_stagings_name(name: str, epoch: int) -> None:
    assert staging_epoch(name) == epoch
