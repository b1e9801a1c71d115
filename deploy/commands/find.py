"""`tally find`: trails by what they have in common."""

from typing import TYPE_CHECKING

import click

from deploy.asking import Asked, asked_ledger, asks
from deploy.conditions import Conditions, conditions
from deploy.session import Failure, Session, emit_json, json_option, pass_session, show

if TYPE_CHECKING:
    from correlator.index import TrailSummary
    from deploy.reading import Ledger
    from deploy.remote import RemoteLedger


@click.command()
@conditions
@click.option(
    "--saved",
    default="",
    metavar="NAME",
    help="With --api: the search that is saved there under this name; no other condition goes with it.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Most trails to print.")
@json_option
@asks
@pass_session
def find(
    session: Session,
    *,
    asked: Conditions,
    saved: str,
    limit: int,
    source: Asked,
    as_json: bool,
) -> None:
    """List trails, newest first, that meet every condition given.

    Times say their zone. The grammar of filters is in docs/api.md.
    """
    from correlator.index.rows import MAX_SERVICES

    if saved and asked.given:
        raise Failure(f"--saved goes without --{min(asked.given)}: the search says all", exit_code=2)
    with asked_ledger(session, source) as (ledger, record):
        if saved:
            trails, more = _saved(ledger, saved, limit=limit)
        else:
            trails, more = ledger.search(asked.query, limit=limit)
        record(action="trails.search", trail="", head=-1)
    if as_json:
        emit_json({"trails": trails, "more": more})
        return
    for summary in trails:
        others = ["…"] if len(summary.services) >= MAX_SERVICES else []
        services = ", ".join((*summary.services, *others, *map(_in_words, summary.amounts)))
        show(
            f"{summary.status:<12} {summary.first_time[:19]:<19}  {summary.entries:>5}  {summary.trail}  {services}".rstrip()
        )
    if not trails and not more:
        click.echo("no trail is found", err=True)
    if more:
        click.echo(f"… and more than these {len(trails)}: narrow it down, or --limit", err=True)


def _saved(ledger: "Ledger | RemoteLedger", name: str, *, limit: int) -> "tuple[list[TrailSummary], bool]":
    from deploy.remote import RemoteLedger

    if not isinstance(ledger, RemoteLedger):
        raise Failure("saved searches are in an audit API: --api or $TALLY_API", exit_code=2)
    return ledger.search_for(ledger.saved(name), limit=limit)


def _in_words(amount: tuple[str, str, str]) -> str:
    currency, least, most = amount
    return f"{currency} {least}" if least == most else f"{currency} {least} to {most}"
