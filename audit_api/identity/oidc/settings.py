"""The table ``[audit_api.oidc]``: which identity provider is trusted, for what, and what its claims mean here."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from audit_api.auth import Role

__all__ = ["Algorithm", "OidcSettings", "is_safe_url"]

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Signatures by a private key (RFC 7518 section 3.1, RFC 8037, RFC 9864). `none` and the symmetric ones cannot be allowed."""

_Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]


class OidcSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of OpenID Connect.

    Attributes:
        issuer: the provider's issuer identifier, an `https` URL (`http` on this machine alone); empty: no provider is asked.
        audience: what `aud` of an access token must name: this API, not the client that got the token.
        algorithms: signatures that are taken; by a private key, all of them.
        token_types: header types that an access token may have (RFC 9068 section 4); `JWT` is what many providers still write.
        clients: clients (`azp`, else `client_id`) whose tokens are taken; empty: those of every client that the provider gives this audience.
        leeway_seconds: how far clocks may be apart, for `exp`, `nbf` and `iat`.
        keys_seconds: the provider's keys are fetched again after so long, so a key that it took away counts no longer than that.
        unknown_key_seconds: a key that is not known makes them be fetched at once, though not again before so long.
        ca_file: PEM file of the authority that the provider's certificate comes from; empty: those of this machine.
        introspection: ask the provider about tokens that are no JWT (RFC 7662), as `client_id`; a good answer counts for `introspection_seconds`.
        client_id: this API as a client of the provider: for browsers' log-in and for introspection. A browser's log-in needs `public_url`.
        client_secret_file: file with its secret; empty: a public client, which has none (PKCE is used in any case).
        scopes: asked for at a browser's log-in; `openid` is needed.
        device_client_id: the client of `tally login`, public, with the device flow.
        principal_claim: the claim that names who it is; dots lead into objects. It must never be given to another person again.
        principal_prefix: stands before that name here, so that no provider can name itself a holder of a token of ours.
        roles_claim: the claim with the provider's roles or groups.
        roles: of these, which are which role here.
        tenants_claim, services_claim: claims with the tenants and services that are seen; empty: all are.
        since_claim, until_claim: claims with the bounds of the times that are seen, RFC 3339.
        jurisdictions_claim: the claim with the jurisdictions that a principal may see; without the ledger's nothing is seen.
        jurisdiction: the ledger's.
    """

    issuer: str = ""
    audience: str = "tallystick"
    algorithms: tuple[Algorithm, ...] = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
    token_types: tuple[str, ...] = ("at+jwt", "JWT")
    clients: tuple[str, ...] = ()
    leeway_seconds: Annotated[int, msgspec.Meta(ge=0, le=300)] = 30
    keys_seconds: _Seconds = 300
    unknown_key_seconds: _Seconds = 10
    ca_file: str = ""
    introspection: bool = False
    introspection_seconds: Annotated[int, msgspec.Meta(ge=0, le=300)] = 10
    client_id: str = ""
    client_secret_file: str = ""
    scopes: tuple[str, ...] = ("openid",)
    device_client_id: str = ""
    principal_claim: str = "sub"
    principal_prefix: str = "oidc:"
    roles_claim: str = "roles"
    roles: dict[str, Role] = {}
    tenants_claim: str = ""
    services_claim: str = ""
    since_claim: str = ""
    until_claim: str = ""
    jurisdictions_claim: str = ""
    jurisdiction: str = ""

    def __post_init__(self) -> None:
        """Refuse what would let in too many, or nobody."""
        if self.issuer and not is_safe_url(self.issuer):
            raise ValueError("issuer is no https URL (http is for this machine alone)")
        if self.issuer and not (self.audience and self.algorithms and self.token_types and self.principal_claim):
            raise ValueError("audience, algorithms, token_types and principal_claim may not be empty")
        if "openid" not in self.scopes or not all(re.fullmatch(r"[!#-\[\]-~]+", one) for one in self.scopes):
            raise ValueError("scopes are words of RFC 6749 section 3.3, and openid is one of them")
        if bool(self.jurisdictions_claim) != bool(self.jurisdiction):
            raise ValueError("jurisdictions_claim and jurisdiction belong together")
        if self.introspection and not self.client_id:
            raise ValueError("introspection needs client_id: providers answer to their clients alone")


def is_safe_url(url: str) -> bool:
    """Whether a provider may be spoken to under this URL: TLS, or on this machine; no credentials, query or fragment."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if "@" in parts.netloc or parts.fragment or not parts.hostname or port == 0:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))
