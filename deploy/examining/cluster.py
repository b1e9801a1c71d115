"""Is there an OpenSearch cluster where the configuration says, does it know us, is it one that we know, and how is it?"""

import datetime as dt
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509

from collector.errors import TallyError
from collector.store.opensearch.connection import Denied, Refusal
from collector.store.settings import StoreSettings
from deploy.examining import Chart
from deploy.examining.certificates import judge_time, shown_by, unusable_file
from deploy.examining.nodes import Health, Nodes, judge_clocks, judge_disks, judge_health, judge_shards
from deploy.examining.questions import PATIENCE_SECONDS, Login, Questions, flat

__all__ = ["OLDEST", "TESTED", "examine_nodes", "judge_version", "reach"]

OLDEST = (3, 0)
"""Before it append-only indexes are not documented."""
TESTED = (3, 4)
"""What our tests run against."""

_SETTINGS = "*.cluster.routing.allocation.disk,*.action.auto_create_index,*.cluster.max_shards_per_node"


class _Version(msgspec.Struct):
    number: str = ""
    distribution: str = ""


class _Main(msgspec.Struct):
    cluster_name: str = ""
    cluster_uuid: str = ""
    version: _Version = msgspec.field(default_factory=_Version)


class _Settings(msgspec.Struct):
    defaults: dict[str, Any] = {}
    persistent: dict[str, Any] = {}
    transient: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class _Door:
    """One address of the cluster, and what is told about it."""

    chart: Chart
    settings: StoreSettings
    table: str
    url: str
    login: Login | None

    def open(self, now: dt.datetime) -> _Main | None:
        """Shake hands and ask who is there; None when nobody lets us in. An empty `_Main`: somebody does, and does not say."""
        if self.url.startswith("https://") and not self._is_secure(now):
            return None
        try:
            with closing(
                Questions(settings=msgspec.structs.replace(self.settings, urls=[self.url]), login=self.login)
            ) as alone:
                return self._asked(alone)
        except OSError as error:  # one with nothing in it that is of use
            self.chart.fail(self.url, f"a file of [{self.table}] cannot be used: {error}", "see keys and certificates")
            return None

    def _asked(self, alone: Questions) -> _Main | None:
        try:
            return alone.get(_Main, "/")
        except Denied as error:
            if error.status == 403:
                return _Main()
            self._unknown_user()
        except Refusal as error:
            self.chart.fail(self.url, f"does not answer as OpenSearch does: {error}", f"[{self.table}] urls")
        except TallyError as error:
            self.chart.fail(self.url, str(error), f"is it running? else mend [{self.table}] urls")
        return None

    def _unknown_user(self) -> None:
        if self.settings.user:
            self.chart.fail(
                self.url,
                f"does not know {self.settings.user} with the password in {self.settings.password_file} (401)",
                f"write the right password into {self.settings.password_file}",
                f"or mend [{self.table}] user",
            )
        else:
            self.chart.fail(
                self.url,
                "wants to know who we are (401)",
                f'[{self.table}] user = "…" and password_file = "…", or client_certificate and client_key',
            )

    def _is_secure(self, now: dt.datetime) -> bool:
        ca_file, own = self.settings.ca_file, (self.settings.client_certificate, self.settings.client_key)
        try:
            shown = shown_by(
                self.url, ca_file=ca_file, client=own if all(own) else None, timeout_seconds=PATIENCE_SECONDS
            )
        except ssl.SSLError as error:
            self.chart.fail(
                self.url,
                f"no TLS handshake: {error.reason or error}",
                f"is it http:// there ([{self.table}] urls)? is {ca_file or 'the system'} the authority's file?",
            )
            return False
        except OSError as error:
            if file := unusable_file(error):
                self.chart.fail(
                    self.url, f"not asked: {file}", f"[{self.table}] ca_file, client_certificate, client_key"
                )
                return False
            self.chart.fail(
                self.url,
                f"cannot be reached: {error.strerror or error}",
                f"is it running? else mend [{self.table}] urls",
            )
            return False
        if not shown.why_not:
            judge_time(self.chart, self.url, shown.certificate, "its certificate", now)
            return True
        issuer = shown.certificate.issuer.rfc4514_string()
        reason = shown.why_not.lower()
        if "expired" in reason or "not yet valid" in reason:
            judge_time(self.chart, self.url, shown.certificate, "its certificate", now)
        elif "mismatch" in reason:
            self.chart.fail(
                self.url,
                f"its certificate is for {', '.join(_names(shown.certificate)) or 'nobody'}, and not for this address",
                f"[{self.table}] urls with one of these names, or a certificate for this one",
            )
        else:
            self.chart.fail(
                self.url,
                f"its certificate, issued by {issuer}, is not trusted: {shown.why_not}",
                f'[{self.table}] ca_file = "…"    # PEM file of {issuer}'
                + (f"; {ca_file} is not it" if ca_file else ""),
            )
        return False


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def reach(
    chart: Chart, settings: StoreSettings, table: str, *, now: dt.datetime, login: Login | None, denied: list[str]
) -> bool:
    """Try every address; whether at least one lets us in.

    Args:
        chart: gets the checks.
        settings: of store or index.
        table: the one that they are of.
        now: aware of its zone.
        login: who asks what the configured user may not.
        denied: gets what nobody may ask.
    """
    if (unreadable := _unreadable(settings)) is not None:
        chart.fail("files", f"nobody is asked: {unreadable} of [{table}] cannot be read", "see keys and certificates")
        return False
    clusters: dict[str, str] = {}
    inside = False
    versions: set[tuple[str, str]] = set()
    for url in settings.urls:
        found = _Door(chart, settings, table, url, login).open(now)
        if found is None:
            continue
        inside = True
        who = settings.user or ("our certificate" if settings.client_certificate else "everybody")
        if not found.cluster_uuid:
            chart.ok(url, f"lets {who} in")
            denied.append(f"{chart.subject} version (cluster:monitor/main)")
            continue
        chart.ok(url, f"lets {who} into {found.cluster_name}")
        clusters.setdefault(found.cluster_uuid, url)
        versions.add((found.version.number, found.version.distribution))
    if len(clusters) > 1:
        chart.fail(
            "cluster",
            f"these are different clusters: {', '.join(clusters.values())}",
            f"[{table}] urls must name nodes of one cluster: what one takes, the other does not have",
        )
    for number, distribution in sorted(versions):
        judge_version(chart, number, distribution)
    return inside


def _unreadable(settings: StoreSettings) -> str | None:
    """A file that a connection needs, and that cannot be read."""
    for name in ("ca_file", "client_certificate", "client_key", "password_file"):
        path = getattr(settings, name)
        try:
            if path:
                Path(path).read_bytes()
        except OSError:
            return f"{name} {path}"
    return None


def judge_version(chart: Chart, number: str, distribution: str) -> None:
    """Is it an OpenSearch that does what we need?"""
    parts = number.split(".")
    if distribution != "opensearch":
        chart.fail("version", f"this is {distribution or 'no OpenSearch'} {number}", "an OpenSearch cluster is needed")
    elif len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        chart.unknown("version", f"{number!r} is no version that can be read")
    elif (version := (int(parts[0]), int(parts[1]))) < OLDEST:
        chart.fail(
            "version",
            f"OpenSearch {number} is too old: append-only indexes are documented from 3.0 on",
            "upgrade the cluster",
        )
    elif version < TESTED or version[0] > TESTED[0]:
        chart.warn(
            "version",
            f"OpenSearch {number}; we are tested with {TESTED[0]}.{TESTED[1]}",
            "try it before you rely on it",
        )
    else:
        chart.ok("version", f"OpenSearch {number}")


def examine_nodes(
    chart: Chart, questions: Questions, *, prefixes: list[str], month: int, clock: Callable[[], int] = time.time_ns
) -> Mapping[str, str] | None:
    """Health, disks, shards and clocks of the cluster; returns its settings, flat, or None when they are not told.

    Args:
        chart: gets the checks.
        questions: to the cluster.
        prefixes: what the names of our indexes begin with.
        month: how many shards another month's indexes have.
        clock: Unix time in nanoseconds.
    """
    told = questions.told(
        chart, "settings", _Settings, "/_cluster/settings", include_defaults="true", filter_path=_SETTINGS
    )
    settings = flat(told.defaults) | flat(told.persistent) | flat(told.transient) if told else None
    pattern = ",".join(f"{prefix}-*" for prefix in prefixes)
    whole = questions.told(chart, "health", Health, "/_cluster/health")
    ours = questions.told(chart, "health", Health, f"/_cluster/health/{pattern}", level="indices")
    if whole is not None and ours is not None:
        judge_health(chart, whole, ours)
    if whole is not None and settings is not None:
        judge_shards(chart, whole, settings, month=month)
    began_ns = clock()
    found = questions.told(chart, "disks and clocks", Nodes, "/_nodes/stats/fs")
    ended_ns = clock()
    if found is not None:
        nodes = list(found.nodes.values())
        if settings is not None:
            judge_disks(chart, nodes, settings)
        judge_clocks(chart, nodes, began_ns=began_ns, ended_ns=ended_ns)
    return settings
