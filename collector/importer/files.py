"""A file to import: what it is, told by its content, and its rows.

Marks that only a whole file or a plain look at the time can tell are set here: `time_implausible` on a row dated before 1970 or after
2199, `newest_first` on the rows of a file that runs backwards. Neither changes what the row says.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice, pairwise
from pathlib import Path

from collector.errors import Malformed
from collector.event import Origin
from collector.importer.csv import Broken, delimiter_of, fields, records
from collector.importer.jsonlines import arrival_of_json_line
from collector.importer.mapping import Mapping
from collector.importer.rows import CsvRows
from collector.importer.source import MAX_ROW_BYTES, Source, lines
from collector.imports import Row
from collector.receive import Arrival
from collector.receive.docker import arrival_of_docker_line, is_docker
from collector.receive.json_lines import object_of_line
from collector.rejection import Rejection

__all__ = ["ImportFile", "read_rows"]

_SAMPLED_ROWS = 1_000
"""Rows from which it is told whether a file runs newest first."""

_MAX_HEADER_BYTES = 65_536
_FIRST_TIME, _LAST_TIME = "1970", "2200"  # RFC 3339 texts compare as times do


class ImportFile:
    """One file, looked at but not yet read.

    Args:
        path: the file, plain or gzip.
        mappings: those that a CSV may be read by; the one with exactly its columns is taken.

    Attributes:
        name: the file's name without its folder: it goes into every row's origin.
        sha256: of the file as it is stored: names its stream.
        size_bytes: of the file as it is stored.
        format: csv, jsonlines or docker.
        mapping: the mapping's name; empty when none fits, and each row is taken as a free record.

    Raises:
        OSError: it cannot be read.
        Malformed: it is empty, or none of the formats.
    """

    def __init__(self, path: Path, mappings: Sequence[Mapping] = ()) -> None:
        self._source = Source(path)
        self.name = path.name.encode("utf-8", "replace").decode()
        self.sha256 = self._source.sha256
        self.size_bytes = self._source.size_bytes
        self._header: list[str] = []
        self._delimiter = ","
        self._mapping: Mapping | None = None
        with closing(self._source.open()) as stream:
            first = next((line for line in lines(stream) if line.strip()), b"").removeprefix(b"\xef\xbb\xbf").strip()
        if not first:
            raise Malformed("an empty file", where=self.name, label="bad_file")
        self.format = "csv"
        if first.startswith(b"{"):
            self.format = "docker" if _looks_like_docker(first) else "jsonlines"
        else:
            self._read_header(first, mappings)

    @property
    def mapping(self) -> str:
        """See the class."""
        return self._mapping.name if self._mapping else ""

    def _read_header(self, first: bytes, mappings: Sequence[Mapping]) -> None:
        try:
            if len(first) > _MAX_HEADER_BYTES:
                raise Malformed(f"a header of more than {_MAX_HEADER_BYTES} bytes", label="bad_csv")
            header = first.decode()
            for mapping in mappings:
                columns = fields(header, mapping.delimiter)
                if len(columns) == len(mapping.columns) and set(columns) == set(mapping.columns):
                    self._header, self._delimiter, self._mapping = columns, mapping.delimiter, mapping
                    return
            self._delimiter = delimiter_of(header)
            self._header = fields(header, self._delimiter)
            if len(self._header) < 2:
                raise Malformed(
                    "its first line is neither a JSON object nor a header of several columns", label="bad_file"
                )
            CsvRows(self._header, None)
        except UnicodeDecodeError as error:
            raise Malformed("its first line is not text", where=self.name, label="bad_file") from error
        except Malformed as error:
            raise Malformed(str(error), where=self.name, label=error.label) from error

    def rows(self) -> Iterator[Row]:
        """The rows in their order, numbered from 1; each is an `Arrival` or a `Rejection`.

        Raises OSError. Compressed data that is damaged gives its rows up to there, and then one `Rejection`.
        """
        with closing(self._source.open()) as stream:
            source = lines(stream)
            read = self._csv_rows(source) if self.format == "csv" else self._json_rows(source)
            yield from _marked(read)

    def _csv_rows(self, source: Iterator[bytes]) -> Iterator[Row]:
        rows = CsvRows(self._header, self._mapping)
        taken = records(source, self._delimiter)
        delimiter = self._delimiter

        def arrival(record: bytes, origin: Origin, source_id: bytes) -> Arrival:
            text = record.decode("utf-8", "surrogateescape")
            return rows.arrival(fields(text, delimiter), origin=origin, source_id=source_id)

        yield from self._numbered(islice(taken, 1, None), arrival)

    def _json_rows(self, source: Iterator[bytes]) -> Iterator[Row]:
        docker = self.format == "docker"

        def arrival(line: bytes, origin: Origin, source_id: bytes) -> Arrival:
            if docker:
                one = arrival_of_docker_line(line, origin=origin)
                return one if one.source_id else Arrival(event=one.event, source_id=source_id)
            return arrival_of_json_line(line, origin=origin, source_id=source_id)

        def taken() -> Iterator[bytes | Broken]:
            for line in source:
                if len(line) > MAX_ROW_BYTES:
                    error = Malformed(f"a row of more than {MAX_ROW_BYTES} bytes", label="too_large")
                    yield Broken(raw=line, error=error)
                elif bare := line.removeprefix(b"\xef\xbb\xbf").strip():
                    yield bare

        yield from self._numbered(taken(), arrival)

    def _numbered(
        self, taken: Iterable[bytes | Broken], arrival: Callable[[bytes, Origin, bytes], Arrival]
    ) -> Iterator[Row]:
        number = 0
        iterator = iter(taken)
        while True:
            number += 1
            raw = b""
            try:
                record = next(iterator, None)
                if record is None:
                    return
                if isinstance(record, Broken):
                    raw = record.raw
                    raise record.error
                raw = record
                source_id = b"row\0" + hashlib.sha256(record).digest()
                yield arrival(record, Origin(receiver="import", file=self.name, row=number), source_id)
            except Malformed as error:
                where = f"{self.name} row {number}" + (f", {error.where}" if error.where else "")
                yield Rejection(
                    raw=raw,
                    error=Malformed(error.reason, where=where, label=error.label),
                    origin=Origin(receiver="import", file=self.name, row=number),
                    source_id=b"bad\0" + hashlib.sha256(f"{self.sha256}/{number}".encode()).digest(),
                )
                if error.label == "bad_gzip":
                    return


def read_rows(path: Path, mapping: Mapping | None = None) -> Iterator[Row]:
    """The rows of a file, read by this mapping where it has its columns. Raises as `ImportFile`."""
    return ImportFile(path, [mapping] if mapping else []).rows()


def _looks_like_docker(line: bytes) -> bool:
    try:
        return is_docker(object_of_line(line))
    except Malformed:
        return False


def _marked(rows: Iterator[Row]) -> Iterator[Row]:
    sample = list(islice(rows, _SAMPLED_ROWS))
    times = [row.event.time for row in sample if isinstance(row, Arrival) and row.event.span is None and row.event.time]
    back = sum(later < earlier for earlier, later in pairwise(times))
    forth = sum(later > earlier for earlier, later in pairwise(times))
    newest_first = back > 1 and back > 2 * forth
    for row in chain(sample, rows):
        if isinstance(row, Arrival):
            time = row.event.time
            if time and not _FIRST_TIME <= time < _LAST_TIME:
                row.event.marks.append("time_implausible")
            if newest_first and row.event.span is None:
                row.event.marks.append("newest_first")
        yield row
