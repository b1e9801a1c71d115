"""The identity provider as the application has it: whose tokens are, a browser's log-in, and sessions that go on."""

from collections.abc import Callable, Sequence

from audit_api.auth import Principal
from audit_api.gate import Operation
from audit_api.identity.oidc.browserlogin import BrowserLogins
from audit_api.identity.oidc.issuer import Issuer
from audit_api.identity.oidc.tokens import AccessTokens
from audit_api.identity.sessions import Holds, Sessions
from audit_api.settings import ApiSettings

__all__ = ["OidcProvider"]


class OidcProvider:
    """`audit_api.app.Provider`. Used in one event loop; close it.

    Args:
        settings: of the API.
        clock: Unix time in nanoseconds.
        monotonic: seconds that only go forward.
    """

    def __init__(self, settings: ApiSettings, *, clock: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._issuer = Issuer(settings.oidc, monotonic=monotonic)
        self._tokens = AccessTokens(settings.oidc, issuer=self._issuer, clock=clock)
        self._logins: BrowserLogins | None = None

    async def principal(self, token: str, *, certificate: str) -> Principal | None:
        """See `audit_api.identity.door.Bearers`."""
        return await self._tokens.principal(token, certificate=certificate)

    async def renew(self, grant: Holds) -> None:
        """See `audit_api.identity.door.Bearers`."""
        if self._logins is not None:
            await self._logins.renew(grant)

    def operations(self, sessions: Sessions) -> Sequence[Operation]:
        """A browser's log-in, where the settings name this API as a client and say under which URL it is seen."""
        if not self._settings.oidc.client_id or not self._settings.public_url:
            return ()
        self._logins = BrowserLogins(
            self._settings.oidc,
            issuer=self._issuer,
            tokens=self._tokens,
            sessions=sessions,
            public_url=self._settings.public_url,
            clock=self._clock,
            secure=self._settings.secure,
        )
        return self._logins.operations()

    async def close(self) -> None:
        """Let go of connections."""
        await self._issuer.close()
