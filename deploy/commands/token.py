"""`tally token`: the API's bearer tokens. Only hashes are kept; a token is shown once, when it is made."""

import time

import click

from deploy.session import Failure, Session, emit_json, json_option, pass_session


@click.group()
def token() -> None:
    """Make, list and revoke the API's bearer tokens."""


@token.command()
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice(["auditor", "sre", "admin"]),
    multiple=True,
    required=True,
    help="What it allows; may be given several times.",
)
@click.option("--days", type=click.IntRange(min=1), help="Worth nothing after so many days (default: never expires).")
@click.option("--tenant", "tenants", multiple=True, help="Sees this tenant's trails alone; may be given several times.")
@click.option(
    "--service", "services", multiple=True, help="Sees trails of this service alone; may be given several times."
)
@click.option("--note", default="", help="For people.")
@json_option
@pass_session
def add(
    session: Session,
    *,
    name: str,
    roles: tuple[str, ...],
    days: int | None,
    tenants: tuple[str, ...],
    services: tuple[str, ...],
    note: str,
    as_json: bool,
) -> None:
    """Make a token for NAME and print it, once; the API accepts it without a restart."""
    import msgspec

    from audit_api.auth import TokenRecord, hash_token, new_token
    from collector.event import format_time
    from deploy.tokens import change_tokens

    text = new_token()
    now_ns = time.time_ns()
    fields = {
        "principal": name,
        "roles": list(dict.fromkeys(roles)),
        "sha256": hash_token(text),
        "created": format_time(now_ns),
        "expires": format_time(now_ns + days * 86_400_000_000_000) if days else "",
        "note": note,
        "tenants": list(dict.fromkeys(tenants)),
        "services": list(dict.fromkeys(services)),
    }
    try:
        record = msgspec.convert(fields, TokenRecord)
    except msgspec.ValidationError as error:
        raise Failure(f"the token: {error}", exit_code=2) from error
    places = session.places
    places.make()
    change_tokens(places.tokens, lambda records: [*records, record])
    if as_json:
        emit_json({"token": text, "principal": name, "roles": record.roles, "expires": record.expires})
        return
    click.echo(text)
    click.echo("this is the only time that the token is shown; only its hash is kept", err=True)


@token.command("list")
@json_option
@pass_session
def list_(session: Session, *, as_json: bool) -> None:
    """List whose tokens there are, and what they allow."""
    from deploy.tokens import read_tokens

    records = read_tokens(session.places.tokens)
    if as_json:
        shown = ("principal", "roles", "created", "expires", "note", "tenants", "services", "since", "until")
        emit_json({"tokens": [{name: getattr(record, name) for name in shown} for record in records]})
        return
    for record in records:
        until = f"until {record.expires[:10]}" if record.expires else "no end"
        about = f"{record.principal:<24} {', '.join(record.roles):<20} made {record.created[:10]}, {until}"
        part = (
            ""
            if record.scope.whole
            else f"  sees {' '.join([*record.tenants, *record.services, record.since, record.until])}"
        )
        click.echo(f"{about}  {record.note}{part}".rstrip())


@token.command()
@click.argument("name")
@json_option
@pass_session
def revoke(session: Session, *, name: str, as_json: bool) -> None:
    """Take all tokens of NAME away; the API refuses them from then on."""
    from deploy.tokens import change_tokens, read_tokens

    gone = [record for record in read_tokens(session.places.tokens) if record.principal == name]
    if not gone:
        raise Failure(f"{name} has no token")
    change_tokens(session.places.tokens, lambda records: [record for record in records if record.principal != name])
    if as_json:
        emit_json({"revoked": len(gone)})
    else:
        click.echo(f"revoked {len(gone)} of {name}")
