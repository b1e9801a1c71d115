"""`tally login`: the command line's own log-in at the identity provider, for calling the API as a person or a service account."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.session import Failure, Session, pass_session, say, show

if TYPE_CHECKING:
    from audit_api.identity.oidc.issuer import Issuer
    from audit_api.identity.oidc.settings import OidcSettings
    from deploy.signin import DeviceCode


@click.command()
@click.option("--service-account", is_flag=True, help="As the client of `client_id`, with its own secret; no person.")
@click.option(
    "--print-token", is_flag=True, help="Print the access token of the log-in, a new one if it is nearly over."
)
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the log-in is kept (default: tallystick/login.json in $XDG_CONFIG_HOME, else ~/.config).",
)
@pass_session
def login(session: Session, *, service_account: bool, print_token: bool, file: Path | None) -> None:
    """Log in at the identity provider of [audit_api.oidc].

    A person opens the page that is shown, on any device. The tokens are kept in a file that its owner alone may read; then

        curl -H "Authorization: Bearer $(tally login --print-token)" https://audit.example/v1/trails
    """
    import msgspec

    settings = session.config.audit_api.oidc
    if not settings.issuer:
        raise Failure("there is no identity provider: audit_api.oidc.issuer is empty", exit_code=2)
    if service_account:
        needed, client = "client_id", settings.client_id
    else:
        needed, client = "device_client_id", settings.device_client_id
        settings = msgspec.structs.replace(settings, client_id=client, client_secret_file="", introspection=False)
    if not client:
        raise Failure(f"audit_api.oidc.{needed} is empty", exit_code=2)
    place = file or _default_file(os.environ)
    try:
        from deploy import signin
    except ModuleNotFoundError as error:
        raise Failure(f"tally login needs {error.name}: pip install 'tallystick[oidc]'", exit_code=2) from error

    async def get(issuer: "Issuer") -> str:
        if print_token:
            return await signin.access_token(place, issuer, settings, now=time.time)
        if service_account:
            saved = await signin.by_credentials(issuer, settings, now=time.time)
        else:
            saved = await signin.by_device(issuer, settings, now=time.time, tell=_tell)
        signin.write_login(place, saved)
        return ""

    token = asyncio.run(_with_issuer(settings, get))
    if print_token:
        click.echo(token)
    else:
        say(f"logged in; kept in {place}")


async def _with_issuer(settings: "OidcSettings", get: Callable[["Issuer"], Awaitable[Any]]) -> Any:
    from audit_api.identity.oidc.issuer import Issuer

    issuer = Issuer(settings, monotonic=time.monotonic)
    try:
        return await get(issuer)
    finally:
        await issuer.close()


def _tell(code: "DeviceCode") -> None:
    show(f"Open {code.verification_uri_complete or code.verification_uri}")
    show(f"and see that the page shows the code {code.user_code}")


def _default_file(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "tallystick" / "login.json"
