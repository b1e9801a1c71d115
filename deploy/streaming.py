"""Runs what sends the log on to SIEMs: a thread for each destination, so that one that is away holds up no other."""

import asyncio
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Literal

from audit_api.logs import Logs
from audit_api.metrics import SiemMetrics
from audit_api.siem.account import account_event, declared
from audit_api.siem.cursor import Cursor
from audit_api.siem.destination import Destination
from audit_api.siem.http import HttpSender
from audit_api.siem.settings import AnyDestination, HttpSettings, SyslogSettings
from audit_api.siem.stream import Stream
from audit_api.siem.syslog import HEADER_BYTES, SyslogSender
from collector.clienttls import client_tls
from collector.errors import Malformed, Overloaded, StateUnknown
from collector.recorder import Recorder
from collector.retry import Breaker, RetryLimits
from collector.secretfile import read_secret
from deploy.api import open_logs
from deploy.config import Config, ConfigError
from deploy.health import health_server
from deploy.places import Places
from deploy.recording import open_recorder

__all__ = ["SIEM", "open_destination", "serve_siem"]

SIEM = "siem"
"""The process's name, and its spool's."""

_LOOK_SECONDS = 0.1
_HEARTBEAT_SECONDS = 60
_ALIVE_SECONDS = 60.0
_MEASURE_SECONDS = 5.0
_RETRIES = RetryLimits(base_seconds=0.5, cap_seconds=30.0, failures_to_open=10, open_seconds=60.0)

_log = logging.getLogger("tally.siem")


def open_destination(settings: AnyDestination) -> Destination:
    """What sends there; nothing is connected yet.

    Raises:
        ConfigError: a certificate or key that cannot be used, or an extra that is missing.
        StateUnknown: a token or password that cannot be read: it may come yet, so no reason for `tally up` to stop everything.
    """
    where = f"siem.destinations: {settings.name}"
    try:
        context = _tls(settings)
        if isinstance(settings, SyslogSettings):
            return SyslogSender(settings, tls=context, hostname=socket.gethostname())
        if isinstance(settings, HttpSettings):
            token = _secret(settings.token_file)
            token()  # one that cannot be read is better known now
            return HttpSender(settings, tls=context, token=token, clock=time.time_ns)
        password = _secret(settings.password_file)
        password()
        from audit_api.siem.kafka import KafkaSender

        return KafkaSender(settings, tls=context, password=password)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where} needs {error.name}: pip install 'tallystick[kafka]'") from error
    except Overloaded as error:
        raise StateUnknown(f"{where}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{where}: {error}") from error


def _tls(settings: AnyDestination) -> ssl.SSLContext | None:
    encrypted = settings.url.startswith("https:") if isinstance(settings, HttpSettings) else settings.tls
    if not encrypted:
        return None
    return client_tls(settings.ca_file, settings.client_certificate, settings.client_key)


def _secret(file: str) -> Callable[[], str]:
    """Reads it each time, so that one that is replaced is taken up. One that cannot be used raises `Overloaded`: it may be mended."""

    def read() -> str:
        try:
            secret = read_secret(file).decode("ascii") if file else ""
        except (OSError, Malformed, UnicodeDecodeError) as error:
            raise Overloaded(f"{file}: {getattr(error, 'strerror', None) or error}") from error
        if not secret.isprintable():
            raise Overloaded(f"{file}: holds more than one line")
        return secret

    return read


async def serve_siem(
    config: Config, places: Places, *, stopped: asyncio.Event, ready: Callable[[Mapping[str, str]], None]
) -> None:
    """Send on what the log says until `stopped` is set; waits first until the correlator has made a ledger.

    Raises:
        ConfigError: ``[siem]`` cannot be used.
        StateUnknown: its spool is another process's, or a cursor, token or password does not read.
        VerificationError: a log was changed, or is not the one of which something was sent before.
        OSError: the address of the probes cannot be bound.
    """
    settings = config.siem
    if not settings.destinations:
        raise ConfigError("siem.destinations: there are none, so there is nobody to send to (docs/siem.md)")
    metrics = SiemMetrics(one.name for one in settings.destinations)
    async with AsyncExitStack() as ends:
        open_files = ends.enter_context(ExitStack())
        works: list[_Work] = []
        destinations = []
        for one in settings.destinations:
            destinations.append(open_destination(one))
            # in a thread: a client with a loop of its own cannot end it within ours
            ends.push_async_callback(asyncio.to_thread, destinations[-1].close)
        opened: list[Logs] = []
        while len(opened) < len(destinations):  # each with a reader of its own: a thread each
            if (logs := open_logs(config, places, open_files)) is None:
                if await _stopped(stopped, _LOOK_SECONDS):
                    return
            else:
                opened.append(logs)
        recorder = open_files.enter_context(
            open_recorder(config, places, spool=SIEM, heartbeat_seconds=_HEARTBEAT_SECONDS)
        )
        for one, destination, logs in zip(settings.destinations, destinations, opened, strict=True):
            cursor = Cursor(places.siem(one.name))
            stream = Stream(
                one,
                logs=logs.all,
                destination=destination,
                cursor=cursor,
                metrics=metrics,
                pauses=Breaker(_RETRIES, uniform=random.uniform),
                clock=time.time_ns,
                overhead_bytes=HEADER_BYTES if isinstance(one, SyslogSettings) else 0,
            )
            works.append(_Work(one, stream, cursor, recorder))
        address = open_files.enter_context(
            health_server(
                metrics.registry,
                port=settings.metrics_port,
                alive=lambda: all(work.alive() for work in works),
                ready=lambda: not _away(works),
                word=lambda: _away(works) or "ok",
            )
        )
        ready({"http": f"http://{address}"})
        await _run(works, stopped)


async def _run(works: list["_Work"], stopped: asyncio.Event) -> None:
    """Until `stopped`, or until one of them ends with an error, which is raised."""
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(works), thread_name_prefix=SIEM) as pool:
        running = [loop.run_in_executor(pool, work.run, stop) for work in works]
        waiting = asyncio.ensure_future(stopped.wait())
        ends: list[asyncio.Future[Any]] = [*running, waiting]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        waiting.cancel()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _away(works: list["_Work"]) -> str:
    """The destinations that cannot be sent to, in words; empty: none."""
    names = ", ".join(work.name for work in works if work.away)
    return f"reaching {names}" if names else ""


class _Work:
    """What a destination's thread does, and what probes hear of it."""

    def __init__(self, settings: AnyDestination, stream: Stream, cursor: Cursor, recorder: Recorder) -> None:
        self._settings = settings
        self._stream = stream
        self._cursor = cursor
        self._recorder = recorder
        self._beat = time.monotonic()

    @property
    def name(self) -> str:
        """The destination's."""
        return self._settings.name

    @property
    def away(self) -> bool:
        """Whether it could not be sent to the last time."""
        return bool(self._stream.away)

    def alive(self) -> bool:
        """Whether it goes on, be it in vain: a single trial may take as long as the destination is given."""
        return time.monotonic() - self._beat < _ALIVE_SECONDS + 4 * self._settings.timeout_seconds

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set; raises what ends the process."""
        if not self._start(stop):
            return
        while not stop.is_set():
            _, seconds = self._stream.step()
            self._beat = time.monotonic()
            self._pause(stop, seconds)
        self._record("stop", changed=False)

    def _start(self, stop: threading.Event) -> bool:
        """Put on record that it starts, before anything is sent; False when it is to stop meanwhile."""
        digest = declared(self._settings)
        changed = self._cursor.declared not in ("", digest)
        while not self._record("start", changed=changed):
            if stop.wait(1.0):
                return False
            self._beat = time.monotonic()
        if self._cursor.declared != digest:
            self._cursor.declare(digest)
        return True

    def _record(self, action: Literal["start", "stop"], *, changed: bool) -> bool:
        positions = self._cursor.positions()
        event = account_event(action, self._settings, positions, changed=changed, now_ns=time.time_ns())
        try:
            self._recorder.record(event)
        except Overloaded as error:
            _log.warning("cannot be put on record yet", extra={"to": self.name, "reason": str(error)})
            return False
        return True

    def _pause(self, stop: threading.Event, seconds: float) -> None:
        """Wait, and tell meanwhile how the lag grows."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not stop.wait(min(left, _MEASURE_SECONDS)):
            self._beat = time.monotonic()
            if left > _MEASURE_SECONDS:
                self._stream.measure()


async def _stopped(stopped: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stopped.wait(), seconds)
    except TimeoutError:
        return False
    return True
