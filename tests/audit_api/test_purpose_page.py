"""Where a purpose is required the pages ask for it, once a session; it is on record with each access, and leads nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from audit_api.settings import ApiSettings
from tests.support.apis import Api, open_api
from tests.support.ledgers import SmallLedger

pytestmark = pytest.mark.anyio

ORIGIN = {"Origin": "http://api", "Accept": "text/html"}


@pytest.fixture
async def strict(tmp_path: Path, ledger: SmallLedger) -> AsyncIterator[Api]:
    """The application, with a browser that is signed in as the auditor."""
    async with open_api(tmp_path, ledger, ApiSettings(purpose_required=True, burst_requests=10_000)) as api:
        await api.client.post("/login", data={"token": api.tokens["auditor"], "next": "/desk/trails"}, headers=ORIGIN)
        yield api


async def see(api: Api, path: str) -> httpx.Response:
    return await api.client.get(path, headers={"Accept": "text/html"})


def field(page: str, name: str) -> str:
    return page.rpartition(f'name="{name}" value="')[2].partition('"')[0]  # the head has a form, too


async def state(api: Api, page: str, purpose: str, **more: str) -> httpx.Response:
    sent = {"csrf": field(page, "csrf"), "next": field(page, "next"), "purpose": purpose} | more
    return await api.client.post("/desk/purpose", data=sent, headers=ORIGIN)


def on_record(api: Api) -> tuple[str, str]:
    event = api.record.events[-1]
    assert event.access is not None
    return event.access.action, str(event.attributes.get("access.purpose", ""))


async def test_a_page_asks_why_and_then_shows_what_was_asked_for(strict: Api) -> None:
    asked = await see(strict, "/desk/trails?text=refund&zone=UTC")
    assert (asked.status_code, "Why do you read?" in asked.text) == (400, True)
    assert field(asked.text, "next") == "/desk/trails?text=refund&amp;zone=UTC"
    access = strict.record.events[-1].access
    assert access is not None
    assert access.refused == "purpose-needed"

    sent = await state(strict, asked.text, "  case 2026/17\n", next="/desk/trails?text=refund&zone=UTC")
    assert (sent.status_code, sent.headers["location"]) == (303, "/desk/trails?text=refund&zone=UTC")
    assert strict.record.events[-1].attributes["purpose.stated"] == "case 2026/17"

    page = await see(strict, "/desk/trails?text=refund&zone=UTC")
    assert page.status_code == 200
    assert "case 2026/17" in page.text
    assert on_record(strict)[1] == "case 2026/17"
    assert (await see(strict, "/v1/status")).status_code == 200, (
        "what the page's script asks for is for the same purpose"
    )
    await see(strict, "/desk/trails?purpose=another")
    assert on_record(strict)[1] == "another", "what the request itself says counts first"


async def test_it_is_changed_and_ends_with_the_session(strict: Api) -> None:
    form = await see(strict, "/desk/purpose")
    assert form.status_code == 200, "nobody need say why they say why"
    await state(strict, form.text, "first")
    form = await see(strict, "/desk/purpose")
    assert field(form.text, "next") == "/desk/trails"
    assert 'value="first"' in form.text
    await state(strict, form.text, "second")
    page = await see(strict, "/desk/system")
    assert on_record(strict)[1] == "second"
    sent = {"csrf": field(page.text, "csrf"), "next": "/desk/login"}
    await strict.client.post("/logout", data=sent, headers=ORIGIN)
    await strict.client.post("/login", data={"token": strict.tokens["auditor"], "next": "/"}, headers=ORIGIN)
    assert (await see(strict, "/desk/trails")).status_code == 400


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/"]
)
async def test_it_leads_to_paths_of_ours_alone(strict: Api, elsewhere: str) -> None:
    form = await see(strict, "/desk/purpose")
    sent = await state(strict, form.text, "case", next=elsewhere)
    assert sent.headers["location"] == "/desk/trails"
    form = await strict.client.get("/desk/purpose", params={"next": elsewhere})
    assert field(form.text, "next") == "/desk/trails"


async def test_what_does_not_count(strict: Api) -> None:
    form = (await see(strict, "/desk/purpose")).text
    for purpose in ("", "   ", "\n\t"):
        empty = await state(strict, form, purpose)
        assert (empty.status_code, "Say why before you go on" in empty.text) == (400, True)
    forged = await state(strict, form, "case", csrf="x" * 43)
    assert forged.status_code == 403
    assert (await see(strict, "/desk/trails")).status_code == 400
    long = await state(strict, form, "<b>" + "x" * 300)
    assert long.status_code == 303
    page = await see(strict, "/desk/trails")
    assert "<b>x" not in page.text
    assert on_record(strict)[1] == "<b>" + "x" * 197


async def test_a_form_without_a_purpose_is_not_done_and_says_so(strict: Api) -> None:
    csrf = field((await see(strict, "/desk/purpose")).text, "csrf")
    lost = await strict.client.post("/desk/review-days/2026-01-01", data={"csrf": csrf, "open": "1"}, headers=ORIGIN)
    if lost.status_code == 404:
        pytest.fail("the path of the form has changed")
    assert (lost.status_code, "was not done" in lost.text) == (400, True)
    assert field(lost.text, "next") == "/desk/trails"


async def test_who_has_not_said_why_can_sign_out(strict: Api) -> None:
    csrf = field((await see(strict, "/desk/purpose")).text, "csrf")
    out = await strict.client.post("/logout", data={"csrf": csrf, "next": "/desk/login"}, headers=ORIGIN)
    assert (out.status_code, out.headers["location"]) == (303, "/desk/login")
    assert on_record(strict) == ("session.logout", "")
    assert len(strict.sessions) == 0
    assert (await see(strict, "/desk/trails")).headers["location"].startswith("/desk/login?")


async def test_where_none_is_required_nobody_is_asked(api: Api) -> None:
    await api.client.post("/login", data={"token": api.tokens["sre"], "next": "/desk/trails"}, headers=ORIGIN)
    page = await see(api, "/desk/trails")
    assert (page.status_code, 'class="purpose"' in page.text) == (200, False)
    assert "nobody reads without saying why" not in (await see(api, "/desk/purpose")).text
