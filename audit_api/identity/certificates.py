"""The certificate that a client showed, for tokens that are bound to one (RFC 8705). uvicorn does not tell applications of it, so this does.

The certificate was checked by TLS, against `tls_client_ca`; what is passed on is its thumbprint, in the state of each request's ASGI scope.
"""

import asyncio
import base64
from hashlib import sha256

from uvicorn.protocols.http.h11_impl import H11Protocol

from audit_api.identity.door import CERTIFICATE

__all__ = ["CertificateProtocol", "thumbprint_of"]


def thumbprint_of(certificate_der: bytes) -> str:
    """What RFC 8705 section 3.1 calls ``x5t#S256``: base64url, without padding, of the SHA-256 of the DER."""
    return base64.urlsafe_b64encode(sha256(certificate_der).digest()).decode("ascii").rstrip("=")


class CertificateProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with the client's certificate in the state of its requests."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        """Look at the certificate once for each connection."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True) if tls is not None else None
        if shown:
            self.app_state = {**self.app_state, CERTIFICATE: thumbprint_of(shown)}
