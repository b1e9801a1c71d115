"""The review queue: what calls for a look, who signs it off, and that a trail which grows calls again."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.problems import Problem
from audit_api.reviews import DECISIONS, _sign_off
from tests.support.apis import Api

pytestmark = pytest.mark.anyio

PAYMENT = "transaction/PAY-1"


async def exceptions(api: Api, query: str = "") -> dict[str, dict[str, Any]]:
    answer = await api.get(f"/v1/reviews?{query}")
    assert answer.status_code == 200, answer.text
    return {one["trail"]["trail"]: one for one in answer.json()["exceptions"]}


async def sign(api: Api, trail: str, body: Any, role: str = "auditor", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {api.tokens[role]}", "Content-Type": "application/json"} | headers
    return await api.client.post(f"/v1/reviews/{trail}", content=content, headers=headers)


def into_the_log(api: Api) -> None:
    """What the API recorded comes into the log, as a correlator would have it."""
    api.ledger.ship("api/00000000000000cc", api.record.events, role="recorder")
    api.ledger.publish()
    api.record.events.clear()
    api.clocks.seconds += 1


async def test_what_stands_badly_calls_and_a_sign_off_answers(api: Api) -> None:
    one = (await exceptions(api))[PAYMENT]
    assert (one["open"], one["signed"], one["trail"]["status"]) == (True, [], "incomplete")
    head = one["trail"]["last_leaf"]
    note = {"head": head, "decision": "explained", "note": "the notifier was down"}
    answer = await sign(api, PAYMENT, note)
    assert (answer.status_code, answer.json()) == (201, {"trail": PAYMENT, "head": head})
    event = api.record.events[-1]
    assert event.access is not None
    assert (event.access.action, event.access.trail, event.access.head) == ("review.sign", PAYMENT, head)
    assert (event.attributes["review.decision"], event.attributes["review.note"]) == ("explained", note["note"])
    into_the_log(api)
    one = (await exceptions(api))[PAYMENT]
    assert one["open"] is False
    (signed,) = one["signed"]
    assert (signed["principal"], signed["decision"], signed["note"]) == ("auditor@example", "explained", note["note"])
    told = (await api.get(f"/v1/trails/{PAYMENT}")).json()["accesses"]["entries"]
    assert "review.sign" in [one["action"] for one in told]

    api.ledger.add_verdict(PAYMENT, "failed")
    api.ledger.publish()
    one = (await exceptions(api))[PAYMENT]
    assert one["open"] is True, "it has grown"
    assert len(one["signed"]) == 1
    stale = await sign(api, PAYMENT, note)
    assert (stale.status_code, stale.json()["type"]) == (409, "urn:tallystick:problem:changed-since")
    access = api.record.events[-1].access
    assert access is not None
    assert access.refused == "changed-since"
    assert "review.decision" not in api.record.events[-1].attributes


async def test_many_readings_do_not_hide_a_sign_off(api: Api) -> None:
    head = (await exceptions(api))[PAYMENT]["trail"]["last_leaf"]
    assert (await sign(api, PAYMENT, {"head": head, "decision": "corrected"})).status_code == 201
    for _ in range(60):
        await api.get(f"/v1/trails/{PAYMENT}?events=false")
    into_the_log(api)
    assert (await exceptions(api))[PAYMENT]["open"] is False


async def test_the_time_that_is_reviewed_and_other_conditions(api: Api) -> None:
    assert PAYMENT in await exceptions(api, "since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z")
    assert PAYMENT not in await exceptions(api, "since=2026-01-02T00:00:00Z")
    assert set(await exceptions(api, "filter=status%3Dincomplete or kind%3Dtransaction")) == {PAYMENT}
    page = (await api.get("/v1/reviews?limit=1")).json()
    assert len(page["exceptions"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        {},
        {"head": -1, "decision": "explained"},
        {"head": 23, "decision": "ignored"},
        {"head": "23", "decision": "explained"},
        {"head": 23, "decision": "explained", "note": "x" * 2_001},
        {"head": 23, "decision": "explained", "by": "ann"},
    ],
)
async def test_what_is_no_sign_off_is_refused(api: Api, body: Any) -> None:
    answer = await sign(api, PAYMENT, body)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:tallystick:problem:bad-body")


async def test_who_may_not_sign(api: Api) -> None:
    body = {"head": 23, "decision": "explained"}
    assert (await sign(api, PAYMENT, body, "sre")).status_code == 403
    assert (await sign(api, "transaction/PAY-9", body)).status_code == 404
    api.record.failure = OSError("no room")
    assert (await sign(api, PAYMENT, body | {"head": 23})).status_code in (409, 503)


@given(
    st.binary(max_size=80)
    | st.builds(lambda one: json.dumps(one).encode(), st.dictionaries(st.text(), st.text() | st.integers()))
)
def test_any_body_is_a_sign_off_or_a_problem(body: bytes) -> None:
    try:
        signed = _sign_off(body)
    except Problem as problem:
        assert problem.kind.name == "bad-body"  # noqa: PT017 - the problem is what is looked at
    else:
        assert signed.decision in DECISIONS
