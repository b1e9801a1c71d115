"""Browser sessions: how they begin and end, what is on record, and what another site's page cannot do."""

from __future__ import annotations

from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from audit_api.auth import Principal, render_tokens
from audit_api.identity.crosssite import local_path
from audit_api.identity.sessions import Sessions
from audit_api.settings import ApiSettings
from collector.errors import Overloaded, TallyError
from collector.event import Access
from tests.support.apis import Api, Clocks

pytestmark = pytest.mark.anyio

OURS = {"Origin": "http://api"}


async def log_in(api: Api, role: str = "auditor", **fields: str) -> httpx.Response:
    """Posts the form of a log-in; the client keeps the cookie."""
    answer = await api.client.post("/login", data={"token": api.tokens[role], **fields}, headers=OURS)
    assert answer.status_code == 303, answer.text
    return answer


def last_access(api: Api) -> Access:
    access = api.record.events[-1].access
    assert access is not None
    return access


def csrf_of(api: Api) -> str:
    """The synchroniser token that a page of the session would hold, as the page asks for it."""
    request = Request(
        {"type": "http", "method": "GET", "headers": [(b"cookie", f"tally-session={cookie_of(api)}".encode())]}
    )
    session = api.sessions.of(request)
    assert session is not None
    return session.csrf


def cookie_of(api: Api) -> str:
    return api.client.cookies["tally-session"]


async def test_a_browser_logs_in_reads_and_logs_out(api: Api) -> None:
    answer = await log_in(api, next="/v1/trails?kind=trace")
    assert answer.headers["Location"] == "/v1/trails?kind=trace"
    assert answer.headers["Cache-Control"] == "no-store"
    cookie = answer.headers["Set-Cookie"]
    assert {part.strip() for part in cookie.split(";")[1:]} == {"Max-Age=28800", "Path=/", "HttpOnly", "SameSite=Lax"}
    assert (last_access(api).principal, last_access(api).action) == ("auditor@example", "session.login")
    session_id = api.record.events[-1].attributes["session.id"]

    assert (await api.get("/v1/trails", None)).status_code == 200
    assert (last_access(api).principal, last_access(api).action) == ("auditor@example", "trails.search")
    assert api.record.events[-1].attributes["session.id"] == session_id
    assert (await api.get("/v1/principals", None)).status_code == 403

    kept = cookie_of(api)
    answer = await api.client.post("/logout", data={"csrf": csrf_of(api)}, headers=OURS)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert last_access(api).action == "session.logout"
    assert (await api.client.get("/v1/trails", headers={"Cookie": f"tally-session={kept}"})).status_code == 401
    assert kept not in str(api.record.events)
    assert api.tokens["auditor"] not in str(api.record.events)
    assert str(session_id) not in kept


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Origin": "http://api"}, True),
        ({"Origin": "http://api:80"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://api"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "https://api"}, False),
        ({"Origin": "http://api:81"}, False),
        ({"Origin": "http://api.evil"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({}, False),
    ],
)
async def test_another_site_can_neither_log_in_nor_out(api: Api, headers: dict[str, str], allowed: bool) -> None:
    form = {"token": api.tokens["sre"]}
    answer = await api.client.post("/login", data=form, headers=headers)
    assert (answer.status_code == 303) is allowed
    if not allowed:
        assert answer.json()["type"] == "urn:tallystick:problem:cross-site"
        assert (last_access(api).principal, last_access(api).refused) == ("anonymous", "cross-site")
        await log_in(api)
    answer = await api.client.post("/logout", data={"csrf": csrf_of(api)}, headers=headers)
    assert (answer.status_code == 303) is allowed
    assert (last_access(api).refused == "cross-site") is not allowed


async def test_a_session_needs_its_own_csrf_token(api: Api) -> None:
    await log_in(api)
    first = csrf_of(api)
    await log_in(api)
    own = csrf_of(api)
    for wrong in ("", first, own[:-1], own + "a", "ü"):
        answer = await api.client.post("/logout", data={"csrf": wrong}, headers=OURS)
        assert answer.status_code == 403
        assert (last_access(api).principal, last_access(api).refused) == ("auditor@example", "cross-site")
    assert (await api.client.post("/logout", headers={**OURS, "X-CSRF-Token": own})).status_code == 303


async def test_a_log_in_ends_the_session_before_it(api: Api) -> None:
    await log_in(api)
    before = cookie_of(api)
    await log_in(api, "admin")
    assert cookie_of(api) != before
    assert len(api.sessions) == 1
    assert (await api.client.get("/v1/trails", headers={"Cookie": f"tally-session={before}"})).status_code == 401


async def test_a_bearer_token_goes_before_the_session_and_needs_no_csrf_token(api: Api) -> None:
    await log_in(api, "sre")
    assert (await api.get("/v1/principals", "admin")).status_code == 200
    assert last_access(api).principal == "admin@example"
    headers = {"Authorization": "Bearer nonsense"}
    assert (await api.client.get("/v1/trails", headers=headers)).status_code == 401
    headers = {"Authorization": f"Bearer {api.tokens['admin']}"}
    assert (await api.client.post("/logout", headers=headers)).status_code == 303


async def test_what_is_no_token_opens_no_session(api: Api) -> None:
    for token in ("tally_" + "A" * 43, "a b", "ü", "x" * 5_000):
        answer = await api.client.post("/login", data={"token": token}, headers=OURS)
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers
        assert (last_access(api).principal, last_access(api).refused) == ("anonymous", "unauthenticated")
        assert token not in answer.text
    for content in (b"", b"next=/", b"token=a&token=b", b"token=%ff", b"&".join(b"a%d=" % n for n in range(99))):
        headers = {**OURS, "Content-Type": "application/x-www-form-urlencoded"}
        answer = await api.client.post("/login", content=content, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:tallystick:problem:bad-body")


async def test_a_token_in_the_url_is_refused(api: Api) -> None:
    answer = await api.client.post(f"/login?token={api.tokens['sre']}", data={"token": api.tokens["sre"]}, headers=OURS)
    assert answer.status_code == 400
    assert answer.json()["parameter"] == "token"


@pytest.mark.parametrize(
    ("content", "headers", "problem"),
    [
        (b"token=" + b"a" * 9_000, {"Content-Type": "application/x-www-form-urlencoded"}, "body-too-large"),
        (b"{}", {"Content-Type": "application/json"}, "unsupported-media-type"),
        (b"token=a", {}, "unsupported-media-type"),
    ],
)
async def test_bodies_are_small_and_of_the_declared_type(
    api: Api, content: bytes, headers: dict[str, str], problem: str
) -> None:
    async def chunks() -> object:
        yield content

    for body in (content, chunks()):
        answer = await api.client.post("/login", content=body, headers=OURS | headers)  # type: ignore[arg-type]
        assert answer.json()["type"] == f"urn:tallystick:problem:{problem}"
        assert answer.headers["Connection"] == "close"
        assert last_access(api).refused == problem


async def test_a_log_in_that_cannot_be_recorded_is_none(api: Api) -> None:
    api.record.failure = Overloaded("full")
    answer = await api.client.post("/login", data={"token": api.tokens["sre"]}, headers=OURS)
    assert answer.status_code == 503
    assert "Set-Cookie" not in answer.headers


async def test_a_session_ends_when_it_is_idle_or_old(api: Api) -> None:
    await log_in(api)
    for _ in range(4):
        api.clocks.seconds += 14 * 60
        assert (await api.get("/v1/trails", None)).status_code == 200
    api.clocks.seconds += 15 * 60
    assert (await api.get("/v1/trails", None)).status_code == 401
    await log_in(api)
    statuses = []
    for _ in range(48):
        api.clocks.seconds += 600
        statuses.append((await api.get("/v1/trails", None)).status_code)
    assert statuses == [200] * 47 + [401]


async def test_a_token_taken_away_ends_its_sessions_at_once(api: Api) -> None:
    await log_in(api)
    assert (await api.get("/v1/trails", None)).status_code == 200
    api.token_file.write_text(render_tokens([]))
    assert (await api.get("/v1/trails", None)).status_code == 401
    assert len(api.sessions) == 0


async def test_a_file_of_tokens_that_cannot_be_read_lets_no_session_in(api: Api) -> None:
    await log_in(api)
    api.token_file.chmod(0o666)
    api.token_file.write_text(api.token_file.read_text() + "\n")
    assert (await api.get("/v1/trails", None)).status_code == 401
    api.token_file.chmod(0o600)
    assert (await api.get("/v1/trails", None)).status_code == 200


class TestRates:
    @pytest.fixture
    def settings(self) -> ApiSettings:
        return ApiSettings(requests_a_second=1.0, burst_requests=2, anonymous_refusals_a_minute=3)

    async def test_log_ins_count_as_requests_and_their_refusals_are_bounded(self, api: Api) -> None:
        form = {"token": api.tokens["auditor"]}
        statuses = [(await api.client.post("/login", data=form, headers=OURS)).status_code for _ in range(3)]
        assert statuses == [303, 303, 429]
        before = len(api.record.events)
        api.client.cookies.clear()
        for _ in range(9):
            await api.client.post("/login", data={"token": "x"}, headers=OURS)
        assert len(api.record.events) == before + 3


class TestTls:
    @pytest.fixture
    def settings(self) -> ApiSettings:
        return ApiSettings(public_url="https://audit.example")

    async def test_behind_a_proxy_with_tls_the_cookie_is_for_tls_alone(self, api: Api) -> None:
        headers = {"Origin": "https://audit.example"}
        answer = await api.client.post("/login", data={"token": api.tokens["sre"]}, headers=headers)
        assert answer.status_code == 303
        assert answer.headers["Set-Cookie"].startswith("__Host-tally-session=")
        assert "; Secure" in answer.headers["Set-Cookie"]
        assert "max-age" in answer.headers["Strict-Transport-Security"]
        answer = await api.client.post("/login", data={"token": api.tokens["sre"]}, headers=OURS)
        assert answer.status_code == 403


@pytest.mark.parametrize("url", ["https://a/b", "ftp://a", "https://u:p@a", "a.example", "https://a?b"])
def test_a_public_url_is_an_origin(url: str) -> None:
    with pytest.raises(ValueError, match="public_url"):
        ApiSettings(public_url=url)


def request_with(cookie: str) -> Request:
    return Request({"type": "http", "method": "GET", "headers": [(b"cookie", cookie.encode("latin-1", "replace"))]})


def test_sessions_are_bounded_and_the_least_used_makes_room() -> None:
    clocks = Clocks()
    sessions = Sessions(
        idle_seconds=60, absolute_seconds=600, secure=False, monotonic=clocks.monotonic, most=3, most_each=2
    )

    def opened(name: str) -> Request:
        principal = Principal(name=name, roles=frozenset({"sre"}))
        return request_with(sessions.open(principal, lambda: principal)[1].partition(";")[0])

    a, b = opened("ann"), opened("ann")
    assert sessions.of(a) is not None
    c = opened("ann")  # a third of hers: the one used longest ago, b, goes
    assert [sessions.of(one) is not None for one in (a, b, c)] == [True, False, True]
    opened("bob"), opened("cid")  # a fourth of all: a goes
    assert [sessions.of(one) is not None for one in (a, c)] == [False, True]
    assert len(sessions) == 3
    clocks.seconds += 60
    opened("dan")
    assert len(sessions) == 1


def test_a_session_is_not_passed_on_to_another_principal_and_trouble_lets_nobody_in() -> None:
    sessions = Sessions(idle_seconds=60, absolute_seconds=600, secure=False, monotonic=Clocks().monotonic)
    ann = Principal(name="ann", roles=frozenset({"sre"}))
    now: list[Principal | None] = [ann]

    def holds() -> Principal | None:
        if not now:
            raise TallyError("cannot be told")
        return now[0]

    request = request_with(sessions.open(ann, holds)[1].partition(";")[0])
    now[0] = Principal(name="ann", roles=frozenset({"admin"}))
    found = sessions.of(request)
    assert found is not None
    assert found.principal.roles == {"admin"}
    now.clear()
    with pytest.raises(TallyError):
        sessions.of(request)
    now.append(Principal(name="bob", roles=frozenset({"admin"})))
    assert sessions.of(request) is None
    now[0] = ann
    assert sessions.of(request) is None


@given(st.text(max_size=200))
def test_no_cookie_breaks_the_look_up(value: str) -> None:
    sessions = Sessions(idle_seconds=60, absolute_seconds=600, secure=False, monotonic=Clocks().monotonic)
    assert sessions.of(request_with(f"tally-session={value}")) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "//evil",
        "/\\evil",
        "https://evil",
        "/a\\b",
        "/\t/evil",
        "/a b",
        "/é",
        "/a\r\nSet-Cookie: x",
        "/" * 3000,
        "/login",
        "/login?next=/desk/trails",
        "/login/oidc?next=/",
        "/login/callback?code=c&state=s",
        "/%6Cogin/callback?code=c",
        "/login#x",
    ],
)
def test_what_may_lead_elsewhere_leads_home(text: str) -> None:
    assert local_path(text) == "/"


@pytest.mark.parametrize("text", ["/desk/login?out=true", "/logins", "/v1/trails?text=/login", "/login-help"])
def test_a_path_that_is_no_log_in_is_one_to_go_to(text: str) -> None:
    assert local_path(text) == text


@given(st.text(max_size=50), st.sampled_from(["", "/", "//", "/\\", "http:", "/v1/trails?q=", "/\x00"]))
def test_a_redirect_stays_here_as_a_browser_reads_it(text: str, prefix: str) -> None:
    # httpx resolves references as RFC 3986 says; a browser drops tabs and line ends first and takes \\ for /
    target = local_path(prefix + text)
    read = "".join(char for char in target if char not in "\t\r\n").replace("\\", "/")
    assert httpx.URL("https://audit.example/login").join(read).host == "audit.example"
    assert local_path(target) == target
    assert urlencode({"next": target})
