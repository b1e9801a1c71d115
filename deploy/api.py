"""Puts the audit API together with the embedded ledger's files."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial

from audit_api.app import Provider, create_app, own_limits
from audit_api.auth import TokenFile
from audit_api.evidence import Evidence
from audit_api.export.shelf import Shelf
from audit_api.identity.certificates import CertificateProtocol
from audit_api.limits import Limits
from audit_api.logs import Logs, ServedLog
from audit_api.metrics import ApiMetrics
from audit_api.searchshelf import SearchShelf
from audit_api.serving import serve
from collector.errors import NotFound, Overloaded, StateUnknown
from collector.protect.classify import has_card
from collector.receive.http_protocol import BoundedProtocol
from collector.receive.listening import tls_from
from correlator.log import LogReader
from correlator.shards import key_of_log
from deploy.config import Config, ConfigError
from deploy.firsttoken import make_first_token, wants_first_token
from deploy.indexing import index_is_embedded, open_index
from deploy.keys import log_verifier
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.recording import RECORDER, open_recorder
from deploy.sharding import check_cut, shards_of
from deploy.storing import is_embedded, open_store

__all__ = ["api_name", "open_logs", "serve_api"]

_log = logging.getLogger(__name__)

_CACHED_TILES = 2048
_CACHED_BUNDLES = 256
_LOOK_SECONDS = 0.1
_HEARTBEAT_SECONDS = 60
_HEAD_SECONDS, _STALLED_SECONDS = 20.0, 60.0


async def serve_api(
    config: Config,
    places: Places,
    *,
    name: str = "",
    stopped: asyncio.Event,
    ready: Callable[[Mapping[str, str]], None],
) -> None:
    """Serve until `stopped` is set; waits first until the correlator has made a ledger, if there is none yet.

    Args:
        config: what is in force.
        places: where everything is.
        name: of this process, where several serve the ledger: each has a spool and export jobs of its own.
        stopped: ends it.
        ready: called with the addresses once it listens.

    Raises:
        Malformed: a PEM file cannot be read, or is not what it should be.
        ConfigError: the ledger began with another number of shards, or an identity provider or a Redis is named and its extra is not there.
        OSError: the address cannot be bound, or a file of tokens cannot be written.
        TokensError: one of them is not as it must be.
        StateUnknown: a saved search cannot be read, or the recorder's spool is another process's.
    """
    own = config.audit_api
    if own.tls_certificate:  # the server reads these files too, and names none of them
        tls_from(own.tls_certificate, own.tls_key, own.tls_client_ca)
    with suppress(Overloaded, StateUnknown):  # a storage that is away now: then each answer says so
        check_cut(config)
    with ExitStack() as open_files:
        logs = None
        while logs is None:
            if stopped.is_set():
                return
            logs = open_logs(config, places, open_files)
            if logs is None:
                await _pause(stopped)
        recorder = open_files.enter_context(
            open_recorder(config, places, spool=api_name(name), heartbeat_seconds=_HEARTBEAT_SECONDS)
        )
        if wants_first_token(config) and (file := make_first_token(places, now_ns=time.time_ns())):
            _log.info("a first token was made; it stands in %s and nowhere else", file)
        if not places.tokens.exists():
            places.tokens.touch(mode=0o600)
        metrics = ApiMetrics()
        app = create_app(
            logs=logs,
            recorder=recorder,
            authenticator=TokenFile(places.tokens, clock=time.time_ns),
            settings=config.audit_api,
            flows=config.correlator.flows,
            provider=_provider(config),
            export_shelf=Shelf(
                places.exports_of(name),
                clock=time.time_ns,
                keep_seconds=config.audit_api.export_keep_seconds,
                has_card=has_card,
            ),
            search_shelf=SearchShelf(places.searches, clock=time.time_ns, has_card=has_card),
            limits=_limits(config, metrics),
            metrics=metrics,
        )
        await serve(
            app,
            config.audit_api,
            stopped=stopped,
            ready=lambda url: ready({"http": url}),
            protocol=partial(
                _Connection,
                refused=lambda reason: metrics.refused.labels(reason).inc(),
                head_seconds=_HEAD_SECONDS,
                stalled_seconds=_STALLED_SECONDS,
            ),
        )


class _Connection(CertificateProtocol, BoundedProtocol):
    """With the client's certificate, and with bounds on who holds a connection in silence, as where events come in."""


def api_name(name: str) -> str:
    """What the API process of this name is called, and its spool; the empty name is the only one's."""
    return f"{RECORDER}-{name}" if name else RECORDER


def _limits(config: Config, metrics: ApiMetrics) -> Limits:
    settings = config.audit_api.redis
    own = own_limits(config.audit_api, monotonic=time.monotonic)
    if not settings.url:
        return own
    try:
        from audit_api.redis_limits import RedisLimits, open_redis
    except ModuleNotFoundError as error:
        raise ConfigError(f"audit_api.redis needs {error.name}: pip install 'tallystick[redis]'") from error
    return RedisLimits(
        open_redis(settings),
        prefix=settings.prefix,
        own=own,
        timeout_seconds=settings.timeout_seconds,
        metrics=metrics,
        monotonic=time.monotonic,
    )


def _provider(config: Config) -> Provider | None:
    if not config.audit_api.oidc.issuer:
        return None
    try:
        from audit_api.identity.oidc.provider import OidcProvider
    except ModuleNotFoundError as error:
        raise ConfigError(f"audit_api.oidc needs {error.name}: pip install 'tallystick[oidc]'") from error
    return OidcProvider(config.audit_api, clock=time.time_ns, monotonic=time.monotonic)


def open_logs(config: Config, places: Places, open_files: ExitStack) -> Logs | None:
    """The ledger's files opened for reading, or None while one of them is not there yet."""
    shards = shards_of(config)
    if is_embedded(config) and not places.store.exists():
        return None
    if index_is_embedded(config) and not all(places.of_shard(shard.name).index.exists() for shard in shards):
        return None
    with ExitStack() as opened:
        try:
            key = log_verifier(places)
            store = open_store(config, places, read_only=True)
            opened.callback(store.close)
            logs = []
            for shard in shards:
                index = open_index(config, places.of_shard(shard.name), read_only=True)
                opened.callback(index.close)
                storage = log_storage(config, shard)
                log_key = key_of_log(key, shard.origin(key.name))
                # what readers keep in memory is for all logs together as much as for one
                reader = LogReader(
                    storage,
                    log_key,
                    cached_tiles=max(_CACHED_TILES // len(shards), 64),
                    cached_bundles=max(_CACHED_BUNDLES // len(shards), 16),
                )
                evidence = Evidence(index=index, reader=reader, store=store)
                logs.append(ServedLog(evidence=evidence, storage=storage, key=log_key, shard=shard))
        except (ConfigError, NotFound):
            return None
        open_files.push(opened.pop_all())
    return Logs(logs, key=key, monotonic=time.monotonic, root=log_storage(config))


async def _pause(stopped: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopped.wait(), _LOOK_SECONDS)
    except TimeoutError:
        pass
