"""Are the certificates whole, ours, and good for some time yet: those in files, and those that servers show?"""

import datetime as dt
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from collector.clienttls import client_tls
from deploy.config import Config
from deploy.examining import Chart
from deploy.examining.settings import collectors_of

__all__ = ["Shown", "examine_certificates", "judge_time", "shown_by", "unusable_file"]

_SOON_DAYS = 21
_MAX_BYTES = 1_048_576


def examine_certificates(config: Config, *, now: dt.datetime) -> Chart:
    """Look at the certificates that the configuration names. `now` is aware of its zone."""
    chart = Chart("certificates")
    pairs = [
        (f"{table}.{key}", getattr(settings, key), secret)
        for table, settings in (("store", config.store), ("index", config.index))
        for key, secret in (("ca_file", ""), ("client_certificate", settings.client_key))
    ]
    for table, collector in collectors_of(config).items():
        for way in ("forward", "http", "grpc", "elasticsearch", "beats", "syslog", "relay"):
            one = getattr(collector, way)
            pairs.append((f"{table}.{way}.tls_certificate", one.tls_certificate, one.tls_key))
            authorities = "tls_ca" if way == "relay" else "tls_client_ca"
            pairs.append((f"{table}.{way}.{authorities}", getattr(one, authorities), ""))
        for way, entries in (("kafka", collector.kafka), ("amqp", collector.amqp), ("pulsar", collector.pulsar)):
            for entry in entries:
                pairs.append((f"{table}.{way}.tls_certificate", entry.tls_certificate, entry.tls_key))
                pairs.append((f"{table}.{way}.tls_ca", entry.tls_ca, ""))
        to = collector.metrics_to
        pairs.append((f"{table}.metrics_to.client_certificate", to.client_certificate, to.client_key))
        pairs.append((f"{table}.metrics_to.ca_file", to.ca_file, ""))
    api, detector = config.audit_api, config.detector
    pairs += [
        ("audit_api.tls_certificate", api.tls_certificate, api.tls_key),
        ("audit_api.tls_client_ca", api.tls_client_ca, ""),
        ("audit_api.oidc.ca_file", api.oidc.ca_file, ""),
        ("audit_api.redis.ca_file", api.redis.ca_file, ""),
        ("audit_api.redis.client_certificate", api.redis.client_certificate, api.redis.client_key),
        ("detector.alertmanager.ca_file", detector.alertmanager.ca_file, ""),
        ("detector.freeze.ca_file", detector.freeze.ca_file, ""),
    ]
    for one in config.siem.destinations:
        where = f"siem.destinations, {one.name}"
        pairs.append((f"{where}: client_certificate", one.client_certificate, one.client_key))
        pairs.append((f"{where}: ca_file", one.ca_file, ""))
    seen = set[tuple[str, str]]()
    for setting, name, key in pairs:
        if name and (name, key) not in seen:
            seen.add((name, key))
            _file(chart, setting, Path(name), Path(key) if key else None, now)
    if not chart.checks:
        chart.ok("files", "the configuration names none")
    return chart


def _file(chart: Chart, setting: str, path: Path, key: Path | None, now: dt.datetime) -> None:
    try:
        with path.open("rb") as file:
            found = x509.load_pem_x509_certificates(file.read(_MAX_BYTES))
    except OSError as error:
        chart.fail(setting, f"{path} cannot be read: {error.strerror}", f"{setting} must name a PEM file")
        return
    except ValueError:
        chart.fail(
            setting,
            f"{path} holds no certificate in PEM form",
            f"openssl x509 -in {path} -noout -text    # what is it?",
        )
        return
    if key is not None and not _belong_together(chart, setting, found[0], path, key):
        return
    # of several authorities one may have expired without harm, as long as another one is good
    last = max(found, key=lambda one: one.not_valid_after_utc) if key is None else found[0]
    judge_time(chart, setting, last, f"the certificate in {path}", now)


def _belong_together(chart: Chart, setting: str, certificate: x509.Certificate, path: Path, key: Path) -> bool:
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except OSError:
        return True  # told with the keys
    except (ValueError, TypeError):
        chart.fail(
            setting, f"{key} holds no private key in PEM form, or one with a password", f"openssl pkey -in {key} -noout"
        )
        return False
    if private.public_key() != certificate.public_key():
        chart.fail(
            setting,
            f"{path} is not the certificate of the key in {key}",
            "give the certificate that was issued for this key",
        )
        return False
    return True


def judge_time(chart: Chart, name: str, certificate: x509.Certificate, whose: str, now: dt.datetime) -> None:
    """Is it good now, and for how long? `whose`: what to call it, as ``its certificate``."""
    left = (certificate.not_valid_after_utc - now).total_seconds() / 86_400
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if certificate.not_valid_before_utc > now:
        begins = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        chart.fail(
            name,
            f"{whose} is good from {begins} on, which is to come",
            "is this machine's clock right?",
        )
    elif left < 0:
        chart.fail(name, f"{whose} expired on {until}", "have a new one issued")
    elif left < _SOON_DAYS:
        chart.warn(name, f"{whose} expires in {left:.0f} days, on {until}", "have a new one issued")
    else:
        chart.ok(name, f"{whose} is good for {left:,.0f} days, until {until}")


def unusable_file(error: OSError) -> str:
    """Which file of ours is at fault, and why; empty where the error is of the server or the way to it."""
    return f"{error.filename} cannot be used: {error.strerror}" if error.filename else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a TLS server showed: its certificate, and why it is not to be trusted (empty: it is)."""

    certificate: x509.Certificate
    why_not: str


def shown_by(url: str, *, ca_file: str, client: tuple[str, str] | None = None, timeout_seconds: float) -> Shown:
    """Shake hands with the server of an https URL, as its clients do, and once more without checking if that fails.

    Nothing is sent but the handshake.

    Args:
        url: ``https://host:port``.
        ca_file: of the authorities to trust; empty: the system's.
        client: files of our own certificate and key, where the server wants one; they are shown to nobody who is not trusted.
        timeout_seconds: for each handshake.

    Raises:
        OSError: it cannot be reached, or speaks no TLS; or a file cannot be used (`unusable_file`).
    """
    trusting = client_tls(ca_file, *(client or ()))
    try:
        return Shown(certificate=_handshake(url, trusting, timeout_seconds), why_not="")
    except ssl.SSLCertVerificationError as error:
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname = False
        anyone.verify_mode = ssl.CERT_NONE
        return Shown(certificate=_handshake(url, anyone, timeout_seconds), why_not=error.verify_message)


def _handshake(url: str, context: ssl.SSLContext, timeout_seconds: float) -> x509.Certificate:
    parts = urlsplit(url)
    host = parts.hostname or ""
    with (
        socket.create_connection((host, parts.port or 443), timeout_seconds) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        shown = tls.getpeercert(binary_form=True)
    if shown is None:
        raise OSError(f"{url} shows no certificate")
    return x509.load_der_x509_certificate(shown)
