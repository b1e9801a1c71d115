"""`tally import`: the account balances exactly, in any order, however often."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collector.importer.files import ImportFile
from collector.imports import Row
from deploy import importing
from tests.support.need import need

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop


def lines(*rows: dict[str, Any] | str) -> bytes:
    return b"".join((row if isinstance(row, str) else json.dumps(row)).encode() + b"\n" for row in rows)


def row(payment: str, event_name: str, second: int) -> dict[str, Any]:
    time = f"2026-01-01T00:00:{second:02d}Z"
    return {
        "time": time,
        "event_name": event_name,
        "service.name": "shop",
        "payment_id": payment,
        "message": "card 4111111111111111",
    }


FILES = {
    "a.jsonl": lines(row("p1", "received", 1), row("p1", "received", 1), row("p2", "received", 2)),
    "b.jsonl": lines(row("p1", "paid", 3), "{ not json", row("p2", "received", 2)),
    "c.jsonl.gz": gzip.compress(lines(row("p3", "received", 4)), mtime=0),
}


@pytest.fixture
def files(workshop: Workshop) -> list[str]:
    for name, data in FILES.items():
        (workshop.folder / name).write_bytes(data)
    return [str(workshop.folder / name) for name in FILES]


def imported(cli: Cli, *files: str) -> dict[str, Any]:
    code, out, _ = cli("import", *files, "--json")
    assert code == 0
    done: dict[str, Any] = json.loads(out)
    return done


def told(cli: Cli) -> dict[str, list[tuple[str, str]]]:
    """Every transaction's story: name and message of its steps."""
    trails = json.loads(cli("find", "--kind", "transaction", "--json")[1])["trails"]
    stories = {trail["trail"]: json.loads(cli("trail", trail["trail"], "--json")[1]) for trail in trails}
    assert {story["proof"]["state"] for story in stories.values()} == {"verified"}
    return {name: [(step["name"], step["time"]) for step in story["steps"]] for name, story in stories.items()}


def test_the_account_balances(files: list[str], cli: Cli) -> None:
    done = imported(cli, *files)
    total = done["total"]
    assert (total["rows"], total["stored"], total["duplicates"], total["dead_lettered"]) == (7, 4, 2, 1)
    assert done["balances"] is True
    assert sum(total["reasons"].values()) == 1


def test_the_second_import_adds_nothing(files: list[str], cli: Cli) -> None:
    imported(cli, *files)
    before = told(cli)
    again = imported(cli, *files)["total"]
    assert (again["rows"], again["stored"], again["duplicates"], again["dead_lettered"]) == (7, 0, 6, 1)
    assert told(cli) == before


def test_what_in_a_folder_cannot_be_read_is_told_and_the_rest_goes_on(cli: Cli, workshop: Workshop) -> None:
    folder = workshop.folder / "logs"
    (folder / "closed").mkdir(parents=True)
    (folder / "closed" / "b.jsonl").write_bytes(FILES["b.jsonl"])
    (folder / "a.jsonl").write_bytes(FILES["a.jsonl"])
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    os.mkfifo(folder / "pipe")  # is no file, and nothing is said of it
    (folder / "closed").chmod(0)
    try:
        code, out, _ = cli("import", str(folder), "--json")
    finally:
        (folder / "closed").chmod(0o700)
    done = json.loads(out)
    told = {Path(file["path"]).name: file["problem"] for file in done["files"]}
    assert code == 1
    assert told["a.jsonl"] == ""
    assert told["loop.jsonl"]
    assert "pipe" not in told
    assert told["b.jsonl"] == "" if os.geteuid() == 0 else "Permission denied" in told["closed"]  # all is open to root


def test_the_same_bytes_under_other_columns_are_another_row(cli: Cli, workshop: Workshop) -> None:
    for name, columns in (("debits", "debited_account,credited_account"), ("refunds", "refunded_to,refunded_from")):
        (workshop.folder / f"{name}.csv").write_text(f"{columns},amount\nA1,B2,100\n")
        assert imported(cli, str(workshop.folder / f"{name}.csv"))["total"]["stored"] == 1


def test_an_import_takes_into_the_log_what_its_spool_need_not_keep(cli: Cli, workshop: Workshop) -> None:
    workshop.file.write_text(
        workshop.file.read_text() + "[collector.spool]\nmax_bytes = 1\n"
    )  # the least there is: 64 MiB
    file = workshop.folder / "long.jsonl"
    file.write_bytes(lines(*({"message": f"{at} " + "x" * 100_000} for at in range(400))))
    assert imported(cli, str(file))["total"]["stored"] == 400
    kept = sum(path.stat().st_size for path in (workshop.folder / "tally-data" / "spool").rglob("*.seg"))
    assert kept < 32 * 1024**2 < file.stat().st_size
    assert cli("check")[0] == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_order_gives_the_same_trails(files: list[str], cli: Cli, order: tuple[int, ...]) -> None:
    imported(cli, *(files[at] for at in order))
    assert told(cli) == {
        "transaction/p1": [("received", "2026-01-01T00:00:01.000000000Z"), ("paid", "2026-01-01T00:00:03.000000000Z")],
        "transaction/p2": [("received", "2026-01-01T00:00:02.000000000Z")],
        "transaction/p3": [("received", "2026-01-01T00:00:04.000000000Z")],
    }


def test_the_table(files: list[str], cli: Cli) -> None:
    code, out, err = cli("import", *files)
    assert code == 0
    assert "7 rows read = 4 stored + 2 duplicates + 1 dead-lettered\n" in out
    assert out.splitlines()[1].split() == ["a.jsonl", "3", "2", "1", "0"]
    assert "made the key that signs the log" in err, "it is said when a key is made on first use"
    assert cli("check")[0] == 0


def test_a_file_that_cannot_be_read_is_told_and_the_others_go_on(
    files: list[str], cli: Cli, workshop: Workshop
) -> None:
    (workshop.folder / "x.bin").write_bytes(b"\x00\x01\x02")
    code, out, _ = cli("import", str(workshop.folder / "x.bin"), str(workshop.folder / "none.csv"), *files, "--json")
    done = json.loads(out)
    assert code == 1
    assert [bool(file["problem"]) for file in done["files"]] == [True, True, False, False, False]
    assert done["total"]["stored"] == 4


def test_a_file_that_is_closed_to_us_is_told_and_the_others_go_on(files: list[str], cli: Cli) -> None:
    Path(files[0]).chmod(0)
    code, out, _ = cli("import", *files, "--json")
    done = json.loads(out)
    told = [file["problem"].rpartition(": ")[2] for file in done["files"]]
    closed = "" if os.geteuid() == 0 else "Permission denied"  # all is open to root
    assert (code, told) == (int(bool(closed)), [closed, "", ""])


def test_a_folder_is_its_files(files: list[str], cli: Cli, workshop: Workshop) -> None:
    inner = workshop.folder / "in"
    inner.mkdir()
    for file in files:
        Path(file).rename(inner / Path(file).name)
    assert imported(cli, str(inner))["total"]["rows"] == 7


def test_a_card_number_reaches_no_file(files: list[str], cli: Cli, workshop: Workshop) -> None:
    imported(cli, *files)
    told(cli)
    kept = [path for path in (workshop.folder / "tally-data").rglob("*") if path.is_file()]
    assert len(kept) > 10
    assert [path for path in kept if b"4111111111111111" in path.read_bytes()] == []


def test_a_mapping_that_cannot_be_used_is_refused(cli: Cli, workshop: Workshop, files: list[str]) -> None:
    (workshop.folder / "m.toml").write_text('[[mapping]]\nname = "m"\ncolumns = ["a"]\ntime = "b"\n')
    code, _, err = cli("import", "--mapping", str(workshop.folder / "m.toml"), *files)
    assert (code, "b not among its `columns`" in err) == (2, True)
    assert cli("import", "--mapping", str(workshop.folder / "none.toml"), *files)[0] == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_day_of_trainticket_s_logs_twice_in_any_order(
    data_dir: Path, repo_root: Path, cli: Cli, workshop: Workshop
) -> None:
    """By the command; the spans of that day besides are in tests/system/test_trainticket.py."""
    data = data_dir / "trainticket"
    need(data.is_dir(), f"no TrainTicket data at {data}")
    files = [str(path) for path in (data / "log").glob("*.csv.gz")]
    random.Random(7).shuffle(files)
    mapping = str(repo_root / "examples" / "import" / "trainticket.toml")
    first = imported(cli, "--mapping", mapping, *files)["total"]
    # data/trainticket/README.txt, points 2 and 4
    assert (first["rows"], first["duplicates"], first["dead_lettered"]) == (94_703, 565, 0)
    assert first["stored"] == first["rows"] - first["duplicates"]
    assert (first["marks"]["time_implausible"], first["marks"]["truncated"]) == (79, 1_756)
    again = imported(cli, "--mapping", mapping, *reversed(files))["total"]
    assert (again["rows"], again["stored"], again["duplicates"]) == (first["rows"], 0, first["rows"])
    code, out, _ = cli("check", "--json")
    assert (code, json.loads(out)["account"]["events"]) == (0, first["stored"])


def test_rows_that_a_wrong_mapping_refused_come_in_by_again(workshop: Workshop, cli: Cli) -> None:
    (workshop.folder / "s.csv").write_bytes(b"trace,id\n4bf92f3577b34da6a3ce929d0e0e4736,2222222222222222\n")
    for name, trace, span in (("bad", "id", "trace"), ("good", "trace", "id")):
        text = f'[[mapping]]\nname = "m"\ncolumns = ["trace", "id"]\nkind = "span"\ntrace_id = "{trace}"\nspan_id = "{span}"\n'
        (workshop.folder / f"{name}.toml").write_text(text)
    file, bad, good = (str(workshop.folder / name) for name in ("s.csv", "bad.toml", "good.toml"))
    assert imported(cli, file, "--mapping", bad)["total"]["dead_lettered"] == 1
    code, out, _ = cli("import", file, "--mapping", good)
    assert code == 0
    assert "(imported before)" in out
    assert "tally import --again" in out
    again = imported(cli, file, "--mapping", good, "--again")
    assert again["total"]["stored"] == 1
    assert again["balances"]
    assert again["files"][0]["account"]["number"] == 2
    assert cli("check")[0] == 0


def test_the_table_names_each_odd_file_and_the_first_row_of_each_reason(cli: Cli, workshop: Workshop) -> None:
    odd = {
        "plain.csv": b"time,message\n2026-01-01T00:00:00Z,caf\xe9 4111111111111111\n1,2,3\n",
        "array.json": b'[{"message": "a"}]\n',
        "two\nlines.csv": b"bad\n",
        "cut.jsonl.gz": gzip.compress(lines(row("p1", "received", 1)))[:-9],
    }
    for name, data in odd.items():
        (workshop.folder / name).write_bytes(data)
    (workshop.folder / "m.toml").write_text('[[mapping]]\nname = "m"\ncolumns = ["time", "text"]\ntime = "time"\n')
    names = [str(workshop.folder / name) for name in odd]
    code, out, _ = cli("import", "--mapping", str(workshop.folder / "m.toml"), *names)
    assert code == 1
    for told in (
        "read without a mapping: its columns are not exactly those of any",
        "array.json not read: its first line begins a JSON document of several lines, or an array",
        "two lines.csv not read: its first line is neither",
        "1 dead-lettered: bad_csv; the first is plain.csv row 2: 3 fields; the header has 2",
        "1 dead-lettered: bad_gzip; the first is cut.jsonl.gz row 2: the compressed file is damaged or cut short",
        "1 rows with bytes that are not UTF-8",
        "2 rows with a card number, which is masked",
    ):
        assert told in " ".join(out.split()), told
    letters = next(line.rpartition(" ")[2] for line in out.splitlines() if "each, with its row and why: " in line)
    assert b"3 fields; the header has 2" in b"".join(path.read_bytes() for path in Path(letters).iterdir())


class Changed(ImportFile):
    """Is written over, or grows, when a thousand rows of it were given."""

    def groups(self) -> Iterator[list[Row]]:
        for at, group in enumerate(super().groups()):
            yield group
            if not at:
                data = self.path.read_bytes()
                self.path.write_bytes(data.replace(b"-", b"+") if self.name == "over.jsonl" else data + b"{}\n")


def test_of_a_file_that_changes_while_it_is_read_the_table_says_what_was_taken(
    cli: Cli, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("over", "grown"):
        data = lines(*({"message": f"{name} {at} " + "-" * 1_000} for at in range(4_000)))
        (workshop.folder / f"{name}.jsonl").write_bytes(data)
    over, grown = (str(workshop.folder / f"{name}.jsonl") for name in ("over", "grown"))
    before = Path(over).read_bytes()
    with monkeypatch.context() as changing:
        changing.setattr(importing, "ImportFile", Changed)
        code, out, _ = cli("import", over, grown)
    assert code == 1
    assert "broken off behind these rows: it has changed while it was read" in out
    assert "it has grown meanwhile: import it again for what was appended" in out
    rows = int(out.splitlines()[1].split()[1].replace(",", ""))
    assert 1_000 <= rows < 4_000
    assert f"{rows + 4_000:,} rows read = {rows + 4_000:,} stored + 0 duplicates + 0 dead-lettered" in out
    changed = imported(cli, over, grown)["total"]
    assert (changed["rows"], changed["stored"]) == (8_001, 4_001)
    Path(over).write_bytes(before)
    again = imported(cli, over)["total"]
    assert (again["stored"], again["duplicates"]) == (4_000 - rows, rows)
    assert cli("check")[0] == 0
