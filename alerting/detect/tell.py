"""Tells Alertmanagers of findings, by the API that Prometheus itself uses (``POST /api/v2/alerts``).

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml. Every Alertmanager of a cluster is told, as Prometheus does;
it is enough that one takes it. Telling is at least once: the same finding has the same labels, which Alertmanager knows again.
"""

import logging
from collections import deque
from collections.abc import Callable
from urllib.parse import quote

import msgspec

from alerting.detect.metrics import DetectorMetrics
from alerting.detect.payment import Payment
from alerting.detect.post import TURN_SECONDS, Pause, Poster, check_url, read_secret
from alerting.detect.settings import AlertmanagerSettings
from alerting.detect.waiting import Told
from collector.event import format_time

__all__ = ["ALERT_NAME", "Alertmanagers", "alert_of"]

_log = logging.getLogger("tally.detector")

ALERT_NAME = "TallySuspiciousTransaction"

_AT_ONCE = 64
_REFUSALS = frozenset({400, 413, 422})
"""What was sent is at fault: sent again it would be refused again."""


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
        self._pause = Pause(monotonic)
        self._alone = 0  # so many of what waits are sent one by one: together they were refused
        where = "detector.alertmanager"
        for url in settings.urls:
            check_url(url, secret=bool(settings.token_file), where=f"{where}.urls")
        self._headers: dict[str, str] = {}
        if settings.token_file:
            token = read_secret(settings.token_file, where=f"{where}.token_file")
            self._headers["authorization"] = f"Bearer {token}"
        self._post_to = Poster(ca_file=settings.ca_file, where=f"{where}.ca_file").post

    def tell(self, waiting: deque[Told]) -> int:
        """Tell of what waits, oldest first, for a turn, and take it from there; gives how many. Nothing is taken while nobody can be told."""
        told = 0
        ends = self._monotonic() + TURN_SECONDS
        while waiting and self._pause.over and self._monotonic() < ends:
            some = [waiting[at] for at in range(min(len(waiting), 1 if self._alone else _AT_ONCE))]
            now_ns = self._clock()
            alerts = [
                alert_of(one, trail=self._trail_of(one.finding.payment), settings=self._settings, now_ns=now_ns)
                for one in some
            ]
            outcome = self._post(msgspec.json.encode(alerts))
            if outcome is None:
                self._pause.longer()
                self._metrics.telling_failures.inc()
                break
            self._pause.forget()
            if outcome == "refused" and len(some) > 1:  # one of them may be at fault, which the others must not pay for
                self._alone = len(some)
                continue
            self._alone = max(0, self._alone - 1)
            if outcome == "refused":
                _refused(some[0], trail=self._trail_of(some[0].finding.payment))
            self._metrics.told.labels(outcome).inc(len(some))
            for _ in some:
                waiting.popleft()
            told += len(some)
        self._metrics.waiting.set(len(waiting))
        return told

    def _post(self, body: bytes) -> str | None:
        """``taken`` by one at least, ``refused`` by all that answered, or None: nobody answered."""
        answers = [
            self._post_to(f"{url.rstrip('/')}/api/v2/alerts", body, self._headers) for url in self._settings.urls
        ]
        if any(status is not None and status < 300 for status in answers):
            return "taken"
        return "refused" if answers and all(status in _REFUSALS for status in answers) else None


def _refused(told: Told, *, trail: str) -> None:
    finding = told.finding
    where = {"rule": finding.rule, "trail": trail, "log": told.origin, "leaf": finding.payment.leaf}
    _log.error("a finding was refused for good, and is told to nobody; it is on record", extra=where)
