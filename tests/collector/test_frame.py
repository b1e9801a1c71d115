"""Frames: written, read back, and never read wrongly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.frame import PREFIX_BYTES, FrameError, durable_behind, read_frame, write_frame

ids = st.binary(max_size=255)
lines = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))
groups = st.lists(st.tuples(ids, st.binary(max_size=60), lines), max_size=6)


def written(
    rows: list[tuple[bytes, bytes, bytes]], *, first: int = 7, durable: int = 5, group_id: bytes = b"g"
) -> bytes:
    return write_frame(
        first=first,
        durable=durable,
        group_id=group_id,
        source_ids=[row[0] for row in rows],
        events=[row[1] for row in rows],
        facts=[row[2] for row in rows],
    )


ROWS = [(b"", b'{"body":1}', b'{"digest":"a"}'), (b"uid", b'{"body":22}', b'{"digest":"b"}')]
DATA = written(ROWS)


@given(groups, ids, st.integers(0, 2**63), st.integers(0, 2**63), st.binary(max_size=50))
def test_a_frame_reads_back_as_it_was_written(
    rows: list[tuple[bytes, bytes, bytes]], group_id: bytes, first: int, durable: int, before: bytes
) -> None:
    data = before + written(rows, first=first, durable=durable, group_id=group_id)
    frame = read_frame(data + b"behind", len(before))
    assert (frame.first, frame.durable, frame.group_id, frame.count) == (first, durable, group_id, len(rows))
    assert list(frame.source_ids) == [row[0] for row in rows]
    assert frame.events == b"".join(row[1] for row in rows)
    assert list(frame.event_lengths) == [len(row[1]) for row in rows]
    assert frame.facts == b"".join(row[2] + b"\n" for row in rows)
    assert frame.end == len(data)


def test_a_frame_cut_anywhere_is_no_frame() -> None:
    for end in range(len(DATA)):
        with pytest.raises(FrameError):
            read_frame(DATA[:end])


def test_a_frame_with_any_bit_flipped_is_no_frame() -> None:
    for at in range(len(DATA)):
        for bit in range(8):
            with pytest.raises(FrameError):
                read_frame(DATA[:at] + bytes([DATA[at] ^ 1 << bit]) + DATA[at + 1 :])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_frame_error(data: bytes) -> None:
    import struct
    import zlib

    for candidate in (data, DATA[:4] + data, struct.pack("<4sII", b"TSF1", len(data), zlib.crc32(data)) + data):
        try:
            frame = read_frame(candidate)
        except FrameError:
            continue
        assert frame.facts.count(b"\n") == frame.count == len(frame.source_ids)
        assert sum(frame.event_lengths) == len(frame.events)


def test_every_frame_behind_a_damaged_place_is_asked_what_was_durable() -> None:
    same_commit, later = written(ROWS, first=9, durable=7), written(ROWS, first=11, durable=11)
    damaged = DATA[:20] + b"\0" * 10 + DATA[30:]
    assert durable_behind(damaged, 1) == 0
    assert durable_behind(damaged + same_commit, 1) == 7
    assert durable_behind(damaged + same_commit + later, 1) == 11
    assert durable_behind(damaged + same_commit + later + same_commit, 1) == 11
    assert durable_behind(damaged + same_commit[:-1] + later, 1) == 11
    assert durable_behind(damaged + same_commit + later[:-1], 1) == 7
    assert durable_behind(b"TSF1" * 10, 0) == 0


def test_a_frame_has_a_greatest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.frame.MAX_FRAME_BYTES", len(DATA) - PREFIX_BYTES - 1)
    with pytest.raises(ValueError, match="at most"):
        written(ROWS)
    with pytest.raises(FrameError, match="no frame"):
        read_frame(DATA)
