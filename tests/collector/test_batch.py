"""Batches: the facts tree, signing, and every change to a signed header being noticed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from collector.batch import (
    MAX_BATCH_EVENTS,
    MAX_HEADER_BYTES,
    BatchHeader,
    Clock,
    Fork,
    SignedHeader,
    facts_root,
    open_header,
    sign_header,
    stream_id,
)
from collector.errors import VerificationError
from correlator.merkle import leaf_hashes, root_of

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
STREAM = "payments/0123456789abcdef"
LINES = [b'{"digest":"%064d"}' % at for at in range(5)]
FACTS = b"".join(line + b"\n" for line in LINES)


def header(**changes: object) -> BatchHeader:
    made = BatchHeader(
        v=1,
        ledger="test/ledger",
        stream=STREAM,
        number=2,
        first=10,
        count=len(LINES),
        previous="ab" * 32,
        facts_root=facts_root(LINES),
        key=KEY.public_key().public_bytes_raw().hex(),
        created="2023-01-30T11:50:59.971622667Z",
        clock=Clock(offset_ns=-5, uncertainty_ns=7),
        place="",
        heartbeat_seconds=60,
        closed=False,
        fork=None,
    )
    return msgspec.structs.replace(made, **changes)


def signed(**changes: object) -> SignedHeader:
    return sign_header(header(**changes), KEY, FACTS)


def flips(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.mark.parametrize("count", range(71))
def test_the_facts_root_is_the_merkle_tree_hash_of_rfc6962(count: int) -> None:
    lines = [b"line %d" % at for at in range(count)]
    assert facts_root(lines) == root_of(leaf_hashes(lines)).hex()


def test_a_signed_header_opens_to_what_was_signed() -> None:
    made = signed()
    opened = open_header(made.data, made.signature, FACTS)
    assert opened == made
    assert opened.header == header()
    assert opened.facts_lines() == LINES
    assert open_header(made.data, made.signature).facts == b""


def test_a_heartbeat_has_the_root_of_the_empty_tree() -> None:
    made = sign_header(header(count=0, facts_root=facts_root([])), KEY, b"")
    assert made.header.facts_root == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert open_header(made.data, made.signature, b"").facts_lines() == []


def test_every_flipped_bit_of_header_signature_and_facts_is_found() -> None:
    made = signed()
    changed = [(data, made.signature, FACTS) for data in flips(made.data)]
    changed += [(made.data, signature, FACTS) for signature in flips(made.signature)]
    changed += [(made.data, made.signature, facts) for facts in flips(FACTS)]
    for one in changed:
        with pytest.raises(VerificationError):
            open_header(*one)


@pytest.mark.parametrize(
    "facts",
    [
        b"",
        FACTS[:-1],
        FACTS + b"\n",
        FACTS + b"x",
        FACTS.replace(b"\n", b"\r\n"),
        b"".join(line + b"\n" for line in reversed(LINES)),
        b"".join(line + b"\n" for line in LINES[:-1]),
        b"".join(line + b"\n" for line in [*LINES, LINES[-1]]),
    ],
)
def test_other_facts_than_those_signed_are_refused(facts: bytes) -> None:
    made = signed()
    with pytest.raises(VerificationError, match=f"batch 2 of stream {STREAM}") as caught:
        open_header(made.data, made.signature, facts)
    assert caught.value.label == "facts"


@pytest.mark.parametrize("signature", [b"", b"\0" * 63, b"\0" * 64, b"\0" * 65])
def test_no_signature_is_no_signature(signature: bytes) -> None:
    with pytest.raises(VerificationError, match="signature does not hold") as caught:
        open_header(signed().data, signature, FACTS)
    assert caught.value.label == ""


def test_another_key_in_the_header_is_refused() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32).public_key().public_bytes_raw().hex()
    with pytest.raises(VerificationError, match="signature does not hold"):
        open_header(signed(key=other).data, signed(key=other).signature, FACTS)


def test_a_signature_over_the_bare_header_is_refused() -> None:
    made = signed()
    with pytest.raises(VerificationError):
        open_header(made.data, KEY.sign(made.data), FACTS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 0),
        ("v", 2),
        ("stream", "payments"),
        ("stream", "Payments/0123456789abcdef"),
        ("stream", "payments/0123456789abcdeg"),
        ("stream", "payments/0123456789abcdef\n"),
        ("number", 0),
        ("number", -1),
        ("first", -1),
        ("count", -1),
        ("count", MAX_BATCH_EVENTS + 1),
        ("previous", ""),
        ("previous", "AB" * 32),
        ("facts_root", "00" * 31),
        ("key", "zz" * 32),
        ("created", "2023-01-30T11:50:59Z"),
        ("created", ""),
        ("number", 2**53),
        ("first", 2**53),
        ("first", 2**64),
        ("clock", Clock(offset_ns=2**53, uncertainty_ns=0)),
        ("clock", Clock(offset_ns=-(2**53), uncertainty_ns=0)),
        ("clock", Clock(offset_ns=0, uncertainty_ns=2**64)),
        ("heartbeat_seconds", -1),
        ("heartbeat_seconds", 2**31 + 1),
        ("fork", Fork(stream=STREAM, number=1, digest="ab" * 32)),  # only a first header says so
    ],
)
def test_a_field_that_the_format_does_not_allow_is_named(field: str, value: object) -> None:
    made = signed(**{field: value})
    with pytest.raises(VerificationError, match=f"'{field}'"):
        open_header(made.data, made.signature)


def test_the_greatest_integers_that_the_format_allows() -> None:
    made = signed(
        number=2**53 - 1,
        first=2**53 - 1,
        clock=Clock(offset_ns=-(2**53) + 1, uncertainty_ns=2**53 - 1),
        heartbeat_seconds=2**31,
    )
    assert open_header(made.data, made.signature).header == made.header


@pytest.mark.parametrize(
    "fork",
    [
        Fork(stream="x", number=1, digest="ab" * 32),
        Fork(stream=STREAM, number=0, digest="ab" * 32),
        Fork(stream=STREAM, number=2**53, digest="ab" * 32),
        Fork(stream=STREAM, number=1, digest="ab"),
    ],
)
def test_a_fork_that_names_nothing_is_refused(fork: Fork) -> None:
    made = signed(number=1, previous="", fork=fork)
    with pytest.raises(VerificationError, match="fork"):
        open_header(made.data, made.signature)


def test_a_first_header_has_no_previous_and_may_name_a_fork() -> None:
    fork = Fork(stream=STREAM, number=7, digest="ab" * 32)
    made = signed(number=1, previous="", fork=fork)
    assert open_header(made.data, made.signature).header.fork == fork
    made = signed(number=1)
    with pytest.raises(VerificationError, match="previous"):
        open_header(made.data, made.signature)


def test_another_spelling_of_the_same_header_is_refused() -> None:
    plain = msgspec.json.decode(signed().data)
    for data in (
        msgspec.json.format(signed().data, indent=1),
        msgspec.json.encode(dict(reversed(plain.items()))),
        signed().data + b" ",
        signed().data.replace(b'"first":10', b'"first":10,"first":10'),
        signed().data.replace(b'"fork":null,', b""),
        signed().data.replace(b'"v":1', b'"v":1,"w":1'),
    ):
        with pytest.raises(VerificationError):
            open_header(data, KEY.sign(b"tallystick/batch/v1\n" + data))


def test_a_header_has_a_greatest_length() -> None:
    room = MAX_HEADER_BYTES - len(signed(place="").data)
    made = signed(place="x" * room)
    assert len(made.data) == MAX_HEADER_BYTES
    assert open_header(made.data, made.signature).header.place == "x" * room
    made = signed(place="x" * (room + 1))
    with pytest.raises(VerificationError, match="at most 8192"):
        open_header(made.data, made.signature)


@given(
    st.binary(max_size=300)
    | st.text(alphabet='{}[]":,0123456789abcdefklnorstuv_', max_size=80).map(str.encode)
    | st.builds(lambda at, what: signed().data[:at] + what + signed().data[at:], st.integers(0, 400), st.binary()),
    st.binary(max_size=70),
)
def test_any_bytes_raise_nothing_but_a_verification_error(data: bytes, signature: bytes) -> None:
    with pytest.raises(VerificationError):
        open_header(data, signature, b"")


@pytest.mark.parametrize(
    ("collector", "incarnation"),
    [
        ("", "0" * 16),
        ("A", "0" * 16),
        ("a", "0" * 15),
        ("a", "0" * 65),
        ("a/b", "0" * 16),
        ("a.", "0" * 16),
        ("a", "x"),
    ],
)
def test_a_stream_needs_a_name_that_fits_into_paths(collector: str, incarnation: str) -> None:
    with pytest.raises(ValueError, match="cannot name a stream"):
        stream_id(collector, incarnation)
    assert stream_id("a", "0" * 64) == f"a/{'0' * 64}"
