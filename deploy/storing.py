"""Opens the event store that the configuration names: the one place that knows which there are."""

from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from collector.errors import Malformed
from collector.receive.listening import is_this_machine
from collector.settings import CollectorSettings
from collector.store import Destination, EventStore
from collector.store.metrics import ClusterMetrics
from collector.store.months import MonthStore
from collector.store.settings import StoreSettings
from deploy.config import Config, ConfigError
from deploy.places import Places

__all__ = [
    "check_cluster",
    "check_patience",
    "is_embedded",
    "open_destination",
    "open_months",
    "open_store",
    "slower_than_a_standby",
]


def is_embedded(config: Config) -> bool:
    """Whether the store is the SQLite file in the data folder."""
    return not config.store.urls


def open_store(
    config: Config,
    places: Places,
    *,
    read_only: bool = False,
    late: bool = False,
    registry: CollectorRegistry | None = None,
) -> EventStore:
    """The event store; made when it is not there, unless it is opened for reading alone.

    With `late` a cluster is first asked when it is used. `registry` gets a cluster's metrics.

    Raises:
        ConfigError: ``[store]`` cannot be used, or asks for what is not installed.
        NotFound: for reading alone, and there is no store yet.
        Overloaded, StateUnknown: it does not answer, or is not ours.
    """
    if is_embedded(config):
        from collector.store.sqlite import SqliteStore

        return SqliteStore(places.store, read_only=read_only)
    check_cluster(config.store, "store")
    try:
        from collector.store.opensearch.store import OpenSearchStore
    except ModuleNotFoundError as error:
        raise ConfigError(
            "store.urls: a store on OpenSearch needs more than is installed: pip install 'tallystick[opensearch]'"
        ) from error
    try:
        watch = None if registry is None else ClusterMetrics(registry, part="store")
        return OpenSearchStore(config.store, read_only=read_only, late=late, watch=watch)
    except OSError as error:
        raise ConfigError(f"store: {error.filename or 'a file'} cannot be read: {error.strerror or error}") from error


def open_destination(
    config: Config, places: Places, settings: CollectorSettings, *, registry: CollectorRegistry | None = None
) -> Destination:
    """Where a sidecar ships: the store, or the upstream of its `relay`; neither needs to answer yet.

    Raises:
        ConfigError: as `open_store`; or its spool ships to the other of the two, or a file of `relay` cannot be used.
        StateUnknown: what it kept of its upstream does not read.
    """
    from collector.relay import open_relay, relays

    root = places.spool(settings.name)
    if not settings.relay.host:
        if relays(root):
            raise ConfigError(
                f"the spool {root} ships to another collector: for a store give the collector another name"
            )
        return open_store(config, places, late=True, registry=registry)
    if not relays(root) and any(root.glob("*/meta.json")):
        raise ConfigError(f"the spool {root} ships to a store: for a relay give the collector another name")
    try:
        return open_relay(settings.relay, name=settings.name, root=root)
    except (OSError, Malformed) as error:
        raise ConfigError(f"collector.relay: {error}") from error


def open_months(config: Config, places: Places) -> MonthStore:
    """The event store by months, which must be there; raises as `open_store`."""
    if is_embedded(config):
        from collector.store.sqlite_months import SqliteMonths

        return SqliteMonths(places.store)
    check_cluster(config.store, "store")
    from collector.store.opensearch.months import OpenSearchMonths

    return OpenSearchMonths(config.store)


def check_cluster(settings: StoreSettings, table: str) -> None:
    """What one key of a table cannot know of another. Raises `ConfigError`."""
    if bool(settings.user) != bool(settings.password_file):
        raise ConfigError(f"{table}.user: user and password_file come together")
    if bool(settings.client_certificate) != bool(settings.client_key):
        raise ConfigError(f"{table}.client_certificate: certificate and key come together")
    if settings.copies > settings.replicas + 1:
        raise ConfigError(f"{table}.copies: {settings.copies} copies cannot be there with {settings.replicas} replicas")
    for url in settings.urls:
        parts = urlsplit(url)
        if settings.user and parts.scheme == "http" and not is_this_machine(parts.hostname or ""):
            raise ConfigError(f"{table}.urls: the password would go to {parts.hostname} unencrypted: use https")


def slower_than_a_standby(config: Config) -> dict[str, float]:
    """Which of store and index may keep a correlator waiting for one answer until its standby takes it for dead, and how long (seconds).

    The head was renewed up to `renew_seconds` before such an answer is waited for, and a writer that waits renews nothing.
    """
    correlator = config.correlator
    return {
        table: settings.timeout_seconds
        for table, settings in (("store", config.store), ("index", config.index))
        if settings.urls and settings.timeout_seconds + correlator.renew_seconds > correlator.take_over_seconds
    }


def check_patience(config: Config) -> None:
    """For a correlator with a standby: refuse timeouts with which a slow cluster deposes a healthy writer. Raises `ConfigError`."""
    for table, seconds in slower_than_a_standby(config).items():
        correlator = config.correlator
        most = correlator.take_over_seconds - correlator.renew_seconds
        raise ConfigError(
            f"{table}.timeout_seconds: {seconds:g} s is too long with a standby, which takes over after "
            f"{correlator.take_over_seconds:g} s: at most {most:g} s (correlator.take_over_seconds less renew_seconds)"
        )
