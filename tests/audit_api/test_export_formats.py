"""Each format of an export, read with the programs that people read it with; and what none of them may lose."""

from __future__ import annotations

import csv
import io
import json
import string
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import get_ocsf_schema

from audit_api.export import parquet
from audit_api.export.csvtable import MAX_CELL, guarded, unguarded
from audit_api.export.ecs import ATTRIBUTES, RESOURCE, document
from audit_api.export.formats import FORMATS, FormatUnavailable, open_writer
from audit_api.export.ocsf import activity
from audit_api.export.table import COLUMNS
from audit_api.export.walk import Row, Selection
from collector.store.sqlite import SqliteStore
from correlator.entry import decode_entry
from correlator.index import TrailQuery
from correlator.index.sqlite import SqliteIndex
from tests.support.exports import HOSTILE, NO_AMOUNTS, difficult_story, made, rows_of
from tests.support.ledgers import SmallLedger


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallLedger]:
    folder = tmp_path_factory.mktemp("ledger")
    store, index = SqliteStore(folder / "store.sqlite"), SqliteIndex(folder / "index.sqlite")
    one = SmallLedger(store=store, index=index)
    difficult_story(one)
    yield one
    store.close()
    index.close()


PAYMENT = Selection(trails=("transaction/PAY-0",))


def table(ledger: SmallLedger, selection: Selection = PAYMENT) -> list[dict[str, str]]:
    data, _ = made(ledger, "csv", selection)
    return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))


# All formats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_the_manifest_is_what_the_file_is(ledger: SmallLedger, form: str) -> None:
    data, manifest = made(ledger, form)
    (file,) = manifest["files"]
    assert (file["bytes"], file["sha256"]) == (len(data), sha256(data).hexdigest())
    assert manifest["complete"] is True
    assert manifest["counts"]["rows"] == sum(manifest["kinds"].values())
    assert made(ledger, form) == (data, manifest), "the same export at the same checkpoint is the same file"


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_selected_is_a_whole_file_too(ledger: SmallLedger, form: str) -> None:
    data, manifest = made(ledger, form, Selection(query=TrailQuery(service="nobody")))
    assert manifest["counts"]["rows"] == 0
    if form == "csv":
        assert data.decode() == ",".join(column.name for column in COLUMNS) + "\r\n"
    elif form == "parquet":
        assert pq.read_table(io.BytesIO(data)).num_rows == 0
    else:
        assert data == b""


def test_a_format_whose_library_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "audit_api.export.parquet", None)
    with pytest.raises(ModuleNotFoundError):  # one of ours is missing: that is a fault, and no extra
        open_writer("parquet")
    monkeypatch.delitem(__import__("sys").modules, "audit_api.export.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(FormatUnavailable, match=r"tallystick\[parquet\]"):
        open_writer("parquet")


# NDJSON ----------------------------------------------------------------------------------------------------------------


def test_ndjson_has_the_bytes_that_are_hashed(ledger: SmallLedger) -> None:
    data, manifest = made(ledger, "ndjson")
    rows, _ = rows_of(ledger)
    lines = data.splitlines()
    assert len(lines) == len(rows) == manifest["counts"]["rows"]
    for line, row in zip(lines, rows, strict=True):
        told = json.loads(line)
        assert told["leaf"] == row.leaf
        assert row.data in line
        assert decode_entry(row.data).trail == told["entry"]["trail"]
        if row.entry.kind == "event":
            assert row.raw is not None
            assert row.raw in line
            assert sha256(row.raw).hexdigest() == told["entry"]["facts"]["digest"]


# CSV -------------------------------------------------------------------------------------------------------------------


def test_csv_is_rfc_4180_and_tells_everything(ledger: SmallLedger) -> None:
    data, manifest = made(ledger, "csv", PAYMENT)
    assert data.endswith(b"\r\n")
    rows = table(ledger)
    assert list(rows[0]) == [column.name for column in COLUMNS]
    assert len(rows) == manifest["counts"]["rows"]
    by_name = {row["name"]: row for row in rows}
    asked = by_name["payment.requested"]
    assert (asked["amount"], asked["currency"], asked["actor"]) == ("-12.5", "EUR", "ann")
    assert json.loads(unguarded(asked["keys"])) == {"order_id": "O-1"}
    fx = by_name["fx"]
    assert (fx["currency"], fx["amount"]) == ("EUR", "0.00000001")
    assert json.loads(fx["further_amounts"]) == {"USD": "999999999999999.99999999"}
    span = by_name["POST /pay"]
    assert (span["span_kind"], span["duration_ns"], span["error"]) == ("SERVER", "500000000", "true")
    assert by_name["early"]["time"] == "1066-10-14T09:00:00.000000001Z"
    assert by_name["no service"]["body"] == '{"عربي":["نص"],"支付":"完了"}'
    (verdict,) = (row for row in rows if row["kind"] == "verdict")
    assert json.loads(verdict["detail"])["missing"] == ["notified"]


def test_no_cell_of_csv_is_a_formula(ledger: SmallLedger) -> None:
    rows = [row for row in table(ledger) if row["name"] == "hostile"]
    assert [unguarded(row["body"]) for row in rows] == list(HOSTILE)
    assert [unguarded(row["actor"]) for row in rows] == list(HOSTILE)
    numbers = {column.name for column in COLUMNS if column.kind in ("whole", "amount", "time", "truth")}
    for row in table(ledger):
        for name, cell in row.items():
            if name not in numbers:
                assert not cell.lstrip("\ufeff \t\r\n\u200b\u00a0").startswith(tuple("=+-@＝＋－＠"))


def test_a_key_that_is_only_called_like_an_amount_is_a_key_and_no_number(ledger: SmallLedger) -> None:
    data, _ = made(ledger, "csv")
    rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    assert {len(row) for row in rows} == {len(COLUMNS)}, "nobody adds rows or cells by what a key says"
    (row,) = (row for row in table(ledger) if row["name"] == "no amounts")
    assert (row["amount"], row["currency"], row["further_amounts"]) == ("", "", "")
    assert json.loads(unguarded(row["keys"])) == NO_AMOUNTS
    (told,) = (row for row in rows_of(ledger)[0] if row.facts().name == "no amounts")
    assert "amounts" not in document(told)["tallystick"]
    assert document(told)["labels"]["amount_note"] == NO_AMOUNTS["amount.note"]
    assert activity(told)["unmapped"]["keys"] == NO_AMOUNTS
    assert "amounts" not in activity(told)["unmapped"]


def test_a_span_that_no_column_can_hold_is_told_in_words(ledger: SmallLedger) -> None:
    (row,) = (row for row in table(ledger) if row["name"] == "five centuries")
    assert row["duration_ns"] == ""
    assert "15778454400000000000 nanoseconds" in row["problem"]
    (told,) = (row for row in rows_of(ledger)[0] if row.facts().name == "five centuries")
    assert "duration" not in document(told)["event"], "Elasticsearch has 64 bits, too"


def test_a_spreadsheet_takes_csv_and_finds_no_formula(ledger: SmallLedger, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in table(ledger):
        sheet.append([openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE.sub("", cell) for cell in row.values()])
    book.save(tmp_path / "book.xlsx")
    again = openpyxl.load_workbook(tmp_path / "book.xlsx").active
    assert again is not None
    kinds = {cell.data_type for row in again.iter_rows() for cell in row}
    assert "f" not in kinds
    # the same without the guard is one: else this test could not fail
    sheet.append(["=1+1"])
    assert sheet.cell(sheet.max_row, 1).data_type == "f"


def test_a_cell_that_no_spreadsheet_takes_is_cut_and_counted(ledger: SmallLedger) -> None:
    _, manifest = made(ledger, "csv", PAYMENT)
    (long,) = (row for row in table(ledger) if row["name"] == "long")
    assert len(long["body"]) <= MAX_CELL
    assert long["body"].endswith(f"[cut: {40_000 - long['body'].count('ü')} characters more]")
    assert manifest["notes"]["cut_cells"] == 1
    assert manifest["notes"]["guarded_cells"] > 2


def test_pandas_reads_csv(ledger: SmallLedger) -> None:
    data, manifest = made(ledger, "csv")
    frame = pd.read_csv(io.BytesIO(data), parse_dates=["recorded"])
    assert len(frame) == manifest["counts"]["rows"]
    assert str(frame["recorded"].dt.tz) == "UTC"
    assert frame["leaf"].is_unique


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]))
    | st.text(alphabet="=+-@'\t\r\n \x00\ufeff＝,\"" + string.digits)
)
def test_guarding_is_undone_and_leaves_no_formula(text: str) -> None:
    cell = guarded(text)
    assert unguarded(cell) == text
    bare = cell.lstrip(string.whitespace + "\x00\u200b\u00a0\ufeff")
    assert not bare.startswith(tuple("=+-@＝＋－＠"))


@given(
    st.lists(
        st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
        min_size=1,
        max_size=3,
    )
)
def test_csv_reads_back_what_was_written(texts: list[str]) -> None:
    writer: Any = open_writer("csv")
    line = ",".join(writer._cell("text", text) for text in texts) + "\r\n"
    assert [unguarded(cell) for cell in next(csv.reader(io.StringIO(line, newline=""), strict=True))] == texts


# Parquet ---------------------------------------------------------------------------------------------------------------


def test_parquets_types_are_right(ledger: SmallLedger) -> None:
    data, manifest = made(ledger, "parquet", PAYMENT)
    read = pq.read_table(io.BytesIO(data))
    assert read.schema.field("time").type == pa.timestamp("ns", tz="UTC")
    assert read.schema.field("amount").type == pa.decimal128(23, 8)
    assert read.schema.field("service").type == pa.dictionary(pa.int32(), pa.string())
    assert read.schema.field("marks").type == pa.list_(pa.string())
    assert read.num_rows == manifest["counts"]["rows"]
    rows = {row["name"]: row for row in read.to_pylist()}
    assert rows["payment.requested"]["amount"] == Decimal("-12.5")
    assert rows["fx"]["amount"] == Decimal("0.00000001")
    assert rows["long"]["body"] == "ü" * 40_000
    assert rows["long"]["marks"] == ["card:body", "truncated"]
    assert rows["early"]["time"] is None
    assert "1066-10-14T09:00:00.000000001Z" in rows["early"]["problem"]
    assert rows["no amounts"]["amount"] is None
    assert rows["five centuries"]["duration_ns"] is None
    assert manifest["notes"] == {"times_out_of_range": 1}
    hostile = [row["body"] for row in read.to_pylist() if row["name"] == "hostile"]
    assert hostile == list(HOSTILE), "a data frame evaluates nothing, so nothing is guarded"


def test_pandas_reads_parquet(ledger: SmallLedger) -> None:
    data, _ = made(ledger, "parquet")
    frame = pd.read_parquet(io.BytesIO(data))
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"
    assert frame["service"].dtype == "category"
    sums = frame.dropna(subset=["amount"]).groupby("currency", observed=True)["amount"].sum()
    assert sums["EUR"] == Decimal("-12.49999999")


def test_parquet_comes_in_groups(ledger: SmallLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 4)
    data, manifest = made(ledger, "parquet")
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.num_row_groups == -(-manifest["counts"]["rows"] // 4)
    services = {value for value in file.read()["service"].to_pylist() if value}
    assert services == {"gateway", "ledger"}


# OCSF ------------------------------------------------------------------------------------------------------------------


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture(scope="module")
def ocsf() -> Draft202012Validator:
    """The schema of OCSF itself, for the class and profile that we claim."""
    from ocsf_json_schema import OcsfJsonSchemaEmbedded

    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.8.0"))
    return Draft202012Validator(schema.get_class_schema("api_activity", profiles=["trace"]))


def test_ocsf_validates_against_its_schema(ledger: SmallLedger, ocsf: Draft202012Validator) -> None:
    data, manifest = made(ledger, "ocsf")
    events = lines(data)
    assert len(events) == manifest["kinds"]["event"]
    assert manifest["notes"] == {f"not_mapped_{kind}": n for kind, n in manifest["kinds"].items() if kind != "event"}
    for event in events:
        assert [error.message for error in ocsf.iter_errors(event)] == []
    span = next(event for event in events if event["api"]["operation"] == "POST /pay")
    assert (span["activity_id"], span["type_uid"], span["status"], span["severity"]) == (1, 600_301, "Failure", "High")
    assert span["src_endpoint"] == {"ip": "192.0.2.7"}
    assert span["trace"]["span"]["parent_uid"] == "ab" * 8
    assert span["duration"] == 500
    masked = next(event for event in events if event["api"]["operation"] == "masked")
    assert masked["src_endpoint"] == {"name": "192.0.*.*"}


@pytest.mark.parametrize("broken", ["class_uid", "metadata", "actor", "api", "src_endpoint", "time"])
def test_ocsfs_schema_finds_what_is_broken(ledger: SmallLedger, ocsf: Draft202012Validator, broken: str) -> None:
    event = lines(made(ledger, "ocsf")[0])[0]
    assert list(ocsf.iter_errors(event | {"nonsense": 1}))
    del event[broken]
    assert list(ocsf.iter_errors(event))


# ECS -------------------------------------------------------------------------------------------------------------------


def fields_of(value: Any, at: str = "") -> Iterator[str]:
    """Names of the fields of a document; what stands under our own names, and labels, is one field each."""
    for name, part in value.items():
        path = f"{at}.{name}" if at else name
        if isinstance(part, dict) and path not in ("labels", "tallystick.attributes", "tallystick.resource"):
            yield from fields_of(part, path)
        else:
            yield path


def test_ecs_fields_are_those_that_the_page_lists(ledger: SmallLedger, repo_root: Path) -> None:
    page = (repo_root / "docs" / "export.md").read_text(encoding="utf-8")
    listed = {
        cell.strip("` ")
        for line in page.partition("## ECS")[2].partition("\n## ")[0].splitlines()
        if line.startswith("| `")
        for cell in line.split("|")[1].split(",")
    }
    data, manifest = made(ledger, "ecs")
    used = {name for told in lines(data) for name in fields_of(told)}
    used |= {field for field, _ in (*ATTRIBUTES.values(), *RESOURCE.values())}
    assert used - listed == set()
    assert manifest["notes"].keys() == {
        f"not_mapped_{kind}" for kind in manifest["kinds"].keys() - {"event", "verdict"}
    }


def test_ecs_documents_say_what_the_events_say(ledger: SmallLedger) -> None:
    rows, _ = rows_of(ledger, PAYMENT)
    told = {row.facts().name: document(row) for row in rows if row.entry.kind == "event"}
    span = told["POST /pay"]
    assert span["event"]["outcome"] == "failure"
    assert span["event"]["duration"] == 500_000_000
    assert span["http"] == {"request": {"method": "POST"}, "response": {"status_code": 502}}
    assert span["client"] == {"address": "192.0.2.7", "ip": "192.0.2.7", "port": 51_000}
    assert span["process"] == {"pid": 77}
    assert span["service"] == {"name": "gateway", "version": "1.2", "environment": "test"}
    assert span["tallystick"]["attributes"] == {"deep": {"list": [1, 2.5, None, "ü"]}}
    assert told["payment.requested"]["labels"] == {"order_id": "O-1"}
    assert told["payment.requested"]["tallystick"]["amounts"] == [{"currency": "EUR", "amount": "-12.5"}]
    assert told["masked"]["client"] == {"address": "192.0.*.*"}, "what is no address is not sent as one"
    (silent,) = (row for row in rows if row.facts().name == "no service")
    assert told["no service"]["@timestamp"] == silent.entry.recorded, "it states no time"
    assert told["early"]["@timestamp"] == "1066-10-14T09:00:00.000000001Z"
    verdict = next(document(row) for row in rows if row.entry.kind == "verdict")
    assert (verdict["event"]["kind"], verdict["event"]["outcome"]) == ("state", "failure")


# What cannot be had ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_an_oversized_event_blocks_nothing(ledger: SmallLedger, form: str) -> None:
    _, whole = made(ledger, form, PAYMENT)
    data, manifest = made(ledger, form, PAYMENT, max_event_bytes=10_000)
    assert manifest["counts"]["rows"] == whole["counts"]["rows"]
    assert (manifest["counts"]["oversized"], manifest["counts"]["events"]) == (1, whole["counts"]["events"] - 1)
    if form == "ndjson":
        (line,) = (one for one in lines(data) if one.get("problem"))
        assert line["event"] is None
        assert "this export takes at most 10000" in line["problem"]
        assert line["entry"]["facts"]["name"] == "long"


def test_rows_are_a_pure_function_of_entry_and_event() -> None:
    entry = decode_entry(
        b'{"detail":{"to":"key/a/b"},"kind":"link","position":0,"recorded":"2026-01-01T00:00:00.000000000Z","trail":"trace/'
        + b"0" * 31
        + b'1","v":1}'
    )
    row = Row(log="l", leaf=3, entry=entry, data=b"{}")
    assert row.event() is None
    assert row.facts().digest == ""
