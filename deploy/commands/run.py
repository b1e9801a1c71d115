"""`tally run`: one process in the foreground, for containers and service managers."""

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from collector.settings import CollectorSettings
from deploy.config import Config, ConfigError
from deploy.process import Ready, serve
from deploy.session import Session, pass_session

if TYPE_CHECKING:
    from correlator.run import Correlator

FINISH_SECONDS = 10.0
"""How long a stopping correlator goes on with what the collectors left."""

_supervised = click.option("--supervised", is_flag=True, hidden=True, help="Stop when stdin closes.")


@click.group()
def run() -> None:
    """Run one process in the foreground until SIGTERM or Ctrl-C; logs are JSON lines on stderr."""


def settings_of(config: Config, name: str | None) -> CollectorSettings:
    """The settings of the collector called `name`; None: of the only one. Raises `ConfigError`."""
    if name is None:
        if config.sidecars:
            raise ConfigError(f"there are several sidecars: say which with --name ({', '.join(config.sidecars)})")
        return config.collector
    if name in config.sidecars:
        return config.sidecars[name]
    if name == config.collector.name and not config.sidecars:
        return config.collector
    known = ", ".join(config.sidecars) or config.collector.name
    raise ConfigError(f"there is no collector called {name}; there is: {known}")


@run.command()
@click.option("--name", metavar="NAME", help="Which of [sidecars.NAME], where there are any.")
@_supervised
@pass_session
def collector(session: Session, *, name: str | None, supervised: bool) -> None:
    """Run a sidecar collector: Fluent Forward, OTLP/HTTP and JSON lines in, signed batches out."""
    from collector.sidecar import run_sidecar
    from collector.store.sqlite import SqliteStore
    from deploy.keys import collector_key, token_key

    config, places = session.config, session.places
    settings = settings_of(config, name)

    async def body(stopped: asyncio.Event, ready: Ready) -> None:
        store = SqliteStore(places.store)
        try:
            await run_sidecar(
                settings,
                root=places.spool(settings.name),
                ledger=config.ledger,
                store=store,
                signing_key=collector_key(places, settings.name),
                token_key=token_key(places),
                stopped=stopped,
                ready=lambda addresses: ready(_with_scheme(addresses, tls=bool(settings.http.tls_certificate))),
            )
        finally:
            store.close()

    serve(f"collector-{settings.name}", places, body, supervised=supervised)


def _with_scheme(addresses: Mapping[str, str], *, tls: bool) -> dict[str, str]:
    """The addresses with that of the HTTP server as a URL, as the other processes announce theirs."""
    scheme = "https" if tls else "http"
    return {use: f"{scheme}://{where}" if use == "http" else where for use, where in addresses.items()}


@run.command()
@_supervised
@pass_session
def correlator(session: Session, *, supervised: bool) -> None:
    """Run the correlator, the log's only writer: it checks batches, stitches events into trails and signs the log."""
    from correlator.metrics import CorrelatorMetrics
    from deploy.health import health_server
    from deploy.writing import open_correlator

    config = session.config

    async def body(stopped: asyncio.Event, ready: Ready) -> None:
        metrics = CorrelatorMetrics()
        with open_correlator(config, session.places, metrics=metrics) as at_work:
            port = config.correlator.metrics_port
            with health_server(metrics.registry, port=port, alive=at_work.alive, ready=at_work.ready) as address:
                ready({"http": f"http://{address}"})
                await _until_stopped(at_work, stopped)

    serve("correlator", session.places, body, supervised=supervised)


async def _until_stopped(at_work: "Correlator", stopped: asyncio.Event) -> None:
    """Let the correlator work in a thread until `stopped`; then until nothing is left, within bounds."""
    from deploy.writing import finish

    stop = threading.Event()
    work = asyncio.create_task(asyncio.to_thread(at_work.run, stop))
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    waiting.cancel()
    await work  # raises what ended it, if that came first
    await asyncio.to_thread(finish, at_work, within_seconds=FINISH_SECONDS)


@run.command()
@_supervised
@pass_session
def api(session: Session, *, supervised: bool) -> None:
    """Run the audit API: finds, serves, proves and exports trails, and puts each reading on record."""
    from deploy.api import serve_api

    config, places = session.config, session.places

    async def body(stopped: asyncio.Event, ready: Ready) -> None:
        await serve_api(config, places, stopped=stopped, ready=ready)

    serve("api", places, body, supervised=supervised)
