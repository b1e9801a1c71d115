"""The pages as they are served: who gets in, what is on record, what is shown to whom, and that nothing of it runs."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from audit_api.auth import Role
from audit_api.parameters import Parameter
from audit_api.problems import PROBLEMS
from audit_api.web.catalogue import english
from audit_api.web.exports import EXPORTS, exports_for, offered
from audit_api.web.frame import POLICY, STATIC_TYPES
from audit_api.web.rows import MAX_EVENT_BYTES
from collector.batch import Clock
from collector.errors import Overloaded
from collector.event import Event, Span
from correlator.index import sqlite
from correlator.story import MAX_RELATED, MAX_STORY_TRACES
from tests.support.apis import Api, open_cut_api
from tests.support.cut_ledger import CutLedger
from tests.support.ledgers import SmallLedger, payment
from tests.support.whole_ledger import payment_events

pytestmark = pytest.mark.anyio
BROWSER = {"Accept": "text/html,application/xhtml+xml"}
STORY = "/desk/trails/transaction/PAY-1"


def shown(answer: httpx.Response) -> str:
    """The page's text, as a person reads it."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text)))


async def page(api: Api, path: str, role: str | None = "auditor", **headers: str) -> httpx.Response:
    """A page, asked for as browsers do."""
    return await api.get(path, role, **{**BROWSER, **headers})


# ------------------------------------------------------------------------------------------------------------- the way in


async def test_who_is_not_signed_in_is_shown_the_form_and_comes_back(api: Api) -> None:
    for path in ("/", "/desk"):
        assert (await page(api, path, None)).headers["location"] == "/desk/trails"
    asked = await page(api, f"{STORY}?zone=Europe/Berlin", None)
    assert asked.status_code == 303
    form = await page(api, asked.headers["location"], None)
    assert form.status_code == 200
    assert f'name="next" value="{STORY}?zone=Europe/Berlin"' in form.text
    sent = {"token": api.tokens["auditor"], "next": f"{STORY}?zone=Europe/Berlin"}
    same = {"Origin": "http://api", **BROWSER}
    entered = await api.client.post("/login", data=sent, headers=same)
    assert (entered.status_code, entered.headers["location"]) == (303, sent["next"])
    story = await page(api, sent["next"], None)
    assert story.status_code == 200
    assert "auditor@example" in story.text
    csrf = re.search(r'name="csrf" value="([^"]+)"', story.text)
    assert csrf is not None
    left = await api.client.post("/logout", data={"csrf": csrf[1], "next": "/desk/login?out=true"}, headers=same)
    assert left.headers["location"] == "/desk/login?out=true"
    assert "You are signed out." in shown(await page(api, "/desk/login?out=true", None))
    assert (await page(api, STORY, None)).status_code == 303


async def test_a_wrong_token_is_told_at_the_form(api: Api) -> None:
    answer = await api.client.post("/login", data={"token": "no"}, headers={"Origin": "http://api", **BROWSER})
    assert answer.status_code == 401
    assert "This token is not valid" in shown(answer)
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
async def test_the_form_leads_nowhere_else(api: Api, elsewhere: str) -> None:
    form = await api.client.get("/desk/login", params={"next": elsewhere}, headers=BROWSER)
    assert 'name="next" value="/desk/trails"' in form.text


async def test_who_is_no_browser_is_told_as_ever(api: Api) -> None:
    answer = await api.get(STORY, None)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


# ------------------------------------------------------------------------------------------------- on record, and by role


async def test_a_page_is_on_record_before_it_is_shown(api: Api) -> None:
    assert (await page(api, STORY)).status_code == 200
    access = api.record.events[-1].access
    assert access is not None
    assert (access.principal, access.action, access.trail) == ("auditor@example", "trail.read", "transaction/PAY-1")
    assert access.head >= 0
    api.record.failure = Overloaded("full", retry_after_seconds=1.0)
    refused = await page(api, STORY)
    assert refused.status_code == 503
    assert "could not be put on record" in shown(refused)
    assert "payment.booked" not in refused.text


async def test_an_sre_sees_what_happened_where_and_no_event(api: Api) -> None:
    theirs, ours = await page(api, STORY, "sre"), await page(api, STORY)
    for answer in (theirs, ours):
        assert "payment.booked" in answer.text
    assert "übertragen" in ours.text
    assert "übertragen" not in theirs.text
    assert "desk.js" not in theirs.text
    assert "/v1/exports/" in ours.text
    assert "/v1/exports/" not in theirs.text


# ---------------------------------------------------------------------------------------------------------------- pages


async def test_the_search_finds_narrows_and_pages(api: Api) -> None:
    text = shown(await page(api, "/desk/trails"))
    assert all(f"Transaction PAY-{number}" in text for number in range(3))
    one = await page(
        api, "/desk/trails?text=&transaction=PAY-1&kind=&status=&key=&since=&until=&currency=&least=&most=&zone="
    )
    assert "PAY-1" in shown(one)
    assert "PAY-2" not in shown(one)
    assert "PAY-1" in shown(await page(api, "/desk/trails?key=order_id:O-1"))
    assert "Nothing was found" in shown(await page(api, "/desk/trails?service=nobody"))
    first = await page(api, "/desk/trails?limit=2")
    following = re.search(r'href="([^"]+)" rel="next"', first.text)
    assert following is not None
    second = await page(api, unescape(following[1]))
    assert "PAY-0" in shown(second)
    assert "PAY-2" not in shown(second)


async def test_a_page_without_trails_of_a_search_that_goes_on_says_so(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/desk/trails?filter={quote('not event != nothing')}"
    assert "Nothing was found. Take a condition away" in shown(await page(api, path))
    monkeypatch.setattr(sqlite, "_LOOKS", 1)
    answer = await page(api, path)
    assert "Nothing was found so far. The search has not come to the end of the log" in shown(answer)
    assert 'rel="next"' in answer.text


async def test_times_are_of_the_zone_that_was_chosen(api: Api) -> None:
    # PAY-1 begins at 00:01 UTC, which is 01:01 in Berlin
    near = "since=2026-01-01T01:00:30&until=2026-01-01T01:01:30&zone=Europe/Berlin"
    text = shown(await page(api, f"/desk/trails?{near}"))
    assert "PAY-1" in text
    assert "PAY-2" not in text
    assert "01:01:00 +01:00" in text
    assert "PAY-1" not in shown(await page(api, f"/desk/trails?{near.replace('Europe/Berlin', 'UTC')}"))
    assert "01:01:00.000" in shown(await page(api, f"{STORY}?zone=Europe/Berlin"))


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("currency=EUR&least=ten", "is no amount"),
        ("least=10", "CURRENCY:LEAST..MOST"),
        ("zone=Atlantis/Capital", "no time zone is called Atlantis/Capital"),
        ("since=yesterday", "From:"),
        ("since=0001-01-01T00:00&zone=Asia/Tokyo", "From:"),
        ("key=order", "Business key:"),
        ("status=great", "Verdict:"),
        ("colour=red", "unknown"),
        ("cursor=x", "not a cursor"),
    ],
)
async def test_what_cannot_be_searched_for_is_told_at_the_form(api: Api, query: str, told: str) -> None:
    answer = await page(api, f"/desk/trails?{query}&text=PAY")
    assert answer.status_code == 400
    assert told in shown(answer)
    assert 'name="text" type="search" value="PAY"' in answer.text


async def test_the_story_says_what_is_missing_and_what_changed(api: Api) -> None:
    ledger: SmallLedger = api.ledger
    ledger.ship("gateway/00000000000000aa", [payment(9, 0, "gateway", "payment.requested", attributes={"score": 1})])
    ledger.add_verdict("transaction/PAY-9", "incomplete", ["booked", "notified"])
    ledger.ship("gateway/00000000000000aa", [payment(9, 5, "gateway", "payment.requested", attributes={"score": 2})])
    ledger.add_verdict("transaction/PAY-9", "failed", ["notified"])
    ledger.publish()
    text = shown(await page(api, "/desk/trails/transaction/PAY-9"))
    assert "Missing: notified" in text
    assert "Missing: booked" not in text
    assert "incomplete became failed. No longer missing: booked." in text
    assert "came after the first verdict" in text
    assert re.search(r"score 1 2 ", text), "the amended field, before and after"


async def test_measured_clocks_correct_and_contradicting_ones_are_told(api: Api) -> None:
    def call(step: int, service: str, **fields: Any) -> Event:
        span = Span(
            name=f"call of {service}",
            parent_span_id=fields.pop("parent", ""),
            kind="SERVER",
            end="2026-01-01T00:09:00.000000000Z",
        )
        return payment(6, step, service, "", span=span, **fields)

    api.ledger.measured = Clock(offset_ns=1_500_000_000, uncertainty_ns=2_000_000)
    api.ledger.ship(
        "gateway/00000000000000aa",
        [
            call(3, "gateway", span_id="00000000000000a1"),
            call(1, "ledger", span_id="00000000000000a2", parent="00000000000000a1"),
        ],
    )
    api.ledger.publish()
    text = shown(await page(api, "/desk/trails/transaction/PAY-6")).replace("\xa0", " ")
    assert "2026-01-01T00:06:01.500000000Z (± 2 ms)" in text, "the stated 00:06:03, corrected"
    assert "2026-01-01T00:06:03.000000000Z" in text
    assert "ledger says that it began call of ledger 2 s before gateway called it" in text
    assert "The collectors measured their clocks" in text
    unmeasured = shown(await page(api, STORY))
    assert "its clock was not measured" in unmeasured
    assert "No clock contradicts another" in unmeasured


async def test_a_story_says_how_many_linked_trails_it_does_not_show(api: Api) -> None:
    keys = [{f"part_{at:03d}": "1"} for at in range(MAX_RELATED + 7)]
    traces = [f"{number:032x}" for number in range(1_000, 1_000 + MAX_STORY_TRACES + 3)]
    api.ledger.ship("gateway/00000000000000aa", [payment(8, 0, "gateway", "paid", keys=one) for one in keys])
    api.ledger.ship("gateway/00000000000000aa", [payment(7, 0, "gateway", "paid", trace_id=one) for one in traces])
    api.ledger.publish()
    text = shown(await page(api, "/desk/trails/transaction/PAY-8"))
    assert "More trails that may be related, and were not looked at: 7." in text
    text = shown(await page(api, "/desk/trails/transaction/PAY-7"))
    assert "they are too many to be one: 3." in text
    text = shown(await page(api, STORY))
    assert "too many to be one" not in text
    assert "not looked at" not in text


async def test_money_has_its_currencys_minor_units(api: Api) -> None:
    amounts = {"amount.eur": "12.5", "amount.jpy": "1200", "amount.bhd": "0.75", "amount.xxx": "3"}
    api.ledger.ship("gateway/00000000000000aa", [payment(8, 0, "gateway", "paid", keys=amounts)])
    api.ledger.publish()
    text = shown(await page(api, "/desk/trails/transaction/PAY-8")).replace("\xa0", " ")
    assert all(one in text for one in ("12.50 EUR", "1,200 JPY", "0.750 BHD"))
    assert "amount." not in shown(await page(api, "/desk/trails?transaction=PAY-8")), "they have a column of their own"
    german = await page(api, "/desk/trails/transaction/PAY-8", **{"Accept-Language": "de-DE,en;q=0.5"})
    assert "12,50 EUR" in shown(german).replace("\xa0", " ")


async def test_a_key_that_is_only_called_like_an_amount_is_shown_as_a_key(api: Api) -> None:
    api.ledger.ship("gateway/00000000000000aa", [payment(8, 0, "gateway", "paid", keys={"amount.note": "three"})])
    api.ledger.publish()
    for path in ("/desk/trails/transaction/PAY-8", "/desk/trails?transaction=PAY-8"):
        assert "amount.note three" in shown(await page(api, path))


async def test_hostile_text_is_text(api: Api) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'{{7*7}}\u202egnp.exe\x1b[31m"
    event = payment(
        7, 0, hostile, hostile, body=hostile, actor=hostile, attributes={hostile: hostile}, transaction=hostile
    )
    api.ledger.ship("gateway/00000000000000aa", [event])
    api.ledger.add_verdict("transaction/PAY-1", "failed", [hostile])
    api.ledger.publish()
    found = await page(api, "/desk/trails?limit=50")
    link = re.search(r'href="(/desk/trails/transaction/%3Cscript[^"]*)"', found.text)
    assert link is not None
    for answer in (
        found,
        await page(api, link[1]),
        await page(api, STORY),
        await page(api, f"{STORY}?start={quote(hostile)}"),
    ):
        body = answer.text.partition("<body>")[2]
        assert "<script" not in body
        assert "<img src=x" not in body
        assert "\u202e" not in body
        assert "\x1b" not in body
        assert "{{7*7}}" in unescape(body) or "start" in str(answer.url)
    assert "gnp.exe" in shown(await page(api, link[1]))


async def test_a_story_of_long_events_shows_how_each_begins_and_leads_on(api: Api) -> None:
    steps = [
        payment(9, step, "shop", f"step-{step}", transaction="" if step > 7 else "PAY-9", body="<&" * 450_000)
        for step in range(10)
    ]
    api.ledger.ship("shop/00000000000000dd", steps)
    api.ledger.publish()
    entries = (await api.get("/v1/trails/transaction/PAY-9")).json()["summary"]["entries"]
    behind = (await api.get("/v1/trails/trace/0000000000000000000000000000000a")).json()["summary"]["entries"]
    answer = await page(api, "/desk/trails/transaction/PAY-9")
    assert len(answer.content) < 1_000_000
    assert re.findall(r'data-fact="name">(step-\d)', answer.text) == [f"step-{step}" for step in range(5)]
    following = re.search(r'href="\?start=(\d+)&', answer.text)
    assert following is not None
    assert f"{entries - int(following[1]) + behind} more entries are not on this page" in shown(answer)
    rest = await page(api, f"/desk/trails/transaction/PAY-9?start={following[1]}")
    assert re.findall(r'data-fact="name">(step-\d)', rest.text) == [f"step-{step}" for step in range(5, 10)], (
        "with the trace, for which there is room behind it"
    )

    assert "The event has 900," in shown(answer)
    whole = re.search(r'href="(/v1/trails/[^"]+)">All of it, as JSON', answer.text)
    assert whole is not None
    (row,) = (await api.get(unescape(whole[1]))).json()["entries"]
    event = msgspec.json.encode(row["event"]).decode()
    part = re.search(r'<pre data-event="part"[^>]*>([^<]*)</pre>', answer.text)
    assert part is not None
    assert len(unescape(part[1])) == MAX_EVENT_BYTES
    assert event.startswith(unescape(part[1]))


async def test_damaged_evidence_is_told_and_the_rest_shown(api: Api) -> None:
    store = api.ledger.store
    for (blob,) in store._db.execute("SELECT events FROM bodies").fetchall():  # type: ignore[attr-defined]
        changed = blob.replace(b"payment.booked", b"payment.cooked")
        store._db.execute("UPDATE bodies SET events = ? WHERE events = ?", (changed, blob))  # type: ignore[attr-defined]
    answer = await page(api, STORY)
    assert answer.status_code == 200
    assert "The event cannot be shown" in shown(answer)
    assert "payment.requested" in answer.text


async def test_the_ledger_s_state(api: Api) -> None:
    text = shown(await page(api, "/desk/system", "sre"))
    assert "ledger.example/payments" in text
    assert "gateway/00000000000000aa" in text
    assert "up to date" in text


async def test_what_is_not_there_is_told_to_people(api: Api) -> None:
    answer = await page(api, "/desk/trails/transaction/NO-SUCH")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "There is no such trail" in shown(answer)
    assert (await page(api, "/desk/static/0/desk.css")).status_code == 404
    for path, code, told in (
        ("/desk/nothing", 404, "no page at this address"),
        ("/desk/searches", 405, "a form sends"),
    ):
        answer = await page(api, path, None)
        assert (answer.status_code, answer.headers["content-type"]) == (code, "text/html; charset=utf-8")
        assert told in shown(answer)
        assert answer.headers["content-security-policy"] == POLICY
        other = await api.get(path, None)
        assert (other.status_code, other.headers["content-type"]) == (code, "application/problem+json")
    assert (await page(api, "/v1/nothing")).headers["content-type"] == "application/problem+json"


async def test_a_trail_without_events_says_where_they_stand(api: Api) -> None:
    answer = await page(api, "/desk/trails/key/order_id/O-1")
    assert "has no event of its own. What happened stands in the trails that it is linked to." in shown(answer)
    assert '<table class="line">' not in answer.text
    assert "Clocks" not in shown(answer)
    assert '<table class="line">' in (await page(api, STORY)).text


async def test_the_formats_that_are_offered_are_those_that_the_api_declares(api: Api) -> None:
    operations = {one.operation_id: one for one in api.app.state.operations}
    export = operations["exportTrail"]
    declared = offered([export])
    given = Parameter(name="format", about="", schema={"enum": ["bundle", "csv", "pdf"]}, default="bundle")
    others = tuple(one for one in export.parameters if one.name != "format")
    assert offered([replace(export, parameters=(*others, given))]) == {"bundle", "csv", "pdf"}
    assert offered([operations["readTrail"]]) == frozenset()
    roles = frozenset[Role](["auditor"])
    told = dict(exports_for("transaction/PAY-1", roles, frozenset({"csv", "pdf"})))
    assert told["csv"] == "/v1/exports/transaction/PAY-1?format=csv"
    assert told.keys() == {"bundle", "bundle_alone", "bundle_entries", "pdf", "csv", "json"}
    assert [key for key, _ in exports_for("transaction/PAY-1", frozenset({"sre"}), declared)] == ["json"]
    text = (await page(api, STORY)).text
    for key, address in exports_for("transaction/PAY-1", roles, declared):
        assert f'href="{address}"' in text
        assert {f"exports.{key}", f"exports.{key}_about"} <= english().texts.keys()
        assert (await api.get(address)).status_code == 200
    assert {f"exports.{one.key}" for one in EXPORTS} <= english().texts.keys()


# ---------------------------------------------------------------------------------------------------- headers and assets


async def test_pages_have_their_own_policy_and_the_api_keeps_its(api: Api) -> None:
    answers = [
        await page(api, "/desk/login", None),
        await page(api, "/desk/trails"),
        await page(api, STORY),
        await page(api, "/desk/trails?zone=x"),
        await page(api, "/desk/trails/transaction/NO-SUCH"),
        await page(api, STORY, None),
    ]
    for answer in answers:
        assert answer.headers.get_list("content-security-policy") == [POLICY]
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY
    assert (await api.get("/v1/status")).headers.get_list("content-security-policy") == [
        "default-src 'none'; frame-ancestors 'none'"
    ]


async def test_every_asset_that_a_page_names_is_there_and_may_be_kept(api: Api) -> None:
    text = (await page(api, STORY)).text
    named = set(re.findall(r'(?:href|src)="(/desk/static/[^"]+)"', text))
    assert {path.rpartition("/")[2] for path in named} == {"desk.css", "desk.js", "tally.svg"}
    for path in [*named, next(iter(named)).rpartition("/")[0] + "/verify.js"]:
        answer = await page(api, path, None)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == STATIC_TYPES[path.rpartition("/")[2]]
        assert "immutable" in answer.headers["cache-control"]
    for elsewhere in ("..%2F..%2Fauth.py", "%2e%2e/auth.py", "auth.py"):
        assert (await page(api, f"/desk/static/x/{elsewhere}", None)).status_code == 404


async def test_no_page_holds_script_or_style_of_its_own(api: Api) -> None:
    for path in ("/desk/login", "/desk/trails", STORY, "/desk/system"):
        text = (await page(api, path)).text
        assert re.findall(r"<style| style=| on\w+=|javascript:", text) == []
        assert all(tag.endswith("></script>") for tag in re.findall(r"<script.*?</script>", text, re.DOTALL))


def test_the_catalogue_has_each_text_that_is_asked_for() -> None:
    web = files("audit_api.web")
    texts = english().texts
    templates = "".join(one.read_text("utf-8") for one in web.joinpath("templates").iterdir())
    asked = set(re.findall(r"""\bt\("([a-z_]+\.[A-Za-z_-]+)"(?! ~)""", templates))
    assert len(asked) > 100
    assert asked - texts.keys() == set()
    scripts = "".join(web.joinpath("static", name).read_text("utf-8") for name in ("desk.js", "verify.js"))
    codes = re.findall(r'new Problem\("(\w+)"', scripts)
    spoken = {f"problem_{code}" for code in codes} | set(re.findall(r'\btext\("(\w+)"', scripts))
    spoken |= {f"check_{name}" for name in re.findall(r'(?:passed|skipped)\("(\w+)"', scripts)}
    spoken |= set(re.findall(r'tell\("\w+", "(\w+)"', scripts))
    assert len(spoken) > 40
    assert {f"proof_script.{name}" for name in spoken} - texts.keys() == set()
    live = web.joinpath("static", "live.js").read_text("utf-8")
    assert [key for key in english().below("live_script") if f'"{key}"' not in live] == []
    spoken_live = set(re.findall(r'\b(?:text|say)\("(\w+)"', live))
    assert len(spoken_live) > 2
    assert {f"live_script.{name}" for name in spoken_live} - texts.keys() == set()
    said = set(re.findall(r'"([A-Za-z0-9_-]+)', templates + scripts + live)) | spoken
    unsaid = [
        key
        for key in texts
        if f'"{key}"' not in templates
        and key.rpartition(".")[2] not in said
        and not any(f'"{key[: at + 1]}"' in templates for at, char in enumerate(key) if char in "._")
        and not key.startswith("search.")  # asked for by the name of the field
        and not key.endswith(("_one", "_about"))
    ]
    assert unsaid == []


@pytest.mark.parametrize("code", [404, 503])
def test_a_problem_that_people_may_meet_is_explained(code: int) -> None:
    assert [kind for kind in PROBLEMS.values() if kind.status == code and f"problem.{kind.name}" in english().texts]


# ---------------------------------------------------------------------------------------------------------- cut ledgers


async def test_a_story_over_two_logs_is_told_whole(tmp_path: Path) -> None:
    ledger = CutLedger(tmp_path / "ledger")
    ledger.begin()
    ledger.collect("gateway", payment_events("gateway", range(6)))
    ledger.take_in()
    async with open_cut_api(tmp_path, ledger) as api:
        assert "shard-3-of-3" in shown(await page(api, "/desk/system"))
        found = await page(api, "/desk/trails?limit=4")
        following = re.search(r'href="([^"]+)" rel="next"', found.text)
        assert following is not None
        rest = await page(api, unescape(following[1]))
        told = [re.findall(r"/desk/trails/transaction/(p\d)", one.text) for one in (found, rest)]
        assert [len(one) for one in told] == [4, 2]
        assert sorted(told[0] + told[1]) == [f"p{number}" for number in range(6)]
        story = await page(api, "/desk/trails/transaction/p1")
        assert "p1" in shown(story)
        assert "part of this story" in shown(story)
        answer = (await api.get("/v1/trails/transaction/p1")).json()
        lines = re.findall(r'data-leaf="(\d+)" data-trail="transaction/p1"', story.text)
        assert lines == [str(row["leaf"]) for row in answer["entries"] if row["entry"]["kind"] == "event"]
