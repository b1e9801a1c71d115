"""The whole examination, subject by subject; and what it comes to."""

import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from collector.store.settings import StoreSettings
from correlator.shards import Shard
from deploy.config import Config
from deploy.examining import Chart, Check, Outcome
from deploy.examining.alerts import examine_alerts
from deploy.examining.certificates import examine_certificates
from deploy.examining.clock import examine_clock
from deploy.examining.files import examine_index_file, examine_store_file
from deploy.examining.folder import examine_folder
from deploy.examining.logs import examine_log
from deploy.examining.probing import examine_processes
from deploy.examining.secrets import examine_secrets
from deploy.examining.serving import examine_exports, examine_provider, examine_redis
from deploy.examining.settings import examine_settings
from deploy.examining.siem import examine_siem
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.processes import running
from deploy.sharding import shards_of

__all__ = ["Patient", "chart_of", "examine", "verdict_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What is examined, and how.

    Attributes:
        config: what is in force.
        source: the file it came from; None: the defaults.
        user: whom to ask OpenSearch as where the configured user may not; empty: nobody.
        password_file: whose first line is that user's password.
        write_probe: put and remove one small object where only that shows what object storage can do.
        clock: Unix time in nanoseconds.
    """

    config: Config
    source: Path | None
    user: str = ""
    password_file: Path = Path()
    write_probe: bool = False
    clock: Callable[[], int] = time.time_ns


def examine(patient: Patient) -> Iterator[Chart]:
    """Each subject's chart, as soon as it is done. Changes nothing, but for `Patient.write_probe`."""
    config, places = patient.config, Places(Path(patient.config.data))
    now = dt.datetime.fromtimestamp(patient.clock() / 1e9, tz=dt.UTC)
    processes = running(places.run)
    yield examine_settings(config, patient.source, standby=any(one.role == "standby" for one in processes))
    yield chart_of("data folder", lambda: examine_folder(config, places))
    yield chart_of("keys", lambda: examine_secrets(config, places, now_ns=patient.clock()))
    yield chart_of("certificates", lambda: examine_certificates(config, now=now))
    if not config.store.urls:
        yield chart_of("store", lambda: examine_store_file(config, places))
    shards = shards_of(config)
    if not config.index.urls:
        for shard in shards:
            yield chart_of("index", partial(examine_index_file, config, places.of_shard(shard.name), shard=shard))
    yield from _clusters(patient, now)
    written_ns: list[int] = []

    def log_chart(shard: Shard) -> Chart:
        log, head = examine_log(
            config,
            places,
            shard=shard,
            opened=partial(log_storage, config, shard),
            now_ns=patient.clock,
            write_probe=patient.write_probe,
        )
        if head is not None:
            written_ns.append(head.written_ns)
        return log

    for shard in shards:
        yield chart_of("log", partial(log_chart, shard))
    collectors = patient.config.sidecars.values() or [patient.config.collector]
    yield examine_clock(
        head_written_ns=max(written_ns, default=None),
        now_ns=patient.clock(),
        servers=[(one.clock.server, one.clock.port) for one in collectors if one.clock.server],
    )
    yield from _beside(config, places)
    if config.siem.destinations:
        yield examine_siem(config.siem, places, now=now)
    yield examine_processes(processes)


def chart_of(subject: str, examine: Callable[[], Chart]) -> Chart:
    """The chart of a subject, which says so where its files cannot be looked at: the others are examined all the same."""
    try:
        return examine()
    except OSError as error:
        chart = Chart(subject)
        chart.unknown(
            "access",
            f"{error.filename or 'a file'} cannot be looked at: {error.strerror or error}",
            "run as the user that runs the processes",
        )
        return chart


def _beside(config: Config, places: Places) -> Iterator[Chart]:
    """What API and detector talk to."""
    yield chart_of("exports", lambda: examine_exports(config, places))
    if config.audit_api.oidc.issuer:
        yield examine_provider(config.audit_api.oidc)
    if config.audit_api.redis.url:
        yield examine_redis(config.audit_api.redis)
    if config.detector.rules:
        yield examine_alerts(config.detector)


def _clusters(patient: Patient, now: dt.datetime) -> Iterator[Chart]:
    """Each cluster once, then what the tables that name it have there."""
    config = patient.config
    tables: list[tuple[str, StoreSettings]] = [("store", config.store), ("index", config.index)]
    named = [(table, settings) for table, settings in tables if settings.urls]
    if not named:
        return
    try:
        import opensearchpy  # noqa: F401 - an extra: is it there?
    except ModuleNotFoundError:
        chart = Chart("OpenSearch")
        needs = "pip install 'tallystick[opensearch]'"
        chart.fail("library", f"{' and '.join(f'[{table}]' for table, _ in named)} need more than is installed", needs)
        yield chart
        return
    first, *others = named
    # another user may be let in where the first is not, so only what is the same in all respects is asked once
    together = bool(others) and _same(first[1], others[0][1])
    for group in [named] if together else [[one] for one in named]:
        yield from _cluster(patient, group, now, alone=together or len(named) == 1)


def _same(one: StoreSettings, other: StoreSettings) -> bool:
    names = ("urls", "ca_file", "client_certificate", "client_key", "user", "password_file")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _cluster(
    patient: Patient, group: Sequence[tuple[str, StoreSettings]], now: dt.datetime, *, alone: bool
) -> Iterator[Chart]:
    from deploy.examining.cluster import examine_nodes, reach
    from deploy.examining.indexes import examine_store_indexes, examine_trail_index
    from deploy.examining.questions import Login, Questions, tell_denied
    from deploy.examining.rights import examine_index_rights, examine_store_rights

    config = patient.config
    table, settings = group[0]
    chart = Chart("OpenSearch" if alone else f"{table} cluster")
    login = Login(user=patient.user, password_file=patient.password_file) if patient.user else None
    denied: list[str] = []
    if not reach(chart, settings, table, now=now, login=login, denied=denied):
        yield chart
        return
    store = config.store
    month_shards = 2 * store.shards * (1 + store.replicas) if any(name == "store" for name, _ in group) else 0
    with closing(Questions(settings=settings, login=login, denied=denied)) as questions:
        prefixes = sorted({one.prefix for _, one in group})
        cluster = examine_nodes(chart, questions, prefixes=prefixes, month=month_shards, clock=patient.clock)
    yield chart
    for name, own in group:
        chart = Chart(name)
        with closing(Questions(settings=own, login=login, denied=denied)) as questions:
            if name == "store":
                examine_store_indexes(chart, questions, cluster=cluster, month=f"{now:%Y.%m}")
                examine_store_rights(chart, questions)
            else:
                examine_trail_index(chart, questions)
                examine_index_rights(chart, questions)
        yield chart
    if denied:
        chart = Chart("OpenSearch" if alone else f"{table} cluster")
        tell_denied(chart, settings.user, denied)
        yield chart


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks come to: the worst outcome, and how many there are of each."""

    verdict: Outcome
    counts: dict[Outcome, int]


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """The worst of the outcomes: failed, then unknown, then warning."""
    order: tuple[Outcome, ...] = ("failed", "unknown", "warning", "ok")
    counts: dict[Outcome, int] = {outcome: sum(check.outcome == outcome for check in checks) for outcome in order}
    return Verdict(verdict=next((outcome for outcome in order if counts[outcome]), "ok"), counts=counts)
