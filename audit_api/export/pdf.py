"""A report as PDF: A4, page by page, with the signed checkpoint as a QR code. Needs the extra ``pdf``.

Letters are Noto Sans: Latin, Greek and Cyrillic with their extensions, Arabic, Devanagari and Thai, put into the file as far as they are
used. What no font has is written as its code point, such as ``[U+5B8C]``, and the report says that it was: further fonts are the
caller's to give. The same report is the same file: no clock is asked.
"""

import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from pathlib import Path

import segno
from fontTools.ttLib import TTFont
from fpdf import FPDF
from fpdf.enums import TextMode, XPos, YPos
from fpdf.fonts import TTFFont

from audit_api.export.report import Happening, Told
from collector.errors import TallyError

__all__ = ["FontError", "render_report"]

_OWN = ("fontpkg_noto_sans", "fontpkg_noto_sans_arabic", "fontpkg_noto_sans_devanagari", "fontpkg_noto_sans_thai")
_COMPLEX = re.compile("[\u0590-\u08ff\u0900-\u0dff\u0e00-\u0eff\ufb1d-\ufdff\ufe70-\ufeff]")
"""Scripts whose letters join, stack, or run from the right: they are shaped, all others are not, which is ten times quicker."""

_INK, _GREY, _BAD, _GOOD, _RULE, _TINT = (
    (26, 26, 26),
    (95, 99, 104),
    (164, 0, 0),
    (11, 102, 35),
    (205, 208, 212),
    (245, 246, 247),
)
_MARGIN = 16.0
_QR = 44.0
_COUNT = "{nb}"
"""Stands for the count of pages, in the foot alone: in the events' text it is text."""
_NOTE = (
    "This report is for reading. Proof is the bundle of the same trail (tally export ID -o FILE.zip), which anyone checks offline with "
    "tally verify and the log's key from a source that they trust. The code holds the signed checkpoint: compare it with others' copies."
)


class FontError(TallyError):
    """A font that was given cannot be used; the message says which."""


def render_report(told: Told, *, fonts: Sequence[Path] = ()) -> bytes:
    """The PDF of a report.

    Args:
        told: what it says.
        fonts: further TrueType or OpenType fonts, for letters that ours have not.

    Raises:
        FontError: a font cannot be read.
    """
    page = _Page(told)
    try:
        page.begin(fonts)
        page.head()
        page.story()
        page.tail()
        return page.done()
    finally:
        page.release()


class _Page(FPDF):
    def __init__(self, told: Told) -> None:
        super().__init__(format="A4")
        self.alias_nb_pages("")  # the library would put the count of pages for it in what others wrote, too
        self._told = told
        self._unknown = 0
        self.set_margins(_MARGIN, _MARGIN + 6, _MARGIN)
        self.set_auto_page_break(True, margin=_MARGIN + 4)
        self._letters: set[int] = set()
        self.set_title(f"Audit report: {told.trail}")
        self.set_creator("Tallystick")
        self.set_lang("en")
        self.set_creation_date(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=told.made_ns // 1_000))

    def begin(self, fonts: Sequence[Path]) -> None:
        """Open the fonts, ours and these, and the first page."""
        names = []
        for at, package in enumerate(_OWN):
            folder = files(package) / "files"
            upright = next(
                one for one in sorted(folder.iterdir(), key=lambda one: one.name) if "Italic" not in one.name
            )
            with as_file(upright) as path:
                names.append(self._take(path, f"own{at}"))
        names += [self._take(path, f"more{at}") for at, path in enumerate(fonts)]
        self.set_fallback_fonts(names[1:], exact_match=False)
        self.add_page()

    def release(self) -> None:
        """Close the fonts' files."""
        for font in self.fonts.values():
            if isinstance(font, TTFFont):
                font.ttfont.close()

    def _take(self, path: Path, name: str) -> str:
        try:
            TTFont(io.BytesIO(path.read_bytes())).close()  # the library leaves a file open that is no font
            self.add_font(name, "", str(path))
            font = self.fonts[name]
            assert isinstance(font, TTFFont)
            self._letters |= set(font.cmap)
        except Exception as error:
            raise FontError(f"{path.name} cannot be used as a font: {error}") from error
        return name

    # Text -------------------------------------------------------------------------------------------------------------

    def _known(self, text: str) -> str:
        """The text with what no font has as code points."""

        def spelled(char: str) -> str:
            if ord(char) in self._letters or char in "\n ":
                return char
            self._unknown += 1
            return f"[U+{ord(char):04X}]"

        return "".join(map(spelled, text))

    def _say(
        self,
        text: str,
        *,
        size: float = 9.0,
        ink: tuple[int, int, int] = _INK,
        strong: bool = False,
        left: float = 0.0,
        width: float = 0.0,
    ) -> None:
        """A paragraph from `left` mm of the margin on, as wide as there is room or `width` mm."""
        self.set_font("own0", "", size)
        self.set_text_color(*ink)
        self.set_draw_color(*ink)
        self.set_text_shaping(bool(_COMPLEX.search(text)))
        self.text_mode = TextMode.FILL_STROKE if strong else TextMode.FILL
        self.set_line_width(0.12 if strong else 0.2)
        self.set_x(self.l_margin + left)
        self.multi_cell(width, size * 0.47, self._known(text) or " ", align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.text_mode = TextMode.FILL

    def _pair(
        self, label: str, text: str, *, size: float = 8.0, left: float = 0.0, label_mm: float = 24.0, width: float = 0.0
    ) -> None:
        """A label in grey, and its text beside it."""
        if label and len(label) <= 18:
            top, page = self.y, self.page
            self._say(label, size=size, ink=_GREY, left=left, width=label_mm)
            bottom = self.y
            if self.page == page:
                self.y = top
            self._say(text, size=size, left=left + label_mm, width=width and width - label_mm)
            self.y = max(self.y, bottom) if self.page == page else self.y
        else:
            self._say(f"{label}: {text}" if label else text, size=size, left=left, width=width)

    def _heading(self, text: str) -> None:
        self._room(20)
        self.ln(4)
        self._say(text, size=12, strong=True)
        self.ln(1.5)

    def _room(self, height: float) -> None:
        """A new page when less than `height` mm are left of this one."""
        if self.will_page_break(height):
            self.add_page()

    def _rule(self) -> None:
        self.set_draw_color(*_RULE)
        self.set_line_width(0.15)
        self.line(self.l_margin, self.y, self.w - self.r_margin, self.y)

    # Every page -------------------------------------------------------------------------------------------------------

    def header(self) -> None:
        """The trail, from the second page on."""
        if self.page_no() == 1:
            return
        self.set_y(_MARGIN - 4)
        shown = self._told.trail
        self._say(shown if len(shown) <= 95 else f"{shown[:94]}…", size=7.5, ink=_GREY)
        self._rule()
        self.set_y(_MARGIN + 6)

    def footer(self) -> None:
        """What the page is of, and which one it is."""
        root = dict(self._told.proof)["Root"]
        leaves = dict(self._told.proof)["Leaves"]
        self.set_y(-_MARGIN)
        self._rule()
        self.ln(1.5)
        self.set_font("own0", "", 7)
        self.set_text_color(*_GREY)
        self.set_text_shaping(False)
        self.cell(120, 3.5, f"Tallystick · checkpoint of {leaves} leaves · root {root[:16]}…", align="L")
        before = self.str_alias_nb_pages
        self.alias_nb_pages(_COUNT)
        self.cell(0, 3.5, f"{self.page_no()} / {_COUNT}", align="R")
        self.alias_nb_pages(before)

    # Its parts --------------------------------------------------------------------------------------------------------

    def head(self) -> None:
        """What it is of, how it ended, what was verified; with the checkpoint's code beside it."""
        told = self._told
        room = self.epw - _QR - 6
        self.set_y(_MARGIN)
        top = self.y
        self._say("Audit report", size=9, ink=_GREY)
        self._say(told.trail, size=16, strong=True, width=room)
        self.ln(1.5)
        for text, bad in told.verdicts:
            self._say(text, size=10.5, ink=_BAD if bad else _GOOD, strong=True, width=room)
        self.ln(1.5)
        for label, text in told.summary:
            self._pair(label, text, size=9, width=room)
        self._code(top)
        self.y = max(self.y, top + _QR + 8)
        self._heading("Proof")
        for label, text in told.proof:
            self._pair(label, text, size=8.5)
        self.ln(1.5)
        self._say(_NOTE, size=8, ink=_GREY)

    def _code(self, top: float) -> None:
        """The QR code as rectangles, a row of modules at a time: sharp at any size."""
        rows = [bytes(row) for row in segno.make(self._told.checkpoint, error="m", micro=False).matrix]
        unit = _QR / len(rows)
        left = self.w - self.r_margin - _QR
        self.set_fill_color(0, 0, 0)
        for at, row in enumerate(rows):
            for run in re.finditer(b"\x01+", row):
                x, width = left + run.start() * unit, (run.end() - run.start()) * unit
                self.rect(x, top + at * unit, width, unit * 1.02, style="F")
        kept = self.y
        self.set_xy(left, top + _QR + 1)
        self.set_font("own0", "", 7)
        self.set_text_color(*_GREY)
        self.cell(_QR, 3.5, "the signed checkpoint", align="C")
        self.y = kept

    def story(self) -> None:
        """Every entry, in the order of stated times, under its day."""
        self._heading("What happened")
        day = ""
        for one in self._told.happenings:
            if one.date != day:
                day = one.date
                self._room(22)
                self.ln(1)
                self._say(f"{day} (UTC)", size=9, ink=_GREY, strong=True)
                self.ln(0.8)
            self._happening(one)

    def _happening(self, one: Happening) -> None:
        self._room(16)
        self._rule()
        self.ln(1.2)
        top, page = self.y, self.page
        self._say(one.time, size=8, ink=_GREY, width=26)
        self.y = top
        title = f"{one.service} · {one.name}" if one.service else one.name
        self._say(title, size=9.5, ink=_BAD if one.bad else _INK, strong=True, left=27, width=self.epw - 27 - 30)
        bottom = self.y
        if one.outcome and self.page == page:
            self.y = top
            self._say(one.outcome, size=9, ink=_BAD if one.bad else _GOOD, left=self.epw - 29, width=29)
            self.y = max(bottom, self.y)
        for label, text in one.lines:
            self._pair(label, text, left=27, label_mm=32)
        self._say(one.place, size=6.8, ink=_GREY, left=27)
        self.ln(1.2)

    def tail(self) -> None:
        """The trails, and what a reader must know of this report."""
        self._heading("Trails in this report")
        for trail, positions, leaf in self._told.trails:
            self._say(trail, size=8.5)
            self._say(f"positions {positions}, last leaf {leaf}", size=7.5, ink=_GREY)
            self.ln(0.8)
        self._room(40)
        self._heading("The signed checkpoint")
        self._say(self._told.checkpoint.strip("\n"), size=7.5)
        if self._unknown:
            self._heading("Letters")
            told = "1 letter is" if self._unknown == 1 else f"{self._unknown:,} letters are"
            self._say(
                f"{told} in no font here and written as code points, [U+…]. The bundle has the text as it is.", size=8
            )

    def done(self) -> bytes:
        """The file."""
        out = io.BytesIO()
        self.alias_nb_pages(_COUNT)  # only now does the library put the count in the feet's places
        self.output(out)
        return out.getvalue()
