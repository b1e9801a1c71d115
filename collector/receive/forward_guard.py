"""Who may send by Forward, read from files when the sidecar starts: keys, passwords, certificates.

Secrets stand in files of their own, never in ``tally.toml``: a file's content without white space at its ends.
"""

from collections.abc import Mapping
from typing import Any

from collector.receive.forward_handshake import Handshake
from collector.secretfile import read_secret
from collector.settings import ForwardSettings

__all__ = ["certificate_name", "handshake_of"]

_MAX_NAME = 256


def handshake_of(settings: ForwardSettings, *, hostname: str) -> Handshake | None:
    """The handshake that the settings ask for; None for none.

    Raises:
        Malformed: a file that holds no secret.
        OSError: a file that cannot be read.
    """
    if not (settings.shared_key_file or settings.client_key_files):
        return None
    return Handshake(
        shared_key=read_secret(settings.shared_key_file) if settings.shared_key_file else None,
        client_keys=_secrets(settings.client_key_files),
        passwords=_secrets(settings.password_files),
        hostname=hostname,
    )


def certificate_name(certificate: Mapping[str, Any] | None) -> str:
    """Whose certificate it is, as `ssl.SSLSocket.getpeercert` tells it: its first URI (SPIFFE), else common name, else DNS name.

    In ASCII, at most 256 characters; empty when there is none.
    """
    if not certificate:
        return ""
    others = certificate.get("subjectAltName", ())
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    found = [
        *(value for kind, value in others if kind == "URI"),
        *(value for kind, value in subject if kind == "commonName"),
        *(value for kind, value in others if kind == "DNS"),
        "",
    ]
    return str(found[0]).encode("ascii", "backslashreplace").decode()[:_MAX_NAME]


def _secrets(files: Mapping[str, str]) -> dict[str, bytes]:
    return {name: read_secret(file) for name, file in files.items()}
