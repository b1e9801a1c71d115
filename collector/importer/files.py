"""A file to import: what it is, told by its content, and its rows.

Marks that only a whole file or a plain look at the time can tell are set here: `time_implausible` on a row dated before 1970 or after
2199, `newest_first` on the rows of a file that runs backwards. Neither changes what the row says.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, dropwhile, islice, pairwise
from pathlib import Path

from collector.errors import Malformed
from collector.event import Origin
from collector.importer.csv import Broken, delimiter_of, fields, records, stated_delimiter
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

_GROUP_ROWS = 1_000
_GROUP_BYTES = 4 * 1024**2
"""A group of rows is closed when it has so many, or so many bytes of the file: so much is held in memory, and a row."""

_MAX_HEADER_BYTES = 65_536
_LIKE_A_VALUE = re.compile(r"\d{4}-\d\d-\d\d|\d:\d\d|\d{9}", re.ASCII).search
"""A date, a time of day or a number since 1970: such words name no column, unless a mapping says so."""

_JSON_BEGUN = re.compile(rb"\{|\[(?:\s*[\[{].*)?", re.DOTALL)
"""First lines that are no JSON line: all behind them would be dead letters, or a CSV's columns."""

_PACKED = ((b"PK\3\4", "zip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))

_FIRST_TIME, _LAST_TIME = "1970", "2200"  # RFC 3339 texts compare as times do


class ImportFile:
    """One file, looked at but not yet read.

    Args:
        path: the file, plain or gzip.
        mappings: those that a CSV may be read by; the one with exactly its columns is taken.

    Attributes:
        path: where it is.
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
        self.path = path
        self._source = Source(path)
        self.name = path.name.encode("utf-8", "replace").decode()
        self.sha256 = self._source.sha256
        self.size_bytes = self._source.size_bytes
        self._header: list[str] = []
        self._delimiter = ","
        self._header_lines = 1
        self._mapping: Mapping | None = None
        with closing(self._source.open()) as stream:
            source = (line for line in lines(stream) if line.strip())
            first = next(source, b"").removeprefix(b"\xef\xbb\xbf")
            stated = stated_delimiter(first.strip(b" \r\n"))
            if stated:
                self._header_lines = 2
                first = next(source, b"")
        if not first.strip():
            raise Malformed("an empty file", where=self.name, label="bad_file")
        if packed := next((name for magic, name in _PACKED if first.startswith(magic)), ""):
            raise Malformed(f"packed as {packed}: unpack it, gzip alone is read", where=self.name, label="bad_file")
        if b"\0" in first:
            raise Malformed(
                "its first line holds NUL, as UTF-16 has it, or a file in which something was never written: text must be UTF-8",
                where=self.name,
                label="bad_file",
            )
        if _JSON_BEGUN.fullmatch(first.strip()):
            raise Malformed(
                "its first line begins a JSON document of several lines, or an array: give each object a line of its own",
                where=self.name,
                label="bad_file",
            )
        self.format = "csv"
        if first.strip().startswith(b"{") and not stated:
            self.format = "docker" if _looks_like_docker(first.strip()) else "jsonlines"
        else:
            self._read_header(
                first.strip(b" \r\n"), mappings, stated
            )  # tabs at its ends stand for columns without a name

    def has_grown(self) -> bool:
        """Whether a longer file than what is read of it stands there by now."""
        return self._source.has_grown()

    @property
    def mapping(self) -> str:
        """See the class."""
        return self._mapping.name if self._mapping else ""

    def _read_header(self, first: bytes, mappings: Sequence[Mapping], stated: str) -> None:
        try:
            if len(first) > _MAX_HEADER_BYTES:
                raise Malformed(f"a header of more than {_MAX_HEADER_BYTES} bytes", label="bad_csv")
            header = first.decode()
            for mapping in mappings:
                delimiter = stated or mapping.delimiter
                columns = fields(header, delimiter)
                if len(columns) == len(mapping.columns) and set(columns) == set(mapping.columns):
                    self._header, self._delimiter, self._mapping = columns, delimiter, mapping
                    return
            self._delimiter = stated or delimiter_of(header)
            self._header = fields(header, self._delimiter)
            if len(self._header) < 2:
                raise Malformed(
                    "its first line is neither a JSON object nor a header of several columns", label="bad_file"
                )
            if "\r" in header:  # all of the file is one line then, and would be a header without rows
                raise Malformed("its lines end in CR alone: they must end in LF, or in CR and LF", label="bad_file")
            if any(map(_LIKE_A_VALUE, self._header)):
                raise Malformed(
                    "its first line looks like a row: a CSV begins with a header, and another text is nothing to import",
                    label="bad_file",
                )
            CsvRows(self._header, None)
        except UnicodeDecodeError as error:
            raise Malformed("its first line is not text in UTF-8", where=self.name, label="bad_file") from error
        except Malformed as error:
            raise Malformed(str(error), where=self.name, label=error.label) from error

    def rows(self) -> Iterator[Row]:
        """The rows in their order, numbered from 1; each is an `Arrival` or a `Rejection`.

        Raises OSError, also where the file is not what its SHA-256 is of any more: no row behind that place is given. Compressed data that
        is damaged gives its rows up to there, and then one `Rejection`.
        """
        return chain.from_iterable(self.groups())

    def groups(self) -> Iterator[list[Row]]:
        """The rows as `rows` gives them, in groups of up to a thousand rows or some 4 MiB. Raises OSError."""
        with closing(self._source.open()) as stream:
            source = lines(stream)
            read = self._csv_rows(source) if self.format == "csv" else self._json_rows(source)
            yield from _marked(_grouped(read))

    def _csv_rows(self, source: Iterator[bytes]) -> Iterator[tuple[Row, int]]:
        rows = CsvRows(self._header, self._mapping)
        taken = records(dropwhile(lambda line: not line.strip(), source), self._delimiter)
        delimiter = self._delimiter

        def arrival(record: bytes, origin: Origin, source_id: bytes) -> Arrival:
            text = record.decode("utf-8", "surrogateescape")
            return rows.arrival(fields(text, delimiter), origin=origin, source_id=source_id)

        # the same bytes under other columns are another row; under another mapping they are the same, which only says what it means
        columns = json.dumps([delimiter, *self._header]).encode()
        yield from self._numbered(
            islice(taken, self._header_lines, None), arrival, b"row2\0", hashlib.sha256(columns).digest()
        )

    def _json_rows(self, source: Iterator[bytes]) -> Iterator[tuple[Row, int]]:
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

        yield from self._numbered(taken(), arrival, b"row\0")

    def _numbered(
        self,
        taken: Iterable[bytes | Broken],
        arrival: Callable[[bytes, Origin, bytes], Arrival],
        kind: bytes,
        under: bytes = b"",
    ) -> Iterator[tuple[Row, int]]:
        """Each row and its bytes; one without an id of its own is recognised by `kind`, and the SHA-256 of `under` and its bytes."""
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
                source_id = kind + hashlib.sha256(under + record).digest()
                yield arrival(record, Origin(receiver="import", file=self.name, row=number), source_id), len(record)
            except Malformed as error:
                where = f"{self.name} row {number}" + (f", {error.where}" if error.where else "")
                rejection = Rejection(
                    raw=raw,
                    error=Malformed(error.reason, where=where, label=error.label),
                    origin=Origin(receiver="import", file=self.name, row=number),
                    source_id=b"bad\0" + hashlib.sha256(f"{self.sha256}/{number}".encode()).digest(),
                )
                yield rejection, len(raw)
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


def _grouped(rows: Iterator[tuple[Row, int]]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row, row_bytes in rows:
        group.append(row)
        size += row_bytes
        if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _marked(groups: Iterator[list[Row]]) -> Iterator[list[Row]]:
    """The groups with their rows' marks; whether a file runs newest first is told from the first of them."""
    newest_first = None
    for group in groups:
        if newest_first is None:
            newest_first = _runs_back(group)
        for row in group:
            if isinstance(row, Arrival):
                time = row.event.time
                if time and not _FIRST_TIME <= time < _LAST_TIME:
                    row.event.marks.append("time_implausible")
                if newest_first and row.event.span is None:
                    row.event.marks.append("newest_first")
        yield group


def _runs_back(sample: list[Row]) -> bool:
    times = [row.event.time for row in sample if isinstance(row, Arrival) and row.event.span is None and row.event.time]
    back = sum(later < earlier for earlier, later in pairwise(times))
    forth = sum(later > earlier for earlier, later in pairwise(times))
    return back > 1 and back > 2 * forth
