"""What must hold at the end of a correlator's random walk, whatever happened on the way."""

from __future__ import annotations

import tempfile
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import msgspec

from collector.batch import Batch
from collector.event import decode_facts
from correlator.check import check_log
from correlator.entry import Entry, decode_entry
from correlator.frontier import Frontier
from correlator.index.sqlite import SqliteIndex
from correlator.merkle import leaf_hashes
from correlator.reader import LogReader
from correlator.shards import Shard
from correlator.stitch import Stitcher
from correlator.storage.file import FileStorage
from deploy.checking import Finding
from deploy.checking.entries import EntryCheck
from deploy.checking.heads import Heads
from deploy.checking.shards import check_together
from deploy.checking.tables import table_differences
from deploy.checking.trails import IndexCheck
from tests.support.memory_store import MemoryStore
from tests.support.mortal import ROOT
from tests.support.walked_correlator import HUB_LINKS, Machine


def findings(machines: Sequence[Machine], store: MemoryStore) -> list[Finding]:
    """What `tally check` finds of these logs, their indexes and the store; all processes are closed."""
    told: list[Finding] = []
    checks: dict[Shard, EntryCheck] = {}
    for machine in machines:
        storage = FileStorage(ROOT, machine.disk)
        with tempfile.TemporaryDirectory() as folder:
            heads = Heads(Path(folder) / "heads")
            entries = EntryCheck(store=store, origin=machine.signer.name, heads=heads, tell=told.append)
            index = SqliteIndex(machine.index, hub_links=HUB_LINKS, read_only=True)
            fresh = SqliteIndex(Path(folder) / "index.sqlite", hub_links=HUB_LINKS)
            check = IndexCheck(
                index=index,
                fresh=fresh,
                tables=lambda size, paths=(machine.index, Path(folder) / "index.sqlite"): table_differences(  # type: ignore[misc]
                    *paths, size=size
                ),
                tell=told.append,
            )

            def visit(
                first: int, bundle: Sequence[bytes], entries: EntryCheck = entries, check: IndexCheck = check
            ) -> None:
                for leaf, entry in entries.visit(first, bundle):
                    check.visit(leaf, entry)

            told += [
                Finding(where=f"log {one.path}", problem=one.problem)
                for one in check_log(storage, machine.signer.verifier, visit=visit, pause=lambda _: None)
            ]
            entries.finish()
            check.finish(log_holds=True)
            assert index.size() == entries.account.leaves, "the index has all of the log"
            index.close()
            fresh.close()
            heads.close()
        checks[machine.shard] = entries
    if len(checks) > 1:
        check_together(checks, told.append)
    return told


def log_of(machine: Machine) -> list[Entry]:
    """The whole log, which continues each checkpoint that anybody ever saw."""
    storage = FileStorage(ROOT, machine.disk)
    reader = LogReader(storage, machine.signer.verifier)
    data = reader.entries(0, reader.tree().size)
    machine.witness.look_at_tiles(storage)
    hashes, tree, at = leaf_hashes(data), Frontier(size=0, edges=()), 0
    for size, root in sorted(machine.witness.roots.items()):
        tree, _ = tree.extend(hashes[at:size])
        at = size
        assert tree.size == size, "a checkpoint that somebody saw is beyond the log"
        assert tree.root == b64decode(root), f"the log does not continue the checkpoint of {size} leaves"
    return [decode_entry(one) for one in data]


def events_of(batches: Sequence[Batch]) -> dict[tuple[str, int], bytes]:
    """Each event of these batches, by its place: its bytes."""
    events = {}
    for batch in batches:
        header = batch.signed.header
        ends = list(accumulate(batch.lengths, initial=0))
        for at in range(header.count):
            events[header.stream, header.first + at] = batch.events[ends[at] : ends[at + 1]]
    return events


def assert_each_once(entries: Sequence[Entry], batches: Sequence[Batch]) -> None:
    """Each event of these batches stands in exactly one trail, once, and no other does."""
    standing = Counter((one.stream, one.sequence) for one in entries if one.kind == "event")
    assert [place for place, times in standing.items() if times > 1] == []
    assert set(standing) == set(events_of(batches))


def assert_links_have_reasons(entries: Sequence[Entry], key_order: Sequence[str]) -> None:
    """Each link names an event, in the log, that carries both identities for the reason that is given."""
    facts = {(one.stream, one.sequence): decode_facts(bytes(one.facts)) for one in entries if one.kind == "event"}
    stitcher = Stitcher(key_order)
    for entry in entries:
        if entry.kind == "link":
            reason, _, rest = entry.why.rpartition(" (event ")
            sequence, _, stream = rest.removesuffix(")").partition(" of ")
            placed = stitcher.place(facts[stream, int(sequence)], stream)
            ends = {entry.trail, entry.detail["to"]}
            assert placed.trail in ends
            assert (*(ends - {placed.trail}), reason) in placed.links


def newest_verdicts(entries: Sequence[Entry]) -> Mapping[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """(trail, flow) -> verdict and missing steps of its newest; its reason is the one that there was when it was told."""
    return {
        (one.trail, one.detail["flow"]): (one.detail["verdict"], tuple(one.detail["missing"]))
        for one in entries
        if one.kind == "verdict"
    }


def told_once(entries: Sequence[Entry], *, shards: int) -> None:
    """Each batch, key, gap and fork is told once by each shard, and no verdict twice in a row."""
    once = [
        (one.trail, msgspec.json.encode(one.detail))
        for one in entries
        if one.kind in ("batch", "enrolment", "gap", "fork")
    ]
    doubled = [what for what, times in Counter(once).items() if times > shards and b'"silent"' not in what[1]]
    assert doubled == []
    standing: dict[tuple[str, str], object] = {}
    for one in entries:
        if one.kind == "verdict":
            told = one.detail["verdict"], one.detail["missing"]
            place = one.trail, one.detail["flow"]
            assert standing.get(place) != told, f"{place} is told {told} twice"
            standing[place] = told
