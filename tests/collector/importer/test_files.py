"""Files to import: what they are, every row accounted for, and the real data sets to the last row."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.event import Origin
from collector.importer.files import ImportFile, read_rows
from collector.importer.mapping import Mapping, load_mappings
from collector.importer.source import MAX_ROW_BYTES
from collector.imports import Row
from collector.receive import Arrival
from collector.rejection import Rejection

TRACE = "2ffbc4a03bbc5600a45841d05e452454"


@pytest.fixture
def mappings(repo_root: Path) -> list[Mapping]:
    return load_mappings(repo_root / "examples" / "import" / "trainticket.toml")


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def bodies(rows: Iterable[Row]) -> list[object]:
    return [row.event.body if isinstance(row, Arrival) else row.error.label for row in rows]


def test_json_lines_plain_and_compressed_are_the_same_rows_of_different_files(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"message": "a"}\n\n{"body": "b", "transaction": "t"}\r\n{broken\n{"message": "c"}'
    plain = ImportFile(written(tmp_path / "x.jsonl", data))
    packed = ImportFile(written(tmp_path / "x.jsonl.gz", gzip.compress(data[:20]) + gzip.compress(data[20:])))
    assert (plain.format, packed.format) == ("jsonlines", "jsonlines")
    assert plain.sha256 == hashlib.sha256(data).hexdigest() != packed.sha256
    rows = list(plain.rows())
    assert bodies(rows) == bodies(packed.rows()) == ["a", "b", "bad_json", "c"]
    assert [row.source_id for row in rows if isinstance(row, Arrival)] == [
        row.source_id for row in packed.rows() if isinstance(row, Arrival)
    ]
    assert [row.event.origin.row for row in rows if isinstance(row, Arrival) and row.event.origin] == [1, 2, 4]
    (bad,) = (row for row in rows if isinstance(row, Rejection))
    assert bad.raw == b"{broken"
    assert str(bad.error) == "x.jsonl row 3, column 2: not JSON"
    assert bad.origin == Origin(receiver="import", file="x.jsonl", row=3)


def test_docker_s_lines(tmp_path: Path) -> None:
    lines = [
        {"log": "plain text\n", "stream": "stderr", "time": "2023-01-30T11:50:59.9716Z"},
        {
            "log": '{"msg": "own", "level": "error", "time": "2023-01-30T11:50:58Z"}\n',
            "stream": "stdout",
            "time": "bad",
        },
        {"log": "x" * 16_384, "stream": "stdout", "time": "2023-01-30T11:50:59Z", "attrs": {"tag": "t"}},
        {"log": "not docker's", "time": "2023-01-30T11:50:59Z"},
    ]
    file = ImportFile(written(tmp_path / "d.log", b"\n".join(json.dumps(line).encode() for line in lines)))
    assert file.format == "docker"
    plain, own, cut, bad = file.rows()
    assert isinstance(plain, Arrival)
    assert (plain.event.body, plain.event.attributes) == ("plain text", {"log.iostream": "stderr"})
    assert plain.event.time == plain.event.observed == "2023-01-30T11:50:59.971600000Z"
    assert isinstance(own, Arrival)
    assert (own.event.body, own.event.severity_number) == ("own", 17)
    assert (own.event.time, own.event.observed) == ("2023-01-30T11:50:58.000000000Z", "")
    assert own.event.attributes == {"log.iostream": "stdout", "docker.time": "bad"}
    assert isinstance(cut, Arrival)
    assert cut.event.marks == ["truncated"]
    assert cut.event.attributes["tag"] == "t"
    assert isinstance(bad, Rejection)
    assert bad.error.label == "bad_docker"


def test_csv_rows_are_counted_from_the_one_behind_the_header(tmp_path: Path) -> None:
    data = b'time,message\n2023-01-30T11:50:59Z,a\n\n"broken,b\n2023-01-30T11:51:00Z,"c\nd"\ntoo,many,fields\n'
    file = ImportFile(written(tmp_path / "x.csv", data))
    assert (file.format, file.mapping) == ("csv", "")
    rows = list(file.rows())
    assert bodies(rows) == ["a", "bad_csv", "c\nd", "bad_csv"]
    assert [row.origin.row for row in rows if isinstance(row, Rejection) and row.origin] == [2, 4]


@pytest.mark.parametrize("pack", [bytes, lambda data: gzip.compress(data, mtime=0)], ids=["plain", "gzip"])
def test_of_a_file_that_grows_what_its_sha256_is_of_is_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    first, more = (pack(b'{"message": "%s"}\n' % body) for body in (b"one", b"two"))
    file = ImportFile(written(tmp_path / "x.jsonl", first))
    written(tmp_path / "x.jsonl", first + more)
    assert file.sha256 == hashlib.sha256(first).hexdigest()
    assert bodies(file.rows()) == ["one"]
    written(tmp_path / "x.jsonl", first[:-5])
    with pytest.raises(OSError, match="shorter"):
        bodies(file.rows())


@pytest.mark.parametrize("pack", [bytes, lambda data: gzip.compress(data, mtime=0)], ids=["plain", "gzip"])
def test_of_a_file_that_is_written_over_no_rows_stand_under_the_sha256_of_the_one_before(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    first, other = (pack(b'{"message": "%s"}\n' % body) for body in (b"one", b"two"))
    file = ImportFile(written(tmp_path / "x.jsonl", first))
    written(tmp_path / "x.jsonl", other)
    with pytest.raises(OSError, match="changed while it was read"):
        bodies(file.rows())


LONG = b"".join(
    b'{"message": "%05d%s"}\n' % (at, b"-" * 200) for at in range(20_000)
)  # some four pieces of those that are read


@pytest.mark.parametrize("after_groups", [None, 0, 5])
@pytest.mark.parametrize("change", ["over", "cut", "end"])
def test_of_a_long_file_that_changes_while_it_is_read_only_rows_of_what_its_sha256_is_of_are_given(
    tmp_path: Path, change: str, after_groups: int | None
) -> None:
    path = written(tmp_path / "x.jsonl", LONG)
    changed = {"over": LONG.replace(b'"0', b'"9'), "cut": LONG[: len(LONG) // 2], "end": LONG[:-4] + b'9"}\n'}[change]
    file = ImportFile(path)
    given: list[Row] = []

    def read() -> None:
        for at, group in enumerate(file.groups()):
            given.extend(group)
            if at == after_groups:
                written(path, changed)

    if after_groups is None:
        path.unlink()
        written(path, changed)
    with pytest.raises(OSError, match=r"it has (become shorter|changed) while it was read"):
        read()
    others = [body for at, body in enumerate(bodies(given)) if not str(body).startswith(f"{at:05d}-")]
    assert others[:1] == []
    assert 0 < len(given) < 20_000 or (change, after_groups) == ("over", None)


def test_of_a_file_that_grows_while_it_is_read_it_is_known(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", LONG)
    file = ImportFile(path)
    assert not file.has_grown()
    with path.open("ab") as more:
        more.write(b'{"message": "more"}\n')
    assert len(bodies(file.rows())) == 20_000
    assert file.has_grown()
    path.unlink()
    assert not file.has_grown()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'[{"message": "a"}, {"message": "b"}]\n', "a line of its own"),
        (b'[\n  {"message": "a"}\n]\n', "a line of its own"),
        (b'{\n  "message": "a"\n}\n', "a line of its own"),
        ("time,message\n1,a\n".encode("utf-16-le"), "UTF-16"),
        (b'\0\0{"message": "a"}\n', "NUL"),
        ("time,größe\n1,a\n".encode("latin-1"), "not text in UTF-8"),
        (b"\x28\xb5\x2f\xfd\0\1", "packed as zstd"),
        (bz2.compress(b"a,b\n1,2\n"), "packed as bzip2"),
        (lzma.compress(b"a,b\n1,2\n"), "packed as xz"),
    ],
)
def test_what_looks_like_rows_and_is_none_says_what_it_is(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        ImportFile(written(tmp_path / "x", data))
    assert ImportFile(written(tmp_path / "x", b"[time],[message]\n1,a\n")).format == "csv"


def test_a_csv_row_is_recognised_by_its_bytes_and_what_they_stand_under(
    tmp_path: Path, mappings: list[Mapping]
) -> None:
    def ids(data: bytes, *mappings: Mapping) -> list[bytes | None]:
        rows = ImportFile(written(tmp_path / "x.csv", data), mappings).rows()
        return [row.source_id for row in rows if isinstance(row, Arrival)]

    debits, more = ids(b"debited,credited,amount\nA1,B2,100\nA1,B2,100\n")
    assert debits == more
    assert ids(b'\xef\xbb\xbf"debited",credited,amount\r\nA1,B2,100') == [debits], "however the header is written"
    (refunds,) = ids(b"refunded_to,refunded_from,amount\nA1,B2,100\n")
    (other,) = ids(b"credited,debited,amount\nA1,B2,100\n")
    assert len({debits, refunds, other}) == 3
    row = b"1,2;3,4;5\n"
    semicolons, commas = ids(b"a;b;c\n" + row), ids(b"a,b,c\n" + row)
    assert len(semicolons) == len(commas) == 1
    assert semicolons != commas
    columns = mappings[0].columns
    data = ",".join(columns).encode() + b"\n" + b"," * (len(columns) - 1)
    assert ids(data) == ids(data, *mappings), "a mapping says what a row means, and not which it is"


def test_a_json_line_is_recognised_by_its_bytes_as_ever(tmp_path: Path) -> None:
    """Journals of earlier imports hold these ids."""
    (row,) = read_rows(written(tmp_path / "x.jsonl", b'{"message": "a"}\n'))
    assert isinstance(row, Arrival)
    assert row.source_id == b"row\0" + hashlib.sha256(b'{"message": "a"}').digest()


def test_blank_lines_before_a_header_and_columns_without_a_name(tmp_path: Path) -> None:
    assert bodies(read_rows(written(tmp_path / "x.csv", b" \t\r\n\ntime,message\n1,a\n2,b\n"))) == ["a", "b"]
    assert bodies(read_rows(written(tmp_path / "x.tsv", b"time\tmessage\t\n1\ta\t\n2\tb\t\n"))) == ["a", "b"]
    assert bodies(read_rows(written(tmp_path / "x.jsonl", b'\t {"message": "a"}\n'))) == ["a"]
    assert bodies(read_rows(written(tmp_path / "y.tsv", b"\ttime\tmessage\n0\t1\ta\n"))) == ["a"]


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-30 10:00:00, INFO payment P-1 settled",
        "Jan 30 10:00:00 host app: one, two",
        "1675077059, payment settled",
        "P-1|settled|2026-01-30",
    ],
)
def test_the_lines_of_a_log_are_no_csv(tmp_path: Path, line: str) -> None:
    """The first of them would become names and be gone."""
    with pytest.raises(Malformed, match="its first line looks like a row"):
        ImportFile(written(tmp_path / "app.log", f"{line}\n{line}\n".encode()))
    text = line.replace("|", ",").encode() + b"\n1,2\n"
    columns = tuple(text.decode().splitlines()[0].split(","))
    assert ImportFile(written(tmp_path / "pivot.csv", text), [Mapping(name="m", columns=columns)]).mapping == "m"


def test_a_row_beyond_the_limit_is_bad_and_the_next_is_read(tmp_path: Path) -> None:
    big = b"x" * (3 * MAX_ROW_BYTES)
    for name, data in (
        ("x.csv", b"time,message\n1," + big + b"\n2,after\n"),
        ("x.jsonl", b'{"message": "first"}\n{"message": "' + big + b'"}\n{"message": "after"}\n'),
    ):
        rows = bodies(read_rows(written(tmp_path / name, data)))
        assert rows[-2:] == ["too_large", "after"]


@pytest.mark.parametrize("damage", ["cut", "flip", "tail"])
def test_damaged_gzip_gives_its_rows_up_to_there_and_one_bad_row(tmp_path: Path, damage: str) -> None:
    whole = gzip.compress(b"".join(b'{"message": "%d"}\n' % n for n in range(50_000)), mtime=0)
    data = bytearray(whole)
    if damage == "cut":
        del data[-2000:]
    elif damage == "flip":
        data[-6] ^= 1  # in the checksum
    else:
        data += b"no gzip member"
    rows = list(read_rows(written(tmp_path / "x.gz", bytes(data))))
    assert len(rows) > 1000
    assert all(isinstance(row, Arrival) for row in rows[:-1])
    assert isinstance(rows[-1], Rejection)
    assert rows[-1].error.label == "bad_gzip"


def test_damaged_gzip_behind_a_quote_that_is_never_closed_gives_its_rows_up_to_there(tmp_path: Path) -> None:
    plain = b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(10_000))
    quoted = plain.replace(b"\n5000,", b'\n"5000,')
    counts = []
    for data in (plain, quoted):
        rows = list(read_rows(written(tmp_path / "x.csv.gz", gzip.compress(data, mtime=0) + b"no gzip member")))
        assert isinstance(rows[-1], Rejection)
        counts.append(Counter(row.error.label if isinstance(row, Rejection) else "" for row in rows))
    assert counts == [{"": 10_000, "bad_gzip": 1}, {"": 9_999, "bad_csv": 1, "bad_gzip": 1}]


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"just text\n", b"\xff\xfe\x00x,y\n", b"a,a\n1,2\n", b"a,b\r1,2\r", b"\x1f\x8b\x08 no"]
)
def test_what_is_no_file_to_import_says_so(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Malformed):
        ImportFile(written(tmp_path / "x", data))


def test_a_csv_is_read_by_the_mapping_that_has_its_columns_in_any_order(
    tmp_path: Path, mappings: list[Mapping]
) -> None:
    columns = list(reversed(mappings[1].columns))
    data = (",".join(columns) + "\n").encode()
    file = ImportFile(written(tmp_path / "x.csv", data), mappings)
    assert file.mapping == "trainticket-spans"
    assert list(file.rows()) == []
    assert ImportFile(written(tmp_path / "y.csv", b"more," + data), mappings).mapping == ""


def test_a_file_that_runs_newest_first_is_marked_and_no_other(tmp_path: Path) -> None:
    def marks(minutes: Iterable[int]) -> Counter[str]:
        lines = [json.dumps({"time": f"2023-01-30T11:{minute:02d}:00Z"}).encode() for minute in minutes]
        rows = read_rows(written(tmp_path / "x.jsonl", b"\n".join(lines)))
        return Counter(mark for row in rows if isinstance(row, Arrival) for mark in row.event.marks)

    assert marks(range(50, 0, -1)) == {"newest_first": 50}
    assert marks([50, 40, 41, *range(39, 0, -1)]) == {"newest_first": 42}
    assert marks(range(50)) == {}
    assert marks([5, 4]) == {}
    assert marks([1, 9, 2, 8, 3, 7, 4]) == {}


def test_rows_are_held_up_to_a_thousand_or_a_few_mib(tmp_path: Path) -> None:
    small = ImportFile(written(tmp_path / "x.csv", b"a,b\n" + b"1,2\n" * 2_500))
    assert [len(group) for group in small.groups()] == [1_000, 1_000, 500]
    large = b'{"message": "%s"}\n' % (b"x" * 1_000_000)
    assert [len(group) for group in ImportFile(written(tmp_path / "x.jsonl", large * 12)).groups()] == [5, 5, 2]
    broken = b'{"message: "%s"}\n' % (b"x" * 1_000_000)
    assert [len(group) for group in ImportFile(written(tmp_path / "x.jsonl", broken * 12)).groups()] == [5, 5, 2]


def test_rows_dated_before_1970_or_after_2199_are_marked(tmp_path: Path) -> None:
    times = ["1754-08-30T22:43:41Z", "1970-01-01T00:00:00Z", "2199-12-31T23:59:59Z", "2200-01-01T00:00:00Z", ""]
    data = b"\n".join(json.dumps({"time": time}).encode() for time in times)
    rows = list(read_rows(written(tmp_path / "x.jsonl", data)))
    assert [row.event.marks for row in rows if isinstance(row, Arrival)] == [
        ["time_implausible"],
        [],
        [],
        ["time_implausible"],
        [],
    ]


@given(st.binary(max_size=400) | st.text('{}",:\n1a', max_size=80).map(str.encode))
def test_any_file_is_rows_or_malformed(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp() / "fuzzed", data)
    try:
        rows = list(read_rows(path))
    except Malformed:
        return
    assert all(isinstance(row, (Arrival, Rejection)) for row in rows)


@given(st.binary(max_size=200))
def test_any_rows_behind_a_known_header_are_rows(
    tmp_path_factory: pytest.TempPathFactory, repo_root: Path, data: bytes
) -> None:
    for mapping in load_mappings(repo_root / "examples" / "import" / "onlineboutique.toml"):
        path = written(tmp_path_factory.getbasetemp() / "fuzzed", ",".join(mapping.columns).encode() + b"\n" + data)
        for number, row in enumerate(read_rows(path, mapping), 1):
            origin = row.event.origin if isinstance(row, Arrival) else row.origin
            assert origin is not None
            assert origin.row == number


# ------------------------------------------------------------------------------------------------------- real data
def account(files: Iterable[Path], mappings: list[Mapping]) -> tuple[Counter[str], dict[bytes, bytes]]:
    counts: Counter[str] = Counter()
    seen: dict[bytes, bytes] = {}
    for path in files:
        for row in ImportFile(path, mappings).rows():
            counts["rows"] += 1
            assert isinstance(row, Arrival), row
            assert row.source_id is not None
            counts["duplicates"] += row.source_id in seen
            seen[row.source_id] = b""
            counts.update(mark for mark in row.event.marks)
            counts[row.event.severity_text] += 1
            counts["services"] = 0
            assert len(row.event.trace_id) == 32
            assert row.event.service.startswith("ts-")
            assert row.event.name or row.event.span is None
    return counts, seen


def test_one_window_of_trainticket(data_dir: Path, mappings: list[Mapping]) -> None:
    counts, _ = account([data_dir / "trainticket" / "log" / "12_01_log.csv.gz"], mappings)
    assert counts["rows"] == counts["newest_first"]
    spans, _ = account([data_dir / "trainticket" / "trace" / "12_01_trace.csv.gz"], mappings)
    assert spans["newest_first"] == 0


@pytest.mark.slow
def test_all_of_trainticket_as_its_readme_counts_it(data_dir: Path, mappings: list[Mapping]) -> None:
    logs = sorted((data_dir / "trainticket" / "log").glob("*.csv.gz"))
    counts, seen = account(logs, mappings)
    assert counts["rows"] == 94_703
    assert counts["duplicates"] == 565
    assert counts["time_implausible"] == 79
    assert counts["truncated"] == 1_756
    assert (counts["ERROR"], counts["WARN"]) == (580, 3_517)
    backwards, same = account(reversed(logs), mappings)
    assert backwards == counts
    assert same.keys() == seen.keys()
    spans, _ = account(sorted((data_dir / "trainticket" / "trace").glob("*.csv.gz")), mappings)
    assert (spans["rows"], spans["duplicates"]) == (179_170, 1_014)
    assert spans["duration_unequal"] == spans["time_implausible"] == 0


@pytest.mark.parametrize("first", [b"sep=;\r\n", b"\xef\xbb\xbfsep=;\n", b'\n"SEP=;"\n\n'])
def test_excel_s_first_line_states_the_delimiter_and_is_no_header(tmp_path: Path, first: bytes) -> None:
    file = ImportFile(written(tmp_path / "x.csv", first + b"message;a,b,c,d\r\none;1\r\ntwo;2\r\n"))
    rows = list(file.rows())
    assert bodies(rows) == ["one", "two"]
    assert [row.event.origin.row for row in rows if isinstance(row, Arrival) and row.event.origin] == [1, 2]
    (tmp_path / "m.toml").write_text('[[mapping]]\nname = "m"\ncolumns = ["message", "a,b,c,d"]\n')
    assert ImportFile(tmp_path / "x.csv", load_mappings(tmp_path / "m.toml")).mapping == "m"
    with pytest.raises(Malformed, match="an empty file"):
        ImportFile(written(tmp_path / "y.csv", first))


def test_a_pipe_is_refused_before_anybody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Malformed, match=r"^pipe: not a regular file; "):
        ImportFile(tmp_path / "pipe")
    reads, writes = os.pipe()
    try:
        os.write(writes, b'{"message": "a"}\n')
        with pytest.raises(Malformed, match="not a regular file; "):
            ImportFile(Path(f"/dev/fd/{reads}"))
    finally:
        os.close(reads)
        os.close(writes)
    with pytest.raises(IsADirectoryError):
        ImportFile(tmp_path)
