"""TLS towards a server that the sidecar connects to: its certificate is checked, ours is shown where the settings name one."""

from typing import Protocol

__all__ = ["Connecting", "check_connecting"]


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
