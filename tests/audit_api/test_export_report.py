"""The report as PDF: it says what the trail says, in every script that it claims, the same each time, and only what was verified."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pypdf
import pytest
import segno
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_api.export import pdf, report
from audit_api.export.bundle import BundleExport, TooLarge
from audit_api.export.pdf import FontError, render_report
from audit_api.export.report import Happening, Told, harmless, report_of
from collector.store.sqlite import SqliteStore
from correlator.bundle import Contents
from correlator.errors import VerificationError
from correlator.index.sqlite import SqliteIndex
from tests.support.apis import Api
from tests.support.exports import difficult_story, logs_of
from tests.support.ledgers import SIGNER, SmallLedger, payment

TRAIL = "transaction/PAY-0"


def contents_of(ledger: SmallLedger) -> Contents:
    export = BundleExport(logs_of(ledger).all[0].evidence, key=SIGNER.verifier, trails=[TRAIL], page=False)
    while export.step():
        pass
    return export.contents()


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contents]:
    folder = tmp_path_factory.mktemp("ledger")
    store, index = SqliteStore(folder / "store.sqlite"), SqliteIndex(folder / "index.sqlite")
    ledger = SmallLedger(store=store, index=index)
    ledger.ship(
        "texts/00000000000000dd",
        [payment(0, 60 + at, "texts", f"text.{at}", body=text) for at, text in enumerate(SCRIPTS.values())],
    )
    difficult_story(ledger)
    yield contents_of(ledger)
    store.close()
    index.close()


SCRIPTS = {
    "latin": "Überweisung à Łódź, €12",
    "greek": "Πληρωμή",
    "cyrillic": "Оплата проведена",
    "arabic": "تم الدفع",
    "devanagari": "भुगतान",
    "thai": "ชำระเงินแล้ว",
}


@pytest.fixture(scope="module")
def told(contents: Contents) -> Told:
    return report_of(contents, SIGNER.verifier)


@pytest.fixture(scope="module")
def made(told: Told) -> bytes:
    return render_report(told)


def texts_of(made: bytes) -> list[str]:
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(made)).pages]


def test_a_reader_finds_the_story_in_it(made: bytes, told: Told) -> None:
    pages = texts_of(made)
    text = "\n".join(pages)
    assert TRAIL in pages[0]
    assert "Flow payment: incomplete; missing: notified" in pages[0]
    assert dict(told.proof)["Root"] in pages[0]
    assert SIGNER.verifier.fingerprint in text
    for says in (
        "gateway · payment.requested",
        "EUR -12.5",
        "order_id O-1",
        "amount.note =A1",
        "by",
        "ann",
        "SERVER, 500.000 ms no",
        "502",
    ):
        assert says in text, says
    assert "body: a card number, masked before anything was written".split(": ")[1] in text
    assert "card [4111 11** **** 1111]" in text
    assert "no time stated: when it was recorded" in text
    assert "characters more]" in text
    assert [f"{at} / {len(pages)}" in page for at, page in enumerate(pages, 1)] == [True] * len(pages)


@pytest.fixture
def page(told: Told) -> Iterator[pdf._Page]:
    opened = pdf._Page(told)
    opened.begin(())
    yield opened
    opened.release()


def test_each_script_that_is_claimed_is_in_the_fonts(page: pdf._Page) -> None:
    for script, text in SCRIPTS.items():
        assert page._known(text) == text, script
    assert page._known("完了 \U0001f600") == "[U+5B8C][U+4E86] [U+1F600]"


def test_letters_that_no_font_has_are_told(made: bytes) -> None:
    text = "\n".join(texts_of(made))
    assert "U+5B8C" in text  # in a line that runs from the right
    assert "letters are in no font here" in text


def test_latin_greek_and_cyrillic_can_be_searched_and_copied(made: bytes) -> None:
    text = "\n".join(texts_of(made))
    for script in ("latin", "greek", "cyrillic"):
        assert SCRIPTS[script] in text


def test_the_same_contents_are_the_same_file(contents: Contents, made: bytes) -> None:
    assert render_report(report_of(contents, SIGNER.verifier)) == made


def test_what_does_not_verify_is_not_reported(contents: Contents) -> None:
    part = contents.trails[0]
    line = next(one for one in part.lines if one.event is not None)
    assert line.event is not None
    broken = replace(line, event=line.event.replace(b"texts", b"tests"))
    lines = tuple(broken if one is line else one for one in part.lines)
    with pytest.raises(VerificationError):
        report_of(replace(contents, trails=(replace(part, lines=lines),)), SIGNER.verifier)


def test_the_code_is_the_checkpoint(page: pdf._Page, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dark modules that are drawn, put together again, are those of the symbol; that readers read it is segno's to hold."""
    drawn: list[tuple[float, float, float]] = []
    monkeypatch.setattr(page, "rect", lambda x, y, w, *_, **__: drawn.append((x, y, w)))
    page._code(0.0)
    rows = [bytes(row) for row in segno.make(told.checkpoint, error="m", micro=False).matrix]
    unit = pdf._QR / len(rows)
    left = page.w - page.r_margin - pdf._QR
    again = [bytearray(len(row)) for row in rows]
    for x, y, width in drawn:
        first, count = round((x - left) / unit), round(width / unit)
        again[round(y / unit)][first : first + count] = b"\x01" * count
    assert [bytes(row) for row in again] == rows


def test_a_long_story_has_its_pages(told: Told) -> None:
    one = told.happenings[0]
    many = tuple(replace(one, time=f"00:00:{at % 60:02d}.{at:06d}") for at in range(120))
    made = render_report(replace(told, happenings=many))
    pages = texts_of(made)
    assert len(pages) > 8
    assert sum(page.count("00:00:") for page in pages) >= 120
    assert "checkpoint of" in pages[-1]


def test_a_report_that_says_too_much_is_not_made(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    said = sum(len(text) for one in report_of(contents, SIGNER.verifier).happenings for _, text in one.lines)
    monkeypatch.setattr(report, "MAX_CHARACTERS", said)  # its lines, its places and its names are more
    with pytest.raises(TooLarge, match=f"{TRAIL}.* a report holds at most {said} characters"):
        report_of(contents, SIGNER.verifier)


def test_what_takes_long_to_set_counts_for_more(told: Told) -> None:
    one = told.happenings[0]
    plain, *dear = (report._weight(replace(one, lines=(("", text),))) for text in ("a" * 300, "支" * 300, "a\n" * 150))
    assert dear[0] - plain == 9 * 300
    assert dear[1] - plain == 25 * 150


@settings(max_examples=8, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=120), st.text(max_size=30))
def test_no_text_makes_it_stumble(text: str, label: str) -> None:
    happening = Happening(
        date="2026-01-01",
        time="00:00:00.000000",
        service=harmless(text[:20]),
        name=harmless(text),
        outcome=harmless(label),
        bad=True,
        lines=((harmless(label), harmless(text)), ("", harmless(text))),
        place=harmless(text),
    )
    told = Told(
        trail="transaction/x",
        summary=(("Happened", harmless(text)),),
        verdicts=((harmless(text), True),),
        proof=(("Leaves", "1"), ("Root", "00" * 32)),
        checkpoint="x\n1\nAA==\n",
        happenings=(happening,),
        trails=(("transaction/x", "0 to 0", "0"),),
        made_ns=0,
    )
    assert render_report(told).startswith(b"%PDF-")


def test_a_font_that_is_none_says_so(told: Told, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.ttf"
    wrong.write_bytes(b"not a font")
    with pytest.raises(FontError, match=r"wrong\.ttf"):
        render_report(told, fonts=[wrong])


def test_what_steers_text_is_spelled_out() -> None:
    assert harmless("a\u202eb\x1b[31m\r\nc\td\xade") == "a\\u202eb\\u001b[31m\nc d\\u00ade"


def test_a_service_s_name_steers_no_text(ledger: SmallLedger) -> None:
    ledger.ship("shop/00000000000000dd", [payment(0, 9, "shop\u202egnp", "paid")])
    ledger.publish()
    summary = dict(report_of(contents_of(ledger), SIGNER.verifier).summary)
    assert summary["Services"].endswith("shop\\u202egnp")


def test_what_stands_for_the_count_of_pages_is_text_where_others_wrote_it(told: Told) -> None:
    one = replace(
        told.happenings[0], lines=(("", "paid {nb} EUR"), ("right to left", "تم الدفع {nb}")), place="at {nb}"
    )
    told = replace(told, happenings=(one,) * 60)
    pages = texts_of(render_report(told))
    text = "\n".join(pages)
    assert len(pages) > 2
    assert [text.count(said) for said in ("paid {nb} EUR", "at {nb}")] == [60, 60]
    assert len(re.findall(r"[{}]nb[{}]", text)) == 180, "a brace looks the other way in a line that runs from the right"
    assert [f"{at} / {len(pages)}" in page for at, page in enumerate(pages, 1)] == [True] * len(pages)


@pytest.mark.anyio
async def test_the_api_makes_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await api.get("/v1/exports/transaction/PAY-1?format=pdf")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/pdf"
    assert "transaction/PAY-1" in texts_of(answer.content)[0]
    assert answer.content == (await api.get("/v1/exports/transaction/PAY-1?format=pdf")).content
    access = api.record.events[-1].access
    assert access is not None
    assert (access.action, access.trail) == ("trail.export", "transaction/PAY-1")
    monkeypatch.setattr("audit_api.export.operation.MAX_ENTRIES", 3)
    answer = await api.get("/v1/exports/transaction/PAY-1?format=pdf")
    assert (answer.status_code, answer.json()["limit"]) == (422, 3)
    assert (await api.get("/v1/exports/transaction/PAY-1")).status_code == 200, "a bundle may hold more"
    monkeypatch.setattr("audit_api.export.operation.MAX_ENTRIES", report.MAX_ENTRIES)
    monkeypatch.setattr(report, "MAX_CHARACTERS", 500)
    answer = await api.get("/v1/exports/transaction/PAY-1?format=pdf&linked=false")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:tallystick:problem:export-too-large")
    missing: Any = __import__("sys").modules
    monkeypatch.delitem(missing, "audit_api.export.pdf")
    monkeypatch.setitem(missing, "fpdf", None)
    answer = await api.get("/v1/exports/transaction/PAY-1?format=pdf")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:tallystick:problem:format-unavailable")
