"""CSV records with their exact bytes, and broken ones lost alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.importer.csv import Broken, delimiter_of, fields, records


def split(data: bytes, max_bytes: int = 1000) -> list[bytes | Broken]:
    return list(records(io.BytesIO(data), ",", max_bytes))


def test_records_are_lines_with_their_exact_bytes_whatever_the_line_end() -> None:
    assert split(b'a,b\r\n"c ",d\n\n\r\ne,f') == [b"a,b", b'"c ",d', b"e,f"]


def test_a_quoted_field_may_hold_line_ends() -> None:
    assert split(b'a,"x\ny ""z""\n",b\nc,d,e\n') == [b'a,"x\ny ""z""\n",b', b"c,d,e"]
    assert fields('a,"x\ny ""z""\n",b') == ["a", 'x\ny "z"\n', "b"]


def test_a_quote_that_is_never_closed_loses_one_line() -> None:
    first, *others = split(b'"broken,1\n' + b"good,2\n" * 3)
    assert isinstance(first, Broken)
    assert (first.raw, first.error.label) == (b'"broken,1', "bad_csv")
    assert others == [b"good,2"] * 3


def test_a_quote_that_is_not_closed_within_the_limit_loses_one_line() -> None:
    data = b'"broken,1\n' + b"good,2\n" * 30 + b'a,"b"\n'
    first, *others = split(data, max_bytes=100)
    assert isinstance(first, Broken)
    assert others == [b"good,2"] * 30 + [b'a,"b"']


def test_lines_that_end_in_damage_are_given_before_it_is_told() -> None:
    def lines() -> Iterator[bytes]:
        yield from (b'"broken,1\n', b"good,2\n", b"good,3\n")
        raise Malformed("damaged", label="bad_gzip")

    read = records(lines())
    first = next(read)
    assert isinstance(first, Broken)
    assert [next(read), next(read)] == [b"good,2", b"good,3"]
    with pytest.raises(Malformed, match="damaged"):
        next(read)


def test_an_overlong_line_is_broken_alone() -> None:
    first, second = split(b"x" * 1001 + b"\ny\n")
    assert isinstance(first, Broken)
    assert first.error.label == "too_large"
    assert second == b"y"


@pytest.mark.parametrize(
    "record", ['a,b"c', '"a"b,c', 'a,"b" ,c', '"', 'a,"b""', ",".join("x" * 2000), '"' + '","'.join("x" * 2000) + '"']
)
def test_what_is_no_record(record: str) -> None:
    with pytest.raises(Malformed):
        fields(record)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("", [""]),
        (",", ["", ""]),
        ('""', [""]),
        ('"",', ["", ""]),
        (',""', ["", ""]),
        ('"a,b",c,"d"', ["a,b", "c", "d"]),
        ("a\0b,c", ["a\0b", "c"]),
    ],
)
def test_fields(record: str, expected: list[str]) -> None:
    assert fields(record) == expected


def test_the_delimiter_that_a_header_shows() -> None:
    assert [delimiter_of(text) for text in ("a,b", "a;b,c;d", "a\tb", "a|b|c", "alone")] == [",", ";", "\t", "|", ","]


text = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=10)


@given(
    st.lists(st.lists(text, min_size=2, max_size=5), max_size=6), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
)
def test_what_python_writes_is_read_back(rows: list[list[str]], quoting: int) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    read = split(out.getvalue().encode(), 10_000)
    assert [fields(record.decode()) for record in read if isinstance(record, bytes)] == rows


@given(st.binary(max_size=200) | st.text('a",\n', max_size=60).map(str.encode))
def test_any_bytes_are_records_fields_or_broken_and_nothing_is_lost(data: bytes) -> None:
    found = split(data, max_bytes=50)
    raw = b"".join(record.raw if isinstance(record, Broken) else record for record in found)
    if all(len(line) <= 50 for line in data.splitlines(keepends=True)):
        assert raw.translate(None, b"\r\n") == data.translate(None, b"\r\n")
    for record in found:
        if isinstance(record, bytes):
            try:
                fields(record.decode("utf-8", "surrogateescape"))
            except Malformed:
                pass
