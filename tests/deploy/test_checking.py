"""`tally check`: whatever one thing is changed, it is found and named; what is well is not complained about."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop


def check(cli: Cli, *options: str) -> tuple[int, list[str]]:
    """The exit code and the findings as sentences."""
    code, out, err = cli("check", "--json", *options)
    if not out:
        return code, [err]
    done: dict[str, Any] = json.loads(out)
    return code, [f"{one['where']}: {one['problem']}" for one in done["findings"]]


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount > 0, f"{statement} changed nothing"
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def bad_sector(path: Path) -> None:
    """Reading it fails with EIO, as the first byte of this process's memory does, which nothing is mapped to."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.rglob(pattern)
    return found


def widest(folder: Path) -> Path:
    """The partial tile that the tree needs: narrower ones are what earlier trees needed."""
    return max(folder.rglob("*.p/*"), key=lambda path: int(path.name))


def spool(ledger: Workshop) -> Path:
    return only(ledger.places.spool("collector"), "meta.json").parent


def test_a_ledger_that_is_well_has_no_findings(ledger: Workshop, cli: Cli) -> None:
    assert check(cli) == (0, [])
    code, out, _ = cli("check")
    assert code == 0
    assert out.startswith("TRUE: all holds in ")
    assert "4 events" in out


def test_what_waits_for_the_correlator_is_no_finding(ledger: Workshop, cli: Cli) -> None:
    cli("trail", "p1")  # its record is in the store, and no correlator has run since
    code, out, _ = cli("check", "--json")
    assert (code, json.loads(out)["account"]["waiting"]) == (0, 1)


STORE_EVENT = "substr(events, 1, 40) || x'78' || substr(events, 42)"

FIRST_OF_P2 = "(SELECT first_leaf FROM trails WHERE trail = 'transaction/p2')"

TAMPER: dict[str, tuple[Callable[[Workshop], None], str]] = {
    "an event in the store is changed": (
        lambda ledger: sql(ledger.places.store, f"UPDATE bodies SET events = {STORE_EVENT}"),
        "store: ",
    ),
    "the events of a batch are deleted": (
        lambda ledger: sql(ledger.places.store, "DELETE FROM bodies"),
        "store: event 0 of stream collector/",
    ),
    "the events of a batch are cut short": (
        lambda ledger: sql(ledger.places.store, "UPDATE bodies SET events = substr(events, 1, length(events) - 1)"),
        "store: ",
    ),
    "a batch is deleted": (
        lambda ledger: sql(ledger.places.store, "DELETE FROM bodies", "DELETE FROM batches WHERE count > 0"),
        "it is in the log, and the store has lost it (events 0 to 3)",
    ),
    "events of no batch are added to the store": (
        lambda ledger: sql(ledger.places.store, "INSERT INTO bodies SELECT 99, events FROM bodies LIMIT 1"),
        "store: row 99 of bodies belongs to nothing in batches",
    ),
    "a trail that the log does not have yet is added to the index": (
        lambda ledger: sql(
            ledger.places.index,
            "INSERT INTO trails SELECT 999, 'trace/x', tenant, kind, 1, 2, '', '', 0, 0, services, events, keys, amounts FROM trails LIMIT 1",
        ),
        "its trails reach to 1000",
    ),
    "a header in the store is changed": (
        lambda ledger: sql(
            ledger.places.store,
            "UPDATE batches SET header = cast(replace(cast(header AS TEXT), '\"number\":1', '\"number\":7') AS BLOB) "
            "WHERE number = 1",
        ),
        "store, batch 1 of stream collector/",
    ),
    "a signature in the store is changed": (
        lambda ledger: sql(ledger.places.store, "UPDATE batches SET signature = zeroblob(64) WHERE number = 1"),
        "the signature does not hold",
    ),
    "facts in the store are changed": (
        lambda ledger: sql(
            ledger.places.store,
            "UPDATE batches SET facts = cast(replace(cast(facts AS TEXT), 'p1', 'p9') AS BLOB) WHERE count > 0",
        ),
        "the facts are not those that were signed",
    ),
    "the order of events in the store is changed": (
        lambda ledger: sql(
            ledger.places.store,
            "UPDATE batches SET lengths = cast(substr(lengths, 5, 4) || substr(lengths, 1, 4) || substr(lengths, 9) AS BLOB)"
            " WHERE count > 0",
        ),
        "store: ",
    ),
    "an entry in the log is changed": (
        lambda ledger: flip(widest(ledger.places.log / "tile" / "entries"), 300),
        "log tile/entries/",
    ),
    "a hash tile is changed": (
        lambda ledger: flip(widest(ledger.places.log / "tile" / "0"), 3),
        "log tile/0/",
    ),
    "a tile is deleted": (
        lambda ledger: widest(ledger.places.log / "tile" / "entries").unlink(),
        "log tile/entries/",
    ),
    "the checkpoint is changed": (
        lambda ledger: flip(ledger.places.log / "checkpoint", 30),
        "log checkpoint",
    ),
    "the checkpoint is deleted": (
        lambda ledger: (ledger.places.log / "checkpoint").unlink(),
        "log checkpoint",
    ),
    "the head is deleted": (
        lambda ledger: (ledger.places.log / "head").unlink(),
        "log head",
    ),
    "a trail's status in the index is changed": (
        lambda ledger: sql(ledger.places.index, "UPDATE trails SET status = 0 WHERE trail = 'transaction/p2'"),
        "index, transaction/p2: the index says otherwise of it than the log: status",
    ),
    "a trail is deleted from the index": (
        lambda ledger: sql(ledger.places.index, "DELETE FROM trails WHERE trail = 'transaction/p2'"),
        "index, transaction/p2: the index does not know it",
    ),
    "a trail is added to the index": (
        lambda ledger: sql(
            ledger.places.index,
            "INSERT INTO trails SELECT first_leaf + 1000000, 'transaction/p9', tenant, kind, entries, last_leaf, first_time,"
            " last_time, status, links, services, events, keys, amounts FROM trails WHERE trail = 'transaction/p2'",
            "UPDATE trails SET first_leaf = (SELECT max(size) FROM progress) - 1 WHERE trail = 'transaction/p9'",
        ),
        "index, transaction/p9: the index knows it, and the log does not",
    ),
    "leaves of a trail in the index are changed": (
        lambda ledger: sql(
            ledger.places.index,
            "UPDATE runs SET leaves = cast(x'0000000000000000' || substr(leaves, 9) AS BLOB) "
            "WHERE first_leaf = (SELECT first_leaf FROM trails WHERE trail = 'transaction/p2')",
        ),
        "index, transaction/p2: the index names other leaves than the log has of it",
    ),
    "a name of an event is deleted from the index": (
        lambda ledger: sql(ledger.places.index, "DELETE FROM events WHERE first_leaf = " + FIRST_OF_P2),
        "index, transaction/p2: the index does not have all of its names of events",
    ),
    "a word is deleted from the index": (
        lambda ledger: sql(ledger.places.index, "DELETE FROM words WHERE word = 'received'"),
        "the index does not have all of its words",
    ),
    "a text is deleted from the index": (
        lambda ledger: sql(ledger.places.index, "DELETE FROM texts WHERE text = 'p2'"),
        "index, transaction/p2: the index does not have all of its texts",
    ),
    "a name that a trail has no event of is in the index": (
        lambda ledger: sql(
            ledger.places.index, """UPDATE trails SET events = '["refunded"]' WHERE trail = 'transaction/p2'"""
        ),
        "index, transaction/p2: the index says otherwise of it than the log: events",
    ),
    "leaves in the index are no leaves": (
        lambda ledger: sql(ledger.places.index, "UPDATE runs SET leaves = 'text'"),
        "index: it cannot be read: ",
    ),
    "a signed header in the spool is changed": (
        lambda ledger: flip(only(spool(ledger), "headers-*.log"), 150),
        "a signed header does not hold",
    ),
    "a frame in the spool is changed": (
        lambda ledger: flip(only(spool(ledger), "*.seg"), 100),
        "damaged at byte 0",
    ),
    "a segment of the spool cannot be read": (
        lambda ledger: bad_sector(only(spool(ledger), "*.seg")),
        ".seg cannot be read from byte 0 on: [Errno 5]",
    ),
    "signed headers of the spool cannot be read": (
        lambda ledger: bad_sector(only(spool(ledger), "headers-*.log")),
        ".log cannot be read from byte 0 on: [Errno 5]",
    ),
    "a pipe stands in the spool": (
        lambda ledger: os.mkfifo(only(spool(ledger), "*.seg").with_name(f"{7:020d}.seg")),
        ".seg is no regular file",
    ),
    "a folder stands in the spool": (
        lambda ledger: only(spool(ledger), "headers-*.log").with_name(f"headers-{7:012d}.log").mkdir(),
        ".log is no regular file",
    ),
    "a file in the spool has a name that is no number": (
        lambda ledger: only(spool(ledger), "*.seg").with_name("\u00b2.seg").touch(),
        "no collector calls a file of its spool so",
    ),
    "a header log has a name that is none": (
        lambda ledger: only(spool(ledger), "headers-*.log").with_name("headers-1").touch(),
        "no collector calls a file of its spool so",
    ),
    "what a spool says of itself cannot be read": (
        lambda ledger: bad_sector(only(spool(ledger), "meta.json")),
        "meta.json: meta.json cannot be read from byte 0 on: [Errno 5]",
    ),
}


@pytest.mark.parametrize("what", TAMPER)
def test_one_thing_that_is_changed_is_found_and_named(ledger: Workshop, cli: Cli, what: str) -> None:
    tamper, named = TAMPER[what]
    tamper(ledger)
    code, findings = check(cli)
    assert code == 1, findings
    assert any(named in finding for finding in findings), findings


def test_a_rollback_of_the_log_alone_is_found(ledger: Workshop, cli: Cli) -> None:
    old = ledger.folder / "old"
    shutil.copytree(ledger.places.log, old)
    cli("trail", "p1")
    ledger.correlate()
    for part in ("log", "state"):
        shutil.rmtree(ledger.places.root / part)
    shutil.copytree(old, ledger.places.log)
    code, findings = check(cli)
    assert code == 1
    assert any("it was rolled back or replaced" in finding for finding in findings), findings
    assert any("it is of another log" in finding for finding in findings), findings


def test_a_rollback_of_everything_is_found_by_who_remembers(ledger: Workshop, cli: Cli) -> None:
    old = ledger.folder / "old"
    shutil.copytree(ledger.places.root, old)
    cli("trail", "p1")
    ledger.correlate()
    remembered = ledger.folder / "checkpoint"
    shutil.copy(ledger.places.log / "checkpoint", remembered)
    assert check(cli, "--since", str(remembered)) == (0, [])
    shutil.rmtree(ledger.places.root)
    shutil.copytree(old, ledger.places.root)
    assert check(cli) == (0, []), "alone, it cannot know"
    code, findings = check(cli, "--since", str(remembered))
    assert code == 1
    assert "rolled back behind the remembered checkpoint" in findings[0]


def test_a_batch_that_was_deleted_before_it_was_logged_is_a_gap(workshop: Workshop, cli: Cli) -> None:
    from tests.deploy.conftest import EVENTS

    for one in EVENTS:
        workshop.collect([one], close_stream=False)
    with closing(sqlite3.connect(workshop.places.store)) as db:
        row, number = db.execute("SELECT id, number FROM batches WHERE first = 1 AND count = 1").fetchone()
    sql(workshop.places.store, f"DELETE FROM bodies WHERE batch = {row}", f"DELETE FROM batches WHERE id = {row}")
    workshop.correlate()
    code, findings = check(cli)
    assert code == 1
    assert [finding.partition(": ")[2] for finding in findings] == [f"a gap: batch {number} (events 1 to 1) missing"]
    story = cli("trail", "p1", "--width", "140")[1]
    assert "Gaps      stream collector/" in story
    assert f"a gap: batch {number} (events 1 to 1) missing" in story
    assert f"a gap: batch {number} (events 1 to 1) missing" in cli("status")[1]

    page = workshop.folder / "check.prom"
    code, out, _ = cli("check", "--textfile", str(page), "--json")
    assert (code, [finding["logged"] for finding in json.loads(out)["findings"]]) == (1, [True])
    of = f'{{log="{workshop.config.ledger}"}}'
    assert [line for line in page.read_text().splitlines() if line.startswith("tally_check_")][:2] == [
        f"tally_check_findings{of} 0.0",  # whoever is told of the gap is not told again that something does not verify
        f"tally_check_gaps{of} 1.0",
    ]
    assert "Proof     verified" in story, "what is there is proved, whatever is missing"


def test_a_batch_that_comes_late_fills_its_gap(workshop: Workshop, cli: Cli) -> None:
    from tests.deploy.conftest import EVENTS

    for one in EVENTS:
        workshop.collect([one], close_stream=False)
    path = workshop.places.store
    with closing(sqlite3.connect(path)) as db:
        batch = db.execute("SELECT * FROM batches WHERE first = 1 AND count = 1").fetchone()
        body = db.execute("SELECT * FROM bodies WHERE batch = ?", batch[:1]).fetchone()
    sql(path, f"DELETE FROM bodies WHERE batch = {batch[0]}", f"DELETE FROM batches WHERE id = {batch[0]}")
    workshop.correlate()
    assert check(cli)[0] == 1
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"INSERT INTO batches VALUES ({', '.join('?' * len(batch))})", batch)
        db.execute("INSERT INTO bodies VALUES (?, ?)", body)
        db.commit()
    time.sleep(1.1)  # the correlator asks for missing batches once a second
    workshop.correlate()
    assert check(cli) == (0, [])
    assert "Gaps" not in cli("trail", "p1")[1]
    assert "missing  " not in cli("status")[1]


def test_a_batch_that_comes_late_and_does_not_fit_is_a_finding(workshop: Workshop, cli: Cli) -> None:
    from collector.store.sqlite import SqliteStore
    from tests.deploy.conftest import EVENTS
    from tests.support.shipper import Shipper, pay

    for one in EVENTS:
        workshop.collect([one], close_stream=False)
    path = workshop.places.store
    with closing(sqlite3.connect(path)) as db:
        row, number, stream = db.execute(
            "SELECT b.id, number, s.stream FROM batches b JOIN streams s ON s.id = b.stream WHERE first = 1 AND count = 1"
        ).fetchone()
    sql(path, f"DELETE FROM bodies WHERE batch = {row}", f"DELETE FROM batches WHERE id = {row}")
    workshop.correlate()
    forger = Shipper(stream, ledger=workshop.config.ledger)
    forger.number, forger.sequence, forger.previous = number - 1, 1, "ab" * 32
    with closing(SqliteStore(path)) as store:
        store.append(forger.batch(pay("forged")))
    workshop.correlate()
    workshop.correlate()
    assert [problem.partition(": ")[2] for problem in check(cli)[1]] == [
        f"a gap: batch {number} (events 1 to 1) missing",
        f"batch {number}, which came late, does not fit into its gap",
    ]
    code, out, _ = cli("check", "--json")
    assert (code, [finding["logged"] for finding in json.loads(out)["findings"]]) == (1, [True, False])


def test_a_story_of_changed_events_is_false(ledger: Workshop, cli: Cli) -> None:
    sql(ledger.places.store, f"UPDATE bodies SET events = {STORE_EVENT}")
    code, out, _ = cli("trail", "p1")
    assert code == 1
    assert "Proof     FALSE: " in out
    assert "transaction/p1" in out


def test_a_story_whose_events_are_lost_is_told_by_its_entries(ledger: Workshop, cli: Cli) -> None:
    sql(ledger.places.store, "DELETE FROM bodies", "DELETE FROM batches WHERE count > 0")
    code, out, _ = cli("trail", "p1", "--width", "140")
    assert code == 1
    assert "Proof     FALSE: " in out
    assert (
        "received  (the event itself is not shown)" in " ".join(out.split("\n")[4].split("  ", 1)) or "not shown" in out
    )


def test_another_key_holds_for_nothing(ledger: Workshop, cli: Cli) -> None:
    cli("keygen", "--name", "test.example/audit", "-o", str(ledger.folder / "other.key"))
    code, findings = check(cli, "--key", str(ledger.folder / "other.vkey"))
    assert code == 1
    assert all("log checkpoint" in finding or "log head" in finding for finding in findings[:2]), findings


def test_a_store_that_is_no_store_is_false(ledger: Workshop, cli: Cli) -> None:
    for path in ledger.places.root.glob("store.sqlite*"):
        path.unlink()
    ledger.places.store.write_bytes(b"this is no database at all" * 1_000)
    code, findings = check(cli)
    assert code == 1
    assert findings[0] == "store: the file is damaged: file is not a database"
