"""A correlator over stores of the test's choice, with a clock that the test moves, and the log read back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collector.event import decode_facts
from collector.store import EventStore
from correlator.entry import Entry, decode_entry
from correlator.index import TrailIndex
from correlator.index.memory import MemoryIndex
from correlator.merkle import leaf_hash
from correlator.note import Signer
from correlator.reader import LogReader
from correlator.run import Correlator
from correlator.settings import CorrelatorSettings
from correlator.shards import WHOLE, Shard
from correlator.storage import LogStorage
from correlator.storage.memory import MemoryStorage
from tests.support.memory_store import MemoryStore
from tests.support.shipper import LEDGER, START_NS, key_of

SIGNER = Signer(name=LEDGER, private_key=key_of(99))


@dataclass
class Correlating:
    """`open`, `step` until there is nothing new, and look at what the log holds."""

    folder: Path
    store: EventStore = field(default_factory=MemoryStore)
    storage: LogStorage = field(default_factory=MemoryStorage)
    index: TrailIndex = field(default_factory=MemoryIndex)
    settings: CorrelatorSettings = field(default_factory=lambda: CorrelatorSettings(missing_poll_seconds=3_600))
    now_ns: int = START_NS
    correlator: Correlator | None = None
    shard: Shard = WHOLE

    @property
    def signer(self) -> Signer:
        return SIGNER.named(self.shard.origin(LEDGER))

    def clock(self) -> int:
        return self.now_ns

    def open(self, **options: Any) -> Correlator:
        self.correlator = Correlator.open(
            store=self.store,
            storage=self.storage,
            signer=self.signer,
            index=self.index,
            state_folder=self.folder / "state",
            settings=self.settings,
            clock=self.clock,
            **options,
        )
        return self.correlator

    def run(self) -> int:
        """Step until a whole round found nothing; returns the number of entries published."""
        correlator = self.correlator or self.open()
        made = 0
        correlator._source._next_recheck_ns = 0  # begin with what was missing
        while True:
            fresh = correlator.step()
            made += fresh
            if not fresh and not correlator._source.backlog and not correlator._source._round.left:
                return made

    def close(self) -> None:
        if self.correlator is not None:
            self.correlator.close()
            self.correlator = None

    def kill(self) -> None:
        """End as a crash would: nothing is flushed, the claim is dropped by the system."""
        if self.correlator is not None:
            self.correlator._state.discard()
            claim = self.correlator._audit_log._claim
            if claim is not None:
                claim.release()
            self.correlator = None

    def entries(self) -> list[Entry]:
        """The whole log, each chain checked: positions without holes, each naming the leaf and hash of the one before."""
        reader = LogReader(self.storage, self.signer.verifier)
        data = reader.entries(0, reader.tree().size)
        entries = [decode_entry(one) for one in data]
        heads: dict[str, tuple[int, int]] = {}
        for leaf, entry in enumerate(entries):
            known = heads.get(entry.trail)
            if known is None:
                assert entry.position == 0
                assert entry.previous is None
            else:
                assert entry.position == known[0] + 1
                assert entry.previous is not None
                assert (entry.previous.leaf, entry.previous.hash) == (known[1], leaf_hash(data[known[1]]).hex())
            heads[entry.trail] = entry.position, leaf
        assert [entry.recorded for entry in entries] == sorted(entry.recorded for entry in entries)
        return entries

    def of(self, trail: str) -> list[Entry]:
        return [entry for entry in self.entries() if entry.trail == trail]

    def details(self, kind: str) -> list[dict[str, Any]]:
        return [entry.detail for entry in self.entries() if entry.kind == kind]


def stitched(entries: Sequence[Entry]) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Trail -> (digests of its events, trails that it links): what must not depend on the order of arrival."""
    events: dict[str, set[str]] = defaultdict(set)
    links: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.kind == "event":
            digest = decode_facts(bytes(entry.facts)).digest
            assert digest not in events[entry.trail], "an event stands in its trail once"
            events[entry.trail].add(digest)
        elif entry.kind == "link":
            to = entry.detail["to"]
            assert to not in links[entry.trail], "a link stands once a pair"
            links[entry.trail].add(to)
    return {trail: (frozenset(events[trail]), frozenset(links[trail])) for trail in {*events, *links}}
