"""What Alertmanager tells by its webhook: alerts that say a control failed, and the watchdog, whose silence says that alerts get nowhere.

The form: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, version 4.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from alerting.incidents.condition import Condition
from collector.errors import Malformed
from collector.event import parse_time

__all__ = ["ALERTS", "WATCHDOG", "Inbox", "Watchdog", "conditions_of"]

WATCHDOG = "TallyWatchdog"

ALERTS: Mapping[str, tuple[str, str]] = {
    "TallyVerificationFailed": ("verification_failed", "instance"),
    "TallyClockOffset": ("clock_off", "instance"),
    "TallyDeadLetters": ("dead_letters", "instance"),
}
"""Alerts that stand for a failed control, to the cause and the label that says whom it concerns.

Gaps, lost collectors and the store are not among them: the log and the store say so themselves, and nothing is an incident twice.
"""


class _Alert(msgspec.Struct, frozen=True, rename="camel"):
    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    starts_at: str = ""
    ends_at: str = ""

    def time_ns(self, now_ns: int) -> int:
        """Since when it is so; `now_ns` where that cannot be told."""
        try:
            return min(parse_time(self.starts_at if self.status == "firing" else self.ends_at), now_ns)
        except Malformed:
            return now_ns


class _Message(msgspec.Struct, frozen=True):
    version: Literal["4"]
    alerts: list[_Alert]


_decode = msgspec.json.Decoder(_Message).decode


def _subject_of(alert: _Alert) -> tuple[str, str]:
    name = alert.labels.get("alertname", "")
    return name, alert.labels.get(ALERTS[name][1], "") if name in ALERTS else ""


def conditions_of(body: bytes, *, now_ns: int) -> tuple[list[Condition], bool]:
    """What a message says of controls, and whether the watchdog was in it.

    Raises:
        Malformed: it is no such message.
    """
    try:
        message: Any = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not a message of Alertmanager's webhook: {error}") from error
    found, watchdog = [], False
    # one incident may have several alerts, such as one for each reason: it is over when none of them fires
    firing = {_subject_of(alert) for alert in message.alerts if alert.status == "firing"}
    for alert in message.alerts:
        name = alert.labels.get("alertname", "")
        watchdog = watchdog or (name == WATCHDOG and alert.status == "firing")
        if name not in ALERTS:
            continue
        if alert.status != "firing" and _subject_of(alert) in firing:
            continue
        cause, label = ALERTS[name]
        said = alert.annotations.get("summary", "") or name
        found.append(
            Condition(
                cause=cause,
                subject=alert.labels.get(label, "")[:200],
                fails=alert.status == "firing",
                time_ns=alert.time_ns(now_ns),
                detail=f"{name} {alert.status}: {said}",
            )
        )
    return found, watchdog


class Inbox:
    """Messages that are not on record yet: whoever posts one waits for that, and sends it again when it is not. Any thread may post, one takes."""

    def __init__(self) -> None:
        self._waiting: dict[threading.Event, bytes] = {}

    def post(self, body: bytes, *, seconds: float) -> bool:
        """Wait until it is on record, for so long at most; whether it is. What is not is let go of."""
        done = threading.Event()
        self._waiting[done] = body
        if not done.wait(seconds):
            self._waiting.pop(done, None)  # it comes again, and nobody knows how long nothing can be put on record
        return done.is_set()

    def take(self, record: Callable[[bytes], None]) -> None:
        """Hand to `record` what waits, oldest first. What it raises leaves that message and the rest waiting."""
        for done, body in self._waiting.copy().items():
            record(body)
            done.set()
            self._waiting.pop(done, None)


class Watchdog:
    """Whether the watchdog's alert still comes, which comes every minute as long as Prometheus and Alertmanager reach us."""

    def __init__(self) -> None:
        self._heard_ns: int | None = None

    def heard(self, now_ns: int) -> None:
        """It came."""
        self._heard_ns = now_ns

    def look(self, now_ns: int, *, seconds: float) -> list[Condition]:
        """What its coming or not says: it fails when it did not come for `seconds`. Nothing before it came once: it may go elsewhere."""
        if self._heard_ns is None:
            return []
        late = now_ns - self._heard_ns > int(seconds * 1e9)
        detail = f"{WATCHDOG} did not come for {seconds:g} s" if late else f"{WATCHDOG} comes"
        return [
            Condition(cause="alert_path_broken", subject="watchdog", fails=late, time_ns=self._heard_ns, detail=detail)
        ]
