"""`tally find`: trails by what they have in common."""

import click

from deploy.session import Failure, Session, emit_json, json_option, pass_session, show

STATUSES = ("complete", "incomplete", "compensated", "failed", "error", "ok", "gap")
KINDS = ("transaction", "key", "trace", "stream", "access", "ledger")


@click.command()
@click.option("--key", metavar="NAME:VALUE", help="Trails with this business key.")
@click.option("--service", default="", help="Trails that this service took part in.")
@click.option("--since", default="", metavar="TIME", help="With an event at or after this time (RFC 3339).")
@click.option("--until", default="", metavar="TIME", help="With an event before this time (RFC 3339).")
@click.option("--status", type=click.Choice(STATUSES), default=None, help="Trails that stand so.")
@click.option("--kind", type=click.Choice(KINDS), default=None, help="Trails of this family.")
@click.option(
    "--amount", metavar="RANGE", help="With amounts in this range: EUR:10..20, EUR:10.., EUR:..20 or EUR:12.50."
)
@click.option(
    "--text",
    metavar="WORDS",
    help="With all these words in its id, its keys' values or names of services and events; refund* begins a word.",
)
@click.option(
    "--filter",
    "filter_",
    metavar="FILTER",
    help="With what this filter says, such as 'service = ledger and not (status = ok or amount.EUR < 1000)'.",
)
@click.option("--tenant", default="", help="Look within this tenant.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Most trails to print.")
@json_option
@pass_session
def find(
    session: Session,
    *,
    key: str | None,
    service: str,
    since: str,
    until: str,
    status: str | None,
    kind: str | None,
    amount: str | None,
    text: str | None,
    filter_: str | None,
    tenant: str,
    limit: int,
    as_json: bool,
) -> None:
    """List trails, newest first, that meet every condition given.

    Times say their zone. The grammar of filters is in docs/api.md.
    """
    from collector.errors import Malformed
    from correlator.index import AmountRange, TextSearch, TrailQuery
    from correlator.index.filters import parse_filter
    from correlator.index.times import zoned
    from deploy.reading import open_ledger
    from deploy.recording import recorded

    name, colon, value = (key or "").partition(":")
    if key is not None and not (name and colon and value):
        raise click.BadParameter("write NAME:VALUE", param_hint="--key")
    try:
        money = AmountRange.parse(amount) if amount is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--amount") from error
    try:
        words = TextSearch.parse(text) if text is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--text") from error
    try:
        condition = parse_filter(filter_) if filter_ is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--filter") from error
    try:
        bounds = [zoned(bound) if bound else "" for bound in (since, until)]
    except Malformed as error:
        raise Failure(f"--since, --until: {error}", exit_code=2) from error
    query = TrailQuery(
        tenant=tenant,
        key=(name, value) if key else None,
        service=service,
        since=bounds[0],
        until=bounds[1],
        status=status or "",
        kind=kind or "",
        amount=money,
        text=words,
        condition=condition,
    )
    with open_ledger(session.config) as ledger, recorded(session) as record:
        trails, more = ledger.search(query, limit=limit)
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
