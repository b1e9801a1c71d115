"""A certificate authority of our own, for servers on 127.0.0.1 and for clients that identify themselves by certificate."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_ORGANISATION = "tallystick tests"
_AUTHORITYS_USES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Makes certificates into `folder`: ``ca.pem``, and for each name ``<name>.pem`` with ``<name>-key.pem`` (PKCS 8)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = _new_key()
        self._name = _distinguished("ca")
        basics = x509.BasicConstraints(ca=True, path_length=0)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        builder = (
            _builder(self._name, self._name, self._key)
            .add_extension(basics, critical=True)
            .add_extension(_AUTHORITYS_USES, critical=True)
            .add_extension(identifier, critical=False)
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, hosts: tuple[str, ...] = (), days: float = 7) -> tuple[Path, Path]:
        """Certificate and key for `name`, as a server's and as a client's, good for so many days from an hour ago on.

        `hosts`: the DNS names that it is for; none: 127.0.0.1 and localhost. `days` below 0: it has expired.
        """
        key = _new_key()
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts or ("localhost",)]
        if not hosts:
            names.append(x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")))
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(_distinguished(name), self._name, key, days=days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(self._identifier, critical=False)  # from 3.13 on, Python refuses a certificate without it
            .sign(self._key, hashes.SHA256())
        )
        made, made_key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        made.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        made_key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        made_key.chmod(0o600)
        return made, made_key

    @staticmethod
    def subject(name: str) -> str:
        """The distinguished name of `name`'s certificate, as OpenSearch's security plugin writes it."""
        return f"CN={name},O={_ORGANISATION}"


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _distinguished(name: str) -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, _ORGANISATION), (NameOID.COMMON_NAME, name)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, *, days: float = 7
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    begins = min(now, now + dt.timedelta(days=days)) - dt.timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(now + dt.timedelta(days=days))
    )
