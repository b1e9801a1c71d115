"""TLS towards a server that the sidecar connects to: its certificate is checked, ours is shown where the settings name one."""

import ssl
from typing import Protocol

from collector.secretfile import check_files

__all__ = ["Connecting", "check_connecting", "client_tls"]


class Connecting(Protocol):
    """The settings of a way in that connects to a broker."""

    @property
    def tls(self) -> bool:
        """Whether to speak TLS."""

    @property
    def tls_ca(self) -> str:
        """PEM file that the broker's certificate is checked against; empty: the system's authorities."""

    @property
    def tls_certificate(self) -> str:
        """PEM file with what is shown to it; with `tls_key`, or neither."""

    @property
    def tls_key(self) -> str:
        """PEM file."""


def check_connecting(settings: Connecting) -> None:
    """Refuse what would protect less than it seems to. Raises ValueError: the message names the settings."""
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise ValueError("tls_certificate and tls_key go together")
    if (settings.tls_ca or settings.tls_certificate) and not settings.tls:
        raise ValueError("tls_ca and tls_certificate go with tls = true")


def client_tls(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 or newer. `ca`: PEM file that the server's certificate is checked against, empty: the system's authorities.

    Raises:
        OSError: a file that cannot be read, or is not what it should be (`ssl.SSLError`).
    """
    check_files(ca, certificate, key)
    context = ssl.create_default_context(cafile=ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        context.load_cert_chain(certificate, key)
    return context
