"""`tally export` as data: file and manifest, on record, and never over something that is there."""

from __future__ import annotations

import csv
import io
import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pypdf
import pytest

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

FORMATS = ("ndjson", "csv", "parquet", "ecs", "ocsf")


def manifest_of(file: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(file.with_name(f"{file.name}.manifest.json").read_text())
    (listed,) = told["files"]
    assert listed == {
        "name": file.name,
        "bytes": file.stat().st_size,
        "sha256": sha256(file.read_bytes()).hexdigest(),
    }
    return told


@pytest.mark.parametrize("form", FORMATS)
def test_everything_that_a_search_finds(ledger: Workshop, cli: Cli, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"out.{form}"
    code, out, err = cli("export", "--format", form, "--kind", "transaction", "-o", str(file))
    assert code == 0, err
    assert str(file) in out
    told = manifest_of(file)
    assert told["selection"] == {"kind": "transaction"}
    assert told["complete"] is True
    assert told["counts"]["trails"] > 1
    assert not list(tmp_path.glob("*.new"))


def test_one_trail_and_who_took_it(ledger: Workshop, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "p1.csv"
    code, _, err = cli("export", "p1", "--format", "csv", "-o", str(file), "--json")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))
    assert rows[0]["trail"] == "transaction/p1"
    assert {"received", "paid"} <= {row["name"] for row in rows}
    assert manifest_of(file)["selection"]["trail"] == "transaction/p1"
    code, _, err = cli("export", "p1", "--format", "csv", "-o", str(file))
    assert code == 1
    assert "--force replaces it" in err
    assert cli("export", "p1", "--format", "csv", "-o", str(file), "--force")[0] == 0
    ledger.correlate()
    code, out, _ = cli("trail", "p1", "--json")
    assert any("trail.export" in access for access in json.loads(out)["accesses"])


def test_nothing_is_put_on_record_that_has_nowhere_to_go(ledger: Workshop, cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("export", "p1", "-o", str(tmp_path / "gone" / "p1.zip"))
    assert (code, err) == (1, f"tally: {tmp_path}/gone is no folder that is there\n")
    ledger.correlate()
    told = json.loads(cli("trail", "p1", "--json")[1])
    assert not any("trail.export" in access for access in told["accesses"])


def test_times_select_trails(ledger: Workshop, cli: Cli, tmp_path: Path) -> None:
    for at, (begin, end, some) in enumerate([("2023-11-14", "2023-11-15", True), ("2024-01-01", "2024-01-02", False)]):
        file = tmp_path / f"{at}.ndjson"
        bounds = ("--from", f"{begin}T00:00:00Z", "--to", f"{end}T00:00:00Z")
        assert cli("export", "--format", "ndjson", *bounds, "-o", str(file))[0] == 0
        assert bool(file.read_bytes()) is some
        assert manifest_of(file)["selection"] == {
            "since": f"{begin}T00:00:00.000000000Z",
            "until": f"{end}T00:00:00.000000000Z",
        }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--format", "csv", "p1", "--status", "ok"), "an ID is one trail"),
        ((), "a bundle is of one trail"),
        (("--format", "csv", "--key", "nothing"), "NAME:VALUE"),
        (("--format", "csv", "nobody"), "nothing is known"),
    ],
)
def test_what_cannot_be_asked(
    ledger: Workshop, cli: Cli, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = cli("export", *arguments, "-o", str(tmp_path / "out"))
    assert code in (1, 2)
    assert says in err
    assert list(tmp_path.glob("out*")) == []


def test_a_report_of_one_trail(ledger: Workshop, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "p1.pdf"
    code, out, err = cli("export", "p1", "--format", "pdf", "-o", str(file))
    assert code == 0, err
    assert "tally verify" not in out
    text = pypdf.PdfReader(file).pages[0].extract_text()
    assert "transaction/p1" in text
    assert "Verified" in text
    code, _, err = cli("export", "--format", "pdf", "-o", str(tmp_path / "all.pdf"))
    assert code == 2
    assert "a pdf is of one trail" in err
