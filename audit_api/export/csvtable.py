"""CSV (RFC 4180) that a spreadsheet may open: no cell of it is a formula, and none is longer than a spreadsheet takes.

Every value but numbers, times, hashes and truth values comes from outside, so any of them may begin with what a spreadsheet takes for a
formula (CWE-1236, OWASP "CSV Injection"): ``= + - @``, their full-width forms, tab, carriage return and line feed, also behind blanks. Such a cell
gets an apostrophe in front; so does one that begins with an apostrophe, so that who takes one leading apostrophe off each guarded column has what was
there. Numbers that we wrote ourselves, such as the amount -12.5, are left alone: they are numbers.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from audit_api.export.table import COLUMNS, VERSION, table_row
from audit_api.export.walk import Row

__all__ = ["MAX_CELL", "CsvTable", "guarded", "unguarded"]

MAX_CELL = 32_767
"""Characters: Excel and others cut a longer cell without a word, so we cut it with one."""

_CUT = " … [cut: {more} characters more]"
_RISKY = re.compile(r"'|[\s\x00-\x20\u00a0\u200b\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n\x00]")
_GUARDED = frozenset(("text", "word", "json", "words"))


def guarded(text: str) -> str:
    """The cell with an apostrophe in front if a spreadsheet might take it for a formula, or if it begins with one."""
    return f"'{text}" if _RISKY.match(text) else text


def unguarded(cell: str) -> str:
    """What `guarded` was given."""
    return cell.removeprefix("'")


class CsvTable:
    """`audit_api.export.formats.Writer` of the table: UTF-8, a header, commas, CRLF, every cell that is text in quotes.

    Nothing and an empty text differ: the one is an empty cell, the other a pair of quotes.
    """

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self.about: Mapping[str, Any] = {"table": VERSION, "columns": [column.name for column in COLUMNS]}
        self._header = ",".join(column.name for column in COLUMNS) + "\r\n"

    def write(self, rows: Sequence[Row]) -> bytes:
        """See `Writer.write`."""
        lines = [self._take_header()]
        for row in rows:
            cells = (self._cell(column.kind, value) for column, value in zip(COLUMNS, table_row(row), strict=True))
            lines.append(",".join(cells) + "\r\n")
        return "".join(lines).encode("utf-8")

    def finish(self) -> bytes:
        """See `Writer.finish`."""
        return self._take_header().encode("utf-8")

    def _take_header(self) -> str:
        header, self._header = self._header, ""
        return header

    def _cell(self, kind: str, value: Any) -> str:
        if value is None:
            return ""
        if kind not in _GUARDED:
            return {True: "true", False: "false"}[value] if kind == "truth" else str(value)
        text = " ".join(value) if kind == "words" else value
        cell = guarded(text)
        if cell is not text:
            self.notes["guarded_cells"] += 1
        if len(cell) > MAX_CELL:
            self.notes["cut_cells"] += 1
            kept = MAX_CELL - len(_CUT.format(more=len(cell)))
            cell = cell[:kept] + _CUT.format(more=len(cell) - kept)
        return '"' + cell.replace('"', '""') + '"'
