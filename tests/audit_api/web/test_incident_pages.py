"""The pages of incidents: a list, one step by step, and the form by which a person answers for it from a browser."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest

from audit_api.auth import Role
from audit_api.web.catalogue import english
from collector.event import Incident
from correlator.incidents import CAUSES, closed_event, incident_id, opened_event
from tests.support.apis import Api

pytestmark = pytest.mark.anyio
BROWSER = {"Accept": "text/html,application/xhtml+xml"}
ID = incident_id("gap", "shop/00000000000000aa", "log/3")
PATH = f"/desk/incidents/{ID}"


def shown(answer: httpx.Response) -> str:
    """The page's text, as a person reads it."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text)))


def ship(api: Api, *states: str) -> None:
    for second, state in enumerate(states):
        time = f"2026-01-01T00:0{second}:00.000000000Z"
        subject = "shop/00000000000000aa"
        said = Incident(id=ID, state=state, cause="gap", subject=subject, time=time, first=4, last=7)
        event = (
            opened_event(said, detail="batch 3 <b>")
            if state == "opened"
            else closed_event(said, detail="it came", seconds=60)
        )
        api.ledger.ship("api/00000000000000cc", [event], role="recorder")
    api.ledger.publish()


async def sign_in(api: Api, role: Role = "auditor") -> dict[str, str]:
    """Headers of a browser that is signed in."""
    same = {"Origin": "http://api", **BROWSER}
    entered = await api.client.post("/login", data={"token": api.tokens[role], "next": "/desk/incidents"}, headers=same)
    assert entered.status_code == 303
    return same


async def test_what_failed_is_listed_and_told(api: Api) -> None:
    assert "No control has failed" in shown(await api.get("/desk/incidents", "sre", **BROWSER))
    ship(api, "opened", "closed")
    listed = await api.get("/desk/incidents", "sre", **BROWSER)
    assert "Batches are missing shop/00000000000000aa over" in shown(listed)
    assert f'href="{PATH}"' in listed.text
    one = await api.get(PATH, "sre", **BROWSER)
    assert "batch 3 <b>" in shown(one)
    assert "<b>" not in one.text.partition("batch 3")[2][:10], "what was seen is escaped"
    assert "Events 4 to 7" in shown(one)
    assert "<form method" not in one.text.partition("<main")[2], "a token alone, and this role, sign nothing here"
    missing = await api.get("/desk/incidents/" + "0" * 32, "sre", **BROWSER)
    assert missing.status_code == 404


async def test_the_form_signs_once(api: Api) -> None:
    ship(api, "opened")
    browser = await sign_in(api)
    form = await api.client.get(PATH, headers=browser)
    csrf = re.findall(r'name="csrf" value="([^"]+)"', form.text)[-1]
    words = {"csrf": csrf, "root_cause": "a disk", "remediation": "a new disk", "comment": ""}
    assert "by my word" in shown(form)
    early = await api.client.post(PATH, data=words, headers=browser)
    assert (early.status_code, "not over" in shown(early)) == (409, True)
    forged = await api.client.post(PATH, data={**words, "csrf": "x", "over": "true"}, headers=browser)
    assert forged.status_code == 403
    empty = await api.client.post(PATH, data={**words, "over": "true", "root_cause": " "}, headers=browser)
    assert empty.status_code == 400
    assert not [one for one in api.record.events if one.incident]
    done = await api.client.post(PATH, data={**words, "over": "true"}, headers=browser)
    assert (done.status_code, done.headers["location"]) == (303, PATH)
    assert [one.actor for one in api.record.events if one.incident] == ["auditor@example"]
    again = await api.client.post(PATH, data={**words, "over": "true"}, headers=browser)
    assert again.status_code == 409
    api.ledger.ship("api/00000000000000cc", api.record.events, role="recorder")
    api.ledger.publish()
    told = await api.client.get(PATH, headers=browser)
    assert "signed off" in shown(told)
    assert "a new disk" in shown(told)
    assert "<form" not in told.text.partition("<main")[2]


async def test_who_may_not_sign(api: Api) -> None:
    ship(api, "opened")
    browser = await sign_in(api, "sre")
    page = await api.client.get(PATH, headers=browser)
    assert "Auditors and administrators sign" in shown(page)
    csrf = re.findall(r'name="csrf" value="([^"]+)"', page.text)[-1]
    words = {"csrf": csrf, "root_cause": "a", "remediation": "b", "over": "true"}
    assert (await api.client.post(PATH, data=words, headers=browser)).status_code == 403


def test_every_cause_has_a_name_for_people() -> None:
    assert set(english().below("incident_causes")) == set(CAUSES)
