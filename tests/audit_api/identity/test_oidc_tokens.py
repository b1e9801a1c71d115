"""Access tokens of an identity provider: what makes one good, and each way in which one is worthless."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from audit_api.auth import Principal
from audit_api.identity.oidc.claims import ClaimsError, principal_of
from audit_api.identity.oidc.issuer import Issuer
from audit_api.identity.oidc.settings import OidcSettings
from audit_api.identity.oidc.tokens import AccessTokens
from audit_api.identity.scope import EVERYTHING, RowScope
from collector.errors import Overloaded
from tests.support.apis import Clocks
from tests.support.issuer import TestIssuer
from tests.support.ledgers import START_NS

pytestmark = pytest.mark.anyio

NOW = START_NS // 1_000_000_000


@pytest.fixture(scope="module")
def keys() -> dict[str, Any]:
    """Made once: RSA keys take a while."""
    return {"first": RSAKey.generate_key(2048), "second": RSAKey.generate_key(2048)}


@pytest.fixture
def provider(keys: dict[str, Any]) -> Iterator[TestIssuer]:
    with TestIssuer(keys={"k1": keys["first"]}) as running:
        yield running


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def settings(provider: TestIssuer) -> OidcSettings:
    return OidcSettings(issuer=provider.url, roles={"tally-auditor": "auditor"})


@pytest.fixture
async def tokens(settings: OidcSettings, clocks: Clocks) -> AsyncIterator[AccessTokens]:
    issuer = Issuer(settings, monotonic=clocks.monotonic)
    yield AccessTokens(settings, issuer=issuer, clock=clocks.wall)
    await issuer.close()


def claims_of(provider: TestIssuer, **changed: Any) -> dict[str, Any]:
    claims = {
        "iss": provider.url,
        "aud": ["other", "tallystick"],
        "sub": "ann",
        "exp": NOW + 300,
        "iat": NOW,
        "roles": ["tally-auditor", "staff"],
        "scope": "openid",
        "azp": "page",
    } | changed
    return {name: value for name, value in claims.items() if value is not None}


async def ask(tokens: AccessTokens, token: str, certificate: str = "") -> Principal | None:
    return await tokens.principal(token, certificate=certificate)


async def test_a_good_token_is_a_principal(provider: TestIssuer, tokens: AccessTokens) -> None:
    token = provider.token(claims_of(provider), kid="k1")
    assert await ask(tokens, token) == Principal(name="oidc:ann", roles=frozenset({"auditor"}))
    assert await ask(tokens, provider.token(claims_of(provider, aud="tallystick"), kid="k1", typ="at+jwt")) is not None
    assert provider.asked == ["/.well-known/openid-configuration", "/jwks"]


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by RFC 9864; providers still write it
@pytest.mark.parametrize(("kind", "alg"), [("RSA", "PS256"), ("EC", "ES256"), ("OKP", "EdDSA"), ("OKP", "Ed25519")])
async def test_other_keys(provider: TestIssuer, tokens: AccessTokens, kind: str, alg: str) -> None:
    provider.new_key("other", kind)
    assert await ask(tokens, provider.token(claims_of(provider), kid="other", alg=alg)) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "other"},
        {"aud": None},
        {"aud": ["tallystick "]},
        {"aud": 7},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": NOW - 31},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": NOW + 31},
        {"iat": NOW + 31},
        {"sub": None},
        {"sub": ""},
        {"typ": "Refresh"},
        {"typ": "ID"},
        {"nonce": "n", "scope": None},
        {"roles": 7},
        {"roles": [7]},
        {"cnf": {"x5t#S256": "AAAA"}},
        {"cnf": {"jkt": "AAAA"}},
        {"cnf": {}},
    ],
    ids=str,
)
async def test_what_a_token_must_not_say(provider: TestIssuer, tokens: AccessTokens, changed: dict[str, Any]) -> None:
    assert await ask(tokens, provider.token(claims_of(provider, **changed), kid="k1")) is None


async def test_times_may_be_off_by_the_leeway(provider: TestIssuer, tokens: AccessTokens) -> None:
    for changed in ({"exp": NOW - 29}, {"nbf": NOW + 30}, {"iat": NOW + 30}):
        assert await ask(tokens, provider.token(claims_of(provider, **changed), kid="k1")) is not None


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


async def test_algorithms_cannot_be_confused(provider: TestIssuer, tokens: AccessTokens, keys: dict[str, Any]) -> None:
    claims = claims_of(provider)
    good = provider.token(claims, kid="k1")
    head, body, signature = good.split(".")
    public_pem = keys["first"].as_pem(private=False)
    secret = (
        OctKey.import_key(public_pem)
        if b"PUBLIC" not in public_pem
        else OctKey.import_key(base64.b64encode(public_pem))
    )
    forged = [
        f"{part({'alg': 'none', 'kid': 'k1', 'typ': 'JWT'})}.{body}.",
        f"{part({'alg': 'None', 'kid': 'k1'})}.{body}.{signature}",
        f"{part({'alg': 'HS256', 'kid': 'k1'})}.{body}.{signature}",
        jwt.encode({"alg": "HS256", "kid": "k1"}, claims, secret, algorithms=["HS256"]),
        f"{part({'alg': 'ES256', 'kid': 'k1'})}.{body}.{signature}",
        f"{part({'alg': 'RS512', 'kid': 'k1'})}.{body}.{signature}",
        f"{part({'alg': 'RS256', 'kid': 'k1', 'crit': ['b64'], 'b64': False})}.{body}.{signature}",
        f"{part({'alg': 'RS256', 'kid': 'k1', 'typ': 'logout+jwt'})}.{body}.{signature}",
        f"{head}.{part(claims | {'sub': 'ada'})}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-8]}AAAAAAAA",
        f"{head}.{body}.{signature}.x",
        good + "\n",
        "..",
        "a.b.c",
        "x" * 20_000,
    ]
    assert await ask(tokens, good) is not None
    for token in forged:
        assert await ask(tokens, token) is None, token[:60]


async def test_a_key_inside_the_token_is_not_taken(
    provider: TestIssuer, tokens: AccessTokens, keys: dict[str, Any]
) -> None:
    own = keys["second"]
    header = {"alg": "RS256", "kid": "k1", "jwk": own.as_dict(private=False), "jku": f"{provider.url}/evil"}
    assert await ask(tokens, jwt.encode(header, claims_of(provider), own, algorithms=["RS256"])) is None
    assert "/evil" not in provider.asked


async def test_keys_are_rotated_and_those_taken_away_count_no_longer(
    provider: TestIssuer, tokens: AccessTokens, clocks: Clocks, keys: dict[str, Any]
) -> None:
    old = provider.token(claims_of(provider, exp=NOW + 9_000), kid="k1")
    assert await ask(tokens, old) is not None
    provider.keys = {"k2": keys["second"]}
    new = provider.token(claims_of(provider, exp=NOW + 9_000), kid="k2")
    clocks.seconds += 2
    assert await ask(tokens, new) is not None  # an unknown kid: asked at once
    assert await ask(tokens, old) is None
    assert provider.asked.count("/jwks") == 2


async def test_a_key_taken_away_is_forgotten_in_time(
    provider: TestIssuer, tokens: AccessTokens, clocks: Clocks, keys: dict[str, Any]
) -> None:
    token = provider.token(claims_of(provider, exp=NOW + 9_000), kid="k1")
    assert await ask(tokens, token) is not None
    provider.keys = {"k2": keys["second"]}
    clocks.seconds += 299
    assert await ask(tokens, token) is not None
    clocks.seconds += 1
    assert await ask(tokens, token) is None


async def test_unknown_keys_cannot_make_us_ask_often(
    provider: TestIssuer, tokens: AccessTokens, clocks: Clocks
) -> None:
    good = provider.token(claims_of(provider), kid="k1")
    assert await ask(tokens, good) is not None
    clocks.seconds += 2
    _, body, signature = good.split(".")
    for at in range(30):
        assert await ask(tokens, f"{part({'alg': 'RS256', 'kid': f'x{at}'})}.{body}.{signature}") is None
    assert provider.asked.count("/jwks") == 2
    clocks.seconds += 10
    assert await ask(tokens, f"{part({'alg': 'RS256', 'kid': 'y'})}.{body}.{signature}") is None
    assert provider.asked.count("/jwks") == 3


async def test_a_provider_that_is_away_lets_nobody_in_and_says_so(
    provider: TestIssuer, tokens: AccessTokens, clocks: Clocks
) -> None:
    token = provider.token(claims_of(provider, exp=NOW + 9_000), kid="k1")
    provider.broken = 503
    with pytest.raises(Overloaded):
        await ask(tokens, token)
    provider.broken = 0
    assert await ask(tokens, token) is not None
    provider.broken = 500
    clocks.seconds += 200
    assert await ask(tokens, token) is not None  # the keys are still young enough
    clocks.seconds += 200
    with pytest.raises(Overloaded):
        await ask(tokens, token)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": "http://evil.example/jwks"},
        {"jwks_uri": 7},
        {"jwks_uri": "file:///etc/passwd"},
    ],
)
async def test_metadata_that_leads_elsewhere_lets_nobody_in(
    provider: TestIssuer, tokens: AccessTokens, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    assert await ask(tokens, provider.token(claims_of(provider), kid="k1")) is None
    assert "/jwks" not in provider.asked


class TestClients:
    @pytest.fixture
    def settings(self, provider: TestIssuer) -> OidcSettings:
        return OidcSettings(issuer=provider.url, roles={"tally-auditor": "auditor"}, clients=("page",))

    async def test_a_token_that_another_client_got_is_refused(self, provider: TestIssuer, tokens: AccessTokens) -> None:
        assert await ask(tokens, provider.token(claims_of(provider), kid="k1")) is not None
        for changed in ({"azp": "shop"}, {"azp": None}, {"azp": None, "client_id": "shop"}):
            assert await ask(tokens, provider.token(claims_of(provider, **changed), kid="k1")) is None
        assert await ask(tokens, provider.token(claims_of(provider, azp=None, client_id="page"), kid="k1")) is not None


async def test_a_bound_token_needs_its_certificate(provider: TestIssuer, tokens: AccessTokens) -> None:
    token = provider.token(claims_of(provider, cnf={"x5t#S256": "AbC-_"}), kid="k1")
    assert await ask(tokens, token, "AbC-_") is not None
    assert await ask(tokens, token, "AbC-x") is None
    assert await ask(tokens, token) is None


class TestIntrospection:
    @pytest.fixture
    def settings(self, provider: TestIssuer) -> OidcSettings:
        return OidcSettings(
            issuer=provider.url, roles={"tally-auditor": "auditor"}, introspection=True, client_id="api"
        )

    async def test_opaque_tokens_are_asked_about(
        self, provider: TestIssuer, tokens: AccessTokens, clocks: Clocks
    ) -> None:
        told: dict[str, Any] = {"active": True} | claims_of(provider, iss=None)
        forms: list[dict[str, str]] = []

        def answer(form: Any) -> tuple[int, Any]:
            forms.append(form)
            return 200, told if form["token"] == "opaque" else {"active": False}

        provider.answers["/introspect"] = answer
        assert await ask(tokens, "opaque") == Principal(name="oidc:ann", roles=frozenset({"auditor"}))
        assert await ask(tokens, "stolen") is None
        assert forms[0] == {"token": "opaque", "token_type_hint": "access_token", "client_id": "api"}
        told = {"active": False}
        assert await ask(tokens, "opaque") is not None  # for ten seconds
        assert len(forms) == 2
        clocks.seconds += 10
        assert await ask(tokens, "opaque") is None

    @pytest.mark.parametrize(
        "changed",
        [
            {"active": False},
            {"active": "true"},
            {"aud": "other"},
            {"aud": None},
            {"exp": NOW - 31},
            {"iss": "https://evil"},
        ],
        ids=str,
    )
    async def test_what_is_active_may_still_not_be_for_us(
        self, provider: TestIssuer, tokens: AccessTokens, changed: dict[str, Any]
    ) -> None:
        told = (
            {"active": True}
            | claims_of(provider, **changed)
            | ({"active": changed["active"]} if "active" in changed else {})
        )
        provider.answers["/introspect"] = lambda _: (200, told)
        assert await ask(tokens, "opaque") is None

    async def test_a_provider_that_does_not_say_lets_nobody_in(
        self, provider: TestIssuer, tokens: AccessTokens
    ) -> None:
        for status, answer, raises in ((500, {}, True), (401, {"error": "invalid_client"}, False), (200, b"[", False)):
            provider.answers["/introspect"] = lambda _, status=status, answer=answer: (status, answer)  # type: ignore[misc]
            if raises:
                with pytest.raises(Overloaded):
                    await ask(tokens, "opaque")
            else:
                assert await ask(tokens, "opaque") is None


SCOPED = OidcSettings(
    issuer="https://idp.example",
    roles={"a": "auditor", "s": "sre"},
    roles_claim="realm_access.roles",
    tenants_claim="tenants",
    services_claim="https://claims.example/services",
    since_claim="audit.since",
    until_claim="audit.until",
    jurisdictions_claim="places",
    jurisdiction="EU",
)
ALL = {
    "sub": "ann",
    "realm_access": {"roles": ["a", "x"]},
    "tenants": ["*"],
    "https://claims.example/services": "*",
    "audit": {"since": "*", "until": "*"},
    "places": ["EU", "UK"],
}


def scope_of(**changed: Any) -> RowScope:
    return principal_of({name: value for name, value in (ALL | changed).items() if value is not None}, SCOPED).scope


def test_claims_are_scopes_and_what_is_missing_hides() -> None:
    assert scope_of() == EVERYTHING
    assert principal_of(ALL, SCOPED).roles == {"auditor"}
    assert scope_of(tenants=["acme", "*"]) == EVERYTHING
    assert scope_of(tenants="acme") == RowScope(tenants=frozenset({"acme"}))
    assert scope_of(tenants=[]).tenants == frozenset()
    assert scope_of(tenants=None).tenants == frozenset()
    assert scope_of(places=["US"]).tenants == frozenset()
    assert scope_of(places=None).tenants == frozenset()
    window = {"since": "2026-01-01T01:00:00+01:00", "until": "2026-02-01T00:00:00Z"}
    assert scope_of(audit=window) == RowScope(
        since="2026-01-01T00:00:00.000000000Z", until="2026-02-01T00:00:00.000000000Z"
    )
    assert scope_of(audit={"since": "*"}).tenants == frozenset()
    services = {"https://claims.example/services": ["ledger"]}
    assert scope_of(**services).services == frozenset({"ledger"})


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@given(st.fixed_dictionaries({name: _values | st.just(value) for name, value in ALL.items()}))
def test_no_claims_break_it(claims: dict[str, Any]) -> None:
    try:
        principal = principal_of(claims, SCOPED)
    except ClaimsError:
        return
    assert principal.name.startswith("oidc:")
    assert principal.roles <= {"auditor", "sre"}


@settings_of(max_examples=40)  # each in an event loop of its own
@given(st.text(max_size=80), st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip"]), _values))
def test_no_token_breaks_it(text: str, header: dict[str, Any]) -> None:
    import anyio

    settings = OidcSettings(issuer="https://idp.invalid")
    issuer = Issuer(settings, monotonic=lambda: 0.0)
    issuer._keys_at = 0.0  # it has keys, none of them
    issuer._unknown_at = 0.0
    tokens = AccessTokens(settings, issuer=issuer, clock=lambda: START_NS)

    async def both() -> list[Principal | None]:
        return [await ask(tokens, text), await ask(tokens, f"{part(header)}.{part({})}.AAAA")]

    assert anyio.run(both) == [None, None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://idp.example"},
        {"issuer": "https://u:p@idp.example"},
        {"issuer": "idp.example"},
        {"issuer": "https://idp.example", "audience": ""},
        {"scopes": ()},
        {"scopes": ("openid", "a b")},
        {"jurisdiction": "EU"},
        {"introspection": True},
    ],
    ids=str,
)
def test_settings_that_would_let_in_too_many_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says its own reason
        OidcSettings(**wrong)
