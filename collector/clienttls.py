"""TLS towards a server, from PEM files that an operator names: what cannot be used says which file it is.

`ssl` tells of a missing file without its name, and of one that holds something else only what its parser stumbled over.
"""

import errno
import ssl

from collector.secretfile import check_files

__all__ = ["client_tls"]


def client_tls(ca_file: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """TLS 1.2 or newer that checks the server's certificate and name.

    Args:
        ca_file: the authorities that are believed; empty: the system's.
        certificate: of our own, for servers that want one; empty: none.
        key: the certificate's; empty: it stands in the certificate's file.

    Raises:
        OSError: a file that cannot be read, or is not what it should be; the message names it.
    """
    check_files(ca_file, certificate, key)
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError as error:
        raise _unusable("no certificates in PEM", error, ca_file) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None)
        except ssl.SSLError as error:
            with_key = f" with its key ({key})" if key else " and its key"
            raise _unusable(f"no certificate in PEM{with_key}", error, certificate) from error
    return context


def _unusable(what: str, error: ssl.SSLError, file: str) -> OSError:
    return OSError(errno.EINVAL, f"{what}: {error.reason or 'cannot be read'}", file)
