"""A ledger that is cut into shards, made by the real parts in a data folder, and its logs looked at from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from collector.store.sqlite import SqliteStore
from correlator.entry import Entry, decode_entry
from correlator.reader import LogReader
from correlator.shards import Shard, key_of_log
from correlator.statement import Statement, open_statement
from deploy.importing import correlate
from deploy.logstorage import log_storage
from deploy.sharding import shards_of
from deploy.writing import finish, open_correlator
from tests.support.whole_ledger import CONFIG, WholeLedger

SHARDS = 3
CUT_CONFIG = CONFIG.replace("[correlator]\n", f"[correlator]\nshards = {SHARDS}\nstatement_seconds = 0.1\n")


class CutLedger(WholeLedger):
    """As `WholeLedger`, of three shards."""

    def begin(self) -> None:
        """Write the configuration, and make the folders."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "tally.toml").write_text(CUT_CONFIG)
        self.places.make()

    def take_in(self) -> None:
        """Let each shard's correlator take in all there is, one after the other."""
        assert correlate(self.config, self.places, expected_events=0)

    def take_in_at(self, clock: Callable[[], int]) -> None:
        """As `take_in`, at the time that `clock` says."""
        for shard in self.shards:
            with open_correlator(self.config, self.places, shard=shard, clock=clock) as correlator:
                assert finish(correlator, within_seconds=60.0)

    @property
    def shards(self) -> tuple[Shard, ...]:
        return shards_of(self.config)

    def statement(self) -> Statement:
        """The joint statement that stands, its signature checked."""
        raw = log_storage(self.config).read_head()
        assert raw is not None
        return open_statement(raw, self.key)

    def size(self, shard: Shard) -> int:
        return self.reader(shard).tree().size

    def reader(self, shard: Shard) -> LogReader:
        return LogReader(log_storage(self.config, shard), key_of_log(self.key, shard.origin(self.key.name)))

    def entries(self, shard: Shard) -> list[Entry]:
        """A shard's whole log."""
        reader = self.reader(shard)
        return [decode_entry(data) for data in reader.entries(0, reader.tree().size)]

    def log_folder(self, shard: Shard) -> Path:
        return self.places.of_shard(shard.name).log

    def assert_cut_right(self, events: int) -> None:
        """Every event of the store stands in one log, that of the shard of its trail, and both sides of each link in theirs."""
        found: Counter[tuple[str, int]] = Counter()
        trails: Counter[str] = Counter()
        links: set[tuple[str, str]] = set()
        for shard in self.shards:
            mine = set()
            for entry in self.entries(shard):
                if entry.kind in ("event", "link", "verdict"):
                    mine.add(entry.trail)
                if entry.kind == "event":
                    found[entry.stream, entry.sequence] += 1
                elif entry.kind == "link":
                    links.add((entry.trail, entry.detail["to"]))
            assert all(shard.holds(trail) for trail in mine)
            assert mine, "each shard has some"
            trails.update(mine)
        assert set(trails.values()) == {1}
        assert found.total() == len(found) == events
        assert {(to, trail) for trail, to in links} == links
        assert len({frozenset({self.shard_of(trail), self.shard_of(to)}) for trail, to in links}) > len(self.shards), (
            "some links cross shards"
        )

    def shard_of(self, trail: str) -> int:
        return next(shard.number for shard in self.shards if shard.holds(trail))

    def acknowledged(self) -> dict[str, int]:
        """Up to where spools may let go of each stream."""
        with closing(SqliteStore(self.places.store, read_only=True)) as store:
            return {stream: store.acknowledged(stream) for stream in store.streams()}

    def logged(self, shard: Shard) -> Counter[str]:
        """How many batches of each stream a shard's log holds."""
        return Counter(entry.trail.partition("/")[2] for entry in self.entries(shard) if entry.kind == "batch")
