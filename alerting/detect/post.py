"""How the detector posts to others over HTTP: patiently, briefly, and never with a secret to the wrong one."""

import http.client
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from alerting.detect.exchange import NoRedirects, exchanges
from collector.errors import Malformed

__all__ = ["TURN_SECONDS", "Pause", "Poster", "check_url", "read_secret"]

_log = logging.getLogger("tally.detector")

TURN_SECONDS = 2.0
"""Nothing more is begun in a turn that has lasted for so long, however much waits: detecting, the cursor and a request to stop wait for it."""
_TIMEOUT_SECONDS = 2.0
"""Posting and detecting take turns: a receiver that hangs may cost no more than this each time it is tried."""
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_MAX_SECRET_BYTES = 16_384


class Pause:
    """After each failure in a row a pause twice as long, from one second to half a minute.

    Args:
        monotonic: seconds that only go forward.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seconds = 0.0
        self._not_before = 0.0

    @property
    def over(self) -> bool:
        """Whether it is time to try."""
        return self._monotonic() >= self._not_before

    def longer(self) -> None:
        """It failed again."""
        self._seconds = min(max(_FIRST_PAUSE_SECONDS, 2 * self._seconds), _LONGEST_PAUSE_SECONDS)
        self._not_before = self._monotonic() + self._seconds

    def forget(self) -> None:
        """It went well."""
        self._seconds = 0.0


class Poster:
    """Posts JSON.

    Args:
        ca_file: PEM file with the authorities that are believed; empty: the system's.
        where: what `Malformed` is raised for when it cannot be read.
        seconds: an answer has so long to come.
    """

    def __init__(self, *, ca_file: str, where: str, seconds: float = _TIMEOUT_SECONDS) -> None:
        self._seconds = seconds
        try:
            self._tls = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise Malformed(f"{ca_file}: {error}", where=where) from error

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        """The status of the answer; None when there was none in time, or it is not HTTP. What is not 2xx is logged, without the query."""
        sent = {"content-type": "application/json", "user-agent": "tally", **headers}
        request = urllib.request.Request(url, body, sent)  # noqa: S310 - http or https, see `check_url`
        opener = urllib.request.build_opener(NoRedirects, *exchanges(self._tls))
        shown = url.partition("?")[0]
        try:
            with opener.open(request, timeout=self._seconds) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                _log.warning("a receiver said no", extra={"url": shown, "status": error.code})
                return error.code
        except http.client.HTTPException as error:  # its text may be all that was answered
            _log.warning("a receiver does not speak HTTP", extra={"url": shown, "reason": type(error).__name__})
            return None
        except (OSError, ValueError) as error:
            _log.warning(
                "a receiver cannot be reached", extra={"url": shown, "reason": str(getattr(error, "reason", error))}
            )
            return None


def check_url(url: str, *, secret: bool, where: str) -> None:
    """Refuse what is no URL, holds a credential, or would carry a secret unencrypted beyond this machine. Raises `Malformed`."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise Malformed("no URL of the form http(s)://host:port, or one that holds a credential", where=where)
    if secret and parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise Malformed(f"what is secret would go to {parts.hostname} unencrypted: use https", where=where)


def read_secret(file: str, *, where: str) -> str:
    """The one word that a file holds. Raises `Malformed` when it cannot be read, or holds none or several."""
    try:
        with Path(file).open(encoding="ascii") as stream:
            secret = stream.read(_MAX_SECRET_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"{file}: {getattr(error, 'strerror', None) or error}", where=where) from error
    if not secret or any(character.isspace() for character in secret):
        raise Malformed(f"{file}: holds not one word", where=where)
    return secret
