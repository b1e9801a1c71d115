"""CSV records (RFC 4180) with their exact bytes, read so that a broken one is lost alone.

Python's own reader gives fields without bytes, has one limit for the whole process, and reads a forgotten quote as one field to the
end of the file. Here a record is the lines up to the one that closes its quotes; when none does within the limit, or when what they hold
is no record, its first line is the broken record, and the next record begins with the next line.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from collector.errors import Malformed
from collector.importer.source import MAX_ROW_BYTES

__all__ = ["DELIMITERS", "Broken", "delimiter_of", "fields", "records", "stated_delimiter"]

DELIMITERS = ",;\t|"
"""Characters that may stand between fields."""

MAX_FIELDS = 1_024

_STATED = re.compile(rb'("?)sep=([,;\t|])\1', re.IGNORECASE)

_FIELD = {
    delimiter: re.compile(
        rf'(?:"([^"]*+(?:""[^"]*+)*+)"|([^"{re.escape(delimiter)}]*+))(?:({re.escape(delimiter)})|\Z)'
    ).match
    for delimiter in DELIMITERS
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """What stands where a record should be: its bytes, and why it is none."""

    raw: bytes
    error: Malformed


def records(lines: Iterable[bytes], delimiter: str = ",", max_bytes: int = MAX_ROW_BYTES) -> Iterator[bytes | Broken]:
    """The records without their line ends; empty lines are none. Raises what `lines` raises, behind the records before it."""
    waiting: deque[bytes] = deque()
    damage: list[Malformed] = []
    source = _up_to(damage, lines)
    while True:
        line = waiting.popleft() if waiting else next(source, None)
        if line is None:
            if damage:
                raise damage[0]
            return
        if len(line) > max_bytes:
            yield Broken(raw=line, error=Malformed(f"a row of more than {max_bytes} bytes", label="too_large"))
            continue
        if line.count(b'"') % 2:
            taken = _rest(line, waiting, source, delimiter, max_bytes)
            if taken is None:
                yield Broken(raw=_bare(line), error=Malformed("a quote that is never closed", label="bad_csv"))
                continue
            line = taken
        if record := _bare(line):
            yield record


def _up_to(damage: list[Malformed], lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines up to where they are damaged, as if they ended there: what was read in search of a quote must not go with the error."""
    try:
        yield from lines
    except Malformed as error:
        damage.append(error)


def _rest(line: bytes, waiting: deque[bytes], source: Iterator[bytes], delimiter: str, max_bytes: int) -> bytes | None:
    """The whole record that begins with `line`; None, with what was looked at put back, when there is none."""
    parts = [line]
    size = len(line)
    while size <= max_bytes:
        following = waiting.popleft() if waiting else next(source, None)
        if following is None:
            break
        parts.append(following)
        size += len(following)
        if following.count(b'"') % 2:
            record = b"".join(parts)
            if size <= max_bytes and _is_record(record, delimiter):
                return record
            break
    waiting.extendleft(reversed(parts[1:]))
    return None


def _is_record(record: bytes, delimiter: str) -> bool:
    try:
        fields(_bare(record).decode("utf-8", "surrogateescape"), delimiter)
    except Malformed:
        return False
    return True


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def delimiter_of(header: str) -> str:
    """The delimiter that a header shows: the one of `DELIMITERS` that stands in it most often, a comma when none does."""
    return max(DELIMITERS, key=lambda delimiter: (header.count(delimiter), delimiter == ","))


def stated_delimiter(line: bytes) -> str:
    """The delimiter that a line ``sep=;`` states, which Excel writes before a header, and reads; empty when it is another line."""
    found = _STATED.fullmatch(line)
    return found[2].decode() if found else ""


def fields(record: str, delimiter: str = ",") -> list[str]:
    """The fields of a record.

    Raises:
        Malformed: a quote inside a field that is not quoted, or something after a closing quote; more than `MAX_FIELDS` fields.
    """
    if '"' not in record:
        out = record.split(delimiter)
        if len(out) > MAX_FIELDS:
            raise Malformed(f"more than {MAX_FIELDS} fields", label="bad_csv")
        return out
    at = record.find('"')
    if at and record[at - 1] != delimiter:
        raise Malformed("a quote inside a field that is not quoted", label="bad_csv")
    out = record[: at - 1].split(delimiter) if at else []  # what stands before the first quote needs no closer look
    match_field = _FIELD[delimiter]
    while True:
        match = match_field(record, at)
        if match is None:
            raise Malformed("a quote where none may be", where=f"field {len(out) + 1}", label="bad_csv")
        quoted, bare, more = match.groups()
        out.append(bare if quoted is None else quoted.replace('""', '"'))
        if len(out) > MAX_FIELDS:
            raise Malformed(f"more than {MAX_FIELDS} fields", label="bad_csv")
        if more is None:
            return out
        at = match.end()
