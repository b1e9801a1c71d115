"""`tally retain`: what goes, what stays, what is on record, and that nothing else can pass for it."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
import time
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from collector.batch import Batch, facts_root, sign_header
from collector.errors import Conflict
from collector.event import decode_event
from correlator.errors import VerificationError
from correlator.retired import retired_events
from correlator.unbundle import parse_members
from correlator.verify import verify_bundle
from deploy.config import ConfigError, parse
from deploy.keys import collector_key, log_verifier
from deploy.recording import patient_recorder
from deploy.retaining import open_retaining
from deploy.retention import RetentionSettings, why_kept
from deploy.storing import open_store
from tests.deploy.conftest import EVENTS, event
from tests.support.retiring import OLD, is_told_everywhere, keep_months, old_clock, retain, retire, two_months

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop


@pytest.mark.parametrize(
    ("month", "months", "why"),
    [
        ("2026.11", 1, "the current month"),
        ("2026.12", 1, "in the future"),
        ("2026.10", 1, "kept until 2026.12"),
        ("2026.09", 1, ""),
        ("2025.11", 12, "kept until 2026.12"),
        ("2025.10", 12, ""),
        ("2000.01", 0, "everything is kept"),
        ("2026.13", 1, "no month"),
    ],
)
def test_so_many_whole_months_are_kept_beside_the_current_one(month: str, months: int, why: str) -> None:
    told = why_kept(month, "2026-11-30T23:59:59.999999999Z", RetentionSettings(keep_months=months))
    assert why in told if why else told == ""


def test_a_hold_names_a_month(tmp_path: Path) -> None:
    text = '[retention]\nkeep_months = 1\nholds = { "2026.1" = "case 7" }\n'
    with pytest.raises(ConfigError, match=r"retention.*'2026.1', which is no month"):
        parse(text, source="x", folder=tmp_path)
    held = RetentionSettings(keep_months=1, holds={"2020.01": "case 7"})
    assert why_kept("2020.01", "2026-11-01T00:00:00.000000000Z", held) == "held: case 7"


def test_nothing_goes_unless_it_is_said(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    before = workshop.places.store.read_bytes()
    for options in ((), ("--apply",)):
        code, told = retain(cli, *options)
        assert (code, told[OLD]["action"], told[OLD]["events"]) == (0, "stays", 4)
        assert "everything is kept" in told[OLD]["why"]
    keep_months(workshop, 1, 'holds = { "2020.01" = "case 4711" }\n')
    code, told = retain(cli, "--apply")
    assert (code, told[OLD]["action"], told[OLD]["why"]) == (0, "stays", "held: case 4711")
    keep_months(workshop, 1)
    for options in ((), ("--dry-run",)):
        code, told = retain(cli, *options)
        assert (code, told[OLD]["action"], told[OLD]["retirements"][0]["on_record"]) == (0, "goes", None)
        assert told[OLD]["retirements"][0]["events"] == 4
    assert workshop.places.store.read_bytes() == before
    assert cli("retain", "--apply", "--dry-run")[0] == 2


def test_a_month_goes_and_its_trails_still_verify(workshop: Workshop, cli: Cli, tmp_path: Path) -> None:
    two_months(workshop)
    retire(workshop, cli)
    is_told_everywhere(workshop, cli, tmp_path)
    code, told = retain(cli, "--apply")
    assert code == 0
    assert OLD not in told, "there is nothing more of it"
    # whoever looks into the file finds nothing of what it said
    assert b"cache warm" not in workshop.places.store.read_bytes()


def test_the_record_waits_for_the_log_and_the_deed_for_the_record(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    keep_months(workshop, 1)
    assert retain(cli, "--apply", "--wait", "0")[0] == 1
    code, told = retain(cli)
    assert told[OLD]["events"] == 4, "nothing has gone yet"
    workshop.correlate()
    code, told = retain(cli)
    assert (code, told[OLD]["action"]) == (0, "goes")
    leaf = told[OLD]["retirements"][0]["on_record"]
    assert leaf is not None
    # an event that was retired and is there still is shown
    assert json.loads(cli("trail", "p2", "--json")[1])["steps"][0]["message"] == "received p2"
    assert cli("check")[0] == 0
    workshop.correlate()
    code, told = retain(cli, "--apply")
    assert (code, told[OLD]["action"], told[OLD]["retirements"][0]["on_record"]) == (0, "gone", leaf), (
        "no second record"
    )


def test_a_run_that_died_in_the_middle_is_gone_on_with(workshop: Workshop, cli: Cli) -> None:
    workshop.collect([event("received", "p7")], clock=old_clock)
    two_months(workshop)
    keep_months(workshop, 1)
    assert retain(cli, "--apply", "--wait", "0")[0] == 1
    workshop.correlate()
    with closing(sqlite3.connect(workshop.places.store)) as db:  # one of the month's two batches is gone already
        db.execute("DELETE FROM bodies WHERE batch = (SELECT min(batch) FROM bodies)")
        db.commit()
    assert cli("check")[0] == 0
    code, told = retain(cli, "--apply")
    assert (code, told[OLD]["events"], told[OLD]["action"], told[OLD]["findings"]) == (0, 4, "gone", [])
    code, out, _ = cli("check")
    assert (code, "5 of them retired by policy" in out) == (0, True), out
    assert len(json.loads(cli("trail", "ledger/retirements", "--json")[1])["steps"]) == 1


def test_with_a_correlator_at_work_one_run_does_it(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    keep_months(workshop, 1)
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            workshop.correlate()

    working = threading.Thread(target=work)
    working.start()
    try:
        code, told = retain(cli, "--apply")
    finally:
        over.set()
        working.join()
    assert (code, told[OLD]["action"]) == (0, "gone")


def test_what_comes_late_to_a_month_that_is_gone_is_kept(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    retire(workshop, cli)
    workshop.collect([event("received", "p9", second=6)], clock=old_clock)
    # the log does not have it yet: it stays
    code, told = retain(cli, "--apply")
    assert (code, told[OLD]["action"]) == (1, "stays")
    assert told[OLD]["findings"] == ["1 events of it wait for the correlator"]
    assert retain(cli, "--apply", "--despite-findings")[1][OLD]["action"] == "stays", "not even then"
    workshop.correlate()
    assert json.loads(cli("trail", "p9", "--json")[1])["steps"][0]["message"] == "received p9"
    code, told = retain(cli, "--apply")
    assert (code, told[OLD]["action"], told[OLD]["events"]) == (0, "stays", 1)
    assert told[OLD]["why"].endswith(": the current month"), "it is retired itself in its time"
    code, out, _ = cli("check")
    assert code == 0, out
    assert "4 of them retired by policy" in out


def test_a_month_with_findings_stays_unless_that_goes_on_record(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    keep_months(workshop, 1)
    with closing(sqlite3.connect(workshop.places.store)) as db:
        changed = "substr(events, 1, 40) || x'78' || substr(events, 42)"
        first = "(SELECT min(batch) FROM bodies)"
        assert db.execute(f"UPDATE bodies SET events = CAST({changed} AS BLOB) WHERE batch = {first}").rowcount == 1
        db.commit()
    code, told = retain(cli, "--apply")
    assert (code, told[OLD]["action"]) == (1, "stays")
    assert "digest" in " ".join(told[OLD]["findings"])
    code, told = retain(cli, "--apply", "--despite-findings", "--wait", "0")
    workshop.correlate()
    code, told = retain(cli, "--apply", "--despite-findings")
    assert (code, told[OLD]["action"]) == (0, "gone")
    assert told[OLD]["retirements"][0]["findings"] > 0


def test_what_came_now_stays_whatever_its_sidecars_clock_said(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    workshop.collect([event("received", "p9", second=6)], clock=old_clock)
    workshop.correlate()
    keep_months(workshop, 1)
    code, told = retain(cli, "--apply", "--despite-findings")
    assert (code, told[OLD]["action"], told[OLD]["retirements"]) == (0, "stays", [])
    assert told[OLD]["why"].startswith("events of it came in 20")
    assert told[OLD]["why"].endswith(": the current month")
    assert json.loads(cli("trail", "p9", "--json")[1])["steps"][0]["message"] == "received p9"


@pytest.mark.timeout(60)
def test_a_gap_of_more_numbers_than_anybody_can_ask_for_holds_up_nothing(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    with closing(open_store(workshop.config, workshop.places)) as store:
        stream = store.streams()[-1]
        (*_, last) = store.batches_after({stream: 0}, 1_000)
        beat = replace(
            last.header,
            number=2**53 - 100,
            first=last.header.first + last.header.count,
            count=0,
            previous="0" * 64,
            facts_root=facts_root([]),
        )
        signed = sign_header(beat, collector_key(workshop.places, "collector"), b"")
        store.append(Batch(signed=signed, events=b"", lengths=[]))
    workshop.correlate()
    keep_months(workshop, 1)
    code, told = retain(cli)
    assert (code, told[OLD]["action"]) == (0, "goes"), told


def test_what_waits_is_not_taken_for_what_was_lost(workshop: Workshop, cli: Cli) -> None:
    """As many events have come since as were lost: the numbers agree, and nothing may go all the same."""
    two_months(workshop)
    keep_months(workshop, 1)
    with closing(sqlite3.connect(workshop.places.store)) as db:
        db.execute("DELETE FROM bodies WHERE batch = (SELECT min(batch) FROM bodies)")
        db.commit()
    workshop.collect(EVENTS, clock=old_clock)
    code, told = retain(cli, "--apply", "--despite-findings")
    assert (code, told[OLD]["action"]) == (1, "stays")
    assert told[OLD]["findings"][0] == "4 events of it wait for the correlator"
    assert "is not in the store" in told[OLD]["findings"][1]


def test_nothing_goes_while_the_log_does_not_hold(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    keep_months(workshop, 1)
    # a tile of an earlier tree, which no reader needs
    tile = min((workshop.places.log / "tile" / "0").rglob("*.p/*"), key=lambda path: int(path.name))
    data = bytearray(tile.read_bytes())
    data[3] ^= 1
    tile.chmod(0o600)
    tile.write_bytes(data)
    code, told = retain(cli, "--apply", "--despite-findings")
    assert (code, told[OLD]["action"]) == (1, "stays")
    assert "log tile/0/" in " ".join(told[OLD]["findings"])


def test_what_is_said_to_people(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    keep_months(workshop, 1)
    code, out, _ = cli("retain")
    assert code == 0
    first, second, last = out.splitlines()
    assert first.split("  ")[0] == OLD
    assert first.endswith("goes")
    assert second.endswith("stays: the current month")
    assert last == "nothing was done: --apply does it"
    assert cli("retain", "--compact")[0] == 2
    keep_months(workshop, 0)
    assert "stays: retention.keep_months is 0: everything is kept" in cli("retain")[1]


def test_events_that_go_without_a_record_are_missing(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    retire(workshop, cli)
    with closing(sqlite3.connect(workshop.places.store)) as db:
        db.execute("DELETE FROM bodies")
        db.commit()
    code, out, _ = cli("check")
    assert code == 1
    assert "is not in the store" in out
    assert "4 of them retired by policy" in out


def test_a_retirement_that_says_other_than_the_log_is_found(workshop: Workshop, cli: Cli) -> None:
    two_months(workshop)
    keep_months(workshop, 1)
    with open_retaining(workshop.config) as desk, patient_recorder(workshop.config, workshop.places) as recorder:
        plans = [one for one in desk.plan(now_ns=time.time_ns()) if one.goes]
        ((true,),) = [one.retirements for one in plans]
        lies = [replace(true, events=true.events + 1), replace(true, size=99_999), replace(true, digest="0" * 64)]
        desk.record([dataclasses.replace(plans[0], retirements=(lie,)) for lie in lies], recorder)
    workshop.correlate()
    code, out, _ = cli("check")
    assert code == 1
    assert out.count("the retirement of 2020.01 speaks of other batches than the log has of it") == 2
    assert out.count("the retirement of 2020.01 lets go of what was not in the log yet") == 1
    # nor does anything go on the word of one
    with open_retaining(workshop.config) as desk:
        with pytest.raises(Conflict, match="is not in the log"):
            desk.carry_out(plans[0])
        assert all(one.on_record in ((), (-1,)) for one in desk.plan(now_ns=time.time_ns(), despite_findings=True))


def test_a_service_cannot_retire_anything(workshop: Workshop, cli: Cli) -> None:
    """A retirement counts only when a recorder of ours signed it: anybody else's is placed like any other event."""
    two_months(workshop)
    retire(workshop, cli)
    found = json.loads(cli("trail", "ledger/retirements", "--json")[1])
    assert [step["name"] for step in found["steps"]] == ["retention.retire"]
    # what was on record, sent by a collector
    with closing(sqlite3.connect(workshop.places.store)) as db:
        (data,) = db.execute(
            "SELECT events FROM bodies WHERE instr(events, CAST('\"retirement\"' AS BLOB)) > 0"
        ).fetchone()
    true = decode_event(data).retirement
    assert true is not None
    assert true.month == OLD
    workshop.collect([replace(event("received", "p8"), retirement=true)])
    workshop.correlate()
    assert len(json.loads(cli("trail", "ledger/retirements", "--json")[1])["steps"]) == 1
    assert cli("check")[0] == 0


def test_a_bundle_shows_the_retirements_only_where_they_explain_something(
    workshop: Workshop, cli: Cli, tmp_path: Path
) -> None:
    two_months(workshop)
    retire(workshop, cli)
    verifier = log_verifier(workshop.places)
    for payment, retired in (("p1", 3), ("p3", 0)):
        bundle = tmp_path / f"{payment}.zip"
        assert cli("export", payment, "-o", str(bundle))[0] == 0
        report = verify_bundle(bundle.read_bytes(), verifier)
        assert (report.retired, report.withheld) == (retired, retired)
        assert ("ledger/retirements" in [one.trail for one in report.trails]) == bool(retired)
        with zipfile.ZipFile(bundle) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        assert (b"retired by policy with 2020.01" in members["index.html"]) == bool(retired)
        assert len(retired_events(parse_members(members))) == retired
    # taken out: then what it explained is only withheld, and the bundle does not fit together
    with zipfile.ZipFile(tmp_path / "p1.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["trail.ndjson"] = b"".join(
        line for line in members["trail.ndjson"].splitlines(keepends=True) if b"ledger/retirements" not in line
    )
    with pytest.raises(VerificationError):
        verify_bundle(members, verifier)


def test_a_clock_that_is_ahead_lets_nothing_go(workshop: Workshop) -> None:
    """Where the log's newest entry is older than our clock says, the log counts."""
    workshop.collect(EVENTS)
    workshop.correlate()
    keep_months(workshop, 1)
    with open_retaining(workshop.config) as desk:
        (plan,) = desk.plan(now_ns=3_700_000_000_000_000_000)  # in 2087
        assert (plan.goes, plan.kept) == (False, "the current month")
        (plan,) = desk.plan(now_ns=0)
        assert (plan.goes, plan.kept) == (False, "it is in the future")
