"""A small but complete ledger made by the real parts in a data folder: what drills and system tests tamper with.

Two sidecars' streams in several batches and segments, an imported file, the command line's accesses; transactions, keys, traces,
links, a flow's verdicts; a batch that was missing and came late. The log is left as a killed correlator leaves it: the head
names stagings, and partial tiles of earlier sizes are there still.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from collector.event import Access, Event, Origin, format_time
from collector.extract import Extractor
from collector.pipeline import Pipeline, PipelineLimits
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive import Arrival
from collector.ship import BatchLimits
from collector.spool import Group, Spooled, SpoolLimits
from collector.store import EventStore
from collector.store.sqlite import SqliteStore
from correlator.checkpoint import Checkpoint
from correlator.index.sqlite import SqliteIndex
from correlator.note import Verifier
from correlator.reader import LogReader
from correlator.run import Correlator
from deploy.checking import Finding
from deploy.checking.whole import check_everything
from deploy.config import Config, load
from deploy.importing import open_importer
from deploy.keys import collector_key, log_signer, log_verifier, token_key
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.recording import open_recorder

CONFIG = """
ledger = "test.example/audit"
data = "data"
[collector.stitch]
transaction = ["attributes.payment_id"]
[[collector.stitch.keys]]
name = "order_id"
fields = ["attributes.order_id"]
[[collector.stitch.amounts]]
fields = ["attributes.total"]
currency = "EUR"
[sidecars.gateway]
[sidecars.payments]
[correlator]
step_entries = 60
missing_poll_seconds = 0.01
[[correlator.flows]]
name = "payment"
deadline_seconds = 1.0
steps = [
  { name = "received", match = { name = "received" } },
  { name = "paid", match = { name = "paid" }, after = ["received"] },
]
"""

START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
SECOND_NS = 1_000_000_000


def trace_of(payment: int) -> str:
    """The trace of this payment."""
    return f"{payment + 1:032x}"


def payment_events(service: str, payments: Sequence[int]) -> list[Event]:
    """What a service logs of these payments: three events of each, one of which only its trace names."""
    events = []
    for number in payments:
        for step, name in enumerate(("received", "looked up", "paid")):
            attributes = {} if name == "looked up" else {"payment_id": f"p{number}", "order_id": f"o{number // 2}"}
            if name == "received":
                attributes["total"] = f"{number}.50"
            events.append(
                Event(
                    time=format_time(START_NS + (3 * number + step) * SECOND_NS),
                    event_name=f"{name}",
                    body=f"{service} {name} {number}",
                    attributes=attributes,
                    resource={"service.name": service},
                    trace_id=trace_of(number),
                )
            )
    return events


@dataclass
class WholeLedger:
    """A data folder under `folder`, with its configuration beside it; `make` fills it."""

    folder: Path
    clock_ns: Iterator[int] = field(default_factory=lambda: count(START_NS, SECOND_NS // 1000))

    @property
    def config(self) -> Config:
        return load(self.folder / "tally.toml", environ={}, folder=self.folder)[0]

    @property
    def places(self) -> Places:
        return Places(self.folder / "data")

    @property
    def key(self) -> Verifier:
        return log_verifier(self.places)

    def clock(self) -> int:
        return next(self.clock_ns)

    # ------------------------------------------------------------------------------------------------------ collectors

    def pipeline(self, name: str, store: EventStore, *, root: Path | None = None, **options: Any) -> Pipeline:
        """A sidecar's pipeline with small batches and segments; not started."""
        config, places = self.config, self.places
        places.make()
        limits = PipelineLimits(
            spool=SpoolLimits(segment_bytes=16 * 1024), batch=BatchLimits(events=12), linger_seconds=0.0
        )
        return Pipeline(
            root or places.spool(name),
            collector=name,
            ledger=config.ledger,
            store=store,
            key=options.pop("key", None) or collector_key(places, name),
            limits=limits,
            clock=options.pop("clock", self.clock),
            **options,
        )

    def groups(self, events: Sequence[Event], *, size: int = 6) -> list[Group]:
        """These events, prepared for a spool as a sidecar does it."""
        preparer = Preparer(
            extractor=Extractor(self.config.collector.stitch),
            protector=Protector(token_key=token_key(self.places)),
            clock=lambda: START_NS,
        )
        groups = []
        for at in range(0, len(events), size):
            prepared = preparer.prepare([Arrival(event=one) for one in events[at : at + size]])
            assert not prepared.refused
            groups.append(Group(source_ids=prepared.source_ids, events=prepared.events, facts=prepared.facts))
        return groups

    def collect(self, name: str, events: Sequence[Event]) -> None:
        """What a sidecar does with these events between a start and a stop."""
        with closing(SqliteStore(self.places.store)) as store:
            pipeline = self.pipeline(name, store)
            spool(pipeline, self.groups(events))
            ship(pipeline)
            pipeline.stop(drain_seconds=0.0, close_stream=False)

    def import_file(self, events: Sequence[Event]) -> None:
        """An import of a file with one row for each event."""
        rows = [Arrival(event=one, source_id=sha256(f"row {at}".encode()).digest()) for at, one in enumerate(events)]
        with closing(SqliteStore(self.places.store)):
            pass  # made
        with open_importer(self.config, self.places) as importer:
            account = importer.run(sha256(b"the file").hexdigest(), [rows])
        assert account.stored == len(rows)

    def record(self, trails: Sequence[str]) -> None:
        """Accesses, as the API and the command line put them on record."""
        with open_recorder(self.config, self.places, spool="cli", heartbeat_seconds=0) as recorder:
            for trail in trails:
                access = Access(principal="ann", action="read", trail=trail)
                recorder.record(Event(time=format_time(START_NS), access=access, origin=Origin(receiver="record")))

    # ------------------------------------------------------------------------------------------------------ correlator

    @contextmanager
    def correlator(self, *, kill: bool = False, clock: Any = None) -> Iterator[Correlator]:
        """The correlator, open. With `kill` it ends as a killed process does: nothing is settled or flushed."""
        config, places = self.config, self.places
        places.make()
        signer, _ = log_signer(places, ledger=config.ledger)
        with (
            closing(SqliteStore(places.store)) as store,
            closing(SqliteIndex(places.index, hub_links=config.correlator.hub_links)) as index,
        ):
            correlator = Correlator.open(
                store=store,
                storage=log_storage(config),
                signer=signer,
                index=index,
                state_folder=places.state,
                settings=config.correlator,
                clock=clock or time.time_ns,
            )
            try:
                yield correlator
            finally:
                if kill:
                    correlator._state.discard()
                    claim = correlator._audit_log._claim
                    if claim is not None:
                        claim.release()
                else:
                    correlator.close()

    def correlate(self, *, kill: bool = False, clock: Any = None) -> None:
        """Let the correlator take in all there is."""
        with self.correlator(kill=kill, clock=clock) as correlator:
            drain(correlator)

    # ------------------------------------------------------------------------------------------------------ looking

    def checkpoint(self) -> Checkpoint:
        """The log's signed tree."""
        return LogReader(log_storage(self.config), self.key).tree()

    def check(self, *, since: Checkpoint | None = None) -> list[Finding]:
        """The findings of `tally check`."""
        return check_everything(self.config, self.key, since=since)[0]

    def copy(self, folder: Path) -> WholeLedger:
        """A copy to tamper with."""
        shutil.copytree(self.folder, folder)
        return WholeLedger(folder)

    def settle_files(self) -> None:
        """Move what is in the databases' write-ahead logs into the files, so that a copy is one of files that stand still."""
        for path in (self.places.store, self.places.index):
            with closing(sqlite3.connect(path)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def drain(correlator: Correlator) -> int:
    """Step until nothing is left, what had been missing included; returns the number of entries published."""
    made = 0
    while True:
        correlator._source._next_recheck_ns = 0  # ask for what was missing, without waiting for its time
        fresh = correlator.step()
        made += fresh
        if not fresh and not correlator._source.backlog and not correlator._source._round.left:
            return made


def spool(pipeline: Pipeline, groups: Sequence[Group]) -> None:
    """Make these groups durable in the pipeline's spool."""
    for group in groups:
        outcome: list[Spooled | Exception] = []
        pipeline.append(group, outcome.append)
        pipeline.commit_once()
        assert isinstance(outcome[0], Spooled), outcome


def ship(pipeline: Pipeline) -> None:
    """Send all that is spooled."""
    while pipeline.ship_once():
        pass


def take_out(store: Path, stream: str, number: int) -> list[tuple[str, tuple[Any, ...]]]:
    """Delete a batch from the store as a thief would; gives what `put_back` needs. `stream` is the beginning of its id."""
    with closing(sqlite3.connect(store)) as db:
        batch = db.execute(
            "SELECT batches.* FROM batches JOIN streams ON streams.id = batches.stream"
            " WHERE streams.stream LIKE ? || '%' AND number = ?",
            (stream, number),
        ).fetchone()
        assert batch is not None, f"no batch {number} of {stream}"
        body = db.execute("SELECT * FROM bodies WHERE batch = ?", batch[:1]).fetchone()
        db.execute("DELETE FROM bodies WHERE batch = ?", batch[:1])
        db.execute("DELETE FROM batches WHERE id = ?", batch[:1])
        db.commit()
    return [("batches", batch), *([("bodies", body)] if body else [])]


def put_back(store: Path, rows: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
    """Undo `take_out`."""
    with closing(sqlite3.connect(store)) as db:
        for table, row in rows:
            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        db.commit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A ledger, a copy of it from an earlier moment, and that moment's checkpoint, remembered outside."""

    ledger: WholeLedger
    earlier: WholeLedger
    remembered: Checkpoint


def make_whole_ledger(folder: Path) -> Made:
    """Make the ledger in ``folder/now`` and its earlier self in ``folder/earlier``."""
    (folder / "now").mkdir(parents=True)
    (folder / "now" / "tally.toml").write_text(CONFIG)
    ledger = WholeLedger(folder / "now")
    ledger.places.make()
    ledger.collect("gateway", payment_events("gateway", range(36)))
    ledger.import_file(payment_events("risk", range(10, 16)))
    ledger.correlate()
    ledger.settle_files()
    earlier = ledger.copy(folder / "earlier")
    remembered = ledger.checkpoint()
    ledger.collect("payments", payment_events("payments", range(10, 40)))
    stolen = take_out(ledger.places.store, "payments/", 3)
    ledger.correlate()
    put_back(ledger.places.store, stolen)
    ledger.record(["transaction/p1", "key/order_id/o3"])
    ledger.collect("gateway", payment_events("gateway", range(36, 52)))
    ledger.correlate(kill=True)
    ledger.settle_files()
    return Made(ledger=ledger, earlier=earlier, remembered=remembered)
