r"""Records of Kafka with header names that are not UTF-8, which the broker takes from any producer and the library's reader raises on.

It raises each time it meets one, so the partition would stand, and with it what else is read in the same turn. Here the batch that holds it is read once
more, and bytes of a name that are not UTF-8 stand in it as escapes: ``caf\xe9``. All other batches are read as ever, by the library's own C.

The library has no place to say this, so `read_any_name` replaces one of its own names, of a minor version that the extra `kafka` pins.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

__all__ = ["AnyRecords", "read_any_name"]


def read_any_name() -> None:
    """Have all consumers of this process read what they fetch as `AnyRecords`."""
    fetcher.MemoryRecords = AnyRecords


class AnyRecords:
    """What a broker has answered of one partition, as the library's own `MemoryRecords`; `data` are its batches."""

    def __init__(self, data: bytes) -> None:
        self._records = MemoryRecords(data)
        self._data = data
        self._at = 0

    def size_in_bytes(self) -> int:
        """Of all."""
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        """Whether there is a batch that has come whole."""
        return bool(self._records.has_next())

    def next_batch(self) -> "_AnyBatch":
        """The next one. Raises the library's CorruptRecordException."""
        batch = self._records.next_batch()
        at, self._at = self._at, self._at + _MemoryRecordsPy.LOG_OVERHEAD + _length(self._data, self._at)
        return _AnyBatch(batch, memoryview(self._data)[at : self._at])


def _length(data: bytes, at: int) -> int:
    """Bytes of the batch that begins here, behind its offset and this length."""
    at += _MemoryRecordsPy.LENGTH_OFFSET
    return int.from_bytes(data[at : at + 4], "big", signed=True)


class _AnyBatch:
    """The library's batch, but for what iterating over it gives."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        records = iter(self._batch)
        while True:
            try:
                record = next(records)
            except StopIteration:
                return
            except UnicodeDecodeError:
                yield from islice(_EscapingBatch(self._data), read, None)
                return
            read += 1
            yield record

    def __next__(self) -> Any:
        return next(self._batch)


class _Record(NamedTuple):
    """What the library reads of a record."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class _EscapingBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # the library is not typed
    """The library's batch in Python, with a reader of its own: `__next__` there makes CorruptRecordException of ValueError and IndexError."""

    _pos: int

    def _read_msg(self) -> _Record:
        """The next record (https://kafka.apache.org/documentation/#record)."""
        length, start = decode_varint(self._buffer, self._pos)
        self._pos = start
        self._number()  # attributes, of which none is in use
        timestamp = self.first_timestamp + self._number()
        offset = self.base_offset + self._number()
        key, value = self._bytes(), self._bytes()
        headers = []
        for _ in range(self._number()):
            name = self._bytes()
            if name is None:
                raise ValueError("a header without a name")
            headers.append((name.decode("utf-8", "backslashreplace"), self._bytes()))
        if self._pos - start != length:
            raise ValueError("a record of another length than it says")
        if self.timestamp_type == self.LOG_APPEND_TIME:
            timestamp = self.max_timestamp
        return _Record(offset, timestamp, self.timestamp_type, key, value, headers)

    def _number(self) -> int:
        number, self._pos = decode_varint(self._buffer, self._pos)
        return int(number)

    def _bytes(self) -> bytes | None:
        size = self._number()
        if size < 0:
            return None
        start, self._pos = self._pos, self._pos + size
        if self._pos > len(self._buffer):
            raise ValueError("a record that is cut")
        return bytes(self._buffer[start : self._pos])
