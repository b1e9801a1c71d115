"""`tally status`: what runs, what is stored, what lags, what is missing."""

from typing import TYPE_CHECKING

import click

from deploy.session import Session, emit_json, json_option, pass_session, show
from deploy.wording import count, size_in_words

MAX_STREAMS_SHOWN = 20

if TYPE_CHECKING:
    from deploy.standing import Spool, Standing


@click.command()
@click.option("--url", metavar="URL", help="Ask this API instead of looking at local files (token in $TALLY_TOKEN).")
@json_option
@pass_session
def status(session: Session, *, url: str | None, as_json: bool) -> None:
    """Show what runs, how long the log is, what waits, and what is missing.

    Looks at the local files, or asks an API with --url. Exit code 0, whatever it shows: `tally check` is what judges.
    """
    if url is not None:
        from deploy.fetch import fetch

        show(fetch(f"{url.rstrip('/')}/v1/status", api=url).decode("utf-8", "replace"))
        return
    from deploy.standing import standing

    found = standing(session.config)
    if as_json:
        emit_json(found)
    else:
        _show(found)


def _show(found: "Standing") -> None:
    from deploy.standing import WAITING_LIMIT

    for process in found.processes:
        where = ", ".join(f"{use} {address}" for use, address in process.addresses.items())
        role = "standing by" if process.role == "standby" else "running"
        show(f"{process.name:<24} {role}  pid {process.pid}  {where}")
    if not found.processes:
        show("nothing is running")
    for problem in found.problems:
        show(problem)
    ledgers = list(found.shards or ()) or [one for one in (found.ledger,) if one is not None]
    for ledger in ledgers:
        lag = f"; {ledger.index_lag_leaves:,} not indexed yet" if ledger.index_lag_leaves else ""
        show(
            f"\nlog      {ledger.origin}, {count(ledger.leaves, 'leaf', 'leaves')}, head written {_age(ledger.head_age_seconds)} ago{lag}"
        )
        show(
            f"writer   {f'{ledger.writer}, epoch' if ledger.writer else 'nobody: the log is closed; epoch'} {ledger.epoch}"
        )
        if ledger is ledgers[-1]:
            show(f"key      {ledger.key}")
    if ledgers:
        sizes = ", ".join(f"{name} {size_in_words(size)}" for name, size in found.bytes.items())
        show(f"disk     {sizes}")
        told = ", ".join(
            f"{number:,}{'+' if number >= 1_000 else ''} {name}" for name, number in found.trails.items() if number
        )
        show(f"trails   {told or 'none with a verdict, an error or a gap'}")
    notable = [stream for stream in found.streams if stream.status != "ok" or stream.waiting_batches]
    shown = notable if len(found.streams) > MAX_STREAMS_SHOWN else list(found.streams)
    for stream in shown[:MAX_STREAMS_SHOWN]:
        more = "or more " if stream.waiting_batches >= WAITING_LIMIT else ""
        waits = count(stream.waiting_batches, f"{more}batch waits", f"{more}batches wait")
        waiting = f", {waits}" if stream.waiting_batches else ""
        show(f"stream   {stream.stream}  {stream.status}, logged to batch {stream.logged_batch:,}{waiting}")
    if len(found.streams) > len(shown[:MAX_STREAMS_SHOWN]):
        rest = len(found.streams) - len(shown[:MAX_STREAMS_SHOWN])
        show(f"stream   {count(rest, 'more', 'more')}{', all well' if len(shown) <= MAX_STREAMS_SHOWN else ''}")
    for gap in found.gaps:
        show(f"missing  {gap}")
    for spool in found.spools:
        _show_spool(spool)


def _show_spool(spool: "Spool") -> None:
    dead = ", ".join(f"{number:,} {label}" for label, number in spool.dead_letters.items())
    show(f"spool    {spool.collector}  {size_in_words(spool.size_bytes)}{f'; dead letters: {dead}' if dead else ''}")
    if spool.mute:
        show("         its sidecar runs, and does not answer: `tally doctor` says more")
    sidecar = spool.sidecar
    if sidecar is None:
        return
    if sidecar.store_trouble:
        waits = count(sidecar.waiting_events, "event waits", "events wait")
        show(f"         {waits}, the oldest for {_age(sidecar.waiting_seconds)}: {sidecar.store_trouble}")
    if sidecar.refusing:
        show(f"         no events are taken: {sidecar.refusing}")
    if sidecar.config_refused:
        show(f"         an older configuration is in force, this one was refused: {sidecar.config_refused}")


def _age(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 60
        else f"{seconds / 60:.0f} min"
        if seconds < 7_200
        else f"{seconds / 3600:.0f} h"
    )
