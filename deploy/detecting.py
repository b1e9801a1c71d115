"""Runs the detector as a process: the logs in, findings on record, alerts out."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial

from alerting.detect.cursor import Cursor
from alerting.detect.engine import Engine
from alerting.detect.follow import Follower
from alerting.detect.freeze import Freezer
from alerting.detect.logged import FollowedLog, LoggedPayments
from alerting.detect.metrics import DetectorMetrics
from alerting.detect.payment import Payment, PaymentReader
from alerting.detect.settings import DetectorSettings
from alerting.detect.tell import Alertmanagers
from audit_api.logs import Logs, ServedLog
from collector.errors import Malformed, NotFound, Overloaded
from collector.paths import compile_path
from collector.recorder import Recorder
from correlator.trail import key_trail, trace_trail, transaction_trail
from deploy.api import open_logs
from deploy.config import Config, ConfigError
from deploy.health import health_server
from deploy.places import Places
from deploy.process import in_thread
from deploy.recording import open_recorder

__all__ = ["DETECTOR", "Pulse", "engine_of", "followed", "readers_of", "serve_detector", "trail_of"]

DETECTOR = "detector"
"""Its name as a collector of its own findings, and of its spool."""

_LOOK_SECONDS = 0.1
_HEARTBEAT_SECONDS = 60
_ALIVE_SECONDS = 60.0

_log = logging.getLogger("tally.detector")


def readers_of(settings: DetectorSettings) -> list[PaymentReader]:
    """What reads the declared payments. Raises `ConfigError` when a path leads nowhere."""
    readers = []
    for one in settings.payments:
        try:
            getters = {name: compile_path(path).get for name, path in one.paths().items()}
        except Malformed as error:
            raise ConfigError(f"detector.payments: {one.name}: {error}") from error
        readers.append(PaymentReader(one, getters))
    return readers


def engine_of(settings: DetectorSettings) -> Engine:
    """The declared rules at work. Raises `ConfigError` when there are none, a list cannot be read, or River is missing."""
    if not settings.rules:
        raise ConfigError("detector.rules: there are none, so there is nothing to detect (docs/detection.md)")
    try:
        return Engine(settings.rules)
    except Malformed as error:
        raise ConfigError(f"detector.rules: {error}") from error


def trail_of(payment: Payment) -> str:
    """The trail in which a person reads of a payment: its transaction's, else its trace's; else a name for nothing."""
    if payment.transaction:
        return transaction_trail(payment.transaction, payment.tenant)
    if payment.trace_id:
        with suppress(ValueError):  # it is none; the log has such an event, too
            return trace_trail(payment.trace_id, payment.tenant)
    return key_trail("leaf", str(payment.leaf), payment.tenant)


def followed(log: ServedLog) -> FollowedLog:
    """A log as the detector follows it."""
    evidence = log.evidence

    def kept(leaves: Sequence[int]) -> list[int]:
        return [one.leaf for one in evidence.kept(evidence.entries(leaves))]

    return FollowedLog(origin=log.key.name, reader=evidence.reader, kept=kept)


async def serve_detector(
    config: Config, places: Places, *, stopped: asyncio.Event, ready: Callable[[Mapping[str, str]], None]
) -> None:
    """Look at every payment in the logs until `stopped` is set; waits first until the correlator has made a ledger.

    Raises:
        ConfigError: ``[detector]`` cannot be used.
        StateUnknown: its spool is another process's, or its cursor does not read or cannot be written.
        VerificationError: a log or an event was changed.
        OSError: the address of the probes cannot be bound.
    """
    settings = config.detector
    engine, readers = engine_of(settings), readers_of(settings)
    metrics = DetectorMetrics(settings.rules)
    try:
        alertmanagers = Alertmanagers(
            settings.alertmanager, trail_of=trail_of, metrics=metrics, clock=time.time_ns, monotonic=time.monotonic
        )
    except Malformed as error:
        raise ConfigError(str(error)) from error
    with ExitStack() as open_files:
        logs: Logs | None = None
        while (logs := open_logs(config, places, open_files)) is None:
            if await _stopped(stopped, _LOOK_SECONDS):
                return
        recorder = open_files.enter_context(
            open_recorder(config, places, spool=DETECTOR, heartbeat_seconds=_HEARTBEAT_SECONDS, collector=DETECTOR)
        )
        freezer = _freezer(settings, recorder, metrics)
        cursor, pulse = Cursor(places.detector), Pulse()
        follower = Follower(
            [followed(log) for log in logs.all],
            payments=LoggedPayments(logs.store, readers, metrics, beat=pulse.beat),
            engine=engine,
            findings=recorder,
            cursor=cursor,
            metrics=metrics,
            tells=bool(settings.alertmanager.urls),
            freezes=freezer is not None,
            clock=time.time_ns,
            beat=pulse.beat,
        )
        work = _Work(
            follower, alertmanagers, freezer, metrics, cursor=cursor, pulse=pulse, poll_seconds=settings.poll_seconds
        )
        address = open_files.enter_context(
            health_server(metrics.registry, port=settings.metrics_port, alive=work.alive, ready=work.ready)
        )
        ready({"http": f"http://{address}"})
        await in_thread(work.run, stopped)


def _freezer(settings: DetectorSettings, recorder: Recorder, metrics: DetectorMetrics) -> Freezer | None:
    if not settings.freeze.url:
        return None
    try:
        return Freezer(
            settings.freeze,
            findings=recorder,
            trail_of=trail_of,
            metrics=metrics,
            clock=time.time_ns,
            monotonic=time.monotonic,
        )
    except Malformed as error:
        raise ConfigError(str(error)) from error


class Pulse:
    """When the detector's thread did something last."""

    def __init__(self) -> None:
        self.beat()

    def beat(self) -> None:
        """It does something."""
        self._at = time.monotonic()

    @property
    def felt(self) -> bool:
        """Whether that is not long ago."""
        return time.monotonic() - self._at < _ALIVE_SECONDS


class _Work:
    """What the detector's thread does, and what probes hear of it."""

    def __init__(
        self,
        follower: Follower,
        alertmanagers: Alertmanagers,
        freezer: Freezer | None,
        metrics: DetectorMetrics,
        *,
        cursor: Cursor,
        pulse: Pulse,
        poll_seconds: float,
    ) -> None:
        self._follower = follower
        self._alertmanagers = alertmanagers
        self._freezer = freezer
        self._metrics = metrics
        self._cursor = cursor
        self._poll_seconds = poll_seconds
        self._pulse = pulse
        self._well = False
        self._retry_seconds = 0.0  # what did not answer in this round asks for so much

    def alive(self) -> bool:
        """Whether it goes on, be it in vain."""
        return self._pulse.felt

    def ready(self) -> bool:
        """Whether the last step did what it had to."""
        return self._well and self.alive()

    def _tried(self, work: Callable[[], int]) -> int:
        """What `work` gives; 0 when it has to be tried again, `_retry_seconds` later."""
        try:
            return work()
        except NotFound:  # nothing is published yet
            return 0
        except Overloaded as error:
            self._metrics.failures.inc()
            _log.warning("looked in vain, tried again later", extra={"reason": str(error)})
            self._retry_seconds = max(self._retry_seconds, min(max(error.retry_after_seconds, 0.001), 5.0))
            return 0

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set; raises what ends the process."""
        while not stop.is_set():
            self._retry_seconds = 0.0
            seen = self._tried(self._follower.step)
            # first, and also while the log or the store is away: it is what must not wait
            if self._freezer is not None:
                self._tried(partial(self._freezer.ask, self._follower.to_freeze))
            self._well = not self._retry_seconds
            stop.wait(self._retry_seconds)
            self._alertmanagers.tell(self._follower.waiting)
            self._cursor.write(self._follower.positions())
            self._pulse.beat()
            if not seen:
                stop.wait(self._poll_seconds)


async def _stopped(stopped: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stopped.wait(), seconds)
    except TimeoutError:
        return False
    return True
