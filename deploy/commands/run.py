"""`tally run`: one process in the foreground, for containers and service managers."""

import asyncio
import re
import sys
from collections.abc import Mapping

import click

from collector.settings import CollectorSettings
from deploy.config import ConfigError
from deploy.process import Ready, keep_what_is_there, on_hangup, serve
from deploy.session import Session, pass_session

_SWITCH_SECONDS = 0.0005
"""How long a thread keeps the interpreter while another wants it. Of a collector, busy, the event loop from the thread that commits: a sender's ack
waits for both in turns. Of an API, an export from a request, which goes through three threads: with Python's own 5 ms it would wait that long at each."""

_supervised = click.option("--supervised", is_flag=True, hidden=True, help="Stop when stdin closes.")


@click.group()
def run() -> None:
    """Run one process in the foreground until SIGTERM or Ctrl-C; logs are JSON lines on stderr."""


@run.command()
@click.option("--name", metavar="NAME", help="Which of [sidecars.NAME], where there are any.")
@_supervised
@pass_session
def collector(session: Session, *, name: str | None, supervised: bool) -> None:
    """Run a sidecar collector: Fluent Forward, OTLP and JSON lines in, signed batches out.

    On SIGHUP it reads its configuration again, and refuses one that it cannot use (docs/under-pressure.md).
    """
    from collector.reload import Asking
    from collector.sidecar import metrics_of, run_sidecar
    from deploy.collecting import settings_again, settings_of
    from deploy.keys import collector_key, token_key
    from deploy.storing import open_destination

    config, places = session.config, session.places
    settings = settings_of(config, name)

    def read() -> CollectorSettings:
        nonlocal settings  # `ready` is called again only if they are in force
        settings = settings_again(config, session.read_again(), name)
        return settings

    async def body(stopped: asyncio.Event, ready: Ready) -> None:
        sys.setswitchinterval(_SWITCH_SECONDS)
        metrics = metrics_of(settings)
        # a store that is down keeps no sidecar from starting: its spool takes events all the same
        store = open_destination(config, places, settings, registry=metrics.registry)
        asking = Asking(read=read)
        started = False

        def listening(addresses: Mapping[str, str]) -> None:
            nonlocal started
            if not started:  # after a reload there are connections, which must not be kept
                keep_what_is_there()
            started = True
            ready(_with_schemes(addresses, settings))

        on_hangup(asking.asked.set, stopped.set)
        try:
            await run_sidecar(
                settings,
                root=places.spool(settings.name),
                ledger=config.ledger,
                store=store,
                metrics=metrics,
                signing_key=collector_key(places, settings.name),
                token_key=token_key(places),
                stopped=stopped,
                ready=listening,
                asking=asking,
            )
        finally:
            store.close()

    serve(f"collector-{settings.name}", places, body, supervised=supervised)


def _check_name(name: str) -> None:
    if name and not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise ConfigError(f"--name {name}: a name is made of a-z, 0-9 and ._-")


def _with_schemes(addresses: Mapping[str, str], settings: CollectorSettings) -> dict[str, str]:
    """The addresses with those of HTTP servers as URLs, as the other processes announce theirs."""
    tls = {"http": settings.http.tls_certificate, "elasticsearch": settings.elasticsearch.tls_certificate}
    schemes = {use: "https://" if certificate else "http://" for use, certificate in tls.items()}
    return {use: schemes.get(use, "") + where for use, where in addresses.items()}


@run.command()
@click.option(
    "--standby", is_flag=True, help="Wait while another correlator writes the log, and take over when it ends or hangs."
)
@click.option("--name", metavar="NAME", default="", help="Of this one, where several share a data folder.")
@click.option("--shard", metavar="N", type=int, help="Which shard's log it writes, where correlator.shards is above 1.")
@_supervised
@pass_session
def correlator(session: Session, *, standby: bool, name: str, shard: int | None, supervised: bool) -> None:
    """Run the correlator, the log's only writer: it checks batches, stitches events into trails and signs the log.

    A second one is refused while the first writes. With --standby (or correlator.standby) it follows the log instead, and becomes
    the writer when that one ends, or has given no sign of life for correlator.take_over_seconds. Of a ledger that is cut into shards
    each has a correlator of its own, which writes that shard's log alone.
    """
    from deploy.correlating import serve_correlator
    from deploy.sharding import chosen_shard

    config, places = session.config, session.places
    _check_name(name)
    mine = chosen_shard(config, shard)

    async def body(stopped: asyncio.Event, ready: Ready) -> None:
        waits = standby or config.correlator.standby
        await serve_correlator(config, places, shard=mine, name=name, standby=waits, stopped=stopped, ready=ready)

    called = ("correlator", f"shard-{mine.number}" if mine.name else "", name)
    serve("-".join(part for part in called if part), places, body, supervised=supervised)


@run.command()
@click.option("--name", metavar="NAME", default="", help="Of this one, where several serve the ledger.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Where this one listens, in place of audit_api.port; 0: a free one."
)
@_supervised
@pass_session
def api(session: Session, *, name: str, port: int | None, supervised: bool) -> None:
    """Run the audit API: finds, serves, proves and exports trails, and puts each reading on record.

    Several may serve a ledger, each with a --name and a --port of its own, behind a proxy that sends each caller to the same one
    (docs/operating.md). Where [audit_api.redis] is set they count together what each principal may ask.
    """
    import msgspec

    from deploy.api import api_name, serve_api

    config, places = session.config, session.places
    _check_name(name)
    if port is not None:
        config = msgspec.structs.replace(config, audit_api=msgspec.structs.replace(config.audit_api, port=port))
    sys.setswitchinterval(_SWITCH_SECONDS)

    async def body(stopped: asyncio.Event, ready: Ready) -> None:
        await serve_api(config, places, name=name, stopped=stopped, ready=ready)

    serve(api_name(name), places, body, supervised=supervised)


@run.command()
@_supervised
@pass_session
def detector(session: Session, *, supervised: bool) -> None:
    """Run the detector: looks at every payment in the log, puts what is suspicious on record, and tells Alertmanager."""
    from deploy.detecting import DETECTOR, serve_detector

    config, places = session.config, session.places

    async def body(stopped: asyncio.Event, ready: Ready) -> None:
        await serve_detector(config, places, stopped=stopped, ready=ready)

    serve(DETECTOR, places, body, supervised=supervised)


@run.command()
@_supervised
@pass_session
def siem(session: Session, *, supervised: bool) -> None:
    """Send the log on to SIEMs as it grows: syslog, HTTP or Kafka, each destination with a cursor of its own (docs/siem.md)."""
    from deploy.streaming import SIEM, serve_siem

    config, places = session.config, session.places

    async def body(stopped: asyncio.Event, ready: Ready) -> None:
        await serve_siem(config, places, stopped=stopped, ready=ready)

    serve(SIEM, places, body, supervised=supervised)


@run.command()
@_supervised
@pass_session
def incidents(session: Session, *, supervised: bool) -> None:
    """Run the keeper of incidents: puts on record when a control fails, and when it works again (docs/incidents.md)."""
    from deploy.keeping import INCIDENTS, serve_incidents

    config, places = session.config, session.places

    async def body(stopped: asyncio.Event, ready: Ready) -> None:
        await serve_incidents(config, places, stopped=stopped, ready=ready)

    serve(INCIDENTS, places, body, supervised=supervised)
