"""Which rows of a file are events of a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.batch import Batch, StreamId
from collector.errors import Malformed, Overloaded
from collector.event import Event, Origin
from collector.heldrows import HeldRows, held_rows
from tests.support.memory_store import MemoryStore
from tests.support.shipper import Shipper

STREAM = StreamId("import/0123456789abcdef")
ROWS = [*range(1, 1_500, 2), 7, *range(2, 700, 2)]


def stored() -> tuple[MemoryStore, list[Batch]]:
    store, shipper = MemoryStore(), Shipper(STREAM)
    batches = []
    for first in range(0, len(ROWS), 300):
        rows = ROWS[first : first + 300]
        batches.append(shipper.batch(*(Event(origin=Origin(receiver="import", file="a", row=row)) for row in rows)))
        store.append(batches[-1])
    return store, batches


@given(st.sets(st.integers(1, 1 << 20) | st.integers(1, 1 << 62)), st.integers(-1, 1 << 20))
def test_numbers_are_kept_as_a_set_keeps_them(numbers: set[int], other: int) -> None:
    rows = HeldRows()
    for number in (*numbers, 0, -3):
        rows.add(number)
    assert all(number in rows for number in numbers)
    assert (other in rows) == (other in numbers)


def test_all_events_below_a_sequence_tell_their_rows() -> None:
    store, _ = stored()
    rows = held_rows(store, STREAM, below=len(ROWS))
    assert {row for row in range(2_000) if row in rows} == set(ROWS)
    rows = held_rows(store, STREAM, below=20)
    assert {row for row in range(2_000) if row in rows} == set(ROWS[:20])
    assert 0 not in held_rows(store, STREAM, below=0)


def test_what_was_retired_hides_nothing_beside_it() -> None:
    store, batches = stored()
    del store.batches[STREAM][2]
    rows = held_rows(store, STREAM, below=len(ROWS))
    lost = set(ROWS[300:600])
    assert {row for row in range(2_000) if row in rows} == {row for row in ROWS if row not in lost}
    assert len(batches) > 3


def test_a_store_that_is_away_is_no_absence_and_what_is_no_event_is_said() -> None:
    store, batches = stored()
    store.down = "away"
    with pytest.raises(Overloaded):
        held_rows(store, STREAM, below=1)
    store.down = ""
    first = batches[0]
    store.batches[STREAM][1] = Batch(signed=first.signed, events=b"\xff" * len(first.events), lengths=first.lengths)
    with pytest.raises(Malformed, match="no event in stream import/"):
        held_rows(store, STREAM, below=1)
