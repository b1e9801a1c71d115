"""A stream cut into messages, in both ways of RFC 6587: the same however the bytes arrive, and bounded."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from collector.receive.syslog.framing import Frame, FrameReader

messages = st.lists(
    st.tuples(
        st.booleans(), st.binary(max_size=40).map(lambda data: b"<1>" + data.replace(b"\n", b"").replace(b"\0", b""))
    ),
    max_size=8,
)


def framed(counted: bool, data: bytes) -> bytes:
    return b"%d %b" % (len(data), data) if counted else data + b"\n"


def cut(pieces: list[bytes], max_bytes: int = 16) -> list[Frame]:
    reader = FrameReader(max_bytes=max_bytes)
    found = [frame for piece in pieces for frame in reader.feed(piece)]
    return found + reader.end()


@given(messages=messages, cuts=st.lists(st.integers(0, 400)))
def test_both_framings_in_any_pieces(messages: list[tuple[bool, bytes]], cuts: list[int]) -> None:
    stream = b"".join(framed(*one) for one in messages)
    places = sorted({0, len(stream), *(place for place in cuts if place < len(stream))})
    found = cut([stream[here:there] for here, there in itertools.pairwise(places)])
    assert found == [Frame(data=data[:16], size=len(data)) for _, data in messages]


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200)))
def test_any_bytes_give_the_same_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(data), *(place for place in cuts if place < len(data))})
    pieces = [data[here:there] for here, there in itertools.pairwise(places)]
    assert cut(pieces) == cut([data] if data else [])


def test_a_counted_message_may_hold_line_ends_and_a_line_may_begin_with_no_priority() -> None:
    assert [frame.data for frame in cut([b"7 <1>a\nb\n8 <1>c\n\0d\n"])] == [b"<1>a\nb\n", b"<1>c\n\0d\n"]
    assert [frame.data for frame in cut([b"GET / HTTP/1.1\r\n<1>x\0<2>y"])] == [
        b"GET / HTTP/1.1\r"[:16],
        b"<1>x",
        b"<2>y",
    ]


def test_what_the_end_cuts_off_says_so() -> None:
    assert cut([b"<1>abc"]) == [Frame(data=b"<1>abc", size=6, ended=False)]
    assert cut([b"50 <1>abc"]) == [Frame(data=b"<1>abc", size=6, ended=False)]
    assert cut([b"12"]) == [Frame(data=b"12", size=2, ended=False)]
