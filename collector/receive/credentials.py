"""Who may send over HTTP: the credentials of a file, compared in constant time.

A line of the file is what stands in the header ``Authorization`` (RFC 9110 section 11.6.2), its secret as a person writes it:

    Basic shipper:a password       RFC 7617
    ApiKey an-id:a-key             as Elasticsearch has it; clients send its base64
    Bearer a-token                 RFC 6750

Empty lines and lines that begin with ``#`` are skipped.
"""

import base64
import hashlib
import hmac
from pathlib import Path

from collector.errors import Malformed

__all__ = ["Credentials"]

_SCHEMES = ("basic", "apikey", "bearer")
_MAX_HEADER_CHARACTERS = 4_096


class Credentials:
    """The credentials of a file's text.

    Args:
        text: its lines.

    Raises:
        Malformed: a line that is none, by its number; or no line at all, which would let nobody in.
    """

    def __init__(self, text: str) -> None:
        self._digests: list[bytes] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            scheme, _, secret = line.strip().partition(" ")
            scheme, secret = scheme.lower(), secret.strip()
            if scheme not in _SCHEMES or not secret or (scheme != "bearer" and ":" not in secret):
                raise Malformed(
                    "a line is `Basic user:password`, `ApiKey id:key` or `Bearer token`", where=f"line {number}"
                )
            sent = secret if scheme == "bearer" else base64.b64encode(secret.encode()).decode()
            self._digests.append(_digest(scheme, sent))
        if not self._digests:
            raise Malformed("no credentials in the file")

    @classmethod
    def read(cls, path: Path) -> "Credentials":
        """Those of a file. Raises OSError and Malformed."""
        return cls(path.read_text(encoding="utf-8"))

    def allow(self, header: str) -> bool:
        """Whether a header ``Authorization`` (empty when there was none) names one of them.

        As long for a header that is nearly right as for one that is not at all: digests are compared, and always all of them.
        """
        scheme, _, sent = header[:_MAX_HEADER_CHARACTERS].strip().partition(" ")
        digest = _digest(scheme.lower(), sent.strip())
        known = False
        for one in self._digests:
            known |= hmac.compare_digest(one, digest)
        return known and len(header) <= _MAX_HEADER_CHARACTERS


def _digest(scheme: str, sent: str) -> bytes:
    return hashlib.sha256(f"{scheme}\0{sent}".encode("utf-8", "surrogatepass")).digest()
