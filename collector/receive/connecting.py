"""TLS towards a server that the sidecar connects to: its certificate is checked, ours is shown where the settings name one."""

import ssl

from collector.secretfile import check_files

__all__ = ["client_tls"]


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
