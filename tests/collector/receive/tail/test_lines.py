"""Bytes cut into lines: the same however they arrive, each with its place, none longer than allowed."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from collector.receive.tail.lines import Line, LineCutter

texts = st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\0", b"\xff", b"longer than allowed"]), max_size=30).map(
    b"".join
)


def cut(pieces: list[bytes], breaks: tuple[int, ...] = ()) -> list[Line]:
    cutter = LineCutter(offset=7, max_bytes=8, breaks=breaks)
    found = [line for piece in pieces for line in cutter.feed(piece)]
    rest = cutter.rest()
    assert cutter.rest() is None
    return [*found, rest] if rest else found


@given(text=texts, cuts=st.lists(st.integers(0, 200)))
def test_lines_do_not_depend_on_how_the_bytes_arrive(text: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[here:there] for here, there in itertools.pairwise(places)]
    assert cut(pieces) == cut([text])


@given(text=texts)
def test_lines_are_what_stands_between_line_ends(text: bytes) -> None:
    found = cut([text])
    place = 7
    for line, expected in zip(found, text.split(b"\n"), strict=False):
        assert line.start == place
        place += len(expected) + line.ended
        assert line.end == place
        bare = expected.lstrip(b"\0")
        assert (line.data, line.size, line.hole) == (bare[:8], len(bare), expected[:1] == b"\0")
    assert place == 7 + len(text)


@given(text=texts, at=st.integers(1, 60))
def test_a_line_that_was_taken_to_end_somewhere_ends_there_again(text: bytes, at: int) -> None:
    earlier, later = text[:at], text[at:]
    first = cut([earlier])
    again = cut([text], breaks=(7 + len(earlier),))
    assert again[: len(first)] == first
    assert again[len(first) :] == [
        line for line in cut([b"\n" * len(earlier) + later]) if line.start >= 7 + len(earlier)
    ]  # fmt: skip
