"""What listening takes, whatever is listened for: TLS from files, and no port beyond this machine that anybody may use unawares."""

import ipaddress
import ssl
from typing import Protocol

from collector.errors import Malformed
from collector.secretfile import check_files

__all__ = ["Listening", "check_listening", "is_this_machine", "tls_from", "tls_of"]


class Listening(Protocol):
    """The settings of a way in that listens."""

    @property
    def host(self) -> str:
        """Address."""

    @property
    def tls_certificate(self) -> str:
        """PEM file; with `tls_key`, or neither."""

    @property
    def tls_key(self) -> str:
        """PEM file."""

    @property
    def tls_client_ca(self) -> str:
        """PEM file with the authorities whose certificates senders must show; empty: none is demanded."""

    @property
    def unprotected(self) -> bool:
        """Listen beyond this machine though anybody may send then and read along."""


def is_this_machine(host: str) -> bool:
    """Whether only this machine can connect to the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_listening(settings: Listening, *, on: bool, keys: bool | None = None) -> None:
    """Refuse what would protect less than it seems to.

    Args:
        settings: of the way in.
        on: whether it listens at all without TLS being a matter of the port.
        keys: whether senders must prove that they know a key, without saying it; None where there is no such thing.

    Raises:
        ValueError: the message names the setting.
    """
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise ValueError("tls_certificate and tls_key go together")
    if settings.tls_client_ca and not settings.tls_certificate:
        raise ValueError("tls_client_ca goes with tls_certificate and tls_key")
    if on and not (keys or settings.tls_certificate or settings.unprotected or is_this_machine(settings.host)):
        needs = "TLS (tls_certificate)" + ("" if keys is None else " or keys (shared_key_file)")
        raise ValueError(f"listening on {settings.host} needs {needs}, or unprotected = true")


def tls_of(settings: Listening) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the settings' certificate; with a client CA, senders must show a certificate of it. None: no TLS.

    Raises:
        Malformed: a file cannot be read, or is not what it should be; the message names it.
    """
    if not settings.tls_certificate:
        return None
    return tls_from(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def tls_from(certificate: str, key: str, client_ca: str) -> ssl.SSLContext:
    """As `tls_of`, from the names of PEM files; `client_ca` may be empty."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        check_files(certificate, key, client_ca)
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:  # says nothing of the files
        raise Malformed(
            f"{certificate} and {key} are not a certificate and its key in PEM ({error.reason or 'cannot be read'})"
        ) from error
    except OSError as error:
        raise Malformed(f"{error.filename}: {error.strerror or error}") from error
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise Malformed(f"{client_ca}: no certificates in PEM ({error.reason or 'cannot be read'})") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
