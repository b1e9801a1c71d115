"""Opens the ledger for writing: the correlator, or its standby, with key, store, log, state and index."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from collector.disk import OsDisk
from collector.store import EventStore
from correlator.errors import Conflict
from correlator.index import TrailIndex
from correlator.metrics import CorrelatorMetrics
from correlator.note import Signer
from correlator.run import Correlator
from correlator.shards import WHOLE, Shard
from correlator.standby import Standby, wait_for_silence
from correlator.statementwriter import StatementWriter
from correlator.storage import LogStorage
from deploy.config import Config, ConfigError
from deploy.indexing import open_index
from deploy.keys import log_signer, tell_of_key
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.sharding import check_cut, statement_writer
from deploy.storing import open_store

__all__ = ["Desk", "finish", "hold_state", "hold_states", "open_correlator", "open_desk"]


@contextmanager
def hold_state(places: Places, name: str = "") -> Iterator[Path]:
    """Keep a correlator's state folder for this process alone; the system lets go of it however we end.

    Args:
        places: where everything is kept.
        name: of the correlator; its state is its own.

    Raises:
        Conflict: another process has it.
    """
    folder = places.state_of(name)
    lock = OsDisk().lock(folder.with_name(f"{folder.name}.lock"))
    if lock is None:
        raise Conflict(
            f"another process writes the log of {places.root}, or stands by for it, with the state in {folder.name}/: "
            "a standby with the same data folder needs a name of its own (--name)"
        )
    try:
        yield folder
    finally:
        lock.release()


@contextmanager
def hold_states(places: Places, shard: Shard = WHOLE) -> Iterator[None]:
    """Keep the state folders of all of a shard's correlators that have ever worked in the data folder; raises as `hold_state`."""
    mine = places.of_shard(shard.name)
    with ExitStack() as held:
        begin = f"{mine.state.name}-"
        names = {path.stem.removeprefix(begin) for path in places.root.glob(f"{begin}*.lock")}
        for name in sorted({"", *names}):
            held.enter_context(hold_state(mine, name))
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """All that a correlator works with, whether it writes or stands by: open, and nobody else's but for store, log and index.

    `signer` signs this log; `statements` writes the joint statement, where the ledger is cut into shards.
    """

    config: Config
    signer: Signer
    storage: LogStorage
    store: EventStore
    index: TrailIndex
    state_folder: Path
    writer_id: str
    metrics: CorrelatorMetrics
    statements: StatementWriter | None = None

    @contextmanager
    def correlator(
        self,
        *,
        take_over: bool = False,
        progress: Callable[[int, int], None] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> Iterator[Correlator]:
        """Become the log's writer for the block; see `Correlator.open`."""
        correlator = Correlator.open(
            store=self.store,
            storage=self.storage,
            signer=self.signer,
            index=self.index,
            state_folder=self.state_folder,
            settings=self.config.correlator,
            clock=clock,
            writer_id=self.writer_id,
            metrics=self.metrics,
            progress=progress,
            take_over=take_over,
        )
        try:
            yield correlator
        finally:
            correlator.close()

    @contextmanager
    def standby(self) -> Iterator[Standby]:
        """Follow the log for the block."""
        standby = Standby(
            storage=self.storage,
            verifier=self.signer.verifier,
            index=self.index,
            state_folder=self.state_folder,
            settings=self.config.correlator,
            metrics=self.metrics,
        )
        try:
            yield standby
        finally:
            standby.close()


@contextmanager
def open_desk(
    config: Config,
    places: Places,
    *,
    shard: Shard = WHOLE,
    name: str = "",
    metrics: CorrelatorMetrics | None = None,
) -> Iterator[Desk]:
    """Open everything but the log; a key that is made on first use is told about on stderr.

    Raises:
        Conflict: another process of this name works in the data folder.
        ConfigError: the log's key cannot be used, or the ledger began with another number of shards or other rules of placing.
        VerificationError: the joint statement was changed.
        Overloaded, StateUnknown: a file does not answer.
    """
    places.make()
    with ExitStack() as open_files:
        metrics = metrics or CorrelatorMetrics()
        mine = places.of_shard(shard.name)
        state_folder = open_files.enter_context(hold_state(mine, name))
        check_cut(config)
        signer, made = log_signer(places, ledger=config.ledger, storage=log_storage(config))
        tell_of_key(signer, made, places)
        statements = statement_writer(config, signer, metrics) if shard.name else None
        if statements is not None:
            try:
                statements.begin()
            except Conflict as error:  # nobody else's doing, as a Conflict is that others raise here
                raise ConfigError(f"{config.ledger}: {error}") from error
        store = open_store(config, places, registry=metrics.registry)
        open_files.callback(store.close)
        index = open_index(config, mine, registry=metrics.registry)
        open_files.callback(index.close)
        yield Desk(
            config=config,
            signer=signer.named(shard.origin(config.ledger)) if shard.name else signer,
            storage=log_storage(config, shard),
            store=store,
            index=index,
            state_folder=state_folder,
            statements=statements,
            writer_id=f"{name or 'correlator'}@{socket.gethostname()}:{os.getpid()}",
            metrics=metrics,
        )


@contextmanager
def open_correlator(
    config: Config,
    places: Places,
    *,
    shard: Shard = WHOLE,
    metrics: CorrelatorMetrics | None = None,
    progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> Iterator[Correlator]:
    """Become the log's writer for the block, if nobody else is; the joint statement is renewed at its end. `clock` says what time is recorded.

    Raises:
        Conflict: another process writes this log.
        ConfigError: the log's key or the settings of store or index cannot be used.
        VerificationError: the log was changed.
        Overloaded, StateUnknown: a file does not answer.
    """
    with open_desk(config, places, shard=shard, metrics=metrics) as desk:
        wait_for_silence(desk.storage, seconds=config.correlator.take_over_seconds)
        with desk.correlator(progress=progress, clock=clock) as correlator:
            yield correlator
        if desk.statements is not None:
            desk.statements.look_quietly()


def finish(correlator: Correlator, *, within_seconds: float) -> bool:
    """Step until nothing is left to do; False when the time ran out first. Raises as `Correlator.step`."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if correlator.step() == 0:
            return True
    return False
