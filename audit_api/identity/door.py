"""The one seam between a request and who it is from: a bearer token (RFC 6750), else a browser's session.

| comes with                  | is                | an unsafe method needs besides                                     |
|-----------------------------|-------------------|--------------------------------------------------------------------|
| ``Authorization``           | the token's       | nothing; a session's cookie beside it is passed over               |
| a session's cookie          | the session's     | its own origin, and the session's CSRF token                       |
| neither                     | nobody            | its own origin (a log-in)                                          |
"""

import logging
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from audit_api.auth import OWN_PREFIX, Authenticator, Principal
from audit_api.identity.crosssite import SAFE_METHODS, refuse_other_sites
from audit_api.identity.sessions import Holds, Session, Sessions
from audit_api.problems import Problem
from collector.errors import TallyError

__all__ = ["CERTIFICATE", "CHALLENGE", "Asker", "Bearers", "Door"]

_log = logging.getLogger("tally.api")

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="tallystick"'}
CERTIFICATE = "client_certificate"
"""In the state of an ASGI scope: what RFC 8705 calls `x5t#S256` of the certificate that the client showed, checked by TLS."""
_SCHEME = "bearer "
_INVALID = {"WWW-Authenticate": 'Bearer realm="tallystick", error="invalid_token"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who a request is from. `session`: when it came with one, and not with a token."""

    principal: Principal
    session: Session | None = None


class Bearers(Protocol):
    """Tells whose a token is that is none of ours."""

    async def principal(self, token: str, *, certificate: str) -> Principal | None:
        """Whose it is; None when it proves nobody. `certificate`: see `CERTIFICATE`; empty when the client showed none.

        Raises:
            TallyError: it cannot be told now.
        """

    async def renew(self, grant: Holds) -> None:
        """Make what a session stands on last longer, where that can be done and is due; never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Lets requests in.

    Attributes:
        authenticator: tells whose a token of ours is.
        bearers: tells whose any other token is; None: there are no others.
        sessions: of browsers.
        public_url: the origin under which browsers see this API; empty: as requests arrive.
    """

    authenticator: Authenticator
    sessions: Sessions
    public_url: str = ""
    bearers: Bearers | None = None

    async def asker(self, request: Request) -> Asker | None:
        """Who a request is from; None for who brings nothing that would say so.

        Raises:
            Problem: ``unauthenticated``: what it brings proves nobody; ``cross-site``: an unsafe method without a token, and
                not from a page of our own.
            TallyError: who gave the token out cannot be asked now.
        """
        credentials = request.headers.getlist("authorization")
        if credentials:
            principal = await self._principal(credentials, str(request.scope.get("state", {}).get(CERTIFICATE, "")))
            if principal is None:
                raise Problem("unauthenticated", "the token that was sent is not valid", headers=_INVALID)
            return Asker(principal=principal)
        if request.method not in SAFE_METHODS:
            refuse_other_sites(request, public_url=self.public_url)
        session = await self.session_of(request)
        return Asker(principal=session.principal, session=session) if session is not None else None

    async def session_of(self, request: Request) -> Session | None:
        """The session that a request comes with."""
        grant = self.sessions.stands_on(request)
        if grant is not None and self.bearers is not None:
            await self.bearers.renew(grant)
        try:
            return self.sessions.of(request)
        except TallyError as error:
            _log.error("nobody is let in: %s", error)
            return None

    async def lasting(self, token: str) -> tuple[Principal, Holds]:
        """Whose a token is, for a session that it opens.

        Raises:
            Problem: ``unauthenticated``.
        """
        try:
            holds = self.authenticator.lasting(f"Bearer {token}")
            principal = holds() if holds is not None else None
        except TallyError as error:
            _log.error("nobody is let in: %s", error)
            holds = principal = None
        if holds is None or principal is None:
            raise Problem("unauthenticated", "the token that was sent is not valid", headers=_INVALID)
        return principal, holds

    async def _principal(self, credentials: list[str], certificate: str) -> Principal | None:
        if len(credentials) != 1:
            return None
        token = credentials[0]
        if self.bearers is not None and token[: len(_SCHEME)].lower() == _SCHEME:
            token = token[len(_SCHEME) :].strip()
            if not token.startswith(OWN_PREFIX):
                return await self.bearers.principal(token, certificate=certificate)
        try:
            return self.authenticator.authenticate(credentials[0])
        except TallyError as error:
            _log.error("nobody is let in: %s", error)
            return None
