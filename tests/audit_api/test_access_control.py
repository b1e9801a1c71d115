"""Who may what, and that whatever they did is on record before they have the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest

from audit_api.settings import ApiSettings
from collector.errors import Overloaded, StateUnknown
from tests.support.apis import Api, keep_example, open_api
from tests.support.ledgers import SmallLedger

pytestmark = pytest.mark.anyio

TRAIL = "transaction/PAY-1"
SEARCH = "0123456789abcdef0123456789abcdef"
"""Of the example that the API keeps here."""
INCIDENT = "0123456789abcdef0123456789abcdef"

MATRIX = {
    # path: (anyone, sre, auditor, admin), action
    "/v1/live?seconds=0": ((401, 200, 200, 200), "live.read"),
    "/v1/reviews": ((401, 403, 200, 200), "reviews.list"),
    "/v1/review-days": ((401, 403, 200, 200), "review.days"),
    "/v1/searches": ((401, 200, 200, 200), "searches.list"),
    f"/v1/searches/{SEARCH}": ((401, 200, 200, 200), "search.read"),
    "/v1/incidents": ((401, 200, 200, 200), "incidents.list"),
    f"/v1/incidents/{INCIDENT}": ((401, 404, 404, 404), "incident.read"),
    "/v1/trails": ((401, 200, 200, 200), "trails.search"),
    f"/v1/trails/{TRAIL}": ((401, 200, 200, 200), "trail.read"),
    f"/v1/exports/{TRAIL}": ((401, 403, 200, 200), "trail.export"),
    "/v1/exports?format=csv": ((401, 403, 200, 200), "trails.export"),
    "/v1/events/gateway/00000000000000aa/2/proof": ((401, 403, 200, 200), "event.prove"),
    "/v1/checkpoint": ((200, 200, 200, 200), ""),
    "/v1/consistency?first=3": ((200, 200, 200, 200), ""),
    "/v1/status": ((401, 200, 200, 200), "status.read"),
    "/v1/streams": ((401, 200, 200, 200), "streams.list"),
    "/v1/principals": ((401, 403, 403, 200), "principals.list"),
    "/log/checkpoint": ((200, 200, 200, 200), ""),
    "/log/tile/0/000.p/35": ((200, 200, 200, 200), ""),
    "/log/tile/entries/000.p/35": ((401, 403, 200, 200), "log.entries"),
    "/livez": ((200, 200, 200, 200), ""),
    "/readyz": ((200, 200, 200, 200), ""),
    "/metrics": ((200, 200, 200, 200), ""),
    "/openapi.json": ((200, 200, 200, 200), ""),
}
WHO = (None, "sre", "auditor", "admin")
REFUSED = {401: "unauthenticated", 403: "forbidden", 404: "not-found", 200: ""}


@pytest.fixture
async def api(tmp_path: Path, ledger: SmallLedger, settings: ApiSettings) -> AsyncIterator[Api]:
    """With a saved search to ask for."""
    keep_example(tmp_path)
    async with open_api(tmp_path, ledger, settings) as opened:
        yield opened


@pytest.mark.parametrize("path", MATRIX)
async def test_each_path_for_each_role(api: Api, path: str) -> None:
    statuses, action = MATRIX[path]
    for role, status in zip(WHO, statuses, strict=True):
        before = len(api.record.events)
        answer = await api.get(path, role)
        assert answer.status_code == status, (path, role, answer.text)
        made = api.record.events[before:]
        if not action:
            assert made == []
            continue
        assert len(made) == 1
        access = made[0].access
        assert access is not None
        assert access.principal == (f"{role}@example" if role else "anonymous")
        assert access.action == action
        assert access.refused == REFUSED[status]
        assert made[0].outcome == ("success" if status == 200 else "failure")
        assert made[0].attributes["http.response.status_code"] == status
        assert made[0].actor == access.principal
        if TRAIL in path:
            assert access.trail == TRAIL
        if status == 200 and action in ("trail.read", "trail.export", "event.prove", "log.entries"):
            assert access.head >= 0


async def test_the_matrix_is_of_all_paths(api: Api) -> None:
    document = (await api.get("/openapi.json", None)).json()
    assert len([path for path, methods in document["paths"].items() if "get" in methods]) == len(MATRIX)


@pytest.mark.parametrize("path", [path for path, (_, action) in MATRIX.items() if action])
@pytest.mark.parametrize(
    "failure", [Overloaded("full", retry_after_seconds=3.0), StateUnknown("disk"), OSError("disk")]
)
async def test_what_cannot_be_recorded_is_not_served(api: Api, path: str, failure: Exception) -> None:
    api.record.failure = failure
    for role in WHO:
        answer = await api.get(path, role)
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:tallystick:problem:not-on-record"
        assert int(answer.headers["Retry-After"]) >= 3
        assert "PAY-1" not in answer.json()["detail"]
    api.record.failure = None
    assert (await api.get(path, "admin")).status_code == MATRIX[path][0][-1]


async def test_public_paths_need_no_record(api: Api) -> None:
    api.record.failure = Overloaded("full")
    for path, (_, action) in MATRIX.items():
        if not action:
            assert (await api.get(path, None)).status_code == 200


@pytest.mark.parametrize(
    "credentials",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic YTpi",
        "Bearer tally_",
        "bearer\ttally",
        "Bearer " + "a" * 1000,
        "Bearer a b",
        "ü",
    ],
)
async def test_what_is_no_token_lets_nobody_in(api: Api, credentials: str) -> None:
    headers = {b"Authorization": credentials.encode("utf-8")}
    answer = await api.client.get("/v1/trails", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="tallystick"')
    assert api.record.events[-1].access is not None
    assert api.record.events[-1].access.principal == "anonymous"


async def test_two_authorization_headers_let_nobody_in(api: Api) -> None:
    both = [("Authorization", f"Bearer {api.tokens['sre']}"), ("Authorization", f"Bearer {api.tokens['admin']}")]
    assert (await api.client.get("/v1/trails", headers=both)).status_code == 401


async def test_a_token_taken_away_is_worth_nothing_at_once(api: Api) -> None:
    assert (await api.get("/v1/trails")).status_code == 200
    api.token_file.write_text("")
    assert (await api.get("/v1/trails")).status_code == 401
    api.token_file.unlink()
    assert (await api.get("/v1/trails")).status_code == 401


async def test_no_token_is_ever_on_record_or_in_an_answer(api: Api) -> None:
    wrong = "tally_" + "A" * 43
    for token in (api.tokens["auditor"], wrong):
        answer = await api.client.get("/v1/trails", headers={"Authorization": f"Bearer {token}"})
        assert token not in answer.text
        assert token not in str(answer.headers)
    assert wrong not in str(api.record.events)
    assert api.tokens["auditor"] not in str(api.record.events)


class TestRates:
    """Asking too often, and being refused too often."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        return ApiSettings(
            requests_a_second=2.0,
            burst_requests=3,
            anonymous_refusals_a_minute=4,
            exports_an_hour=10,
            burst_exports=2,
        )

    async def test_who_asks_too_often_waits(self, api: Api) -> None:
        statuses = [(await api.get("/v1/trails")).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        answer = await api.get("/v1/trails")
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["type"] == "urn:tallystick:problem:too-many-requests"
        access = api.record.events[-1].access
        assert access is not None
        assert (access.principal, access.refused) == ("auditor@example", "too-many-requests")
        assert (await api.get("/v1/trails", "sre")).status_code == 200
        api.clocks.seconds += 0.5
        assert (await api.get("/v1/trails")).status_code == 200
        assert (await api.get("/v1/trails")).status_code == 429

    async def test_every_export_is_held_to_the_budget(self, api: Api) -> None:
        assert {one.operation_id for one in api.app.state.operations if one.export} == {"exportTrail", "exportTrails"}
        asked = [(await api.get("/v1/exports?format=ndjson")).status_code for _ in range(3)]
        assert asked == [200, 200, 429]

    async def test_exports_have_a_budget_of_their_own(self, api: Api) -> None:
        api.clocks.seconds += 60
        statuses = []
        for _ in range(4):
            statuses.append((await api.get(f"/v1/exports/{TRAIL}")).status_code)
            api.clocks.seconds += 1
        assert statuses == [200, 200, 429, 429]
        assert (await api.get(f"/v1/trails/{TRAIL}")).status_code == 200
        assert (await api.get(f"/v1/exports/{TRAIL}", "sre")).status_code == 403
        answer = await api.get(f"/v1/exports/{TRAIL}")
        assert int(answer.headers["Retry-After"]) > 300
        assert (await api.get(f"/v1/exports/{TRAIL}", "admin")).status_code == 200
        api.clocks.seconds += 360
        assert (await api.get(f"/v1/exports/{TRAIL}")).status_code == 200

    async def test_refusals_cannot_fill_the_record(self, api: Api) -> None:
        for _ in range(20):
            assert (await api.get("/v1/trails", None)).status_code == 401
        assert len(api.record.events) == 4
        api.clocks.seconds += 60
        assert (await api.get("/v1/trails")).status_code == 200
        summary, access = api.record.events[4:]
        assert summary.access is not None
        assert (summary.access.principal, summary.access.refused) == ("anonymous", "counted")
        assert summary.attributes["refusals"] == 16
        assert access.access is not None
        assert access.access.principal == "auditor@example"

    async def test_a_count_that_could_not_be_recorded_is_kept(self, api: Api) -> None:
        for _ in range(10):
            await api.get("/v1/trails", None)
        api.clocks.seconds += 60
        api.record.failure = Overloaded("full")
        assert (await api.get("/v1/trails")).status_code == 503
        api.record.failure = None
        assert (await api.get("/v1/trails", "sre")).status_code == 200
        assert [event.attributes.get("refusals") for event in api.record.events[4:]] == [6, None]

    async def test_what_was_only_counted_is_recorded_at_the_stop(self, api: Api) -> None:
        for _ in range(6):
            await api.get("/v1/trails", None)
        async with api.app.router.lifespan_context(api.app):
            pass
        assert api.record.events[-1].attributes["refusals"] == 2


async def test_many_at_once_are_each_recorded(api: Api) -> None:
    answers: list[httpx.Response] = []

    async def ask() -> None:
        answers.append(await api.get(f"/v1/trails/{TRAIL}"))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(ask)
    assert [answer.status_code for answer in answers] == [200] * 50
    assert len(api.record.events) == 50


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused(api: Api, method: str) -> None:
    answer = await api.client.request(method, "/v1/trails")
    assert answer.status_code == 405
    assert answer.json()["type"] == "urn:tallystick:problem:method-not-allowed"
    assert answer.headers["Allow"] == "GET"


async def test_a_body_is_refused(api: Api) -> None:
    answer = await api.client.request(
        "GET", "/v1/trails", content=b"x", headers={"Authorization": f"Bearer {api.tokens['admin']}"}
    )
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:tallystick:problem:no-body"


async def test_every_answer_says_how_to_be_handled(api: Api) -> None:
    for path, role in (
        ("/v1/trails", "auditor"),
        ("/v1/trails", None),
        ("/nowhere", None),
        ("/livez", None),
        ("/log/checkpoint", None),
    ):
        headers = (await api.get(path, role)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["Cache-Control"] == ("no-cache" if path == "/log/checkpoint" else "no-store")
        assert "Access-Control-Allow-Origin" not in headers


async def test_a_fault_of_ours_says_nothing_about_itself(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(type(api.ledger.index), "find", broken)
    answer = await api.get("/v1/trails")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert api.record.events[-1].access is not None
    assert api.record.events[-1].access.refused == "internal"


class TestPrivateLog:
    """Where even hashes are for members alone."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        return ApiSettings(public_log=False)

    async def test_every_path_of_the_log_needs_a_role(self, api: Api) -> None:
        for path in ("/log/checkpoint", "/log/tile/0/000.p/35", "/v1/checkpoint", "/v1/consistency?first=1"):
            assert (await api.get(path, None)).status_code == 401
            assert (await api.get(path, "sre")).status_code == 200
