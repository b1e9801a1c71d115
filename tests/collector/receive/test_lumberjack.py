"""Lumberjack's frames, by bytes written down from the sources of github.com/elastic/go-lumber; and fuzzed."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive import lumberjack
from collector.receive.lumberjack import Document, FrameReader, Limits, Window, ack


def window(size: int, version: bytes = b"2") -> bytes:
    return version + b"W" + struct.pack(">I", size)


def document(sequence: int, value: Any, version: bytes = b"2") -> bytes:
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    return version + b"J" + struct.pack(">II", sequence, len(payload)) + payload


def pairs(sequence: int, fields: dict[str, str], version: bytes = b"1") -> bytes:
    texts = b"".join(struct.pack(">I", len(text.encode())) + text.encode() for pair in fields.items() for text in pair)
    return version + b"D" + struct.pack(">II", sequence, len(fields)) + texts


def compressed(content: bytes, version: bytes = b"2") -> bytes:
    payload = zlib.compress(content)
    return version + b"C" + struct.pack(">I", len(payload)) + payload


def read(*pieces: bytes, limits: Limits | None = None) -> list[Window | Document]:
    reader = FrameReader(limits)
    found = [frame for piece in pieces for frame in reader.frames(piece)]
    assert reader.pending_bytes == 0
    return found


def test_the_bytes_of_the_protocol() -> None:
    assert read(bytes.fromhex("325700000001324a 00000001 00000007") + b'{"a":1}') == [
        Window(size=1),
        Document(version=0x32, sequence=1, json=b'{"a":1}', last=True),
    ]
    assert read(bytes.fromhex("315700000001" "3144 00000007 00000001 00000004") + b"line" + bytes.fromhex("00000002") + b"hi") == [
        Window(size=1),
        Document(version=0x31, sequence=7, fields={"line": "hi"}, last=True),
    ]  # fmt: skip
    assert ack(0x32, 258) == bytes.fromhex("3241 00000102")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_window_of_documents_however_it_is_cut(wrapped: bool) -> None:
    content = b"".join(document(n, {"n": n}) for n in range(1, 4))
    data = window(3) + (compressed(content) if wrapped else content)
    whole = read(data)
    assert [frame.last for frame in whole if isinstance(frame, Document)] == [False, False, True]
    assert read(*(data[at : at + 1] for at in range(len(data)))) == whole
    for cut in range(len(data)):
        assert read(data[:cut], data[cut:]) == whole


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_has_come_of_a_long_document_is_not_read_again_with_each_piece(
    wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes sent byte by byte were work for as long as megabytes."""
    fields = {f"name {at}": "value" for at in range(500)}
    content = pairs(1, fields) + pairs(2, {})
    data = window(2, b"1") + (compressed(content, b"1") if wrapped else content)
    steps = 0

    def counted(*place: Any) -> bytes:
        nonlocal steps
        steps += 1
        return part(*place)

    part = lumberjack._part
    monkeypatch.setattr(lumberjack, "_part", counted)
    (_, first, second) = read(*(data[at : at + 1] for at in range(len(data))))
    assert isinstance(first, Document)
    assert (first.fields, second) == (fields, Document(version=0x31, sequence=2, fields={}, last=True))
    assert steps < 10_000


def test_a_window_may_be_compressed_in_parts_and_mixed() -> None:
    data = window(4) + document(1, {}) + compressed(document(2, {}) + document(3, {})) + pairs(4, {"line": "x"})
    assert [frame.sequence for frame in read(data) if isinstance(frame, Document)] == [1, 2, 3, 4]


def test_a_new_window_ends_the_one_before_it() -> None:
    reader = FrameReader()
    told = [(list(reader.frames(data))[-1], reader.in_window) for data in (window(5) + document(1, {}), window(0))]
    assert [in_window for _, in_window in told] == [True, False]
    assert told[1][0] == Window(size=0)


BOMB = b"2C" + struct.pack(">I", len(zlib.compress(b"\0" * 10**7))) + zlib.compress(b"\0" * 10**7)


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b"GET / HTTP/1.1\r\n", "framing"),
        (b"\x16\x03\x01\x02\x00", "framing"),
        (b"2X", "framing"),
        (b"3W\0\0\0\1", "framing"),
        (document(1, {}), "framing"),
        (window(1) + document(1, {}) + document(2, {}), "framing"),
        (window(2) + compressed(compressed(document(1, {}))), "framing"),
        (window(2) + compressed(window(1) + document(1, {})), "framing"),
        (window(2) + compressed(document(1, {})[:-1]), "framing"),
        (window(2) + compressed(b""), None),
        (window(2) + b"2C\0\0\0\3abc", "bad_zlib"),
        (window(2) + b"2C\0\0\0\0", "bad_zlib"),
        (window(2) + b"2C" + struct.pack(">I", 15) + zlib.compress(document(1, {}))[:15], "bad_zlib"),
        (window(2) + b"2C" + struct.pack(">I", 9 + len(zlib.compress(b""))) + zlib.compress(b"") + b"trailing!", "framing"),
        (window(2) + b"2J\0\0\0\1" + struct.pack(">I", 2_000_000), "too_large"),
        (window(2) + b"2C" + struct.pack(">I", 2**32 - 1), "too_large"),
        (window(2) + b"1D\0\0\0\1" + struct.pack(">I", 1_001), "too_large"),
        (window(2) + b"1D\0\0\0\1\0\0\0\1" + struct.pack(">I", 2**31), "too_large"),
        (window(2) + BOMB, "framing"),
        (window(2) + compressed(b"".join(document(n, b" " * 900_000) for n in range(3))), "too_large"),
    ],
)  # fmt: skip
def test_what_is_refused(data: bytes, label: str | None) -> None:
    limits = Limits(max_frame_bytes=1_000_000, max_inflated_bytes=2_000_000)
    reader = FrameReader(limits)
    with pytest.raises(Malformed) if label else contextlib.nullcontext() as refused:
        list(reader.frames(data))
    if refused is not None:
        assert refused.value.label == label
        assert reader.take(10) == reader.take()[:10] != b""


def test_a_length_is_believed_only_as_far_as_bytes_have_come() -> None:
    reader = FrameReader()
    assert list(reader.frames(window(2**32 - 1) + b"2J\0\0\0\1" + struct.pack(">I", 10_000_000) + b"x")) == [
        Window(size=2**32 - 1)
    ]
    assert reader.pending_bytes == 11


frame_like = st.one_of(
    st.builds(window, st.integers(0, 5)),
    st.builds(document, st.integers(0, 9), st.sampled_from([{}, b"", b"[", {"a": "b"}])),
    st.builds(pairs, st.integers(0, 9), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3)),
    st.builds(compressed, st.builds(lambda n: document(n, {}) * n, st.integers(0, 4))),
    st.binary(max_size=20),
)


@given(
    st.lists(frame_like, max_size=6),
    st.lists(st.integers(0, 200), max_size=4),
    st.integers(0, 400),
    st.integers(0, 255),
)
@example([window(9), compressed(document(1, {}))], [3], 12, 0)
def test_nothing_but_malformed_is_raised_and_cuts_change_nothing(
    frames: Sequence[bytes], cuts: Sequence[int], at: int, flipped: int
) -> None:
    data = bytearray(b"".join(frames))
    if at < len(data):
        data[at] ^= flipped
    limits = Limits(max_frame_bytes=500, max_inflated_bytes=300, max_pairs=3)
    outcomes = []
    for places in ([], sorted(cuts)):
        reader, found, label = FrameReader(limits), [], ""
        ends = [*places, len(data)]
        try:
            for start, end in zip([0, *ends], ends, strict=False):
                found += list(reader.frames(bytes(data[start:end])))
        except Malformed as error:
            label = error.label
        outcomes.append((label, found if not label else None))
    assert outcomes[0] == outcomes[1]
