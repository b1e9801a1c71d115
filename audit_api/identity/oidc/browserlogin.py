"""A browser's log-in at the identity provider: authorization code with PKCE, state and nonce, then a session as any other.

OpenID Connect Core 1.0 section 3.1, RFC 7636 (PKCE, S256 alone), RFC 9207 (`iss`), RFC 9700 (best current practice).

    browser                            this API                                 provider
    GET /login/oidc?next=…  ─────────▶ makes state, nonce, verifier
            ◀───────────────────────── 303 to the provider, a cookie that this browser began it
    GET …/authorize  ─────────────────────────────────────────────────────────▶ the person logs in
    GET /login/callback?code&state ──▶ the cookie's attempt, and its state: once
                                       code + verifier ───────────────────────▶ ID token, access token
                                       ID token: signature, audience, nonce
                                       access token: as of any client
            ◀───────────────────────── 303 to `next`, the session's cookie

Nothing is kept of a log-in that was begun: anybody may begin as many as they like, and would push out those of others. Its cookie holds a random
name, when it began and where it goes on, under a tag (HMAC-SHA-256, RFC 2104); state, nonce and verifier follow from the name. The key of all
four is this process's, and ends with it.
"""

import base64
import hmac
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from audit_api.auth import Principal
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.crosssite import local_path
from audit_api.identity.oidc.claims import ClaimsError, principal_of
from audit_api.identity.oidc.issuer import Issuer, IssuerRefused
from audit_api.identity.oidc.settings import OidcSettings
from audit_api.identity.oidc.tokens import AccessTokens, TokenRefused, verified
from audit_api.identity.sessions import Holds, Sessions
from audit_api.parameters import Parameter
from audit_api.problems import Problem
from collector.errors import Overloaded

__all__ = ["BrowserLogins"]

CALLBACK = "/login/callback"
_ATTEMPT_SECONDS = 600
_MAX_SPENT = 10_000
_REFRESH_EARLY_NS = 10_000_000_000
_TEXT: Mapping[str, Any] = {"type": "string", "maxLength": 1000}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    name: str = field(repr=False)
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    next: str
    began_ns: int


class _Grant:
    """What a session of the provider stands on: its latest access token's claims, and the refresh token that gets the next one."""

    def __init__(self, principal: Principal, *, until_ns: int, refresh: str, clock: Callable[[], int]) -> None:
        self.principal: Principal | None = principal
        self.until_ns = until_ns
        self.refresh = refresh
        self._clock = clock

    def __call__(self) -> Principal | None:
        """Whom the session stands for now."""
        return self.principal if self._clock() < self.until_ns else None

    @property
    def due(self) -> bool:
        """Whether it is time for the next access token."""
        return bool(self.refresh) and self._clock() >= self.until_ns - _REFRESH_EARLY_NS


class BrowserLogins:
    """The operations of a log-in at the provider.

    Args:
        settings: which provider, as which client.
        issuer: the provider.
        tokens: what an access token means here.
        sessions: where a log-in ends.
        public_url: this API as browsers see it; the provider sends them back there.
        clock: Unix time in nanoseconds.
        secure: whether browsers speak TLS with it.
        random_bytes: makes names of log-ins, and the key that all else of them follows from.
    """

    def __init__(
        self,
        settings: OidcSettings,
        *,
        issuer: Issuer,
        tokens: AccessTokens,
        sessions: Sessions,
        public_url: str,
        clock: Callable[[], int],
        secure: bool,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._settings = settings
        self._issuer = issuer
        self._tokens = tokens
        self._sessions = sessions
        self._redirect = f"{public_url}{CALLBACK}"
        self._clock = clock
        self._secure = secure
        self._random = random_bytes
        self._key = random_bytes(32)
        self._spent: OrderedDict[str, None] = OrderedDict()  # names of log-ins that have come back, the latest last

    def operations(self) -> list[Operation]:
        """Begin, come back."""
        nothing: dict[str, Any] = {"tag": "sessions", "roles": frozenset(), "success": 303}
        return [
            Operation(
                operation_id="beginLogIn",
                path="/login/oidc",
                summary="Log a browser in at the identity provider",
                about="Leads to the provider, and back to `/login/callback`. `next`, a path of this API's own, says where to go then.",
                action="session.begin",
                read=self.begin,
                parameters=(Parameter(name="next", about="A path of this API's own.", schema=_TEXT, default="/"),),
                problems=("unavailable",),
                **nothing,
            ),
            Operation(
                operation_id="finishLogIn",
                path=CALLBACK,
                summary="Come back from the identity provider",
                about="Where the provider sends a browser. What it brings opens a session in the browser that began, once.",
                action="session.login",
                recorded=True,
                secret_query=True,
                read=self.finish,
                parameters=tuple(
                    Parameter(name=name, about="As the provider sends it.", schema=_TEXT)
                    for name in (
                        "code",
                        "state",
                        "iss",
                        "session_state",
                        "error",
                        "error_description",
                        "error_uri",
                        "scope",
                    )
                ),
                problems=("unauthenticated",),
                **nothing,
            ),
        ]

    async def begin(self, call: Call, _: Runner) -> Reading:
        """To the provider."""
        where = await self._endpoint()
        attempt = self._attempt(_text(self._random(32)), self._clock(), local_path(call.values["next"]))
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect,
            "scope": " ".join(self._settings.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": _text(sha256(attempt.verifier.encode("ascii")).digest()),
            "code_challenge_method": "S256",
        }
        url = f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}"
        return Reading(
            body=b"", media_type="text/plain", headers={"Location": url, "Set-Cookie": self._cookie(attempt)}
        )

    async def finish(self, call: Call, _: Runner) -> Reading:
        """Back from the provider: a session, if everything fits."""
        attempt = self._begun(call.request.cookies.get(self._cookie_name, ""))
        if attempt is None:
            raise _refused("this browser has not begun a log-in, or long ago")
        values = call.values
        if not hmac.compare_digest(attempt.state.encode(), values["state"].encode("utf-8", "replace")):
            raise _refused("the state is not the one that this browser began with")
        if values["iss"] and values["iss"] != self._settings.issuer:  # RFC 9207: another provider's answer
            raise _refused("another identity provider answers")
        if values["error"] or not values["code"]:
            raise _refused("the identity provider did not log the person in")
        try:
            told = await self._issuer.post(
                "token_endpoint",
                {
                    "grant_type": "authorization_code",
                    "code": values["code"],
                    "redirect_uri": self._redirect,
                    "code_verifier": attempt.verifier,
                },
            )
            grant = await self._grant(told, nonce=attempt.nonce)
        except (IssuerRefused, TokenRefused, ClaimsError) as error:
            raise _refused(str(error)) from error
        principal = grant()
        if principal is None:
            raise _refused("the access token is over already")
        self._sessions.close(call.request)  # never the id that the browser had before
        session, cookie = self._sessions.open(principal, grant)
        headers = {"Location": attempt.next, "Set-Cookie": cookie}
        return Reading(body=b"", media_type="text/plain", headers=headers, asker=principal.name, session=session.name)

    async def renew(self, grant: Holds) -> None:
        """Get the next access token for a session whose last one is nearly over. Without one the session ends with it."""
        if not isinstance(grant, _Grant) or not grant.due:
            return
        refresh, grant.refresh = grant.refresh, ""  # once: providers end a session whose refresh token comes twice
        try:
            told = await self._issuer.post("token_endpoint", {"grant_type": "refresh_token", "refresh_token": refresh})
            fresh = await self._grant(told, nonce=None)
        except Overloaded:
            grant.refresh = refresh  # it may not have come there: the next request tries again
            return
        except (IssuerRefused, TokenRefused, ClaimsError):
            return
        grant.principal, grant.until_ns, grant.refresh = fresh.principal, fresh.until_ns, fresh.refresh or refresh

    async def _grant(self, told: Mapping[str, Any], *, nonce: str | None) -> _Grant:
        access, refresh = told.get("access_token"), told.get("refresh_token", "")
        if (
            not isinstance(access, str)
            or not isinstance(refresh, str)
            or str(told.get("token_type")).lower() != "bearer"
        ):
            raise TokenRefused("the provider gave no bearer token")
        claims = await self._tokens.claims(access)
        if nonce is not None:
            person = await self._person(told.get("id_token"), nonce)
            if person != claims["sub"]:  # Core section 3.1.3.7, and RFC 9700 section 4.5: tokens of two people
                raise TokenRefused("ID token and access token are of two people")
        until = claims["exp"]
        return _Grant(
            principal_of(claims, self._settings),
            until_ns=int(until * 1_000_000_000),
            refresh=refresh,
            clock=self._clock,
        )

    async def _person(self, token: object, nonce: str) -> object:
        if not isinstance(token, str):
            raise TokenRefused("the provider gave no ID token")
        claims = await verified(
            token,
            self._settings,
            issuer=self._issuer,
            audience=self._settings.client_id,
            types=("JWT",),
            now_ns=self._clock(),
        )
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode("utf-8", "replace"), nonce.encode()):
            raise TokenRefused("the ID token is not of this log-in")
        if claims.get("azp", self._settings.client_id) != self._settings.client_id:
            raise TokenRefused("the ID token was given to another client")
        return claims["sub"]

    async def _endpoint(self) -> str:
        try:
            return await self._issuer.endpoint("authorization_endpoint")
        except IssuerRefused as error:
            raise Problem("unavailable", str(error), headers={"Retry-After": "30"}) from error

    def _attempt(self, name: str, began_ns: int, following: str) -> _Attempt:
        state, nonce, verifier = (self._derived(what, name) for what in ("state", "nonce", "verifier"))
        return _Attempt(name=name, state=state, nonce=nonce, verifier=verifier, next=following, began_ns=began_ns)

    def _begun(self, cookie: str) -> _Attempt | None:
        """The log-in that a browser with this cookie began; None for a cookie that is not ours, is too old, or has come back before."""
        told, _, tag = cookie.rpartition(".")
        if not cookie.isascii() or not hmac.compare_digest(self._derived("cookie", told), tag):
            return None
        name, began, following = told.split(".")  # ours: it has its tag
        if self._clock() - int(began) >= _ATTEMPT_SECONDS * 1_000_000_000 or name in self._spent:
            return None
        self._spent[name] = None
        if len(self._spent) > _MAX_SPENT:  # then the provider alone takes a code but once (RFC 6749 section 4.1.2)
            self._spent.popitem(last=False)
        return self._attempt(
            name, int(began), base64.urlsafe_b64decode(following + "=" * (-len(following) % 4)).decode()
        )

    def _derived(self, what: str, text: str) -> str:
        return _text(hmac.digest(self._key, f"{what} {text}".encode("ascii"), "sha256"))

    @property
    def _cookie_name(self) -> str:
        return "__Host-tally-login" if self._secure else "tally-login"

    def _cookie(self, attempt: _Attempt) -> str:
        told = f"{attempt.name}.{attempt.began_ns}.{_text(attempt.next.encode('ascii'))}"
        flags = "; Secure" if self._secure else ""
        value = f"{told}.{self._derived('cookie', told)}"
        return f"{self._cookie_name}={value}; Max-Age={_ATTEMPT_SECONDS}; Path=/; HttpOnly; SameSite=Lax{flags}"


def _refused(why: str) -> Problem:
    return Problem("unauthenticated", why, headers={"WWW-Authenticate": 'Bearer realm="tallystick"'})


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
