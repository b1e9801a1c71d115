"""Which trails a command is about: the options of a search, the same wherever trails are searched."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from deploy.session import Failure

if TYPE_CHECKING:
    from correlator.index import TrailQuery

__all__ = ["Conditions", "conditions"]

STATUSES = ("complete", "incomplete", "compensated", "failed", "error", "ok", "gap")
KINDS = ("transaction", "key", "trace", "stream", "access", "ledger", "incident")

_OPTIONS = (
    click.option("--key", metavar="NAME:VALUE", help="Trails with this business key."),
    click.option("--service", default="", help="Trails that this service took part in."),
    click.option(
        "--since", "--from", "since", default="", metavar="TIME", help="With an event at or after this time (RFC 3339)."
    ),
    click.option(
        "--until", "--to", "until", default="", metavar="TIME", help="With an event before this time (RFC 3339)."
    ),
    click.option("--status", type=click.Choice(STATUSES), default=None, help="Trails that stand so."),
    click.option("--kind", type=click.Choice(KINDS), default=None, help="Trails of this family."),
    click.option(
        "--amount", metavar="RANGE", help="With amounts in this range: EUR:10..20, EUR:10.., EUR:..20 or EUR:12.50."
    ),
    click.option(
        "--text",
        metavar="WORDS",
        help="With all these words in its id, its keys' values or names of services and events; refund* begins a word.",
    ),
    click.option(
        "--filter",
        metavar="FILTER",
        help="With what this filter says, such as 'service = ledger and not (status = ok or amount.EUR < 1000)'.",
    ),
    click.option("--tenant", default="", help="Look within this tenant."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """A search, and the names of the options that were given for it."""

    query: "TrailQuery"
    given: frozenset[str]


def conditions(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the options of a search; it gets them as `asked`, a `Conditions`."""

    @functools.wraps(command)
    def with_conditions(*arguments: Any, **options: Any) -> Any:
        names = ("key", "service", "since", "until", "status", "kind", "amount", "text", "filter", "tenant")
        given = {name: options.pop(name) for name in names}
        asked = Conditions(query=_query(**given), given=frozenset(name for name in names if given[name]))
        return command(*arguments, asked=asked, **options)

    decorated: Callable[..., Any] = with_conditions
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _query(
    *,
    key: str | None,
    service: str,
    since: str,
    until: str,
    status: str | None,
    kind: str | None,
    amount: str | None,
    text: str | None,
    filter: str | None,  # noqa: A002 - the option's name
    tenant: str,
) -> "TrailQuery":
    from collector.errors import Malformed
    from correlator.index import AmountRange, TextSearch, TrailQuery
    from correlator.index.filters import parse_filter
    from correlator.index.times import zoned

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
        condition = parse_filter(filter) if filter is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--filter") from error
    try:
        bounds = [zoned(bound) if bound else "" for bound in (since, until)]
    except Malformed as error:
        raise Failure(f"--since, --until: {error}", exit_code=2) from error
    return TrailQuery(
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
