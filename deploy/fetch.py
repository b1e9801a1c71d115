"""Fetches one document over HTTP for `tally verify` and `tally status`."""

import http.client
import json
import os
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from alerting.detect.exchange import NoRedirects
from collector.errors import Overloaded
from collector.receive.listening import is_this_machine

__all__ = ["MAX_BYTES", "fetch"]

MAX_BYTES = 256 * 1024**2
_MAX_PROBLEM_BYTES = 8_192
_TIMEOUT_SECONDS = 60.0
_HINT = " (TALLY_TOKEN: a token with the role auditor; it goes to this machine, or over https to the host of TALLY_API, alone)"
_ELSEWHERE = " (it leads elsewhere, which is not followed: give the address of what is to be verified, such as …/v1/exports/TRAIL)"


def fetch(url: str, *, api: str) -> bytes:
    """The document at an http(s) URL.

    The bearer token in ``TALLY_TOKEN``, where that is set, goes along to this machine, and to the host of `api` over https: a document may
    lie anywhere, and whoever put it there is not to have the token.

    Args:
        url: where it lies.
        api: URL of the audit API that the token is for; empty: not known.

    Raises:
        Overloaded: it could not be had; the message says why.
    """
    headers = {"user-agent": "tally"}
    token = os.environ.get("TALLY_TOKEN")
    asked = urlsplit(url)
    here = is_this_machine(asked.hostname or "")
    if token and (here or (asked.scheme == "https" and asked.netloc == urlsplit(api).netloc)):
        headers["authorization"] = f"Bearer {token}"
    # what may go in clear to this machine alone must not go by a proxy
    direct = [urllib.request.ProxyHandler({})] if here else []
    opener = urllib.request.build_opener(NoRedirects, *direct)
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the caller lets http and https through alone)
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            data: bytes = answer.read(MAX_BYTES + 1)
            if answer.length and len(data) <= MAX_BYTES:  # a part of a document must not be taken for a false one
                raise http.client.IncompleteRead(data, answer.length)
    except urllib.error.HTTPError as error:
        with error:
            hint = _HINT if error.code in (401, 403) else _ELSEWHERE if 300 <= error.code < 400 else ""
            raise Overloaded(f"{url}: {error.code} {error.reason}{_detail(error)}{hint}") from error
    except (urllib.error.URLError, OSError) as error:
        raise Overloaded(f"{url}: {getattr(error, 'reason', error)}") from error
    except http.client.HTTPException as error:  # its text may be all that was answered
        raise Overloaded(f"{url}: does not speak HTTP, or broke off ({type(error).__name__})") from error
    if len(data) > MAX_BYTES:
        raise Overloaded(f"{url}: longer than {MAX_BYTES:,} bytes")
    return data


def _detail(error: urllib.error.HTTPError) -> str:
    """What an API of ours says of its refusal (RFC 9457): with a colon before it, empty where it says nothing."""
    try:
        told = json.loads(error.read(_MAX_PROBLEM_BYTES))["detail"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return f": {' '.join(told.split())}" if isinstance(told, str) and told else ""  # on one line, whoever answers
