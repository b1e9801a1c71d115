"""`tally run`: one process in the foreground, for containers and service managers."""

import asyncio

import click

from collector.settings import CollectorSettings
from deploy.config import Config, ConfigError
from deploy.serving import Ready, serve
from deploy.session import Session, pass_session

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
                ready=ready,
            )
        finally:
            store.close()

    serve(f"collector-{settings.name}", places, body, supervised=supervised)
