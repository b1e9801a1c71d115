"""Opens the embedded ledger for writing: the correlator with its key, store, log, state and index."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from collector.store.sqlite import SqliteStore
from correlator.index.sqlite import SqliteIndex
from correlator.metrics import CorrelatorMetrics
from correlator.run import Correlator
from correlator.storage.file import FileStorage
from deploy.config import Config
from deploy.keys import log_signer, tell_of_key
from deploy.places import Places

__all__ = ["finish", "open_correlator"]


@contextmanager
def open_correlator(
    config: Config,
    places: Places,
    *,
    metrics: CorrelatorMetrics | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Correlator]:
    """Become the log's writer for the block; a key that is made on first use is told about on stderr.

    Raises:
        Conflict: another process writes this log.
        ConfigError: the log's key cannot be used.
        VerificationError: the log was changed.
        Overloaded, StateUnknown: a file does not answer.
    """
    places.make()
    signer, made = log_signer(places, ledger=config.ledger)
    tell_of_key(signer, made, places)
    with ExitStack() as open_files:
        store = SqliteStore(places.store)
        open_files.callback(store.close)
        index = SqliteIndex(places.index, hub_links=config.correlator.hub_links)
        open_files.callback(index.close)
        correlator = Correlator.open(
            store=store,
            storage=FileStorage(places.log),
            signer=signer,
            index=index,
            state_folder=places.state,
            settings=config.correlator,
            metrics=metrics,
            progress=progress,
        )
        open_files.callback(correlator.close)
        yield correlator


def finish(correlator: Correlator, *, within_seconds: float) -> bool:
    """Step until nothing is left to do; False when the time ran out first. Raises as `Correlator.step`."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if correlator.step() == 0:
            return True
    return False
