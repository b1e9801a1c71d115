"""Reviews on the page: what waits, a trail and a day signed off through the forms, and what a reader of a part is shown."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from audit_api.auth import TokenRecord, hash_token, new_token, parse_tokens, render_tokens
from audit_api.settings import ApiSettings
from tests.audit_api.test_reviews import PAYMENT, into_the_log
from tests.audit_api.web.test_pages import shown
from tests.support.apis import Api, open_api, open_cut_api
from tests.support.cut_ledger import CutLedger
from tests.support.ledgers import SmallLedger
from tests.support.whole_ledger import payment_events

pytestmark = pytest.mark.anyio

DAY = "2026-01-01"
HEADERS = {"Origin": "http://api", "Accept": "text/html"}


@dataclass(frozen=True)
class Seat:
    """A browser that is signed in."""

    api: Api
    csrf: str

    async def open(self, path: str) -> str:
        answer = await self.api.client.get(path, headers=HEADERS)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def send(self, path: str, **fields: str) -> httpx.Response:
        return await self.api.client.post(path, data={"csrf": self.csrf, **fields}, headers=HEADERS)


@pytest.fixture
async def seat(tmp_path: Path, ledger: SmallLedger) -> AsyncIterator[Seat]:
    async with open_api(tmp_path, ledger, ApiSettings(burst_requests=10_000)) as api:
        yield await seated(api)


async def seated(api: Api) -> Seat:
    """An auditor signs in."""
    await api.client.post("/login", data={"token": api.tokens["auditor"]}, headers=HEADERS)
    page = await api.client.get("/desk/trails", headers=HEADERS)
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert csrf is not None
    return Seat(api, csrf[1])


def value(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found is not None, name
    return found[1]


async def test_a_trail_that_waits_is_opened_and_signed_off(seat: Seat) -> None:
    queue = await seat.open("/desk/reviews")
    assert f'href="/desk/trails/{PAYMENT}#review"' in queue
    story = await seat.open(f"/desk/trails/{PAYMENT}")
    assert "calls for a look, and nobody has signed it off" in shown(httpx.Response(200, text=story))
    fields = {"head": value(story, "head"), "decision": "escalated", "note": "ask <b>Ben</b>\r\ntomorrow"}
    sent = await seat.send(f"/desk/reviews/{PAYMENT}", **fields)
    assert sent.status_code == 303, sent.text
    assert parse_qs(urlsplit(sent.headers["Location"]).query) == {"signed": [PAYMENT]}
    event = seat.api.record.events[-1]
    assert event.access is not None
    assert (event.access.action, event.access.trail) == ("review.sign", PAYMENT)
    assert event.attributes["review.note"] == "ask <b>Ben</b>\ntomorrow"
    after = await seat.open(sent.headers["Location"])
    assert f"Your sign-off of {PAYMENT} is on record" in after
    into_the_log(seat.api)
    assert PAYMENT not in await seat.open("/desk/reviews")
    everything = await seat.open("/desk/reviews?show=all")
    assert PAYMENT in everything
    assert "Escalated" in everything
    assert "ask &lt;b&gt;Ben&lt;/b&gt;" in everything
    assert "signed off as it stands" in await seat.open(f"/desk/trails/{PAYMENT}")

    seat.api.ledger.add_verdict(PAYMENT, "failed")
    seat.api.ledger.publish()
    assert "open again: it has grown since" in await seat.open("/desk/reviews")
    stale = await seat.send(f"/desk/reviews/{PAYMENT}", **fields)
    assert stale.status_code == 409
    assert "Look again, then decide" in stale.text


async def test_only_what_was_shown_is_signed_off(tmp_path: Path, ledger: SmallLedger) -> None:
    async with open_api(tmp_path, ledger, ApiSettings(page_entries=2)) as api:
        seat = await seated(api)
        path = f"/desk/trails/{PAYMENT}"
        last = str((await api.get(f"/v1/trails/{PAYMENT}")).json()["summary"]["last_leaf"])
        for start in (0, 2):
            page = await seat.open(f"{path}?start={start}")
            assert "on the page that shows its last entry: this one does not" in page
            assert "/desk/reviews/transaction" not in page
            assert f'this one does not. <a href="?start={start + 2}&amp;zone=UTC">' in page
        page = await seat.open(f"{path}?start=4")
        assert "This page begins with entry 4. A sign-off covers the entries before it as well." in page
        assert value(page, "head") == last
        assert "/desk/reviews/transaction" not in await seat.open(f"{path}?start=99")
        sent = await seat.send(f"/desk/reviews/{PAYMENT}", head=last, decision="explained")
        assert sent.status_code == 303


async def test_what_came_while_the_page_was_made_is_not_signed_off(seat: Seat) -> None:
    ledger = seat.api.ledger
    ledger.add_verdict(PAYMENT, "failed")
    ledger.index.apply(ledger._pending)  # the index tells of an entry that the page's checkpoint does not have yet
    page = await seat.open(f"/desk/trails/{PAYMENT}")
    assert "on the page that shows its last entry: this one does not" in page
    assert "/desk/reviews/transaction" not in page
    ledger.log.publish()
    assert "/desk/reviews/transaction" in await seat.open(f"/desk/trails/{PAYMENT}")


async def test_a_day_is_signed_off_with_what_is_open(seat: Seat) -> None:
    today = await seat.open(f"/desk/reviews?day={DAY}")
    assert f'action="/desk/review-days/{DAY}"' not in today, "it is not over"
    seat.api.clocks.seconds += 600
    async with _next_day(seat) as later:
        days = await later.open("/desk/reviews")
        assert f'href="/desk/reviews?day={DAY}"' in days
        assert "not signed off" in days
        day = await later.open(f"/desk/reviews?day={DAY}")
        sent = await later.send(f"/desk/review-days/{DAY}", open=value(day, "open"), note="all known")
        assert sent.status_code == 303, sent.text
        event = later.api.record.events[-1]
        assert event.keys == {"review_day": DAY}
        assert event.attributes["review.note"] == "all known"
        into_the_log(later.api)
        text = await later.open("/desk/reviews")
        assert "all known" in text
        assert "signed off</span>" in text
        for wrong in ("77", "x", ""):
            refused = await later.send(f"/desk/review-days/{DAY}", open=wrong)
            assert refused.status_code in (400, 409)


class _next_day:  # noqa: N801 - read as a word where it is used
    """The same seat a day later: its session has ended meanwhile, and a new one is opened."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def __aenter__(self) -> Seat:
        api = self._seat.api
        api.clocks.seconds += 86_400
        await api.client.post("/login", data={"token": api.tokens["auditor"]}, headers=HEADERS)
        page = await api.client.get("/desk/trails", headers=HEADERS)
        return Seat(api, value(page.text, "csrf"))

    async def __aexit__(self, *_: object) -> None:
        return


async def test_without_the_sessions_token_nothing_is_signed(seat: Seat) -> None:
    story = await seat.open(f"/desk/trails/{PAYMENT}")
    fields = {"csrf": "", "head": value(story, "head"), "decision": "explained"}
    assert (await seat.send(f"/desk/reviews/{PAYMENT}", **fields)).status_code == 403
    refused = seat.api.record.events[-1].access
    assert refused is not None
    assert refused.refused == "cross-site"


async def test_who_may_not_review_is_shown_no_form(seat: Seat) -> None:
    api = seat.api
    token = new_token()
    record = TokenRecord(principal="part@example", roles=["auditor"], sha256=hash_token(token), tenants=["acme"])
    api.token_file.write_text(render_tokens([*parse_tokens(api.token_file.read_text()), record]))
    api.tokens["part"] = token
    api.client.cookies.clear()
    part = await api.get("/desk/reviews", "part", Accept="text/html")
    assert part.status_code == 200
    assert PAYMENT not in part.text
    assert "review-days" not in part.text
    assert 'id="days"' not in part.text
    assert (await api.get("/desk/reviews", "sre", Accept="text/html")).status_code == 403
    story = (await api.get(f"/desk/trails/{PAYMENT}", "sre", Accept="text/html")).text
    assert 'id="review"' not in story
    assert "/desk/reviews" not in story
    assert (await api.get("/desk/reviews?day=soon", Accept="text/html")).status_code == 400


async def test_what_happens_now_is_a_list_without_a_script(seat: Seat) -> None:
    text = await seat.open("/desk/live")
    found = re.findall(r'<a href="/desk/trails/(transaction/[^"]+)"', text)
    assert found[0].startswith("transaction/PAY-")
    assert ">incomplete</span>" in text
    answer = await seat.api.get(f"/v1/live?seconds=0&kind=transaction&after={value_of(text, 'after')}")
    assert "event:" not in answer.text, "the script goes on behind what the list shows"
    before = value_of(text, "after")
    seat.api.ledger.add_verdict(PAYMENT, "failed")
    seat.api.ledger.publish()
    later = await seat.open("/desk/live?kind=any&zone=Europe/Berlin")
    assert value_of(later, "after") >= before
    for kind in ("key", "trace"):
        other = await seat.open(f"/desk/live?kind={kind}")
        assert "/desk/trails/transaction" not in other


def value_of(text: str, name: str) -> str:
    found = re.search(rf'data-{name}="([^"]*)"', text)
    assert found is not None
    return found[1]


async def test_the_list_of_an_empty_ledger_says_so(tmp_path: Path, ledger: SmallLedger) -> None:
    async with open_api(tmp_path, ledger, ApiSettings()) as api:
        text = (await api.get("/desk/live?kind=ledger", Accept="text/html")).text
        assert "ledger/enrolments" in text
        empty = (await api.get("/desk/live?kind=access", Accept="text/html")).text
        assert "Nothing has come yet" in empty


async def test_over_several_logs_there_are_the_same_pages(tmp_path: Path) -> None:
    ledger = CutLedger(tmp_path / "ledger")
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(6)))
    ledger.take_in()
    async with open_cut_api(tmp_path, ledger) as api:
        live = (await api.get("/desk/live", Accept="text/html")).text
        assert {f"p{number}" for number in range(6)} == set(re.findall(r"/desk/trails/transaction/(p\d)", live))
        place = value_of(live, "after")
        assert place.count(".") == 2, "a position in each log"
        behind = await api.get(f"/v1/live?seconds=0&kind=transaction&after={place}")
        assert (behind.status_code, "event:" in behind.text) == (200, False)
        first = (await api.get(f"/v1/live?seconds=0&kind=transaction&after={'0.0.0'}")).text
        assert first.count("event: trail") == 6
        assert (await api.get("/desk/reviews", Accept="text/html")).status_code == 200
        (day,) = (await api.get("/v1/review-days?days=1")).json()["days"]
        listed = (await api.get(f"/v1/reviews?since={day['day']}T00:00:00Z")).json()["exceptions"]
        assert (day["open"], day["signed"]) == (sum(one["open"] for one in listed), [])
