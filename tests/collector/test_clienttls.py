"""TLS towards a server: a file that cannot be used is named."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from collector.clienttls import client_tls
from tests.servers.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_servers_are_checked_by_name_and_nothing_older_than_tls_1_2_is_spoken(authority: Authority) -> None:
    certificate, key = authority.issue("client")
    for context in (client_tls(), client_tls(str(authority.ca), str(certificate), str(key))):
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_key_may_stand_in_the_certificate_s_file(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("client")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    client_tls(str(authority.ca), str(both))
    with pytest.raises(OSError, match=r"no certificate in PEM and its key: .*client"):
        client_tls(str(authority.ca), str(certificate))


def test_what_cannot_be_used_is_named(authority: Authority, tmp_path: Path) -> None:
    ca = str(authority.ca)
    certificate, key = map(str, authority.issue("client"))
    _, another = map(str, authority.issue("another"))
    absent, junk = str(tmp_path / "absent.pem"), tmp_path / "junk.pem"
    junk.write_text("no PEM\n")
    with pytest.raises(FileNotFoundError, match="absent"):
        client_tls(absent)
    with pytest.raises(FileNotFoundError, match="absent"):
        client_tls(ca, certificate, absent)
    with pytest.raises(OSError, match=r"no certificates in PEM: .*junk\.pem"):
        client_tls(str(junk))
    with pytest.raises(
        OSError, match=rf"no certificate in PEM with its key \({another}\): KEY_VALUES_MISMATCH: .*client"
    ):
        client_tls(ca, certificate, another)
    with pytest.raises(OSError, match=r"no certificate in PEM with its key .*junk\.pem"):
        client_tls(ca, str(junk), key)
