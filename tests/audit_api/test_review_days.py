"""Days under review: what was open when a day was signed is on record, and a day that nobody signed is seen."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.accesses import AccessHistory
from audit_api.auth import TokenRecord, hash_token, new_token, parse_tokens, render_tokens
from audit_api.logs import Logs
from audit_api.problems import Problem
from audit_api.reviewdays import ReviewDays, _sign_off, day_of, span_of
from audit_api.reviews import Reviews
from audit_api.settings import ApiSettings
from tests.audit_api.test_reviews import PAYMENT, exceptions, into_the_log, sign
from tests.support.apis import Api
from tests.support.ledgers import SIGNER, payment

pytestmark = pytest.mark.anyio

DAY = "2026-01-01"
PATH = "/v1/review-days"
SECONDS = 86_400


@pytest.fixture
def settings() -> ApiSettings:
    return ApiSettings(burst_requests=10_000, daily_review_since=DAY)


async def days(api: Api, query: str = "days=1&until=2026-01-01") -> list[dict[str, Any]]:
    answer = await api.get(f"{PATH}?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["days"]
    return found


async def sign_day(api: Api, body: Any, day: str = DAY, role: str = "auditor") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {api.tokens[role]}", "Content-Type": "application/json"}
    return await api.client.post(f"{PATH}/{day}", content=content, headers=headers)


async def unsigned(api: Api) -> float:
    lines = (await api.get("/metrics", None)).text.splitlines()
    return float(next(line for line in lines if line.startswith("tally_api_daily_reviews_unsigned ")).split()[1])


async def test_a_day_is_signed_with_what_was_open(api: Api) -> None:
    (one,) = await days(api)
    assert (one["day"], one["over"], one["signed"], one["more"]) == (DAY, False, [], False)
    assert one["exceptions"] == one["open"] == len(await exceptions(api, f"since={DAY}T00:00:00Z")) >= 1
    early = await sign_day(api, {"open": one["open"]})
    assert (early.status_code, early.json()["parameter"]) == (400, "day")

    api.clocks.seconds += SECONDS
    wrong = await sign_day(api, {"open": one["open"] + 1})
    assert (wrong.status_code, wrong.json()["type"]) == (409, "urn:tallystick:problem:changed-since")
    assert api.record.events[-1].keys == {}, "what was refused signs nothing"
    answer = await sign_day(api, {"open": one["open"], "note": "case 7"})
    assert (answer.status_code, answer.json()["open"]) == (201, one["open"])
    event = api.record.events[-1]
    assert event.access is not None
    assert (event.access.action, event.access.trail) == ("review.day", "")
    assert event.access.head >= 0
    assert event.keys == {"review_day": DAY}
    assert event.attributes["review.open"] == str(one["open"])
    into_the_log(api)
    (after,) = await days(api)
    (signed,) = after["signed"]
    assert (signed["principal"], signed["open"], signed["note"]) == ("auditor@example", one["open"], "case 7")
    found = (await api.get(f"/v1/trails?kind=access&key=review_day:{DAY}")).json()["trails"]
    assert [trail["trail"] for trail in found] == ["access/auditor@example"]


async def test_a_trail_is_of_every_day_from_its_first_time_to_its_last(api: Api) -> None:
    """Also of one on which it has no event; and it is what the list with the same bounds shows."""
    for time in ("2026-01-03T01:00:00.000000000Z", "2026-01-05T01:00:00.000000000Z"):
        failed = payment(77, 0, "shop", "paid", time=time, observed=time, severity_number=17, trace_id="", span_id="")
        api.ledger.ship("shop/00000000000000dd", [failed])
    api.ledger.publish()
    counted = await days(api, "days=5&until=2026-01-06")
    found = {}
    for one in counted:
        since, until = span_of(one["day"])
        listed = await exceptions(api, f"since={since}&until={until}")
        assert len(listed) == one["exceptions"]
        found[one["day"][-2:]] = "transaction/PAY-77" in listed
    assert found == {"06": False, "05": True, "04": True, "03": True, "02": False}


async def test_a_day_with_more_than_is_counted_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit_api.reviews._COUNTED_PAGES", 0)  # as when the first thousand are many pages
    (one,) = await days(api)
    assert (one["more"], one["exceptions"], one["open"]) == (True, 0, 0)
    api.clocks.seconds += SECONDS
    answer = await sign_day(api, {"open": 0})
    assert (answer.status_code, answer.json()["more"]) == (201, True)
    assert api.record.events[-1].attributes["review.more"] == "true"


async def test_what_is_signed_off_is_not_open_in_its_day(api: Api) -> None:
    (before,) = await days(api)
    head = (await exceptions(api))[PAYMENT]["trail"]["last_leaf"]
    assert (await sign(api, PAYMENT, {"head": head, "decision": "explained"})).status_code == 201
    into_the_log(api)
    (after,) = await days(api)
    assert after["open"] == before["open"] - 1
    assert after["exceptions"] == before["exceptions"]


async def test_a_sign_off_long_ago_is_known_by_the_index(api: Api) -> None:
    """As after a start of the API that looks at the latest accesses of each principal alone."""
    api.clocks.seconds += SECONDS
    (one,) = await days(api)
    assert (await sign_day(api, {"open": one["open"]})).status_code == 201
    for _ in range(3):
        await api.get("/v1/status")
    into_the_log(api)
    ledger, settings = api.ledger, ApiSettings()
    logs = Logs.whole(
        index=ledger.index,
        reader=ledger.reader,
        storage=ledger.storage,
        key=SIGNER.verifier,
        store=ledger.store,
        monotonic=api.clocks.monotonic,
    )
    logs._histories = [AccessHistory(evidence=logs.all[0].evidence, monotonic=api.clocks.monotonic, first_look=2)]
    started = ReviewDays(reviews=Reviews(logs, settings), logs=logs, settings=settings, clock=api.clocks.wall)
    assert started._signed(DAY) == [
        {"principal": "auditor@example", "time": None, "leaf": None, "open": None, "note": ""},
    ]


async def test_days_that_nobody_signed_are_on_the_metrics(api: Api) -> None:
    api.clocks.seconds += 1.5 * SECONDS
    assert await unsigned(api) == 0, "the second day still has its own time"
    api.clocks.seconds += 1.5 * SECONDS  # the fourth of January
    assert await unsigned(api) == 2
    (one,) = await days(api)
    assert (await sign_day(api, {"open": one["open"]})).status_code == 201
    into_the_log(api)
    assert await unsigned(api) == 2, "looked at again after half a minute"
    api.clocks.seconds += 31
    assert await unsigned(api) == 1
    api.clocks.seconds += 400 * SECONDS
    assert await unsigned(api) == 92


async def test_who_sees_a_part_signs_no_day(api: Api) -> None:
    token = new_token()
    record = TokenRecord(principal="part@example", roles=["auditor"], sha256=hash_token(token), tenants=["acme"])
    api.token_file.write_text(render_tokens([*parse_tokens(api.token_file.read_text()), record]))
    api.tokens["part"] = token
    api.clocks.seconds += SECONDS
    assert (await sign_day(api, {"open": 1}, role="part")).status_code == 403
    assert (await api.get(PATH, "part")).status_code == 403
    assert (await sign_day(api, {"open": 1}, role="sre")).status_code == 403


async def test_many_days_newest_first(api: Api) -> None:
    api.clocks.seconds += 3 * SECONDS
    found = await days(api, "days=3")
    assert {one["required"] for one in found} == {True}
    assert [one["required"] for one in await days(api, "days=2&until=2026-01-01")] == [True, False]
    assert [(one["day"], one["over"]) for one in found] == [
        ("2026-01-04", False),
        ("2026-01-03", True),
        ("2026-01-02", True),
    ]
    assert await days(api, "until=0001-01-01") != []


@pytest.mark.parametrize("day", ["today", "2026-13-01", "2026-1-1", "2026-01-01T00:00:00Z", "9999-12-31"])
async def test_what_is_no_day_that_is_over_is_refused(api: Api, day: str) -> None:
    answer = await sign_day(api, {"open": 0}, day)
    assert (answer.status_code, answer.json()["parameter"]) == (400, "day")


@pytest.mark.parametrize("body", [b"", b"\xff", {}, {"open": -1}, {"open": "1"}, {"open": 1, "note": "x" * 2_001}])
async def test_what_is_no_sign_off_of_a_day_is_refused(api: Api, body: Any) -> None:
    api.clocks.seconds += SECONDS
    answer = await sign_day(api, body)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:tallystick:problem:bad-body")


@given(st.dates())
def test_a_day_is_its_own_text(day: Any) -> None:
    assert day_of(day.isoformat()) == day.isoformat()
    since, until = span_of(day.isoformat())
    assert since <= until


@given(st.binary(max_size=80))
def test_any_body_is_a_days_sign_off_or_a_problem(body: bytes) -> None:
    try:
        signed = _sign_off(body)
    except Problem as problem:
        assert problem.kind.name == "bad-body"  # noqa: PT017 - the problem is what is looked at
    else:
        assert signed.open >= 0


def test_a_first_day_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="daily_review_since"):
        ApiSettings(daily_review_since="2026-02-30")
