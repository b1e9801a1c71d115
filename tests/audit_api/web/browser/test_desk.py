"""The pages in a real Chromium, over the demo's ledger: an auditor finds what went wrong, and believes no server."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from correlator.note import Verifier
from correlator.unbundle import unpack_bundle
from correlator.verify import verify_bundle
from tests.audit_api.web.browser.conftest import PATIENCE_SECONDS, Desk, Reader, reader_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(480)]

SERIOUS = ("serious", "critical")


def test_an_auditor_finds_the_forgotten_step_and_proves_it(reader: Reader, desk: Desk) -> None:
    page = reader.page
    page.get_by_label("Verdict").select_option("incomplete")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("table.list tbody tr")).to_have_count(2)
    page.get_by_role("link", name=desk.forgotten).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(desk.forgotten)
    expect(page.locator(".callout.bad")).to_contain_text(
        "Missing: notified customer.notified of notifications never came."
    )
    expect(page.locator(".step.missing")).to_have_text("notified missing notifications")
    missing = page.locator("tr.missing")
    expect(missing).to_have_count(1)
    before = missing.locator("xpath=preceding-sibling::tr[1]")
    expect(before).to_contain_text("funds.captured")
    expect(page.locator("mark.masked").first).to_contain_text("~card:")
    expect(page.locator("body")).not_to_contain_text("4111 1111 1111 1111")
    assert reader.verify() == "unsure"
    expect(page.locator("#proof-panel")).to_contain_text("the key is not confirmed")
    assert reader.verify(trusting=desk.vkey) == "good"
    expect(page.locator("#proof-panel")).to_contain_text("16 lines of this page say what was proved")
    expect(page.locator(".checks .good")).to_have_count(7)
    page.reload()  # the key is remembered, and so is how far the log was
    assert reader.verify() == "good"


def test_another_key_than_the_trusted_one_is_red(reader: Reader, desk: Desk) -> None:
    reader.open_story(desk.forgotten)
    assert reader.verify(trusting="SHA256:" + "0" * 64) == "bad"
    expect(reader.page.locator("#proof-panel")).to_contain_text("you trust SHA256:0000")


def change_event(answer: dict[str, Any]) -> None:
    row = next(row for row in answer["entries"] if row.get("event") and "body" in row["event"])
    row["event"]["body"] = "nothing happened"


def change_entry(answer: dict[str, Any]) -> None:
    answer["entries"][1]["entry"]["recorded"] = "2026-01-01T00:00:00.000000000Z"


def leave_out(answer: dict[str, Any]) -> None:
    del answer["entries"][2]


def cut_off(answer: dict[str, Any]) -> None:
    del answer["entries"][-2:]


def other_tree(answer: dict[str, Any]) -> None:
    note = answer["checkpoint"]["note"].split("\n")
    note[1] = str(int(note[1]) - 1)
    answer["checkpoint"] |= {"note": "\n".join(note), "size": answer["checkpoint"]["size"] - 1}


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (change_event, "the event is not the one that was recorded"),
        (change_entry, "Leaf "),
        (leave_out, "an entry is missing or repeated"),
        (cut_off, "entries of"),
        (other_tree, "FALSE"),
    ],
)
def test_a_tampered_answer_is_red(
    reader: Reader, desk: Desk, tamper: Callable[[dict[str, Any]], None], told: str
) -> None:
    def meddle(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        if body["trail"].startswith("transaction/"):
            tamper(body)
        route.fulfill(response=answer, body=json.dumps(body, ensure_ascii=False))

    reader.open_story(desk.forgotten)
    reader.page.route("**/v1/trails/**", meddle)
    assert reader.verify() == "bad"
    expect(reader.page.locator("#proof-panel .verdict")).to_contain_text("FALSE")
    expect(reader.page.locator("#proof-panel .verdict")).to_contain_text(told)


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("captured ", "did not capture "),
        (">ledger</span>", ">treasury</span>"),
        ('class="outcome success"', 'class="outcome failure"'),
        ("&#34;event_name&#34;: &#34;funds.captured&#34;", "&#34;event_name&#34;: &#34;funds.kept&#34;"),
    ],
)
def test_a_page_that_shows_something_else_than_was_proved_is_red(
    reader: Reader, desk: Desk, true: str, false: str
) -> None:
    def meddle(route: Route) -> None:
        answer = route.fetch()
        text = answer.text()
        assert true in text
        route.fulfill(response=answer, body=text.replace(true, false))

    reader.page.route("**/desk/trails/transaction/*", meddle)
    reader.open_story(desk.forgotten)
    assert reader.verify() == "bad"
    expect(reader.page.locator("#proof-panel .verdict")).to_contain_text("what was proved is")


@pytest.mark.parametrize(("more", "state"), [("", "unsure"), ("x", "bad")])
def test_how_a_long_event_begins_is_held_to_what_was_proved(reader: Reader, desk: Desk, more: str, state: str) -> None:
    def begun(found: re.Match[str]) -> str:
        whole = json.dumps(json.loads(unescape(found[2])), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return f'<pre data-event="part"{found[1]}>{escape(whole[:200] + more)}</pre>'

    def shorten(route: Route) -> None:
        answer = route.fetch()
        text, times = re.subn(r"<pre data-event( [^>]*)>([^<]*)</pre>", begun, answer.text())
        assert times > 0
        route.fulfill(response=answer, body=text)

    reader.page.route("**/desk/trails/transaction/*", shorten)
    reader.open_story(desk.forgotten)
    assert reader.verify() == state


def test_a_log_that_was_rewound_is_red(reader: Reader, desk: Desk) -> None:
    reader.open_story(desk.forgotten)
    assert reader.verify() == "unsure"
    tree = "tally.tree.payments.example/audit"
    reader.page.evaluate(
        "name => { const tree = JSON.parse(localStorage[name]);"
        " localStorage[name] = JSON.stringify({...tree, root: btoa('\\0'.repeat(32))}); }",
        tree,
    )
    assert reader.verify() == "bad"
    expect(reader.page.locator("#proof-panel .verdict")).to_contain_text(
        "does not continue the one that this browser saw"
    )


def test_a_browser_without_ed25519_says_what_it_could_not_check(reader: Reader, desk: Desk) -> None:
    reader.page.add_init_script(
        "crypto.subtle.importKey = async () => { throw new DOMException('Ed25519?', 'NotSupportedError'); };"
    )
    reader.open_story(desk.forgotten)
    assert reader.verify() == "unsure"
    expect(reader.page.locator("#proof-panel .verdict")).to_contain_text("Signature not checked")
    expect(reader.page.locator(".checks .good")).to_have_count(5)


def test_the_export_dialog_gives_a_bundle_that_verifies(reader: Reader, desk: Desk, tmp_path: Path) -> None:
    reader.open_story(desk.forgotten)
    expect(reader.page.get_by_role("dialog")).to_be_hidden()
    reader.page.get_by_role("button", name="Export").click()
    dialog = reader.page.get_by_role("dialog", name="Take it away")
    with reader.page.expect_download() as download:
        dialog.get_by_role("link", name="Bundle", exact=True).click()
    file = tmp_path / "bundle.zip"
    download.value.save_as(file)
    report = verify_bundle(file.read_bytes(), Verifier.parse(desk.vkey))
    assert report.events == 16
    reader.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    inside = tmp_path / "index.html"
    inside.write_bytes(unpack_bundle(file.read_bytes())["index.html"])
    reader.page.goto(inside.as_uri())
    for width in (320, 400, 959, 961, 1_280):
        reader.page.set_viewport_size({"width": width, "height": 800})
        wide = reader.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, f"the bundle's page scrolls sideways at {width} px"


def focused(page: Page) -> str:
    script = "one => one.matches('body, main') ? '' : one.textContent.trim() || one.id"
    return str(page.evaluate(f"({script})(document.activeElement)"))


def tab_to(page: Page, text: str, most: int = 60) -> None:
    """Press Tab until what is focused says `text`: no mouse, and no more than a person's patience."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if text in focused(page):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{text} has the focus, and does not show it"
            return
    pytest.fail(f"{text!r} cannot be reached with the keyboard")


def test_everything_can_be_done_with_the_keyboard(chromium: Browser, desk: Desk) -> None:
    context = chromium.new_context(locale="en-GB")
    reader = reader_of(context, desk)
    page = reader.page
    page.goto(desk.url)
    # The one field has the focus by itself. A browser gives it with the first picture, which can come after "load".
    page.wait_for_function("document.activeElement.id === 'token'")
    page.keyboard.type(desk.auditor)
    page.keyboard.press("Enter")
    page.wait_for_url("**/desk/trails")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    tab_to(page, "text", 3)
    page.keyboard.type(desk.forgotten)
    page.keyboard.press("Enter")
    page.wait_for_url("**text=**")
    tab_to(page, desk.forgotten)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{desk.forgotten}")
    tab_to(page, "Verify in this browser")
    page.keyboard.press("Enter")
    page.locator("#proof-panel.unsure").wait_for()
    tab_to(page, "payment.received")
    page.keyboard.press("Enter")
    expect(page.locator("tr", has_text="payment.received").locator("pre")).to_be_visible()
    page.keyboard.press("Home")
    tab_to(page, "Sign out", 120)
    page.keyboard.press("Enter")
    page.wait_for_url("**/desk/login**")
    expect(page.locator(".callout")).to_have_text("You are signed out.")
    assert reader.complaints == []
    context.close()


@pytest.mark.parametrize("look_of", [("light", 1280), ("dark", 1280), ("light", 360)])
def test_axe_finds_nothing_serious_on_any_page(
    chromium: Browser, desk: Desk, session: Any, axe: str, look_of: tuple[Any, int]
) -> None:
    context = chromium.new_context(
        color_scheme=look_of[0], viewport={"width": look_of[1], "height": 800}, locale="en-GB", storage_state=session
    )
    reader = reader_of(context, desk)
    page = reader.page

    def look() -> None:
        page.evaluate(axe)
        found = page.evaluate("axe.run({resultTypes: ['violations']})")
        told = [
            (one["id"], [node["target"] for node in one["nodes"]][:3], one["nodes"][0]["failureSummary"])
            for one in found["violations"]
            if one["impact"] in SERIOUS
        ]
        assert told == [], f"{page.url}: {told}"
        assert found["passes"], "it did look"
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{page.url} scrolls sideways by {wide} px"

    page.goto(f"{desk.url}/desk/login")
    look()
    page.goto(f"{desk.url}/desk/trails?status=incomplete")
    look()
    page.goto(f"{desk.url}/desk/trails?status=incomplete&currency=nonsense&least=1")
    look()
    reader.open_story(desk.forgotten)
    reader.verify()
    page.locator("summary").filter(has_text="payment.received").click()
    look()
    page.get_by_role("button", name="Export").click()
    look()
    page.goto(f"{desk.url}/desk/system")
    look()
    page.goto(f"{desk.url}/desk/reviews")
    look()
    page.goto(f"{desk.url}/desk/reviews?show=all&day=2026-01-01")
    look()
    page.goto(f"{desk.url}/desk/live?kind=any")
    expect(page.get_by_role("status")).to_contain_text("Reading along")
    look()
    page.goto(f"{desk.url}/desk/trails?status=failed")
    page.get_by_text("Save this search").click()
    look()
    page.goto(f"{desk.url}/desk/trails/transaction/no-such")
    look()
    page.goto(f"{desk.url}/desk/purpose?next=/desk/system")
    look()
    expect(page.get_by_label("Purpose")).to_be_focused()
    page.get_by_label("Purpose").fill("PCI review 2026, sample 14, of the payments of the first quarter")
    page.keyboard.press("Enter")
    # The whole address: of two pages that say the same, as the session of an earlier look has this purpose already,
    # the one with the form ends with `?next=/desk/system`.
    page.wait_for_url(f"{desk.url}/desk/system")
    expect(page.get_by_role("link", name="Why you read")).to_contain_text("sample 14")
    look()
    context.close()


def test_without_scripts_the_story_is_all_there(chromium: Browser, desk: Desk) -> None:
    context = chromium.new_context(java_script_enabled=False, locale="en-GB")
    reader = reader_of(context, desk)
    reader.sign_in(desk.auditor)
    reader.open_story(desk.forgotten)
    expect(reader.page.locator("tr.missing")).to_be_visible()
    expect(reader.page.get_by_text("To verify here, allow scripts")).to_be_visible()
    expect(reader.page.locator("[data-controls]")).to_be_hidden()
    context.close()


def test_an_sre_sees_what_happened_where_and_no_event(chromium: Browser, desk: Desk) -> None:
    context = chromium.new_context(locale="en-GB")
    reader = reader_of(context, desk)
    reader.sign_in(desk.sre)
    reader.open_story(desk.forgotten)
    expect(reader.page.locator("tr.missing")).to_be_visible()
    expect(reader.page.locator("tr", has_text="funds.captured")).to_be_visible()
    expect(reader.page.locator("body")).not_to_contain_text("602.50 EUR captured")
    assert reader.page.locator("pre, [data-message]").count() == 0
    expect(reader.page.locator("#proof-panel")).to_contain_text("for the roles auditor and admin")
    assert reader.complaints == []
    context.close()


def test_who_looked_is_told_to_the_next(reader: Reader, desk: Desk) -> None:
    page = reader.page

    looks = page.locator("#accesses ~ table").filter(has_text="ann")
    reader.open_story(desk.forgotten)
    reader.open_until(f"{desk.url}/desk/trails/transaction/{desk.forgotten}", looks)


def test_a_search_is_saved_run_and_deleted(reader: Reader, desk: Desk) -> None:
    page = reader.page
    page.get_by_label("Verdict").select_option("incomplete")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**status=incomplete**")
    page.get_by_text("Save this search").click()
    page.get_by_label("Name", exact=True).fill("left open")
    page.get_by_label("Who sees it").select_option("only you")
    page.get_by_role("button", name="Save", exact=True).click()
    kept = page.get_by_role("link", name="left open", exact=True)
    expect(kept).to_have_attribute("aria-current", "true")
    page.goto(f"{desk.url}/desk/trails")
    kept.click()
    expect(page.get_by_label("Verdict")).to_have_value("incomplete")
    expect(page.locator("table.list tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Delete the saved search left open").click()
    expect(page.get_by_text("You have none yet")).to_be_visible()
    expect(kept).to_have_count(0)


def test_what_waits_is_looked_at_and_signed_off(reader: Reader, desk: Desk) -> None:
    page, trail = reader.page, f"transaction/{desk.forgotten}"
    page.get_by_role("link", name="Reviews").click()
    page.get_by_role("link", name=desk.forgotten).click()
    expect(page.get_by_text("nobody has signed it off")).to_be_visible()
    page.get_by_role("button", name="Sign off").click()  # a decision is needed: the browser says so and sends nothing
    expect(page.get_by_label("Explained")).to_be_focused()
    page.get_by_label("Escalated").check()
    page.get_by_label("Note").fill("the customer of card 4111 1111 1111 1111 was told by telephone")
    page.get_by_role("button", name="Sign off").click()
    expect(page.get_by_role("status")).to_contain_text(f"Your sign-off of {trail} is on record")
    row = page.locator("tr", has_text=desk.forgotten)
    signed = row.filter(has_text="was told by telephone")
    reader.open_until(f"{desk.url}/desk/reviews?show=all", signed)
    expect(signed).to_contain_text("Escalated")
    expect(page.locator("body")).not_to_contain_text("4111 1111 1111 1111")
    page.goto(f"{desk.url}/desk/reviews")
    expect(row).to_have_count(0)
    page.locator("#days ~ table tbody tr").first.get_by_role("link").click()
    expect(page.get_by_text("not over", exact=True)).to_be_visible()  # the demo is of today
    expect(page.get_by_role("button", name="Sign the day off")).to_have_count(0)


def ask(url: str, token: str) -> Any:
    """What the API answers a program."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - this machine's own
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
        return json.load(answer)


def arrive(desk: Desk, name: str) -> None:
    """Somebody new asks for something: a trail `access/<name>` begins, and this returns when the log has it."""
    ask(f"{desk.url}/v1/status", desk.token(name, "sre"))
    until = time.monotonic() + PATIENCE_SECONDS
    while not ask(f"{desk.url}/v1/trails?kind=access&text={name}", desk.auditor)["trails"]:
        assert time.monotonic() < until, f"the log has no access of {name}"
        time.sleep(0.2)  # what is awaited happens in other processes, and who asks too often is refused


def test_what_happens_is_read_along_paused_and_gone_on_with(reader: Reader, desk: Desk) -> None:
    page = reader.page
    page.get_by_role("link", name="Live").click()
    page.get_by_label("Kind").select_option("access")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**kind=access")
    tail, state = page.get_by_role("log"), page.get_by_role("status")
    expect(state).to_contain_text("Reading along")
    arrive(desk, "newcomer-one")
    expect(tail.locator("li").first).to_contain_text("newcomer-one")
    page.get_by_role("button", name="Pause").click()
    expect(state).to_contain_text("Paused")
    arrive(desk, "newcomer-two")
    expect(tail.get_by_role("link", name="newcomer-two")).to_have_count(0)
    page.get_by_role("button", name="Go on").click()
    expect(tail.locator("li").first).to_contain_text("newcomer-two")  # nothing was missed
    tail.get_by_role("link", name="newcomer-two").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("newcomer-two")


def test_without_scripts_what_happens_is_a_list(chromium: Browser, desk: Desk, session: Any) -> None:
    context = chromium.new_context(java_script_enabled=False, locale="en-GB", storage_state=session)
    page = reader_of(context, desk).page
    page.goto(f"{desk.url}/desk/live")
    expect(page.get_by_role("log").locator("li").filter(has_text=desk.forgotten).first).to_be_visible()
    expect(page.get_by_text("Load the page again for what came since")).to_be_visible()
    expect(page.locator("[data-pause]")).to_be_hidden()
    context.close()
