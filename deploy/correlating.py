"""Runs the correlator as a process: standing by first, where that is asked for, then writing, with its health told all along."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Protocol

from correlator.errors import Conflict, Overloaded
from correlator.metrics import CorrelatorMetrics
from correlator.run import Correlator
from correlator.shards import Shard
from correlator.standby import Turn, wait_for_silence
from deploy.config import Config
from deploy.health import health_server
from deploy.places import Places
from deploy.process import Ready, in_thread
from deploy.storing import check_patience
from deploy.writing import Desk, finish, open_desk

__all__ = ["serve_correlator"]

FINISH_SECONDS = 10.0
"""How long a stopping correlator goes on with what the collectors left."""

_log = logging.getLogger("tally.correlator")


class _AtWork(Protocol):
    def alive(self) -> bool: ...
    def ready(self) -> bool: ...


class _Duty:
    """What the process is at: nothing yet, a standby, or a correlator. Asked by probes, from their own threads."""

    def __init__(self) -> None:
        self.at_work: _AtWork | None = None
        self.word = "opening the log"

    def alive(self) -> bool:
        return self.at_work is None or self.at_work.alive()

    def ready(self) -> bool:
        return self.at_work is not None and self.at_work.ready()


async def serve_correlator(
    config: Config, places: Places, *, shard: Shard, name: str, standby: bool, stopped: asyncio.Event, ready: Ready
) -> None:
    """Write the log until `stopped` is set; with `standby`, only when it is this process's turn.

    A deposed writer ends with an error, and is started again as a standby by whoever keeps it running: so it begins with
    nothing in memory that belonged to its time as the writer.

    Args:
        config: the configuration.
        places: where everything is kept.
        shard: whose log it is.
        name: of this correlator, where several share a data folder; else empty.
        standby: wait while another process writes the log.
        stopped: set to end it.
        ready: called when it is a standby, and when it is the writer.

    Raises:
        Conflict: another process writes this log, and `standby` was not asked for.
        VerificationError: the log was changed.
        StateUnknown: another writer has taken over, or a file failed.
        ConfigError: a setting cannot be used; with `standby`, also a timeout that is longer than a standby waits.
        OSError: the address of the probes cannot be bound.
    """
    if standby:
        check_patience(config)
    metrics = CorrelatorMetrics()
    duty = _Duty()
    port = config.correlator.metrics_port
    with ExitStack() as open_files:
        desk = open_files.enter_context(open_desk(config, places, shard=shard, name=name, metrics=metrics))
        address = open_files.enter_context(
            health_server(
                metrics.registry,
                port=port + shard.number - 1 if port else 0,
                alive=duty.alive,
                ready=duty.ready,
                word=lambda: duty.word,
            )
        )
        addresses = {"http": f"http://{address}"}
        while not stopped.is_set():
            take_over = False
            if standby:
                turn = await _stand_by(desk, duty, stopped=stopped, told=lambda: ready(addresses, role="standby"))
                if turn is None:
                    return
                take_over = turn.take_over
                _log.warning("taking over the log: %s", turn.reason)
            else:
                wait_for_silence(desk.storage, seconds=config.correlator.take_over_seconds)
            with ExitStack() as opened:
                try:
                    at_work = opened.enter_context(desk.correlator(take_over=take_over))
                except (Conflict, Overloaded) as error:
                    if not standby:
                        raise
                    # somebody else was faster, or a writer that hangs holds the head's lock: stand by again
                    _log.warning("not taken over: %s", error)
                    await _pause(stopped)
                    continue
                await _write(desk, at_work, duty, stopped=stopped, told=lambda: ready(addresses, role="writer"))
                return


async def _stand_by(desk: Desk, duty: _Duty, *, stopped: asyncio.Event, told: Callable[[], None]) -> Turn | None:
    with desk.standby() as at_work:
        duty.at_work, duty.word = at_work, "standing by"
        told()
        try:
            return await in_thread(at_work.wait, stopped)
        finally:
            duty.at_work, duty.word = None, "opening the log"


async def _write(
    desk: Desk, at_work: Correlator, duty: _Duty, *, stopped: asyncio.Event, told: Callable[[], None]
) -> None:
    duty.at_work, duty.word = at_work, "ok"
    told()
    async with _statements(desk):
        await in_thread(at_work.run, stopped)
        await asyncio.to_thread(finish, at_work, within_seconds=FINISH_SECONDS)


@asynccontextmanager
async def _statements(desk: Desk) -> AsyncIterator[None]:
    """Keep the joint statement up to date for the block, in a thread of its own: it reads the logs of all shards."""
    writer = desk.statements
    if writer is None:
        yield
        return
    every_seconds = desk.config.correlator.statement_seconds
    ended = threading.Event()
    keeping = asyncio.create_task(asyncio.to_thread(writer.run, ended, every_seconds=every_seconds))
    try:
        yield
    finally:
        ended.set()
        await keeping


async def _pause(stopped: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopped.wait(), 0.1)
    except TimeoutError:
        pass
