"""Puts the audit API together with the embedded ledger's files."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from audit_api.app import create_app, serve
from audit_api.auth import TokenFile
from collector.errors import NotFound
from collector.store import EventStore
from correlator.index import TrailIndex
from correlator.log import LogReader
from correlator.note import Verifier
from deploy.config import Config, ConfigError
from deploy.indexing import index_is_embedded, open_index
from deploy.keys import log_verifier
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.recording import RECORDER, open_recorder
from deploy.storing import is_embedded, open_store

__all__ = ["serve_api"]

_LOOK_SECONDS = 0.1
_HEARTBEAT_SECONDS = 60


async def serve_api(
    config: Config, places: Places, *, stopped: asyncio.Event, ready: Callable[[Mapping[str, str]], None]
) -> None:
    """Serve until `stopped` is set; waits first until the correlator has made a ledger, if there is none yet.

    Raises:
        ConfigError: the ledger is cut into shards.
        OSError: the address cannot be bound.
        StateUnknown: the recorder's spool is another process's.
    """
    if config.correlator.shards > 1:
        raise ConfigError(
            "the API does not serve a ledger that is cut into shards yet: `tally trail`, `find`, `export`, `check` and `verify` do"
        )
    with ExitStack() as open_files:
        found = None
        while found is None:
            if stopped.is_set():
                return
            found = _open(config, places, open_files)
            if found is None:
                await _pause(stopped)
        key, store, index = found
        recorder = open_files.enter_context(
            open_recorder(config, places, spool=RECORDER, heartbeat_seconds=_HEARTBEAT_SECONDS)
        )
        if not places.tokens.exists():
            places.tokens.touch(mode=0o600)
        storage = log_storage(config)
        app = create_app(
            index=index,
            log_reader=LogReader(storage, key),
            log_storage=storage,
            log_key=key,
            store=store,
            recorder=recorder,
            authenticator=TokenFile(places.tokens, clock=time.time_ns),
            settings=config.audit_api,
        )
        await serve(app, config.audit_api, stopped=stopped, ready=lambda url: ready({"http": url}))


def _open(config: Config, places: Places, open_files: ExitStack) -> tuple[Verifier, EventStore, TrailIndex] | None:
    """The ledger's files opened for reading, or None while one of them is not there yet."""
    if is_embedded(config) and not places.store.exists():
        return None
    if index_is_embedded(config) and not places.index.exists():
        return None
    with ExitStack() as opened:
        try:
            key = log_verifier(places)
            store = open_store(config, places, read_only=True)
            opened.callback(store.close)
            index = open_index(config, places, read_only=True)
            opened.callback(index.close)
        except (ConfigError, NotFound):
            return None
        open_files.push(opened.pop_all())
    return key, store, index


async def _pause(stopped: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopped.wait(), _LOOK_SECONDS)
    except TimeoutError:
        pass
