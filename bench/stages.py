"""Where a sidecar's microseconds go: each stage alone, in this process, over chunks of 1,000 records."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.records import chunk_message
from collector.extract import Extractor
from collector.group import Group
from collector.intake import groups_of
from collector.pipeline import Pipeline
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive.forward_group import Group as Received
from collector.receive.forward_message import MessageReader
from collector.settings import CollectorSettings
from collector.store.sqlite import SqliteStore

__all__ = ["Stages", "bench_stages"]

_CHUNK = 1_000
_CHUNKS_A_BATCH = 2
_WARM_UP = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """CPU microseconds an event, medians over the chunks."""

    decode: float
    prepare: float
    spool: float
    ship: float


def bench_stages(folder: Path, *, events: int) -> Stages:
    """Decode, prepare, spool with its fsync, ship into SQLite with its commits: one after the other, chunk by chunk."""
    settings = CollectorSettings()
    folder.mkdir()
    store = SqliteStore(folder / "store.sqlite")
    pipeline = Pipeline(
        folder / "spool", collector="bench", ledger="bench", store=store, key=Ed25519PrivateKey.generate()
    )
    protector = Protector(token_key=b"k" * 32, masked_fields=settings.protect.masked_fields)
    preparer = Preparer(extractor=Extractor(settings.stitch), protector=protector, clock=time.time_ns)
    messages = MessageReader(clock=time.time_ns)
    taken: dict[str, list[float]] = {"decode": [], "prepare": [], "spool": [], "ship": []}

    def timed(stage: str, count: int, work: Callable[[], T]) -> T:
        began = time.process_time()
        made = work()
        taken[stage].append((time.process_time() - began) / count * 1e6)
        return made

    def spool(groups: Iterable[Group]) -> None:
        for group in groups:
            pipeline.append(group, lambda _outcome: None)
        pipeline.commit_once()

    for chunk in range(events // _CHUNK + _WARM_UP):
        message = chunk_message(chunk * _CHUNK, _CHUNK, chunk=f"chunk-{chunk}")
        (group,) = timed("decode", _CHUNK, partial(_decoded, messages, message))
        prepared = timed("prepare", _CHUNK, partial(preparer.prepare, group.arrivals))
        timed("spool", _CHUNK, partial(spool, groups_of(prepared, group.group_id or b"")))
        if chunk % _CHUNKS_A_BATCH == 1:
            timed("ship", _CHUNK * _CHUNKS_A_BATCH, pipeline.ship_once)
    pipeline.stop()
    store.close()
    return Stages(**{stage: statistics.median(each[_WARM_UP:]) for stage, each in taken.items()})


def _decoded(messages: MessageReader, data: bytes) -> list[Received]:
    return list(messages.groups(data))
