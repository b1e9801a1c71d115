"""Identities from a real Keycloak: roles, a tenant's auditor, a browser's log-in, service accounts, and stolen, old and forged tokens."""

from __future__ import annotations

import base64
import html
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from audit_api.identity.oidc.issuer import Issuer
from audit_api.identity.oidc.settings import OidcSettings
from audit_api.settings import ApiSettings
from collector.event import Access
from collector.store.sqlite import SqliteStore
from correlator.index.sqlite import SqliteIndex
from deploy.signin import DeviceCode, access_token, by_device, write_login
from tests.servers.keycloak import SECRETS, Keycloak
from tests.support.apis import Api, Clocks, open_api
from tests.support.ledgers import SmallLedger, payment, small_story

pytestmark = [pytest.mark.anyio, pytest.mark.keycloak, pytest.mark.timeout(400)]

OWN, FOREIGN = "tenant/acme/transaction/PAY-7", "tenant/globex/transaction/PAY-7"


@dataclass
class RealClocks(Clocks):
    """Those of this machine, as Keycloak has them; `seconds` goes before."""

    def wall(self) -> int:
        return time.time_ns() + int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return time.monotonic() + self.seconds


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SmallLedger]:
    store, index = SqliteStore(tmp_path / "store.sqlite"), SqliteIndex(tmp_path / "index.sqlite")
    made = SmallLedger(store=store, index=index)
    small_story(made)
    for tenant in ("acme", "globex"):
        made.ship(f"{tenant}/00000000000000cc", [payment(7, 0, tenant, "payment.requested", tenant=tenant)])
    made.publish()
    yield made
    made.log.close()
    store.close()
    index.close()


@pytest.fixture
async def api(tmp_path: Path, ledger: SmallLedger, keycloak: Keycloak) -> AsyncIterator[Api]:
    secret = tmp_path / "secret"
    secret.write_text(SECRETS["tally-page"])
    oidc = OidcSettings(
        issuer=keycloak.issuer,
        client_id="tally-page",
        client_secret_file=str(secret),
        principal_claim="preferred_username",
        roles_claim="tally_roles",
        roles={"tally-auditor": "auditor", "tally-sre": "sre", "tally-admin": "admin"},
        tenants_claim="tally_tenants",
        unknown_key_seconds=1,
    )
    settings = ApiSettings(public_url="http://127.0.0.1", burst_requests=10_000, oidc=oidc)
    async with open_api(tmp_path, ledger, settings, clocks=RealClocks()) as opened:
        yield opened


async def read(api: Api, token: str, path: str = "/v1/trails") -> int:
    return (await api.client.get(path, headers={"Authorization": f"Bearer {token}"})).status_code


def last(api: Api) -> Access:
    access = api.record.events[-1].access
    assert access is not None
    return access


async def test_roles_and_a_tenants_auditor(api: Api, keycloak: Keycloak) -> None:
    paths = ("/v1/trails", f"/v1/trails/{OWN}", f"/v1/trails/{FOREIGN}", f"/v1/exports/{OWN}", "/v1/principals")
    expected = {
        "ann": (200, 200, 200, 200, 403),
        "sam": (200, 200, 200, 403, 403),
        "ada": (200, 200, 200, 200, 200),
        "tess": (200, 200, 404, 200, 403),
        "nils": (403, 403, 403, 403, 403),
    }
    for user, statuses in expected.items():
        token = keycloak.password_token(user)
        assert tuple([await read(api, token, path) for path in paths]) == statuses, user
        assert [event.access.principal for event in api.record.events[-len(paths) :] if event.access] == [
            f"oidc:{user}"
        ] * len(paths)
        if user == "tess":
            answer = await api.client.get("/v1/trails", headers={"Authorization": f"Bearer {token}"})
            assert [one["trail"] for one in answer.json()["trails"] if "transaction" in one["trail"]] == [OWN]
            assert "globex" not in answer.text
    token = keycloak.token("tally-batch", grant_type="client_credentials")["access_token"]
    assert await read(api, token) == 200
    assert last(api).principal == "oidc:service-account-tally-batch"


async def test_stolen_old_and_forged_tokens(api: Api, keycloak: Keycloak) -> None:
    told = keycloak.token("tally-page", grant_type="password", username="ann", password="ann-for-tests", scope="openid")
    good: str = told["access_token"]
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    async with httpx.AsyncClient(timeout=60) as browser:
        listed = (await browser.get(f"{keycloak.issuer}/protocol/openid-connect/certs")).json()["keys"]
    key = RSAKey.import_key(next(one for one in listed if one["use"] == "sig"))
    modulus = base64.urlsafe_b64decode(str(key.as_dict(private=False)["n"]) + "==")
    worthless = {
        "got by another client, for another audience": keycloak.password_token("ann", "other-app"),
        "the ID token": told["id_token"],
        "the refresh token": told["refresh_token"],
        "no signature": f"{part(header | {'alg': 'none'})}.{body}.",
        "signed with the public key as a secret": jwt.encode(
            header | {"alg": "HS256"}, claims, OctKey.import_key(modulus), algorithms=["HS256"]
        ),
        "signed by somebody else": jwt.encode(header, claims, RSAKey.generate_key(2048), algorithms=["RS256"]),
        "another's name": f"{head}.{part(claims | {'preferred_username': 'ada'})}.{signature}",
    }
    assert await read(api, good) == 200
    for what, token in worthless.items():
        assert await read(api, token) == 401, what
        assert (last(api).principal, last(api).refused) == ("anonymous", "unauthenticated")
    api.clocks.seconds += claims["exp"] - time.time() + 31
    assert await read(api, good) == 401, "expired"


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


async def test_keys_are_rotated(api: Api, keycloak: Keycloak) -> None:
    old = keycloak.password_token("ann")
    assert await read(api, old) == 200
    provider = "org.keycloak.keys.KeyProvider"
    before = keycloak.administer("GET", f"/components?type={provider}")
    keycloak.administer(
        "POST",
        "/components",
        {
            "name": "next",
            "providerId": "rsa-generated",
            "providerType": provider,
            "config": {"priority": ["200"], "keyUse": ["SIG"]},
        },
    )
    new = keycloak.password_token("ann")
    assert new.split(".")[0] != old.split(".")[0]
    api.clocks.seconds += 2
    assert await read(api, new) == 200  # at once
    assert await read(api, old) == 200  # Keycloak lists the old key still
    (former,) = [one for one in before if one["providerId"] == "rsa-generated"]
    keycloak.administer("DELETE", f"/components/{former['id']}")
    api.clocks.seconds += 240  # not over yet for the token, with the leeway; over for the keys at 300 s
    assert await read(api, new) == 200
    api.clocks.seconds += 61
    assert await read(api, old) == 401  # its key was taken away


async def test_a_browser_logs_in_and_its_accesses_are_entries(
    api: Api, keycloak: Keycloak, ledger: SmallLedger
) -> None:
    began = await api.client.get("/login/oidc", params={"next": "/v1/trails"})
    assert began.status_code == 303
    async with browser_of() as browser:
        page = await browser.get(began.headers["Location"])
        answer = await browser.post(form_of(page.text), data={"username": "tess", "password": "tess-for-tests"})
        assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["Location"])
    assert back.path == "/login/callback"
    done = await api.client.get(f"{back.path}?{back.query}")
    assert (done.status_code, done.headers.get("Location")) == (303, "/v1/trails"), done.text
    for path, status in ((f"/v1/trails/{OWN}", 200), (f"/v1/trails/{FOREIGN}", 404), ("/v1/principals", 403)):
        assert (await api.get(path, None)).status_code == status
    api.clocks.seconds += 295  # a real refresh token
    assert (await api.get("/v1/trails", None)).status_code == 200
    assert (await api.client.get(f"{back.path}?{back.query}")).status_code == 401  # the code once more

    ledger.ship("api/00000000000000dd", api.record.events, role="recorder")
    ledger.publish()
    trail = await api.get("/v1/trails/access/oidc:tess", "auditor")
    assert trail.status_code == 200
    told = [
        (entry["event"]["access"]["action"], entry["event"]["access"].get("refused", ""))
        for entry in trail.json()["entries"]
    ]
    assert told == [
        ("session.login", ""),
        ("trail.read", ""),
        ("trail.read", "not-found"),
        ("principals.list", "forbidden"),
        ("trails.search", ""),
        ("session.login", "unauthenticated"),
    ]
    assert back.query not in trail.text


def browser_of() -> httpx.AsyncClient:
    """A client that takes cookies as browsers do: 127.0.0.1 counts as secure there (W3C Secure Contexts), and not in httpx."""

    async def take(response: httpx.Response) -> None:
        for cookie in response.headers.get_list("set-cookie"):
            name, value = cookie.partition(";")[0].split("=", 1)
            path = re.search(r"path=([^;]+)", cookie, re.IGNORECASE)
            client.cookies.set(name, value, domain="127.0.0.1", path=path[1] if path else "/")

    client = httpx.AsyncClient(timeout=60, event_hooks={"response": [take]})
    return client


def form_of(page: str) -> str:
    """Where the page's form is sent to."""
    found = re.search(r'<form[^>]*action="([^"]+)"', page)
    assert found is not None, page[:2_000]
    return html.unescape(found[1])


async def test_the_command_line_logs_in_by_the_device_flow(api: Api, keycloak: Keycloak, tmp_path: Path) -> None:
    settings = OidcSettings(issuer=keycloak.issuer, client_id="tally-cli")
    issuer = Issuer(settings, monotonic=time.monotonic)
    shown: list[DeviceCode] = []

    async def person(_: float) -> None:
        """In the time between two questions somebody opens the page, once."""
        if len(shown) != 1:
            await anyio.sleep(1)
            return
        shown.append(shown[0])
        async with browser_of() as browser:
            browser.follow_redirects = True
            page = await browser.get(shown[0].verification_uri_complete)
            page = await browser.post(form_of(page.text), data={"username": "ann", "password": "ann-for-tests"})
            page = await browser.post(
                str(page.url.join(form_of(page.text))), data=hidden_of(page.text) | {"accept": "Yes"}
            )
            assert page.status_code == 200, page.text

    try:
        saved = await by_device(issuer, settings, now=time.time, tell=shown.append, sleep=person)
        write_login(tmp_path / "login.json", saved)
        token = await access_token(tmp_path / "login.json", issuer, settings, now=time.time)
        assert token == saved.access_token
        fresh = await access_token(tmp_path / "login.json", issuer, settings, now=lambda: saved.expires)
    finally:
        await issuer.close()
    assert fresh != token
    for one in (token, fresh):
        assert await read(api, one) == 200
        assert last(api).principal == "oidc:ann"


def hidden_of(page: str) -> dict[str, str]:
    """The page's hidden fields."""
    return {
        name: html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
    }
