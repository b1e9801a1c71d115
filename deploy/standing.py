"""How an installation stands: what runs, what is stored, what lags, what is missing. Reads its files; opens nothing for writing.

Looking at it is no access: it shows names of streams and counts, and no event.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from collector.deadletters import read_dead_letters
from collector.disk import OsDisk
from collector.errors import NotFound, TallyError
from collector.sidecar import DEAD_LETTERS
from collector.store import EventStore
from correlator.head import decode_head
from correlator.index import TrailIndex, TrailQuery
from correlator.log import LogReader
from correlator.shards import Shard, key_of_log
from correlator.storage import LogStorage
from correlator.trail import stream_trail
from deploy.config import Config
from deploy.indexing import open_index
from deploy.keys import log_verifier
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.processes import Running, running
from deploy.reading import gaps_of
from deploy.sharding import check_cut, shards_of
from deploy.sidecarstate import SidecarState, ask_sidecar
from deploy.storing import open_store

__all__ = ["Ledger", "Spool", "Standing", "StreamLine", "standing"]

COUNT_LIMIT = 1_000
WAITING_LIMIT = 20
STATUSES = ("incomplete", "failed", "gap", "error", "compensated", "complete")


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The log: its name, key fingerprint, leaves and root, seconds since its head was written, and leaves not indexed yet.

    `writer` is who has it open for writing, as the head says, and empty when it was closed; `epoch` how often it was opened.
    """

    origin: str
    key: str
    leaves: int
    root: str
    head_age_seconds: float
    writer: str
    epoch: int
    index_lag_leaves: int


class StreamLine(msgspec.Struct, frozen=True, kw_only=True):
    """A stream: up to which batch the log has it, how many batches wait (at most 20 are counted), whether something is missing.

    `status` is ``ok``, ``gap`` when something is missing, or ``new`` when the log has nothing of it yet.
    """

    stream: str
    logged_batch: int
    waiting_batches: int
    status: str


class Spool(msgspec.Struct, frozen=True, kw_only=True):
    """A collector's spool on this disk: its bytes, its dead letters by reason, and what the sidecar says of itself while it runs.

    `mute`: its process is there, and does not answer.
    """

    collector: str
    size_bytes: int
    dead_letters: dict[str, int]
    sidecar: SidecarState | None = None
    mute: bool = False


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `gaps`: what is missing still, in sentences; `trails`: how many stand so, counted up to 1,000 each. `problems`: what could not be told, and why.

    Of a ledger that is cut into shards `shards` has one `Ledger` for each log, and `ledger` is null.
    """

    data: str
    processes: tuple[Running, ...]
    ledger: Ledger | None
    streams: tuple[StreamLine, ...]
    gaps: tuple[str, ...]
    trails: dict[str, int]
    spools: tuple[Spool, ...]
    bytes: dict[str, int]
    problems: tuple[str, ...]
    shards: tuple[Ledger, ...] | msgspec.UnsetType = msgspec.UNSET


def standing(config: Config) -> Standing:
    """Look at the installation's files."""
    places = Places(Path(config.data))
    problems: list[str] = []
    ledger: Ledger | None = None
    shards: tuple[Ledger, ...] | msgspec.UnsetType = msgspec.UNSET
    streams: tuple[StreamLine, ...] = ()
    trails: dict[str, int] = {}
    gaps: tuple[str, ...] = ()
    if places.log_vkey.exists():
        with ExitStack() as open_files:
            try:
                check_cut(config)
                store = open_store(config, places, read_only=True)
                open_files.callback(store.close)
                logs = [_open_log(config, places, shard, open_files) for shard in shards_of(config)]
                ledgers = tuple(_ledger(places, storage, reader, index) for _, storage, reader, index in logs)
                if len(logs) > 1:
                    shards = ledgers
                else:
                    ledger = ledgers[0]
                streams = tuple(_streams(store, [index for *_, index in logs]))
                names = [stream.stream for stream in streams]
                found = (gap for _, _, reader, index in logs for gap in gaps_of(index, reader, names))
                gaps = tuple(dict.fromkeys(found))
                trails = _trails([(shard, index) for shard, _, _, index in logs])
            except TallyError as error:
                problems.append(str(error))
    else:
        problems.append(f"there is no ledger in {places.root} yet: `tally up` or `tally import` make one")
    parts = [places.of_shard(shard.name) for shard in shards_of(config)]
    return Standing(
        data=str(places.root),
        processes=tuple(running(places.run)),
        ledger=ledger,
        streams=streams,
        gaps=gaps,
        trails=trails,
        spools=tuple(_spools(places)),
        bytes={
            "store": _size(places.store),
            **({} if config.log else {"log": _size(places.log)}),
            "index": sum(_size(one.index) for one in parts),
            "state": sum(_size(one.state) for one in parts),
        },
        problems=tuple(problems),
        shards=shards,
    )


def _open_log(
    config: Config, places: Places, shard: Shard, open_files: ExitStack
) -> tuple[Shard, LogStorage, LogReader, TrailIndex]:
    index = open_index(config, places.of_shard(shard.name), read_only=True)
    open_files.callback(index.close)
    storage = log_storage(config, shard)
    verifier = log_verifier(places)
    return shard, storage, LogReader(storage, key_of_log(verifier, shard.origin(verifier.name))), index


def _ledger(places: Places, storage: LogStorage, reader: LogReader, index: TrailIndex) -> Ledger:
    verifier = log_verifier(places)
    tree = reader.tree()
    raw = storage.read_head()
    head = decode_head(raw) if raw is not None else None
    age_ns = time.time_ns() - head.written_ns if head is not None else 0
    return Ledger(
        origin=tree.origin,
        key=verifier.fingerprint,
        leaves=tree.size,
        root=tree.root.hex(),
        head_age_seconds=max(age_ns, 0) / 1e9,
        writer=head.writer if head is not None else "",
        epoch=head.epoch if head is not None else 0,
        index_lag_leaves=max(tree.size - index.size(), 0),
    )


def _streams(store: EventStore, indexes: Sequence[TrailIndex]) -> Iterator[StreamLine]:
    """Of a cut ledger a stream stands as it does in the log where it stands worst."""
    for stream in store.streams():
        logged = store.acknowledged(stream)
        found = {_status(index, stream) for index in indexes}
        status = next(one for one in ("gap", "new", *sorted(found)) if one in found)
        waiting = len(store.batches_after({stream: logged}, WAITING_LIMIT))
        yield StreamLine(stream=stream, logged_batch=logged, waiting_batches=waiting, status=status)


def _status(index: TrailIndex, stream: str) -> str:
    try:
        return index.trail(stream_trail(stream)).status
    except NotFound:
        return "new"


def _trails(indexes: Sequence[tuple[Shard, TrailIndex]]) -> dict[str, int]:
    counts = dict.fromkeys(STATUSES, 0)
    for shard, index in indexes:
        size = index.size()
        for status in STATUSES:
            found = index.find(TrailQuery(status=status), size=size, limit=COUNT_LIMIT).trails
            counts[status] += sum(shard.holds(one.trail) for one in found)
    return {status: min(count, COUNT_LIMIT) for status, count in counts.items()}


def _spools(places: Places) -> Iterator[Spool]:
    root = places.root / "spool"
    addresses = {process.name: process.addresses.get("http", "") for process in running(places.run)}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        letters = read_dead_letters(folder / DEAD_LETTERS, disk=OsDisk())
        address = addresses.get(f"collector-{folder.name}", "")
        sidecar = ask_sidecar(address) if address else None
        yield Spool(
            collector=folder.name,
            size_bytes=_size(folder),
            dead_letters=dict(Counter(letter.label for letter in letters)),
            sidecar=sidecar,
            mute=bool(address) and sidecar is None,
        )


def _size(path: Path) -> int:
    """Bytes of a file (with SQLite's files beside it) or of all files in a folder; 0 for nothing."""
    files: Any = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    total = 0
    for file in files:
        try:
            if file.is_file():
                total += file.stat().st_blocks * 512
        except FileNotFoundError:
            continue  # gone meanwhile
    return total
