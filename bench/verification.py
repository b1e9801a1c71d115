"""Hashing, tree and chain of a million leaves, and checking them: the pure part, and `check_log` over files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from collector.event import format_time
from correlator.check import check_log
from correlator.entry import Entry, Previous, encode_entry
from correlator.log import AuditLog
from correlator.merkle import leaf_hashes, root_of
from correlator.note import Signer
from correlator.storage.file import FileStorage

__all__ = ["Verification", "bench_verification"]

_BLOCK = 8_192
_TRAIL_ENTRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Leaves a second: hashing and tree alone; making chained entries; publishing them durably; checking the whole log."""

    leaves: int
    tree: float
    chain: float
    publish: float
    check: float


def bench_verification(folder: Path, *, leaves: int) -> Verification:
    """Make `leaves` chained entries of twenty a trail, publish them, check them; each stage timed by itself."""
    signer = Signer.generate("bench.example/ledger")
    storage = FileStorage(folder / "log")
    log = AuditLog.open(storage, signer, clock=time.time_ns, writer_id="bench")
    recorded = format_time(1_700_000_000_000_000_000)
    chain_seconds = publish_seconds = tree_seconds = 0.0
    previous: Previous | None = None
    for start in range(0, leaves, _BLOCK):
        began = time.perf_counter()
        entries: list[bytes] = []
        hashes: list[bytes] = []
        for leaf in range(start, min(start + _BLOCK, leaves)):
            position = leaf % _TRAIL_ENTRIES
            entry = encode_entry(
                Entry(
                    v=1,
                    trail=f"transaction/tx-{leaf // _TRAIL_ENTRIES}",
                    position=position,
                    previous=previous if position else None,
                    kind="gap",
                    recorded=recorded,
                    detail={"reason": "missing", "first_number": leaf, "last_number": leaf},
                )
            )
            entries.append(entry)
            hashes += leaf_hashes([entry])
            previous = Previous(leaf=leaf, hash=hashes[-1].hex())
        made = time.perf_counter()
        root_of(leaf_hashes(entries))
        hashed = time.perf_counter()
        log.append(entries, hashes)
        log.publish()
        published = time.perf_counter()
        chain_seconds += made - began
        tree_seconds += hashed - made
        publish_seconds += published - hashed
    log.close()
    began = time.perf_counter()
    findings = list(check_log(storage, signer.verifier, since=None, progress=None))
    check_seconds = time.perf_counter() - began
    if findings:
        raise RuntimeError(f"the log that was just written is not whole: {findings[0]}")
    return Verification(
        leaves=leaves,
        tree=leaves / tree_seconds,
        chain=leaves / chain_seconds,
        publish=leaves / publish_seconds,
        check=leaves / check_seconds,
    )
