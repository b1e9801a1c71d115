"""Asks for a payment to be stopped: a signed webhook, its outcome on record.

Signed as Standard Webhooks has it (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md):
``webhook-id`` is the finding's, so whoever receives it twice knows it again, ``webhook-signature`` is ``v1,`` with the base64 of
HMAC-SHA256 over ``id.timestamp.body``. It is a request, not a freeze: who answers 2xx has taken it on.
"""

import base64
import binascii
import hashlib
import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from alerting.detect.finding_event import freeze_event
from alerting.detect.follow import Findings
from alerting.detect.metrics import DetectorMetrics
from alerting.detect.payment import Payment
from alerting.detect.post import TURN_SECONDS, Pause, Poster, check_url, read_secret
from alerting.detect.settings import FreezeSettings
from alerting.detect.waiting import Told
from collector.errors import Malformed
from collector.event import format_time

__all__ = ["Freezer", "signature_of"]

_PREFIX = "whsec_"
_LEAST_SECRET_BYTES, _MOST_SECRET_BYTES = 24, 64
_LATER = frozenset({408, 425, 429})
"""Client errors that a later try may not meet."""


def signature_of(secret: bytes, *, id_: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``. `timestamp`: Unix seconds."""
    told = hmac.new(secret, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(told).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    since: float  # when we saw first that it waits
    pause: Pause  # of this request alone


class Freezer:
    """Asks one receiver, one finding at a time, oldest first; one that fails goes behind the others. For one thread.

    Args:
        settings: where it is.
        findings: puts outcomes on record.
        trail_of: the id of the trail that a person reads about a payment.
        clock: Unix time in nanoseconds.
        monotonic: seconds that only go forward.

    Raises:
        Malformed: the URL is none, is not encrypted beyond this machine, or the secret cannot be read.
    """

    def __init__(
        self,
        settings: FreezeSettings,
        *,
        findings: Findings,
        trail_of: Callable[[Payment], str],
        metrics: DetectorMetrics,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        check_url(settings.url, secret=True, where="detector.freeze.url")
        self._settings = settings
        self._secret = _secret(settings.secret_file)
        self._post = Poster(ca_file=settings.ca_file, where="detector.freeze.ca_file").post
        self._findings = findings
        self._trail_of = trail_of
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._pause = Pause(monotonic)
        self._asking: dict[bytes, _Asking] = {}  # by the id of the finding, of what waits

    def ask(self, waiting: deque[Told]) -> int:
        """Ask for what waits, for a turn, and take it from there once its outcome is on record; gives how many.

        What is asked for again later goes behind what waits, so it does not stay in the order in which it was found.

        Raises:
            Overloaded: the outcome cannot be recorded now; it is asked again, under the same id.
        """
        asked = 0
        now = self._monotonic()
        ends = now + TURN_SECONDS
        if len(self._asking) < len(waiting):  # whoever waits for others waits, too
            for one in waiting:
                self._asking_for(one, now)
        for _ in range(len(waiting)):
            now = self._monotonic()
            if now >= ends or not self._pause.over:
                break
            one = waiting[0]
            asking = self._asking_for(one, now)
            if not asking.pause.over:
                waiting.rotate(-1)
                continue
            status = self._send(one)
            outcome = _outcome(status)
            if status is not None:
                self._pause.forget()
            if not outcome and now - asking.since < self._settings.give_up_seconds:
                # where somebody answers the others wait a second for it, and it alone longer each time
                self._pause.longer()
                asking.pause.longer()
                self._metrics.freeze_failures.inc()
                waiting.rotate(-1)
                break
            outcome = outcome or "given_up"
            event = freeze_event(
                one.finding, origin=one.origin, now_ns=self._clock(), status=status, accepted=outcome == "accepted"
            )
            self._findings.record_once(event, hashlib.sha256(b"freeze" + one.finding.id_in(one.origin)).digest())
            self._metrics.freezes.labels(outcome).inc()
            waiting.popleft()
            self._asking.pop(one.finding.id_in(one.origin))
            asked += 1
        self._metrics.freezes_waiting.set(len(waiting))
        return asked

    def _asking_for(self, one: Told, now: float) -> _Asking:
        return self._asking.setdefault(one.finding.id_in(one.origin), _Asking(since=now, pause=Pause(self._monotonic)))

    def _send(self, one: Told) -> int | None:
        finding, payment = one.finding, one.finding.payment
        now_ns = self._clock()
        id_ = finding.id_in(one.origin).hex()
        body = msgspec.json.encode(
            {
                "type": "payment.freeze",
                "timestamp": format_time(now_ns),
                "data": {
                    "finding": id_,
                    "rule": finding.rule,
                    "rule_version": finding.version,
                    "severity": finding.severity,
                    "reason": finding.reason,
                    "payment": payment.kind,
                    "transaction": payment.transaction,
                    "tenant": payment.tenant,
                    "trail": self._trail_of(payment),
                    "log": one.origin,
                    "leaf": payment.leaf,
                },
            }
        )
        timestamp = now_ns // 1_000_000_000
        headers = {
            "webhook-id": id_,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature_of(self._secret, id_=id_, timestamp=timestamp, body=body),
            "idempotency-key": id_,
        }
        return self._post(self._settings.url, body, headers)


def _outcome(status: int | None) -> str:
    """``accepted``, ``refused`` for good, or empty: not now, as of one who points elsewhere, where a signed request does not follow."""
    if status is not None and 200 <= status < 300:
        return "accepted"
    return "refused" if status is not None and 400 <= status < 500 and status not in _LATER else ""


def _secret(file: str) -> bytes:
    text = read_secret(file, where="detector.freeze.secret_file")
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise Malformed(
            f"{file}: not base64, with or without {_PREFIX}", where="detector.freeze.secret_file"
        ) from error
    if not _LEAST_SECRET_BYTES <= len(secret) <= _MOST_SECRET_BYTES:
        raise Malformed(
            f"{file}: a secret has {_LEAST_SECRET_BYTES} to {_MOST_SECRET_BYTES} bytes, this one {len(secret)}",
            where="detector.freeze.secret_file",
        )
    return secret
