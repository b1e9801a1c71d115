"""Certificates in files, and those that a real TLS server on this machine shows."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alerting.detect.settings import AlertmanagerSettings, DetectorSettings, FreezeSettings
from audit_api.identity.oidc.settings import OidcSettings
from audit_api.redis_settings import RedisSettings
from collector.store.settings import StoreSettings
from deploy.config import ConfigError, parse
from deploy.examining import Chart
from deploy.examining.alerts import examine_alerts
from deploy.examining.certificates import examine_certificates, shown_by
from deploy.examining.cluster import reach
from deploy.examining.serving import examine_provider, examine_redis
from tests.servers.certificates import Authority
from tests.support.charts import only, outcomes, troubles

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def examined(text: str, folder: Path, now: dt.datetime = NOW) -> Chart:
    return examine_certificates(parse(text, source="", folder=folder), now=now)


def api(certificate: Path, key: Path) -> str:
    return f'[audit_api]\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n'


def test_none_are_fine(tmp_path: Path) -> None:
    assert troubles(examined("", tmp_path)) == []


@pytest.mark.parametrize(
    ("days", "outcome"), [(-30, "failed"), (0, "ok"), (300, "ok"), (400 - 15, "warning"), (400.5, "failed")]
)
def test_a_certificate_ends(authority: Authority, days: float, outcome: str) -> None:
    certificate, key = authority.issue("api", days=400)
    chart = examined(api(certificate, key), authority.folder, now=NOW + dt.timedelta(days=days))
    assert outcomes(chart) == {"audit_api.tls_certificate": outcome}


def test_one_of_another_key_or_of_none_is_told(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("one", days=400)
    _, other = authority.issue("two", days=400)
    name = "audit_api.tls_certificate"
    assert outcomes(examined(api(certificate, key), tmp_path)) == {name: "ok"}
    assert "is not the certificate of the key" in only(examined(api(certificate, other), tmp_path)).found
    assert "no certificate" in only(examined(api(key, key), tmp_path)).found
    assert "no private key" in only(examined(api(certificate, certificate), tmp_path)).found
    assert "cannot be read" in only(examined(api(tmp_path / "x.pem", key), tmp_path)).found


def test_half_a_listeners_tls_is_refused_before_anything_is_examined(authority: Authority, tmp_path: Path) -> None:
    certificate, _ = authority.issue("half", days=400)
    for table in ("collector.http", "collector.forward", "collector.beats", "audit_api"):
        with pytest.raises(ConfigError, match=f"{table}: tls_certificate and tls_key"):
            parse(f'[{table}]\ntls_certificate = "{certificate}"\n', source="", folder=tmp_path)


def test_the_certificates_of_every_way_in_are_looked_at(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("soon", days=5)
    tables = ("forward", "http", "grpc", "elasticsearch", "beats", "syslog", "relay")
    pair = f'tls_certificate = "{certificate}"\ntls_key = "{key}"\n'
    for table in tables:
        chart = examined(f"[collector.{table}]\n{pair}", tmp_path)
        assert outcomes(chart) == {f"collector.{table}.tls_certificate": "warning"}
        name = "tls_ca" if table == "relay" else "tls_client_ca"
        chart = examined(f'[collector.{table}]\n{pair}{name} = "{tmp_path / "none.pem"}"\n', tmp_path)
        assert outcomes(chart)[f"collector.{table}.{name}"] == "failed"


def test_the_certificates_shown_to_brokers_are_looked_at(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("soon", days=5)
    entries = {"kafka": 'brokers = ["b:1"]\ntopics = ["t"]', "amqp": 'queue = "q"'}
    entries["pulsar"] = entries["kafka"]
    for table, entry in entries.items():
        text = f'[[collector.{table}]]\n{entry}\ntls = true\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n'
        assert outcomes(examined(text, tmp_path)) == {f"collector.{table}.tls_certificate": "warning"}
        chart = examined(f'{text}tls_ca = "none.pem"\n', tmp_path)
        assert outcomes(chart)[f"collector.{table}.tls_ca"] == "failed"


@contextmanager
def serving(certificate: Path, key: Path) -> Iterator[int]:
    """A TLS server that shakes hands and hangs up; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                context.wrap_socket(plain, server_side=True).close()
            except OSError:
                plain.close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def reached(port: int, ca: Path, host: str = "127.0.0.1") -> Chart:
    chart = Chart("OpenSearch")
    settings = StoreSettings(urls=[f"https://{host}:{port}"], ca_file=str(ca), timeout_seconds=5)
    assert not reach(chart, settings, "store", now=NOW, login=None, denied=[])
    return chart


def test_a_server_is_trusted_or_it_is_told_why_not(authority: Authority, tmp_path: Path) -> None:
    with serving(*authority.issue("node", days=5)) as port:
        url = f"https://127.0.0.1:{port}"
        shown = shown_by(url, ca_file=str(authority.ca), timeout_seconds=5)
        assert (shown.why_not, shown.certificate.subject.rfc4514_string()) == ("", Authority.subject("node"))
        by_time, by_answer = troubles(reached(port, authority.ca))
        assert "expires in 5 days" in by_time.found
        assert by_answer.outcome == "failed", "it shakes hands, and is no OpenSearch"
        check = only(reached(port, Authority(tmp_path / "other").ca))
        assert "is not trusted" in check.found
        assert "ca_file" in check.mend[0]
        assert "ca_file" in only(reached(port, tmp_path / "none.pem")).found
        with pytest.raises(OSError, match="refused"):
            shown_by("https://127.0.0.1:1", ca_file=str(authority.ca), timeout_seconds=5)


def test_a_file_that_is_no_certificate_is_told_and_no_server_is_blamed(tmp_path: Path) -> None:
    """Its name, and what is wrong with it, wherever it is that nobody can be asked because of it."""
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    url = "https://127.0.0.1:9"
    detector = DetectorSettings(
        alertmanager=AlertmanagerSettings(urls=(url,), ca_file=str(junk)),
        freeze=FreezeSettings(url=f"{url}/freeze", secret_file="secret", ca_file=str(junk)),
    )
    charts = (
        reached(9, junk),
        examine_alerts(detector),
        examine_provider(OidcSettings(issuer=url, ca_file=str(junk))),
        examine_redis(RedisSettings(url="rediss://127.0.0.1:9", ca_file=str(junk))),
    )
    found = [check for chart in charts for check in troubles(chart)]
    assert len(found) == 5
    for check in found:
        assert f"not asked: {junk} cannot be used: no certificates in PEM" in check.found
        assert "ca_file" in check.mend[0]


def test_an_expired_server_and_one_with_another_name_are_told(authority: Authority) -> None:
    with serving(*authority.issue("old", days=-1)) as port:
        assert "its certificate expired on" in only(reached(port, authority.ca)).found
    with serving(*authority.issue("elsewhere", hosts=("search.example",))) as port:
        check = only(reached(port, authority.ca))
        assert "is for search.example" in check.found


def test_plain_http_behind_https_is_told(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_say_http, args=(listener,), daemon=True)
        answering.start()
        check = only(reached(listener.getsockname()[1], authority.ca))
        assert "no TLS handshake" in check.found
        answering.join(10)


def _say_http(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4_096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
