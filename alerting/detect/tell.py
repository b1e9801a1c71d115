"""Tells Alertmanagers of findings, by the API that Prometheus itself uses (``POST /api/v2/alerts``).

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml. Every Alertmanager of a cluster is told, as Prometheus does;
it is enough that one takes it. Telling is at least once: the same finding has the same labels, which Alertmanager knows again.
"""

import logging
import ssl
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from alerting.detect.follow import Told
from alerting.detect.metrics import DetectorMetrics
from alerting.detect.payment import Payment
from alerting.detect.settings import AlertmanagerSettings
from collector.errors import Malformed
from collector.event import format_time

__all__ = ["ALERT_NAME", "Alertmanagers", "alert_of"]

ALERT_NAME = "TallySuspiciousTransaction"

_log = logging.getLogger("tally.detector")

_AT_ONCE = 64
_TIMEOUT_SECONDS = 2.0
"""Telling and detecting take turns: an Alertmanager that hangs may cost no more than this each time it is tried."""
_LONGEST_PAUSE_SECONDS = 30.0
_MAX_TOKEN_BYTES = 16_384


def alert_of(told: Told, *, trail: str, settings: AlertmanagerSettings, now_ns: int) -> dict[str, object]:
    """A finding as a postable alert. Labels tell it from all others, and hold nothing that names an account."""
    finding = told.finding
    payment = finding.payment
    labels = {
        "alertname": ALERT_NAME,
        "rule": finding.rule,
        "severity": finding.severity,
        "payment": payment.kind,
        "finding": finding.id_in(told.origin).hex()[:16],
    }
    if payment.tenant:
        labels["tenant"] = payment.tenant
    annotations = {
        "summary": f"suspicious {payment.kind} payment: {finding.rule}",
        "description": finding.reason,
        "trail": trail,
        "log": f"{told.origin} leaf {payment.leaf}",
        "rule_version": finding.version,
    }
    url = settings.trail_url.replace("{trail}", quote(trail, safe="")) if settings.trail_url else ""
    if url:
        annotations["trail_url"] = url
    return {
        "labels": labels,
        "annotations": annotations,
        "startsAt": format_time(now_ns),
        "endsAt": format_time(now_ns + int(settings.resolve_seconds * 1e9)),
        "generatorURL": url,
    }


class Alertmanagers:
    """The Alertmanagers of one cluster. For one thread.

    Args:
        settings: where they are.
        trail_of: the id of the trail that a person reads about a payment.
        clock: Unix time in nanoseconds.
        monotonic: seconds that only go forward.

    Raises:
        Malformed: a URL is none, would send the token unencrypted beyond this machine, or a file cannot be read.
    """

    def __init__(
        self,
        settings: AlertmanagerSettings,
        *,
        trail_of: Callable[[Payment], str],
        metrics: DetectorMetrics,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._trail_of = trail_of
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._pause_seconds = 0.0
        self._not_before = 0.0
        for url in settings.urls:
            _check(url, with_token=bool(settings.token_file))
        self._token = _read_token(settings.token_file) if settings.token_file else ""
        try:
            self._tls = ssl.create_default_context(cafile=settings.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise Malformed(f"{settings.ca_file}: {error}", where="detector.alertmanager.ca_file") from error

    def tell(self, waiting: deque[Told]) -> int:
        """Tell of what waits, oldest first, and take it from there; gives how many. Nothing is taken while nobody can be told."""
        told = 0
        while waiting and self._monotonic() >= self._not_before:
            some = [waiting[at] for at in range(min(len(waiting), _AT_ONCE))]
            now_ns = self._clock()
            alerts = [
                alert_of(one, trail=self._trail_of(one.finding.payment), settings=self._settings, now_ns=now_ns)
                for one in some
            ]
            outcome = self._post(msgspec.json.encode(alerts))
            if outcome is None:
                self._pause_seconds = min(max(1.0, 2 * self._pause_seconds), _LONGEST_PAUSE_SECONDS)
                self._not_before = self._monotonic() + self._pause_seconds
                self._metrics.telling_failures.inc()
                break
            self._pause_seconds = 0.0
            self._metrics.told.labels(outcome).inc(len(some))
            for _ in some:
                waiting.popleft()
            told += len(some)
        self._metrics.waiting.set(len(waiting))
        return told

    def _post(self, body: bytes) -> str | None:
        """``taken`` by one at least, ``refused`` by all that answered, or None: nobody answered."""
        outcomes = [self._post_to(url, body) for url in self._settings.urls]
        if "taken" in outcomes:
            return "taken"
        return "refused" if "refused" in outcomes and None not in outcomes else None

    def _post_to(self, url: str, body: bytes) -> str | None:
        headers = {"content-type": "application/json", "user-agent": "tally"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(f"{url.rstrip('/')}/api/v2/alerts", body, headers)  # noqa: S310 - http or https, see `_check`
        opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=self._tls))
        try:
            with opener.open(request, timeout=_TIMEOUT_SECONDS):
                return "taken"
        except urllib.error.HTTPError as error:
            with error:
                refused = error.code in {400, 413, 422}
                _log.warning("an Alertmanager did not take alerts", extra={"url": url, "status": error.code})
                return "refused" if refused else None
        except (OSError, ValueError) as error:
            _log.warning(
                "an Alertmanager cannot be told",
                extra={"url": url, "reason": str(getattr(error, "reason", error))},
            )
            return None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token must not follow a redirect to somebody else."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def _check(url: str, *, with_token: bool) -> None:
    parts = urlsplit(url)
    where = "detector.alertmanager.urls"
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise Malformed("an entry is no URL of the form http(s)://host:port", where=where)
    if with_token and parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise Malformed(f"the token would go to {parts.hostname} unencrypted: use https", where=where)


def _read_token(file: str) -> str:
    try:
        with Path(file).open(encoding="ascii") as stream:
            token = stream.read(_MAX_TOKEN_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"{file}: {error}", where="detector.alertmanager.token_file") from error
    if not token or any(character.isspace() for character in token):
        raise Malformed(f"{file}: holds no token", where="detector.alertmanager.token_file")
    return token
