"""A ledger that is cut into shards, as its commands see it: stories, bundles, checks, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from audit_api.export.bundle import export_bundle
from correlator.errors import VerificationError
from correlator.index import TextSearch, TrailQuery
from correlator.settings import CorrelatorSettings
from correlator.shards import Shard
from correlator.statement import Statement, sign_statement
from correlator.verify import verify_bundle, verify_proof
from deploy.cli import main
from deploy.config import ConfigError, parse
from deploy.keys import log_signer
from deploy.places import Places
from deploy.reading import open_ledger
from deploy.standing import standing
from deploy.writing import open_correlator, open_desk
from tests.support.cut_ledger import CUT_CONFIG, SHARDS, CutLedger
from tests.support.whole_ledger import payment_events, put_back, take_out, trace_of

PAYMENTS = 24
EVENTS = 3 * PAYMENTS + 3 * 4 + 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[CutLedger, CutLedger]:
    """A ledger, and its earlier self."""
    folder = tmp_path_factory.mktemp("cut")
    ledger = CutLedger(folder / "now")
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(PAYMENTS - 8)))
    ledger.take_in()
    settle(ledger)
    earlier = CutLedger(ledger.copy(folder / "earlier").folder)
    ledger.collect("gateway", payment_events("gateway", range(PAYMENTS - 8, PAYMENTS)))
    ledger.collect("payments", payment_events("payments", range(4)))
    ledger.record(["transaction/p1"] * 3)
    ledger.record(["transaction/p2"] * 3)
    ledger.take_in()
    settle(ledger)
    return ledger, earlier


def settle(ledger: CutLedger) -> None:
    """Move what is in the databases' write-ahead logs into the files, so that they can be copied."""
    for path in (ledger.places.store, *(ledger.places.of_shard(shard.name).index for shard in ledger.shards)):
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture
def ledger(made: tuple[CutLedger, CutLedger], tmp_path: Path) -> CutLedger:
    """A copy to tamper with."""
    return CutLedger(made[0].copy(tmp_path / "copy").folder)


@pytest.fixture
def tally(
    made: tuple[CutLedger, CutLedger], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs a command over a ledger; gives exit code and stdout."""

    def run(*arguments: str, ledger: CutLedger = made[0]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tally", "--config", str(ledger.folder / "tally.toml"), *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out + told.err

    return run


def found(ledger: CutLedger, **options: object) -> list[str]:
    return [str(finding) for finding in ledger.check(**options)]  # type: ignore[arg-type]  # passed on


# -- all together


def test_each_event_is_in_one_log_and_all_holds(made: tuple[CutLedger, CutLedger]) -> None:
    ledger, earlier = made
    ledger.assert_cut_right(EVENTS)
    assert found(ledger) == []
    assert found(ledger, since=earlier.statement()) == []
    for shard in ledger.shards:
        assert found(ledger, since=earlier.reader(shard).tree()) == []
    assert [tree.size for tree in ledger.statement().trees] == [ledger.size(shard) for shard in ledger.shards]
    ledger.statement().check_follows(earlier.statement())
    assert all(number > 0 for number in ledger.acknowledged().values())


def statement_flipped(ledger: CutLedger, _: CutLedger) -> None:
    path = ledger.places.log / "head"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def statement_gone(ledger: CutLedger, _: CutLedger) -> None:
    (ledger.places.log / "head").unlink()


def statement_of_more(ledger: CutLedger, _: CutLedger) -> None:
    """Signed, and ahead of a log: what a rollback of that log alone leaves."""
    trees = [(tree.size + (at == 1), tree.root) for at, tree in enumerate(ledger.statement().trees)]
    signer, _made = log_signer(ledger.places, ledger=ledger.config.ledger)
    (ledger.places.log / "head").write_bytes(
        sign_statement(Statement.of(signer.name, ledger.statement().placement, trees), signer)
    )


def shard_rolled_back(ledger: CutLedger, earlier: CutLedger) -> None:
    """One shard's log and index as they were, whole and signed."""
    shard = ledger.shards[1]
    shutil.rmtree(ledger.log_folder(shard))
    shutil.copytree(earlier.log_folder(shard), ledger.log_folder(shard))
    for path in ledger.places.root.glob(f"index-{shard.name}*"):
        path.unlink()
    shutil.copy(earlier.places.of_shard(shard.name).index, ledger.places.of_shard(shard.name).index)


def shards_exchanged(ledger: CutLedger, _: CutLedger) -> None:
    one, two = (ledger.log_folder(shard) for shard in ledger.shards[:2])
    one.rename(one.with_name("aside"))
    two.rename(one)
    one.with_name("aside").rename(two)


def shard_gone(ledger: CutLedger, _: CutLedger) -> None:
    shutil.rmtree(ledger.log_folder(ledger.shards[2]))


def entry_changed(ledger: CutLedger, _: CutLedger) -> None:
    bundles = (ledger.log_folder(ledger.shards[0]) / "tile" / "entries").rglob("*")
    path = next(path for path in bundles if path.is_file())
    path.write_bytes(path.read_bytes().replace(b"gateway", b"gatevay", 1))


def event_changed(ledger: CutLedger, _: CutLedger) -> None:
    with closing(sqlite3.connect(ledger.places.store)) as db:
        db.execute("UPDATE bodies SET events = replace(events, 'looked up', 'looked on') WHERE batch = 1")
        db.commit()


HARMS = [
    (statement_flipped, r"joint statement .*(signature|statement|root|line)"),
    (statement_gone, "joint statement .* missing"),
    (statement_of_more, r"log shard-2-of-3/checkpoint: .* rolled back behind the joint statement"),
    (shard_rolled_back, r"log shard-2-of-3/checkpoint: .* rolled back behind the joint statement"),
    (shards_exchanged, r"log shard-1-of-3/checkpoint: .*not signed by"),
    (shard_gone, r"log shard-3-of-3/"),
    (entry_changed, r"log shard-1-of-3/tile"),
    (event_changed, r"store.*digest"),
]


@pytest.mark.parametrize(("harm", "named"), HARMS, ids=lambda one: getattr(one, "__name__", ""))
def test_what_is_changed_is_found_and_named(
    harm: Callable[[CutLedger, CutLedger], None],
    named: str,
    ledger: CutLedger,
    made: tuple[CutLedger, CutLedger],
    tally: Callable[..., tuple[int, str]],
) -> None:
    harm(ledger, made[1])
    findings = found(ledger)
    assert any(re.search(named, finding) for finding in findings), findings
    code, told = tally("verify", str(ledger.places.log), "--key", str(ledger.places.log_vkey))
    if harm is event_changed:
        assert code == 0, "the logs alone do not hold the events' bytes"
    elif harm in (shard_gone, statement_gone):  # from a copy, for all that is known
        assert (code, told.startswith("COULD NOT TELL: ")) == (2, True), told
    else:
        assert (code, "FALSE" in told) == (1, True), told


def test_a_correlator_that_takes_what_is_anothers_is_found(ledger: CutLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a false one would, which has the key: its entries chain, are signed, and are true, and stand in the wrong log."""
    monkeypatch.setattr(Shard, "holds", lambda shard, trail: shard.number == 2 or shard_is_right(shard, trail))
    ledger.collect("gateway", payment_events("gateway", range(PAYMENTS, PAYMENTS + 6)))
    ledger.take_in()
    monkeypatch.undo()
    findings = found(ledger)
    assert any("belongs into another shard's log" in finding for finding in findings)
    assert any("have more than one entry in the shards' logs" in finding for finding in findings)
    with open_ledger(ledger.config) as opened:
        log = opened.logs[1]
        page = log.index.find(TrailQuery(kind="transaction"), size=log.index.size(), limit=1_000)
        stray = next(one.trail for one in page.trails if not log.shard.holds(one.trail))
        with pytest.raises(VerificationError, match="belongs into another shard's log"):
            verify_bundle(export_bundle(log.evidence, key=log.key, trails=[stray], page=False), ledger.key)


def test_a_correlator_that_leaves_out_what_is_its_own_is_found(
    ledger: CutLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shard, "holds", lambda shard, trail: shard.number != 2 and shard_is_right(shard, trail))
    ledger.collect("gateway", payment_events("gateway", range(PAYMENTS, PAYMENTS + 6)))
    ledger.take_in()
    monkeypatch.undo()
    assert any("have no entry in any shard's log" in finding for finding in found(ledger))


shard_is_right = Shard.holds


def test_a_gap_that_only_one_shard_saw_is_filled_and_all_holds(
    ledger: CutLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.collect("payments", payment_events("payments", range(PAYMENTS, PAYMENTS + 12)))
    stolen = take_out(ledger.places.store, "payments/", 3)
    monkeypatch.setattr("deploy.importing.shards_of", lambda _: ledger.shards[:1])
    ledger.take_in()
    monkeypatch.undo()
    assert any("a gap: batch 3" in finding for finding in found(ledger))
    put_back(ledger.places.store, stolen)
    ledger.take_in()
    assert found(ledger) == []
    gaps = [sum(entry.kind == "gap" for entry in ledger.entries(shard)) for shard in ledger.shards]
    assert gaps == [1, 0, 0]
    ledger.assert_cut_right(EVENTS + 36)


# -- reading


def test_a_story_follows_its_links_into_other_logs(made: tuple[CutLedger, CutLedger]) -> None:
    crossed = 0
    with open_ledger(made[0].config) as opened:
        for number in range(PAYMENTS):
            story, head = opened.story(opened.summary(f"transaction/p{number}"))
            assert story.proof.state == "verified", story.proof.problem
            names = [step.name for step in story.steps if step.sequence >= 0]
            assert sorted(set(names)) == ["looked up", "paid", "received"], "the trace's event is told, too"
            assert head >= 0
            home, other = (made[0].shard_of(trail) for trail in (f"transaction/p{number}", f"trace/{trace_of(number)}"))
            assert bool(story.proof.further) == (home != other)
            crossed += home != other
        assert len(opened.story(opened.summary("transaction/p1"))[0].accesses) == 3
    assert 0 < crossed < PAYMENTS


def test_a_trace_whose_log_is_behind_is_told_of(ledger: CutLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    number = next(
        number
        for number in range(PAYMENTS, PAYMENTS + 20)
        if ledger.shard_of(f"transaction/p{number}") == 1 and ledger.shard_of(f"trace/{trace_of(number)}") == 3
    )
    ledger.collect("payments", payment_events("payments", [number]))
    monkeypatch.setattr("deploy.importing.shards_of", lambda _: ledger.shards[:1])
    ledger.take_in()
    monkeypatch.undo()
    with open_ledger(ledger.config) as opened:
        story, _ = opened.story(opened.summary(f"transaction/p{number}"))
        _, _, elsewhere = opened.export(opened.summary(f"transaction/p{number}"))
    assert story.proof.state == "verified"
    assert story.gaps == (f"trace/{trace_of(number)} is linked to it, and its shard's log is behind",)
    assert elsewhere == (f"trace/{trace_of(number)}",)
    assert found(ledger) == [], "a log that is behind is no finding"


def test_a_bundle_proves_a_trail_under_the_ledgers_key(
    made: tuple[CutLedger, CutLedger], tmp_path: Path, tally: Callable[..., tuple[int, str]]
) -> None:
    number = next(
        number
        for number in range(PAYMENTS)
        if made[0].shard_of(f"transaction/p{number}") != made[0].shard_of(f"trace/{trace_of(number)}")
    )
    file = tmp_path / "p.zip"
    code, told = tally("export", f"p{number}", "-o", str(file))
    assert code == 0
    assert f"trace/{trace_of(number)} belongs to it and is in another shard's log" in told
    assert tally("verify", str(file), "--key", str(made[0].places.log_vkey))[0] == 0
    code, told = tally(
        "verify", str(file), "--key", str(made[0].places.log_vkey), "--since", str(made[0].places.log / "head")
    )
    assert (code, "the remembered checkpoint: same" in told) == (0, True), told
    home = made[0].shards[made[0].shard_of(f"transaction/p{number}") - 1]
    report = verify_bundle(file.read_bytes(), made[0].key)
    assert report.checkpoint.origin == home.origin(made[0].key.name)
    with pytest.raises(VerificationError, match="the bundle is of the key"):
        verify_bundle(file.read_bytes(), made[0].key.named("test.example/other"))


def test_a_single_proof_holds_under_the_ledgers_key(made: tuple[CutLedger, CutLedger]) -> None:
    with open_ledger(made[0].config) as opened:
        log = opened.logs[2]
        leaf = log.index.size() - 1
        proof = log.evidence.reader.proof(leaf, extra=log.evidence.reader.entry(leaf)).encode()
    report = verify_proof(proof, made[0].key)
    assert (report.checkpoint.origin, report.leaf) == (log.shard.origin(made[0].key.name), leaf)
    with pytest.raises(VerificationError, match="not signed by"):
        verify_proof(proof, made[0].key.named("test.example/other"))


def test_a_search_goes_over_all_logs_and_tells_each_trail_once(made: tuple[CutLedger, CutLedger]) -> None:
    with open_ledger(made[0].config) as opened:
        trails, more = opened.search(TrailQuery(kind="transaction"), limit=1_000)
        assert sorted(one.trail for one in trails) == sorted(f"transaction/p{number}" for number in range(PAYMENTS))
        assert not more
        few, more = opened.search(TrailQuery(kind="transaction"), limit=5)
        assert more
        assert [one.trail for one in few] == [one.trail for one in trails[:5]]
        streams, _ = opened.search(TrailQuery(kind="stream"), limit=1_000)
        assert len({one.trail for one in streams}) == len(streams) == 3
        text, more = opened.search(TrailQuery(text=TextSearch.parse("LOOK* paid p*"), kind="transaction"), limit=5)
        assert [one.trail for one in text] == []
        paid, more = opened.search(TrailQuery(text=TextSearch.parse("PAID p*"), kind="transaction"), limit=1_000)
        assert sorted(one.trail for one in paid) == sorted(one.trail for one in trails)
        for number in range(PAYMENTS):
            (one,) = opened.search(TrailQuery(text=TextSearch.parse(f"paid P{number}")))[0]
            assert one.trail == f"transaction/p{number}"
        assert [one.trail for one in opened.find("o1")] == [
            one.trail for one in opened.search(TrailQuery(key=("order_id", "o1")))[0] if one.services
        ]


def test_how_it_stands_is_told_log_by_log(made: tuple[CutLedger, CutLedger]) -> None:
    told = standing(made[0].config)
    assert told.problems == ()
    assert told.ledger is None
    assert [one.origin for one in told.shards or ()] == [shard.origin(made[0].key.name) for shard in made[0].shards]
    assert {stream.status for stream in told.streams} == {"ok"}
    assert told.trails["complete"] == PAYMENTS


def test_a_story_through_an_api_is_the_same(
    ledger: CutLedger, remote: list[str], tally: Callable[..., tuple[int, str]]
) -> None:
    """Also where its trace stands in another shard's log, and comes in a bundle of its own."""
    further = 0
    for number in range(4):
        here, there = (tally("trail", f"p{number}", "--json", *more, ledger=ledger) for more in ([], remote))
        assert (here[0], there[0]) == (0, 0), there
        mine, theirs = json.loads(here[1]), json.loads(there[1])
        assert theirs["proof"]["state"] == "verified"
        assert (theirs["steps"], theirs["links"], theirs["gaps"]) == (mine["steps"], mine["links"], [])
        further += bool(theirs["proof"].get("further"))
    assert further, "some have their trace elsewhere"


def test_the_index_of_each_shard_is_made_anew(ledger: CutLedger, tally: Callable[..., tuple[int, str]]) -> None:
    for shard in ledger.shards:
        ledger.places.of_shard(shard.name).index.write_bytes(b"damaged")
        for path in ledger.places.root.glob(f"index-{shard.name}.sqlite-*"):
            path.unlink()
    code, told = tally("reindex", ledger=ledger)
    assert code == 0, told
    assert found(ledger) == []


def test_verify_takes_the_root_the_statement_and_a_log(
    made: tuple[CutLedger, CutLedger], tmp_path: Path, tally: Callable[..., tuple[int, str]]
) -> None:
    ledger, earlier = made
    key = ["--key", str(ledger.places.log_vkey)]
    before = tmp_path / "statement"
    before.write_bytes((earlier.places.log / "head").read_bytes())
    code, told = tally("verify", str(ledger.places.log), *key, "--since", str(before))
    assert (code, "TRUE: the joint statement holds" in told) == (0, True), told
    code, told = tally("verify", str(ledger.places.log / "head"), *key, "--since", str(before), "--json")
    assert (code, json.loads(told)["verdict"]) == (2, "unknown"), "what the logs hold is not in the statement"
    assert [one["size"] for one in json.loads(told)["shards"]] == [tree.size for tree in ledger.statement().trees]
    assert tally("verify", str(ledger.log_folder(ledger.shards[1])), *key)[0] == 0
    one = ledger.log_folder(ledger.shards[1]) / "checkpoint"
    for source, code in ((ledger, 0), (earlier, 1)):
        for what in (source.places.log, source.places.log / "head"):
            assert tally("verify", str(what), *key, "--since", str(one))[0] == code
    newer = tmp_path / "newer"
    newer.write_bytes((ledger.places.log / "head").read_bytes())
    code, told = tally("verify", str(earlier.places.log), *key, "--since", str(newer))
    assert (code, "rolled back" in told) == (1, True), told
    assert tally("verify", str(earlier.places.log / "head"), *key, "--since", str(newer))[0] == 1
    for since, verdict in ((newer, "TRUE:"), (before, "COULD NOT TELL: nothing in it shows")):
        told = tally("verify", str(ledger.places.log / "head"), *key, "--since", str(since))[1]
        assert told.startswith(verdict), told
    code, told = tally("verify", str(newer), *key, "--since", str(before), "--consistency", str(before))
    assert (code, "goes with a bundle or a .tlog-proof alone" in told) == (2, True), told
    code, told = tally("check", "--since", str(newer), ledger=earlier)
    assert (code, "rolled back" in told) == (1, True), told
    assert tally("verify", str(ledger.places.log / "head"))[0] == 2, "without a key it cannot be told"


def copied(ledger: CutLedger, folder: Path, *numbers: int) -> Path:
    """What the API publishes of these shards' logs, with the joint statement: a mirror, without the logs' own heads."""
    folder.mkdir()
    shutil.copy(ledger.places.log / "head", folder / "head")
    for number in numbers:
        mirror(ledger, number, folder / f"shard-{number}-of-3")
    return folder


def mirror(ledger: CutLedger, number: int, folder: Path) -> None:
    log = ledger.log_folder(ledger.shards[number - 1])
    shutil.copytree(log / "tile", folder / "tile")
    shutil.copy(log / "checkpoint", folder / "checkpoint")


def test_what_is_published_of_all_logs_is_enough_to_verify_them(
    made: tuple[CutLedger, CutLedger], tmp_path: Path, tally: Callable[..., tuple[int, str]]
) -> None:
    key = ["--key", str(made[0].places.log_vkey)]
    folder = copied(made[0], tmp_path / "mirror", 1, 2, 3)
    code, told = tally("verify", str(folder), *key)
    assert (code, told.startswith("TRUE: the joint statement holds, and every leaf")) == (0, True), told
    code, told = tally("verify", str(folder / "shard-2-of-3"), *key)
    assert (code, told.startswith("TRUE: every leaf and tile of test.example/audit/shard-2-of-3")) == (0, True), told
    (folder / "shard-2-of-3" / "checkpoint").unlink()
    code, told = tally("verify", str(folder), *key)
    assert (code, "FALSE: log shard-2-of-3/checkpoint" in told) == (1, True), told


def test_some_of_the_logs_under_their_statement_leave_the_others_open(
    made: tuple[CutLedger, CutLedger], tmp_path: Path, tally: Callable[..., tuple[int, str]]
) -> None:
    ledger, earlier = made
    key = ["--key", str(ledger.places.log_vkey)]
    folder = copied(ledger, tmp_path / "two", 1, 3)
    code, told = tally("verify", str(folder), *key)
    size = ledger.statement().trees[1].size
    missing = f"nothing is here of test.example/audit/shard-2-of-3, which had {size:,} leaves"
    assert (code, told.startswith(f"COULD NOT TELL: {missing}, but the joint statement holds")) == (2, True), told
    code, told = tally("verify", str(folder), *key, "--json")
    assert (code, json.loads(told)) == (2, {"verdict": "unknown", "findings": [], "doubts": [missing]})
    shutil.rmtree(folder / "shard-3-of-3")
    mirror(earlier, 3, folder / "shard-3-of-3")
    code, told = tally("verify", str(folder), *key)
    assert (code, "rolled back behind the joint statement" in told) == (1, True), told


def test_one_log_with_the_statement_beside_it_is_held_to_its_part_of_it(
    made: tuple[CutLedger, CutLedger], tmp_path: Path, tally: Callable[..., tuple[int, str]]
) -> None:
    ledger, earlier = made
    key = ["--key", str(ledger.places.log_vkey)]
    for source, number in ((ledger, 2), (earlier, 2)):
        folder = tmp_path / f"{source.folder.name}"
        mirror(source, number, folder)
        shutil.copy(ledger.places.log / "head", folder / "head")
    code, told = tally("verify", str(tmp_path / ledger.folder.name), *key)
    name = "TRUE: the joint statement holds, and every leaf and tile of test.example/audit/shard-2-of-3 leads"
    assert (code, told.startswith(name)) == (0, True), told
    code, told = tally("verify", str(tmp_path / earlier.folder.name), *key)
    assert (code, "rolled back behind the joint statement" in told) == (1, True), told
    # a statement that is remembered says as much of one shard's log as one that lies there
    for source, expected in ((ledger, 0), (earlier, 1)):
        log = str(source.log_folder(source.shards[1]))
        code, told = tally("verify", log, *key, "--since", str(ledger.places.log / "head"))
        assert code == expected, told


def test_a_shard_that_has_not_begun_is_no_finding_and_no_doubt(
    tmp_path: Path, tally: Callable[..., tuple[int, str]]
) -> None:
    ledger = CutLedger(tmp_path / "young")
    ledger.begin()
    with open_correlator(ledger.config, ledger.places, shard=ledger.shards[0]):
        pass
    code, told = tally("verify", str(ledger.places.log), "--key", str(ledger.places.log_vkey))
    assert (code, "shard-1-of-3 leads to" in told) == (0, True), told
    code, told = tally("verify", str(tmp_path), "--key", str(ledger.places.log_vkey))
    assert (code, told.startswith("COULD NOT TELL: there is neither a log nor")) == (2, True), told


# -- what is refused


@pytest.mark.parametrize("count", [1, 2, 4])
def test_another_number_of_shards_is_refused(
    count: int, ledger: CutLedger, tally: Callable[..., tuple[int, str]]
) -> None:
    config = CUT_CONFIG.replace(f"shards = {SHARDS}\n", f"shards = {count}\n")
    (ledger.folder / "tally.toml").write_text(config)
    for command in (
        ["find"],
        ["check"],
        ["reindex"],
        ["trail", "p1"],
        ["run", "correlator", *(["--shard", "1"] * (count > 1))],
        ["run", "api"],
    ):
        code, told = tally(*command, ledger=ledger)
        assert code == 2, command
        assert f"correlator.shards is {count}, and the ledger test.example/audit is cut into 3 shards" in told
    assert "cut into 3 shards" in standing(ledger.config).problems[0]


def test_a_ledger_that_is_not_cut_stays_whole(tmp_path: Path, tally: Callable[..., tuple[int, str]]) -> None:
    ledger = CutLedger(tmp_path)
    ledger.begin()
    (tmp_path / "tally.toml").write_text(CUT_CONFIG.replace(f"shards = {SHARDS}\n", "shards = 1\n"))
    ledger.collect("gateway", payment_events("gateway", range(2)))
    ledger.take_in()
    assert found(ledger) == []
    (tmp_path / "tally.toml").write_text(CUT_CONFIG)
    code, told = tally("check", ledger=ledger)
    assert code == 2
    assert "correlator.shards is 3, and the ledger test.example/audit is not cut" in told


def test_other_rules_of_placing_are_refused(ledger: CutLedger, tally: Callable[..., tuple[int, str]]) -> None:
    (ledger.folder / "tally.toml").write_text(
        CUT_CONFIG.replace("[correlator]\n", '[correlator]\nkey_order = ["order_id"]\n')
    )
    code, told = tally("run", "correlator", "--shard", "1", ledger=ledger)
    assert (code, "correlator.key_order or correlator.recorders is not as when" in told) == (2, True), told
    with pytest.raises(ConfigError, match="is not as when the ledger began"):
        ledger.take_in()
    assert found(ledger) == [], "readers do not place anything"


def test_a_statement_that_was_changed_stops_a_correlator(ledger: CutLedger, made: tuple[CutLedger, CutLedger]) -> None:
    statement_flipped(ledger, made[1])
    with pytest.raises(VerificationError), open_desk(ledger.config, ledger.places, shard=ledger.shards[0]):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "say which with --shard 1 to 3"), (("--shard", "4"), "no shard 4"), (("--shard", "0"), "no shard 0")],
)
def test_a_correlator_must_know_its_shard(
    arguments: tuple[str, ...], said: str, tally: Callable[..., tuple[int, str]]
) -> None:
    code, told = tally("run", "correlator", *arguments)
    assert (code, said in told) == (2, True), told


def test_the_doctor_looks_at_each_shards_log_and_index(
    ledger: CutLedger, tally: Callable[..., tuple[int, str]]
) -> None:
    _, told = tally("doctor", "--json", ledger=ledger)
    seen = {(one["subject"], one["name"]): one["outcome"] for one in json.loads(told)["checks"]}
    for shard in ("shard-1-of-3", "shard-2-of-3", "shard-3-of-3"):
        assert seen[f"log of {shard}", "head"] == seen[f"index of {shard}", "file"] == "ok"
    (ledger.folder / "data" / "log" / "shard-2-of-3" / "head").write_bytes(b"something else")
    _, told = tally("doctor", "--json", ledger=ledger)
    failed = {one["subject"] for one in json.loads(told)["checks"] if one["outcome"] == "failed"}
    assert "log of shard-2-of-3" in failed


def test_flows_that_shards_cannot_judge_and_names_that_mislead_are_refused() -> None:
    flow = """[[correlator.flows]]
name = "f"
trail = "order_id"
steps = [{ name = "a", match = { name = "a" } }]
"""
    assert parse(f"[correlator]\n{flow}", source="x", folder=Path()).correlator.flows[0].trail == "order_id"
    with pytest.raises(ConfigError, match="with shards, flows are over transactions"):
        parse(f"[correlator]\nshards = 2\n{flow}", source="x", folder=Path())
    with pytest.raises(ConfigError, match="ends as the origin of a shard does"):
        parse('ledger = "a/shard-1-of-2"', source="x", folder=Path())
    with pytest.raises(ConfigError, match="shards"):
        parse("[correlator]\nshards = 65", source="x", folder=Path())
    assert CorrelatorSettings().shards == 1


def test_where_a_shards_log_and_index_are(tmp_path: Path) -> None:
    places = Places(tmp_path)
    mine = places.of_shard("shard-2-of-3")
    assert (places.log, mine.log) == (tmp_path / "log", tmp_path / "log" / "shard-2-of-3")
    assert (places.index.name, mine.index.name) == ("index.sqlite", "index-shard-2-of-3.sqlite")
    assert [one.name for one in (places.state, places.state_of("a"), mine.state, mine.state_of("a"))] == [
        "state",
        "state-a",
        "state-shard-2-of-3",
        "state-shard-2-of-3-a",
    ]
