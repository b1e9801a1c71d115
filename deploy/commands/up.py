"""`tally up`: collector, correlator, API and what watches over them on this machine, supervised."""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from deploy.keys import log_signer, tell_of_key
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.process import on_hangup
from deploy.processes import Running
from deploy.session import Failure, Session, emit_json, json_option, pass_session, say
from deploy.sharding import shards_of
from deploy.up import STOP_SECONDS, Child, Supervisor

_MORE_SECONDS = 10.0
"""What a collector may take beside its drain: a store that it waits for, files that it closes."""


@click.command()
@json_option
@pass_session
def up(session: Session, *, as_json: bool) -> None:
    """Run everything on this machine; Ctrl-C stops it cleanly.

    Starts the collector (one for each [sidecars.NAME], where there are any), the correlator (one for each shard), the API, the keeper
    of incidents, and the detector and what sends on to a SIEM where they are configured, as processes of their own, and starts again what crashes. On Ctrl-C or SIGTERM the API stops first, then the collectors drain and close their
    streams, then the correlator takes in what they left. On SIGHUP the collectors read their configuration again. Where everyone listens is
    written to run/ in the data folder.
    """
    places = session.places
    places.make()
    logs = places.run if sys.stderr.isatty() else None  # JSON lines are not for a person's terminal
    with _alone(places):
        storage = log_storage(session.config)
        tell_of_key(*log_signer(places, ledger=session.config.ledger, storage=storage), places)
        for old in places.run.glob("*.log"):
            old.unlink()
        reason = asyncio.run(_supervise(children_of(session), places, logs, as_json=as_json))
    if reason:
        raise Failure(reason)


@contextmanager
def _alone(places: Places) -> Iterator[None]:
    """Hold the folder's lock, which the kernel lets go of however we end; raises `Failure` when another `tally up` has it."""
    lock = os.open(places.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Failure(f"`tally up` is running already with the data in {places.root}") from error
        yield
    finally:
        os.close(lock)


def children_of(session: Session) -> list[Child]:
    """The processes that `tally up` runs, in the order in which they are told about."""
    tally = [sys.executable, "-m", "deploy.cli"]
    if session.source is not None:
        tally += ["--config", str(session.source.resolve())]
    collectors = session.config.sidecars or {session.config.collector.name: session.config.collector}
    children = [
        Child(
            name=f"collector-{name}",
            command=[
                *tally,
                "run",
                "collector",
                "--supervised",
                *(["--name", name] if session.config.sidecars else []),
            ],
            stage=1,
            stop_seconds=max(STOP_SECONDS, settings.ship.drain_seconds + _MORE_SECONDS),
            reloads=True,
        )
        for name, settings in collectors.items()
    ]
    for shard in shards_of(session.config):
        which = ["--shard", str(shard.number)] if shard.name else []
        name = f"correlator-shard-{shard.number}" if shard.name else "correlator"
        children.append(Child(name=name, command=[*tally, "run", "correlator", "--supervised", *which], stage=2))
    children.append(Child(name="api", command=[*tally, "run", "api", "--supervised"], stage=0))
    if session.config.detector.rules:
        children.append(Child(name="detector", command=[*tally, "run", "detector", "--supervised"], stage=0))
    if session.config.siem.destinations:
        children.append(Child(name="siem", command=[*tally, "run", "siem", "--supervised"], stage=0))
    if session.config.incidents.enabled:
        children.append(Child(name="incidents", command=[*tally, "run", "incidents", "--supervised"], stage=0))
    return children


async def _supervise(children: Sequence[Child], places: Places, logs: Path | None, *, as_json: bool) -> str:
    supervisor = Supervisor(children, run_folder=places.run, tell=say, log_folder=logs)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, supervisor.stop)
    on_hangup(supervisor.reload, supervisor.stop)

    def ready(processes: Sequence[Running]) -> None:
        if as_json:
            emit_json({"ready": processes})
            return
        for process in processes:
            where = ", ".join(f"{use} {address}" for use, address in process.addresses.items())
            click.echo(f"{process.name:<24} ready  {where}")
        pages = next((f"{one.addresses['http']}/" for one in processes if one.name == "api" and one.addresses), "")
        if pages:
            click.echo(f"pages at {pages} for whoever has a token (tally token add)")
            if places.first_token.exists():
                click.echo(f"the token of the first start is in {places.first_token}")
        click.echo(f"data in {places.root}; Ctrl-C stops everything")

    return await supervisor.run(ready)
