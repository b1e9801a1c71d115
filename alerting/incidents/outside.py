"""A dead man's switch outside: it is told that we live, and raises the alarm when it is not told. A system cannot report its own death.

Any service that counts on a request every so often will do (healthchecks.io and what is like it). Its URL is a secret: who knows it can
keep the switch quiet.
"""

import http.client
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable

from alerting.detect.exchange import NoRedirects, exchanges
from alerting.detect.post import check_url, read_secret
from alerting.incidents.condition import Condition
from alerting.incidents.metrics import IncidentMetrics

__all__ = ["Outside"]

_log = logging.getLogger("tally.incidents")

_TIMEOUT_SECONDS = 5.0
"""Whoever answers byte by byte must not keep us from seeing that a control fails."""
_WHERE = "incidents.heartbeat_url_file"


class Outside:
    """Tells the switch. For one thread.

    Args:
        url_file: file that holds the URL.
        seconds: how often.
        metrics: where to count.
        monotonic: seconds that only go forward.

    Raises:
        Malformed: the file cannot be read, or holds no URL, or one that would be told in clear beyond this machine. The URL is not repeated.
    """

    def __init__(
        self, url_file: str, *, seconds: float, metrics: IncidentMetrics, monotonic: Callable[[], float]
    ) -> None:
        self._url = read_secret(url_file, where=_WHERE)
        check_url(self._url, secret=True, where=_WHERE)
        self._seconds = seconds
        self._metrics = metrics
        self._monotonic = monotonic
        self._next = monotonic()

    def tell(self, now_ns: int) -> Condition | None:
        """Tell it, if it is time: gives whether it heard, None when it was not time."""
        now = self._monotonic()
        if now < self._next:
            return None
        self._next = now + self._seconds
        reason = self._ask()
        self._metrics.heartbeats.labels("failed" if reason else "taken").inc()
        if reason:
            _log.warning("the dead man's switch outside was not told", extra={"reason": reason})
        return Condition(
            cause="alert_path_broken",
            subject="heartbeat",
            fails=bool(reason),
            time_ns=now_ns,
            detail=f"the dead man's switch outside was not told: {reason}" if reason else "it was told",
        )

    def _ask(self) -> str:
        """Why it was not told, without the URL; empty when it was."""
        request = urllib.request.Request(self._url, b"", {"user-agent": "tally"})  # noqa: S310 - http(s), see above
        try:
            opener = urllib.request.build_opener(NoRedirects, *exchanges(ssl.create_default_context()))
            with opener.open(request, timeout=_TIMEOUT_SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return f"the answer was {error.code}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            return type(getattr(error, "reason", error)).__name__  # its text may repeat the host
