"""Access tokens: verified here by the provider's keys (RFC 9068), or asked about (RFC 7662).

What makes a token worthless: another issuer or audience, a signature that is missing, of a kind that is not allowed or by a key that is not the
provider's, its time, its type (an ID or refresh token is no access token), and a certificate that it is bound to and that did not come with it
(RFC 8705): such a token is never taken as if anybody could carry it.
"""

import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError

from audit_api.auth import Principal
from audit_api.identity.oidc.claims import ClaimsError, principal_of
from audit_api.identity.oidc.issuer import Issuer, IssuerRefused
from audit_api.identity.oidc.settings import OidcSettings

__all__ = ["AccessTokens", "TokenRefused", "verified"]

_log = logging.getLogger("tally.api")

MAX_TOKEN = 16_384
_KEPT = 4_096


class TokenRefused(Exception):
    """The token proves nobody. The message says why, for the log of this process alone, and holds nothing of the token."""


class AccessTokens:
    """`audit_api.identity.door.Bearers` by an identity provider.

    Args:
        settings: what is expected of a token, and what its claims mean.
        issuer: the provider.
        clock: Unix time in nanoseconds.
    """

    def __init__(self, settings: OidcSettings, *, issuer: Issuer, clock: Callable[[], int]) -> None:
        self._settings = settings
        self._issuer = issuer
        self._clock = clock
        self._introspected: OrderedDict[bytes, tuple[int, Mapping[str, Any]]] = OrderedDict()

    async def principal(self, token: str, *, certificate: str) -> Principal | None:
        """Whose a token is; None when it proves nobody. `certificate`: the client's, as `x5t#S256`; empty when it sent none.

        Raises:
            Overloaded: the provider must be asked, and does not answer.
        """
        try:
            return principal_of(await self.claims(token, certificate=certificate), self._settings)
        except (TokenRefused, ClaimsError, IssuerRefused) as error:
            _log.info("a token is refused: %s", error)
            return None

    async def claims(self, token: str, *, certificate: str = "") -> Mapping[str, Any]:
        """The claims of an access token that is good here.

        Raises:
            TokenRefused: it is not.
            Overloaded, IssuerRefused: the provider does not say.
        """
        if len(token) > MAX_TOKEN:
            raise TokenRefused("it is too long")
        claims: Mapping[str, Any]
        if token.count(".") == 2:
            claims = await verified(
                token,
                self._settings,
                issuer=self._issuer,
                audience=self._settings.audience,
                types=self._settings.token_types,
                now_ns=self._clock(),
            )
            if str(claims.get("typ", "Bearer")).lower() not in (
                "bearer",
                "dpop",
            ):  # Keycloak tells ID and refresh tokens so
                raise TokenRefused("it is no access token")
            if "nonce" in claims and "scope" not in claims:
                raise TokenRefused("it looks like an ID token")
        elif self._settings.introspection:
            claims = await self._introspect(token)
        else:
            raise TokenRefused("it is no JWT")
        self._from_a_known_client(claims)
        _bound_to(claims, certificate)
        return claims

    def _from_a_known_client(self, claims: Mapping[str, Any]) -> None:
        if self._settings.clients and claims.get("azp", claims.get("client_id")) not in self._settings.clients:
            raise TokenRefused("it was given to a client that is not on the list")

    async def _introspect(self, token: str) -> Mapping[str, Any]:
        name = sha256(token.encode("utf-8", "replace")).digest()
        now = self._clock()
        kept = self._introspected.get(name)
        if kept is None or kept[0] <= now:
            claims = await self._issuer.post(
                "introspection_endpoint", {"token": token, "token_type_hint": "access_token"}
            )
            self._introspected[name] = kept = (now + self._settings.introspection_seconds * 1_000_000_000, claims)
            self._introspected.move_to_end(name)
            if len(self._introspected) > _KEPT:
                self._introspected.popitem(last=False)
        told = dict(kept[1])
        if told.get("active") is not True:
            raise TokenRefused("the provider says that it is not active")
        # an active token for another audience is as good as stolen: RFC 7662 leaves that to us; `iss` it need not repeat
        told.setdefault("iss", self._settings.issuer)
        _check_claims(told, self._settings, self._settings.audience, now)
        return told


async def verified(
    token: str, settings: OidcSettings, *, issuer: Issuer, audience: str, types: Sequence[str], now_ns: int
) -> Mapping[str, Any]:
    """The claims of a JWT that the provider signed for this audience, and that is good now.

    Raises:
        TokenRefused: it is none.
        Overloaded, IssuerRefused: the provider's keys are not to be had.
    """
    registry = jws.JWSRegistry(algorithms=list(settings.algorithms), strict_check_header=False)
    try:
        header = jws.extract_compact(token.encode("ascii"), registry=registry).headers()
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise TokenRefused(f"it cannot be read: {type(error).__name__}") from error
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if algorithm not in settings.algorithms:
        raise TokenRefused("its algorithm is not allowed")
    if "crit" in header:
        raise TokenRefused("it has critical header parameters, and none is understood")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in {one.lower() for one in types}:
        raise TokenRefused("its type is not allowed")
    if kid is not None and (not isinstance(kid, str) or len(kid) > 300):
        raise TokenRefused("its kid is none")
    keys = await issuer.keys(kid=kid, algorithm=str(algorithm))
    for key in keys:
        try:
            claims = jwt.decode(token, key, algorithms=[str(algorithm)], registry=registry).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            continue
        _check_claims(claims, settings, audience, now_ns)
        return claims
    raise TokenRefused("its signature is not by a key of the provider")


def _check_claims(claims: Mapping[str, Any], settings: OidcSettings, audience: str, now_ns: int) -> None:
    registry = jwt.JWTClaimsRegistry(
        now=now_ns // 1_000_000_000,
        leeway=settings.leeway_seconds,
        iss={"essential": True, "value": settings.issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        sub={"essential": True},
    )
    try:
        registry.validate(dict(claims))
    except (JoseError, ValueError, TypeError) as error:
        raise TokenRefused(f"its claims: {error}") from error


def _bound_to(claims: Mapping[str, Any], certificate: str) -> None:
    """RFC 8705 section 3.1; a token that is bound to anything else (RFC 9449, DPoP) cannot be used here."""
    bound = claims.get("cnf")
    if bound is None:
        return
    thumbprint = bound.get("x5t#S256") if isinstance(bound, Mapping) and len(bound) == 1 else None
    if not isinstance(thumbprint, str) or not certificate or not hmac.compare_digest(thumbprint, certificate):
        raise TokenRefused("it is bound to a certificate or key that did not come with it")
