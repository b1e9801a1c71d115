"""What a provider's claims mean here: who it is, in which roles, and which part of the ledger is seen. Pure.

Every claim that the settings name must be there: one that is missing hides everything, and the value ``*`` says "all". So a provider that
forgets to restrict an auditor shows them nothing, instead of everything.
"""

from collections.abc import Mapping
from typing import Any

from audit_api.auth import ANONYMOUS, Principal
from audit_api.identity.oidc.settings import OidcSettings
from audit_api.identity.scope import RowScope
from collector.errors import Malformed, TallyError
from collector.event import format_time, parse_time

__all__ = ["ClaimsError", "principal_of"]

_ALL = "*"
_MAX_VALUES = 1_000
_MAX_NAME = 200


class ClaimsError(TallyError):
    """The claims say nothing that can be used; the message names the claim and not its value."""


def principal_of(claims: Mapping[str, Any], settings: OidcSettings) -> Principal:
    """Whom the claims of a verified token are of. Without a role that means one here it may do nothing.

    Raises:
        ClaimsError: there is no usable name, or a claim that the settings name is of the wrong type.
    """
    name = _claim(claims, settings.principal_claim)
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise ClaimsError(f"the claim {settings.principal_claim} is no name")
    name = settings.principal_prefix + name
    if name == ANONYMOUS:
        raise ClaimsError(f"the claim {settings.principal_claim} is the name of those without a token")
    roles = frozenset(
        settings.roles[role] for role in _words(claims, settings.roles_claim) or () if role in settings.roles
    )
    return Principal(name=name, roles=roles, scope=_scope(claims, settings))


def _scope(claims: Mapping[str, Any], settings: OidcSettings) -> RowScope:
    tenants = _seen(claims, settings.tenants_claim)
    if settings.jurisdictions_claim:
        here = _seen(claims, settings.jurisdictions_claim)
        if here is not None and settings.jurisdiction not in here:
            tenants = frozenset()
    since, until = _bound(claims, settings.since_claim), _bound(claims, settings.until_claim)
    if since is None or until is None:
        tenants = frozenset()
    return RowScope(
        tenants=tenants, services=_seen(claims, settings.services_claim), since=since or "", until=until or ""
    )


def _seen(claims: Mapping[str, Any], path: str) -> frozenset[str] | None:
    """The values of a claim; None: all are seen, for it says so, or the settings do not ask."""
    if not path:
        return None
    words = _words(claims, path) or ()
    return None if _ALL in words else frozenset(word for word in words if word)


def _bound(claims: Mapping[str, Any], path: str) -> str | None:
    """A time; empty: no bound. None: the claim that should say so is missing."""
    value = _claim(claims, path) if path else _ALL
    if value is None:
        return None
    if value == _ALL:
        return ""
    if not isinstance(value, str):
        raise ClaimsError(f"the claim {path} is no time")
    try:
        return format_time(parse_time(value))
    except Malformed as error:
        raise ClaimsError(f"the claim {path} is no RFC 3339 time") from error


def _words(claims: Mapping[str, Any], path: str) -> list[str] | None:
    """A claim that is a word or a list of them; None when it is not there."""
    value = _claim(claims, path)
    if value is None:
        return None
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or len(words) > _MAX_VALUES or not all(isinstance(word, str) for word in words):
        raise ClaimsError(f"the claim {path} is neither a text nor a list of at most {_MAX_VALUES} texts")
    return words


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """By its whole name (names may hold dots), else along the dots."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
