"""Can destinations of the log be reached, as they are configured: certificates, files, a handshake? Nothing is sent to them."""

import datetime as dt
import socket
import ssl
from urllib.parse import urlsplit

from audit_api.siem.cursor import Cursor
from audit_api.siem.settings import AnyDestination, HttpSettings, SiemSettings, SyslogSettings
from collector.errors import StateUnknown
from deploy.config import ConfigError
from deploy.examining import Chart
from deploy.examining.certificates import judge_time, shown_by
from deploy.places import Places
from deploy.streaming import open_destination

__all__ = ["examine_siem"]

_PATIENCE_SECONDS = 5.0


def examine_siem(settings: SiemSettings, places: Places, *, now: dt.datetime) -> Chart:
    """Look at each destination. `now` is aware of its zone."""
    chart = Chart("siem")
    for one in settings.destinations:
        try:
            open_destination(one).close()
            Cursor(places.siem(one.name))
        except (ConfigError, StateUnknown) as error:
            chart.fail(one.name, str(error), "tally run siem would not start")
            continue
        if _unencrypted(one):
            chart.warn(
                one.name,
                f"{one.place} is not encrypted: whoever is on the way reads, and may change, what is sent",
                "tls = true",
            )
        for host, port in _addresses(one):
            _reach(chart, one, host, port, now)
    return chart


def _unencrypted(one: AnyDestination) -> bool:
    return not isinstance(one, HttpSettings) and not one.tls


def _addresses(one: AnyDestination) -> list[tuple[str, int]]:
    if isinstance(one, SyslogSettings):
        return [(one.host, one.port)]
    if isinstance(one, HttpSettings):
        parts = urlsplit(one.url)
        return [(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))]
    brokers = (broker.rpartition(":") for broker in one.brokers)
    return [(host.strip("[]"), int(port)) for host, _, port in brokers]


def _reach(chart: Chart, one: AnyDestination, host: str, port: int, now: dt.datetime) -> None:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    encrypted = one.url.startswith("https:") if isinstance(one, HttpSettings) else one.tls
    client = (one.client_certificate, one.client_key) if one.client_certificate else None
    mend = "is it up, and is the address right? What is recorded meanwhile is sent when it is back"
    try:
        if not encrypted:
            socket.create_connection((host, port), _PATIENCE_SECONDS).close()
            chart.ok(one.name, f"{where} takes connections")
            return
        shown = shown_by(f"https://{where}", ca_file=one.ca_file, client=client, timeout_seconds=_PATIENCE_SECONDS)
    except ssl.SSLError as error:
        chart.fail(
            one.name, f"{where} does not shake hands: {error}", "does it speak TLS, or want a certificate of ours?"
        )
    except OSError as error:
        chart.fail(one.name, f"{where} cannot be reached: {error}", mend)
    else:
        if shown.why_not:
            chart.fail(
                one.name,
                f"the certificate of {where} is not believed: {shown.why_not}",
                "ca_file names the authority that issued it",
            )
        else:
            judge_time(chart, one.name, shown.certificate, f"the certificate of {where}", now)
