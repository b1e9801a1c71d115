"""The configuration: one tally.toml in which every key is optional, read into `Config`.

Each stage owns its own settings (`collector.settings`, `correlator.settings`, `audit_api.settings`); this module puts them
together, and refuses what none of them knows. `docs/configuration.md` lists every key (`tally config --markdown`).

Where the file is: ``--config FILE``, else the environment variable ``TALLY_CONFIG``, else ``tally.toml`` in the working
directory if there is one, else the defaults. A relative `data` counts from the file's folder, and so do all relative files that the
settings name, so that it does not matter where a command is started.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from alerting.detect.listed import ListedRule
from alerting.detect.settings import DetectorSettings
from alerting.incidents.settings import IncidentSettings
from alerting.settings import AlertingSettings
from audit_api.settings import ApiSettings
from audit_api.siem.settings import AnyDestination, SiemSettings
from collector.errors import TallyError
from collector.settings import CollectorSettings
from collector.store.settings import StoreSettings
from correlator.index.settings import IndexSettings
from correlator.note import is_key_name
from correlator.settings import CorrelatorSettings
from correlator.shards import split_origin
from dashboards.settings import DashboardSettings
from deploy.retention import RetentionSettings

__all__ = ["SCHEMES", "Config", "ConfigError", "load", "parse"]

SCHEMES = ("s3", "gs", "az")
"""Of URLs that name a place in object storage."""

FILE_NAME = "tally.toml"
MAX_CONFIG_BYTES = 1_048_576
_CLUSTER_FILES = ("ca_file", "client_certificate", "client_key", "password_file")

_TLS_FILES = ("tls_certificate", "tls_key", "tls_client_ca")
_FORWARD_FILES = ("unix_socket", "shared_key_file", "client_key_files", "password_files")
_BROKER_FILES = ("tls_certificate", "tls_key", "tls_ca", "password_file")
_PULSAR_FILES = ("tls_certificate", "tls_key", "tls_ca", "token_file")
_GRAFANA_FILES = ("ca_file", "token_file", "opensearch_password_file")
_METRICS_FILES = ("token_file", "password_file", "ca_file", "client_certificate", "client_key")
_SIEM_FILES = ("ca_file", "client_certificate", "client_key", "token_file", "password_file")
_RELAY_FILES = ("tls_certificate", "tls_key", "tls_ca", "shared_key_file", "password_file")

_Table = TypeVar("_Table", bound=msgspec.Struct)


class ConfigError(TallyError):
    """The configuration cannot be used. The message names the file, the key, and what is wrong with it."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set.

    Attributes:
        data: folder of everything that is kept (spools, store, log, state, index, keys); relative to this file.
        log: where the log lies: empty for the folder `log/` in the data folder, or a URL of object storage, `s3://bucket/prefix`,
            `gs://bucket/prefix` or `az://container/prefix`, which nothing else uses. Never holds credentials: those come from the
            environment (docs/operating.md).
        log_endpoint: URL of an S3-compatible server, where the log is not in the cloud's own.
        ledger: name of the ledger: the log's origin, a schema-less URL that nobody else uses (C2SP tlog-checkpoint).
        store: where shipped batches are kept: a SQLite file in `data`, or an OpenSearch cluster.
        index: where trails are found: a SQLite file in `data`, or an OpenSearch cluster, which may be the store's.
        collector: the sidecar collector.
        sidecars: more than one collector on this machine: each table is a collector's name with what differs from `[collector]`.
        correlator: the correlator.
        audit_api: the API.
        detector: which transactions are suspicious, and whom to tell (docs/detection.md).
        siem: where the log is sent on to as it grows (docs/siem.md).
        retention: how long events are kept; `tally retain` sees to it.
        dashboards: boards for Grafana.
        alerting: rules for Prometheus, and who hears of alerts.
        incidents: which failures of controls are put on record (docs/incidents.md).
    """

    data: str = "tally-data"
    log: str = ""
    log_endpoint: str = ""
    ledger: str = "localhost/tallystick"
    store: StoreSettings = msgspec.field(default_factory=StoreSettings)
    index: IndexSettings = msgspec.field(default_factory=IndexSettings)
    collector: CollectorSettings = msgspec.field(default_factory=CollectorSettings)
    sidecars: dict[str, CollectorSettings] = {}
    correlator: CorrelatorSettings = msgspec.field(default_factory=CorrelatorSettings)
    audit_api: ApiSettings = msgspec.field(default_factory=ApiSettings)
    detector: DetectorSettings = msgspec.field(default_factory=DetectorSettings)
    siem: SiemSettings = msgspec.field(default_factory=SiemSettings)
    retention: RetentionSettings = msgspec.field(default_factory=RetentionSettings)
    dashboards: DashboardSettings = msgspec.field(default_factory=DashboardSettings)
    alerting: AlertingSettings = msgspec.field(default_factory=AlertingSettings)
    incidents: IncidentSettings = msgspec.field(default_factory=IncidentSettings)

    def __post_init__(self) -> None:
        """Refuse a place of the log that nothing can open, or that holds a credential, and a ledger that no key can be named after, or named as a shard is."""
        if not is_key_name(self.ledger):
            raise ValueError("ledger must be a name without white space and '+', such as payments.example/audit")
        if split_origin(self.ledger)[0] != self.ledger:
            raise ValueError("ledger ends as the origin of a shard does (docs/operating.md)")
        if self.log:
            _check_url(self.log, SCHEMES, "log")
        if self.log_endpoint:
            _check_url(self.log_endpoint, ("http", "https"), "log_endpoint")
            if not self.log.startswith("s3://"):
                raise ValueError("log_endpoint goes with a log at s3://")


def _check_url(url: str, schemes: tuple[str, ...], key: str) -> None:
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:  # the text is not repeated: it may be a secret
        raise ValueError(f"{key} holds more than a place: credentials come from the environment, never from here")
    if parts.scheme not in schemes or not parts.netloc:
        raise ValueError(f"{key} is no URL of the form {' or '.join(f'{scheme}://…' for scheme in schemes)}")


def load(file: Path | None, *, environ: Mapping[str, str], folder: Path) -> tuple[Config, Path | None]:
    """The configuration and the file it came from (None: the defaults). `folder` is the working directory.

    Raises:
        ConfigError: the file that was asked for is not there or cannot be read, or says something that cannot be used.
    """
    named = file or (Path(environ["TALLY_CONFIG"]) if environ.get("TALLY_CONFIG") else None)
    path = folder / (named or FILE_NAME)
    if named is None and not path.is_file():
        return parse("", source="defaults", folder=folder), None
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: longer than {MAX_CONFIG_BYTES:,} bytes: is this a configuration?")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    return parse(text, source=str(named or FILE_NAME), folder=path.resolve().parent), path


def parse(text: str, *, source: str, folder: Path) -> Config:
    """The configuration of a TOML text; `source` stands at the head of errors, a relative `data` counts from `folder`.

    Raises:
        ConfigError: not TOML, an unknown key (its path, and the known key it resembles), or a value of the wrong type.
    """
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{source}: not TOML: {error}") from error
    for path, unknown, near in _unknown_keys(raw, msgspec.inspect.type_info(Config), ()):
        known = difflib.get_close_matches(unknown, near, n=1)
        hint = f"; did you mean {known[0]}?" if known else f"; known here: {', '.join(near)}" if near else ""
        raise ConfigError(f"{source}: {'.'.join((*path, unknown))}: unknown key{hint}")
    sidecars = raw.pop("sidecars", {})
    if not isinstance(sidecars, dict):
        raise ConfigError(f"{source}: sidecars: Expected tables like [sidecars.payments]")
    shared = raw.get("collector", {})
    collectors = {}
    config: Config = _convert(raw, Config, source, "")
    for name, own in sidecars.items():
        merged = _merge(shared, {"name": name} | own) if isinstance(own, dict) else own
        collectors[name] = _collector(_convert(merged, CollectorSettings, source, f"sidecars.{name}"), folder)
        if collectors[name].name != name:
            raise ConfigError(f"{source}: sidecars.{name}.name: a sidecar is called what its table is called")
    return msgspec.structs.replace(
        config,
        data=str(folder / config.data),
        store=_located(config.store, folder),
        index=_located(config.index, folder),
        audit_api=_audit_api(config.audit_api, folder),
        dashboards=_located(config.dashboards, folder, _GRAFANA_FILES),
        collector=_collector(config.collector, folder),
        sidecars=collectors,
        detector=_detector(config.detector, folder),
        siem=_siem(config.siem, folder),
        incidents=_located(config.incidents, folder, ("check_file", "webhook_token_file", "heartbeat_url_file")),
    )


def _siem(settings: SiemSettings, folder: Path) -> SiemSettings:
    def located(one: AnyDestination) -> AnyDestination:
        return _located(one, folder, [name for name in _SIEM_FILES if hasattr(one, name)])

    return msgspec.structs.replace(settings, destinations=tuple(map(located, settings.destinations)))


def _detector(settings: DetectorSettings, folder: Path) -> DetectorSettings:
    return msgspec.structs.replace(
        settings,
        rules=tuple(_located(one, folder, ("file",)) if isinstance(one, ListedRule) else one for one in settings.rules),
        alertmanager=_located(settings.alertmanager, folder, ("ca_file", "token_file")),
        freeze=_located(settings.freeze, folder, ("ca_file", "secret_file")),
    )


def _located(table: _Table, folder: Path, files: Sequence[str] = _CLUSTER_FILES) -> _Table:
    """With its files where they are, seen from anywhere."""
    paths: dict[str, Any] = {}
    for name in files:
        path = getattr(table, name)
        if isinstance(path, dict):
            paths[name] = {key: str(folder / value) for key, value in path.items()}
        elif isinstance(path, tuple):
            paths[name] = tuple(str(folder / value) for value in path)
        elif path:
            paths[name] = str(folder / path)
    return msgspec.structs.replace(table, **paths)


def _audit_api(settings: ApiSettings, folder: Path) -> ApiSettings:
    oidc = _located(settings.oidc, folder, ("ca_file", "client_secret_file"))
    redis = _located(settings.redis, folder, _CLUSTER_FILES)
    located = _located(settings, folder, (*_TLS_FILES, "report_fonts"))
    return msgspec.structs.replace(located, oidc=oidc, redis=redis)


def _collector(settings: CollectorSettings, folder: Path) -> CollectorSettings:
    return msgspec.structs.replace(
        settings,
        mappings=tuple(name if name.startswith("preset:") else str(folder / name) for name in settings.mappings),
        forward=_located(settings.forward, folder, (*_TLS_FILES, *_FORWARD_FILES)),
        http=_located(settings.http, folder, _TLS_FILES),
        beats=_located(settings.beats, folder, _TLS_FILES),
        elasticsearch=_located(settings.elasticsearch, folder, (*_TLS_FILES, "credentials_file")),
        grpc=_located(settings.grpc, folder, _TLS_FILES),
        syslog=_located(settings.syslog, folder, _TLS_FILES),
        kubernetes=_located(settings.kubernetes, folder, ("token_file", "ca_file")),
        kafka=tuple(_located(one, folder, _BROKER_FILES) for one in settings.kafka),
        amqp=tuple(_located(one, folder, _BROKER_FILES) for one in settings.amqp),
        pulsar=tuple(_located(one, folder, _PULSAR_FILES) for one in settings.pulsar),
        relay=_located(settings.relay, folder, _RELAY_FILES),
        metrics_to=_located(settings.metrics_to, folder, _METRICS_FILES),
    )


def _convert(raw: Any, kind: Any, source: str, prefix: str) -> Any:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        # msgspec writes "what - at `$.path`", and "what - at `key` in `$.path`" for a table's key
        reason, _, place = str(error).rpartition(" - at ")
        path = place.rpartition("`$")[2].rstrip("`") if reason else ""
        reason = f"{reason}, as a key" if place.startswith("`key`") else reason or str(error)
        where = f"{prefix}{path}".strip(".")
        raise ConfigError(f"{source}: {where}: {reason}" if where else f"{source}: {reason}") from error


def _merge(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`shared` with `own` laid over it, table by table; any other value of `own` takes the place of the shared one."""
    merged = dict(shared)
    for key, value in own.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _unknown_keys(
    raw: Any, kind: msgspec.inspect.Type, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """Each key of `raw` that `kind` does not know: its table's path, its name, and the names known there."""
    if isinstance(kind, msgspec.inspect.StructType) and isinstance(raw, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        if kind.tag_field:
            fields[kind.tag_field] = msgspec.inspect.AnyType()
        for key, value in raw.items():
            if key in fields:
                yield from _unknown_keys(value, fields[key], (*path, key))
            elif kind.forbid_unknown_fields:
                yield path, key, list(fields)
    elif isinstance(kind, msgspec.inspect.DictType) and isinstance(raw, dict):
        for key, value in raw.items():
            yield from _unknown_keys(value, kind.value_type, (*path, key))
    elif isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) and isinstance(raw, list):
        for at, value in enumerate(raw):
            yield from _unknown_keys(value, kind.item_type, (*path[:-1], f"{path[-1]}[{at}]"))
    elif isinstance(kind, msgspec.inspect.UnionType) and isinstance(raw, dict):
        tables = [option for option in kind.types if isinstance(option, msgspec.inspect.StructType)]
        if len(tables) == 1:  # of several, msgspec's own message says more
            yield from _unknown_keys(raw, tables[0], path)
