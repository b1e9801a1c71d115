"""Logging the command line in at the identity provider, and the file that keeps what it got: mode 0600, never in a log or an argument.

RFC 8628 (device flow) for people, RFC 6749 section 4.4 (client credentials) for service accounts, section 6 for refreshing.
"""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from audit_api.identity.oidc.issuer import Issuer, IssuerRefused
from audit_api.identity.oidc.settings import OidcSettings
from collector.errors import Overloaded, TallyError

__all__ = [
    "DeviceCode",
    "SavedLogin",
    "SigninError",
    "access_token",
    "by_credentials",
    "by_device",
    "read_login",
    "write_login",
]

_MAX_FILE_BYTES = 65_536
_EARLY_SECONDS = 30.0
_SLOWER_SECONDS = 5.0  # RFC 8628 section 3.5
_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class SigninError(TallyError):
    """Nobody is logged in; the message says why, and holds no token."""


class SavedLogin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of a log-in: whose tokens, the tokens, and until when the access token is good (Unix time in seconds)."""

    issuer: str
    client_id: str
    access_token: str
    expires: float
    refresh_token: str = ""


class DeviceCode(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 8628 section 3.2: what a person types where."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: Annotated[float, msgspec.Meta(gt=0, le=3_600)]
    verification_uri_complete: str = ""
    interval: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0


class _Tokens(msgspec.Struct, frozen=True, kw_only=True):
    access_token: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
    expires_in: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] = 60.0
    refresh_token: str = ""


async def by_device(
    issuer: Issuer,
    settings: OidcSettings,
    *,
    now: Callable[[], float],
    tell: Callable[[DeviceCode], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> SavedLogin:
    """Log a person in, who opens a page on any device; `tell` shows them where.

    Raises:
        SigninError: they refused, or did not come in time, or the provider said no.
        Overloaded: it did not answer at the beginning.
    """
    code = _read(await _post(issuer, "device_authorization_endpoint", {"scope": " ".join(settings.scopes)}), DeviceCode)
    tell(code)
    interval, until = code.interval, now() + code.expires_in
    while now() < until:
        await sleep(interval)
        try:
            told = await issuer.post("token_endpoint", {"grant_type": _GRANT, "device_code": code.device_code})
        except Overloaded:
            interval = min(interval * 2, 60.0)
            continue
        except IssuerRefused as error:
            if error.code == "slow_down":
                interval += _SLOWER_SECONDS
            elif error.code != "authorization_pending":
                raise SigninError(f"{error}{f': {error.code}' if error.code.isidentifier() else ''}") from error
            continue
        return _saved(told, settings, now())
    raise SigninError("nobody logged in in time")


async def by_credentials(issuer: Issuer, settings: OidcSettings, *, now: Callable[[], float]) -> SavedLogin:
    """Log a service account in, with the client's own secret; raises as `by_device`."""
    form = {"grant_type": "client_credentials", "scope": " ".join(settings.scopes)}
    return _saved(await _post(issuer, "token_endpoint", form), settings, now())


async def access_token(file: Path, issuer: Issuer, settings: OidcSettings, *, now: Callable[[], float]) -> str:
    """The access token of the log-in in this file; a new one, if it is nearly over.

    Raises:
        SigninError: there is none, it is another provider's or client's, or it is over.
        Overloaded: the provider does not answer.
    """
    saved = read_login(file)
    if (saved.issuer, saved.client_id) != (settings.issuer, settings.client_id):
        raise SigninError("the log-in is another identity provider's or client's: tally login")
    if now() < saved.expires - _EARLY_SECONDS:
        return saved.access_token
    if not saved.refresh_token:
        raise SigninError("the log-in is over: tally login")
    form = {"grant_type": "refresh_token", "refresh_token": saved.refresh_token}
    fresh = _saved(await _post(issuer, "token_endpoint", form), settings, now())
    if not fresh.refresh_token:
        fresh = msgspec.structs.replace(fresh, refresh_token=saved.refresh_token)
    write_login(file, fresh)
    return fresh.access_token


def read_login(file: Path) -> SavedLogin:
    """The log-in in a file; raises `SigninError`, also when others may read it."""
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise SigninError(f"{file} may be read by others: remove it, and log in again")
            data = stream.read(_MAX_FILE_BYTES + 1)
        return msgspec.json.decode(data, type=SavedLogin)
    except FileNotFoundError as error:
        raise SigninError("nobody is logged in: tally login") from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SigninError(f"{file} cannot be used: remove it, and log in again") from error


def write_login(file: Path, saved: SavedLogin) -> None:
    """Keep a log-in; the file appears whole, and its owner alone may read it. Raises `SigninError`."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = file.with_suffix(".new")
        scratch.unlink(missing_ok=True)
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as stream:
            stream.write(msgspec.json.encode(saved))
        scratch.replace(file)
    except OSError as error:
        raise SigninError(f"{file} cannot be written: {error.strerror}") from error


async def _post(issuer: Issuer, endpoint: str, form: dict[str, str]) -> dict[str, Any]:
    try:
        return await issuer.post(endpoint, form)
    except IssuerRefused as error:
        raise SigninError(f"{error}{f': {error.code}' if error.code.isidentifier() else ''}") from error


def _read(told: dict[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(told, kind)
    except msgspec.ValidationError as error:
        raise SigninError(f"the identity provider's answer cannot be used: {error}") from error


def _saved(told: dict[str, Any], settings: OidcSettings, now: float) -> SavedLogin:
    tokens: _Tokens = _read(told, _Tokens)
    return SavedLogin(
        issuer=settings.issuer,
        client_id=settings.client_id,
        access_token=tokens.access_token,
        expires=now + tokens.expires_in,
        refresh_token=tokens.refresh_token,
    )
