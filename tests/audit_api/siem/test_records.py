"""What a record says in each format, that it can be proved, and that nothing keeps an entry from being told."""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from audit_api.export.walk import Row
from audit_api.siem.forms import FORMS
from audit_api.siem.record import Form, Mark, Shaper
from correlator.checkpoint import open_checkpoint
from correlator.merkle import leaf_hash, verify_inclusion
from tests.audit_api.siem.test_wording import read_cef
from tests.support.ledgers import SIGNER, SmallLedger
from tests.support.siems import log_rows, records_of

KINDS = {"event", "batch", "link", "verdict", "enrolment", "gap", "fork"}


def told(data: bytes, form: str) -> dict[str, Any]:
    """The record, read, with its id, place and proof at one place whatever the format."""
    if form == "cef":
        header, fields = read_cef(data.decode())
        return {
            "id": fields["externalId"], "log": fields["cs2"], "leaf": int(fields["cn1"]), "leaf_hash": fields["cs3"],
            "checkpoint": {"size": int(fields["cn2"]), "root": fields["cs4"]}, "header": header, "fields": fields,
        }  # fmt: skip
    read: dict[str, Any] = json.loads(data)
    inside = {"json": read, "ecs": read.get("tallystick"), "ocsf": read.get("unmapped")}[form]
    assert isinstance(inside, dict)
    return inside | {"record": read}


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_entry_is_told_and_can_be_proved(difficult: SmallLedger, form: str) -> None:
    records = records_of(difficult, form)
    assert {one.row.entry.kind for one in records} == KINDS
    assert [one.row.leaf for one in records] == list(range(difficult.log.next_leaf_index))
    signed = open_checkpoint(difficult.reader.checkpoint(), SIGNER.verifier)
    for one in records:
        assert b"\n" not in one.data
        read = told(one.data, form)
        assert (read["id"], read["log"], read["leaf"]) == (f"{SIGNER.name}#{one.row.leaf}", SIGNER.name, one.row.leaf)
        entry = difficult.reader.entry(one.row.leaf)
        assert read["leaf_hash"] == leaf_hash(entry).hex()
        assert read["checkpoint"] == {"size": signed.size, "root": base64.b64encode(signed.root).decode()}
        path = difficult.reader.inclusion(read["leaf"], read["checkpoint"]["size"])
        verify_inclusion(
            bytes.fromhex(read["leaf_hash"]),
            read["leaf"],
            signed.size,
            path,
            base64.b64decode(read["checkpoint"]["root"]),
        )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("most", [3_300, 9_000])
def test_what_is_too_long_is_cut_and_says_so(difficult: SmallLedger, form: str, most: int) -> None:
    why = Counter[str]()
    records = records_of(difficult, form, max_bytes=most, reduced=lambda one: why.update([one]))
    whole = {one.row.leaf: len(one.data) for one in records_of(difficult, form)}
    cut = [one for one in records if one.mark.cut]
    assert cut or form == "cef", "the fixture has a body of 80,000 bytes; CEF has no room for more than 1,023 of it"
    assert why == Counter({"oversized": len(cut)} if cut else {})
    for one in records:
        assert len(one.data) <= most
        assert bool(one.mark.cut) == (whole[one.row.leaf] > most)
        assert told(one.data, form)["leaf"] == one.row.leaf
        if one.mark.cut and form != "cef":
            said = told(one.data, form)["cut"]
            assert said == {"why": "oversized", "event_bytes": len(one.row.raw or b"")}


@pytest.mark.parametrize("form", FORMS)
def test_an_event_that_was_let_go_of_by_policy_says_so(difficult: SmallLedger, form: str) -> None:
    rows, tree = log_rows(difficult)
    row = next(row for row in rows if row.entry.kind == "event")
    gone = replace(row, raw=None, retired="2020.01")
    record = Shaper(FORMS[form](), max_bytes=100_000, reduced=lambda _: None).record(gone, tree)
    assert b"2020.01" in record.data


class _Stumbling(Form):
    """Takes no event with a body, and no verdict at all."""

    def whole(self, row: Row, mark: Mark) -> bytes:  # noqa: ARG002 - as `Form` has it
        event = row.event()
        if event is not None and event.body is not None:
            raise RecursionError("too deep")
        if row.entry.kind == "verdict":
            raise KeyError("verdict")
        return b"whole"

    def bare(self, row: Row, mark: Mark) -> bytes:  # noqa: ARG002 - as `Form` has it
        return b"bare"


def test_what_no_mapping_takes_is_told_with_less(difficult: SmallLedger) -> None:
    rows, tree = log_rows(difficult)
    why = Counter[str]()
    shaper = Shaper(_Stumbling(), max_bytes=100, reduced=lambda one: why.update([one]))
    made = [shaper.record(row, tree) for row in rows]
    for one in made:
        event = one.row.event()
        if one.row.entry.kind == "verdict":
            assert (one.level, one.data, one.mark.cut) == ("bare", b"bare", "unmappable")
        elif event is not None and event.body is not None:
            assert (one.level, one.mark.cut, one.mark.of_bytes) == ("facts", "unmappable", len(one.row.raw or b""))
        else:
            assert (one.level, one.mark.cut) == ("whole", "")
    assert set(why) == {"unmappable"}
    assert why["unmappable"] == sum(bool(one.mark.cut) for one in made)


def test_a_record_that_is_refused_has_less_in_it_each_time(difficult: SmallLedger) -> None:
    (one,) = (one for one in records_of(difficult, "json") if one.row.facts().name == "payment.requested")
    assert (one.level, json.loads(one.data)["event"]["actor"]) == ("whole", "ann")
    less = one.refused()
    assert less is not None
    assert json.loads(less.data)["event"] is None
    assert json.loads(less.data)["entry"]["facts"]["actor"] == "ann"
    bare = less.refused()
    assert bare is not None
    assert json.loads(bare.data).keys() == {"id", "leaf_hash", "checkpoint", "cut", "log", "leaf", "trail"}
    assert bare.refused() is None
    assert {one.mark.id, less.mark.id, bare.mark.id} == {one.mark.id}


def test_ocsf_holds_to_its_schema(difficult: SmallLedger) -> None:
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.8.0"))
    base = Draft202012Validator(schema.get_class_schema("base_event"))
    activity = Draft202012Validator(schema.get_class_schema("api_activity", profiles=["trace"]))
    checked = Counter[int]()
    for one in records_of(difficult, "ocsf"):
        read = json.loads(one.data)
        wanted = base if read["class_uid"] == 0 else activity
        assert [error.message for error in wanted.iter_errors(read)] == []
        assert list(wanted.iter_errors(read | {"nonsense": 1})), "the schema notices"
        checked[read["class_uid"]] += 1
    assert set(checked) == {0, 6003}


def test_what_a_security_desk_looks_for(difficult: SmallLedger) -> None:
    by_kind = {one.row.entry.kind: read_cef(one.data.decode()) for one in records_of(difficult, "cef")}
    header, fields = by_kind["verdict"]
    assert header[4:] == ["verdict.incomplete", "payment is incomplete: deadline passed", "6"]
    assert (fields["cat"], fields["outcome"], fields["cs1"]) == ("verdict", "incomplete", "transaction/PAY-0")
    assert by_kind["gap"][0][4:] == ["gap", "Events of a collector are missing", "9"]
    assert by_kind["fork"][0][6] == "10"
    failed = next(one for one in records_of(difficult, "cef") if one.row.facts().name == "POST /pay")
    header, fields = read_cef(failed.data.decode())
    assert (header[4], header[6]) == ("POST /pay", "8")
    assert (fields["src"], fields["requestMethod"], fields["sourceServiceName"]) == ("192.0.2.7", "POST", "gateway")
    masked = next(one for one in records_of(difficult, "cef") if one.row.facts().name == "masked")
    assert "src" not in read_cef(masked.data.decode())[1], "a masked address is none"
    assert read_cef(masked.data.decode())[1]["msg"] == "card [4111 11** **** 1111]"
