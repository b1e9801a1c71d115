"""The bundle's page for people: the same story as HTML, in one file that loads nothing and runs nothing. Pure.

It is rendered from the bundle's content alone, so that a verifier can render it again and compare: a page that tells another
story than the proved one is found. It is made, and compared, piece by piece: it may be much longer than what it is made of.

A change to what is rendered is a new version of the page (`correlator.bundle.Manifest`), and earlier versions are rendered still:

| version | |
|---|---|
| 1 | each event and each detail is indented |
| 2 | as it is where indented it would have more than `MAX_INDENTED_BYTES`; written only where there is one, so that it differed from version 1 |
| 3 | as 2, whether there is one or not; each trail's verdicts are told apart; narrow screens show a row's cells one below the other |
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

import msgspec

from correlator.errors import VerificationError
from correlator.indented import indented
from correlator.shown import Shown, shown_of

if TYPE_CHECKING:
    from correlator.bundle import Contents

__all__ = ["has_true_page", "with_page"]

MAX_INDENTED_BYTES = 1 << 20
"""Longest text, in UTF-8 and before it is made HTML, that one event or detail is indented to, since version 2."""

_encode = msgspec.json.Encoder(order="sorted").encode

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}code,pre{font:13px/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
.time{white-space:nowrap}small{color:#555}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}
.bad{color:#a40000}.note{background:#fff8dc;padding:.6rem 1rem;border-left:4px solid #e0b400}pre{white-space:pre-wrap;margin:.3rem 0}
""".replace("\n", "")

_NARROW = """
h1,b,small{overflow-wrap:anywhere}
@media(max-width:60rem){td{overflow-wrap:anywhere}.story,.story tbody,.story tr,.story td{display:block}.story tr:first-child{display:none}
.story tr{padding:.5rem 0;border-bottom:1px solid #ddd}.story td{padding:.1rem 0;border:0}.story td:empty{display:none}}
""".replace("\n", "")
"""Behind `_STYLE` since version 3."""

_HEAD = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    '<meta name="viewport" content="width=device-width">\n<meta name="referrer" content="no-referrer">\n'
)

_NOTE = (
    '<p class="note">This page proves nothing by itself. Check the bundle that it came in: '
    "<code>tally verify FILE --key KEY</code>, with the log’s key from a source that you trust.</p>\n"
)


def with_page(contents: "Contents", *, most_bytes: int) -> "Contents":
    """The bundle with its page, as index.html in UTF-8, of the newest version.

    Raises:
        VerificationError: an entry in it cannot be read.
        ValueError: the page would have more than `most_bytes` bytes; it is given up when it has.
    """
    rendering = _Rendering(contents, version=3)
    page = BytesIO()
    for piece in rendering.pieces():
        page.write(piece)
        if page.tell() > most_bytes:
            raise ValueError(f"the page for people would have more than {most_bytes} bytes")
    return replace(contents, page=page.getvalue(), page_version=3)


def has_true_page(contents: "Contents") -> bool:
    """Whether the page of a bundle is what its content renders to, in the version that it states; nothing is rendered beyond the first difference.

    Raises:
        VerificationError: an entry in it cannot be read.
    """
    page = contents.page or b""
    rendering = _Rendering(contents, version=contents.page_version)
    at = 0
    for piece in rendering.pieces():
        if not page.startswith(piece, at):
            return False
        at += len(piece)
    # version 2 stands only where it differs from version 1, and version 1 never shows anything as it is
    return at == len(page) and (contents.page_version != 2 or rendering.plain)


class _Rendering:
    """One rendering of a bundle's page. `plain` says, once it is made, whether something is shown as it is because it is too long when indented."""

    def __init__(self, contents: "Contents", *, version: int) -> None:
        self._contents = contents
        self._version = version
        self.plain = False

    def pieces(self) -> Iterator[bytes]:
        """The page in UTF-8."""
        return (piece.encode("utf-8") for piece in self._texts())

    def _texts(self) -> Iterator[str]:
        contents = self._contents
        rows = sorted(shown_of(contents), key=lambda one: (_time(one), one.line.leaf))
        title = _text(contents.trails[0].trail)
        style, table = (_STYLE + _NARROW, '<table class="story">') if self._version >= 3 else (_STYLE, "<table>")
        yield f"{_HEAD}<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{_NOTE}"
        yield f"<p>Ledger <b>{_text(contents.key.name)}</b>, key <code>{_text(contents.key.fingerprint)}</code>.</p>\n"
        several = len(contents.trails) > 1
        yield from _verdicts(rows, told_apart=several and self._version >= 3)
        yield "<h2>What happened</h2>\n<p>By the time that each source stated; entries without one by when they were recorded.</p>\n"
        yield f"{table}\n<tr><th>Time</th><th>Service</th><th>What</th><th>Outcome</th><th>Why it is here</th></tr>\n"
        for one in rows:
            yield from self._row(one, one.trail if several else "")
        yield "</table>\n<h2>Trails</h2>\n<table>\n<tr><th>Trail</th><th>Positions</th><th>Last leaf</th></tr>\n"
        for part in contents.trails:
            last = part.first + len(part.lines) - 1
            yield f"<tr><td><code>{_text(part.trail)}</code></td><td>{part.first}–{last}</td>"
            yield f"<td>{part.lines[-1].leaf}</td></tr>\n"
        yield "</table>\n</body>\n</html>\n"

    def _row(self, one: Shown, trail: str) -> Iterator[str]:
        """A row of the story, in pieces; `trail` is empty where there is but one."""
        entry, facts = one.entry, one.facts
        bad = facts is not None and facts.error
        place = ""
        if facts is not None:
            what = facts.name or "event"
            data = one.line.event
            instead = (
                "The event is not shown in this bundle." if one.retired is None else f"The event was {one.retired}."
            )
            outcome = facts.outcome or ("error" if bad else "")
            place = f"event {entry.sequence} of {entry.stream}"
        else:
            what, data, instead = entry.kind, _encode(entry.detail), ""
            outcome = str(entry.detail.get("verdict", entry.detail.get("reason", "")))
        leaf = f"leaf {one.line.leaf}, position {entry.position}" + (f" of {trail}" if trail else "")
        notes = "; ".join(part for part in (entry.why, place, leaf, *(facts.marks if facts else ())) if part)
        yield f'<tr><td><code class="time">{_text(_time(one).replace("T", " "))}</code></td><td>{_text(facts.service if facts else "")}</td>'
        yield f"<td><details><summary>{_text(what)}</summary><pre>"
        yield from (_text(instead),) if data is None else self._detail(data)
        told = f'<span class="bad">{_text(outcome)}</span>' if bad else _text(outcome)
        yield f"</pre></details></td><td>{told}</td><td><small>{_text(notes)}</small></td></tr>\n"

    def _detail(self, data: bytes) -> Iterator[str]:
        """Canonical JSON as it is shown."""
        try:
            for piece in self._shown(data):
                yield _text(piece.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise VerificationError(f"what is shown on the page cannot be read: {error}") from error

    def _shown(self, data: bytes) -> Iterable[bytes]:
        """Indented for people; what that makes too long, since version 2 as it is."""
        if self._version == 1:
            return indented(data)
        pieces: list[bytes] = []
        length = 0
        for piece in indented(data):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_INDENTED_BYTES:
                self.plain = True
                return (data,)
        return pieces


def _verdicts(rows: Iterable[Shown], *, told_apart: bool) -> list[str]:
    """The newest verdict of each flow, in words; `told_apart`: on each trail, the one that the bundle is of first."""
    newest: dict[tuple[bool, str, str], dict[str, Any]] = {}
    for one in rows:
        if one.entry.kind == "verdict":
            flow = str(one.entry.detail.get("flow", ""))
            newest[(not one.main, one.trail, flow) if told_apart else (False, "", flow)] = one.entry.detail
    out = []
    for (_, trail, flow), detail in sorted(newest.items(), key=lambda item: item[0]):
        missing = detail.get("missing", [])
        names = f"; missing: {', '.join(map(str, missing))}" if isinstance(missing, list) and missing else ""
        verdict = str(detail.get("verdict", ""))
        on = f" on <code>{_text(trail)}</code>" if trail else ""
        out.append(f"<p>Verdict of the flow <b>{_text(flow)}</b>{on}: <b>{_text(verdict)}</b>{_text(names)}</p>\n")
    return out


def _time(one: Shown) -> str:
    return (one.facts and one.facts.time) or one.entry.recorded


def _text(text: str) -> str:
    """Text as HTML. Characters that steer the text around them (controls, bidirectional marks) are spelled out."""
    return escape(_STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text))
