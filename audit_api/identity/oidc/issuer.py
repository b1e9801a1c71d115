"""The provider itself: its metadata, its keys, and its endpoints, asked over HTTP with limits on everything that it answers.

OpenID Connect Discovery 1.0, RFC 8414 (metadata), RFC 7517 (keys). Redirects are not followed; endpoints must speak TLS, as the issuer must.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from audit_api.identity.oidc.settings import OidcSettings, is_safe_url
from collector.errors import Overloaded, TallyError

__all__ = ["Issuer", "IssuerRefused"]

_MAX_BYTES = 512 * 1024
_TIMEOUT_SECONDS = 5.0
_METADATA_SECONDS = 3_600.0
_MAX_KEYS = 100
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class IssuerRefused(TallyError):
    """The provider said no (an OAuth error, RFC 6749 section 5.2), or what it says cannot be used. `code`: its error code, if it gave one."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Issuer:
    """One identity provider. Used in one event loop; `close` it.

    Args:
        settings: which one, and how its keys are kept.
        monotonic: seconds that only go forward.
        transport: in place of the network, for tests of what a network does.
    """

    def __init__(
        self,
        settings: OidcSettings,
        *,
        monotonic: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._lock = asyncio.Lock()
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: list[Any] = []
        self._keys_at = -1e9
        self._unknown_at = -1e9

    async def close(self) -> None:
        """Let go of connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    # Keys -------------------------------------------------------------------------------------------------------------

    async def keys(self, *, kid: str | None, algorithm: str) -> list[Any]:
        """The provider's signing keys that may have made such a signature; none when it has none of that `kid`.

        Raises:
            Overloaded: they are not known, or too old, and the provider does not answer.
        """
        if self._monotonic() - self._keys_at >= self._settings.keys_seconds:
            async with self._lock:
                if self._monotonic() - self._keys_at >= self._settings.keys_seconds:
                    await self._fetch_keys()
        found = self._fitting(kid, algorithm)
        if found or kid is None:
            return found
        async with self._lock:
            now = self._monotonic()
            # a `kid` costs its sender nothing: what is not known may make us ask, but not often
            wait = self._settings.unknown_key_seconds
            if now - self._unknown_at >= wait and now - self._keys_at >= min(1.0, wait):
                self._unknown_at = now
                await self._fetch_keys()
        return self._fitting(kid, algorithm)

    def _fitting(self, kid: str | None, algorithm: str) -> list[Any]:
        fitting = []
        for key in self._keys:
            told = key.as_dict(private=False)
            if kid is not None and told.get("kid") != kid:
                continue
            if key.key_type != _KEY_TYPES[algorithm[:2]] or told.get("alg", algorithm) != algorithm:
                continue
            fitting.append(key)
        return fitting

    async def _fetch_keys(self) -> None:
        url = await self.endpoint("jwks_uri")
        told = await self._ask("GET", url)
        listed = told.get("keys")
        if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
            raise Overloaded(
                f"the identity provider's keys are no list of at most {_MAX_KEYS}", retry_after_seconds=5.0
            )
        keys: list[Any] = []
        for one in listed:
            # keys for encryption stand in the same list; a private or symmetric one has no place in it
            if (
                not isinstance(one, dict)
                or one.get("use", "sig") != "sig"
                or one.get("kty") not in ("RSA", "EC", "OKP")
            ):
                continue
            public = {
                name: value for name, value in one.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")
            }
            try:
                keys += KeySet.import_key_set({"keys": [public]}).keys
            except (JoseError, ValueError, TypeError, KeyError):
                continue  # of a kind that is not known here; others may be
        self._keys, self._keys_at = keys, self._monotonic()

    # Metadata and endpoints -------------------------------------------------------------------------------------------

    async def endpoint(self, name: str) -> str:
        """A URL of the provider's metadata.

        Raises:
            Overloaded: it does not answer.
            IssuerRefused: it has no such endpoint, or one without TLS.
        """
        url = (await self.metadata()).get(name)
        if not isinstance(url, str) or not is_safe_url(url):
            raise IssuerRefused(f"the identity provider tells of no {name} that may be used")
        return url

    async def metadata(self) -> Mapping[str, Any]:
        """What the provider says about itself (OpenID Connect Discovery 1.0 section 4); raises `Overloaded`, `IssuerRefused`."""
        now = self._monotonic()
        if self._metadata is None or now - self._metadata[0] >= _METADATA_SECONDS:
            issuer = self._settings.issuer
            told = await self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if told.get("issuer") != issuer:  # section 4.3: another provider's metadata must not be taken
                raise IssuerRefused("the identity provider calls itself otherwise than `issuer` does")
            self._metadata = now, told
        return self._metadata[1]

    async def post(self, endpoint: str, form: Mapping[str, str]) -> dict[str, Any]:
        """The answer of an endpoint to a form, sent as the client of the settings (RFC 6749 section 2.3.1).

        Raises:
            Overloaded: it does not answer.
            IssuerRefused: it refuses.
        """
        url = await self.endpoint(endpoint)
        secret = self._secret()
        fields = {**form, "client_id": self._settings.client_id} | ({"client_secret": secret} if secret else {})
        return await self._ask("POST", url, form=fields)

    def _secret(self) -> str:
        if not self._settings.client_secret_file:
            return ""
        try:
            return Path(self._settings.client_secret_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise IssuerRefused("client_secret_file cannot be read") from error

    async def _ask(self, method: str, url: str, *, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        try:
            async with asyncio.timeout(2 * _TIMEOUT_SECONDS), self._http().stream(method, url, data=form) as answer:
                body = bytearray()
                async for part in answer.aiter_bytes(65_536):
                    body += part
                    if len(body) > _MAX_BYTES:
                        raise IssuerRefused(f"the identity provider's answer is longer than {_MAX_BYTES} bytes")
                status = answer.status_code
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise Overloaded(
                f"the identity provider does not answer: {type(error).__name__}", retry_after_seconds=5.0
            ) from error
        if status >= 500 or status == 429:
            raise Overloaded(f"the identity provider answers {status}", retry_after_seconds=5.0)
        try:
            told = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise IssuerRefused(f"the identity provider's answer ({status}) is no JSON") from error
        if not isinstance(told, dict):
            raise IssuerRefused(f"the identity provider's answer ({status}) is no JSON object")
        if status != 200:
            code = told.get("error")
            raise IssuerRefused(f"the identity provider refuses ({status})", code if isinstance(code, str) else "")
        return told

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            verify = ssl.create_default_context(cafile=self._settings.ca_file or None)
            self._client = httpx.AsyncClient(
                verify=verify,
                timeout=_TIMEOUT_SECONDS,
                follow_redirects=False,
                trust_env=True,
                transport=self._transport,
                headers={"Accept": "application/json"},
            )
        return self._client
