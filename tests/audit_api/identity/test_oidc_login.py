"""A browser's log-in at an identity provider: what opens a session, and everything that must not."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import pytest
from joserfc.jwk import Key, RSAKey

from audit_api.identity.oidc.settings import OidcSettings
from audit_api.settings import ApiSettings
from collector.event import Access
from tests.support.apis import Api, open_api
from tests.support.issuer import TestIssuer
from tests.support.ledgers import START_NS, SmallLedger

pytestmark = pytest.mark.anyio

NOW = START_NS // 1_000_000_000


@pytest.fixture(scope="module")
def key() -> Key:
    return RSAKey.generate_key(2048)


@dataclass
class Person:
    """At the provider's page: `answer` is what its token endpoint says when the browser has come back."""

    provider: TestIssuer
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    """Of the ID token."""
    access: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    forms: list[Mapping[str, str]] = field(default_factory=list)
    lifetime: int = 300
    now: int = NOW

    def log_in(self, location: str) -> dict[str, str]:
        """Gives the query that the browser is sent back with."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.provider.url}

    def token(self, form: Mapping[str, str]) -> tuple[int, Any]:
        self.forms.append(form)
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != "refresh-1":
                return 400, {"error": "invalid_grant"}
            return 200, self.tokens("") | {"refresh_token": "refresh-2"}
        asked = self.codes.pop(form["code"], None)  # once
        if asked is None:
            return 400, {"error": "invalid_grant"}
        made = base64.urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
        assert (asked["code_challenge"], asked["code_challenge_method"]) == (made, "S256")
        assert form["redirect_uri"] == asked["redirect_uri"] == "http://audit.example/login/callback"
        return 200, self.tokens(asked["nonce"]) | {"refresh_token": "refresh-1"} | self.answer

    def tokens(self, nonce: str) -> dict[str, Any]:
        common = {"iss": self.provider.url, "sub": "ann", "iat": self.now, "exp": self.now + self.lifetime}
        access = common | {"aud": "tallystick", "roles": ["tally-auditor"], "azp": "page", "scope": "openid"}
        return {
            "access_token": self.provider.token(access | self.access, kid="k1"),
            "id_token": self.provider.token(common | {"aud": "page", "nonce": nonce} | self.changed, kid="k1"),
            "token_type": "Bearer",
        }


@pytest.fixture
def person(key: Key) -> Iterator[Person]:
    with TestIssuer(keys={"k1": key}) as running:
        made = Person(running)
        running.answers["/token"] = made.token
        yield made


@pytest.fixture
def settings(person: Person) -> ApiSettings:
    oidc = OidcSettings(issuer=person.provider.url, client_id="page", roles={"tally-auditor": "auditor"})
    return ApiSettings(public_url="http://audit.example", oidc=oidc)


@pytest.fixture
async def api(tmp_path: Path, ledger: SmallLedger, settings: ApiSettings) -> AsyncIterator[Api]:
    async with open_api(tmp_path, ledger, settings) as opened:
        yield opened


def last(api: Api) -> Access:
    access = api.record.events[-1].access
    assert access is not None
    return access


async def begin(api: Api, path: str = "/v1/trails") -> str:
    answer = await api.client.get("/login/oidc", params={"next": path})
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


async def come_back(api: Api, query: Mapping[str, str]) -> httpx.Response:
    return await api.client.get(f"/login/callback?{urlencode(query)}")


async def test_a_person_logs_in_at_the_provider(api: Api, person: Person) -> None:
    location = await begin(api, "/v1/trails?kind=trace")
    assert location.startswith(f"{person.provider.url}/authorize?")
    asked = dict(parse_qsl(urlsplit(location).query))
    assert asked["scope"] == "openid"
    query = person.log_in(location)
    answer = await come_back(api, query)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/v1/trails?kind=trace")
    assert (last(api).principal, last(api).action, last(api).refused) == ("oidc:ann", "session.login", "")
    assert query["code"] not in str(api.record.events)
    assert query["state"] not in str(api.record.events)
    assert (await api.get("/v1/trails", None)).status_code == 200
    assert (last(api).principal, last(api).action) == ("oidc:ann", "trails.search")


async def test_what_comes_back_counts_once(api: Api, person: Person) -> None:
    query = person.log_in(await begin(api))
    assert (await come_back(api, query)).status_code == 303
    assert (await come_back(api, query)).status_code == 401


async def test_another_browser_cannot_be_logged_in_with_what_came_back(api: Api, person: Person) -> None:
    """Login CSRF: a code of one's own is slipped to somebody else's browser."""
    query = person.log_in(await begin(api))
    api.client.cookies.clear()
    assert (await come_back(api, query)).status_code == 401
    await begin(api)  # that browser may have begun one of its own
    assert (await come_back(api, query)).status_code == 401
    assert person.forms == []
    assert (last(api).principal, last(api).refused) == ("anonymous", "unauthenticated")


@pytest.mark.parametrize(
    "changed",
    [
        {"state": "x"},
        {"state": ""},
        {"state": "ü"},
        {"code": ""},
        {"code": "stolen"},
        {"iss": "https://evil.example"},
        {"error": "access_denied"},
    ],
    ids=str,
)
async def test_an_answer_that_does_not_fit_opens_nothing(api: Api, person: Person, changed: dict[str, str]) -> None:
    answer = await come_back(api, person.log_in(await begin(api)) | changed)
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert len(api.sessions) == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": "x"},
        {"nonce": None},
        {"aud": "shop"},
        {"aud": ["page", "shop"], "azp": "shop"},
        {"iss": "https://evil.example"},
        {"exp": NOW - 31},
        {"sub": "ada"},
    ],
    ids=str,
)
async def test_an_id_token_that_does_not_fit_opens_nothing(api: Api, person: Person, changed: dict[str, Any]) -> None:
    person.changed = changed
    assert (await come_back(api, person.log_in(await begin(api)))).status_code == 401
    assert len(api.sessions) == 0


@pytest.mark.parametrize("changed", [{"aud": "shop"}, {"sub": "ada"}, {"exp": NOW - 31}, {"typ": "ID"}], ids=str)
async def test_an_access_token_that_does_not_fit_opens_nothing(
    api: Api, person: Person, changed: dict[str, Any]
) -> None:
    person.access = changed
    assert (await come_back(api, person.log_in(await begin(api)))).status_code == 401
    assert len(api.sessions) == 0


@pytest.mark.parametrize(
    "answer",
    [{"id_token": None}, {"access_token": 7}, {"token_type": "DPoP"}, {"refresh_token": []}, {"id_token": "a.b.c"}],
    ids=str,
)
async def test_what_the_provider_may_answer_wrongly(api: Api, person: Person, answer: dict[str, Any]) -> None:
    person.answer = answer
    assert (await come_back(api, person.log_in(await begin(api)))).status_code == 401


async def test_a_log_in_that_failed_is_tried_again_and_leads_to_the_desk(api: Api, person: Person) -> None:
    """A browser's: the form never leads back to the answer that was refused, whose code and state no address repeats."""
    browser = {"Accept": "text/html"}
    refused = person.log_in(await begin(api, "/desk/system")) | {"error": "access_denied"}
    for query in (refused, refused | {"state": "x"}):
        answer = await api.client.get("/login/callback", params=query, headers=browser)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/desk/login?next=%2F")
    form = await api.client.get("/desk/login?next=%2F", headers=browser)
    link = re.search(r'href="(/login/oidc[^"]*)"', form.text)
    assert link is not None
    again = await api.client.get(link[1], headers=browser)
    answer = await api.client.get("/login/callback", params=person.log_in(again.headers["Location"]), headers=browser)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/desk/trails")
    assert (await api.client.get("/desk/trails", headers=browser)).status_code == 200


async def test_nobody_is_pushed_out_by_how_many_others_begin(api: Api, person: Person) -> None:
    query = person.log_in(await begin(api))
    own = dict(api.client.cookies)
    for _ in range(1_001):
        await begin(api)
    api.client.cookies.clear()
    api.client.cookies.update(own)
    assert (await come_back(api, query)).status_code == 303


async def test_what_comes_back_counts_once_whatever_the_provider_says(api: Api, person: Person) -> None:
    query = person.log_in(await begin(api))
    asked = dict(person.codes)
    assert (await come_back(api, query | {"state": "x"})).status_code == 401
    assert (await come_back(api, query)).status_code == 401
    assert person.codes == asked, "it was not asked"


async def test_a_cookie_that_was_changed_began_nothing(api: Api, person: Person) -> None:
    cookie = "tally-login"
    query = person.log_in(await begin(api, "/desk/system"))
    name, began, following, tag = api.client.cookies[cookie].split(".")
    api.client.cookies.clear()
    later, elsewhere = str(int(began) + 1), base64.urlsafe_b64encode(b"//evil.example").decode().rstrip("=")
    for changed in (
        f"{name[:-1]}{'A' if name[-1] != 'A' else 'B'}.{began}.{following}.{tag}",
        f"{name}.{later}.{following}.{tag}",
        f"{name}.{began}.{elsewhere}.{tag}",
        f"{name}.{began}.{following}.{tag[:-1]}",
        f"{name}.{began}.{following}.{tag}é",
        name,
        "...",
        "",
    ):
        sent = f"{cookie}={changed}".encode("latin-1")
        answer = await api.client.get("/login/callback", params=query, headers={b"Cookie": sent})
        assert answer.status_code == 401, changed
    sent = f"{cookie}={name}.{began}.{following}.{tag}".encode()
    answer = await api.client.get("/login/callback", params=query, headers={b"Cookie": sent})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/desk/system")


async def test_an_attempt_is_over_after_ten_minutes(api: Api, person: Person) -> None:
    query = person.log_in(await begin(api))
    api.clocks.seconds += 600
    assert (await come_back(api, query)).status_code == 401


async def test_a_provider_that_is_away_is_said(api: Api, person: Person) -> None:
    person.provider.broken = 503
    answer = await api.client.get("/login/oidc")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("path", ["https://evil.example", "//evil.example", "/\\evil.example"])
async def test_it_leads_nowhere_else(api: Api, person: Person, path: str) -> None:
    assert (await come_back(api, person.log_in(await begin(api, path)))).headers["Location"] == "/"


async def test_a_session_is_renewed_and_follows_the_provider(api: Api, person: Person) -> None:
    assert (await come_back(api, person.log_in(await begin(api)))).status_code == 303
    api.clocks.seconds += 295
    person.now = NOW + 295
    person.access = {"roles": []}
    assert (await api.get("/v1/trails", None)).status_code == 403  # the role was taken away meanwhile
    assert [form["grant_type"] for form in person.forms] == ["authorization_code", "refresh_token"]
    api.clocks.seconds += 295  # refresh-2 is refused: the session ends with its token
    assert (await api.get("/v1/trails", None)).status_code == 403
    api.clocks.seconds += 10
    assert (await api.get("/v1/trails", None)).status_code == 401
    assert len(api.sessions) == 0


async def test_a_session_outlives_a_provider_that_is_away_no_longer_than_its_token(api: Api, person: Person) -> None:
    assert (await come_back(api, person.log_in(await begin(api)))).status_code == 303
    person.provider.broken = 503
    api.clocks.seconds += 295
    assert (await api.get("/v1/trails", None)).status_code == 200
    person.provider.broken = 0
    person.now = NOW + 295
    assert (await api.get("/v1/trails", None)).status_code == 200
    assert [form["grant_type"] for form in person.forms].count("refresh_token") == 2
    person.provider.broken = 503
    api.clocks.seconds += 300
    assert (await api.get("/v1/trails", None)).status_code == 401


async def test_a_bearer_token_of_the_provider_is_a_principal(api: Api, person: Person) -> None:
    token = person.tokens("")["access_token"]
    answer = await api.client.get("/v1/trails", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert last(api).principal == "oidc:ann"
    assert (await api.get("/v1/trails", "sre")).status_code == 200  # and tokens of ours go on
    assert last(api).principal == "sre@example"
    person.provider.broken = 503
    api.clocks.seconds += 299
    assert (await api.get("/v1/trails", "sre")).status_code == 200
    api.clocks.seconds += 1
    answer = await api.client.get("/v1/trails", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, last(api).refused) == (503, "unavailable")
