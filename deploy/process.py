"""One process's life: JSON logs, clean stop on a signal or when its supervisor dies, and its file in ``run/``."""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import msgspec

from collector.event import format_time
from deploy.config import ConfigError
from deploy.places import Places
from deploy.processes import Running, announce, retire

__all__ = ["JsonLines", "Ready", "in_thread", "keep_what_is_there", "log_as_json", "on_hangup", "serve"]

T = TypeVar("T")

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What a log record has of its own; the rest was given as `extra`."""


class Ready(Protocol):
    """Called with the addresses by their use, once everything listens; again when the process takes another role."""

    def __call__(self, addresses: Mapping[str, str], *, role: str = "") -> None:
        """Announce the process."""


class JsonLines(logging.Formatter):
    """A log record as one JSON object: time (RFC 3339), level, process, logger, message, what was given as `extra`, and an exception."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`. Of an exception only type and text are told: a traceback may hold user data."""
        line = {
            "time": format_time(int(record.created * 1_000_000) * 1_000),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: str(value) for name, value in vars(record).items() if name not in _OWN and name not in line}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        return msgspec.json.encode(line).decode("utf-8", "replace")


def log_as_json(process: str) -> None:
    """Send this process's log to stderr as JSON lines, from level INFO up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # that it starts and stops we say ourselves
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # a query may name a person


def serve(name: str, places: Places, body: Callable[[asyncio.Event, Ready], Awaitable[T]], *, supervised: bool) -> T:
    """Run `body(stopped, ready)` to its end as the process `name`; SIGTERM and Ctrl-C set `stopped`, a second one ends it at once.

    Args:
        name: what it announces itself as.
        places: whose ``run/`` folder it is announced in.
        body: does the work until `stopped` is set, and calls `ready` when everything listens.
        supervised: stdin is a pipe from the supervisor: when it closes, stop.
    """
    log_as_json(name)
    places.make()
    return asyncio.run(_serve(name, places, body, supervised=supervised))


async def _serve(
    name: str, places: Places, body: Callable[[asyncio.Event, Ready], Awaitable[T]], *, supervised: bool
) -> T:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    asked = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if asked.is_set():
            logging.getLogger(__name__).warning(
                "%s again: ending at once; what was acknowledged is on disk", number.name
            )
            os._exit(128 + number)  # like a crash, from which all that runs here recovers: who asks twice will not wait
        asked.set()
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    said = "SIGHUP: what this process is configured with holds until it is started again"
    on_hangup(lambda: logging.getLogger(__name__).warning(said), stopped.set)  # `body` may take another step
    if supervised:
        threading.Thread(target=_stop_at_end_of_stdin, args=(loop, stopped), daemon=True).start()
    announced: list[Running] = []

    def ready(addresses: Mapping[str, str], *, role: str = "") -> None:
        announced.append(announce(places.run, name, addresses, role=role))
        where = ", ".join(f"{use} {where}" for use, where in addresses.items())
        logging.getLogger(__name__).info("ready%s: %s", f" as {role}" if role else "", where)

    try:
        return await body(stopped, ready)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, socket.EAI_NONAME):
            raise ConfigError(f"{name} cannot listen: {error.strerror or error}") from error
        raise
    finally:
        for process in announced:
            retire(places.run, process)


def keep_what_is_there() -> None:
    """For a process that has started and serves nobody yet: what it has made by now stays, and is not looked through for cycles any more.

    A full collection is due when a quarter as many objects as were found alive have come since. With all modules among these it costs most of what looking
    costs at all; without them it is soon due and soon done. How often the young ones are looked through stays as it is: a cycle may hold a large message.
    """
    gc.collect()
    gc.freeze()


def on_hangup(reload: Callable[[], object], stop: Callable[[], object]) -> None:
    """Call `reload` on each SIGHUP, in the running event loop; but `stop` when it says that the terminal we were started from is gone."""
    terminal = sys.stderr.isatty()

    def hung_up() -> None:
        if terminal and not os.isatty(sys.stderr.fileno()):
            stop()
        else:
            reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)


def _stop_at_end_of_stdin(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    while os.read(0, 4_096):
        pass
    try:
        loop.call_soon_threadsafe(stopped.set)
    except RuntimeError:
        pass  # the loop is closed: we are stopping anyway


async def in_thread(work: Callable[[threading.Event], T], stopped: asyncio.Event) -> T:
    """Let `work` go on in a thread until it returns by itself, or `stopped` is set, of which it is told; raises what it raises."""
    stop = threading.Event()
    working = asyncio.create_task(asyncio.to_thread(work, stop))
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    waiting.cancel()
    return await working
