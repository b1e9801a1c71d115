"""Incidents over the API: what is listed and told, and who may answer for one, and once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.incidents import _sign_off
from audit_api.problems import Problem
from collector.errors import Overloaded
from collector.event import Incident
from correlator.incidents import closed_event, incident_id, opened_event
from tests.support.apis import Api

pytestmark = pytest.mark.anyio

SUBJECT = "shop/00000000000000aa"
ID = incident_id("gap", SUBJECT, "log/3")
WORDS = {"root_cause": "a disk", "remediation": "a new disk", "comment": "case 7"}


def step(state: str, second: int) -> Incident:
    time = f"2026-01-01T00:00:{second:02d}.000000000Z"
    return Incident(id=ID, state=state, cause="gap", subject=SUBJECT, time=time, first=4, last=7)


def open_one(api: Api) -> None:
    api.ledger.ship("api/00000000000000cc", [opened_event(step("opened", 1), detail="batch 3")], role="recorder")
    api.ledger.publish()


def close_it(api: Api) -> None:
    said = closed_event(step("closed", 31), detail="it came", seconds=30)
    api.ledger.ship("api/00000000000000cc", [said], role="recorder")
    api.ledger.publish()


async def sign(api: Api, body: Any, role: str = "auditor") -> httpx.Response:
    headers = {"Authorization": f"Bearer {api.tokens[role]}", "Content-Type": "application/json"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await api.client.post(f"/v1/incidents/{ID}", content=content, headers=headers)


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


async def test_from_its_opening_to_the_sign_off(api: Api) -> None:
    assert (await api.get("/v1/incidents")).json() == {"incidents": []}
    open_one(api)
    (one,) = (await api.get("/v1/incidents", "sre")).json()["incidents"]
    assert (one["id"], one["cause"], one["subject"], one["state"]) == (ID, "gap", SUBJECT, "opened")
    assert (one["open"], one["first"], one["last"], one["duration_seconds"]) == (True, 4, 7, None)
    assert problem(await sign(api, WORDS)) == (409, "still-open")
    close_it(api)
    answer = await sign(api, WORDS)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["state"], answer.json()["signed_by"]) == ("signed_off", "auditor@example")
    assert answer.json()["duration_seconds"] == 30
    assert problem(await sign(api, WORDS, "admin")) == (409, "signed-already"), "before the log has it, too"
    signed = [one for one in api.record.events if one.incident]
    assert [one.incident.state for one in signed if one.incident] == ["signed_off"]
    access = next(one.access for one in reversed(api.record.events) if one.access and not one.access.refused)
    assert (access.action, access.trail) == ("incident.sign", f"incident/{ID}")

    api.ledger.ship("api/00000000000000cc", api.record.events, role="recorder")
    api.ledger.publish()
    told = (await api.get(f"/v1/incidents/{ID}")).json()
    assert told["incident"]["state"] == "signed_off"
    assert [one["state"] for one in told["steps"]] == ["opened", "closed", "signed_off"]
    last = told["steps"][-1]
    assert (last["by"], last["text"]) == ("auditor@example", "case 7")
    assert (last["root_cause"], last["remediation"]) == ("a disk", "a new disk")
    assert (await api.get("/v1/incidents?state=opened")).json() == {"incidents": []}
    assert len((await api.get("/v1/incidents?state=signed_off&cause=gap")).json()["incidents"]) == 1
    story = (await api.get(f"/v1/trails/incident/{ID}")).json()
    assert len(story["entries"]) == 3, "it is a trail like any other"


async def test_an_open_one_ends_by_the_word_of_whoever_says_that_it_is_over(api: Api) -> None:
    open_one(api)
    assert (await sign(api, WORDS | {"over": True})).status_code == 201


async def test_who_may_not(api: Api) -> None:
    open_one(api)
    assert problem(await sign(api, WORDS | {"over": True}, "sre")) == (403, "forbidden")
    assert not [one for one in api.record.events if one.incident]
    assert problem(await api.get("/v1/incidents/" + "0" * 32)) == (404, "not-found")


async def test_of_two_who_sign_at_once_one_has_signed(api: Api) -> None:
    open_one(api)
    close_it(api)
    both = await asyncio.gather(sign(api, WORDS), sign(api, WORDS, "admin"))
    assert sorted(one.status_code for one in both) == [201, 409]
    assert len([one for one in api.record.events if one.incident]) == 1


async def test_what_cannot_be_recorded_is_not_signed(api: Api) -> None:
    open_one(api)
    api.record.failure = Overloaded("full")
    assert (await sign(api, WORDS | {"over": True})).status_code == 503
    api.record.failure = None
    (one,) = (await api.get("/v1/incidents")).json()["incidents"]
    assert one["signed"] is None
    assert (await sign(api, WORDS | {"over": True})).status_code == 201


@pytest.mark.parametrize("query", ["state=well", "cause=weather", "state=opened&state=closed"])
async def test_what_cannot_be_asked(api: Api, query: str) -> None:
    assert problem(await api.get(f"/v1/incidents?{query}")) == (400, "bad-parameter")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", {"root_cause": "x"}, WORDS | {"remediation": " "}, WORDS | {"comment": "x" * 2_001}, WORDS | {"a": 1}],
)
async def test_a_sign_off_that_says_too_little(api: Api, body: Any) -> None:
    open_one(api)
    assert problem(await sign(api, body)) == (400, "bad-body")


@given(
    st.binary(max_size=60)
    | st.dictionaries(st.text(max_size=8), st.text(max_size=8)).map(lambda o: json.dumps(o).encode())
)
def test_a_body_is_taken_or_refused(body: bytes) -> None:
    try:
        signed = _sign_off(body)
    except Problem as error:
        known = error.kind.name
    else:
        known = "taken" if signed.root_cause.strip() else "taken, and says nothing"
    assert known in ("bad-body", "taken")
