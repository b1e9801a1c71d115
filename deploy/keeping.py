"""Runs the keeper of incidents as a process: the logs and what runs in, incidents on record, and a sign of life to somebody outside."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from alerting.detect.cursor import write_cursor
from alerting.detect.post import read_secret
from alerting.incidents.condition import Condition, Patience
from alerting.incidents.follow import LogFollower, WatchedLog
from alerting.incidents.keeper import Keeper
from alerting.incidents.metrics import IncidentMetrics
from alerting.incidents.outside import Outside
from alerting.incidents.probes import ALERTMANAGER, AlertmanagerProbe, CheckProbe, PagesProbe, StoreProbe
from alerting.incidents.told import Inbox, Watchdog, conditions_of
from alerting.incidents.watch import LogWatch
from audit_api.logs import Logs
from collector.errors import Malformed, NotFound, Overloaded, StateUnknown, VerificationError
from correlator.incidents import Incidents
from deploy.api import open_logs
from deploy.config import Config, ConfigError
from deploy.health import Posts, health_server
from deploy.lacking import Lacking
from deploy.places import Places
from deploy.process import in_thread
from deploy.processes import running
from deploy.recording import open_recorder

__all__ = ["INCIDENTS", "serve_incidents"]

INCIDENTS = "incidents"
"""Its name as a process, and of its spool. It signs as our recorder, whose word makes an event an incident."""

_LOOK_SECONDS = 0.1
_RETRY_SECONDS = 2.0
_ALIVE_SECONDS = 60.0
_TAKE_SECONDS = 10.0

_log = logging.getLogger("tally.incidents")
_decode_positions = msgspec.json.Decoder(dict[str, int]).decode


async def serve_incidents(
    config: Config, places: Places, *, stopped: asyncio.Event, ready: Callable[[Mapping[str, str]], None]
) -> None:
    """Keep incidents until `stopped` is set; waits first until the correlator has made a ledger.

    Raises:
        ConfigError: ``[incidents]`` cannot be used.
        StateUnknown: its spool is another process's, or its cursor does not read.
        OSError: the address of the probes cannot be bound.
    """
    metrics = IncidentMetrics()
    outside, token = _secrets(config, metrics)
    away_since_ns = 0
    with ExitStack() as open_files:
        logs: Logs | None = None
        while logs is None:
            try:
                logs = open_logs(config, places, open_files)
            except Overloaded as error:
                away_since_ns = away_since_ns or time.time_ns()
                _log.warning("the store or the index does not answer, tried again", extra={"reason": str(error)})
            if logs is None and await _stopped(stopped, _LOOK_SECONDS if not away_since_ns else _RETRY_SECONDS):
                return
        recorder = open_files.enter_context(
            open_recorder(config, places, spool=INCIDENTS, heartbeat_seconds=0, late=True)
        )
        keeper = Keeper(recorder, ledger=config.ledger, incidents=Incidents(), metrics=metrics)
        work = _Work(config, places, logs=logs, keeper=keeper, metrics=metrics, outside=outside, token=token)
        if away_since_ns and time.time_ns() - away_since_ns >= config.incidents.patience_seconds * 1e9:
            work.waiting.append(_was_away(away_since_ns))
        address = open_files.enter_context(
            health_server(
                metrics.registry,
                port=config.incidents.metrics_port,
                alive=work.alive,
                ready=work.ready,
                posts=Posts(path="/alerts", token=token, take=work.take) if token else None,
            )
        )
        work.look_first()  # before anybody waits for us: what is refused from now on is told
        ready({"http": f"http://{address}"})
        await in_thread(work.run, stopped)


def _secrets(config: Config, metrics: IncidentMetrics) -> tuple[Outside | None, str]:
    """Who is told outside, and the token that Alertmanager shows. Raises `ConfigError`."""
    settings = config.incidents
    try:
        outside = (
            Outside(
                settings.heartbeat_url_file,
                seconds=settings.heartbeat_seconds,
                metrics=metrics,
                monotonic=time.monotonic,
            )
            if settings.heartbeat_url_file
            else None
        )
        where = "incidents.webhook_token_file"
        token = read_secret(settings.webhook_token_file, where=where) if settings.webhook_token_file else ""
    except Malformed as error:
        raise ConfigError(str(error)) from error
    return outside, token


def _was_away(since_ns: int) -> Condition:
    detail = "it did not answer when this process was started"
    return Condition(cause="store_outage", fails=True, time_ns=since_ns, detail=detail)


class _Work:
    """What the keeper's thread does, and what probes and Alertmanager hear of it."""

    def __init__(
        self,
        config: Config,
        places: Places,
        *,
        logs: Logs,
        keeper: Keeper,
        metrics: IncidentMetrics,
        outside: Outside | None,
        token: str,
    ) -> None:
        self._settings = settings = config.incidents
        self._keeper = keeper
        self._metrics = metrics
        self._outside = outside
        self._watch = LogWatch(
            expected=_expected(config),
            lost_seconds=settings.lost_seconds,
            review_hours=settings.review_hours,
            patience_seconds=settings.patience_seconds,
            since_ns=time.time_ns(),
        )
        self._cursor = places.incidents
        self._written = _read_positions(places.incidents)
        first = logs.all[0]
        self._follower = LogFollower(
            [WatchedLog(origin=log.key.name, reader=log.evidence.reader, index=log.evidence.index) for log in logs.all],
            keeper=keeper,
            watch=self._watch,
            positions=self._written,
            lacks=Lacking(first.evidence.index, first.evidence.reader),
            metrics=metrics,
        )
        self._patience = Patience(settings.patience_seconds)
        self._probes: list[Callable[[int], Iterator[Condition]]] = [StoreProbe(logs.store).look]
        self._pages: PagesProbe | None = None
        if not token:
            self._pages = PagesProbe(
                lambda: _pages(places),
                clock_seconds=config.alerting.clock_seconds,
                quiet_seconds=settings.quiet_seconds,
            )
            self._probes.append(self._pages.clocks)
        if settings.check_file:
            self._probes.append(CheckProbe(Path(settings.check_file)).look)
        if settings.alertmanagers:
            self._probes.append(AlertmanagerProbe(settings.alertmanagers).look)
        self._watchdog = Watchdog() if token else None
        self.waiting: deque[Condition] = deque()
        """Conditions that the keeper has not had yet."""
        self._inbox = Inbox()
        self._begun = self._well = False
        self._next_probe = 0.0
        self._beat = time.monotonic()

    def alive(self) -> bool:
        """Whether it goes on, be it in vain."""
        return time.monotonic() - self._beat < _ALIVE_SECONDS

    def ready(self) -> bool:
        """Whether the last round did what it had to."""
        return self._well and self.alive()

    def take(self, body: bytes) -> int:
        """What Alertmanager posts, from the server's threads: taken when it is on record, so that else it is sent again."""
        now_ns = time.time_ns()
        try:
            _, watchdog = conditions_of(body, now_ns=now_ns)
        except Malformed as error:
            _log.warning("what was posted cannot be read", extra={"reason": str(error)})
            return 400
        if watchdog and self._watchdog is not None:
            self._watchdog.heard(now_ns)  # it came, whether or not something can be put on record now
        return 200 if self._inbox.post(body, seconds=_TAKE_SECONDS) else 503

    def look_first(self) -> None:
        """See how things are before the first round: what is counted from then on is new."""
        if self._pages is not None:
            for _ in self._pages.refusals(time.time_ns()):
                pass

    def run(self, stop: threading.Event) -> None:
        """Go round until `stop` is set; raises what ends the process."""
        remember_ns = time.time_ns() - int(self._settings.review_hours * 3_600e9)
        while not stop.is_set():
            seen, pause = 0, self._settings.poll_seconds
            try:
                if not self._begun:
                    self._follower.begin(remember_ns=remember_ns)
                    self._begun = True
                seen = self._follower.step()
                self._keeper.observe(_reads(time.time_ns()))
                self._ask()
                self._well = True
            except NotFound:  # nothing is published yet
                self._well = True
            except VerificationError as error:
                self._well, pause = False, _RETRY_SECONDS
                self._damaged(error)
                self._ask_in_trouble()
            except Overloaded as error:
                self._well, pause = False, min(error.retry_after_seconds, _RETRY_SECONDS)
                self._failed(error)
                self._ask_in_trouble()
            if self._outside is not None and self._well:
                heard = self._outside.tell(time.time_ns())
                if heard is not None and (lasting := self._patience.look(heard)) is not None:
                    self.waiting.append(lasting)
            self._write()
            self._beat = time.monotonic()
            if not seen:
                stop.wait(pause)

    def _ask(self) -> None:
        """Observe what was told, what is overdue, and, when it is time, what the probes see. Raises as the keeper."""
        while self.waiting:
            self._keeper.observe(self.waiting[0])
            self.waiting.popleft()
        now_ns = time.time_ns()
        self._inbox.take(self._record_told)
        for one in self._watch.due(now_ns) if self._follower.caught_up else ():
            self._keeper.observe(one)
        # an Alertmanager that cannot be reached is an incident already: the watchdog's silence follows from it
        if self._watchdog is not None and not self._keeper.incidents.open_of("alert_path_broken", ALERTMANAGER):
            # it comes each minute: two that are lost on the way are no incident yet
            for one in self._watchdog.look(now_ns, seconds=180.0 + self._settings.patience_seconds):
                self._keeper.observe(one)
        if time.monotonic() >= self._next_probe:
            self._probe(now_ns)
            self._next_probe = time.monotonic() + self._settings.probe_seconds

    def _record_told(self, body: bytes) -> None:
        conditions, _ = conditions_of(body, now_ns=time.time_ns())
        for one in conditions:
            self._keeper.observe(one)

    def _probe(self, now_ns: int) -> None:
        for look in self._probes:
            for seen in look(now_ns):
                self._metrics.probes.labels(seen.cause, "fails" if seen.fails else "works").inc()
                lasting = self._patience.look(seen)
                if lasting is not None:
                    self._keeper.observe(lasting)
        for seen in self._pages.refusals(now_ns) if self._pages is not None else ():
            self._keeper.observe(seen)

    def _ask_in_trouble(self) -> None:
        """The log or the index does not answer: the store may be why, and what is known of incidents is enough to say so."""
        if not self._begun:
            return
        try:
            self._ask()
        except Overloaded as error:
            self._failed(error)

    def _damaged(self, error: VerificationError) -> None:
        _log.error("the log does not verify", extra={"reason": str(error)})
        # while the log could not be read at all we do not know how many there were: the same damage is the same incident then
        mark = "" if self._begun else str(error)
        found = Condition(
            cause="verification_failed",
            subject="log",
            fails=True,
            time_ns=time.time_ns(),
            detail=str(error),
            mark=mark,
        )
        try:
            self._keeper.observe(found)
        except Overloaded as refused:
            self._failed(refused)

    def _failed(self, error: Overloaded) -> None:
        self._metrics.failures.inc()
        _log.warning("looked in vain, tried again later", extra={"reason": str(error)})

    def _write(self) -> None:
        positions = self._follower.positions()
        if positions == self._written:
            return
        try:
            write_cursor(self._cursor, positions)
        except OSError as error:
            raise StateUnknown(f"{self._cursor} cannot be written: {error}") from error
        self._written = positions


def _reads(now_ns: int) -> Condition:
    return Condition(
        cause="verification_failed", subject="log", fails=False, time_ns=now_ns, detail="the log reads and verifies"
    )


def _expected(config: Config) -> list[str]:
    """The collectors that must be heard."""
    own = [*config.sidecars] or [config.collector.name]
    return [*own, *config.alerting.expected_collectors]


def _pages(places: Places) -> dict[str, str]:
    """The collectors of this machine that run, and where their metrics are."""
    found = {}
    for process in running(places.run):
        http = process.addresses.get("http", "")
        if process.name.startswith("collector-") and http.startswith("http://"):
            found[process.name.removeprefix("collector-")] = f"{http}/metrics"
    return found


def _read_positions(path: Path) -> dict[str, int]:
    try:
        return _decode_positions(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateUnknown(
            f"{path} does not read ({error}): remove it to look at the whole log again; nothing is recorded twice"
        ) from error


async def _stopped(stopped: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stopped.wait(), seconds)
    except TimeoutError:
        return False
    return True
