"""Batches as a broker keeps them, with header names of any bytes."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("aiokafka")
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from collector.receive.kafka.records import AnyRecords

Header = tuple[bytes, bytes | None]


class Name(str):
    """A name that is written as these bytes, as clients in other languages write what they are given."""

    __slots__ = ("written",)
    written: bytes

    def encode(self, *_: Any) -> bytes:
        return self.written


def named(name: bytes) -> Name:
    it = Name("x" * len(name))
    it.written = name
    return it


def batch(records: list[list[Header]], *, first: int = 0, compression: int = 0) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1 << 20)
    for at, headers in enumerate(records):
        builder.append(at, 1_000 + at, b"k%d" % at, b"v" * 100, [(named(name), value) for name, value in headers])
    data = bytearray(builder.build())
    data[:8] = first.to_bytes(8, "big")  # the broker's to say, and no part of the checksum
    return bytes(data)


def read(records: Any) -> list[tuple[Any, ...]]:
    found = []
    while records.has_next():
        one = records.next_batch()
        assert one.validate_crc()
        found += [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, r.checksum, r.headers) for r in one]
    return found


headers = st.lists(st.tuples(st.binary(max_size=6), st.none() | st.binary(max_size=6)), max_size=3)


@given(st.lists(headers, min_size=1, max_size=4), st.lists(headers, min_size=1, max_size=3), st.integers(0, 4))
def test_names_of_any_bytes_are_read_and_all_else_as_the_library_reads_it(
    ones: list[list[Header]], others: list[list[Header]], compression: int
) -> None:
    data = batch(ones, compression=compression) + batch(others, first=len(ones), compression=compression)
    found = read(AnyRecords(data + data[:50]))  # brokers cut the last batch where the answer is full
    assert [one[0] for one in found] == list(range(len(ones) + len(others)))
    texts = [[(name.decode("utf-8", "backslashreplace"), value) for name, value in of] for of in ones + others]
    assert [one[-1] for one in found] == texts
    # the same with names that the library reads
    sound = [[(text.encode(), value) for text, value in of] for of in texts]
    alike = batch(sound[: len(ones)]) + batch(sound[len(ones) :], first=len(ones))
    assert found == read(MemoryRecords(alike))


def test_a_batch_of_before_kafka_0_11_is_read() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    builder.append(0, 1_000, b"k", b"v", [])
    assert [one[3:5] for one in read(AnyRecords(bytes(builder.build())))] == [(b"k", b"v")]


def test_what_is_cut_or_damaged_is_still_corrupt() -> None:
    data = bytearray(batch([[(b"\xff", b"1")], [(b"fine", b"2")]]))
    at = data.rindex(b"fine") - 1
    data[at] = 0x7E  # of a name that is longer than the batch
    found = iter(AnyRecords(bytes(data)).next_batch())
    assert next(found).headers == [(r"\xff", b"1")]
    with pytest.raises(CorruptRecordException):
        next(found)
