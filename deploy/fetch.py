"""Fetches one document over HTTP for `tally verify`."""

import http.client
import os
import urllib.error
import urllib.request

from collector.errors import Overloaded

__all__ = ["MAX_BYTES", "fetch"]

MAX_BYTES = 256 * 1024**2
_TIMEOUT_SECONDS = 60.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token must not follow a redirect to somebody else."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def fetch(url: str) -> bytes:
    """The document at an http(s) URL; the bearer token in ``TALLY_TOKEN`` goes along where it is set.

    Raises:
        Overloaded: it could not be had; the message says why.
    """
    headers = {"user-agent": "tally"}
    if token := os.environ.get("TALLY_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    opener = urllib.request.build_opener(_NoRedirects)
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the caller lets http and https through alone)
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            data: bytes = answer.read(MAX_BYTES + 1)
            if answer.length and len(data) <= MAX_BYTES:  # a part of a document must not be taken for a false one
                raise http.client.IncompleteRead(data, answer.length)
    except urllib.error.HTTPError as error:
        with error:
            hint = " (set TALLY_TOKEN to a token with the role auditor)" if error.code in (401, 403) else ""
            raise Overloaded(f"{url}: {error.code} {error.reason}{hint}") from error
    except (urllib.error.URLError, OSError) as error:
        raise Overloaded(f"{url}: {getattr(error, 'reason', error)}") from error
    except http.client.HTTPException as error:  # its text may be all that was answered
        raise Overloaded(f"{url}: does not speak HTTP, or broke off ({type(error).__name__})") from error
    if len(data) > MAX_BYTES:
        raise Overloaded(f"{url}: longer than {MAX_BYTES:,} bytes")
    return data
