"""What is missing, cloned or forged between collector and log becomes a gap or fork entry that names stream and range; the rest goes on.

Real pipelines over a real store in a data folder, the real correlator behind it, `tally check` at the end.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.pipeline import Pipeline
from collector.store.sqlite import SqliteStore
from correlator.entry import Entry, decode_entry
from correlator.reader import LogReader
from correlator.storage.file import FileStorage
from tests.support.whole_ledger import (
    CONFIG,
    SECOND_NS,
    START_NS,
    WholeLedger,
    drain,
    payment_events,
    put_back,
    ship,
    spool,
    take_out,
)


@dataclass
class House(WholeLedger):
    """A ledger with two sidecars that stay open, and a clock that the test moves."""

    now_ns: int = START_NS
    opened: list[Pipeline] = field(default_factory=list)
    store: SqliteStore | None = None

    def clock(self) -> int:
        return self.now_ns

    def sidecar(self, name: str, **options: Any) -> Pipeline:
        assert self.store is not None
        made = self.pipeline(name, self.store, **options)
        self.opened.append(made)
        return made

    def send(self, sidecar: Pipeline, payment: int) -> None:
        """One batch: the three events of a payment."""
        spool(sidecar, self.groups(payment_events("gateway", [payment])))
        ship(sidecar)

    def log(self) -> list[Entry]:
        """Let the correlator take in all there is; gives the whole log."""
        with self.correlator(clock=self.clock) as correlator:
            drain(correlator)
        reader = LogReader(FileStorage(self.places.log), self.key)
        return [decode_entry(data) for data in reader.entries(0, reader.tree().size)]

    def findings(self) -> list[str]:
        return [str(finding) for finding in self.check()]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house")
    made.folder.mkdir()
    (made.folder / "tally.toml").write_text(CONFIG)
    made.places.make()
    made.store = SqliteStore(made.places.store)
    yield made
    for one in made.opened:
        one.stop(drain_seconds=0.0, close_stream=False)
    made.store.close()


def told(entries: list[Entry], *kinds: str) -> list[tuple[str, dict[str, Any]]]:
    """The entries of these kinds: each trail and detail."""
    return [(entry.trail, entry.detail) for entry in entries if entry.kind in kinds]


def events_of(entries: list[Entry], stream: str) -> list[int]:
    return [entry.sequence for entry in entries if entry.kind == "event" and entry.stream == stream]


def gap(reason: str, numbers: tuple[int, int], sequences: tuple[int, int]) -> dict[str, Any]:
    return {
        "reason": reason,
        "first_number": numbers[0],
        "last_number": numbers[1],
        "first_sequence": sequences[0],
        "last_sequence": sequences[1],
    }


def test_a_deleted_batch_in_the_middle_and_its_late_arrival(house: House) -> None:
    one, other = house.sidecar("gateway"), house.sidecar("payments")
    for payment in range(4):
        house.send(one, payment)
        house.send(other, payment)
    stolen = take_out(house.places.store, one.stream, 2)
    entries = house.log()
    assert told(entries, "gap", "fork") == [(f"stream/{one.stream}", gap("missing", (2, 2), (3, 5)))]
    assert events_of(entries, one.stream) == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert events_of(entries, other.stream) == list(range(12)), "the others go on"
    assert [finding.partition(", leaf")[0] for finding in house.findings()] == [f"stream {one.stream}"]
    assert house.findings()[0].endswith("a gap: batch 2 (events 3 to 5) missing")

    put_back(house.places.store, stolen)
    entries = house.log()
    (late,) = [entry for entry in entries if entry.kind == "batch" and entry.why]
    (leaf,) = [at for at, entry in enumerate(entries) if entry.kind == "gap"]
    assert late.why == f"late: fills the gap at leaf {leaf}"
    assert sorted(events_of(entries, one.stream)) == list(range(12))
    assert house.findings() == []


def test_a_deleted_batch_is_sent_again_by_the_sidecar_and_fills_its_gap(house: House) -> None:
    seconds = [0.0]
    one, other = house.sidecar("gateway", monotonic=lambda: seconds[0]), house.sidecar("payments")
    for payment in range(4):
        house.send(one, payment)
        house.send(other, payment)
    take_out(house.places.store, one.stream, 2)
    assert told(house.log(), "gap") == [(f"stream/{one.stream}", gap("missing", (2, 2), (3, 5)))]
    for _ in range(40):
        one.release_once()
        seconds[0] += 1.0
    assert one.state().acknowledged_number == 1
    assert one.state().resent_batches == 1
    entries = house.log()
    (late,) = [entry for entry in entries if entry.kind == "batch" and entry.why]
    assert late.why.startswith("late: fills the gap at leaf")
    assert sorted(events_of(entries, one.stream)) == list(range(12))
    assert events_of(entries, other.stream) == list(range(12))
    assert house.findings() == []
    one.release_once()
    assert one.state().acknowledged_number == 4


def test_a_deleted_last_batch_is_a_missed_heartbeat(house: House) -> None:
    one, other = house.sidecar("gateway"), house.sidecar("payments")
    house.send(one, 0)
    house.send(other, 0)
    house.log()
    house.send(one, 1)
    take_out(house.places.store, one.stream, 2)
    with house.correlator(clock=house.clock) as correlator:
        for _ in range(10):
            house.now_ns += 25 * SECOND_NS
            ship(other)  # its heartbeats
            drain(correlator)
    entries = house.log()
    assert told(entries, "gap", "fork") == [(f"stream/{one.stream}", gap("silent", (2, -1), (3, -1)))]
    assert events_of(entries, one.stream) == [0, 1, 2]
    (finding,) = house.findings()
    assert finding.startswith(f"stream {one.stream}: silent: batch 2 and what follows did not come")

    house.send(one, 2)  # the sidecar is there still: what was taken has a number now
    house.log()
    (finding,) = house.findings()
    assert finding.startswith(f"stream {one.stream}, leaf")
    assert finding.endswith("a gap: batch 2 (events 3 to 5) missing")


def test_both_lives_of_a_cloned_spool_go_on_and_the_fork_is_named(house: House, tmp_path: Path) -> None:
    first = house.sidecar("gateway")
    house.send(first, 0)
    first.stop(drain_seconds=0.0, close_stream=False)
    house.opened.remove(first)
    shutil.copytree(house.places.spool("gateway"), tmp_path / "clone")
    one, clone = house.sidecar("gateway"), house.sidecar("gateway", root=tmp_path / "clone")
    forked = one.stream
    assert clone.stream == forked
    house.send(one, 1)
    house.send(clone, 2)  # refused by the store: its events go on under a new incarnation
    assert clone.stream != forked
    house.send(one, 3)
    house.send(clone, 4)
    entries = house.log()
    ((trail, detail),) = told(entries, "gap", "fork")
    assert trail == f"stream/{forked}"
    assert detail["number"] == 2
    assert detail["logged"] != detail["found"]
    assert {len(detail["logged"]), len(detail["found"])} == {64}
    (why,) = [entry.why for entry in entries if entry.kind == "fork"]
    assert clone.stream in why
    assert events_of(entries, forked) == list(range(9))
    assert events_of(entries, clone.stream) == list(range(6))
    findings = house.findings()
    assert all(finding.startswith(f"stream {forked}") and "a fork" in finding for finding in findings), findings
    assert findings


def test_a_stream_signed_with_another_key_is_not_believed(house: House) -> None:
    one = house.sidecar("gateway")
    house.send(one, 0)
    house.log()
    thief = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    other = house.sidecar("gateway", root=house.folder / "data" / "spool" / "thief", key=thief)
    house.send(other, 1)
    house.send(one, 2)
    entries = house.log()
    assert told(entries, "gap", "fork") == [(f"stream/{other.stream}", gap("not_enrolled", (1, 1), (0, 2)))]
    assert events_of(entries, other.stream) == []
    assert events_of(entries, one.stream) == list(range(6))
    findings = house.findings()
    assert [finding.partition(",")[0].partition(":")[0] for finding in findings] == [f"stream {other.stream}"], findings
    assert "not_enrolled" in findings[0]


CHANGES = {
    "header": (
        "UPDATE batches SET header = CAST(replace(CAST(header AS TEXT), '\"closed\":false', '\"closed\":true') AS BLOB)",
        "bad_signature",
    ),
    "signature": ("UPDATE batches SET signature = substr(signature, 2) || x'00'", "bad_signature"),
    "facts": ("UPDATE batches SET facts = CAST(replace(CAST(facts AS TEXT), 'p1', 'p9') AS BLOB)", "bad_facts"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_batch_changed_before_it_was_logged_stops_its_stream_until_it_is_mended(house: House, what: str) -> None:
    one, other = house.sidecar("gateway"), house.sidecar("payments")
    for payment in range(3):
        house.send(one, payment)
        house.send(other, payment)
    statement, reason = CHANGES[what]
    with closing(sqlite3.connect(house.places.store)) as db:
        row = db.execute(
            "SELECT batches.* FROM batches JOIN streams ON streams.id = batches.stream WHERE streams.stream = ? AND number = 2",
            (one.stream,),
        ).fetchone()
        assert db.execute(f"{statement} WHERE id = ?", row[:1]).rowcount == 1
        db.commit()
    entries = house.log()
    ((trail, detail),) = told(entries, "gap", "fork")
    assert trail == f"stream/{one.stream}"
    assert (detail["reason"], detail["first_number"], detail["last_number"]) == (reason, 2, 2)
    assert detail["first_sequence"] == 3
    assert events_of(entries, one.stream) == [0, 1, 2]
    assert events_of(entries, other.stream) == list(range(9)), "the others go on"
    assert any(one.stream in finding and reason in finding for finding in house.findings())

    with closing(sqlite3.connect(house.places.store)) as db:
        db.execute(
            "UPDATE batches SET header = ?, signature = ?, facts = ? WHERE id = ?", (row[5], row[6], row[8], row[0])
        )
        db.commit()
    entries = house.log()
    assert events_of(entries, one.stream) == list(range(9))
    assert house.findings() == []
