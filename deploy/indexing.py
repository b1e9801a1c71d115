"""Opens the trail index that the configuration names: the one place that knows which there are."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CollectorRegistry

from collector.store.metrics import ClusterMetrics
from correlator.errors import StateUnknown
from correlator.index import TrailIndex
from correlator.index.settings import IndexSettings
from deploy.config import Config, ConfigError
from deploy.places import Places
from deploy.storing import check_cluster

if TYPE_CHECKING:
    from correlator.index.opensearch.index import OpenSearchIndex

__all__ = ["index_is_embedded", "index_name", "open_index", "rebuild_index"]


def index_is_embedded(config: Config) -> bool:
    """Whether the index is the SQLite file in the data folder."""
    return not config.index.urls


def index_name(config: Config, places: Places) -> str:
    """Where the index is, for people."""
    return (
        str(places.index) if index_is_embedded(config) else f"{_settings(config, places).prefix}-trails on OpenSearch"
    )


def open_index(
    config: Config, places: Places, *, read_only: bool = False, registry: CollectorRegistry | None = None
) -> TrailIndex:
    """The trail index; made when it is not there, unless it is opened for reading alone. `registry` gets a cluster's metrics.

    Raises:
        ConfigError: ``[index]`` cannot be used, or asks for what is not installed.
        NotFound: for reading alone, and there is no index yet.
        Overloaded, StateUnknown: it does not answer, is damaged or of another version.
    """
    hub_links = config.correlator.hub_links
    if index_is_embedded(config):
        from correlator.index.sqlite import SqliteIndex

        return SqliteIndex(places.index, hub_links=hub_links, read_only=read_only)
    kind = _opensearch(config)
    try:
        watch = None if registry is None else ClusterMetrics(registry, part="index")
        return kind(_settings(config, places), hub_links=hub_links, read_only=read_only, watch=watch)
    except OSError as error:
        raise _unreadable(error) from error


def rebuild_index(config: Config, places: Places, *, tell: Callable[[str], None]) -> AbstractContextManager[TrailIndex]:
    """An empty index to be filled in the block, which is the index when the block ends without an error.

    On OpenSearch it is made beside the old one, which is read until then; the file is emptied first. One that cannot be
    opened any more, because it is damaged or of another version, is made anew, and `tell` gets why.

    Raises:
        ConfigError, Overloaded: as `open_index`.
    """
    return _emptied(config, places, tell) if index_is_embedded(config) else _beside(config, places)


@contextmanager
def _emptied(config: Config, places: Places, tell: Callable[[str], None]) -> Iterator[TrailIndex]:
    try:
        index = open_index(config, places)
    except StateUnknown as error:
        tell(f"{error}: starting with an empty file")
        for name in (places.index, *places.index.parent.glob(f"{places.index.name}-*")):
            name.unlink(missing_ok=True)
        index = open_index(config, places)
    with closing(index):
        index.clear()
        yield index


@contextmanager
def _beside(config: Config, places: Places) -> Iterator[TrailIndex]:
    kind = _opensearch(config)
    try:
        index = kind(_settings(config, places), hub_links=config.correlator.hub_links, beside=True)
    except OSError as error:
        raise _unreadable(error) from error
    with closing(index):
        yield index
        index.take_over()


def _settings(config: Config, places: Places) -> IndexSettings:
    """Each shard of a ledger has an index of its own, under names that the roles of an uncut one cover."""
    if not places.shard:
        return config.index
    return msgspec.structs.replace(config.index, prefix=f"{config.index.prefix}-trails-{places.shard}")


def _opensearch(config: Config) -> "type[OpenSearchIndex]":
    check_cluster(config.index, "index")
    try:
        from correlator.index.opensearch.index import OpenSearchIndex
    except ModuleNotFoundError as error:
        raise ConfigError(
            "index.urls: an index on OpenSearch needs more than is installed: pip install 'tallystick[opensearch]'"
        ) from error
    return OpenSearchIndex


def _unreadable(error: OSError) -> ConfigError:
    return ConfigError(f"index: {error.filename or 'a file'} cannot be read: {error.strerror or error}")
