"""The zip of one spelling: other programs read it, and we read nothing that we could not have written."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator import archive
from correlator.archive import pack, unpack
from correlator.errors import VerificationError

MEMBERS = {"manifest.json": b'{"v":1}', "trail.ndjson": b"line\n" * 400, "checkpoint": b""}
PACKED = pack(MEMBERS)


def test_other_programs_read_it() -> None:
    with zipfile.ZipFile(io.BytesIO(PACKED)) as found:
        assert found.testzip() is None
        assert {name: found.read(name) for name in found.namelist()} == MEMBERS
        assert [info.date_time for info in found.infolist()] == [(1980, 1, 1, 0, 0, 0)] * 3


def test_what_is_packed_is_unpacked_in_its_order() -> None:
    assert list(unpack(PACKED).items()) == list(MEMBERS.items())
    assert pack(dict(unpack(PACKED))) == PACKED


@given(st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True), st.binary(), min_size=1, max_size=5))
def test_any_content_goes_through(members: dict[str, bytes]) -> None:
    assert unpack(pack(members)) == members


def test_every_flipped_bit_is_refused_or_changes_no_content() -> None:
    """Deflate has a few idle bits at its end, and nothing else that may differ."""
    idle = 0
    for at in range(len(PACKED)):
        for bit in range(8):
            changed = PACKED[:at] + bytes([PACKED[at] ^ 1 << bit]) + PACKED[at + 1 :]
            try:
                assert unpack(changed) == MEMBERS, (at, bit)
            except VerificationError:
                continue
            idle += 1
    assert idle <= 7 * len(MEMBERS)


def test_every_cut_and_any_addition_is_refused() -> None:
    for end in range(len(PACKED)):
        with pytest.raises(VerificationError):
            unpack(PACKED[:end])
    for changed in (PACKED + b"\0", b"\0" + PACKED, PACKED + PACKED, PACKED[:40] + b"\0" + PACKED[40:]):
        with pytest.raises(VerificationError):
            unpack(changed)


def foreign(*names: str, comment: bytes = b"", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name in names:
            made.writestr(zipfile.ZipInfo(name), b"content", compress_type=method)
        made.comment = comment
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        foreign("a"),  # made on Unix: its attributes are not ours
        foreign("a", comment=b"hidden"),
        foreign("a", method=zipfile.ZIP_STORED),
        foreign("../a"),
        foreign("/a"),
        foreign("A"),
        foreign(),
        b"",
        b"PK",
    ],
)
def test_other_zips_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        unpack(data)


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "", ".", "A", "a" * 65, "ü"])
def test_a_name_that_could_lead_elsewhere_is_not_packed(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a member"):
        pack({name: b""})
    raw = name.encode("utf-8")
    local, central = archive._headers(raw, 0, 2, 0, 0)
    body = local + b"\x03\x00"
    with pytest.raises(VerificationError, match="name"):
        unpack(body + central + archive._end(1, len(central), len(body)))


def test_two_members_of_one_name_are_refused() -> None:
    local, first = archive._headers(b"a", 0, 2, 0, 0)
    body = (local + b"\x03\x00") * 2
    _, second = archive._headers(b"a", 0, 2, 0, len(local) + 2)
    with pytest.raises(VerificationError, match="two members"):
        unpack(body + first + second + archive._end(2, len(first + second), len(body)))


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = pack({"a": bytes(2_000_000)})
    assert len(bomb) < 10_000
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 1_000_000)
    with pytest.raises(VerificationError, match="more than 1000000 bytes"):
        unpack(bomb)
    with pytest.raises(ValueError, match="1000000 bytes"):
        pack({"a": bytes(2_000_000)})


def test_a_member_that_lies_about_its_length_is_refused() -> None:
    plain = bytes(100_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(plain) + packer.flush()
    for stated in (len(plain) - 1, len(plain) + 1, 0):
        local, central = archive._headers(b"a", zlib.crc32(plain[:stated]), len(packed), stated, 0)
        with pytest.raises(VerificationError, match="does not unpack"):
            unpack(local + packed + central + archive._end(1, len(central), len(local + packed)))


def test_limits() -> None:
    with pytest.raises(ValueError, match="members"):
        pack({f"a{at}": b"" for at in range(17)})
    with pytest.raises(ValueError, match="members"):
        pack({})
    with pytest.raises(VerificationError, match="zip directory"):
        unpack(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 0, 0, 0))


@given(
    st.binary()
    | st.tuples(st.integers(0, len(PACKED)), st.binary(max_size=30)).map(lambda cut: PACKED[: cut[0]] + cut[1])
)
def test_unpack_raises_only_its_own_error(data: bytes) -> None:
    try:
        unpack(data)
    except VerificationError:
        pass
