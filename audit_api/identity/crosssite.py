"""Requests that another site makes a browser send: refused before anything else is looked at.

What decides is what browsers say by themselves and no page can forge: ``Sec-Fetch-Site`` (W3C Fetch Metadata), else ``Origin`` (RFC 6454).
It holds for every unsafe method that comes without a bearer token, a log-in included, so that nobody can be logged in as somebody else.
Clients that hold a bearer token are no browsers and are not asked.
"""

import re
from urllib.parse import unquote, urlsplit

from starlette.requests import Request

from audit_api.problems import Problem

__all__ = ["CSRF_FIELD", "CSRF_HEADER", "SAFE_METHODS", "local_path", "refuse_other_sites"]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"
_MAX_PATH = 2_000
_LOG_IN = re.compile(r"/login(?![^/?#])")


def refuse_other_sites(request: Request, *, public_url: str = "") -> None:
    """Nothing, if the request comes from a page of this API's own origin.

    Args:
        request: with an unsafe method.
        public_url: the origin under which browsers see this API; empty: scheme and Host as they arrive.

    Raises:
        Problem: ``cross-site``: another site's, or it cannot be told.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site in ("same-origin", "none"):  # none: the person did it, by the address bar or a bookmark
            return
        raise Problem("cross-site", "the browser says that another site made this request")
    origin = request.headers.get("origin", "")
    if not origin:
        raise Problem("cross-site", "neither Sec-Fetch-Site nor Origin says which site made this request")
    own = public_url or f"{request.url.scheme}://{request.headers.get('host', '')}"
    if _origin(origin) is None or _origin(origin) != _origin(own):
        raise Problem("cross-site", "Origin names another site than this one")


def local_path(text: str) -> str:
    """Where to go after a log-in or log-out: this path of our own, or ``/`` for what may lead elsewhere (CWE-601), or to another log-in."""
    if not text.startswith("/") or text.startswith(("//", "/\\")) or len(text) > _MAX_PATH:
        return "/"
    # browsers drop tabs and line ends, and take a backslash for a slash: none of them has a place in a path of ours
    if "\\" in text or any(not "!" <= char <= "~" for char in text):
        return "/"
    # a log-in that failed is no place to come back to: its answer would be taken for a new one's, and its code and state shown in an address
    return "/" if _LOG_IN.match(unquote(text)) else text


def _origin(url: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname and port else None
