"""The tamper table: whatever one thing of a whole ledger is changed, `tally check` or `tally verify` says false and names it."""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lmdb
import pytest

from correlator.archive import unpack
from correlator.errors import StateUnknown, VerificationError
from correlator.verify import verify_bundle
from deploy.cli import main
from deploy.reading import open_ledger
from tests.support.tampering import (
    HARMLESS,
    LEDGER_CASES,
    MEMBER_CASES,
    QUICK_CASES,
    Case,
    MemberCase,
    edit,
    flip_at,
)
from tests.support.whole_ledger import Made, WholeLedger, drain, make_whole_ledger, payment_events

REST = [case for case in LEDGER_CASES if case not in QUICK_CASES]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_whole_ledger(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def ledger(made: Made, tmp_path: Path) -> WholeLedger:
    """A copy to tamper with."""
    return made.ledger.copy(tmp_path / "copy")


@pytest.fixture(autouse=True)
def _nobody_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log was left open by its writer: a check would wait for what that one may be about to publish."""
    monkeypatch.setattr("correlator.check._PAUSES_SECONDS", (0.0,))


def found(ledger: WholeLedger, **options: object) -> list[str]:
    return [str(finding) for finding in ledger.check(**options)]  # type: ignore[arg-type]  # passed on


def test_untouched_all_holds(made: Made) -> None:
    assert found(made.ledger, since=made.remembered) == []
    assert found(made.earlier) == []
    assert {case.kind for case in LEDGER_CASES} == {"store", "index", "log", "spool"}
    assert set(HARMLESS) <= {str(case) for case in LEDGER_CASES}


def is_found_and_named(case: Case, ledger: WholeLedger) -> None:
    case.do(ledger)
    findings = found(ledger)
    if str(case) in HARMLESS:
        assert findings == [], HARMLESS[str(case)]
    else:
        assert any(re.search(case.named, finding) for finding in findings), findings


@pytest.mark.parametrize("case", QUICK_CASES, ids=str)
def test_one_thing_tampered_with_is_found_and_named(case: Case, ledger: WholeLedger) -> None:
    is_found_and_named(case, ledger)


@pytest.mark.slow
@pytest.mark.parametrize("case", REST, ids=str)
def test_every_other_thing_tampered_with_is_found_and_named(case: Case, ledger: WholeLedger) -> None:
    is_found_and_named(case, ledger)


@pytest.mark.parametrize("name", ["store.sqlite", "index.sqlite"])
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 60))])
def test_any_bit_of_a_database_is_found_or_holds_nothing(name: str, seed: int, ledger: WholeLedger) -> None:
    """A page has room that nothing uses; a bit that is not found there must leave every row as it was."""
    path = ledger.places.root / name
    before = rows_of(path)
    data = bytearray(path.read_bytes())
    dice = random.Random(seed)
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)
    if not found(ledger):
        assert rows_of(path) == before


def rows_of(path: Path) -> list[object]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return [(table, db.execute(f"SELECT * FROM {table}").fetchall()) for table in tables]


# ------------------------------------------------------------------------------------------------------------- the head


FREE_IN_HEAD = re.compile(rb'"(epoch|written_ns)":\d+|"writer":"[^"]*"')
"""What the head says for people and for writers only: no part of the record."""


def test_every_byte_of_the_head_that_says_what_the_log_is_is_guarded(ledger: WholeLedger) -> None:
    from correlator.check import check_log
    from correlator.storage.file import FileStorage

    path = ledger.places.log / "head"
    data = path.read_bytes()
    free = {at for match in FREE_IN_HEAD.finditer(data) for at in range(*match.span())}
    unseen = set()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        head_findings = []
        for finding in check_log(FileStorage(ledger.places.log), ledger.key):
            head_findings.append(str(finding))
            break
        if not head_findings:
            unseen.add(at)
    assert unseen <= free, [data[at - 20 : at + 20] for at in unseen - free]


# ------------------------------------------------------------------------------------------------------------- bundles


@pytest.fixture(scope="module")
def bundle(made: Made) -> bytes:
    with open_ledger(made.ledger.config) as ledger:
        (summary,) = ledger.find("p12")
        return ledger.export(summary)[0]


def test_an_untouched_bundle_holds(made: Made, bundle: bytes) -> None:
    report = verify_bundle(bundle, made.ledger.key)
    assert report.trusted
    assert report.events >= 6
    assert len(report.streams) >= 3


@pytest.mark.parametrize("case", MEMBER_CASES, ids=str)
def test_a_bundle_tampered_with_is_false_and_says_where(case: MemberCase, made: Made, bundle: bytes) -> None:
    members = dict(unpack(bundle))
    changed = case.change(members[case.member])
    assert changed != members[case.member]
    if changed is None:
        del members[case.member]
    else:
        members[case.member] = changed
    with pytest.raises(VerificationError, match=case.named):
        verify_bundle(members, made.ledger.key)


# ------------------------------------------------------------------------------------------------------------- the past


def test_a_rollback_of_everything_is_found_only_by_who_remembers(made: Made) -> None:
    """docs/threat-model.md, "What cannot be found locally"."""
    now = made.ledger.checkpoint()
    assert found(made.earlier) == []
    (finding,) = found(made.earlier, since=now)
    assert finding == (
        f"log checkpoint: it has {made.remembered.size} leaves: "
        f"rolled back behind the remembered checkpoint of {now.size} leaves"
    )


PARTS: dict[str, tuple[list[str], str]] = {
    "the log": (["log"], "it was rolled back or replaced"),
    "the log with state and index": (["log", "state", "index.sqlite"], "it was rolled back or replaced"),
    "the checkpoint": (["log/checkpoint"], "log checkpoint: it has"),
    "the head": (["log/head"], "log "),
    "the index": (["index.sqlite"], "\0"),
    "the store": (["store.sqlite"], "it is in the log, and the store has lost it"),
    "a spool": (["spool/gateway"], "cut off or rolled back"),
    "all but the store": (["log", "state", "index.sqlite", "spool"], "it was rolled back or replaced"),
    "all but the log": (["store.sqlite", "state", "index.sqlite", "spool"], "the store has lost it"),
    "all but the spools": (["log", "state", "index.sqlite", "store.sqlite"], "\0"),
}


@pytest.mark.parametrize("what", PARTS)
def test_a_rollback_of_a_part_is_found(what: str, made: Made, ledger: WholeLedger) -> None:
    parts, named = PARTS[what]
    for part in parts:
        here, before = ledger.places.root / part, made.earlier.places.root / part
        if here.is_dir():
            shutil.rmtree(here)
            shutil.copytree(before, here)
        else:
            for tail in ("", "-wal", "-shm"):
                Path(f"{here}{tail}").unlink(missing_ok=True)
            shutil.copy(before, here)
    findings = found(ledger)
    if named == "\0":
        # nothing that is said now is untrue: the spools ship it again as after an outage, the index catches up as after a crash
        assert findings == []
        remembered = made.ledger.checkpoint()
        assert what == "the index" or "rolled back behind the remembered" in found(ledger, since=remembered)[0]
        ledger.correlate()
        assert found(ledger) == []
    else:
        assert any(named in finding for finding in findings), findings


def test_a_fork_is_found_by_who_remembers(made: Made, ledger: WholeLedger, tmp_path: Path) -> None:
    """The owner of the log's key signs another history: everything agrees with itself, and not with what was remembered."""
    other = made.earlier.copy(tmp_path / "fork")
    other.collect("gateway", payment_events("gateway", range(60, 90)))
    other.correlate()
    assert found(other) == []
    assert found(other, since=made.remembered) == [], "it continues what was signed before the fork"
    now = made.ledger.checkpoint()
    with other.correlator() as correlator:
        other.collect("payments", payment_events("payments", range(200)))
        while correlator.size <= now.size and correlator.step():
            pass
    findings = found(other, since=now)
    assert any(finding.startswith("log checkpoint: ") and finding.endswith(": a fork") for finding in findings), (
        findings
    )


# ------------------------------------------------------------------------------------------------------------- the state


def emptied(state: Path) -> None:
    for file in state.iterdir():
        file.write_bytes(b"")


def overwritten(state: Path) -> None:
    (state / "data.mdb").write_bytes(b"no LMDB file " * 5_000)


def cut(state: Path) -> None:
    edit(state / "data.mdb", lambda data: data[:8_192])


def of_another_log(state: Path) -> None:
    with lmdb.open(str(state), map_size=1 << 30) as env, env.begin(write=True) as txn:
        meta = txn.get(b"m")
        assert meta is not None
        at = meta.index(b"last_hash") + len(b"last_hash") + 10
        txn.put(b"m", meta[:at] + (b"0" if meta[at : at + 1] != b"0" else b"1") + meta[at + 1 :])


@pytest.mark.parametrize("damage", [shutil.rmtree, emptied, overwritten, cut, of_another_log])
def test_a_state_that_is_gone_or_damaged_is_made_again_from_the_log(
    damage: Callable[[Path], None], ledger: WholeLedger
) -> None:
    ledger.correlate()  # closes: the state is written out
    damage(ledger.places.state)
    ledger.collect("gateway", payment_events("gateway", range(10, 14)))
    before = ledger.checkpoint().size
    ledger.correlate()
    assert ledger.checkpoint().size > before
    assert found(ledger) == []


def lie(state: Path, *, well: bool) -> None:
    """Change the leaf that each trail's head names; with `well` the checksum, too."""
    with lmdb.open(str(state), map_size=1 << 30) as env, env.begin(write=True) as txn:
        for key, value in [(key, value) for key, value in txn.cursor() if key.startswith(b"h")]:
            content = value[4:15] + bytes([value[15] ^ 1]) + value[16:]
            check = zlib.crc32(content, zlib.crc32(key)).to_bytes(4, "big") if well else value[:4]
            txn.put(key, check + content)


def test_a_state_whose_values_do_not_fit_is_not_believed(ledger: WholeLedger) -> None:
    ledger.correlate()
    lie(ledger.places.state, well=False)
    ledger.collect("gateway", payment_events("gateway", range(10, 14)))
    with (
        pytest.raises(StateUnknown, match="made anew from the log at the next start"),
        ledger.correlator() as correlator,
    ):
        drain(correlator)
    ledger.correlate()
    assert found(ledger) == []


def test_a_state_that_lies_well_is_found_by_what_it_leads_to(ledger: WholeLedger) -> None:
    """Who can write the state can write a checksum. The chains that a lie breaks are checked by everybody."""
    ledger.correlate()
    lie(ledger.places.state, well=True)
    ledger.collect("gateway", payment_events("gateway", range(10, 14)))
    ledger.correlate()
    findings = found(ledger)
    assert any("does not name the entry before it" in finding and "transaction/p10" in finding for finding in findings)


# ------------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def tally(
    ledger: WholeLedger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("TALLY_CONFIG", str(ledger.folder / "tally.toml"))

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tally", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return run


@pytest.mark.parametrize("case", QUICK_CASES[::15], ids=str)
def test_the_command_says_false_and_exits_with_1(
    case: Case, ledger: WholeLedger, tally: Callable[..., tuple[int, str]]
) -> None:
    code, out = tally("check")
    assert (code, out.startswith("TRUE: all holds in ")) == (0, True)
    case.do(ledger)
    code, out = tally("check", "--json")
    said = json.loads(out)
    if str(case) in HARMLESS:
        assert (code, said["verdict"]) == (0, "true")
    else:
        assert (code, said["verdict"]) == (1, "false")
        assert said["findings"]


def test_the_command_verifies_bundles(
    made: Made, bundle: bytes, tmp_path: Path, tally: Callable[..., tuple[int, str]]
) -> None:
    file = tmp_path / "bundle.zip"
    file.write_bytes(bundle)
    key = str(made.ledger.places.log_vkey)
    assert tally("verify", str(file), "--key", key)[0] == 0
    assert tally("verify", str(file))[0] == 2, "nobody said whose key it must be"
    for place in (0.01, 0.3, 0.6, 0.99):
        file.write_bytes(flip_at(place)(bundle))
        code, out = tally("verify", str(file), "--key", key)
        assert code == 1
        assert out.startswith("FALSE: ")
