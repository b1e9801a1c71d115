"""Apache Parquet with types that mean something: times to the nanosecond in UTC, money as decimals, few words as dictionaries.

Needs the extra ``parquet``. Written group by group: at most `GROUP_ROWS` rows, or `GROUP_BYTES` of text, are in memory.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audit_api.export.table import COLUMNS, VERSION, Kind, table_row
from audit_api.export.walk import Row
from collector.errors import Malformed
from collector.event import parse_time

__all__ = ["GROUP_BYTES", "GROUP_ROWS", "ParquetTable", "schema"]

GROUP_ROWS = 20_000
GROUP_BYTES = 16 << 20

_LEAST_NS, _MOST_NS = -(1 << 63), (1 << 63) - 1

_TYPES: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "word": pa.dictionary(pa.int32(), pa.string()),
    "whole": pa.int64(),
    "time": pa.timestamp("ns", tz="UTC"),
    "amount": pa.decimal128(23, 8),  # 15 digits, and 8 behind the dot: what an amount may have (docs/configuration.md)
    "json": pa.string(),
    "truth": pa.bool_(),
    "words": pa.list_(pa.string()),
}

_PROBLEM = next(at for at, column in enumerate(COLUMNS) if column.name == "problem")


def schema() -> pa.Schema:
    """The file's schema, each column with what it means as its metadata."""
    return pa.schema(
        [pa.field(column.name, _TYPES[column.kind], metadata={"about": column.about}) for column in COLUMNS],
        metadata={"tallystick.table": str(VERSION)},
    )


class _Sink(io.RawIOBase):
    """Takes what the library writes, until it is taken out."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._at

    def write(self, data: Any) -> int:
        """Keep a copy: the library's buffer is its own."""
        self._parts.append(bytes(data))
        self._at += len(self._parts[-1])
        return len(self._parts[-1])

    def drain(self) -> bytes:
        """What was written since the last time."""
        taken, self._parts = b"".join(self._parts), []
        return taken


class ParquetTable:
    """`audit_api.export.formats.Writer` of the table.

    A stated time outside of what 64 bits of nanoseconds hold (1677 to 2262) is null, and the row's `problem` has it in words.
    """

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self.about: Mapping[str, Any] = {"table": VERSION, "columns": [column.name for column in COLUMNS]}
        self._sink = _Sink()
        self._schema = schema()
        self._file = pq.ParquetWriter(self._sink, self._schema, compression="zstd", write_statistics=True)
        self._rows: list[list[Any]] = []
        self._held = 0

    def write(self, rows: Sequence[Row]) -> bytes:
        """See `Writer.write`."""
        for row in rows:
            self._rows.append(self._values(row))
            self._held += len(row.data) + len(row.raw or b"")
            if len(self._rows) >= GROUP_ROWS or self._held >= GROUP_BYTES:
                self._flush()
        return self._sink.drain()

    def finish(self) -> bytes:
        """See `Writer.finish`."""
        self._flush()
        self._file.close()
        return self._sink.drain()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = [
            pa.array(values, type=field.type)
            for values, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows, self._held = [], 0

    def _values(self, row: Row) -> list[Any]:
        values = table_row(row)
        for at, column in enumerate(COLUMNS):
            if values[at] is None:
                continue
            if column.kind == "time":
                values[at] = self._time(column.name, values, values[at])
            elif column.kind == "amount":
                values[at] = Decimal(values[at])
        return values

    def _time(self, name: str, values: list[Any], text: str) -> int | None:
        try:
            unix_ns = parse_time(text)
        except Malformed:
            unix_ns = _MOST_NS + 1
        if _LEAST_NS <= unix_ns <= _MOST_NS:
            return unix_ns
        self.notes["times_out_of_range"] += 1
        told = f"{name} {text} does not fit into 64 bits of nanoseconds"
        values[_PROBLEM] = f"{values[_PROBLEM]}; {told}" if values[_PROBLEM] else told
        return None
