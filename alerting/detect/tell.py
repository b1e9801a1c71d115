"""Tells Alertmanagers of findings, by the API that Prometheus itself uses (``POST /api/v2/alerts``).

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml. Every Alertmanager of a cluster is told, as Prometheus does;
it is enough that one takes it. Telling is at least once: the same finding has the same labels, which Alertmanager knows again.
"""

import logging
from collections import deque
from collections.abc import Callable
from itertools import islice, takewhile
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
        # by the id of the finding: together they were refused, so each is sent by itself; and when, where it was refused by some again
        self._alone: dict[bytes, Pause] = {}
        where = "detector.alertmanager"
        for url in settings.urls:
            check_url(url, secret=bool(settings.token_file), where=f"{where}.urls")
        self._headers: dict[str, str] = {}
        if settings.token_file:
            token = read_secret(settings.token_file, where=f"{where}.token_file")
            self._headers["authorization"] = f"Bearer {token}"
        self._post_to = Poster(ca_file=settings.ca_file, where=f"{where}.ca_file").post

    def tell(self, waiting: deque[Told]) -> int:
        """Tell of what waits, oldest first, for a turn, and take it from there; gives how many. Nothing is taken while nobody can be told.

        What one Alertmanager refuses while another is away goes behind what waits: who is away may yet take it, and the others do not wait for that.
        """
        told = 0
        passed = 0  # in a row: each of them waits for its time
        ends = self._monotonic() + TURN_SECONDS
        while passed < len(waiting) and self._pause.over and self._monotonic() < ends:
            if not self._due(waiting[0]):
                waiting.rotate(-1)
                passed += 1
                continue
            passed = 0
            some = self._together(waiting)
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
            if outcome != "taken" and len(some) > 1:  # one of them may be at fault, which the others must not pay for
                self._alone |= {_id(one): Pause(self._monotonic) for one in some}
                continue
            if outcome == "unsure":
                self._pause.longer()  # the others wait a second for it, and it alone longer each time
                self._alone.setdefault(_id(some[0]), Pause(self._monotonic)).longer()
                self._metrics.telling_failures.inc()
                waiting.rotate(-1)
                break
            if outcome == "refused":
                _refused(some[0], trail=self._trail_of(some[0].finding.payment))
            self._metrics.told.labels(outcome).inc(len(some))
            for one in some:
                waiting.popleft()
                self._alone.pop(_id(one), None)
            told += len(some)
        self._metrics.waiting.set(len(waiting))
        return told

    def _due(self, one: Told) -> bool:
        pause = self._alone.get(_id(one))
        return pause is None or pause.over

    def _together(self, waiting: deque[Told]) -> list[Told]:
        """Of what waits the first, with those behind it that may go with it."""
        if _id(waiting[0]) in self._alone:
            return [waiting[0]]
        return list(takewhile(lambda one: _id(one) not in self._alone, islice(waiting, _AT_ONCE)))

    def _post(self, body: bytes) -> str | None:
        """``taken`` by one at least, ``refused`` by all, ``unsure`` where some refused and the others are away, or None: nobody said either."""
        answers = [
            self._post_to(f"{url.rstrip('/')}/api/v2/alerts", body, self._headers) for url in self._settings.urls
        ]
        if any(status is not None and status < 300 for status in answers):
            return "taken"
        refusals = sum(status in _REFUSALS for status in answers)
        if not refusals:
            return None
        return "refused" if refusals == len(answers) else "unsure"


def _id(told: Told) -> bytes:
    return told.finding.id_in(told.origin)


def _refused(told: Told, *, trail: str) -> None:
    finding = told.finding
    where = {"rule": finding.rule, "trail": trail, "log": told.origin, "leaf": finding.payment.leaf}
    _log.error("a finding was refused for good, and is told to nobody; it is on record", extra=where)
