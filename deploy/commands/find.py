"""`tally find`: trails by what they have in common."""

import click

from deploy.asking import Asked, asked_ledger, asks
from deploy.conditions import Conditions, conditions
from deploy.session import Session, emit_json, json_option, pass_session, show


@click.command()
@conditions
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Most trails to print.")
@json_option
@asks
@pass_session
def find(
    session: Session,
    *,
    asked: Conditions,
    limit: int,
    source: Asked,
    as_json: bool,
) -> None:
    """List trails, newest first, that meet every condition given.

    Times say their zone. The grammar of filters is in docs/api.md.
    """
    with asked_ledger(session, source) as (ledger, record):
        trails, more = ledger.search(asked.query, limit=limit)
        record(action="trails.search", trail="", head=-1)
    if as_json:
        emit_json({"trails": trails, "more": more})
        return
    for summary in trails:
        services = ", ".join((*summary.services, *map(_in_words, summary.amounts)))
        show(
            f"{summary.status:<12} {summary.first_time[:19]:<19}  {summary.entries:>5}  {summary.trail}  {services}".rstrip()
        )
    if more:
        click.echo(f"… and more than these {len(trails)}: narrow it down, or --limit", err=True)


def _in_words(amount: tuple[str, str, str]) -> str:
    currency, least, most = amount
    return f"{currency} {least}" if least == most else f"{currency} {least} to {most}"
